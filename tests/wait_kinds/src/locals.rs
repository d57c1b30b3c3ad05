//! Runtimes beside the main one: current_thread, `LocalSet`.

use std::rc::Rc;

use tokio::sync::Notify;
use tokio::task::LocalSet;

use crate::cases::Cases;

/// One thread with a runtime of its own each.
pub(crate) fn spawn(cases: &Cases) {
    let own = cases.clone();
    own.announce();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.spawn(on_current_thread(own));
        runtime.block_on(std::future::pending::<()>());
    });
    let own = cases.clone();
    own.announce();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let set = LocalSet::new();
        set.spawn_local(on_local_set(own));
        set.block_on(&runtime, std::future::pending::<()>());
    });
}

async fn on_current_thread(cases: Cases) {
    cases.waits("on_current_thread", "notify");
    Notify::new().notified().await;
}

async fn on_local_set(cases: Cases) {
    let rc = Rc::new(Notify::new());
    cases.waits("on_local_set", "notify");
    rc.notified().await;
}
