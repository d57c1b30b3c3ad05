//! `/stacktrace/tokio` and `/stacktrace/rust`: what every task and every thread is doing.

use dropshot::{HttpError, RequestContext, endpoint};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::own_threads::Material;
use crate::report::{Filter, Part, TasksAnswer, ThreadsAnswer};
use crate::server::Context;
use crate::server::answer::{Answer, Rendered};
use crate::server::error::ApiError;
use crate::server::format::{Requested, negotiate};
use crate::server::front::{Parameters, respond};
use crate::tasks::engine::EngineName;
use crate::tasks::{TaskKind, TaskState};

/// Parameters of `/stacktrace/tokio`.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct TasksQuery {
    /// The format of the answer; by default `json`. Overrides `Accept`.
    format: Option<Requested<TasksAnswer>>,
    /// The engine to use; by default, the best that this build has.
    engine: Option<EngineName>,
    /// `true`: text shows every frame; else those of libraries are folded.
    full: Option<bool>,
    /// Only the tasks with these ids: `17`, or `17,18`; 0 is the main future.
    task: Option<String>,
    /// Only tasks in this state.
    state: Option<TaskState>,
    /// Only tasks of this kind. To choose tasks by what they wait for, use `match`.
    kind: Option<TaskKind>,
    /// Only tasks with this text, in any case, in the name or `file:line` of a function, in the place where they were
    /// spawned, or in the kind or address of a resource that they wait for.
    #[serde(rename = "match")]
    text: Option<String>,
    /// `true`: in `groups`, the tasks in groups of equal stacks, instead of each task in `tasks`.
    groups: Option<bool>,
    /// Only the tasks of the group with this `key`.
    group: Option<String>,
    /// How many tasks, or groups, to leave out at the beginning.
    offset: Option<usize>,
    /// How many tasks, or groups, to list at most.
    limit: Option<usize>,
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
    let renderer = negotiate(query.format, request.request.headers());
    let engine = query.engine;
    let part = Part {
        full: query.full.unwrap_or(false),
        groups: query.groups.unwrap_or(false),
        group: query.group,
        offset: query.offset.unwrap_or(0),
        limit: query.limit,
    };
    let filter = Filter::parse(query.task.as_deref(), query.state, query.kind, query.text.as_deref())?;
    let key = format!("/stacktrace/tokio engine={engine:?} {part} {filter} {}", renderer.format.name);
    let server = request.server.clone();
    let capture = move || {
        let mut answer = server.private.inspector.tasks_answer(engine, &filter, part.full)?;
        server.private.last_look.captured(&answer.capture);
        // Only if the answer has all of them.
        if answer.tasks.len() == answer.total {
            server.private.last_look.tasks(&answer.tasks);
        }
        answer.take(&part);
        let rendered = Rendered::new(renderer, &mut answer);
        drop(Material::new(answer));
        rendered
    };
    Ok(request.context().gate.run(key, capture).await?.as_ref().clone().into())
}

/// Parameters of `/stacktrace/rust`.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ThreadsQuery {
    /// The format of the answer; by default `json`. Overrides `Accept`.
    format: Option<Requested<ThreadsAnswer>>,
    /// `true`: text shows every frame; else those of libraries are folded.
    full: Option<bool>,
    /// `true`: stops all threads, so that their stacks are of the same moment. Otherwise each is captured separately.
    consistent: Option<bool>,
    /// `true`: in `groups`, the threads in groups of equal stacks, instead of each thread in `threads`.
    groups: Option<bool>,
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
    let renderer = negotiate(query.format, request.request.headers());
    let (full, consistent) = (query.full.unwrap_or(false), query.consistent.unwrap_or(false));
    let groups = query.groups.unwrap_or(false);
    let key = format!(
        "/stacktrace/rust full={full} consistent={consistent} groups={groups} {}",
        renderer.format.name
    );
    let server = request.server.clone();
    let capture = move || {
        let mut answer = server.private.inspector.threads_answer(consistent, full)?;
        server.private.last_look.captured(&answer.capture);
        if groups {
            answer.group(full);
        }
        Rendered::new(renderer, &mut answer)
    };
    Ok(request.context().gate.run(key, capture).await?.as_ref().clone().into())
}
