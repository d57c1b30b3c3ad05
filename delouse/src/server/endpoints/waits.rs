//! `/waits` and `/diagnosis`: who waits for whom, and what is wrong.

use std::time::{Duration, Instant};

use dropshot::{HttpError, RequestContext, endpoint};
use http::header::{ACCEPT, HeaderMap};
use schemars::JsonSchema;
use serde::Deserialize;

use super::{Common, format};
use crate::report::waits::dot;
use crate::report::{DiagnosisAnswer, WaitsAnswer};
use crate::server::answer::{Answer, Format, Rendered, accepted_quality};
use crate::server::error::ApiError;
use crate::server::front::{Parameters, respond};
use crate::server::thread::Material;
use crate::server::{Context, looks};
use crate::snapshot::{Capture, files};
use crate::waits::diagnosis::diagnose;
use crate::waits::growing::Counts;
use crate::waits::look::Look;

/// The longest time over which a diagnosis measures growth by itself, in seconds.
const MAX_SECONDS: u64 = 60;
/// How long the second capture of such a diagnosis tries again while another one runs.
const BUSY: Duration = Duration::from_secs(5);

/// Who waits for whom: each task, what it waits for, who holds that and where
///
/// With `?format=dot`, for Graphviz: `curl 'localhost:7132/waits?format=dot' | dot -Tsvg -o waits.svg`.
#[endpoint { method = GET, path = "/waits" }]
pub(super) async fn waits(
    request: RequestContext<Context>,
    query: Parameters<Common>,
) -> Result<Answer<WaitsAnswer>, HttpError> {
    respond(request, query, graph).await
}

async fn graph(request: RequestContext<Context>, query: Common) -> Result<Answer<WaitsAnswer>, ApiError> {
    let asked = query.format.as_deref();
    let format = match wants_dot(asked, request.request.headers()) {
        true => Format::Dot,
        false => format(&request, asked)?,
    };
    let server = request.server.clone();
    let capture = move || {
        let (Look { listing, graph, findings, .. }, capture) = looks::look(&server.private, false)?;
        let answer = WaitsAnswer { graph, findings, capture };
        let rendered = Rendered::new(format, &answer, || match format {
            Format::Dot => dot::dot(&answer.graph),
            _ => answer.text(),
        });
        drop(Material::new((listing, answer)));
        rendered
    };
    let key = format!("/waits {format:?}");
    Ok(request.context().gate.run(key, capture).await?.as_ref().clone().into())
}

fn wants_dot(asked: Option<&str>, headers: &HeaderMap) -> bool {
    let accepted = || accepted_quality(headers, &ACCEPT, &["text/vnd.graphviz"]).is_some_and(|q| q > 0.0);
    asked.map_or_else(accepted, |format| format == "dot")
}

/// Parameters of `/diagnosis`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct DiagnosisQuery {
    /// `json` (the default) or `text`; over `Accept`.
    format: Option<String>,
    /// Takes so long, 60 at most, and tells which groups of tasks have only grown meanwhile.
    seconds: Option<u64>,
    /// Tells which groups of tasks have only grown since that capture: the `id` of an earlier diagnosis.
    since: Option<String>,
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
    let DiagnosisQuery { format: asked, seconds, since } = query;
    let format = format(&request, asked.as_deref())?;
    let context = request.context();
    let key = format!("/diagnosis {seconds:?} {since:?} {format:?}");
    let earlier: Option<Counts> = match (seconds, &since) {
        (Some(_), Some(_)) => return Err(ApiError::BadGrowth("give seconds or since, not both")),
        (Some(seconds), None) if seconds == 0 || seconds > MAX_SECONDS => {
            return Err(ApiError::BadGrowth("seconds must be 1 to 60"));
        }
        (Some(seconds), None) => {
            let server = request.server.clone();
            let count = move || looks::count(&server.private);
            let counts = context.gate.run(format!("{key} begins"), count).await?;
            // Others may ask meanwhile.
            tokio::time::sleep(Duration::from_secs(seconds)).await;
            Some(counts.as_ref().clone())
        }
        (None, Some(since)) => Some(context.marks.get(since)?),
        (None, None) => None,
    };
    let begun = Instant::now();
    loop {
        let (server, earlier) = (request.server.clone(), earlier.clone());
        let capture = move || look_and_tell(&server.private, earlier.as_ref(), format);
        match context.gate.run(key.clone(), capture).await {
            // Who has waited for seconds is not sent away.
            Err(ApiError::Busy { .. }) if seconds.is_some() && begun.elapsed() < BUSY => {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            // That the program runs out of files can be told without a capture, which would need some.
            Err(error @ ApiError::NoFiles { .. }) => return Ok(by_files_alone(error, format)?.into()),
            answer => return Ok(answer?.as_ref().clone().into()),
        }
    }
}

/// The diagnosis of a program that was not captured, for the reason `why`.
fn by_files_alone(why: ApiError, format: Format) -> Result<Rendered<DiagnosisAnswer>, ApiError> {
    let Ok(files) = files::open_files() else { return Err(why) };
    let look = Look { doubts: vec![format!("tasks and threads: {why}")], ..Look::default() };
    let found = diagnose(std::slice::from_ref(&look), Some(&files), None);
    if found.findings.is_empty() {
        return Err(why);
    }
    let capture = Capture { notes: look.doubts.clone(), ..Capture::default() };
    let answer = DiagnosisAnswer::new(found, &look, capture, None);
    Rendered::new(format, &answer, || answer.diagnosis.clone())
}

fn look_and_tell(
    context: &Context,
    earlier: Option<&Counts>,
    format: Format,
) -> Result<Rendered<DiagnosisAnswer>, ApiError> {
    let (looks, mut capture) = looks::looks(context)?;
    let files = files::open_files();
    if let Err(error) = &files {
        capture.notes.push(format!("open files could not be counted: {error}"));
    }
    let found = diagnose(&looks, files.as_ref().ok(), earlier);
    let Some(last) = looks.last() else {
        return Err(ApiError::Failed("nobody has looked".to_owned()));
    };
    let id = context.marks.keep(Counts::new(last.at, &last.listing.tasks));
    let answer = DiagnosisAnswer::new(found, last, capture, Some(id));
    let rendered = Rendered::new(format, &answer, || answer.diagnosis.clone());
    drop(Material::new((looks, answer)));
    rendered
}
