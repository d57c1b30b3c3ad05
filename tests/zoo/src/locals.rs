//! Runtimes beside the main one: current_thread, `LocalSet`.

use std::rc::Rc;

use tokio::sync::Notify;
use tokio::task::LocalSet;

use crate::keeper::Keeper;

/// One thread with a runtime of its own each.
pub(crate) fn spawn(keeper: &Keeper) {
    let zoo = keeper.clone();
    zoo.announce();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.spawn(on_current_thread(zoo));
        runtime.block_on(std::future::pending::<()>());
    });
    let zoo = keeper.clone();
    zoo.announce();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let set = LocalSet::new();
        set.spawn_local(on_local_set(zoo));
        set.block_on(&runtime, std::future::pending::<()>());
    });
}

async fn on_current_thread(zoo: Keeper) {
    zoo.waits("on_current_thread", "notify");
    Notify::new().notified().await;
}

async fn on_local_set(zoo: Keeper) {
    let rc = Rc::new(Notify::new());
    zoo.waits("on_local_set", "notify");
    rc.notified().await;
}
