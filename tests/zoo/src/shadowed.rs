//! Guards in variables of the same name as their locks: pairs of tasks that wait for each other, and some that do not.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Barrier, Mutex, OwnedMutexGuard, RwLock};

use crate::keeper::Keeper;

type Lock = Arc<Mutex<u64>>;

const DAY: Duration = Duration::from_secs(86_400);

/// Two tasks of each kind.
pub(crate) fn spawn(keeper: &Keeper) {
    pair(keeper, local);
    pair(keeper, pattern);
    pair(keeper, in_loop);
    pair(keeper, twice);
    pair(keeper, argument);
    pair(keeper, |zoo, from: Lock, to: Lock, meet| async move {
        let mut from = from.lock().await;
        meet.wait().await;
        zoo.waits("shadowed_in_block", "mutex");
        let mut to = to.lock().await;
        *from -= 1;
        *to += 1;
    });
    pair(keeper, readers);
    pair(keeper, healthy);
    pair(keeper, healthy_block);
    pair(keeper, healthy_moved);
}

fn pair<L, F>(keeper: &Keeper, task: impl Fn(Keeper, Arc<L>, Arc<L>, Arc<Barrier>) -> F)
where
    L: Default,
    F: Future<Output = ()> + Send + 'static,
{
    let (one, two, meet) = (Arc::<L>::default(), Arc::<L>::default(), Arc::new(Barrier::new(2)));
    keeper.spawn(|zoo| task(zoo, one.clone(), two.clone(), meet.clone()));
    keeper.spawn(|zoo| task(zoo, two, one, meet));
}

async fn local(zoo: Keeper, from: Lock, to: Lock, meet: Arc<Barrier>) {
    let mut from = from.lock().await;
    meet.wait().await;
    zoo.waits("shadowed_local", "mutex");
    let mut to = to.lock().await;
    *from -= 1;
    *to += 1;
}

async fn pattern(zoo: Keeper, from: Lock, to: Lock, meet: Arc<Barrier>) {
    let (mut from, meet) = (from.lock_owned().await, meet);
    meet.wait().await;
    zoo.waits("shadowed_in_pattern", "mutex");
    let mut to = to.lock().await;
    *from -= 1;
    *to += 1;
}

async fn in_loop(zoo: Keeper, from: Lock, to: Lock, meet: Arc<Barrier>) {
    for from in [from] {
        let mut from = from.lock().await;
        meet.wait().await;
        zoo.waits("shadowed_in_loop", "mutex");
        let mut to = to.lock().await;
        *from -= 1;
        *to += 1;
    }
}

async fn twice(zoo: Keeper, from: Lock, to: Lock, meet: Arc<Barrier>) {
    let from = from.clone();
    let from = from.lock_owned().await;
    let mut from = Some(from);
    meet.wait().await;
    zoo.waits("shadowed_twice", "mutex");
    let mut to = to.lock().await;
    if let Some(from) = &mut from {
        **from -= 1;
    }
    *to += 1;
}

async fn argument(zoo: Keeper, from: Lock, to: Lock, meet: Arc<Barrier>) {
    async fn inner(zoo: Keeper, from: OwnedMutexGuard<u64>, to: Lock) {
        let mut from = Some(from);
        zoo.waits("shadowed_argument", "mutex");
        let mut to = to.lock().await;
        *to += from.take().map_or(0, |from| *from);
    }
    let from = from.lock_owned().await;
    meet.wait().await;
    inner(zoo, from, to).await;
}

async fn readers(zoo: Keeper, from: Arc<RwLock<u64>>, to: Arc<RwLock<u64>>, meet: Arc<Barrier>) {
    let from = from.read().await;
    meet.wait().await;
    zoo.waits("shadowed_readers", "rwlock");
    let mut to = to.write().await;
    *to += *from;
}

/// Has a task of its own hold a lock. Both tasks of a healthy pair once had what the other one waits for.
async fn hold(lock: Lock) {
    let lock = lock.lock_owned().await;
    tokio::spawn(async move {
        tokio::time::sleep(DAY).await;
        drop(lock);
    });
}

async fn healthy(zoo: Keeper, from: Lock, to: Lock, meet: Arc<Barrier>) {
    let lock = from.clone();
    let mut from = from.lock().await;
    *from += 1;
    tokio::task::yield_now().await;
    drop(from);
    hold(lock).await;
    meet.wait().await;
    zoo.waits("healthy_dropped", "mutex");
    *to.lock().await += 1;
}

async fn healthy_block(zoo: Keeper, from: Lock, to: Lock, meet: Arc<Barrier>) {
    {
        let mut from = from.lock().await;
        *from += 1;
        tokio::task::yield_now().await;
        *from += 1;
    }
    hold(from.clone()).await;
    meet.wait().await;
    zoo.waits("healthy_block", "mutex");
    *to.lock().await += 1;
    *from.lock().await += 1;
}

async fn healthy_moved(zoo: Keeper, from: Lock, to: Lock, meet: Arc<Barrier>) {
    let mut from = from.lock_owned().await;
    *from += 1;
    meet.wait().await;
    tokio::spawn(async move {
        tokio::time::sleep(DAY).await;
        drop(from);
    });
    meet.wait().await;
    zoo.waits("healthy_moved", "mutex");
    *to.lock().await += 1;
}
