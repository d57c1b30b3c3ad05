//! Futures and outputs that need more than the usual alignment.

use std::future::Future;

use tokio::sync::Notify;

use crate::cases::Cases;

// What they contain only needs room.
#[allow(dead_code)]
#[repr(align(32))]
struct By32([u8; 40]);
#[allow(dead_code)]
#[repr(align(64))]
struct By64([u8; 1]);
#[allow(dead_code)]
#[repr(align(128))]
struct By128([u8; 200]);

/// One task of every alignment.
pub(crate) fn spawn(cases: &Cases) {
    spawn_one(cases, output("output_by_16", cases, 1_u128));
    spawn_one(cases, output("output_by_32", cases, By32([1; 40])));
    spawn_one(cases, output("output_by_64", cases, By64([1])));
    spawn_one(cases, output("output_by_128", cases, By128([1; 200])));
    spawn_one(cases, future("future_by_16", cases, 1_u128));
    spawn_one(cases, future("future_by_32", cases, By32([1; 40])));
    spawn_one(cases, future("future_by_64", cases, By64([1])));
    spawn_one(cases, future("future_by_128", cases, By128([1; 200])));
    cases.spawn(joins_aligned);
    let own = cases.clone();
    spawn_one(cases, async move {
        let (_tx, rx) = std::sync::mpsc::channel::<()>();
        let blocking = tokio::task::spawn_blocking(move || (rx.recv().is_ok(), By64([2])));
        own.waits("joins_aligned_blocking", "join");
        blocking.await.map(|(_, by)| by)
    });
}

fn spawn_one<F: Future<Output: Send> + Send + 'static>(cases: &Cases, future: F) {
    cases.announce();
    tokio::spawn(future);
}

/// Makes the output only after its await: the future itself needs no alignment.
fn output<O>(name: &'static str, cases: &Cases, output: O) -> impl Future<Output = O> + use<O> {
    let (cases, output) = (cases.clone(), Box::new(output));
    async move {
        cases.waits(name, "notify");
        Notify::new().notified().await;
        *output
    }
}

fn future<V>(name: &'static str, cases: &Cases, value: V) -> impl Future<Output = usize> + use<V> {
    let cases = cases.clone();
    async move {
        cases.waits(name, "notify");
        Notify::new().notified().await;
        size_of_val(std::hint::black_box(&value))
    }
}

async fn joins_aligned(cases: Cases) {
    let other = tokio::spawn(output("joined_output_by_128", &cases, By128([3; 200])));
    cases.announce();
    cases.waits("joins_aligned", "join");
    let _ = other.await.map(|by| std::hint::black_box(by.0.len()));
}
