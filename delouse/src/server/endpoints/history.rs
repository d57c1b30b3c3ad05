//! `/history`: what watching the program has found.

use dropshot::{HttpError, RequestContext, endpoint};

use super::Common;
use crate::report::HistoryAnswer;
use crate::server::Context;
use crate::server::answer::{Answer, Rendered};
use crate::server::format::negotiate;
use crate::server::front::{Parameters, respond};

/// What watching has found: findings that came, changed and went, the newest first
///
/// With `DELOUSE_WATCH=30s`, or `Config::watch`. Captures nothing.
#[endpoint { method = GET, path = "/history" }]
pub(super) async fn history(
    request: RequestContext<Context>,
    query: Parameters<Common<HistoryAnswer>>,
) -> Result<Answer<HistoryAnswer>, HttpError> {
    respond(request, query, async |request, query| {
        let renderer = negotiate(query.format, request.request.headers());
        Ok(Rendered::new(renderer, &mut request.context().journal.answer())?.into())
    })
    .await
}
