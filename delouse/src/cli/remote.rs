//! Programs with a server of delouse, which answers itself.

use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::de::DeserializeOwned;
use ureq::http::Response;
use ureq::{Agent, Body};

use super::arguments::Selection;
use super::error::{CliError, ServerError};
use super::progress::Progress;
use super::whole_file::WholeFile;
use crate::report::formats::{Format, JSON};
use crate::report::json::name;
use crate::report::{TasksAnswer, ThreadsAnswer};

/// For the connection: servers are on this machine, or behind a tunnel.
const CONNECT: Duration = Duration::from_secs(5);
/// For the beginning of an answer: a diagnosis reads the debug information first, and may measure growth for a minute.
const ANSWER: Duration = Duration::from_secs(180);
/// The longest answer, but for core files, which are written to disk: ten times that of a million tasks.
const MOST: u64 = 1 << 30;
/// What is quoted of an answer that is not understood.
const QUOTED: usize = 60;

/// The server of a program.
pub(super) struct Server {
    agent: Agent,
    /// Without a slash at the end.
    url: String,
    is_default: bool,
}

impl Server {
    /// The server at `url`, which is not asked yet. `is_default`: the user has not named it.
    pub(super) fn new(url: &str, is_default: bool) -> Result<Self, CliError> {
        let url = if url.contains("://") { url.to_owned() } else { format!("http://{url}") };
        if !url.starts_with("http://") {
            return Err(CliError::Usage(format!(
                "{url}: servers of delouse speak plain HTTP: write http://HOST:PORT"
            )));
        }
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            // A proxy is no way to a loopback address.
            .proxy(None)
            .timeout_connect(Some(CONNECT))
            .timeout_recv_response(Some(ANSWER));
        let url = url.trim_end_matches('/').to_owned();
        Ok(Self { agent: config.build().into(), url, is_default })
    }

    pub(super) fn tasks(&self, selection: &Selection, full: bool) -> Result<TasksAnswer, CliError> {
        let Selection { task, state, kind, text } = selection;
        let (state, kind) = (state.map(|state| name(&state)), kind.map(|kind| name(&kind)));
        let all = [("task", task), ("state", &state), ("kind", &kind), ("match", text)];
        let given = all.iter().filter_map(|(name, value)| Some((*name, value.as_deref()?)));
        let parameters: Vec<_> = given.chain(full.then_some(("full", "true"))).collect();
        self.get("/stacktrace/tokio", &parameters)
    }

    pub(super) fn threads(&self, full: bool) -> Result<ThreadsAnswer, CliError> {
        let parameters: &[_] = if full { &[("full", "true")] } else { &[] };
        self.get("/stacktrace/rust", parameters)
    }

    /// Its address.
    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// The answer of an endpoint.
    pub(super) fn get<A: DeserializeOwned>(
        &self,
        path: &str,
        parameters: &[(&str, &str)],
    ) -> Result<A, CliError> {
        let bytes = self.bytes(path, parameters, JSON)?;
        serde_json::from_slice(&bytes).map_err(|error| {
            let start = String::from_utf8_lossy(bytes.get(..QUOTED).unwrap_or(&bytes)).into_owned();
            self.is_other(format!(
                "the answer to {path} is not understood ({error}); it begins with {start:?}"
            ))
        })
    }

    /// The answer of an endpoint in a format, as the server renders it.
    pub(super) fn rendered(&self, path: &str, format: Format) -> Result<Vec<u8>, CliError> {
        self.bytes(path, &[], format)
    }

    /// Writes a core file of the program to `output`, or to `core.PID` in the current directory; returns its path.
    pub(super) fn core(&self, output: Option<&Path>) -> Result<PathBuf, CliError> {
        let _progress = Progress::start(format!("writing a core file of {}", self.url));
        let response = self.request("/core", &[], None)?;
        let header = |name: &str| response.headers().get(name)?.to_str().ok();
        if header("content-type") != Some("application/x-core") {
            return Err(self.is_other("the answer to /core is no core file".to_owned()));
        }
        let named = header("content-disposition").and_then(|value| value.split('"').nth(1));
        // A name and no path, whatever the server says.
        let named = named.and_then(|name| Path::new(name).file_name()).map_or("core".into(), PathBuf::from);
        let path = output.map_or(named, Path::to_owned);
        let failed = |error| CliError::File { path: path.clone(), error };
        let mut whole = WholeFile::create(&path).map_err(failed)?;
        let mut body = response.into_body().into_reader();
        io::copy(&mut body, &mut whole.file)
            .map_err(|error| ServerError::Broken { url: self.url.clone(), reason: error.to_string() })?;
        whole.finish().map_err(failed)?;
        Ok(path)
    }

    fn bytes(&self, path: &str, parameters: &[(&str, &str)], format: Format) -> Result<Vec<u8>, CliError> {
        let _progress = Progress::start(format!("waiting for {}", self.url));
        let response = self.request(path, parameters, Some(format))?;
        let too_long = || {
            let most = MOST >> 20;
            self.is_other(format!(
                "the answer to {path} is longer than {most} MB, and was not read to its end"
            ))
        };
        if response.body().content_length().is_some_and(|length| length > MOST) {
            return Err(too_long());
        }
        let mut bytes = Vec::new();
        let mut body = response.into_body().into_reader().take(MOST + 1);
        body.read_to_end(&mut bytes)
            .map_err(|error| ServerError::Broken { url: self.url.clone(), reason: error.to_string() })?;
        if bytes.len() as u64 > MOST { Err(too_long()) } else { Ok(bytes) }
    }

    /// Sends a request; returns the response if it is a success.
    fn request(
        &self,
        path: &str,
        parameters: &[(&str, &str)],
        format: Option<Format>,
    ) -> Result<Response<Body>, CliError> {
        let mut request = self.agent.get(format!("{}{path}", self.url));
        for (name, value) in parameters {
            request = request.query(name, value);
        }
        if let Some(format) = format {
            request = request.query("format", format.name);
        }
        if let Ok(token) = std::env::var("DELOUSE_TOKEN") {
            request = request.header("Authorization", format!("Bearer {token}"));
        }
        let mut response = request.call().map_err(|error| self.failed(error))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        // delouse's own errors have a message that says what to do.
        let body = response.body_mut().with_config().limit(64 << 10).read_to_vec().unwrap_or_default();
        let message = serde_json::from_slice::<serde_json::Value>(&body).ok();
        let message = message.as_ref().and_then(|body| body.get("message")?.as_str());
        Err(match message {
            Some(message) => {
                ServerError::Refused { url: self.url.clone(), message: message.to_owned() }.into()
            }
            None => self.is_other(format!("it answers {status} to {path}")),
        })
    }

    fn is_other(&self, reason: String) -> CliError {
        ServerError::OtherServer { url: self.url.clone(), reason }.into()
    }

    fn failed(&self, error: ureq::Error) -> CliError {
        let url = self.url.clone();
        let remedy = if self.is_default {
            "Name a target: a process id (delouse diagnose 1234), a core file, or the address of a program with \
             #[delouse::main] that runs with the feature `debug`"
        } else {
            "Does the program run with the feature `debug`, and is this the address that it prints at start?"
        };
        match error {
            ureq::Error::ConnectionFailed | ureq::Error::HostNotFound | ureq::Error::Timeout(_) => {
                ServerError::Absent { url, reason: error.to_string(), remedy }.into()
            }
            ureq::Error::Io(ref io) if io.kind() == io::ErrorKind::ConnectionRefused => {
                ServerError::Absent { url, reason: "connection refused".to_owned(), remedy }.into()
            }
            ureq::Error::BadUri(reason) => CliError::Usage(format!("{url} is no address: {reason}")),
            ureq::Error::Http(reason) => CliError::Usage(format!("{url} is no address: {reason}")),
            other => self.is_other(other.to_string()),
        }
    }
}
