//! Who holds a lock.

use std::sync::Arc;

use tokio::sync::Mutex;

use super::*;

#[test]
fn two_tasks_hold_what_the_other_waits_for() {
    let runtime = runtime();
    let (a, b) = (Arc::new(Mutex::new(1)), Arc::new(Mutex::new(2)));
    let one = {
        let (a, b) = (a.clone(), b.clone());
        spawn(&runtime, async move {
            let first = a.lock().await;
            tokio::task::yield_now().await;
            let second = b.lock().await;
            drop((first, second));
        })
    };
    let other = spawn(&runtime, async move {
        let mine = b.lock().await;
        tokio::task::yield_now().await;
        let yours = a.lock().await;
        drop((mine, yours));
    });
    let analysis = analysis(&runtime);
    eprintln!("{analysis:#?}");
    let [edge] = edges(&analysis, one)[..] else { panic!("{analysis:?}") };
    assert_eq!(edge.resource.kind, ResourceKind::Mutex);
    let [holder] = &edge.holders[..] else { panic!("{edge:?}") };
    assert_eq!((holder.task, holder.variable.as_str(), holder.certain), (Some(other), "mine", true));
    assert_eq!(holder.handle, "MutexGuard");
}
