//! Programs that nothing is wrong with.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::task::yield_now;

use super::*;

const DAY: Duration = Duration::from_secs(86_400);

/// Whether one of the holders of what `waiter` waits for is certainly `task`.
fn is_certain(analysis: &Analysis, waiter: u64, task: u64) -> bool {
    edges(analysis, waiter).iter().any(|edge| edge.holders.iter().any(|h| h.task == Some(task) && h.certain))
}

/// A guard that is dropped before the `.await` may still be listed.
#[test]
fn a_guard_that_was_dropped() {
    isolated!();
    let runtime = runtime();
    let lock = Arc::new(Mutex::new(0));
    let dropped = spawn(&runtime, {
        let lock = lock.clone();
        async move {
            let mut guard = lock.lock().await;
            *guard += 1;
            drop(guard);
            tokio::time::sleep(DAY).await;
        }
    });
    settle(&runtime);
    let holds = spawn(&runtime, {
        let lock = lock.clone();
        async move {
            let guard = lock.lock().await;
            tokio::time::sleep(DAY).await;
            drop(guard);
        }
    });
    settle(&runtime);
    let waits = spawn(&runtime, async move { drop(lock.lock().await) });
    let analysis = analysis(&runtime);
    assert_eq!(findings(&analysis), []);
    assert!(!is_certain(&analysis, waits, dropped), "{}", text(&analysis));
    assert!(edges(&analysis, waits)[0].holders.iter().any(|h| h.task == Some(holds)), "{}", text(&analysis));
}

#[test]
fn a_guard_that_was_moved_to_another_task() {
    isolated!();
    let runtime = runtime();
    let lock = Arc::new(Mutex::new(0));
    let moved = Arc::new(std::sync::Mutex::new(0));
    let gave = spawn(&runtime, {
        let (lock, moved) = (lock.clone(), moved.clone());
        async move {
            let guard = lock.lock_owned().await;
            let task = tokio::spawn(async move {
                tokio::time::sleep(DAY).await;
                drop(guard);
            });
            *moved.lock().unwrap() = task.id().to_string().parse().unwrap();
            task.await.unwrap();
        }
    });
    settle(&runtime);
    let waits = spawn(&runtime, async move { drop(lock.lock().await) });
    let analysis = analysis(&runtime);
    assert_eq!(findings(&analysis), [], "{}", text(&analysis));
    let has = *moved.lock().unwrap();
    assert!(is_certain(&analysis, waits, has) && !is_certain(&analysis, waits, gave), "{}", text(&analysis));
}

/// Workers that share a queue, and a task that has the sender and waits for a timer.
#[test]
fn a_pool_that_waits_for_work() {
    isolated!();
    let runtime = runtime();
    let (sender, receiver) = mpsc::channel::<oneshot::Sender<u8>>(8);
    let receiver = Arc::new(Mutex::new(receiver));
    for _ in 0..8 {
        let receiver = receiver.clone();
        spawn(&runtime, async move {
            loop {
                let Some(answer) = receiver.lock().await.recv().await else { return };
                let _ = answer.send(1);
            }
        });
    }
    drop(receiver);
    spawn(&runtime, async move {
        loop {
            tokio::time::sleep(DAY).await;
            let (answer, answered) = oneshot::channel();
            sender.send(answer).await.unwrap();
            answered.await.unwrap();
        }
    });
    let analysis = analysis(&runtime);
    assert_eq!(findings(&analysis), [], "{}", text(&analysis));
    let waiting = analysis.graph.edges.iter().filter(|edge| edge.resource.kind == ResourceKind::Mutex);
    assert!(
        waiting.clone().count() == 7 && waiting.flat_map(|edge| edge.holders.iter()).all(|h| h.certain),
        "{}",
        text(&analysis)
    );
}

/// A future that keeps its waker where no type tells.
#[test]
fn a_task_with_an_unknown_waker() {
    isolated!();
    let runtime = runtime();
    let wakers = Arc::new(std::sync::Mutex::new(Vec::new()));
    let kept = wakers.clone();
    let (sender, mut receiver) = mpsc::channel::<u8>(1);
    spawn(&runtime, async move {
        let sender = sender;
        std::future::poll_fn(|cx| {
            kept.lock().unwrap().push(cx.waker().clone());
            receiver.poll_recv(cx)
        })
        .await;
        drop(sender);
    });
    let analysis = analysis(&runtime);
    assert_eq!(findings(&analysis), [], "{}", text(&analysis));
    assert_eq!(wakers.lock().unwrap().len(), 1);
}

/// Contention that ends: the task with the lock waits for a timer.
#[test]
fn tasks_that_queue_for_a_lock() {
    isolated!();
    let runtime = runtime();
    let lock = Arc::new(Mutex::new(0));
    for _ in 0..50 {
        let lock = lock.clone();
        spawn(&runtime, async move {
            let mut guard = lock.lock().await;
            tokio::time::sleep(DAY).await;
            *guard += 1;
        });
    }
    let analysis = analysis(&runtime);
    assert_eq!(findings(&analysis), [], "{}", text(&analysis));
    assert_eq!(inside(&analysis).len(), 49);
    assert!(inside(&analysis).iter().all(|edge| edge.holders.len() == 1 && edge.holders[0].certain));
}

/// A task that was woken, and will go on.
#[test]
fn a_task_that_is_about_to_run() {
    isolated!();
    let runtime = runtime();
    let (sender, receiver) = oneshot::channel::<u8>();
    let (other, waits) = oneshot::channel::<u8>();
    spawn(&runtime, async move {
        receiver.await.unwrap();
        other.send(1).unwrap();
    });
    spawn(&runtime, async move {
        waits.await.unwrap();
    });
    settle(&runtime);
    sender.send(1).unwrap();
    // Not polled since.
    let mut roots = Roots::new();
    roots.add_runtime(runtime.handle());
    let analysis = analysis_of(&roots);
    assert_eq!(findings(&analysis), [], "{}", text(&analysis));
    runtime.block_on(yield_now());
}

/// The guard that was dropped is listed still, and there is one, as the counter says: that of a thread. That the
/// task has it is a guess.
#[test]
fn a_guard_that_was_dropped_while_a_thread_has_the_lock() {
    isolated!();
    let runtime = runtime();
    let lock = Arc::new(Mutex::new(0_u8));
    let (taken, is_taken) = oneshot::channel();
    let (keep, kept) = std::sync::mpsc::channel::<()>();
    let (start, started) = std::sync::mpsc::channel::<()>();
    let has = std::thread::spawn({
        let lock = lock.clone();
        move || {
            started.recv().unwrap();
            let guard = lock.blocking_lock();
            taken.send(()).unwrap();
            let _ = kept.recv();
            drop(guard);
        }
    });
    let waits = Arc::downgrade(&lock);
    let task = spawn(&runtime, async move {
        let mut guard = lock.lock().await;
        *guard += 1;
        drop(guard);
        start.send(()).unwrap();
        is_taken.await.unwrap();
        *lock.lock().await += 1;
    });
    while waits.upgrade().unwrap().try_lock().is_ok() {
        settle(&runtime);
    }
    drop(waits);
    let analysis = analysis(&runtime);
    assert!(analysis.findings.iter().all(|f| f.severity == Severity::Suspected), "{}", text(&analysis));
    assert_eq!(edges(&analysis, task).len(), 1);
    drop(keep);
    has.join().unwrap();
}

/// Access to a static leaves no trace.
#[test]
fn a_guard_that_was_dropped_while_a_thread_has_a_static_lock() {
    isolated!();
    static LOCK: Mutex<u8> = Mutex::const_new(0);
    let runtime = runtime();
    let (taken, is_taken) = oneshot::channel();
    let (keep, kept) = std::sync::mpsc::channel::<()>();
    let (start, started) = std::sync::mpsc::channel::<()>();
    let thread = std::thread::spawn(move || {
        started.recv().unwrap();
        let guard = LOCK.blocking_lock();
        taken.send(()).unwrap();
        let _ = kept.recv();
        drop(guard);
    });
    spawn(&runtime, async move {
        let mut guard = LOCK.lock().await;
        *guard += 1;
        drop(guard);
        start.send(()).unwrap();
        is_taken.await.unwrap();
        *LOCK.lock().await += 1;
    });
    while LOCK.try_lock().is_ok() {
        settle(&runtime);
    }
    let analysis = analysis(&runtime);
    assert!(analysis.findings.iter().all(|f| f.severity == Severity::Suspected), "{}", text(&analysis));
    assert!(analysis.graph.edges.iter().any(|edge| edge.resource.kind == ResourceKind::Mutex));
    drop(keep);
    thread.join().unwrap();
}

/// One task with too much to look at hides nothing of the others.
#[test]
fn a_task_that_has_too_much() {
    isolated!();
    let runtime = runtime();
    let much: Vec<Option<Box<Arc<Mutex<u8>>>>> = (0..300_000).map(|_| None).collect();
    let (hold, mut held) = mpsc::channel::<u8>(1);
    spawn(&runtime, async move {
        held.recv().await;
        drop(much);
    });
    let lock = Arc::new(Mutex::new(0));
    let stuck = spawn(&runtime, async move {
        let first = lock.lock().await;
        yield_now().await;
        let second = lock.lock().await;
        drop((first, second));
    });
    let analysis = analysis(&runtime);
    assert_eq!(kinds(&analysis), [(FindingKind::Deadlock, vec![stuck])], "{}", text(&analysis));
    assert!(analysis.not_covered.contains(&NotCovered::Holders), "{:?}", analysis.not_covered);
    drop(hold);
}

/// Where much is inlined, a thread may have its guard in a register, and nowhere in memory.
#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code, reason = "no safe code says where a value is")]
#[test]
fn a_guard_in_a_register() {
    isolated!();
    use std::sync::atomic::{AtomicU32, Ordering};
    /// Of an `Arc`, its counters come before its value.
    const COUNTERS: u64 = 16;
    static STATE: AtomicU32 = AtomicU32::new(0);
    let runtime = runtime();
    let lock = Arc::new(Mutex::new(0_u8));
    // As a complement, so that no copy of it in memory is taken for a guard.
    let (give, given) = std::sync::mpsc::channel::<u64>();
    let thread = std::thread::spawn(move || {
        let mut guard = given.recv().unwrap();
        // SAFETY: waits while `STATE` is 1 (`futex`, FUTEX_WAIT), and leaves `guard` as it was.
        unsafe {
            std::arch::asm!(
                "not r14",
                "mov dword ptr [rdi], 1",
                "2:",
                "mov eax, 202",
                "syscall",
                "cmp dword ptr [rdi], 1",
                "je 2b",
                "not r14",
                inout("r14") guard, in("rdi") STATE.as_ptr(), in("rsi") 0, in("rdx") 1, in("r10") 0,
                in("r8") 0, in("r9") 0, out("rax") _, out("rcx") _, out("r11") _,
            );
        }
        let lock = std::ptr::with_exposed_provenance::<Mutex<u8>>((!guard + COUNTERS) as usize);
        // SAFETY: the reference that was in the guard.
        drop(unsafe { Arc::from_raw(lock) });
    });
    let task = spawn(&runtime, async move {
        let mut guard = lock.clone().lock_owned().await;
        yield_now().await;
        *guard += 1;
        // All that a guard is made of: a reference to the lock.
        std::mem::forget(guard);
        give.send(!(Arc::as_ptr(&lock).expose_provenance() as u64 - COUNTERS)).unwrap();
        *lock.lock_owned().await += 1;
    });
    settle(&runtime);
    while STATE.load(Ordering::Acquire) != 1 {
        std::thread::yield_now();
    }
    let analysis = analysis(&runtime);
    assert_eq!(findings(&analysis), [], "{}", text(&analysis));
    assert_eq!(edges(&analysis, task).len(), 1);
    STATE.store(2, Ordering::Release);
    // SAFETY: FUTEX_WAKE of a static.
    unsafe { libc::syscall(libc::SYS_futex, STATE.as_ptr(), libc::FUTEX_WAKE, 1) };
    thread.join().unwrap();
    settle(&runtime);
}
