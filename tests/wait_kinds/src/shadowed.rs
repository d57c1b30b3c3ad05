//! Guards in variables of the same name as their locks: pairs of tasks that wait for each other, and some that do not.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Barrier, Mutex, OwnedMutexGuard, RwLock};

use crate::cases::Cases;

type Lock = Arc<Mutex<u64>>;

const DAY: Duration = Duration::from_secs(86_400);

/// Two tasks of each kind.
pub(crate) fn spawn(cases: &Cases) {
    pair(cases, local);
    pair(cases, pattern);
    pair(cases, in_loop);
    pair(cases, twice);
    pair(cases, argument);
    pair(cases, |cases, from: Lock, to: Lock, meet| async move {
        let mut from = from.lock().await;
        meet.wait().await;
        cases.waits("shadowed_in_block", "mutex");
        let mut to = to.lock().await;
        *from -= 1;
        *to += 1;
    });
    pair(cases, readers);
    pair(cases, healthy);
    pair(cases, healthy_block);
    pair(cases, healthy_moved);
}

fn pair<L, F>(cases: &Cases, task: impl Fn(Cases, Arc<L>, Arc<L>, Arc<Barrier>) -> F)
where
    L: Default,
    F: Future<Output = ()> + Send + 'static,
{
    let (one, two, meet) = (Arc::<L>::default(), Arc::<L>::default(), Arc::new(Barrier::new(2)));
    cases.spawn(|cases| task(cases, one.clone(), two.clone(), meet.clone()));
    cases.spawn(|cases| task(cases, two, one, meet));
}

async fn local(cases: Cases, from: Lock, to: Lock, meet: Arc<Barrier>) {
    let mut from = from.lock().await;
    meet.wait().await;
    cases.waits("shadowed_local", "mutex");
    let mut to = to.lock().await;
    *from -= 1;
    *to += 1;
}

async fn pattern(cases: Cases, from: Lock, to: Lock, meet: Arc<Barrier>) {
    let (mut from, meet) = (from.lock_owned().await, meet);
    meet.wait().await;
    cases.waits("shadowed_in_pattern", "mutex");
    let mut to = to.lock().await;
    *from -= 1;
    *to += 1;
}

async fn in_loop(cases: Cases, from: Lock, to: Lock, meet: Arc<Barrier>) {
    for from in [from] {
        let mut from = from.lock().await;
        meet.wait().await;
        cases.waits("shadowed_in_loop", "mutex");
        let mut to = to.lock().await;
        *from -= 1;
        *to += 1;
    }
}

async fn twice(cases: Cases, from: Lock, to: Lock, meet: Arc<Barrier>) {
    let from = from.clone();
    let from = from.lock_owned().await;
    let mut from = Some(from);
    meet.wait().await;
    cases.waits("shadowed_twice", "mutex");
    let mut to = to.lock().await;
    if let Some(from) = &mut from {
        **from -= 1;
    }
    *to += 1;
}

async fn argument(cases: Cases, from: Lock, to: Lock, meet: Arc<Barrier>) {
    async fn inner(cases: Cases, from: OwnedMutexGuard<u64>, to: Lock) {
        let mut from = Some(from);
        cases.waits("shadowed_argument", "mutex");
        let mut to = to.lock().await;
        *to += from.take().map_or(0, |from| *from);
    }
    let from = from.lock_owned().await;
    meet.wait().await;
    inner(cases, from, to).await;
}

async fn readers(cases: Cases, from: Arc<RwLock<u64>>, to: Arc<RwLock<u64>>, meet: Arc<Barrier>) {
    let from = from.read().await;
    meet.wait().await;
    cases.waits("shadowed_readers", "rwlock");
    let mut to = to.write().await;
    *to += *from;
}

/// Spawns a task that holds a lock. Each task of a healthy pair once held the lock that the other one waits for.
async fn hold(lock: Lock) {
    let lock = lock.lock_owned().await;
    tokio::spawn(async move {
        tokio::time::sleep(DAY).await;
        drop(lock);
    });
}

async fn healthy(cases: Cases, from: Lock, to: Lock, meet: Arc<Barrier>) {
    let lock = from.clone();
    let mut from = from.lock().await;
    *from += 1;
    tokio::task::yield_now().await;
    drop(from);
    hold(lock).await;
    meet.wait().await;
    cases.waits("healthy_dropped", "mutex");
    *to.lock().await += 1;
}

async fn healthy_block(cases: Cases, from: Lock, to: Lock, meet: Arc<Barrier>) {
    {
        let mut from = from.lock().await;
        *from += 1;
        tokio::task::yield_now().await;
        *from += 1;
    }
    hold(from.clone()).await;
    meet.wait().await;
    cases.waits("healthy_block", "mutex");
    *to.lock().await += 1;
    *from.lock().await += 1;
}

async fn healthy_moved(cases: Cases, from: Lock, to: Lock, meet: Arc<Barrier>) {
    let mut from = from.lock_owned().await;
    *from += 1;
    meet.wait().await;
    tokio::spawn(async move {
        tokio::time::sleep(DAY).await;
        drop(from);
    });
    meet.wait().await;
    cases.waits("healthy_moved", "mutex");
    *to.lock().await += 1;
}
