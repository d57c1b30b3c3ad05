//! What `/waits` says of what many share: once.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Barrier, Mutex, Notify, OnceCell, RwLock, Semaphore, mpsc};

use super::*;
use crate::report::formats::Renders;
use crate::report::{WaitsAnswer, format};
use crate::snapshot::Capture;

const DAY: Duration = Duration::from_secs(86_400);

/// `/waits?format=text` of a runtime's tasks, without the first line, places and addresses.
fn page(runtime: &Runtime) -> String {
    let Analysis { graph, findings, .. } = analysis(runtime);
    let findings = fixtures::reported(findings);
    for edge in &graph.edges {
        for (index, holder) in edge.holders.iter().enumerate() {
            assert!(!edge.holders[..index].contains(holder), "JSON has it twice: {edge:#?}");
        }
    }
    let text = WaitsAnswer { graph, findings, not_covered: Vec::new(), capture: Capture::default() }.text();
    let lines = text.lines().filter(|line| !line.starts_with("not read: ")).skip(2);
    lines.map(|line| without(line, " in delouse::", ".rs:") + "\n").collect()
}

/// The line without what begins with `from` and ends with the number after `to`, and without its address.
fn without(line: &str, from: &str, to: &str) -> String {
    let mut line = line.to_owned();
    if let Some(start) = line.find(from) {
        let number = start + line[start..].find(to).unwrap() + to.len();
        let digits = line[number..].chars().take_while(char::is_ascii_digit).count();
        line.replace_range(start..number + digits, "");
    }
    if let Some(start) = line.find(" (0x") {
        let end = start + line[start..].find(')').unwrap();
        line.replace_range(start..=end, "");
    }
    line
}

/// Spawns so many tasks that are alike.
fn spawn_all<F>(runtime: &Runtime, n: usize, task: impl Fn() -> F) -> Vec<u64>
where
    F: Future<Output = ()> + Send + 'static,
{
    (0..n).map(|_| spawn(runtime, task())).collect()
}

/// The first line of a block: `20 tasks (tasks 1, 2, … and 12 more)`.
fn many(tasks: &[u64]) -> String {
    format::counted(&TaskIds::of(tasks.iter().copied()))
}

async fn wait_at(notify: Arc<Notify>) {
    notify.notified().await;
}

#[test]
fn hundreds_that_wait_for_the_end() {
    isolated!();
    let runtime = runtime();
    let end = Arc::new(Notify::new());
    let waiting = spawn_all(&runtime, 300, || {
        let end = end.clone();
        async move { end.notified().await }
    });
    let last = spawn(&runtime, async move {
        tokio::time::sleep(DAY).await;
        end.notify_waiters();
    });
    let all = many(&waiting);
    let some = format::tasks(&TaskIds::of(waiting[..7].iter().copied()));
    assert_eq!(
        page(&runtime),
        format!(
            "{all}\n\
             \x20 wait for a notification of notify-1, which can come from\n\
             \x20   task {last}: Notify `end`\n\
             \x20     waits for a timer\n\
             \x20   within reach of {some} and 293 more, which wait for it, too: Notify `end`\n"
        )
    );
}

#[test]
fn one_that_nothing_else_can_wake() {
    isolated!();
    let runtime = runtime();
    let task = spawn(&runtime, wait_at(Arc::new(Notify::new())));
    let text = page(&runtime);
    let end = format!(
        "task {task}\n\
         \x20 waits for a notification of notify-1\n\
         \x20   within its own reach: Notify `notify`\n"
    );
    assert!(text.ends_with(&end), "{text}");
}

#[test]
fn twenty_at_one_mutex() {
    isolated!();
    let runtime = runtime();
    let lock = Arc::new(Mutex::new(0));
    let tasks = spawn_all(&runtime, 20, || {
        let lock = lock.clone();
        async move {
            let guard = lock.lock().await;
            tokio::time::sleep(DAY).await;
            drop(guard);
        }
    });
    let (has, all) = (tasks[0], many(&tasks[1..]));
    assert_eq!(
        page(&runtime),
        format!(
            "{all}\n  wait for mutex-1, held by\n    task {has}: MutexGuard `guard`\n      waits for a timer\n"
        )
    );
}

#[test]
fn a_pool_with_two_permits() {
    isolated!();
    let runtime = runtime();
    let pool = Arc::new(Semaphore::new(2));
    let tasks = spawn_all(&runtime, 6, || {
        let pool = pool.clone();
        async move {
            let permit = pool.acquire().await;
            tokio::time::sleep(DAY).await;
            drop(permit);
        }
    });
    let (first, second, all) = (tasks[0], tasks[1], many(&tasks[2..]));
    assert_eq!(
        page(&runtime),
        format!(
            "{all}\n\
             \x20 wait for semaphore-1, of which these may hold permits:\n\
             \x20   task {first}: SemaphorePermit `permit`\n\
             \x20     waits for a timer\n\
             \x20   task {second}: SemaphorePermit `permit`\n\
             \x20     waits for a timer\n"
        )
    );
}

/// The queue inside of a `Semaphore` has a lock, at the same address.
#[test]
fn a_gate_has_one_name() {
    isolated!();
    let runtime = runtime();
    let gate = Arc::new(Semaphore::new(0));
    let tasks = spawn_all(&runtime, 3, || {
        let gate = gate.clone();
        async move { drop(gate.acquire().await) }
    });
    let opens = spawn(&runtime, async move {
        tokio::time::sleep(DAY).await;
        gate.add_permits(1);
    });
    let (all, ids) = (many(&tasks), format::tasks(&TaskIds::of(tasks.iter().copied())));
    assert_eq!(
        page(&runtime),
        format!(
            "{all}\n\
             \x20 wait for semaphore-1, to which this can add permits:\n\
             \x20   task {opens}: Semaphore `gate`\n\
             \x20     waits for a timer\n\
             \x20   within reach of {ids}, which wait for it, too: Semaphore `gate`\n"
        )
    );
}

/// Each could send, and none will: a circle, but not one of as many steps as there are tasks.
#[test]
fn a_barrier_that_too_few_come_to() {
    isolated!();
    let runtime = runtime();
    let barrier = Arc::new(Barrier::new(99));
    let tasks = spawn_all(&runtime, 12, || {
        let barrier = barrier.clone();
        async move {
            barrier.wait().await;
        }
    });
    drop(barrier);
    let text = page(&runtime);
    assert!(text.contains(&format!("{}\n  wait for barrier-1", many(&tasks))), "{text}");
    assert!(text.contains("Barrier `barrier`") && !text.contains("Sender"), "{text}");
}

#[test]
fn a_cell_that_one_task_fills() {
    isolated!();
    let runtime = runtime();
    let cell = Arc::new(OnceCell::new());
    let tasks = spawn_all(&runtime, 3, || {
        let cell = cell.clone();
        async move {
            cell.get_or_init(|| tokio::time::sleep(DAY)).await;
        }
    });
    let (fills, all) = (tasks[0], many(&tasks[1..]));
    assert_eq!(
        page(&runtime),
        format!(
            "{all}\n\
             \x20 wait for the value of once-cell-1, which this may hold:\n\
             \x20   task {fills}: SemaphorePermit `(awaited)`\n\
             \x20     waits for a timer\n"
        )
    );
}

/// The first task in the queue was given what was left, and waits for the rest as the others do.
#[test]
fn a_place_in_the_queue_is_not_what_its_task_waits_for() {
    isolated!();
    let runtime = runtime();
    let lock = Arc::new(RwLock::new(0));
    let guard = lock.clone().try_read_owned().unwrap();
    let tasks = spawn_all(&runtime, 3, || {
        let lock = lock.clone();
        async move { *lock.write().await += 1 }
    });
    let (first, all) = (tasks[0], many(&tasks[1..]));
    // These tests do not scan memory for further tasks: one of those may have the guard, for all that is known.
    let unknown = "; delouse does not know what holds it (memory was too large to be scanned: tasks of LocalSets and of the blocking pool may be missing)";
    assert_eq!(
        page(&runtime),
        format!(
            "{all}\n\
             \x20 wait for rwlock-1, which this may hold:\n\
             \x20   task {first}: Acquire `(awaited)`\n\
             \x20     waits for rwlock-1{unknown}\n\
             \x20   and more that was not found: in a static, on a thread, or in what was not read\n"
        )
    );
    drop(guard);
}

#[test]
fn a_variable_that_was_moved() {
    isolated!();
    let runtime = runtime();
    let (sender, _receiver) = mpsc::channel::<u8>(1);
    let takes = spawn(&runtime, async move {
        let receiver = _receiver;
        tokio::time::sleep(DAY).await;
        drop(receiver);
    });
    let tasks = spawn_all(&runtime, 3, || {
        let sender = sender.clone();
        async move { while sender.send(1).await.is_ok() {} }
    });
    drop(sender);
    let all = many(&tasks);
    assert_eq!(
        page(&runtime),
        format!(
            "{all}\n\
             \x20 wait for room in channel-1, which may come from\n\
             \x20   task {takes}: Receiver `receiver`\n\
             \x20     waits for a timer\n"
        )
    );
}

/// Two that counters confirm are two: both must be dropped before the receiver wakes.
#[test]
fn two_variables_with_a_handle_each() {
    isolated!();
    let runtime = runtime();
    let (sender, mut receiver) = mpsc::channel::<u8>(1);
    let waits = spawn(&runtime, async move {
        receiver.recv().await;
    });
    let has = spawn(&runtime, async move {
        let one = sender.clone();
        tokio::time::sleep(DAY).await;
        drop((one, sender));
    });
    let text = page(&runtime);
    assert!(
        text.starts_with(&format!("task {waits}\n  waits for a message of channel-1, which can come from"))
    );
    assert!(text.contains(&format!("task {has}: Sender `one`")), "{text}");
    assert!(text.contains(&format!("task {has}: Sender `sender`")), "{text}");
}

/// A value that leads to others of its own type.
#[derive(Default)]
struct Tree {
    signal: Notify,
    parent: Option<Arc<Tree>>,
    children: std::sync::Mutex<Vec<Arc<Tree>>>,
}

async fn waits_at(tree: Arc<Tree>) {
    tree.signal.notified().await;
}

async fn signals_later(root: Arc<Tree>) {
    tokio::time::sleep(DAY).await;
    root.children.lock().unwrap().iter().for_each(|child| child.signal.notify_one());
}

fn root_and_leaf() -> (Arc<Tree>, Arc<Tree>) {
    let root = Arc::new(Tree::default());
    let leaf = Arc::new(Tree { parent: Some(root.clone()), ..Tree::default() });
    root.children.lock().unwrap().push(leaf.clone());
    assert!(leaf.parent.is_some());
    (root, leaf)
}

#[test]
fn a_tree_is_walked_from_its_root() {
    isolated!();
    let runtime = runtime();
    let (root, leaf) = root_and_leaf();
    spawn(&runtime, waits_at(leaf));
    spawn(&runtime, signals_later(root));
    let analysis = analysis(&runtime);
    assert_eq!(findings(&analysis), [], "{}", text(&analysis));
    assert!(analysis.not_judged.places.is_empty(), "{:?}", analysis.not_judged);
}

#[test]
fn a_tree_that_only_waiting_tasks_have() {
    isolated!();
    let runtime = runtime();
    let (root, leaf) = root_and_leaf();
    let tasks = vec![spawn(&runtime, waits_at(leaf)), spawn(&runtime, waits_at(root))];
    let analysis = analysis(&runtime);
    assert_eq!(kinds(&analysis), [(FindingKind::LeakedTasks, tasks)], "{}", text(&analysis));
}
