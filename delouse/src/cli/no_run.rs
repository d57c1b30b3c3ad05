//! `delouse run`, on systems where other processes cannot be captured.

use std::ffi::OsString;
use std::time::Duration;

use super::arguments::Capturing;
use super::error::CliError;

/// Not supported here.
pub(super) fn run(_: &[OsString], _: Option<Duration>, _: &Capturing) -> Result<u8, CliError> {
    Err(CliError::Usage("other processes can be captured on Linux only".to_owned()))
}
