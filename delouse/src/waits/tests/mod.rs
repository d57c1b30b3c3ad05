//! The analysis of a program that the tests know best: themselves, forked.
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod channels;
mod crowds;
mod healthy;
mod joins;
mod locks;
mod not_judged;
mod shadowed;
mod thread_locks;
mod told;
mod unpolled;

use std::future::Future;

use tokio::runtime::{Builder, Runtime};

use super::*;
use crate::debuginfo::image::Image;
use crate::debuginfo::types::Types;
use crate::snapshot::{self, Limits, Snapshot};
use crate::tasks::roots::Roots;
use crate::tasks::{Options, examine};

/// A runtime of one thread that only runs when told to.
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

/// Spawns a task that nobody joins, and gives its id.
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
    let image = snapshot::fork_with_threads(Limits { force: true, ..Limits::default() }).unwrap();
    let executable = std::env::current_exe().unwrap();
    let file = Image::open(&executable).unwrap();
    let bias = file.bias(&executable, image.mappings()).unwrap();
    let types = Types::open(&file);
    let options = Options { bias, scan: 0, now: None, places: true, entered: false };
    examine(&image, &types, &roots.addresses(), &options, |examination| analyse(&examination, false))
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
fn told(analysis: &Analysis) -> Vec<(FindingKind, Severity, Vec<u64>)> {
    let sorted = |tasks: &[u64]| {
        let mut tasks = tasks.to_vec();
        tasks.sort_unstable();
        tasks
    };
    analysis.findings.iter().map(|finding| (finding.kind, finding.severity, sorted(&finding.tasks))).collect()
}

/// All that a finding says, for when a test fails and for looking at.
fn text(analysis: &Analysis) -> String {
    format!("{:#?}\n{:#?}\n{:?}", analysis.findings, analysis.graph.edges, analysis.notes)
}

/// The first sentences.
fn short(analysis: &Analysis) -> Vec<&String> {
    analysis
        .findings
        .iter()
        .flat_map(|finding| std::iter::once(&finding.summary).chain(&finding.evidence))
        .collect()
}

/// The same without the severity: in memory where other tests have left their remains, a leak is never certain.
fn kinds(analysis: &Analysis) -> Vec<(FindingKind, Vec<u64>)> {
    told(analysis).into_iter().map(|(kind, _, tasks)| (kind, tasks)).collect()
}
