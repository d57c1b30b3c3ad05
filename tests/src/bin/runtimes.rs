//! Programs that come to their runtimes in other ways than `#[delouse::main] async fn main`.

use tokio::runtime::{Builder, Runtime};

fn main() -> std::io::Result<()> {
    match std::env::args().nth(1).as_deref() {
        Some("by_hand") => {
            let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
            let _entered = runtime.enter();
            println!("init said {:?}", delouse::init());
            serve(&[(&runtime, spawn_first)]);
        }
        Some("several") => {
            let first = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
            println!("init said {:?}", delouse::Config::new().runtime(first.handle()).init());
            let second = Builder::new_multi_thread().worker_threads(1).name("second").enable_all().build()?;
            delouse::register(second.handle());
            serve(&[(&first, spawn_first), (&second, spawn_second)]);
        }
        Some("attribute") => {
            no_main();
            println!("main's body is over");
        }
        other => eprintln!("by_hand, several or attribute, not {other:?}"),
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

async fn first_task() {
    tokio::sync::Notify::new().notified().await;
}

async fn second_task() {
    tokio::sync::Notify::new().notified().await;
}
