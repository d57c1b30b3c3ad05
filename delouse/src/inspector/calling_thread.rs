//! Captures the stack of the calling thread only, by the `backtrace` crate.
//!
//! For systems where threads cannot be captured by signals: not Linux, another architecture, or no free signal.

use crate::debuginfo::unwind::MAX_FRAMES;
use crate::host::memory_budget;
use crate::snapshot::Capture;
use crate::threads::{Activity, StackFrame, ThreadStack, classify};

/// The stack of the calling thread, with a note that contains `why`: the reason why other threads are missing, and what to
/// do about it.
///
/// Not for signal handlers: allocates, and may take the loader's lock.
pub(super) fn stacks(why: &str) -> (Vec<ThreadStack>, Capture) {
    let mut frames = Vec::new();
    let may_resolve = memory_budget::check_symbolizer().is_ok();
    backtrace::trace(|frame| {
        let pc = frame.ip() as u64;
        let address = format!("{pc:#x}");
        let before = frames.len();
        // To resolve symbols, the crate maps whole files and keeps them.
        if !may_resolve {
            frames.push(StackFrame {
                function: None,
                file: None,
                line: None,
                module: None,
                address,
                own: false,
                inlined: false,
                guessed: false,
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
                address: address.clone(),
                own: own.unwrap_or(false),
                inlined: true,
                ..StackFrame::default()
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
        name,
        state: Some("running".to_owned()),
        role,
        activity: Activity::Running,
        frames,
        ..ThreadStack::default()
    };
    let note = format!("only the thread that answers is shown, the others cannot be captured: {why}");
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
