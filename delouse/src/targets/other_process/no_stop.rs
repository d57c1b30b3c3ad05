//! The interface of `stop` for architectures for which it is not written: no thread is stopped, and no image is made.

use std::fs::File;
use std::time::Duration;

use super::handle::Process;
use super::memory::Memory;
use super::sample::Sample;
use crate::snapshot::{Mapping, StackCopy};

/// Never constructed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Gadgets {}

/// Always `None`.
pub(super) fn find_gadgets(_: &Memory, _: &[Mapping]) -> Option<Gadgets> {
    None
}

/// See `stop`.
pub(super) struct Request<'a> {
    pub(super) process: &'a Process,
    pub(super) memory: &'a File,
    pub(super) mappings: &'a [Mapping],
    pub(super) threads: &'a [i32],
    pub(super) gadgets: Option<Gadgets>,
    pub(super) is_stopped: bool,
    pub(super) left_over: &'a [i32],
    pub(super) max_pause: Duration,
}

/// See `stop`.
#[derive(Debug)]
pub(super) struct Captured {
    pub(super) threads: Vec<(Sample, Option<StackCopy>)>,
    pub(super) image: Result<Option<i32>, String>,
    pub(super) pause: Duration,
    pub(super) held: Duration,
    pub(super) helper: Option<Helper>,
}

/// Never constructed.
#[derive(Debug)]
pub(super) enum Helper {}

/// Captures nothing.
pub(super) fn capture(_: &Request<'_>) -> Captured {
    Captured {
        threads: Vec::new(),
        image: Err(
            "this command is built for an architecture on which it cannot stop threads (only x86_64 and aarch64 Linux)"
                .to_owned(),
        ),
        pause: Duration::ZERO,
        held: Duration::ZERO,
        helper: None,
    }
}
