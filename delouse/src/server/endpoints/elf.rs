//! `/elf/info`: our own binary, and what it allows delouse to tell.

use dropshot::{HttpError, Query, RequestContext, endpoint};

use super::{Common, admit_common};
use crate::debuginfo::elf::{ElfInfo, inspect};
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
    let info = tokio::task::spawn_blocking(|| {
        let path = std::env::current_exe().map_err(|e| format!("the path of our own executable: {e}"))?;
        // The path may lead to a newer build by now; the link of the kernel leads to what runs.
        inspect(&path).or_else(|_| inspect("/proc/self/exe".as_ref())).map_err(|e| e.to_string())
    });
    let info = info.await.map_err(|e| ApiError::Failed(e.to_string()))?.map_err(ApiError::Failed)?;
    Answer::new(format, &info, || report::elf::text(&info))
}
