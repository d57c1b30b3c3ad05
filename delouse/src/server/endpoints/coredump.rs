//! `/coredump`: ends the program with a core file.

use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use dropshot::{HttpError, RequestContext, endpoint};
use tokio::sync::oneshot;

use super::{Common, format};
use crate::server::answer::{Answer, Rendered};
use crate::server::error::ApiError;
use crate::server::front::{Parameters, respond};
use crate::server::{Context, access, thread};
use crate::snapshot::core_pattern::CorePlan;

/// How long the client has to take its answer.
const ANSWER: Duration = Duration::from_secs(1);
/// From the answer being written out to the kernel having it: hyper flushes in the same poll.
const FLUSH: Duration = Duration::from_millis(50);

/// Ends the program with a core file, and says where that will be
#[endpoint { method = POST, path = "/coredump" }]
pub(super) async fn coredump(
    request: RequestContext<Context>,
    query: Parameters<Common>,
) -> Result<Answer<CorePlan>, HttpError> {
    respond(request, query, crash).await
}

/// The same, for clients that are no browser: following a link must not end a program
#[endpoint { method = GET, path = "/coredump" }]
pub(super) async fn coredump_by_get(
    request: RequestContext<Context>,
    query: Parameters<Common>,
) -> Result<Answer<CorePlan>, HttpError> {
    respond(request, query, crash).await
}

async fn crash(request: RequestContext<Context>, query: Common) -> Result<Answer<CorePlan>, ApiError> {
    let format = format(&request, query.format.as_deref())?;
    let headers = request.request.headers();
    if request.request.method() == http::Method::GET && access::is_browser(headers) {
        return Err(ApiError::BrowserMayNot);
    }
    let (answered, wait) = mpsc::channel::<()>();
    let (tell, told) = oneshot::channel();
    let body = move || {
        // The thread that aborts makes the plan: a core's name may hold its name and number.
        let raised = CorePlan::raise_limit();
        let mut plan = match CorePlan::read() {
            Ok(plan) => plan,
            Err(error) => return drop(tell.send(Err(format!("/proc/sys/kernel/core_pattern: {error}")))),
        };
        if let Err(error) = raised {
            plan.obstacles.push(format!("the core limit could not be raised: {error}"));
        }
        if tell.send(Ok(plan)).is_ok() {
            // Disconnected when the answer has been written out, or the client is gone.
            let _answered = wait.recv_timeout(ANSWER);
            std::thread::sleep(FLUSH);
            std::process::abort();
        }
    };
    thread::spawn("delouse-abort", body)?;
    let plan = told.await.map_err(|_| ApiError::Failed("the aborting thread is gone".to_owned()))?;
    let plan = plan.map_err(ApiError::Failed)?;
    request.context().log.say(&format!("aborting, as asked by /coredump\n{plan}"));
    let answer: Answer<CorePlan> = Rendered::new(format, &plan, || format!("{plan}\n"))?.into();
    Ok(answer.when_written(Arc::new(answered)))
}
