//! The interface of `other_process` for systems other than Linux, where no process can be read.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;

use super::SnapshotError;
use super::core_dump::{CoreImage, ProcessIds, ThreadNote};
use crate::snapshot::{Address, Capture, Mapping, Snapshot, Thread};

/// How a process may be captured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AttachOptions {
    /// Whether threads may be stopped.
    pub(crate) pause: bool,
    /// The longest stop that may be predicted.
    pub(crate) max_pause: Duration,
}

impl Default for AttachOptions {
    fn default() -> Self {
        Self { pause: true, max_pause: Duration::from_millis(50) }
    }
}

/// Why a process cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AttachError {
    /// On this system.
    #[error("other processes can only be read on Linux: use the program's own server, or a core file")]
    Unsupported,
}

/// Never constructed.
#[derive(Debug)]
pub(crate) enum OtherProcess {}

/// Never constructed.
#[derive(Debug)]
pub(crate) enum Identity {}

impl Identity {
    /// Never called.
    pub(crate) fn check_running(&self) -> Result<(), AttachError> {
        match *self {}
    }
}

/// Always [`AttachError::Unsupported`].
pub(crate) fn attach_known(
    _: u32,
    _: &AttachOptions,
    _: &OnceLock<Identity>,
) -> Result<OtherProcess, AttachError> {
    Err(AttachError::Unsupported)
}

/// Never constructed.
pub(crate) type CapturedProcess = OtherProcess;

/// Always [`AttachError::Unsupported`].
pub(crate) fn capture_for_core(
    _: u32,
    _: &AttachOptions,
    _: &OnceLock<Identity>,
) -> Result<CapturedProcess, AttachError> {
    Err(AttachError::Unsupported)
}

impl CoreImage for OtherProcess {
    fn ids(&self) -> ProcessIds {
        match *self {}
    }

    fn auxv(&self) -> Vec<u8> {
        match *self {}
    }

    fn listed_mappings(&self) -> &[Mapping] {
        match *self {}
    }

    fn pagemap(&self) -> Option<&File> {
        match *self {}
    }

    fn living_pagemap(&self) -> Option<File> {
        match *self {}
    }

    fn registers(&self) -> Vec<(i32, &[u64])> {
        match *self {}
    }

    fn thread_notes(&self, _: usize) -> Vec<ThreadNote> {
        match *self {}
    }

    fn intact(&self) -> Result<(), SnapshotError> {
        match *self {}
    }
}

impl OtherProcess {
    /// Always an error.
    pub(crate) fn open(_: u32) -> io::Result<Self> {
        Err(io::Error::other(AttachError::Unsupported))
    }

    /// Never called.
    pub(crate) fn executable(&self) -> &Path {
        match *self {}
    }

    /// Never called.
    #[allow(dead_code, reason = "for messages of the command")]
    pub(crate) fn executable_name(&self) -> &Path {
        match *self {}
    }
}

impl Snapshot for OtherProcess {
    fn read(&self, _: Address, _: &mut [u8]) -> usize {
        match *self {}
    }

    fn mappings(&self) -> &[Mapping] {
        match *self {}
    }

    fn threads(&self) -> &[Thread] {
        match *self {}
    }

    fn capture(&self) -> &Capture {
        match *self {}
    }
}
