//! The analysis of a program whose tasks are known: each test, in a process of its own, forks itself.
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod channels;
mod connections;
mod crowds;
mod healthy;
mod joins;
mod locks;
mod not_judged;
mod shadowed;
mod shared_resources;
mod thread_locks;
mod timeouts;
mod unpolled;
mod wakers;

use std::future::Future;

use tokio::runtime::{Builder, Runtime};

use super::sample::Sample as Analysis;
use super::*;
use crate::debuginfo::image::Image;
use crate::debuginfo::types::Types;
use crate::isolation::isolated;
use crate::registry::Roots;
use crate::report::FindingReport;
use crate::snapshot::Snapshot;
use crate::targets;
use crate::targets::Limits;
use crate::tasks::{Options, examine};

/// A runtime of one thread that runs only when asked to.
fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

/// Lets the tasks of a runtime run until nothing happens any more: tokio polls 61 tasks between two polls of
/// the main future.
fn settle(runtime: &Runtime) {
    runtime.block_on(async {
        for _ in 0..1024 {
            tokio::task::yield_now().await;
        }
    });
}

/// Spawns a task that is not joined, and returns its id.
fn spawn(runtime: &Runtime, future: impl Future<Output = ()> + Send + 'static) -> u64 {
    runtime.spawn(future).id().to_string().parse().unwrap()
}

/// What there is to say about the tasks of `runtime`, after they did what they could.
fn analysis(runtime: &Runtime) -> Analysis {
    settle(runtime);
    let mut roots = Roots::new();
    roots.add_runtime(runtime.handle());
    // What is left on the stack of a runtime's thread is not taken for handles.
    let _guard = runtime.enter();
    analysis_of(&roots)
}

fn analysis_of(roots: &Roots) -> Analysis {
    let executable = std::env::current_exe().unwrap();
    let file = Image::open(&executable).unwrap();
    let types = Types::open(&file);
    loop {
        let image = targets::fork_with_threads(Limits { force: true, ..Limits::default() }).unwrap();
        let bias = file.bias(&executable, image.mappings()).unwrap();
        let options = Options { bias, scan: 0, now: None, history: None, places: true, entered: false };
        let analysis = examine(&image, &types, &roots.addresses(), &options, |mut examination| {
            analyse(&mut examination, false, &targets::own_connections)
        });
        // An image ends after 30 s, which is too short on a busy machine until the types are known.
        if image.intact().is_ok() {
            return analysis;
        }
    }
}

/// The waits that others in the program can end.
fn inside(analysis: &Analysis) -> Vec<&Edge> {
    analysis.graph.edges.iter().filter(|edge| edge.outside.is_none()).collect()
}

/// Those of one task.
fn edges(analysis: &Analysis, task: u64) -> Vec<&Edge> {
    inside(analysis).into_iter().filter(|edge| edge.waiter == Some(task)).collect()
}

/// The kind, severity and tasks of each finding.
fn findings(analysis: &Analysis) -> Vec<(FindingKind, Severity, Vec<u64>)> {
    let sorted = |tasks: &[u64]| {
        let mut tasks = tasks.to_vec();
        tasks.sort_unstable();
        tasks
    };
    analysis.findings.iter().map(|finding| (finding.kind, finding.severity, sorted(&finding.tasks))).collect()
}

/// All that a finding says, for when a test fails and for looking at.
fn text(analysis: &Analysis) -> String {
    format!("{:#?}\n{:#?}\n{:?}", reports(analysis), analysis.graph.edges, analysis.not_covered)
}

/// The findings as people read them.
fn reports(analysis: &Analysis) -> Vec<FindingReport> {
    fixtures::reported(analysis.findings.clone())
}

/// Their sentences.
fn sentences(analysis: &Analysis) -> Vec<String> {
    reports(analysis)
        .into_iter()
        .flat_map(|report| [vec![report.summary], report.evidence].concat())
        .collect()
}

/// The same without the severity, for tests whose own stack may have stale copies of what the tasks own.
fn kinds(analysis: &Analysis) -> Vec<(FindingKind, Vec<u64>)> {
    findings(analysis).into_iter().map(|(kind, _, tasks)| (kind, tasks)).collect()
}
