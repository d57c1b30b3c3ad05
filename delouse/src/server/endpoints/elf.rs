//! `/elf/info`: the program's binary, and which information it lets delouse report.

use dropshot::{HttpError, RequestContext, endpoint};

use super::Common;
use crate::debuginfo::elf::ElfInfo;
use crate::server::Context;
use crate::server::answer::{Answer, Rendered};
use crate::server::format::negotiate;
use crate::server::front::{Parameters, respond};

/// The program's binary: how it was built, and how good delouse's answers are for it
#[endpoint { method = GET, path = "/elf/info" }]
pub(super) async fn elf_info(
    request: RequestContext<Context>,
    query: Parameters<Common<ElfInfo>>,
) -> Result<Answer<ElfInfo>, HttpError> {
    respond(request, query, async |request, query| {
        let renderer = negotiate(query.format, request.request.headers());
        // This only reads files. It has its own gate, so that captures do not wait for it.
        let inspector = request.context().inspector.clone();
        let inspect = move || Ok(inspector.elf()?);
        let info = request.context().elf_gate.run("/elf/info".to_owned(), inspect).await?;
        Ok(Rendered::new(renderer, &mut info.as_ref().clone())?.into())
    })
    .await
}
