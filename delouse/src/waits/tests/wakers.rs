//! Primitives that no table names: what can wake their waiters is known by where the wakers are.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::{Arc, Mutex as StdMutex};
use std::task::{Poll, Waker};
use std::time::Duration;

use super::*;

/// A gate that stays shut, with its waiters.
#[derive(Clone, Default)]
struct Gate(Arc<StdMutex<VecDeque<Waker>>>);

impl Gate {
    async fn passed(&self) {
        poll_fn(|context| {
            self.0.lock().unwrap().push_back(context.waker().clone());
            Poll::<()>::Pending
        })
        .await;
    }
}

async fn passes(own: Gate, other: Gate) {
    own.passed().await;
    other.0.lock().unwrap().drain(..).for_each(Waker::wake);
}

/// What each of two tasks has. A variable of the caller's that is moved after it was borrowed would count as a handle.
fn both_ways() -> [(Gate, Gate); 2] {
    let (one, two) = (Gate::default(), Gate::default());
    [(one.clone(), two.clone()), (two, one)]
}

#[test]
fn tasks_that_wait_for_each_other_at_gates() {
    isolated!();
    let runtime = runtime();
    let tasks: Vec<u64> =
        both_ways().into_iter().map(|(own, other)| spawn(&runtime, passes(own, other))).collect();
    let analysis = analysis(&runtime);
    assert_eq!(
        findings(&analysis),
        [(FindingKind::LeakedTasks, Severity::Suspected, tasks)],
        "{}",
        text(&analysis)
    );
    let said = sentences(&analysis).join("\n");
    assert!(said.contains("not certain: delouse does not know") && said.contains("can wake"), "{said}");
}

#[test]
fn a_gate_that_a_third_task_can_open() {
    isolated!();
    let runtime = runtime();
    let [(one, two), second] = both_ways();
    let third = one.clone();
    spawn(&runtime, passes(one, two));
    spawn(&runtime, passes(second.0, second.1));
    spawn(&runtime, async move {
        tokio::time::sleep(Duration::from_secs(86_400)).await;
        third.0.lock().unwrap().clear();
    });
    let analysis = analysis(&runtime);
    assert_eq!(findings(&analysis), [], "{}", text(&analysis));
}

#[test]
fn a_gate_that_a_thread_can_open() {
    isolated!();
    let runtime = runtime();
    let [(one, two), second] = both_ways();
    let kept = one.clone();
    spawn(&runtime, passes(one, two));
    spawn(&runtime, passes(second.0, second.1));
    let analysis = analysis(&runtime);
    assert_eq!(findings(&analysis), [], "{}", text(&analysis));
    kept.0.lock().unwrap().clear();
}
