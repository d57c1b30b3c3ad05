//! `/metrics`, for Prometheus and what reads its format.

use std::time::{SystemTime, UNIX_EPOCH};

use dropshot::{Body, HttpError, RequestContext, endpoint};
use http::Response;
use tokio::runtime::{Handle, RuntimeFlavor};

use super::NoParameters;
use crate::host::process_figures::ProcessFigures;
use crate::inspector::inspect::Inspected;
use crate::registry;
use crate::report::WatchReport;
use crate::report::metrics::{Family, text};
use crate::server::Context;
use crate::server::format::response;
use crate::server::front::{Parameters, respond};
use crate::server::last_look::{DiagnosisFigures, Figures, TaskFigures};

const MEDIA_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Metrics for Prometheus: runtimes, and what the last look has found
///
/// Captures nothing: findings are those of the last `/diagnosis`, and `delouse_last_look_timestamp_seconds` is when that was.
#[endpoint { method = GET, path = "/metrics" }]
pub(super) async fn metrics(
    request: RequestContext<Context>,
    query: Parameters<NoParameters>,
) -> Result<Response<Body>, HttpError> {
    respond(request, query, async |request, _query| {
        let context = request.context();
        let mut families = looks(context.last_look.figures());
        families.extend(context.journal.figures().iter().flat_map(watch));
        // Of another program, only what was captured is known.
        if context.inspector.inspected() == Inspected::ThisProcess {
            families.extend(runtimes());
            families.extend(process(&ProcessFigures::read()));
        }
        Ok(response(Body::from(text(&families)), MEDIA_TYPE))
    })
    .await
}

/// tokio's own metrics, of each registered runtime: those that are stable.
fn runtimes() -> Vec<Family> {
    let mut workers = Family::gauge("tokio_workers", "Worker threads of the runtime.");
    let mut alive = Family::gauge("tokio_alive_tasks", "Tasks of the runtime that have not ended.");
    let mut queue =
        Family::gauge("tokio_global_queue_depth", "Woken tasks in the queue that all workers share.");
    let mut busy =
        Family::counter("tokio_worker_busy_seconds_total", "Time that the worker has not been parked.");
    let mut parks = Family::counter("tokio_worker_parks_total", "How often the worker has parked.");
    for handle in registry::roots().runtimes() {
        let (of, figures) = (runtime_name(handle), handle.metrics());
        let runtime = [("runtime", of.as_str())];
        workers = workers.with(&runtime, figures.num_workers() as f64);
        alive = alive.with(&runtime, figures.num_alive_tasks() as f64);
        queue = queue.with(&runtime, figures.global_queue_depth() as f64);
        for worker in 0..figures.num_workers() {
            let number = worker.to_string();
            let labels = [("runtime", of.as_str()), ("worker", number.as_str())];
            busy = busy.with(&labels, figures.worker_total_busy_duration(worker).as_secs_f64());
            parks = parks.with(&labels, figures.worker_park_count(worker) as f64);
        }
    }
    vec![workers, alive, queue, busy, parks]
}

/// As in lists of tasks: `multi_thread 2`.
fn runtime_name(handle: &Handle) -> String {
    let flavor = match handle.runtime_flavor() {
        RuntimeFlavor::CurrentThread => "current_thread",
        RuntimeFlavor::MultiThread => "multi_thread",
        _ => "other",
    };
    format!("{flavor} {}", handle.id())
}

fn looks(Figures { captures, pause_us, longest_pause_us, tasks, diagnosis }: Figures) -> Vec<Family> {
    let seconds = |us: u64| us as f64 / 1e6;
    let mut families = vec![
        counter("delouse_captures_total", "Captures of tasks or threads.", Some(captures as f64)),
        counter(
            "delouse_capture_pause_seconds_total",
            "Time that captures have stopped the program.",
            Some(seconds(pause_us)),
        ),
        gauge(
            "delouse_capture_pause_longest_seconds",
            "The longest stop of the program by a capture.",
            Some(seconds(longest_pause_us)),
        ),
    ];
    if let Some(TaskFigures { at, counts }) = tasks {
        let mut tasks = Family::gauge("delouse_tasks", "Tasks of the last capture, by kind and state.");
        for ((kind, state), count) in &counts {
            tasks = tasks.with(&[("kind", kind), ("state", state)], *count as f64);
        }
        let when = Family::gauge("delouse_tasks_timestamp_seconds", "When tasks were captured last.");
        families.extend([tasks, when.with_some(since_epoch(at))]);
    }
    if let Some(DiagnosisFigures { at, findings, observations }) = diagnosis {
        let mut found = Family::gauge("delouse_findings", "Findings of the last diagnosis.");
        for ((kind, certainty), count) in &findings {
            found = found.with(&[("kind", kind), ("certainty", certainty)], *count as f64);
        }
        let mut seen = Family::gauge("delouse_observations", "Observations of the last diagnosis.");
        for (kind, count) in &observations {
            seen = seen.with(&[("kind", kind)], *count as f64);
        }
        let when = Family::gauge("delouse_last_look_timestamp_seconds", "When the last diagnosis was made.");
        families.extend([found, seen, when.with_some(since_epoch(at))]);
    }
    families
}

/// What watching the program costs.
fn watch(figures: &WatchReport) -> [Family; 7] {
    let seconds = |ms: u64| ms as f64 / 1e3;
    let mut findings = Family::gauge(
        "delouse_watch_findings",
        "Findings that the watch has reported and that are not gone.",
    );
    for (kind, count) in &figures.findings {
        findings = findings.with(&[("kind", kind)], *count as f64);
    }
    [
        findings,
        gauge(
            "delouse_watch_interval_seconds",
            "Time from one look of the watch to the next, at present.",
            Some(seconds(figures.pace_ms)),
        ),
        counter("delouse_watch_looks_total", "Looks of the watch.", Some(figures.looks as f64)),
        counter(
            "delouse_watch_failed_looks_total",
            "Looks of the watch that gave no diagnosis.",
            Some(figures.failed as f64),
        ),
        counter(
            "delouse_watch_look_seconds_total",
            "Time that looks of the watch took.",
            Some(seconds(figures.took_ms)),
        ),
        counter(
            "delouse_watch_pause_seconds_total",
            "Time that looks of the watch have stopped the program, at most.",
            Some(figures.pause_us as f64 / 1e6),
        ),
        gauge(
            "delouse_watch_pause_longest_seconds",
            "The longest stop of the program by a look of the watch.",
            Some(figures.longest_pause_us as f64 / 1e6),
        ),
    ]
}

fn gauge(name: &'static str, help: &'static str, value: Option<f64>) -> Family {
    Family::gauge(name, help).with_some(value)
}

fn counter(name: &'static str, help: &'static str, value: Option<f64>) -> Family {
    Family::counter(name, help).with_some(value)
}

fn since_epoch(at: SystemTime) -> Option<f64> {
    at.duration_since(UNIX_EPOCH).ok().map(|since| since.as_secs_f64())
}

fn process(figures: &ProcessFigures) -> [Family; 7] {
    let number = |value: Option<u64>| value.map(|value| value as f64);
    [
        counter("process_cpu_seconds_total", "User and system time in seconds.", figures.cpu_seconds),
        gauge("process_open_fds", "Open file descriptors.", figures.open_files.map(|open| open as f64)),
        gauge("process_max_fds", "The limit of open file descriptors.", number(figures.max_files)),
        gauge("process_virtual_memory_bytes", "Virtual memory in bytes.", number(figures.virtual_bytes)),
        gauge("process_resident_memory_bytes", "Resident memory in bytes.", number(figures.resident_bytes)),
        gauge(
            "process_start_time_seconds",
            "Start of the process, in seconds since 1970.",
            figures.start_seconds,
        ),
        gauge("process_threads", "Threads of the process.", number(figures.threads)),
    ]
}
