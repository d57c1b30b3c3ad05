//! `/`: the list of endpoints.

use std::net::SocketAddr;

use dropshot::{HttpError, RequestContext, endpoint};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use super::Common;
use crate::inspector::inspect::Inspected;
use crate::report::formats::Renders;
use crate::server::Context;
use crate::server::answer::{Answer, Rendered};
use crate::server::format::negotiate;
use crate::server::front::{Parameters, respond};

/// The OpenAPI document.
#[derive(Serialize, JsonSchema)]
#[serde(transparent)]
pub(super) struct Index {
    document: Value,
    #[serde(skip)]
    address: SocketAddr,
    #[serde(skip)]
    inspected: Inspected,
}

/// The list of endpoints: this document
///
/// The OpenAPI description of all endpoints; with `?format=text`, the same in a few lines. A browser gets a page that shows
/// all of their answers.
#[endpoint { method = GET, path = "/" }]
pub(super) async fn index(
    request: RequestContext<Context>,
    query: Parameters<Common<Index>>,
) -> Result<Answer<Index>, HttpError> {
    respond(request, query, async |request, query| {
        let renderer = negotiate(query.format, request.request.headers());
        let document = request.context().openapi.as_ref().clone();
        let mut index = Index {
            document,
            address: request.server.local_addr,
            inspected: request.context().inspector.inspected(),
        };
        Ok(Rendered::new(renderer, &mut index)?.into())
    })
    .await
}

impl Renders for Index {
    /// One line per endpoint, with a command.
    fn text(&self) -> String {
        let Self { document, address, inspected } = self;
        let mut text = format!("delouse: what every task and every thread of {inspected} is doing\n\n");
        let paths = document.get("paths").and_then(Value::as_object);
        for (path, methods) in paths.into_iter().flatten() {
            // Endpoints that have POST are shown with POST, even if GET works as well.
            let (flags, method) = match (methods.get("post"), methods.get("get")) {
                (Some(post), _) => ("-X POST ", post),
                (None, Some(get)) => ("", get),
                (None, None) => continue,
            };
            let summary = method.get("summary").and_then(Value::as_str).unwrap_or_default();
            let command = match path.as_str() {
                "/core" => format!("curl -OJ '{address}{path}'"),
                "/metrics" | "/debug/pprof" => format!("curl {address}{path}"),
                path if path.starts_with("/debug/pprof/") => format!("curl '{address}{path}?debug=1'"),
                _ => format!("curl {flags}'{address}{path}?format=text'"),
            };
            text.push_str(&format!("{command:<58} {summary}\n"));
        }
        text
    }
}
