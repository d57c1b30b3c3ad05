//! Why a command has no answer.

use std::io;
use std::path::PathBuf;

use crate::inspector::foreign::ForeignError;
use crate::inspector::target::TargetError;
use crate::report::FilterError;
use crate::server::StartError;

/// Why a command fails: exit status 1, with this message.
#[derive(Debug, thiserror::Error)]
pub(super) enum CliError {
    #[error(transparent)]
    Foreign(#[from] ForeignError),
    #[error("{0}")]
    Filter(#[from] FilterError),
    #[error("{0}")]
    Usage(String),
    #[error("{}: {error}", path.display())]
    File { path: PathBuf, error: io::Error },
    #[error("{0}")]
    Server(#[from] ServerError),
    #[error(transparent)]
    Start(#[from] StartError),
    #[error("cannot write the answer: {0}")]
    Output(io::Error),
    /// The answer was printed, and does not say whether anything is wrong.
    #[error("{0}")]
    Unknown(String),
}

/// Why a server gives no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum ServerError {
    #[error("{url}: no server answers there ({reason}). {remedy}")]
    Absent { url: String, reason: String, remedy: &'static str },
    #[error("{url}: the answer broke off: {reason}")]
    Broken { url: String, reason: String },
    #[error("{url}: {message}")]
    Refused { url: String, message: String },
    #[error("{url} is no server of delouse: {reason}")]
    OtherServer { url: String, reason: String },
}

impl From<TargetError> for CliError {
    fn from(error: TargetError) -> Self {
        Self::Foreign(error.into())
    }
}
