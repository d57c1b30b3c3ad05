//! The endpoints: each checks who asks, captures, and hands the model to a rendering.

mod core;
mod coredump;
mod elf;
mod huge_pages;
mod index;
mod stacktrace;
mod waits;

use dropshot::{ApiDescription, RequestContext};
use schemars::JsonSchema;
use serde::Deserialize;

use super::Context;
use super::answer::Format;
use super::error::ApiError;

/// What every endpoint takes.
///
/// A parameter that no endpoint knows is refused, not ignored: who misspells one is to be told.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Common {
    /// `json` (the default) or `text`; over `Accept`.
    format: Option<String>,
}

/// All endpoints.
pub(crate) fn api() -> ApiDescription<Context> {
    let mut api = ApiDescription::new();
    let registered = [
        api.register(index::index),
        api.register(stacktrace::stacktrace_tokio),
        api.register(stacktrace::stacktrace_rust),
        api.register(waits::diagnosis),
        api.register(waits::waits),
        api.register(elf::elf_info),
        api.register(core::core),
        api.register(core::core_estimate),
        api.register(huge_pages::huge_pages),
        api.register(coredump::coredump),
        api.register(coredump::coredump_by_get),
    ];
    debug_assert!(registered.iter().all(Result::is_ok), "{registered:?}");
    api
}

/// The OpenAPI document of `api`.
pub(crate) fn openapi(api: &ApiDescription<Context>) -> serde_json::Value {
    let version = semver::Version::parse(env!("CARGO_PKG_VERSION")).unwrap_or(semver::Version::new(0, 0, 0));
    let mut document = api.openapi("delouse", version);
    document.description("What every task and every thread of this program is doing.");
    document.json().unwrap_or_default()
}

/// The format that the client wants.
fn format(request: &RequestContext<Context>, asked: Option<&str>) -> Result<Format, ApiError> {
    Format::negotiate(asked, request.request.headers())
}

/// A parameter that an engine or a renderer parses.
fn parse<T: std::str::FromStr>(
    value: Option<&str>,
    error: impl FnOnce(String) -> ApiError,
) -> Result<Option<T>, ApiError> {
    value.map(|v| v.parse().map_err(|_| error(v.to_owned()))).transpose()
}
