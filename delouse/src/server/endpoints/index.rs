//! `/`: what can be asked.

use dropshot::{HttpError, RequestContext, endpoint};

use super::{Common, format};
use crate::server::Context;
use crate::server::answer::{Answer, Rendered};
use crate::server::front::{Parameters, respond};

/// What can be asked: this document
///
/// The OpenAPI description of all endpoints; with `?format=text`, the same in a few lines.
#[endpoint { method = GET, path = "/" }]
pub(super) async fn index(
    request: RequestContext<Context>,
    query: Parameters<Common>,
) -> Result<Answer<serde_json::Value>, HttpError> {
    respond(request, query, async |request, query| {
        let format = format(&request, query.format.as_deref())?;
        let openapi = request.context().openapi.as_ref();
        let text = || summary(openapi, &request.server.local_addr.to_string());
        Ok(Rendered::new(format, openapi, text)?.into())
    })
    .await
}

/// One line an endpoint, ready to be typed.
fn summary(openapi: &serde_json::Value, address: &str) -> String {
    let mut text = String::from("delouse: what every task and every thread of this program is doing\n\n");
    let paths = openapi.get("paths").and_then(serde_json::Value::as_object);
    for (path, methods) in paths.into_iter().flatten() {
        // What ends the program is asked for by POST, whatever else would do.
        let (flags, method) = match (methods.get("post"), methods.get("get")) {
            (Some(post), _) => ("-X POST ", post),
            (None, Some(get)) => ("", get),
            (None, None) => continue,
        };
        let summary = method.get("summary").and_then(serde_json::Value::as_str).unwrap_or_default();
        let command = match path.as_str() {
            "/core" => format!("curl -OJ '{address}{path}'"),
            _ => format!("curl {flags}'{address}{path}?format=text'"),
        };
        text.push_str(&format!("{command:<58} {summary}\n"));
    }
    text
}
