//! Programs that create their runtimes in other ways than by `#[delouse::main] async fn main`.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::{Mutex, Notify};

fn main() -> std::io::Result<()> {
    match std::env::args().nth(1).as_deref() {
        Some("by_hand") => {
            let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
            let _entered = runtime.enter();
            println!("init: {}", delouse::init());
            serve(&[(&runtime, spawn_first)]);
        }
        Some("several") => {
            let first = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
            println!("init: {}", delouse::Config::new().runtime(first.handle()).init());
            let second = Builder::new_multi_thread().worker_threads(1).name("second").enable_all().build()?;
            delouse::register(second.handle());
            serve(&[(&first, spawn_first), (&second, spawn_second)]);
        }
        Some("attribute") => {
            no_main();
            println!("main's body is over");
        }
        Some("drives") => drives(),
        Some("dropped") => dropped(),
        other => eprintln!("by_hand, several, attribute, drives or dropped, not {other:?}"),
    }
    Ok(())
}

#[delouse::main(flavor = "current_thread")]
async fn no_main() {
    tokio::task::yield_now().await;
}

/// A runtime, and what spawns a task on it.
type Spawning<'r> = (&'r Runtime, fn(&Runtime));

/// Spawns a task on each runtime and waits for the end of the world.
fn serve(runtimes: &[Spawning<'_>]) {
    for (runtime, spawn) in runtimes {
        spawn(runtime);
    }
    // A round trip through every runtime: the tasks spawned before have been polled.
    for (runtime, _) in runtimes {
        let _joined = runtime.block_on(runtime.spawn(tokio::task::yield_now()));
    }
    println!("ready");
    loop {
        std::thread::park();
    }
}

fn spawn_first(runtime: &Runtime) {
    runtime.spawn(first_task());
}

fn spawn_second(runtime: &Runtime) {
    runtime.spawn(second_task());
}

/// How many threads are about to block.
static BLOCK: AtomicUsize = AtomicUsize::new(0);

/// Waits until that many threads sleep, which is how blocking shows from outside.
fn wait_for(threads: usize) {
    let is_awake = |task: &std::fs::DirEntry| {
        let stat = std::fs::read_to_string(task.path().join("stat")).unwrap_or_default();
        !stat.contains("(delouse-") && !stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('S'))
    };
    let awake = || {
        let tasks = std::fs::read_dir("/proc/self/task");
        tasks.map_or(0, |tasks| tasks.flatten().filter(is_awake).count())
    };
    // The one that counts is awake.
    while BLOCK.load(Ordering::SeqCst) < threads || awake() > 1 {
        std::thread::yield_now();
    }
}

fn blocks() {
    BLOCK.fetch_add(1, Ordering::SeqCst);
}

/// Blocks its thread in a lock that its caller has.
fn append(lock: &Mutex<u32>) {
    blocks();
    *tokio::task::block_in_place(|| lock.blocking_lock()) += 1;
}

async fn locks_twice(lock: Arc<Mutex<u32>>) {
    let turn = lock.lock().await;
    tokio::task::yield_now().await;
    append(&lock);
    drop(turn);
}

async fn notified(notify: Arc<Notify>) {
    blocks();
    notify.notified().await;
}

async fn received(receiver: futures::channel::oneshot::Receiver<u32>) {
    blocks();
    let _sent = receiver.await;
}

async fn slept() {
    blocks();
    tokio::time::sleep(std::time::Duration::from_secs(100_000)).await;
}

async fn in_place(notify: Arc<Notify>) {
    tokio::task::block_in_place(|| Handle::current().block_on(notified(notify)));
}

async fn by_futures(receiver: futures::channel::oneshot::Receiver<u32>) {
    tokio::task::block_in_place(|| futures::executor::block_on(received(receiver)));
}

/// Tasks and threads that drive futures by calls that block.
#[delouse::main(worker_threads = 8)]
async fn drives() {
    let (handle, notify) = (Handle::current(), Arc::new(Notify::new()));
    tokio::spawn(locks_twice(Arc::default()));
    tokio::spawn(in_place(notify.clone()));
    let (sender, receiver) = futures::channel::oneshot::channel();
    tokio::spawn(by_futures(receiver));
    let (by, of) = (handle.clone(), notify.clone());
    tokio::task::spawn_blocking(move || by.block_on(notified(of)));
    std::thread::spawn(move || handle.block_on(slept()));
    std::thread::spawn(|| {
        let Ok(runtime) = Builder::new_current_thread().enable_all().build() else { return };
        runtime.block_on(slept());
    });
    let of = notify.clone();
    std::thread::spawn(move || {
        let Ok(runtime) = Builder::new_current_thread().enable_all().build() else { return };
        tokio::task::LocalSet::new().block_on(&runtime, notified(of));
    });
    let (messages, mut inbox) = tokio::sync::mpsc::channel::<u32>(1);
    std::thread::spawn(move || {
        blocks();
        inbox.blocking_recv()
    });
    std::thread::spawn(|| {
        wait_for(8);
        println!("ready");
        std::thread::park();
    });
    notify.clone().notified().await;
    drop((sender, messages));
}

/// Its main future ends, and a blocking task does not.
#[delouse::main(worker_threads = 1)]
async fn dropped() {
    tokio::task::spawn_blocking(|| {
        blocks();
        loop {
            std::thread::park();
        }
    });
    std::thread::spawn(|| {
        wait_for(1);
        println!("ready");
        std::thread::park();
    });
}

async fn first_task() {
    Notify::new().notified().await;
}

async fn second_task() {
    Notify::new().notified().await;
}
