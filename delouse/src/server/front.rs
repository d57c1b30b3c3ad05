//! In front of the endpoints: every request passes here, whatever its path and method.
//!
//! dropshot answers what it refuses itself (404, 405, 400) in JSON alone. So its server has one route, for every path;
//! this module checks the client's right to ask, finds the endpoint in dropshot's own routing table, and writes every
//! error in the format that the client asked for.

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
use slog::warn;

use super::answer::Format;
use super::error::ApiError;
use super::{Context, access};

type Answered = Pin<Box<dyn Future<Output = Result<Response<Body>, ApiError>> + Send>>;

/// Answers a request by the endpoint that it names.
pub(crate) type Routes = Box<dyn Fn(RequestContext<Context>, Request<Body>) -> Answered + Send + Sync>;

/// The endpoints of `api` by path and method.
pub(crate) fn routes(api: ApiDescription<Context>, openapi: Arc<serde_json::Value>) -> Routes {
    let router = api.into_router();
    Box::new(move |mut context, request| {
        let (method, path) = (request.method(), request.uri().path());
        match router.lookup_route(method, path.into(), None) {
            Ok(found) => {
                context.endpoint = found.endpoint;
                let answer = async move { found.handler.handle_request(context, request).await };
                // Endpoints answer their errors themselves.
                Box::pin(async {
                    answer.await.map_err(|_| ApiError::Failed("no answer was made".to_owned()))
                })
            }
            Err(_) => Box::pin(std::future::ready(Err(missing(&openapi, method, path)))),
        }
    })
}

/// Why no endpoint has that path and method.
fn missing(openapi: &serde_json::Value, method: &Method, path: &str) -> ApiError {
    let keys = |value: Option<&serde_json::Value>| -> Vec<String> {
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

/// An API with one endpoint, which every path and every usual method leads to.
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

/// The rest of a path, which dropshot wants to have a name.
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
        Ok(()) => (server.private.routes)(context, request).await,
        Err(error) => Err(error),
    };
    Ok(answer.unwrap_or_else(|error| {
        warn!(log, "refused: {error}");
        error.response(Format::of_error(&uri, &headers), &id)
    }))
}

/// The parameters of a request, or what is wrong with them. Unlike [`Query`], it lets the endpoint answer that.
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

/// Runs the body of an endpoint and writes its errors in the format that the client asked for.
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
    let format = Format::of_error(context.request.uri(), context.request.headers());
    let answer = match parameters.0 {
        Ok(parameters) => body(context, parameters).await,
        Err(message) => {
            let known = parameters_of(&context.server.private.openapi, context.request.uri().path());
            Err(ApiError::BadQuery { message, known })
        }
    };
    Ok(answer.unwrap_or_else(|error| {
        slog::info!(log, "refused: {error}");
        error.response(format, &id).into()
    }))
}

/// The names of the parameters that the endpoint at `path` takes.
fn parameters_of(openapi: &serde_json::Value, path: &str) -> Vec<String> {
    let methods = openapi.get("paths").and_then(|paths| paths.get(path)).and_then(|path| path.as_object());
    let parameters = methods.into_iter().flatten().filter_map(|(_, method)| method.get("parameters"));
    let names = parameters.filter_map(|list| list.as_array()).flatten().filter_map(|one| one.get("name"));
    let mut names: Vec<String> = names.filter_map(|name| name.as_str()).map(str::to_owned).collect();
    names.sort_unstable();
    names.dedup();
    names
}
