//! `/elf/info`: our own binary, and what it allows delouse to tell.

use dropshot::{HttpError, Query, RequestContext, endpoint};

use super::{Common, admit_common};
use crate::debuginfo::elf::{ElfInfo, inspect_self};
use crate::report;
use crate::server::Context;
use crate::server::answer::Answer;
use crate::server::error::ApiError;

/// This program's own binary: how it was built, and how good delouse's answers are for it
#[endpoint { method = GET, path = "/elf/info" }]
pub(super) async fn elf_info(
    request: RequestContext<Context>,
    query: Query<Common>,
) -> Result<Answer<ElfInfo>, HttpError> {
    let format = admit_common(&request, query)?;
    // Reads files, but not for long enough to keep captures out.
    let info = tokio::task::spawn_blocking(|| inspect_self().map_err(|error| error.to_string()));
    let info = info.await.map_err(|e| ApiError::Failed(e.to_string()))?.map_err(ApiError::Failed)?;
    Answer::new(format, &info, || report::elf::text(&info))
}
