//! Futures and outputs that need more than the usual alignment.

use std::future::Future;

use tokio::sync::Notify;

use crate::keeper::Keeper;

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
pub(crate) fn spawn(keeper: &Keeper) {
    spawn_one(keeper, output("output_by_16", keeper, 1_u128));
    spawn_one(keeper, output("output_by_32", keeper, By32([1; 40])));
    spawn_one(keeper, output("output_by_64", keeper, By64([1])));
    spawn_one(keeper, output("output_by_128", keeper, By128([1; 200])));
    spawn_one(keeper, future("future_by_16", keeper, 1_u128));
    spawn_one(keeper, future("future_by_32", keeper, By32([1; 40])));
    spawn_one(keeper, future("future_by_64", keeper, By64([1])));
    spawn_one(keeper, future("future_by_128", keeper, By128([1; 200])));
    keeper.spawn(joins_aligned);
    let zoo = keeper.clone();
    spawn_one(keeper, async move {
        let (_tx, rx) = std::sync::mpsc::channel::<()>();
        let blocking = tokio::task::spawn_blocking(move || (rx.recv().is_ok(), By64([2])));
        zoo.waits("joins_aligned_blocking", "join");
        blocking.await.map(|(_, by)| by)
    });
}

fn spawn_one<F: Future<Output: Send> + Send + 'static>(keeper: &Keeper, future: F) {
    keeper.announce();
    tokio::spawn(future);
}

/// Makes the output only after its await: the future itself needs no alignment.
fn output<O>(name: &'static str, zoo: &Keeper, output: O) -> impl Future<Output = O> + use<O> {
    let (zoo, output) = (zoo.clone(), Box::new(output));
    async move {
        zoo.waits(name, "notify");
        Notify::new().notified().await;
        *output
    }
}

fn future<V>(name: &'static str, zoo: &Keeper, value: V) -> impl Future<Output = usize> + use<V> {
    let zoo = zoo.clone();
    async move {
        zoo.waits(name, "notify");
        Notify::new().notified().await;
        size_of_val(std::hint::black_box(&value))
    }
}

async fn joins_aligned(zoo: Keeper) {
    let other = tokio::spawn(output("joined_output_by_128", &zoo, By128([3; 200])));
    zoo.announce();
    zoo.waits("joins_aligned", "join");
    let _ = other.await.map(|by| std::hint::black_box(by.0.len()));
}
