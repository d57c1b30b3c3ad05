//! Handles every request before it reaches its endpoint.
//!
//! dropshot's own errors (404, 405, 400) are always in JSON. Its server therefore has one route, which matches every path
//! and method. This module checks access, looks the endpoint up in dropshot's routing table, and writes every error in the
//! format that the client requests.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;
use dropshot::{
    ApiDescription, ApiEndpoint, ApiEndpointBodyContentType, ApiEndpointVersions, Body, ExtractorMetadata,
    HttpError, Query, RawRequest, RequestContext, ServerContext, SharedExtractor,
};
use http::{Method, Request, Response};
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde_json::Value;
use slog::warn;

use super::error::ApiError;
use super::format::of_error;
use super::{Context, access, page};

type Answered = Pin<Box<dyn Future<Output = Result<Response<Body>, ApiError>> + Send>>;

/// Calls the endpoint of a request.
pub(crate) type Routes = Box<dyn Fn(RequestContext<Context>, Request<Body>) -> Answered + Send + Sync>;

/// The endpoints of `api` by path and method.
pub(crate) fn routes(api: ApiDescription<Context>, openapi: Arc<Value>) -> Routes {
    let router = api.into_router();
    Box::new(move |mut context, request| {
        let (method, path) = (request.method(), request.uri().path());
        match router.lookup_route(method, path.into(), None) {
            Ok(found) => {
                context.endpoint = found.endpoint;
                let answer = async move { found.handler.handle_request(context, request).await };
                // Endpoints convert their errors to responses: see `respond`.
                Box::pin(async {
                    answer.await.map_err(|_| ApiError::Failed("no answer was made".to_owned()))
                })
            }
            Err(_) => Box::pin(std::future::ready(Err(missing(&openapi, method, path)))),
        }
    })
}

/// The error for a path and a method that no endpoint has.
fn missing(openapi: &Value, method: &Method, path: &str) -> ApiError {
    let keys = |value: Option<&Value>| -> Vec<String> {
        value.and_then(|value| value.as_object()).map(|map| map.keys().cloned().collect()).unwrap_or_default()
    };
    let paths = openapi.get("paths");
    let trimmed = path.trim_end_matches('/');
    let allowed = keys(paths.and_then(|paths| paths.get(if trimmed.is_empty() { "/" } else { trimmed })));
    if allowed.is_empty() {
        return ApiError::NoSuchPath { path: path.to_owned(), paths: keys(paths) };
    }
    let allowed = allowed.iter().map(|method| method.to_uppercase()).collect();
    ApiError::MethodNotAllowed { method: method.to_string(), path: path.to_owned(), allowed }
}

/// An API with one endpoint for all paths and all usual methods.
pub(crate) fn api() -> ApiDescription<Context> {
    let mut api = ApiDescription::new();
    let methods = [
        Method::GET,
        Method::HEAD,
        Method::POST,
        Method::PUT,
        Method::DELETE,
        Method::PATCH,
        Method::OPTIONS,
    ];
    for method in methods {
        let name = format!("any_{}", method.as_str().to_lowercase());
        let endpoint = ApiEndpoint::new(
            name,
            any,
            method,
            dropshot::CONTENT_TYPE_OCTET_STREAM,
            "/{path:.*}",
            ApiEndpointVersions::All,
        );
        let registered = api.register(endpoint.visible(false));
        debug_assert!(registered.is_ok(), "{registered:?}");
    }
    api
}

/// The path, for which dropshot requires a named parameter.
#[derive(serde::Deserialize, JsonSchema)]
struct Rest {
    #[allow(dead_code, reason = "the whole path is in the request")]
    path: Vec<String>,
}

async fn any(
    context: RequestContext<Context>,
    _path: dropshot::Path<Rest>,
    request: RawRequest,
) -> Result<Response<Body>, HttpError> {
    let request = request.into_inner();
    let (uri, headers) = (request.uri().clone(), request.headers().clone());
    let (log, id) = (context.log.clone(), context.request_id.clone());
    let server = context.server.clone();
    let answer = match access::check(&server.private.settings, &uri, &headers) {
        // The token is checked last: the page has no data, and asks for the token itself.
        Ok(()) | Err(ApiError::WrongToken) if page::is_requested(&request) => Ok(page::response()),
        Ok(()) => (server.private.routes)(context, request).await,
        Err(error) => Err(error),
    };
    Ok(answer.unwrap_or_else(|error| {
        warn!(log, "refused: {error}");
        error.response(of_error(&uri, &headers), &id)
    }))
}

/// The parameters of a request, or the reason why they are invalid. Unlike with [`Query`], the endpoint handles the error.
pub(crate) struct Parameters<Q>(Result<Q, String>);

#[async_trait]
impl<Q: DeserializeOwned + JsonSchema + Send + Sync + 'static> SharedExtractor for Parameters<Q> {
    async fn from_request<C: ServerContext>(context: &RequestContext<C>) -> Result<Self, HttpError> {
        let query = Query::<Q>::from_request(context).await;
        Ok(Self(query.map(Query::into_inner).map_err(|error| error.external_message)))
    }

    fn metadata(body: ApiEndpointBodyContentType) -> ExtractorMetadata {
        <Query<Q> as SharedExtractor>::metadata(body)
    }
}

/// Runs the body of an endpoint, and converts its error to a response in the format that the client requests.
pub(crate) async fn respond<Q, A, F>(
    context: RequestContext<Context>,
    parameters: Parameters<Q>,
    body: impl FnOnce(RequestContext<Context>, Q) -> F,
) -> Result<A, HttpError>
where
    A: From<Response<Body>>,
    F: Future<Output = Result<A, ApiError>>,
{
    let (log, id) = (context.log.clone(), context.request_id.clone());
    let format = of_error(context.request.uri(), context.request.headers());
    let answer = match parameters.0 {
        Ok(parameters) => body(context, parameters).await,
        Err(message) => {
            let pairs = Query::<Vec<(String, String)>>::from_request(&context).await;
            let pairs = pairs.map(Query::into_inner).unwrap_or_default();
            let openapi = &context.server.private.openapi;
            Err(invalid(openapi, context.request.uri().path(), &pairs, message))
        }
    };
    Ok(answer.unwrap_or_else(|error| {
        slog::info!(log, "refused: {error}");
        error.response(format, &id).into()
    }))
}

/// The error for parameters that the endpoint at `path` does not have, or not with these values.
fn invalid(openapi: &Value, path: &str, pairs: &[(String, String)], message: String) -> ApiError {
    let methods = openapi.get("paths").and_then(|paths| paths.get(path)).and_then(Value::as_object);
    let parameters = methods.into_iter().flatten().filter_map(|(_, method)| method.get("parameters"));
    let parameters = parameters.filter_map(Value::as_array).flatten();
    let mut values = BTreeMap::new();
    for parameter in parameters {
        if let (Some(name), Some(schema)) = (parameter["name"].as_str(), parameter.get("schema")) {
            values.insert(name, values_of(openapi, schema));
        }
    }
    for (name, value) in pairs {
        if let Some(known) = values.get(name.as_str()).filter(|known| !known.is_empty())
            && !known.contains(value)
        {
            let (parameter, value) = (name.clone(), value.clone());
            return ApiError::UnknownValue { parameter, value, known: known.clone() };
        }
    }
    ApiError::BadQuery { message, known: values.into_keys().map(str::to_owned).collect() }
}

/// The values that `schema` lists; empty if it allows any.
fn values_of(openapi: &Value, schema: &Value) -> Vec<String> {
    let reference = schema["$ref"].as_str().and_then(|path| openapi.pointer(path.strip_prefix('#')?));
    let parts = ["allOf", "oneOf"].into_iter().filter_map(|key| schema[key].as_array()).flatten();
    let own = schema["enum"].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned);
    own.chain(parts.chain(reference).flat_map(|part| values_of(openapi, part))).collect()
}
