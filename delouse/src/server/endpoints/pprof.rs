//! `/debug/pprof/…`: profiles of tasks and threads, under the paths and with the parameters of Go's `net/http/pprof`.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use dropshot::{Body, HttpError, RequestContext, endpoint};
use http::Response;
use http::header::CONTENT_DISPOSITION;
use schemars::JsonSchema;
use serde::Deserialize;

use super::NoParameters;
use crate::inspector::inspect::Inspect;
use crate::own_threads::Material;
use crate::report::formats::{PPROF, TEXT};
use crate::report::profile::{Profile, blocks, counted, pprof};
use crate::report::{Filter, ThreadsAnswer};
use crate::server::Context;
use crate::server::error::ApiError;
use crate::server::format::response;
use crate::server::front::{Parameters, respond};
use crate::server::readers;
use crate::tasks::Task;
use crate::waits::sample::Sample;
use crate::waits::{Finding, FindingKind};

/// The longest time over which a difference is measured, in seconds.
const MAX_SECONDS: u64 = 300;
/// How long the second capture of a difference waits for another capture in progress.
const BUSY: Duration = Duration::from_secs(5);

/// Parameters of a profile.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ProfileQuery {
    /// 0, the default: the format of pprof; 1: text, with a count for each stack; 2: text, each task or thread.
    debug: Option<u8>,
    /// What there is more or less of after so many seconds, 300 at most.
    seconds: Option<u64>,
}

/// A profile, and the same in the words of `?debug=2`.
struct Counted {
    profile: Profile,
    each: String,
}

#[derive(Clone, Copy)]
enum Kind {
    Tasks,
    Stuck,
    Threads,
}

impl Kind {
    /// The name under which Go has it.
    fn name(self) -> &'static str {
        match self {
            Self::Tasks => "goroutine",
            Self::Stuck => "goroutineleak",
            Self::Threads => "threadcreate",
        }
    }

    fn capture(self, inspector: &dyn Inspect, each: bool) -> Result<Counted, ApiError> {
        match self {
            Self::Tasks => {
                let answer = inspector.tasks_answer(None, &Filter::default(), false)?;
                let counted = of_tasks(answer.tasks.iter(), each);
                drop(Material::new(answer));
                Ok(counted)
            }
            Self::Stuck => {
                let (sample, _) = inspector.sample_of_waits()?;
                let counted = of_tasks(stuck(&sample), each);
                drop(Material::new(sample));
                Ok(counted)
            }
            Self::Threads => {
                let ThreadsAnswer { threads, stacktrace, .. } = inspector.threads_answer(false, each)?;
                Ok(Counted { profile: Profile::of_threads(&threads), each: stacktrace })
            }
        }
    }
}

fn of_tasks<'t>(tasks: impl Iterator<Item = &'t Task> + Clone, each: bool) -> Counted {
    let text = if each { blocks(tasks.clone()) } else { String::new() };
    Counted { profile: Profile::of_tasks(tasks), each: text }
}

/// The tasks of which one sample shows that nothing will wake them.
fn stuck(sample: &Sample) -> impl Iterator<Item = &Task> + Clone {
    let never_ends = |finding: &&Finding| {
        let kinds = [
            FindingKind::Deadlock,
            FindingKind::Futurelock,
            FindingKind::LeakedTasks,
            FindingKind::UnwakeableTask,
        ];
        kinds.contains(&finding.kind)
    };
    let ids = sample.findings.iter().filter(never_ends).flat_map(|finding| &finding.tasks);
    let ids: std::collections::HashSet<u64> = ids.copied().collect();
    sample.listing.tasks.iter().filter(move |task| ids.contains(&task.id))
}

/// The tasks as a profile for pprof: `go tool pprof http://localhost:7132/debug/pprof/goroutine`
///
/// One sample for each distinct stack, with the labels kind, state, runtime and wait.
#[endpoint { method = GET, path = "/debug/pprof/goroutine" }]
pub(super) async fn goroutine(
    request: RequestContext<Context>,
    query: Parameters<ProfileQuery>,
) -> Result<Response<Body>, HttpError> {
    respond(request, query, async |request, query| profile(request, query, Kind::Tasks).await).await
}

/// The tasks that nothing will wake, as a profile for pprof
///
/// Those of deadlocks, leaks, futurelocks and unwakeable tasks.
#[endpoint { method = GET, path = "/debug/pprof/goroutineleak" }]
pub(super) async fn goroutineleak(
    request: RequestContext<Context>,
    query: Parameters<ProfileQuery>,
) -> Result<Response<Body>, HttpError> {
    respond(request, query, async |request, query| profile(request, query, Kind::Stuck).await).await
}

/// The threads as a profile for pprof
///
/// One sample for each distinct stack, with the labels role, activity and state.
#[endpoint { method = GET, path = "/debug/pprof/threadcreate" }]
pub(super) async fn threadcreate(
    request: RequestContext<Context>,
    query: Parameters<ProfileQuery>,
) -> Result<Response<Body>, HttpError> {
    respond(request, query, async |request, query| profile(request, query, Kind::Threads).await).await
}

/// The profiles that pprof can read, one per line
#[endpoint { method = GET, path = "/debug/pprof" }]
pub(super) async fn pprof_index(
    request: RequestContext<Context>,
    query: Parameters<NoParameters>,
) -> Result<Response<Body>, HttpError> {
    respond(request, query, async |request, _query| {
        let address = request.server.local_addr;
        let mut text = String::from("profiles: what there is now, by stack. CPU time and memory are not profiled here.\n\n");
        for (name, what) in [
            (Kind::Tasks.name(), "every task"),
            (Kind::Stuck.name(), "the tasks that nothing will wake: deadlocks, leaks"),
            (Kind::Threads.name(), "every thread"),
        ] {
            text.push_str(&format!("{name:<14} {what}\n  go tool pprof -top http://{address}/debug/pprof/{name}\n"));
        }
        text.push_str("\n?debug=1 counts stacks in text, ?debug=2 lists each, ?seconds=10 shows the difference over 10 s\n");
        Ok(answer(text.into_bytes(), TEXT.media_type, None))
    })
    .await
}

async fn profile(
    request: RequestContext<Context>,
    query: ProfileQuery,
    kind: Kind,
) -> Result<Response<Body>, ApiError> {
    let ProfileQuery { debug, seconds } = query;
    if seconds.is_some_and(|seconds| seconds == 0 || seconds > MAX_SECONDS) {
        return Err(ApiError::BadGrowth("seconds must be 1 to 300"));
    }
    let name = kind.name();
    let begun = SystemTime::now();
    let each = debug.is_some_and(|level| level >= 2);
    let first = captured(&request, kind, each, Duration::ZERO).await?;
    if each && seconds.is_none() {
        return Ok(answer(first.each.clone().into_bytes(), TEXT.media_type, None));
    }
    let mut profile = first.profile.clone();
    if let Some(seconds) = seconds {
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        let last = captured(&request, kind, false, BUSY).await?;
        profile = last.profile.clone().since(profile);
    }
    if debug.is_some_and(|level| level > 0) {
        return Ok(answer(counted(&profile, name).into_bytes(), TEXT.media_type, None));
    }
    let nanos = |time: Duration| i64::try_from(time.as_nanos()).unwrap_or(i64::MAX);
    let at = nanos(begun.duration_since(UNIX_EPOCH).unwrap_or_default());
    let bytes = pprof(&profile, name, at, nanos(Duration::from_secs(seconds.unwrap_or(0))));
    let bytes = bytes.map_err(|error| ApiError::Failed(error.to_string()))?;
    Ok(answer(bytes, PPROF.media_type, Some(name)))
}

/// The second capture waits for another one in progress: the client has waited for seconds already.
async fn captured(
    request: &RequestContext<Context>,
    kind: Kind,
    each: bool,
    patience: Duration,
) -> Result<Arc<Counted>, ApiError> {
    let capture = || {
        let server = request.server.clone();
        move || kind.capture(&*server.private.inspector, each)
    };
    let key = format!("/debug/pprof/{} each={each}", kind.name());
    request.context().gate.run_within(patience, &key, capture).await
}

fn answer(bytes: Vec<u8>, media_type: &'static str, file: Option<&str>) -> Response<Body> {
    let mut response = response(readers::whole(bytes.into()), media_type);
    if let Some(value) = file.and_then(|file| format!("attachment; filename=\"{file}\"").parse().ok()) {
        response.headers_mut().insert(CONTENT_DISPOSITION, value);
    }
    response
}
