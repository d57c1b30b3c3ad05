//! The endpoints. Each parses its parameters, captures, and renders the result.

mod core;
mod coredump;
mod elf;
mod history;
mod huge_pages;
mod index;
mod metrics;
mod pprof;
mod stacktrace;
mod waits;

use dropshot::ApiDescription;
use schemars::JsonSchema;
use serde::Deserialize;

use super::Context;
use super::format::Requested;
use crate::inspector::inspect::Inspected;
use crate::report::formats::Renders;

/// The parameters that every endpoint takes.
///
/// Unknown parameters are refused, not ignored, so that misspelled ones are reported.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, bound = "")]
pub(crate) struct Common<T: Renders> {
    /// The format of the answer; by default `json`. Overrides `Accept`.
    format: Option<Requested<T>>,
}

/// The parameters of an endpoint that takes none.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NoParameters {}

/// All endpoints.
pub(crate) fn api() -> ApiDescription<Context> {
    let mut api = ApiDescription::new();
    let registered = [
        api.register(index::index),
        api.register(stacktrace::stacktrace_tokio),
        api.register(stacktrace::stacktrace_rust),
        api.register(waits::diagnosis),
        api.register(waits::waits),
        api.register(history::history),
        api.register(metrics::metrics),
        api.register(pprof::pprof_index),
        api.register(pprof::goroutine),
        api.register(pprof::goroutineleak),
        api.register(pprof::threadcreate),
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

/// The OpenAPI document of `api`, whose answers are about `inspected`.
pub(crate) fn openapi(api: &ApiDescription<Context>, inspected: &Inspected) -> serde_json::Value {
    let version = semver::Version::parse(env!("CARGO_PKG_VERSION")).unwrap_or(semver::Version::new(0, 0, 0));
    let mut document = api.openapi("delouse", version);
    document.description(format!("What every task and every thread of {inspected} is doing."));
    document.json().unwrap_or_default()
}
