//! `/stacktrace/tokio` and `/stacktrace/rust`: what every task and every thread is doing.

use dropshot::{HttpError, RequestContext, endpoint};
use schemars::JsonSchema;
use serde::Deserialize;

use super::{format, parse};
use crate::report::{Filter, TasksAnswer, ThreadsAnswer};
use crate::server::Context;
use crate::server::answer::{Answer, Format, Rendered};
use crate::server::error::ApiError;
use crate::server::front::{Parameters, respond};
use crate::server::thread::Material;
use crate::tasks::engine::EngineName;
use crate::{runtime, tasks, threads};

/// Parameters of `/stacktrace/tokio`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct TasksQuery {
    /// `json` (the default) or `text`; over `Accept`.
    format: Option<String>,
    /// The engine to use; the best that this build has where it is left out.
    engine: Option<String>,
    /// `true`: text shows every frame; else those of libraries are folded.
    full: Option<bool>,
    /// Only the tasks with these ids: `17`, or `17,18`; 0 is the main future.
    task: Option<String>,
    /// Only tasks in this state: `idle`, `scheduled`, `running` or `complete`.
    state: Option<String>,
    /// Only tasks of this kind: `task`, `main`, `local` or `blocking`.
    kind: Option<String>,
    /// Only tasks that have this text, in capitals or not, in a function's name or its `file:line`, in the
    /// place where they were spawned, or in the kind or address of what they wait for.
    #[serde(rename = "match")]
    text: Option<String>,
}

/// Every task: its async stack, its state, what it waits for
#[endpoint { method = GET, path = "/stacktrace/tokio" }]
pub(super) async fn stacktrace_tokio(
    request: RequestContext<Context>,
    query: Parameters<TasksQuery>,
) -> Result<Answer<TasksAnswer>, HttpError> {
    respond(request, query, tasks).await
}

async fn tasks(request: RequestContext<Context>, query: TasksQuery) -> Result<Answer<TasksAnswer>, ApiError> {
    let format = format(&request, query.format.as_deref())?;
    let name: Option<EngineName> = parse(query.engine.as_deref(), ApiError::UnknownEngine)?;
    let (task, state) = (query.task.as_deref(), query.state.as_deref());
    let filter = Filter::parse(task, state, query.kind.as_deref(), query.text.as_deref());
    let filter = filter.map_err(ApiError::from)?;
    let full = query.full.unwrap_or(false);
    let engine = query.engine.as_deref().unwrap_or_default();
    let key = format!("/stacktrace/tokio engine={engine} full={full} {filter} {format:?}");
    let server = request.server.clone();
    let capture = move || {
        let roots = runtime::roots().without(&server.private.runtime);
        let list = server.private.engines.list(name, &roots)?;
        let mut answer = TasksAnswer::new(list, &server.private.symbols, &filter, full);
        let tasks = Material::new(std::mem::take(&mut answer.tasks));
        if format == Format::Json {
            return Rendered::long(&answer, "tasks", tasks);
        }
        Rendered::new(format, &answer, || answer.stacktrace.clone())
    };
    Ok(request.context().gate.run(key, capture).await?.as_ref().clone().into())
}

/// Parameters of `/stacktrace/rust`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ThreadsQuery {
    /// `json` (the default) or `text`; over `Accept`.
    format: Option<String>,
    /// `true`: text shows every frame; else those of libraries are folded.
    full: Option<bool>,
    /// `true`: all threads at one moment, for which they stand still together; else each at its own.
    consistent: Option<bool>,
}

/// Every OS thread: its stack, its state, what it runs
#[endpoint { method = GET, path = "/stacktrace/rust" }]
pub(super) async fn stacktrace_rust(
    request: RequestContext<Context>,
    query: Parameters<ThreadsQuery>,
) -> Result<Answer<ThreadsAnswer>, HttpError> {
    respond(request, query, threads).await
}

async fn threads(
    request: RequestContext<Context>,
    query: ThreadsQuery,
) -> Result<Answer<ThreadsAnswer>, ApiError> {
    let format = format(&request, query.format.as_deref())?;
    let (full, consistent) = (query.full.unwrap_or(false), query.consistent.unwrap_or(false));
    let key = format!("/stacktrace/rust full={full} consistent={consistent} {format:?}");
    let server = request.server.clone();
    let capture = move || {
        tasks::learn();
        let captured = threads::capture::capture(consistent, &server.private.symbols);
        let answer = ThreadsAnswer::new(captured, full);
        Rendered::new(format, &answer, || answer.stacktrace.clone())
    };
    Ok(request.context().gate.run(key, capture).await?.as_ref().clone().into())
}
