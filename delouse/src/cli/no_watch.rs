//! `delouse watch`, on systems where other processes cannot be captured.

use std::path::Path;
use std::time::Duration;

use super::arguments::Subject;
use super::error::CliError;

/// Not supported here.
pub(super) fn watch(_: Subject, _: Duration, _: Option<&Path>) -> Result<u8, CliError> {
    Err(CliError::Usage("programs can be watched on Linux only".to_owned()))
}
