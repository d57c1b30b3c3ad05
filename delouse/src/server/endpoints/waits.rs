//! `/waits` and `/diagnosis`: which task waits for which, and what is wrong.

use std::time::Duration;

use dropshot::{HttpError, RequestContext, endpoint};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::host::open_files as files;
use crate::inspector::inspect::Inspected;
use crate::inspector::sampling::Diagnosed;
use crate::own_threads::Material;
use crate::own_threads::ThreadError;
use crate::report::formats::Renderer;
use crate::report::{DiagnosisAnswer, Filter, WaitsAnswer, not_covered};
use crate::server::Context;
use crate::server::answer::{Answer, Rendered};
use crate::server::error::ApiError;
use crate::server::format::{Requested, negotiate};
use crate::server::front::{Parameters, respond};
use crate::snapshot::Capture;
use crate::waits::NotCovered;
use crate::waits::diagnosis::{Earlier, diagnose};
use crate::waits::growing::Counts;
use crate::waits::sample::Sample;

/// The most waits around the tasks that are asked for.
const AROUND: usize = 200;
/// The longest time over which a diagnosis measures growth by itself, in seconds.
const MAX_SECONDS: u64 = 60;
/// How long the second capture of such a diagnosis waits for another capture in progress.
const BUSY: Duration = Duration::from_secs(5);

/// Parameters of `/waits`.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct WaitsQuery {
    /// The format of the answer; by default `json`. Overrides `Accept`.
    format: Option<Requested<WaitsAnswer>>,
    /// Only what is around the tasks with these ids, `17` or `17,18`: what they wait for, what holds that, and so on, and
    /// what waits for them.
    task: Option<String>,
    /// With `task`: how many waits to list at most; by default 200.
    limit: Option<usize>,
}

/// What each task waits for, and which task holds that resource in which variable
///
/// With `?format=dot`, for Graphviz: `curl 'localhost:7132/waits?format=dot' | dot -Tsvg -o waits.svg`.
#[endpoint { method = GET, path = "/waits" }]
pub(super) async fn waits(
    request: RequestContext<Context>,
    query: Parameters<WaitsQuery>,
) -> Result<Answer<WaitsAnswer>, HttpError> {
    respond(request, query, graph).await
}

async fn graph(request: RequestContext<Context>, query: WaitsQuery) -> Result<Answer<WaitsAnswer>, ApiError> {
    let renderer = negotiate(query.format, request.request.headers());
    let around = query.task.as_deref().map(Filter::ids).transpose()?;
    let limit = query.limit.unwrap_or(AROUND);
    let key = format!("/waits {around:?} {limit} {}", renderer.format.name);
    let server = request.server.clone();
    let capture = move || {
        let (mut answer, listing) = WaitsAnswer::new(server.private.inspector.sample_of_waits()?);
        if let Some(tasks) = &around {
            answer.narrow(tasks, limit);
        }
        let rendered = Rendered::new(renderer, &mut answer);
        drop(Material::new((listing, answer)));
        rendered
    };
    Ok(request.context().gate.run(key, capture).await?.as_ref().clone().into())
}

/// Parameters of `/diagnosis`.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct DiagnosisQuery {
    /// The format of the answer; by default `json`. Overrides `Accept`.
    format: Option<Requested<DiagnosisAnswer>>,
    /// Also reports groups of tasks that only grow during this time, 60 at most.
    seconds: Option<u64>,
    /// Also reports groups of tasks that have only grown since an earlier diagnosis, given by its `id`.
    since: Option<String>,
    /// How many ids of tasks each finding lists at most; its `count` is that of all.
    ids: Option<usize>,
}

/// What is wrong, worst first: deadlocks, blocked workers, leaks, tasks that nothing will wake
///
/// With `?seconds=10`, or `?since=` an earlier answer's `id`, also what only grows.
#[endpoint { method = GET, path = "/diagnosis" }]
pub(super) async fn diagnosis(
    request: RequestContext<Context>,
    query: Parameters<DiagnosisQuery>,
) -> Result<Answer<DiagnosisAnswer>, HttpError> {
    respond(request, query, diagnose_now).await
}

async fn diagnose_now(
    request: RequestContext<Context>,
    query: DiagnosisQuery,
) -> Result<Answer<DiagnosisAnswer>, ApiError> {
    let DiagnosisQuery { format, seconds, since, ids } = query;
    let renderer = negotiate(format, request.request.headers());
    let context = request.context();
    let key = format!("/diagnosis {seconds:?} {since:?} {ids:?} {}", renderer.format.name);
    let earlier: Option<Counts> = match (seconds, &since) {
        (Some(_), Some(_)) => return Err(ApiError::BadGrowth("use seconds or since, not both")),
        (Some(seconds), None) if seconds == 0 || seconds > MAX_SECONDS => {
            return Err(ApiError::BadGrowth("seconds must be 1 to 60"));
        }
        // A core file does not grow.
        (Some(_), None) if matches!(context.inspector.inspected(), Inspected::Core(_)) => None,
        (Some(seconds), None) => {
            let server = request.server.clone();
            let count = move || Ok(server.private.inspector.counts()?);
            let counts = context.gate.run(format!("{key} begins"), count).await?;
            // Other captures may run meanwhile.
            tokio::time::sleep(Duration::from_secs(seconds)).await;
            Some(counts.as_ref().clone())
        }
        (None, Some(since)) => Some(context.marks.get(since)?),
        (None, None) => None,
    };
    // The client has waited for seconds already: wait for another capture in progress.
    let patience = seconds.map_or(Duration::ZERO, |_| BUSY);
    let capture = || {
        let (server, earlier) = (request.server.clone(), earlier.clone());
        move || diagnose_and_render(&server.private, earlier.as_ref(), ids, renderer)
    };
    match context.gate.run_within(patience, &key, capture).await {
        // A capture needs descriptors, but that the program runs out of them can be diagnosed without one.
        Err(error @ ApiError::Thread(ThreadError::Files { .. }))
            if context.inspector.inspected() == Inspected::ThisProcess =>
        {
            Ok(diagnose_files_only(error, renderer)?.into())
        }
        answer => Ok(answer?.as_ref().clone().into()),
    }
}

/// A diagnosis of the open files only, because the program could not be captured for the reason `why`.
fn diagnose_files_only(
    why: ApiError,
    renderer: &Renderer<DiagnosisAnswer>,
) -> Result<Rendered<DiagnosisAnswer>, ApiError> {
    let Ok(files) = files::open_files() else { return Err(why) };
    let missing = NotCovered::Capture { why: why.to_string() };
    let notes = vec![not_covered(&missing)];
    let sample = Sample { not_covered: vec![missing], ..Sample::default() };
    let found = diagnose(std::slice::from_ref(&sample), Some(&files), Earlier::default());
    if found.findings.is_empty() {
        return Err(why);
    }
    let capture = Capture { notes, ..Capture::default() };
    Rendered::new(renderer, &mut DiagnosisAnswer::new(found, &sample, capture, None))
}

fn diagnose_and_render(
    context: &Context,
    earlier: Option<&Counts>,
    ids: Option<usize>,
    renderer: &Renderer<DiagnosisAnswer>,
) -> Result<Rendered<DiagnosisAnswer>, ApiError> {
    let kept = context.marks.oldest();
    let earlier = Earlier { requested: earlier, kept: kept.as_ref() };
    let Diagnosed { samples, capture, found } = context.inspector.diagnose(earlier)?;
    let Some(last) = samples.last() else {
        return Err(ApiError::Failed("there is no sample".to_owned()));
    };
    let id = context.marks.keep(Counts::new(last.at, &last.listing.tasks));
    let mut answer = DiagnosisAnswer::new(found, last, capture, Some(id));
    context.last_look.captured(&answer.capture);
    context.last_look.tasks(&last.listing.tasks);
    context.last_look.diagnosed(&answer);
    answer.limit_ids(ids.unwrap_or(usize::MAX));
    let rendered = Rendered::new(renderer, &mut answer);
    drop(Material::new((samples, answer)));
    rendered
}
