//! The portable answer: the stack of the thread that asks, by the crate `backtrace`, and no other.

use std::time::Instant;

use super::{StackFrame, ThreadStack};
use crate::snapshot::Capture;

/// The calling thread's stack, marked as the only one.
pub(crate) fn capture() -> (Vec<ThreadStack>, Capture) {
    let begun = Instant::now();
    let mut frames = Vec::new();
    for frame in backtrace::Backtrace::new().frames() {
        let address = format!("{:#x}", frame.ip() as usize);
        frames.extend(frame.symbols().iter().map(|symbol| StackFrame {
            function: symbol.name().map(|name| format!("{name:#}")),
            file: symbol.filename().map(|file| file.to_string_lossy().into_owned()),
            line: symbol.lineno(),
            module: None,
            address: address.clone(),
        }));
        if frame.symbols().is_empty() {
            frames.push(StackFrame { function: None, file: None, line: None, module: None, address });
        }
    }
    let thread = ThreadStack {
        tid: tid(),
        name: std::thread::current().name().unwrap_or_default().to_owned(),
        state: Some("running".to_owned()),
        runs_task: None,
        unavailable: None,
        frames,
    };
    let capture = Capture {
        pause_us: 0,
        total_us: u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX),
        consistent: true,
        notes: vec![
            "one thread only, delouse's own: the engine for all threads is not in this build".to_owned(),
        ],
    };
    (vec![thread], capture)
}

/// The kernel's id of the calling thread: the link `/proc/thread-self` ends in it. 0 where there is none.
fn tid() -> i32 {
    let link = std::fs::read_link("/proc/thread-self").ok();
    let id = link.as_ref().and_then(|l| l.file_name()).and_then(|n| n.to_str()).and_then(|n| n.parse().ok());
    id.unwrap_or(0)
}
