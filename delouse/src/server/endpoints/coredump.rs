//! `/coredump`: ends the program with a core file.

use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use dropshot::{HttpError, RequestContext, endpoint};
use tokio::sync::oneshot;

use super::Common;
use crate::own_threads::spawn;
use crate::server::answer::{Answer, Rendered};
use crate::server::error::ApiError;
use crate::server::format::negotiate;
use crate::server::front::{Parameters, respond};
use crate::server::{Context, access, other_program};
use crate::snapshot::OwnThread;
use crate::targets::core_pattern::CorePlan;

/// How long to wait until the answer is written to the client.
const ANSWER: Duration = Duration::from_secs(1);
/// Time for hyper to flush the answer to the kernel, which it does in the same poll.
const FLUSH: Duration = Duration::from_millis(50);

/// Ends the program with a core file, and reports where that will be
#[endpoint { method = POST, path = "/coredump" }]
pub(super) async fn coredump(
    request: RequestContext<Context>,
    query: Parameters<Common<CorePlan>>,
) -> Result<Answer<CorePlan>, HttpError> {
    respond(request, query, crash).await
}

/// The same, except for browsers, where following a link must not end a program
#[endpoint { method = GET, path = "/coredump" }]
pub(super) async fn coredump_by_get(
    request: RequestContext<Context>,
    query: Parameters<Common<CorePlan>>,
) -> Result<Answer<CorePlan>, HttpError> {
    respond(request, query, crash).await
}

async fn crash(
    request: RequestContext<Context>,
    query: Common<CorePlan>,
) -> Result<Answer<CorePlan>, ApiError> {
    other_program::refuse_coredump(&request.context().inspector.inspected())?;
    let renderer = negotiate(query.format, request.request.headers());
    let headers = request.request.headers();
    if request.request.method() == http::Method::GET && access::is_browser(headers) {
        return Err(ApiError::BrowserMayNot);
    }
    let (answered, wait) = mpsc::channel::<()>();
    let (sender, receiver) = oneshot::channel();
    let body = move || {
        // The thread that aborts reads the plan, because the file name may contain the thread's name and id.
        let raised = CorePlan::raise_limit();
        let mut plan = match CorePlan::read() {
            Ok(plan) => plan,
            Err(error) => return drop(sender.send(Err(format!("/proc/sys/kernel/core_pattern: {error}")))),
        };
        if let Err(error) = raised {
            plan.obstacles.push(format!("the core limit could not be raised: {error}"));
        }
        if sender.send(Ok(plan)).is_ok() {
            // Disconnected when the answer is written, or the client has disconnected.
            let _answered = wait.recv_timeout(ANSWER);
            std::thread::sleep(FLUSH);
            std::process::abort();
        }
    };
    spawn(OwnThread::Abort, body)?;
    let plan = receiver.await.map_err(|_| ApiError::Failed("the aborting thread has ended".to_owned()))?;
    let mut plan = plan.map_err(ApiError::Failed)?;
    request.context().log.say(&format!("aborting, as requested by /coredump\n{plan}"));
    let answer: Answer<CorePlan> = Rendered::new(renderer, &mut plan)?.into();
    Ok(answer.when_written(Arc::new(answered)))
}
