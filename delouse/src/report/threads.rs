//! The answer of `/stacktrace/rust`.

use std::fmt::Write as _;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::path::shorten;
use crate::snapshot::Capture;
use crate::threads::ThreadStack;

/// Every OS thread of the process.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct ThreadsAnswer {
    /// All of it as text for people.
    pub stacktrace: String,
    /// How the capture went.
    pub capture: Capture,
    /// The threads, ordered by id.
    pub threads: Vec<ThreadStack>,
}

impl ThreadsAnswer {
    pub(crate) fn new((threads, capture): (Vec<ThreadStack>, Capture)) -> Self {
        Self { stacktrace: text(&threads, &capture), capture, threads }
    }
}

fn text(threads: &[ThreadStack], capture: &Capture) -> String {
    let current_dir = std::env::current_dir().unwrap_or_default().to_string_lossy().into_owned();
    let mut out = String::new();
    for thread in threads {
        let _infallible = writeln!(out, "thread {} ({})", thread.tid, thread.name);
        for frame in &thread.frames {
            let _infallible = write!(out, "  {}", frame.function.as_deref().unwrap_or(&frame.address));
            if let (Some(file), Some(line)) = (&frame.file, frame.line) {
                let _infallible = write!(out, " at {}:{line}", shorten(file, &current_dir));
            }
            out.push('\n');
        }
    }
    for note in &capture.notes {
        let _infallible = write!(out, "\nnote: {note}\n");
    }
    out
}
