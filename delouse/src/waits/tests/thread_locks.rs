//! Locks that block threads: the standard library's and parking_lot's.

use std::sync::{Arc, Barrier, Mutex, RwLock, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::task::yield_now;

use super::*;
use crate::report::NotJudged;

/// Spawns on a runtime that goes on running on a thread of its own: until its tasks block that, and the process
/// ends.
fn on_its_own_thread(runtime: Runtime, spawn: impl FnOnce(&Runtime) -> Vec<u64>) -> (Handle, Vec<u64>) {
    let (handle, ids) = (runtime.handle().clone(), spawn(&runtime));
    thread::spawn(move || runtime.block_on(std::future::pending::<()>()));
    (handle, ids)
}

/// The first analysis for which `wanted` is true: it takes a while until threads block.
fn analysis_when(handle: &Handle, wanted: impl Fn(&Analysis) -> bool) -> Analysis {
    let mut roots = Roots::new();
    roots.add_runtime(handle);
    let begun = Instant::now();
    loop {
        let analysis = analysis_of(&roots);
        if wanted(&analysis) {
            return analysis;
        }
        assert!(begun.elapsed() < Duration::from_secs(30), "{}", text(&analysis));
        thread::sleep(Duration::from_millis(5));
    }
}

/// The same, as soon as the task blocks its thread.
fn analysis_when_blocked(handle: &Handle, task: u64) -> Analysis {
    analysis_when(handle, |analysis| edges(analysis, task).iter().any(|edge| edge.thread.is_some()))
}

fn two_workers() -> Runtime {
    Builder::new_multi_thread().worker_threads(2).build().unwrap()
}

#[allow(clippy::await_holding_lock, reason = "what is looked for")]
async fn holds(lock: Arc<parking_lot::Mutex<u8>>) {
    let guard = lock.lock();
    yield_now().await;
    drop(guard);
}

async fn wants(lock: Arc<parking_lot::Mutex<u8>>) {
    *lock.lock() += 1;
}

#[test]
fn the_holder_needs_the_thread_that_waits_for_it() {
    isolated!();
    let lock = Arc::new(parking_lot::Mutex::new(0));
    let (handle, tasks) = on_its_own_thread(runtime(), |runtime| {
        vec![spawn(runtime, holds(lock.clone())), spawn(runtime, wants(lock))]
    });
    let certain = [(FindingKind::Deadlock, Severity::Certain, tasks)];
    let analysis = analysis_when(&handle, |analysis| findings(analysis) == certain);
    let said = sentences(&analysis).join("\n");
    assert!(
        said.contains("`guard`, a MutexGuard, in `delouse::waits::tests::thread_locks::holds at "),
        "{said}"
    );
}

async fn crosses(first: Arc<Mutex<u8>>, second: Arc<Mutex<u8>>, both: Arc<Barrier>) {
    let _mine = first.lock().unwrap();
    both.wait();
    let _yours = second.lock().unwrap();
}

#[test]
fn two_workers_wait_for_each_others_locks() {
    isolated!();
    let (one, other) = (Arc::new(Mutex::new(0)), Arc::new(Mutex::new(0)));
    let both = Arc::new(Barrier::new(2));
    let (handle, tasks) = on_its_own_thread(two_workers(), |runtime| {
        let first = spawn(runtime, crosses(one.clone(), other.clone(), both.clone()));
        vec![first, spawn(runtime, crosses(other, one, both))]
    });
    // That a lock's address is on a stack is no proof.
    let suspected = [(FindingKind::Deadlock, Severity::Suspected, tasks.clone())];
    let analysis = analysis_when(&handle, |analysis| findings(analysis) == suspected);
    let [edge] = edges(&analysis, tasks[0])[..] else { panic!("{}", text(&analysis)) };
    let holder = &edge.holders[0];
    assert_eq!((holder.task, holder.thread.is_some(), holder.certain), (Some(tasks[1]), true, false));
    assert_eq!((edge.resource.kind, edge.resource.id.starts_with("lock-")), (ResourceKind::Lock, true));
}

/// A task whose thread waits until `hold` lets go, which a thread outside of all tasks does.
fn waits_for_a_thread<L: Send + Sync + 'static>(
    lock: Arc<L>,
    hold: impl FnOnce(&L, &mpsc::Sender<()>, &mpsc::Receiver<()>) + Send + 'static,
    want: impl FnOnce(&L) + Send + 'static,
) {
    let (held, is_held) = mpsc::channel();
    let (release, is_released) = mpsc::channel();
    let holder = thread::spawn({
        let lock = lock.clone();
        move || hold(&lock, &held, &is_released)
    });
    is_held.recv().unwrap();
    let runtime = two_workers();
    let task = spawn(&runtime, async move { want(&lock) });
    let analysis = analysis_when_blocked(runtime.handle(), task);
    let of_thread = |holder: &Holder| holder.task.is_none() && holder.thread.is_some();
    let found = edges(&analysis, task).iter().any(|edge| edge.holders.iter().any(of_thread));
    assert!(found, "{}", text(&analysis));
    assert_eq!(findings(&analysis), []);
    release.send(()).unwrap();
    holder.join().unwrap();
}

#[test]
fn a_thread_outside_of_all_tasks_will_let_go() {
    isolated!();
    waits_for_a_thread(
        Arc::new(Mutex::new(0)),
        |lock, held, released| {
            let _guard = lock.lock().unwrap();
            held.send(()).unwrap();
            released.recv().unwrap();
        },
        |lock| drop(lock.lock().unwrap()),
    );
}

#[test]
fn writers_and_readers_block_threads_too() {
    isolated!();
    let read = |lock: &RwLock<u8>, held: &mpsc::Sender<()>, released: &mpsc::Receiver<()>| {
        let _guard = lock.read().unwrap();
        held.send(()).unwrap();
        released.recv().unwrap();
    };
    waits_for_a_thread(Arc::new(RwLock::new(0)), read, |lock| drop(lock.write().unwrap()));
    let write = |lock: &RwLock<u8>, held: &mpsc::Sender<()>, released: &mpsc::Receiver<()>| {
        let _guard = lock.write().unwrap();
        held.send(()).unwrap();
        released.recv().unwrap();
    };
    waits_for_a_thread(Arc::new(RwLock::new(0)), write, |lock| drop(lock.read().unwrap()));
    let theirs = |lock: &parking_lot::RwLock<u8>, held: &mpsc::Sender<()>, released: &mpsc::Receiver<()>| {
        let _guard = lock.read();
        held.send(()).unwrap();
        released.recv().unwrap();
    };
    waits_for_a_thread(Arc::new(parking_lot::RwLock::new(0)), theirs, |lock| drop(lock.write()));
}

/// Waits until a thread sleeps in the kernel, at a futex (call 202 of x86_64).
fn until_asleep(tid: i32) {
    let begun = Instant::now();
    let asleep = || {
        let call = std::fs::read_to_string(format!("/proc/self/task/{tid}/syscall")).unwrap_or_default();
        call.starts_with("202 ")
    };
    while !asleep() {
        assert!(begun.elapsed() < Duration::from_secs(20), "thread {tid} does not sleep");
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn what_else_threads_wait_for_is_no_lock() {
    isolated!();
    type Wait = Box<dyn FnOnce() + Send>;
    let (never, receiver) = mpsc::channel::<()>();
    let pair = (Mutex::new(()), std::sync::Condvar::new());
    // Its futex counts notifications: at 2 it looks like a lock.
    (0..2).for_each(|_| pair.1.notify_all());
    let other = (parking_lot::Mutex::new(()), parking_lot::Condvar::new());
    let waits: Vec<Wait> = vec![
        Box::new(thread::park),
        Box::new(move || receiver.recv().unwrap()),
        Box::new(move || drop(pair.1.wait(pair.0.lock().unwrap()))),
        Box::new(move || other.1.wait(&mut other.0.lock())),
        Box::new(|| assert!(Barrier::new(2).wait().is_leader())),
    ];
    let runtime = Builder::new_multi_thread().worker_threads(waits.len() + 1).build().unwrap();
    let (report, tids) = mpsc::channel();
    let count = waits.len();
    let spawn = |wait: Wait| {
        let report = report.clone();
        spawn(&runtime, async move {
            let own = std::fs::read_link("/proc/thread-self").unwrap();
            report.send(own.file_name().unwrap().to_str().unwrap().parse().unwrap()).unwrap();
            wait();
        })
    };
    let tasks: Vec<u64> = waits.into_iter().map(spawn).collect();
    tids.iter().take(count).for_each(until_asleep);
    let mut roots = Roots::new();
    roots.add_runtime(runtime.handle());
    let analysis = analysis_of(&roots);
    let found: Vec<&Edge> = tasks.iter().flat_map(|task| edges(&analysis, *task)).collect();
    assert!(found.is_empty(), "{}", text(&analysis));
    assert_eq!(finding_kinds(&analysis), []);
    drop(never);
    // The others wait for good.
    runtime.shutdown_background();
}

/// What a function that is being polled awaited last is past, whatever its thread is blocked in.
#[test]
fn a_task_that_runs_waits_for_nothing() {
    isolated!();
    let (begun, is_polled) = mpsc::channel();
    let (resume, blocks) = mpsc::channel::<()>();
    let lock = Arc::new(tokio::sync::Mutex::new(0));
    let held = lock.clone().try_lock_owned().unwrap();
    let (handle, tasks) = on_its_own_thread(runtime(), |runtime| {
        let branch = async move {
            yield_now().await;
            begun.send(()).unwrap();
            blocks.recv().unwrap();
        };
        vec![spawn(runtime, async move {
            tokio::join!(async { *lock.lock().await += 1 }, branch);
        })]
    });
    is_polled.recv().unwrap();
    let mut roots = Roots::new();
    roots.add_runtime(&handle);
    let analysis = analysis_of(&roots);
    assert_eq!(edges(&analysis, tasks[0]), Vec::<&Edge>::new(), "{}", text(&analysis));
    assert!(
        analysis.graph.gaps.iter().any(|gap| matches!(gap, Gap::RunningTasks(_))),
        "{:?}",
        analysis.graph
    );
    resume.send(()).unwrap();
    drop(held);
}

#[test]
fn a_lock_of_which_no_holder_is_known_is_not_judged() {
    isolated!();
    let lock = Arc::new(Mutex::new(0));
    std::mem::forget(lock.lock().unwrap());
    let (handle, tasks) = on_its_own_thread(runtime(), |runtime| {
        vec![spawn(runtime, async move { *lock.lock().unwrap() += 1 })]
    });
    let analysis = analysis_when_blocked(&handle, tasks[0]);
    let place = analysis.not_judged.places.first().cloned().unwrap_or_default();
    let reason = NotJudged::from(place).reason;
    assert!(reason.starts_with("delouse does not know what holds the lock that its thread "), "{reason}");
}

fn finding_kinds(analysis: &Analysis) -> Vec<FindingKind> {
    analysis.findings.iter().map(|finding| finding.kind).collect()
}

#[test]
fn a_blocked_thread_hides_no_deadlock() {
    isolated!();
    type Handles = Arc<Mutex<Vec<Option<tokio::task::JoinHandle<()>>>>>;
    let lock = Arc::new(Mutex::new(0));
    let held = lock.lock().unwrap();
    let wanted = lock.clone();
    let joins = |handles: Handles, of: usize| async move {
        yield_now().await;
        let handle = handles.lock().unwrap()[of].take().unwrap();
        handle.await.unwrap();
    };
    let (handle, tasks) = on_its_own_thread(runtime(), |runtime| {
        let handles = Handles::default();
        let one = runtime.spawn(joins(handles.clone(), 1));
        let other = runtime.spawn(joins(handles.clone(), 0));
        let ids = [one.id(), other.id()].map(|id| id.to_string().parse().unwrap());
        handles.lock().unwrap().extend([Some(one), Some(other)]);
        let blocks = spawn(runtime, async move {
            for _ in 0..8 {
                yield_now().await;
            }
            *wanted.lock().unwrap() += 1;
        });
        vec![ids[0], ids[1], blocks]
    });
    let analysis = analysis_when_blocked(&handle, tasks[2]);
    let both = tasks[..2].to_vec();
    assert_eq!(
        findings(&analysis),
        [(FindingKind::Deadlock, Severity::Certain, both)],
        "{}",
        text(&analysis)
    );
    drop(held);
}

#[test]
fn locks_side_by_side_are_not_confused() {
    isolated!();
    let locks: Arc<[parking_lot::Mutex<()>; 2]> = Arc::default();
    let held = locks[1].lock();
    let (handle, tasks) = on_its_own_thread(runtime(), |runtime| {
        let (one, other) = (locks.clone(), locks.clone());
        #[allow(clippy::await_holding_lock, reason = "what is looked for")]
        let holds = async move {
            let guard = one[0].lock();
            yield_now().await;
            drop(guard);
        };
        vec![spawn(runtime, holds), spawn(runtime, async move { drop(other[1].lock()) })]
    });
    let analysis = analysis_when_blocked(&handle, tasks[1]);
    assert_eq!(findings(&analysis), [], "{}", text(&analysis));
    let [edge] = edges(&analysis, tasks[1])[..] else { unreachable!("{}", text(&analysis)) };
    assert!(edge.holders.iter().all(|holder| holder.task.is_none()), "{edge:?}");
    drop(held);
}
