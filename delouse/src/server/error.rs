//! What goes wrong with a request: each says what happened and what to do.

use std::fmt;

use dropshot::{Body, ErrorStatusCode};
use http::Response;
use http::header::{ALLOW, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};

use super::answer::{self, Format};
use super::readers;
use crate::dump_error::DumpError;
use crate::report::FilterError;
use crate::snapshot::room::Shortage;
use crate::snapshot::{SnapshotError, limits};
use crate::tasks::engine::EngineError;

/// Every error an endpoint answers with, in the one shape `{ error_code, message, request_id }`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ApiError {
    ForeignHost(String),
    ForeignOrigin(String),
    CrossSite,
    WrongToken,
    BrowserMayNot,
    Busy {
        running: String,
    },
    NoSuchPath {
        path: String,
        paths: Vec<String>,
    },
    MethodNotAllowed {
        method: String,
        path: String,
        allowed: Vec<String>,
    },
    /// dropshot's own words, and the parameters that there are.
    BadQuery {
        message: String,
        known: Vec<String>,
    },
    UnknownFormat(String),
    UnknownEngine(String),
    Filter(FilterError),
    UnknownCapture(String),
    BadGrowth(&'static str),
    Engine(EngineError),
    Snapshot(SnapshotError),
    /// Of a program whose memory was joined into huge pages before, and why no more of it.
    Joined {
        error: SnapshotError,
        joining: Vec<String>,
    },
    /// A capture would take too much of what is left to the program.
    NoRoom(Shortage),
    /// How many more files the program may open.
    NoFiles {
        left: usize,
    },
    NoThread,
    /// Of other clients, which read slowly or not at all.
    Unread {
        answers: usize,
    },
    Failed(String),
}

impl ApiError {
    fn status(&self) -> ErrorStatusCode {
        match self {
            Self::ForeignHost(_) | Self::ForeignOrigin(_) | Self::CrossSite => ErrorStatusCode::FORBIDDEN,
            Self::WrongToken => ErrorStatusCode::UNAUTHORIZED,
            Self::BrowserMayNot | Self::MethodNotAllowed { .. } => ErrorStatusCode::METHOD_NOT_ALLOWED,
            Self::Busy { .. } | Self::Unread { .. } => ErrorStatusCode::TOO_MANY_REQUESTS,
            Self::BadQuery { .. }
            | Self::UnknownFormat(_)
            | Self::UnknownEngine(_)
            | Self::Filter(_)
            | Self::BadGrowth(_) => ErrorStatusCode::BAD_REQUEST,
            Self::NoSuchPath { .. } | Self::UnknownCapture(_) => ErrorStatusCode::NOT_FOUND,
            Self::Engine(EngineError::NotBuilt(_)) => ErrorStatusCode::NOT_IMPLEMENTED,
            Self::Snapshot(SnapshotError::Unsupported | SnapshotError::NoHugePages) => {
                ErrorStatusCode::NOT_IMPLEMENTED
            }
            Self::Engine(EngineError::Refused(_))
            | Self::Snapshot(_)
            | Self::NoRoom(_)
            | Self::NoFiles { .. }
            | Self::NoThread => ErrorStatusCode::SERVICE_UNAVAILABLE,
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
            Self::UnknownFormat(_) => "UnknownFormat",
            Self::UnknownEngine(_) => "UnknownEngine",
            Self::Filter(_) => "BadFilter",
            Self::UnknownCapture(_) => "UnknownCapture",
            Self::BadGrowth(_) => "BadGrowth",
            Self::Engine(EngineError::NotBuilt(_)) => "NotBuilt",
            Self::Engine(EngineError::Refused(_)) => "Refused",
            Self::Snapshot(SnapshotError::Unsupported | SnapshotError::NoHugePages) => "Unsupported",
            Self::Snapshot(SnapshotError::OverBudget { .. }) => "OverBudget",
            Self::Snapshot(SnapshotError::NoHeadroom { .. }) => "NoHeadroom",
            Self::Snapshot(_) => "NoSnapshot",
            Self::Joined { error, .. } => Self::Snapshot(error.clone()).code(),
            Self::NoRoom(_) => "NoRoom",
            Self::NoFiles { .. } => "NoFiles",
            Self::NoThread => "NoThread",
            Self::Unread { .. } => "Unread",
            Self::Failed(_) => "Failed",
        }
    }

    /// A header that goes with the status, by RFC 9110 and RFC 6750.
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

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ForeignHost(host) => {
                write!(
                    f,
                    "Host is `{host}`: ask by localhost or a loopback address, as in curl localhost:7132/"
                )
            }
            Self::ForeignOrigin(origin) => write!(f, "Origin is `{origin}`: no web page may ask; use curl"),
            Self::CrossSite => write!(f, "a web page of another site sent this; use curl"),
            Self::WrongToken => {
                write!(f, "this server wants its token: curl -H \"Authorization: Bearer $DELOUSE_TOKEN\" …")
            }
            Self::BrowserMayNot => write!(f, "a browser may not end the program; use curl -X POST"),
            Self::Busy { running } => {
                write!(
                    f,
                    "{running} is being captured; only one capture runs at a time. Ask again in a second"
                )
            }
            Self::NoSuchPath { path, paths } => {
                write!(f, "there is no `{path}`; there are {}", paths.join(", "))
            }
            Self::MethodNotAllowed { method, path, allowed } => {
                write!(f, "{path} cannot be asked by {method}: use {}", allowed.join(" or "))
            }
            Self::BadQuery { message, known } => {
                write!(f, "{message}. Parameters of this endpoint: {}", known.join(", "))
            }
            Self::Unread { answers } => write!(
                f,
                "{answers} clients have not read their answers to the end, which takes memory: ask again in a second. A \
                 client that reads nothing is given up after {} s",
                readers::STALLED.as_secs()
            ),
            Self::UnknownFormat(format) => {
                write!(f, "there is no format `{format}`: use json or text (/waits also has dot)")
            }
            Self::UnknownEngine(engine) => {
                write!(f, "there is no engine `{engine}`: leave it out, or use memory or taskdump")
            }
            Self::UnknownCapture(id) => {
                write!(
                    f,
                    "there is no capture `{id}` (any more): use the `id` of one of the last diagnoses, or seconds=10"
                )
            }
            Self::BadGrowth(why) => f.write_str(why),
            Self::Engine(error) => write!(f, "{error}"),
            Self::Filter(error) => write!(f, "{error}"),
            Self::Snapshot(error @ SnapshotError::OverBudget { .. }) => {
                write!(
                    f,
                    "{error}. ?huge_pages=true joins it before the capture, ?force=true captures all the same"
                )
            }
            Self::Snapshot(error @ SnapshotError::NoHeadroom { .. }) => {
                write!(f, "{error}. ?force=true captures all the same")
            }
            Self::Snapshot(error @ SnapshotError::Fork(_)) => {
                write!(f, "{error}. /stacktrace/rust needs no fork")
            }
            Self::Snapshot(error) => write!(f, "{error}"),
            Self::Joined { error, joining } => {
                match error {
                    SnapshotError::OverBudget { predicted, budget, .. } => write!(
                        f,
                        "a fork would still stop the program for about {} ms, more than the {} ms allowed: raise \
                         DELOUSE_PAUSE_BUDGET_MS, or add ?force=true",
                        predicted.as_millis(),
                        budget.as_millis()
                    )?,
                    error => write!(f, "{}", Self::Snapshot(error.clone()))?,
                }
                match joining.join("; ") {
                    why if why.is_empty() => {
                        f.write_str(". Its memory is in huge pages now, as far as it can be")
                    }
                    why => write!(f, ". Not all of its memory could be joined: {why}"),
                }
            }
            Self::NoThread => f.write_str(
                "no thread for the capture: raise the limit (pids.max of the cgroup, or RLIMIT_NPROC). \
                 /stacktrace/rust needs none",
            ),
            Self::NoRoom(shortage) => write!(f, "nothing was captured: {shortage}"),
            Self::NoFiles { left } => write!(
                f,
                "the program may open only {left} more files (RLIMIT_NOFILE), which delouse leaves to it: raise the \
                 limit while it runs, with {}; nothing was captured",
                limits::more_files()
            ),
            Self::Failed(what) => write!(f, "delouse failed: {what}. The program is not affected"),
        }
    }
}

impl From<ApiError> for DumpError {
    /// Of what keeps captures from beginning.
    fn from(error: ApiError) -> Self {
        match error {
            ApiError::NoFiles { .. } => Self::NoFiles,
            _ => Self::NoRoom,
        }
    }
}

impl From<FilterError> for ApiError {
    fn from(error: FilterError) -> Self {
        Self::Filter(error)
    }
}

impl From<EngineError> for ApiError {
    fn from(error: EngineError) -> Self {
        Self::Engine(error)
    }
}

impl From<SnapshotError> for ApiError {
    fn from(error: SnapshotError) -> Self {
        Self::Snapshot(error)
    }
}

impl ApiError {
    /// The whole response, in `format`: one line of text, or the shape that the API describes for errors.
    pub(crate) fn response(&self, format: Format, request_id: &str) -> Response<Body> {
        let body = match format {
            Format::Json => {
                let fields = serde_json::json!({
                    "error_code": self.code(), "message": self.to_string(), "request_id": request_id,
                });
                format!("{fields:#}\n")
            }
            Format::Text | Format::Dot => format!("{self}\n"),
        };
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = self.status().as_status();
        let headers = response.headers_mut();
        answer::harden(headers);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(format.media_type()));
        if let Some((name, value)) = self.header()
            && let Ok(value) = value.parse()
        {
            headers.insert(name, value);
        }
        response
    }
}
