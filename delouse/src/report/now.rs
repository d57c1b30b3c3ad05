//! What a running task is doing: the part of its thread's stack that is the task's.

use std::fmt::Write as _;

use crate::threads::{StackFrame, ThreadStack, polled};

/// Innermost frames that are shown where none is the program's own.
const INNERMOST: usize = 3;

/// The frames of the task that `thread` polls, innermost first, each as a line: the program's own and what
/// the innermost of them called; all with `full`.
pub(super) fn lines(thread: &ThreadStack, full: bool) -> Vec<String> {
    let frames = polled::task_frames(&thread.frames).unwrap_or(&thread.frames);
    let shown: Vec<&StackFrame> = match frames.iter().position(|frame| frame.own) {
        _ if full => frames.iter().collect(),
        None => frames.iter().take(INNERMOST).collect(),
        Some(own) => {
            let callee = own.checked_sub(1).and_then(|callee| frames.get(callee));
            callee.into_iter().chain(frames.iter().filter(|frame| frame.own)).collect()
        }
    };
    let mut lines: Vec<(String, usize)> = Vec::new();
    for line in shown.into_iter().map(line) {
        match lines.last_mut() {
            // A recursion.
            Some((last, times)) if *last == line => *times += 1,
            _ => lines.push((line, 1)),
        }
    }
    let text = |(line, times)| if times > 1 { format!("{times} × {line}") } else { line };
    lines.into_iter().map(text).collect()
}

fn line(frame: &StackFrame) -> String {
    let mut line = frame.function.clone().unwrap_or_else(|| frame.address.clone());
    if let (Some(file), Some(number)) = (&frame.file, frame.line) {
        let _infallible = write!(line, " at {file}:{number}");
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::threads::{Activity, ThreadRole};

    fn thread(frames: &[(&str, bool)]) -> ThreadStack {
        let frame = |(name, own): &(&str, bool)| StackFrame {
            function: Some((*name).to_owned()),
            file: Some("src/main.rs".to_owned()),
            line: Some(7),
            address: "0x1".to_owned(),
            own: *own,
            ..StackFrame::default()
        };
        ThreadStack {
            tid: 1,
            role: ThreadRole::TokioWorker,
            activity: Activity::Lock,
            frames: frames.iter().map(frame).collect(),
            ..ThreadStack::default()
        }
    }

    const WORKER: [(&str, bool); 10] = [
        ("syscall", false),
        ("std::sync::poison::mutex::Mutex<T>::lock", false),
        ("app::dive", true),
        ("app::dive", true),
        ("<tokio::runtime::task::join::JoinHandle<T> as core::future::future::Future>::poll", false),
        ("app::serve::{{closure}}", true),
        ("tokio::runtime::task::core::Core<T,S>::poll::{{closure}}", false),
        ("tokio::runtime::task::raw::poll", false),
        ("app::main", true),
        ("_start", false),
    ];

    #[test]
    fn the_programs_own_frames_and_what_they_called() {
        assert_eq!(
            lines(&thread(&WORKER), false),
            [
                "std::sync::poison::mutex::Mutex<T>::lock at src/main.rs:7",
                "2 × app::dive at src/main.rs:7",
                "app::serve::{{closure}} at src/main.rs:7",
            ]
        );
        assert_eq!(lines(&thread(&WORKER), true).len(), 5, "all of the task's, none of main's");
    }

    #[test]
    fn without_own_frames_the_innermost() {
        let frames = [("a", false), ("b", false), ("c", false), ("d", false)];
        assert_eq!(lines(&thread(&frames), false).len(), INNERMOST);
        assert_eq!(lines(&thread(&[]), false), Vec::<String>::new());
    }
}
