//! `delouse serve`, on systems where other processes cannot be captured.

use super::arguments::Subject;
use super::error::CliError;

/// Not supported here.
pub(super) fn serve(_: Subject, _: Option<&str>) -> Result<u8, CliError> {
    Err(CliError::Usage("other programs are served on Linux only".to_owned()))
}
