//! `/huge-pages`: makes later captures stop the program for a moment only.

use std::fmt;

use dropshot::{HttpError, RequestContext, endpoint};
use schemars::JsonSchema;
use serde::Serialize;

use super::{Common, format};
use crate::server::Context;
use crate::server::answer::{Answer, Rendered};
use crate::server::error::ApiError;
use crate::server::front::{Parameters, respond};
use crate::snapshot::{self, micros};

/// What joining memory into huge pages has come to.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct HugePages {
    /// Anonymous memory of the program in bytes: what a fork copies page by page.
    anonymous_bytes: u64,
    /// How much of it is in huge pages now, in bytes; null where the kernel does not tell (before Linux 6.7).
    huge_bytes: Option<u64>,
    /// How long it took to join them, in microseconds. The program ran.
    total_us: u64,
    /// About how long the program would stand still now for `/core`, in microseconds; for tasks, somewhat shorter.
    pause_us: u64,
    /// How long it may, in microseconds. `DELOUSE_PAUSE_BUDGET_MS` sets it.
    budget_us: u64,
    /// Why there is not more in huge pages.
    notes: Vec<String>,
}

/// Joins the program's memory into huge pages: a capture stops it for a tenth of the time after that
///
/// For a program with more memory than a capture may be made of within the time that it may stop. It goes on
/// meanwhile, and takes no more memory than before. What it writes while a capture is being read comes apart again.
#[endpoint { method = POST, path = "/huge-pages" }]
pub(super) async fn huge_pages(
    request: RequestContext<Context>,
    query: Parameters<Common>,
) -> Result<Answer<HugePages>, HttpError> {
    respond(request, query, join).await
}

async fn join(request: RequestContext<Context>, query: Common) -> Result<Answer<HugePages>, ApiError> {
    let format = format(&request, query.format.as_deref())?;
    let context = request.context();
    let join = || Ok(snapshot::join_huge_pages()?);
    let joined = context.gate.run("/huge-pages".to_owned(), join).await?;
    let answer = HugePages {
        anonymous_bytes: joined.prediction.anonymous,
        huge_bytes: joined.huge,
        total_us: joined.total_us,
        pause_us: micros(joined.prediction.pause),
        budget_us: micros(context.settings.limits.budget),
        notes: joined.notes.clone(),
    };
    Ok(Rendered::new(format, &answer, || answer.to_string())?.into())
}

impl fmt::Display for HugePages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (anonymous, took) = (self.anonymous_bytes >> 20, self.total_us / 1000);
        match self.huge_bytes {
            Some(huge) => {
                writeln!(f, "{} of {anonymous} MiB are in huge pages now; that took {took} ms", huge >> 20)
            }
            None => {
                writeln!(f, "{anonymous} MiB were looked through for what can be joined; that took {took} ms")
            }
        }?;
        writeln!(
            f,
            "a capture of threads and memory would stop the program for about {} µs of {} µs allowed",
            self.pause_us, self.budget_us
        )?;
        self.notes.iter().try_for_each(|note| writeln!(f, "note: {note}"))
    }
}
