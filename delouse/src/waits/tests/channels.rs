//! Channels into which no task will send again.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock};

use tokio::sync::{Notify, broadcast, mpsc, oneshot, watch};
use tokio::task::yield_now;

use super::*;

#[test]
fn a_circle_of_full_channels() {
    isolated!();
    let runtime = runtime();
    let (senders, receivers): (Vec<_>, Vec<_>) = (0..3).map(|_| mpsc::channel::<u8>(1)).unzip();
    let tasks: Vec<u64> = receivers
        .into_iter()
        .enumerate()
        .map(|(n, mut receiver)| {
            let next = senders[(n + 1) % 3].clone();
            spawn(&runtime, async move {
                next.send(1).await.unwrap();
                loop {
                    next.send(2).await.unwrap();
                    receiver.recv().await;
                }
            })
        })
        .collect();
    drop(senders);
    let analysis = analysis(&runtime);
    assert_eq!(
        findings(&analysis),
        [(FindingKind::Deadlock, Severity::Certain, tasks)],
        "{}",
        text(&analysis)
    );
}

/// The two halves of a connection: each ends when the other drops its sender.
fn websocket(runtime: &Runtime) -> [u64; 2] {
    let (to_writer, mut of_writer) = mpsc::channel::<u8>(8);
    let (to_reader, mut of_reader) = mpsc::unbounded_channel::<u8>();
    let reader = spawn(runtime, async move {
        while let Some(message) = of_reader.recv().await {
            to_writer.send(message).await.unwrap();
        }
    });
    let writer = spawn(runtime, async move {
        while let Some(message) = of_writer.recv().await {
            to_reader.send(message).unwrap();
        }
    });
    [reader, writer]
}

#[test]
fn pairs_of_tasks_that_keep_each_other_alive() {
    isolated!();
    for pairs in [1, 10, 10_000] {
        let runtime = runtime();
        let mut tasks: Vec<u64> = (0..pairs).flat_map(|_| websocket(&runtime)).collect();
        tasks.sort_unstable();
        let analysis = analysis(&runtime);
        assert!(
            kinds(&analysis) == [(FindingKind::LeakedTasks, tasks)],
            "{pairs} pairs: {} tasks, {:?} {:?}",
            analysis.graph.tasks,
            analysis.not_covered,
            sentences(&analysis)
        );
    }
}

type Senders = Arc<Mutex<HashMap<u32, mpsc::Sender<u8>>>>;

struct Hub {
    senders: Senders,
}

/// Tasks that wait for messages, whose senders are in a hub that they all have.
fn subscribers(runtime: &Runtime, hub: &Arc<Hub>) -> Vec<u64> {
    let subscriber = |n| {
        let (sender, mut receiver) = mpsc::channel(4);
        hub.senders.lock().unwrap().insert(n, sender);
        let hub = hub.clone();
        spawn(runtime, async move {
            while receiver.recv().await.is_some() {}
            hub.senders.lock().unwrap().remove(&n);
        })
    };
    (0..40).map(subscriber).collect()
}

#[test]
fn senders_that_are_left_in_a_hub() {
    isolated!();
    let runtime = runtime();
    let hub = Arc::new(Hub { senders: Senders::default() });
    let tasks = subscribers(&runtime, &hub);
    drop(hub);
    let analysis = analysis(&runtime);
    assert_eq!(kinds(&analysis), [(FindingKind::LeakedTasks, tasks)], "{}", text(&analysis));
    assert_eq!(analysis.graph.edges[0].holders[0].variable, "hub.senders[…]");
}

#[test]
fn a_hub_that_others_have_too() {
    isolated!();
    static HUB: OnceLock<Arc<Hub>> = OnceLock::new();
    let runtime = runtime();
    let hub = HUB.get_or_init(|| Arc::new(Hub { senders: Senders::default() }));
    subscribers(&runtime, hub);
    let of_static = analysis(&runtime);
    assert_eq!(findings(&of_static), [], "{}", text(&of_static));
    assert!(of_static.graph.edges.iter().all(|edge| edge.held_elsewhere));
}

/// The sender was moved into a static, and a stale copy is still in the task's memory.
#[test]
fn a_sender_that_was_moved_into_a_hub() {
    isolated!();
    static MOVED: std::sync::LazyLock<Mutex<Vec<mpsc::Sender<u8>>>> =
        std::sync::LazyLock::new(Mutex::default);
    let runtime = runtime();
    for _ in 0..3 {
        let (sender, mut receiver) = mpsc::channel(4);
        spawn(&runtime, async move {
            MOVED.lock().unwrap().push(sender);
            while receiver.recv().await.is_some() {}
        });
    }
    let analysis = analysis(&runtime);
    assert_eq!(findings(&analysis), [], "{}", text(&analysis));
    assert_eq!(MOVED.lock().unwrap().len(), 3);
}

#[test]
fn a_hub_that_is_held_weakly() {
    isolated!();
    let runtime = runtime();
    let hub = Arc::new(Hub { senders: Senders::default() });
    let weak = Arc::downgrade(&hub);
    subscribers(&runtime, &hub);
    drop(hub);
    let analysis = analysis(&runtime);
    assert_eq!(findings(&analysis), [], "{}", text(&analysis));
    assert!(weak.upgrade().is_some());
}

#[test]
fn a_task_that_has_the_other_end_itself() {
    isolated!();
    let runtime = runtime();
    let (sender, receiver) = oneshot::channel::<u8>();
    let one = spawn(&runtime, async move {
        receiver.await.unwrap();
        drop(sender);
    });
    let (sender, mut receiver) = watch::channel(0);
    let two = spawn(&runtime, async move {
        receiver.changed().await.unwrap();
        drop(sender);
    });
    let (sender, mut receiver) = broadcast::channel::<u8>(4);
    let three = spawn(&runtime, async move {
        receiver.recv().await.unwrap();
        drop(sender);
    });
    let notify = Arc::new(Notify::new());
    let four = spawn(&runtime, async move { notify.notified().await });
    let (sender, mut receiver) = mpsc::unbounded_channel::<mpsc::UnboundedSender<()>>();
    let (inner, mut innermost) = mpsc::unbounded_channel::<()>();
    sender.send(inner).unwrap();
    let five = spawn(&runtime, async move {
        innermost.recv().await;
        receiver.recv().await;
        drop(sender);
    });
    let analysis = analysis(&runtime);
    let mut found: Vec<u64> = analysis.findings.iter().flat_map(|finding| finding.tasks.clone()).collect();
    found.sort_unstable();
    assert_eq!(found, [one, two, three, four, five], "{}", text(&analysis));
    assert!(
        analysis.findings.iter().all(|finding| finding.kind == FindingKind::LeakedTasks),
        "{}",
        text(&analysis)
    );
}

#[test]
fn a_task_that_could_send() {
    isolated!();
    let runtime = runtime();
    let (sender, mut receiver) = mpsc::channel::<u8>(1);
    spawn(&runtime, async move { while receiver.recv().await.is_some() {} });
    let (done, mut is_done) = watch::channel(false);
    let cloned = sender.clone();
    spawn(&runtime, async move {
        is_done.changed().await.unwrap();
        drop(cloned);
    });
    let of_both = analysis(&runtime);
    assert_eq!(findings(&of_both), [], "{}", text(&of_both));
    // A task that is alive has both.
    spawn(&runtime, async move {
        tokio::time::sleep(std::time::Duration::from_secs(86_400)).await;
        drop((sender, done));
    });
    yield_to(&runtime);
    let of_task = analysis(&runtime);
    assert_eq!(findings(&of_task), [], "{}", text(&of_task));
}

fn yield_to(runtime: &Runtime) {
    runtime.block_on(yield_now());
}
