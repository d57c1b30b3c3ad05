//! `/core`: a core file of the program, which goes on.

use std::io::{self, Write};

use dropshot::{Body, HttpError, RequestContext, endpoint};
use http::header::{
    ACCEPT_ENCODING, CONTENT_DISPOSITION, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderValue,
};
use http::{HeaderName, Response};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use slog::warn;
use tokio::sync::oneshot;

use super::format;
use crate::server::answer::{Answer, Rendered, accepted_quality, harden};
use crate::server::error::ApiError;
use crate::server::front::{Parameters, respond};
use crate::server::gate::Permit;
use crate::server::{Context, stream, thread};
use crate::snapshot::{self, Image, Limits, core_writer, micros};

/// Parameters of `/core`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CoreQuery {
    /// `true`: tells what it would cost, and does nothing.
    estimate: Option<bool>,
    /// `true`: whatever it costs.
    force: Option<bool>,
    /// `true`: joins the program's memory into huge pages before, as `POST /huge-pages` does, so that the stop is short.
    /// The first byte comes a second or three later for each gigabyte. An estimate joins nothing.
    huge_pages: Option<bool>,
    /// For the estimate: `json` (the default) or `text`.
    format: Option<String>,
}

/// What a core file of now would cost.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct CoreEstimate {
    /// About the size of the file in bytes, uncompressed.
    bytes: u64,
    /// About how long the program would stand still, in microseconds.
    pause_us: u64,
    /// How long it may, in microseconds: beyond that it wants `?force=true`. `DELOUSE_PAUSE_BUDGET_MS` sets it.
    budget_us: u64,
    /// Why it would be refused.
    refused: Option<String>,
}

/// A core file of the running program, which goes on
///
/// Compressed with zstd or gzip where the client accepts it. gdb opens it:
/// `curl localhost:7132/core -o core && gdb <executable> core`. With `?estimate=true`, what it would cost; with
/// `?huge_pages=true`, a short stop for a program of gigabytes.
#[endpoint { method = GET, path = "/core" }]
pub(super) async fn core(
    request: RequestContext<Context>,
    query: Parameters<CoreQuery>,
) -> Result<Response<Body>, HttpError> {
    respond(request, query, core_file).await
}

async fn core_file(request: RequestContext<Context>, query: CoreQuery) -> Result<Response<Body>, ApiError> {
    let format = format(&request, query.format.as_deref())?;
    let limits = Limits { force: query.force.unwrap_or(false), ..request.context().settings.limits };
    if query.estimate.unwrap_or(false) {
        let estimate = estimate(limits).await?;
        return Ok(Answer::from(Rendered::new(format, &estimate, || estimate.to_string())?).into_response());
    }
    let encoding = Encoding::accepted(request.request.headers());
    let permit = request.context().gate.hold("/core")?;
    let (writer, body) = stream::channel();
    let (tell, told) = oneshot::channel();
    let log = request.log.clone();
    let join = query.huge_pages.unwrap_or(false);
    let capture = move || {
        let joining = if join { join_huge_pages() } else { Vec::new() };
        if tell.is_closed() {
            return warn!(log, "the client is gone: the program was not stopped");
        }
        let image = match snapshot::freeze_fork_thaw(limits) {
            Ok(image) => image,
            Err(error) => {
                drop(permit);
                let error = if join { ApiError::Joined { error, joining } } else { error.into() };
                return drop(tell.send(Err(error)));
            }
        };
        let mut capture = snapshot::Snapshot::capture(&image).clone();
        capture.notes.extend(joining);
        if tell.send(Ok(capture)).is_ok()
            && let Err(error) = send(writer, encoding, permit, image)
        {
            warn!(log, "the core file was not sent to its end: {error}");
        }
    };
    thread::spawn("delouse-capture", capture)?;
    let capture = told.await.map_err(|_| ApiError::Failed("the capture panicked".to_owned()))??;

    let mut response = Response::new(body);
    let headers = response.headers_mut();
    harden(headers);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-core"));
    headers.insert(HeaderName::from_static("x-delouse-pause-us"), capture.pause_us.into());
    // A debugger cannot tell that registers and memory are not of one moment.
    let consistent = HeaderValue::from_static(if capture.consistent { "true" } else { "false" });
    headers.insert(HeaderName::from_static("x-delouse-consistent"), consistent);
    if let Ok(notes) = capture.notes.join("; ").parse::<HeaderValue>()
        && !notes.is_empty()
    {
        headers.insert(HeaderName::from_static("x-delouse-notes"), notes);
    }
    if let Ok(name) = format!("attachment; filename=\"core.{}\"", std::process::id()).parse() {
        headers.insert(CONTENT_DISPOSITION, name);
    }
    if let Some(name) = encoding.name() {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static(name));
    }
    Ok(response)
}

/// What a core file of now would cost, in headers
#[endpoint { method = HEAD, path = "/core" }]
pub(super) async fn core_estimate(
    request: RequestContext<Context>,
    query: Parameters<CoreQuery>,
) -> Result<Response<Body>, HttpError> {
    respond(request, query, estimate_in_headers).await
}

async fn estimate_in_headers(
    request: RequestContext<Context>,
    query: CoreQuery,
) -> Result<Response<Body>, ApiError> {
    format(&request, query.format.as_deref())?;
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

/// Why there is not more in huge pages. Where there are none at all, the budget still holds.
fn join_huge_pages() -> Vec<String> {
    snapshot::join_huge_pages().map_or_else(|error| vec![error.to_string()], |joined| joined.notes)
}

async fn estimate(limits: Limits) -> Result<CoreEstimate, ApiError> {
    let estimate = thread::run("delouse-capture", core_writer::estimate).await??;
    Ok(CoreEstimate {
        bytes: estimate.bytes,
        pause_us: micros(estimate.prediction.pause),
        budget_us: micros(limits.budget),
        refused: estimate.prediction.allowed_by(limits).err().map(|error| error.to_string()),
    })
}

impl std::fmt::Display for CoreEstimate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "a core file of about {} MiB, uncompressed", self.bytes >> 20)?;
        writeln!(
            f,
            "the program would stand still for about {} µs of {} µs allowed",
            self.pause_us, self.budget_us
        )?;
        match &self.refused {
            Some(reason) => writeln!(f, "refused without ?force=true: {reason}"),
            None => Ok(()),
        }
    }
}

/// Writes the core file. The image lives no longer than that, and the gate is shut for as long.
fn send(mut writer: stream::Writer, encoding: Encoding, permit: Permit, image: Image) -> Result<(), String> {
    encoding.write(&image, &mut writer)?;
    // Before the body ends: who has read it to its end can ask for the next one.
    drop(image);
    drop(permit);
    writer.finish();
    Ok(())
}

/// How the file is compressed: fast rather than small, as the image lives as long as this takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Encoding {
    Plain,
    Gzip,
    Zstd,
}

impl Encoding {
    /// The fastest of those that the client wants at all.
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

    fn write(self, image: &Image, out: &mut stream::Writer) -> Result<(), String> {
        // Compressors write in small pieces; the client is sent larger ones.
        let mut out = io::BufWriter::with_capacity(256 << 10, out);
        match self {
            Self::Plain => core_writer::write(image, &mut out).map_err(|e| e.to_string())?,
            Self::Gzip => {
                let mut gzip = flate2::write::GzEncoder::new(&mut out, flate2::Compression::fast());
                let stats = core_writer::write(image, &mut gzip).map_err(|e| e.to_string())?;
                gzip.finish().map_err(|e| e.to_string())?;
                stats
            }
            Self::Zstd => {
                let mut zstd = zstd::Encoder::new(&mut out, 1).map_err(|e| e.to_string())?;
                let stats = core_writer::write(image, &mut zstd).map_err(|e| e.to_string())?;
                zstd.finish().map_err(|e| e.to_string())?;
                stats
            }
        };
        out.flush().map_err(|e| e.to_string())
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
