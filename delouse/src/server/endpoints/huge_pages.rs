//! `/huge-pages`: joins memory into huge pages, so that later captures stop the program for a shorter time.

use dropshot::{HttpError, RequestContext, endpoint};

use super::Common;
use crate::report::HugePages;
use crate::server::answer::{Answer, Rendered};
use crate::server::error::ApiError;
use crate::server::format::negotiate;
use crate::server::front::{Parameters, respond};
use crate::server::{Context, other_program};
use crate::snapshot::micros;
use crate::targets;

/// Joins the program's memory into huge pages, so that captures stop it for a tenth of the time
///
/// For a program with so much memory that captures are refused because they would stop it for too long. The program runs
/// meanwhile, and takes no more memory than before. Memory that it writes while a capture is being read is split into
/// small pages again.
#[endpoint { method = POST, path = "/huge-pages" }]
pub(super) async fn huge_pages(
    request: RequestContext<Context>,
    query: Parameters<Common<HugePages>>,
) -> Result<Answer<HugePages>, HttpError> {
    respond(request, query, join).await
}

async fn join(
    request: RequestContext<Context>,
    query: Common<HugePages>,
) -> Result<Answer<HugePages>, ApiError> {
    let renderer = negotiate(query.format, request.request.headers());
    let context = request.context();
    other_program::refuse_huge_pages(&context.inspector.inspected())?;
    let join = || Ok(targets::join_huge_pages()?);
    let joined = context.gate.run("/huge-pages".to_owned(), join).await?;
    let mut answer = HugePages {
        anonymous_bytes: joined.prediction.anonymous,
        huge_bytes: joined.huge,
        total_us: joined.total_us,
        pause_us: micros(joined.prediction.pause),
        budget_us: micros(context.settings.limits.budget),
        notes: joined.notes.clone(),
    };
    Ok(Rendered::new(renderer, &mut answer)?.into())
}
