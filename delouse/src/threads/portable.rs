//! What can be had everywhere: the stack of the calling thread, by the `backtrace` crate.
//!
//! For systems without the signal engine (not Linux, another architecture, the signal taken).

use super::{Activity, StackFrame, ThreadStack, classify};
use crate::debuginfo::unwind::MAX_FRAMES;
use crate::snapshot::{Capture, room};

/// The stack of the calling thread as the one element of the answer, with a note that says so. `why` tells
/// why there is no more, and what to do about it.
///
/// Not for signal handlers; allocates, and may take the loader's lock.
pub(crate) fn stacks(why: &str) -> (Vec<ThreadStack>, Capture) {
    let mut frames = Vec::new();
    let may_resolve = room::symbolizer().is_ok();
    backtrace::trace(|frame| {
        let pc = frame.ip() as u64;
        let address = format!("{pc:#x}");
        let before = frames.len();
        // The crate maps whole files, and keeps them.
        if !may_resolve {
            frames.push(StackFrame {
                function: None,
                file: None,
                line: None,
                module: None,
                address,
                own: false,
                inlined: false,
            });
            return frames.len() < MAX_FRAMES;
        }
        backtrace::resolve_frame(frame, |symbol| {
            let (file, own) = symbol
                .filename()
                .map(|path| crate::debuginfo::symbols::shorten(&path.to_string_lossy(), None))
                .map(|(file, origin)| (file, origin == crate::debuginfo::symbols::Origin::Own))
                .unzip();
            frames.push(StackFrame {
                function: symbol.name().map(|name| format!("{name:#}")),
                file,
                line: symbol.lineno(),
                module: None,
                address: address.clone(),
                own: own.unwrap_or(false),
                inlined: true,
            });
        });
        if let Some(last) = frames.get_mut(before..).and_then(<[StackFrame]>::last_mut) {
            last.inlined = false;
        }
        frames.len() < MAX_FRAMES
    });
    let name = std::thread::current().name().unwrap_or_default().to_owned();
    let role = classify::role(&name, &frames);
    let thread = ThreadStack {
        tid: 0,
        name,
        state: Some("running".to_owned()),
        role,
        activity: Activity::Running,
        cpu_us: None,
        runs_task: None,
        unavailable: None,
        kernel: None,
        truncated: None,
        frames,
    };
    let note = format!("only the thread that answers is shown, the others cannot be asked: {why}");
    (vec![thread], Capture { consistent: false, notes: vec![note], ..Capture::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_calling_thread_is_shown_and_the_note_says_why_no_other() {
        let (threads, capture) = stacks("no signal engine on this system");
        let [thread] = threads.as_slice() else { panic!("one thread") };
        let here = "the_calling_thread_is_shown_and_the_note_says_why_no_other";
        let frame = thread.frames.iter().find(|f| f.function.as_deref().is_some_and(|f| f.contains(here)));
        assert!(frame.is_some_and(|f| f.line.is_some()), "{thread:#?}");
        assert!(!capture.consistent);
        assert!(capture.notes.iter().any(|n| n.contains("no signal engine")));
    }
}
