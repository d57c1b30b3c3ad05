//! `/elf/info`: our own binary, and what it allows delouse to tell.

use dropshot::{HttpError, RequestContext, endpoint};

use super::{Common, format};
use crate::debuginfo::elf::{ElfInfo, inspect_self};
use crate::report;
use crate::server::Context;
use crate::server::answer::{Answer, Rendered};
use crate::server::error::ApiError;
use crate::server::front::{Parameters, respond};

/// This program's own binary: how it was built, and how good delouse's answers are for it
#[endpoint { method = GET, path = "/elf/info" }]
pub(super) async fn elf_info(
    request: RequestContext<Context>,
    query: Parameters<Common>,
) -> Result<Answer<ElfInfo>, HttpError> {
    respond(request, query, async |request, query| {
        let format = format(&request, query.format.as_deref())?;
        // Reads files, but not for so long that captures must wait: once at a time, behind a gate of its own.
        let inspect = || inspect_self().map_err(|error| ApiError::Failed(error.to_string()));
        let info = request.context().elf_gate.run("/elf/info".to_owned(), inspect).await?;
        Ok(Rendered::new(format, &*info, || report::elf::text(&info))?.into())
    })
    .await
}
