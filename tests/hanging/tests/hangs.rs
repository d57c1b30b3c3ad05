//! Tests that hang, each in its own way, and healthy ones beside them.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::task::{LocalSet, spawn_blocking, spawn_local};
use tokio::time::sleep;

/// Two tasks that wait for each other's lock.
async fn cross() {
    let (debit, credit) = (Arc::new(Mutex::new(0)), Arc::new(Mutex::new(0)));
    let barrier = Arc::new(tokio::sync::Barrier::new(2));
    let transfer = |from: Arc<Mutex<i32>>, to: Arc<Mutex<i32>>, both: Arc<tokio::sync::Barrier>| async move {
        let mut from = from.lock().await;
        both.wait().await;
        let mut to = to.lock().await;
        *from -= 1;
        *to += 1;
    };
    let one = tokio::spawn(transfer(debit.clone(), credit.clone(), barrier.clone()));
    let other = tokio::spawn(transfer(credit, debit, barrier));
    let _ends = tokio::join!(one, other);
}

#[delouse::test(flavor = "multi_thread", worker_threads = 2, timeout = "1s")]
async fn deadlock() {
    cross().await;
}

#[delouse::test(timeout = "1s")]
async fn deadlock_on_one_thread() {
    cross().await;
}

#[delouse::test(timeout = "1s")]
async fn leaked_sender() {
    let (sender, mut receiver) = mpsc::channel::<u32>(1);
    while receiver.recv().await.is_some() {}
    drop(sender);
}

/// The body has the sender that its task waits for, and waits for the task.
#[delouse::test(flavor = "multi_thread", worker_threads = 2, timeout = "1s")]
async fn blocked_worker() {
    let (_never, blocked) = std::sync::mpsc::channel::<()>();
    let task = tokio::spawn(async move {
        let _never = blocked.recv();
    });
    let _end = task.await;
}

#[delouse::test(start_paused = true, timeout = "1s")]
async fn paused_clock() {
    sleep(Duration::from_secs(3600)).await;
    let (_sender, receiver) = oneshot::channel::<()>();
    let _never = receiver.await;
}

#[delouse::test(flavor = "local", timeout = "1s")]
async fn local_runtime() {
    let (sender, receiver) = oneshot::channel::<()>();
    let task = spawn_local(receiver);
    let _never = task.await;
    drop(sender);
}

#[delouse::test(timeout = "1s")]
async fn local_set() {
    let tasks = LocalSet::new();
    let lock = std::rc::Rc::new(Mutex::new(0));
    tasks
        .run_until(async {
            let guard = lock.lock().await;
            let theirs = lock.clone();
            let task = spawn_local(async move { *theirs.lock().await += 1 });
            let _never = task.await;
            drop(guard);
        })
        .await;
}

#[delouse::test(timeout = "1s")]
async fn std_mutex() {
    let lock = std::sync::Mutex::new(0);
    let _guard = lock.lock();
    tokio::task::yield_now().await;
    let _never = lock.lock();
}

#[delouse::test(timeout = "1s")]
async fn child_left_over() {
    let (_never, blocked) = std::sync::mpsc::channel::<()>();
    spawn_blocking(move || blocked.recv());
    // So that the call begins.
    spawn_blocking(|| {}).await.expect("it ends");
    std::mem::forget(_never);
}

struct HangsInDrop;

impl Drop for HangsInDrop {
    fn drop(&mut self) {
        loop {
            std::thread::park();
        }
    }
}

#[delouse::test(timeout = "1s")]
async fn hang_in_drop() {
    let _value = HangsInDrop;
    tokio::task::yield_now().await;
}

#[delouse::test(timeout = "1s")]
async fn hang_before_the_first_await() {
    loop {
        std::thread::park();
    }
}

/// Printing the panic takes longer than a runtime may take to react: as with RUST_BACKTRACE in a large program.
#[delouse::test(timeout = "1s")]
async fn prints_for_long() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        std::thread::sleep(Duration::from_secs(3));
        usual(panic);
    }));
    let (_sender, receiver) = oneshot::channel::<()>();
    let _never = receiver.await;
}

#[delouse::test(leaks = "fail")]
async fn leaves_a_task() {
    tokio::spawn(sleep(Duration::from_secs(3600)));
    tokio::task::yield_now().await;
}

#[delouse::test(leaks = "fail", timeout = "off")]
async fn leaves_no_task() {
    tokio::spawn(async {}).await.expect("it ends");
}

#[delouse::test]
async fn healthy() {
    sleep(Duration::from_millis(1)).await;
}

#[delouse::test(start_paused = true, timeout = "5s")]
async fn healthy_for_an_hour_of_a_paused_clock() {
    sleep(Duration::from_secs(3600)).await;
}

#[delouse::test(flavor = "multi_thread")]
#[should_panic(expected = "of its own")]
async fn panics_by_itself() {
    panic!("of its own");
}

#[delouse::test]
async fn returns_a_result() -> Result<(), std::num::ParseIntError> {
    "7".parse::<u32>().map(drop)
}

/// Its own handler wins over that of `#[delouse::test]`.
#[delouse::test(timeout = "off")]
async fn handles_sigterm() {
    let mut signals =
        tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).expect("a signal");
    // Not `eprintln!`, which libtest keeps.
    std::io::Write::write_all(&mut std::io::stderr(), b"it handles the signal\n").expect("an open pipe");
    signals.recv().await;
}

#[delouse::test(timeout = "off")]
async fn waits_to_be_ended() {
    let (_sender, receiver) = oneshot::channel::<()>();
    std::io::Write::write_all(&mut std::io::stderr(), b"it waits\n").expect("an open pipe");
    let _never = receiver.await;
}
