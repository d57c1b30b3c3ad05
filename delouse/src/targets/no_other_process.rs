//! The interface of `other_process` for systems other than Linux, where no process can be read.

use std::io;
use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;

use super::never::Never;

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
pub(crate) type OtherProcess = Never;

/// Never constructed.
pub(crate) type Identity = Never;

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

impl Never {
    /// Never called.
    pub(crate) fn check_running(&self) -> Result<(), AttachError> {
        match *self {}
    }

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
