//! Errors of requests. Each message says what happened and what to do.

use std::fmt::{self, Display as _};

use dropshot::{Body, ErrorStatusCode};
use http::Response;
use http::header::{ALLOW, HeaderName, RETRY_AFTER, WWW_AUTHENTICATE};

use super::format::response;
use super::readers::{self, Unread};
use crate::inspector::inspect::InspectError;
use crate::own_threads::ThreadError;
use crate::report::FilterError;
use crate::report::format::alternatives;
use crate::report::formats::{Format, TEXT};
use crate::targets::SnapshotError;
use crate::tasks::engine::EngineError;

/// An error of an endpoint. Its response has the form `{ error_code, message, request_id }`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ApiError {
    #[error("Host is `{0}`: use localhost or a loopback address, as in curl localhost:7132/")]
    ForeignHost(String),
    #[error("Origin is `{0}`: requests of web pages are refused; use curl")]
    ForeignOrigin(String),
    #[error("a web page of another site sent this request; use curl")]
    CrossSite,
    #[error("this server requires its token: curl -H \"Authorization: Bearer $DELOUSE_TOKEN\" …")]
    WrongToken,
    #[error("a browser may not end the program; use curl -X POST")]
    BrowserMayNot,
    #[error("{running} is being captured; only one capture runs at a time. Repeat the request in a second")]
    Busy { running: String },
    #[error("there is no `{path}`; there are {}", .paths.join(", "))]
    NoSuchPath { path: String, paths: Vec<String> },
    #[error("{path} does not support {method}: use {}", .allowed.join(" or "))]
    MethodNotAllowed { method: String, path: String, allowed: Vec<String> },
    /// dropshot's message, and the parameters of the endpoint.
    #[error("{message}. Parameters of this endpoint: {}", .known.join(", "))]
    BadQuery { message: String, known: Vec<String> },
    /// A value that `parameter` does not have.
    #[error("there is no {parameter} `{value}`: use {}", alternatives(.known))]
    UnknownValue { parameter: String, value: String, known: Vec<String> },
    #[error(transparent)]
    Filter(#[from] FilterError),
    #[error(
        "there is no capture `{0}`, or it has expired: use the `id` of one of the last diagnoses, or seconds=10"
    )]
    UnknownCapture(String),
    #[error("{0}")]
    BadGrowth(&'static str),
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error(fmt = snapshot_text)]
    Snapshot(#[from] SnapshotError),
    /// The capture failed although memory was joined into huge pages before. `joining`: why some was not joined.
    #[error(fmt = joined_text)]
    Joined { error: SnapshotError, joining: Vec<String> },
    /// The program that is inspected from outside gives no answer.
    #[error("{message}")]
    Program { has_ended: bool, message: String },
    /// The endpoint has no meaning for a program that is inspected from outside.
    #[error("{0}")]
    OnlyFromInside(String),
    /// A thread cannot be started, or there is no memory or no descriptor for a capture.
    #[error(transparent)]
    Thread(#[from] ThreadError),
    /// Too many other clients have not read their answers.
    #[error(
        "{answers} clients have not read their answers to the end, which takes memory: repeat the request in a second. The \
         connection of a client that reads nothing is closed after {} s",
        readers::STALLED.as_secs()
    )]
    Unread { answers: usize },
    #[error("delouse failed: {0}. The program is not affected")]
    Failed(String),
}

fn snapshot_text(error: &SnapshotError, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    error.fmt(f)?;
    f.write_str(match error {
        SnapshotError::OverBudget { .. } => {
            ". ?huge_pages=true joins it before the capture, ?force=true captures anyway"
        }
        SnapshotError::NoHeadroom { .. } => ". ?force=true captures anyway",
        SnapshotError::Fork(_) => ". /stacktrace/rust needs no fork",
        _ => "",
    })
}

fn joined_text(error: &SnapshotError, joining: &[String], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match error {
        SnapshotError::OverBudget { predicted, budget, .. } => write!(
            f,
            "a fork would still stop the program for about {} ms, more than the {} ms allowed: raise \
             DELOUSE_PAUSE_BUDGET_MS, or add ?force=true",
            predicted.as_millis(),
            budget.as_millis()
        )?,
        error => snapshot_text(error, f)?,
    }
    match joining.join("; ") {
        why if why.is_empty() => f.write_str(". All memory that can be joined is in huge pages now"),
        why => write!(f, ". Not all of its memory could be joined: {why}"),
    }
}

impl ApiError {
    fn status(&self) -> ErrorStatusCode {
        match self {
            Self::ForeignHost(_) | Self::ForeignOrigin(_) | Self::CrossSite => ErrorStatusCode::FORBIDDEN,
            Self::WrongToken => ErrorStatusCode::UNAUTHORIZED,
            Self::BrowserMayNot | Self::MethodNotAllowed { .. } => ErrorStatusCode::METHOD_NOT_ALLOWED,
            Self::Busy { .. } | Self::Unread { .. } => ErrorStatusCode::TOO_MANY_REQUESTS,
            Self::BadQuery { .. } | Self::UnknownValue { .. } | Self::Filter(_) | Self::BadGrowth(_) => {
                ErrorStatusCode::BAD_REQUEST
            }
            Self::NoSuchPath { .. } | Self::UnknownCapture(_) => ErrorStatusCode::NOT_FOUND,
            Self::Engine(EngineError::NotBuilt(_)) | Self::OnlyFromInside(_) => {
                ErrorStatusCode::NOT_IMPLEMENTED
            }
            // It will not come back, and the same id does not make another process the same.
            Self::Program { has_ended: true, .. } => ErrorStatusCode::GONE,
            Self::Snapshot(SnapshotError::Unsupported | SnapshotError::NoHugePages) => {
                ErrorStatusCode::NOT_IMPLEMENTED
            }
            Self::Engine(EngineError::Refused(_))
            | Self::Snapshot(_)
            | Self::Thread(_)
            | Self::Program { has_ended: false, .. } => ErrorStatusCode::SERVICE_UNAVAILABLE,
            Self::Joined { error, .. } => Self::Snapshot(error.clone()).status(),
            Self::Failed(_) => ErrorStatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::ForeignHost(_) => "ForeignHost",
            Self::ForeignOrigin(_) => "ForeignOrigin",
            Self::CrossSite => "CrossSite",
            Self::WrongToken => "WrongToken",
            Self::BrowserMayNot => "BrowserMayNot",
            Self::Busy { .. } => "Busy",
            Self::NoSuchPath { .. } => "NoSuchPath",
            Self::MethodNotAllowed { .. } => "MethodNotAllowed",
            Self::BadQuery { .. } => "BadQuery",
            Self::UnknownValue { parameter, .. } if parameter == "format" => "UnknownFormat",
            Self::UnknownValue { parameter, .. } if parameter == "engine" => "UnknownEngine",
            Self::UnknownValue { .. } | Self::Filter(_) => "BadFilter",
            Self::UnknownCapture(_) => "UnknownCapture",
            Self::BadGrowth(_) => "BadGrowth",
            Self::Engine(EngineError::NotBuilt(_)) => "NotBuilt",
            Self::Engine(EngineError::Refused(_)) => "Refused",
            Self::Snapshot(SnapshotError::Unsupported | SnapshotError::NoHugePages) => "Unsupported",
            Self::Snapshot(SnapshotError::OverBudget { .. }) => "OverBudget",
            Self::Snapshot(SnapshotError::NoHeadroom { .. }) => "NoHeadroom",
            Self::Snapshot(_) => "NoSnapshot",
            Self::Joined { error, .. } => Self::Snapshot(error.clone()).code(),
            Self::Program { has_ended: true, .. } => "ProgramEnded",
            Self::Program { has_ended: false, .. } => "NoProgram",
            Self::OnlyFromInside(_) => "OnlyFromInside",
            Self::Thread(ThreadError::Memory(_)) => "NoRoom",
            Self::Thread(ThreadError::Files { .. }) => "NoFiles",
            Self::Thread(ThreadError::Threads) => "NoThread",
            Self::Unread { .. } => "Unread",
            Self::Failed(_) => "Failed",
        }
    }

    /// The header that RFC 9110 or RFC 6750 requires with the status.
    fn header(&self) -> Option<(HeaderName, String)> {
        match self {
            Self::WrongToken => Some((WWW_AUTHENTICATE, "Bearer".to_owned())),
            Self::BrowserMayNot => Some((ALLOW, "POST".to_owned())),
            Self::MethodNotAllowed { allowed, .. } => Some((ALLOW, allowed.join(", "))),
            Self::Busy { .. } | Self::Unread { .. } | Self::Engine(EngineError::Refused(_)) => {
                Some((RETRY_AFTER, "1".to_owned()))
            }
            _ => None,
        }
    }
}

impl From<InspectError> for ApiError {
    fn from(error: InspectError) -> Self {
        match error {
            InspectError::Engine(error) => error.into(),
            InspectError::Foreign(error) => {
                Self::Program { has_ended: error.has_ended(), message: error.to_string() }
            }
            InspectError::Snapshot(error) => error.into(),
            InspectError::Elf(error) => Self::Failed(error.to_string()),
        }
    }
}

impl From<Unread> for ApiError {
    fn from(Unread { answers }: Unread) -> Self {
        Self::Unread { answers }
    }
}

impl ApiError {
    /// The response: in text, one line; in JSON, the form that the API describes for errors.
    pub(crate) fn response(&self, format: Format, request_id: &str) -> Response<Body> {
        let body = if format == TEXT {
            format!("{self}\n")
        } else {
            let fields = serde_json::json!({
                "error_code": self.code(), "message": self.to_string(), "request_id": request_id,
            });
            format!("{fields:#}\n")
        };
        let mut response = response(Body::from(body), format.media_type);
        *response.status_mut() = self.status().as_status();
        if let Some((name, value)) = self.header()
            && let Ok(value) = value.parse()
        {
            response.headers_mut().insert(name, value);
        }
        response
    }
}
