//! `/core`: a core file of the running program.

use std::error::Error;
use std::io::{self, Write};

use dropshot::{Body, HttpError, RequestContext, endpoint};
use http::header::{ACCEPT_ENCODING, CONTENT_DISPOSITION, CONTENT_ENCODING, HeaderMap, HeaderValue};
use http::{HeaderName, Response};
use schemars::JsonSchema;
use serde::Deserialize;
use slog::warn;
use tokio::sync::oneshot;

use crate::inspector::inspect::InspectError;
use crate::own_threads::{files, spawn};
use crate::report::CoreEstimate;
use crate::server::answer::{Answer, Rendered};
use crate::server::error::ApiError;
use crate::server::format::{Requested, accepted_quality, harden, negotiate, response};
use crate::server::front::{Parameters, respond};
use crate::server::gate::Permit;
use crate::server::{Context, other_program, stream};
use crate::snapshot::{OwnThread, micros};
use crate::targets;
use crate::targets::core_dump::{self, CoreImage};
use crate::targets::{Limits, core_writer};

/// Parameters of `/core`.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CoreQuery {
    /// `true`: reports the cost of a core file without writing one.
    estimate: Option<bool>,
    /// `true`: ignores the limits of pause and memory.
    force: Option<bool>,
    /// `true`: first joins the program's memory into huge pages, as `POST /huge-pages` does, so that the pause is short.
    /// This delays the first byte by one to three seconds per gigabyte. Has no effect with `estimate`.
    huge_pages: Option<bool>,
    /// The format of the estimate; by default `json`.
    format: Option<Requested<CoreEstimate>>,
}

/// A core file of the program, which continues to run
///
/// Compressed with zstd or gzip if the client accepts it. To open it with gdb:
/// `curl localhost:7132/core -o core && gdb <executable> core`. With `?estimate=true`, reports the cost only; with
/// `?huge_pages=true`, stops a program with gigabytes of memory for a short time only.
#[endpoint { method = GET, path = "/core" }]
pub(super) async fn core(
    request: RequestContext<Context>,
    query: Parameters<CoreQuery>,
) -> Result<Response<Body>, HttpError> {
    respond(request, query, core_file).await
}

async fn core_file(request: RequestContext<Context>, query: CoreQuery) -> Result<Response<Body>, ApiError> {
    let inspector = request.context().inspector.clone();
    let inspected = inspector.inspected();
    other_program::refuse_core_of_core(&inspected)?;
    let limits = Limits { force: query.force.unwrap_or(false), ..request.context().settings.limits };
    if query.estimate.unwrap_or(false) {
        other_program::refuse_estimate(&inspected)?;
        let renderer = negotiate(query.format, request.request.headers());
        return Ok(Answer::from(Rendered::new(renderer, &mut estimate(limits).await?)?).into_response());
    }
    let encoding = Encoding::accepted(request.request.headers());
    let permit = request.context().gate.hold("/core")?;
    let (writer, body) = stream::channel();
    let (sender, receiver) = oneshot::channel();
    let log = request.log.clone();
    let join = query.huge_pages.unwrap_or(false);
    if join {
        other_program::refuse_huge_pages(&inspected)?;
    }
    let capture = move || {
        let joining = if join { join_huge_pages() } else { Vec::new() };
        if sender.is_closed() {
            return warn!(log, "the client has disconnected: the program was not stopped");
        }
        let image = match inspector.core_image(limits) {
            Ok(image) => image,
            Err(error) => {
                drop(permit);
                let error = match error {
                    InspectError::Snapshot(error) if join => ApiError::Joined { error, joining },
                    error => error.into(),
                };
                return drop(sender.send(Err(error)));
            }
        };
        let mut capture = image.capture().clone();
        capture.notes.extend(joining);
        if sender.send(Ok((capture, image.ids().pid))).is_ok()
            && let Err(error) = send(writer, encoding, permit, image)
        {
            warn!(log, "the core file was not sent to its end: {error}");
        }
    };
    spawn(OwnThread::Capture, capture)?;
    let (capture, pid) =
        receiver.await.map_err(|_| ApiError::Failed("the capture panicked".to_owned()))??;

    let mut response = response(body, "application/x-core");
    let headers = response.headers_mut();
    headers.insert(HeaderName::from_static("x-delouse-pause-us"), capture.pause_us.into());
    // A debugger cannot detect that registers and memory are of different moments.
    let consistent = HeaderValue::from_static(if capture.consistent { "true" } else { "false" });
    headers.insert(HeaderName::from_static("x-delouse-consistent"), consistent);
    if let Ok(notes) = capture.notes.join("; ").parse::<HeaderValue>()
        && !notes.is_empty()
    {
        headers.insert(HeaderName::from_static("x-delouse-notes"), notes);
    }
    if let Ok(name) = format!("attachment; filename=\"core.{pid}\"").parse() {
        headers.insert(CONTENT_DISPOSITION, name);
    }
    if let Some(name) = encoding.name() {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static(name));
    }
    Ok(response)
}

/// The cost of a core file, in headers
#[endpoint { method = HEAD, path = "/core" }]
pub(super) async fn core_estimate(
    request: RequestContext<Context>,
    query: Parameters<CoreQuery>,
) -> Result<Response<Body>, HttpError> {
    respond(request, query, estimate_in_headers).await
}

async fn estimate_in_headers(
    request: RequestContext<Context>,
    _query: CoreQuery,
) -> Result<Response<Body>, ApiError> {
    let inspected = request.context().inspector.inspected();
    other_program::refuse_core_of_core(&inspected)?;
    other_program::refuse_estimate(&inspected)?;
    let estimate = estimate(request.context().settings.limits).await?;
    let mut response = Response::new(Body::empty());
    harden(response.headers_mut());
    for (name, value) in [
        ("x-delouse-bytes", estimate.bytes),
        ("x-delouse-pause-us", estimate.pause_us),
        ("x-delouse-budget-us", estimate.budget_us),
    ] {
        response.headers_mut().insert(HeaderName::from_static(name), value.into());
    }
    Ok(response)
}

/// Joins memory into huge pages. Returns why some was not joined. If it fails, the limit of the pause still applies.
fn join_huge_pages() -> Vec<String> {
    targets::join_huge_pages().map_or_else(|error| vec![error.to_string()], |joined| joined.notes)
}

async fn estimate(limits: Limits) -> Result<CoreEstimate, ApiError> {
    let files = files()?;
    let (done, estimate) = oneshot::channel();
    spawn(OwnThread::Capture, move || {
        let estimate = core_writer::estimate();
        drop(files);
        drop(done.send(estimate));
    })?;
    let estimate = estimate.await.map_err(|_| ApiError::Failed("the estimate panicked".to_owned()))??;
    Ok(CoreEstimate {
        bytes: estimate.bytes,
        pause_us: micros(estimate.prediction.pause),
        budget_us: micros(limits.budget),
        refused: estimate.prediction.allowed_by(limits).err().map(|error| error.to_string()),
    })
}

/// Writes the core file, and then drops the image and opens the gate.
fn send(
    mut writer: stream::Writer,
    encoding: Encoding,
    permit: Permit,
    image: Box<dyn CoreImage>,
) -> Result<(), Box<dyn Error>> {
    encoding.write(&*image, &mut writer)?;
    // Before the body ends, so that a client that has read it can request the next one at once.
    drop(image);
    drop(permit);
    writer.finish();
    Ok(())
}

/// The compression of the file. Chosen for speed, because the image exists until the file is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Encoding {
    Plain,
    Gzip,
    Zstd,
}

impl Encoding {
    /// The fastest encoding that the client accepts.
    fn accepted(headers: &HeaderMap) -> Self {
        let wants = |name| accepted_quality(headers, &ACCEPT_ENCODING, &[name]).is_some_and(|q| q > 0.0);
        if wants("zstd") {
            Self::Zstd
        } else if wants("gzip") {
            Self::Gzip
        } else {
            Self::Plain
        }
    }

    fn name(self) -> Option<&'static str> {
        match self {
            Self::Plain => None,
            Self::Gzip => Some("gzip"),
            Self::Zstd => Some("zstd"),
        }
    }

    fn write(self, image: &dyn CoreImage, out: &mut stream::Writer) -> Result<(), Box<dyn Error>> {
        // Compressors write small pieces: collect them into larger chunks.
        let mut out = io::BufWriter::with_capacity(256 << 10, out);
        match self {
            Self::Plain => core_dump::write(image, &mut out)?,
            Self::Gzip => {
                let mut gzip = flate2::write::GzEncoder::new(&mut out, flate2::Compression::fast());
                let stats = core_dump::write(image, &mut gzip)?;
                gzip.finish()?;
                stats
            }
            Self::Zstd => {
                let mut zstd = zstd::Encoder::new(&mut out, 1)?;
                let stats = core_dump::write(image, &mut zstd)?;
                zstd.finish()?;
                stats
            }
        };
        Ok(out.flush()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encodings() {
        for (accept, encoding) in [
            ("", Encoding::Plain),
            ("identity", Encoding::Plain),
            ("gzip, deflate, br", Encoding::Gzip),
            ("gzip, zstd", Encoding::Zstd),
            ("zstd;q=0, gzip;q=0.1", Encoding::Gzip),
            ("*;q=0", Encoding::Plain),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT_ENCODING, accept.parse().unwrap());
            assert_eq!(Encoding::accepted(&headers), encoding, "{accept}");
        }
    }
}
