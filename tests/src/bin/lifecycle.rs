//! The ways in which `#[delouse::main]` functions start and end; the output of each differs.

#[path = "lifecycle/restarts.rs"]
mod restarts;

use std::process::ExitCode;

fn main() -> ExitCode {
    match std::env::args().nth(1).as_deref() {
        Some("multi_thread") => multi_thread(),
        Some("current_thread") => current_thread(),
        Some("local") => local(),
        Some("nested") => nested(),
        Some("again_and_again") => again_and_again(),
        Some("init_around") => init_around(),
        Some("exit_hangs") => exit_hangs(),
        Some("exits_inside") => exits_inside(),
        Some("panics") => println!("caught: {}", std::panic::catch_unwind(panics).is_err()),
        Some("restarts") => return restarts::main(),
        Some("opens_files") => opens_files(),
        #[cfg(tokio_unstable)]
        Some("runtime_gives_up") => {
            println!("caught: {}", std::panic::catch_unwind(runtime_gives_up).is_err());
        }
        other => {
            eprintln!("no such way: {other:?}");
            return ExitCode::FAILURE;
        }
    }
    println!("over");
    ExitCode::SUCCESS
}

async fn serve_for_ever() {
    let task = tokio::spawn(waiting());
    // The task has been polled once before `ready` is printed.
    let _done = tokio::spawn(tokio::task::yield_now()).await;
    println!("ready");
    let _never = task.await;
}

/// Opens eight files at once, again and again.
#[delouse::main(worker_threads = 1)]
async fn opens_files() {
    std::thread::spawn(|| {
        loop {
            let files = [(); 8].map(|()| std::fs::File::open("/dev/null"));
            if let Some(error) = files.iter().find_map(|file| file.as_ref().err()) {
                println!("cannot open a file: {error}");
            }
            drop(files);
            std::thread::sleep(std::time::Duration::from_micros(200));
        }
    });
    serve_for_ever().await
}

async fn waiting() {
    tokio::sync::Notify::new().notified().await
}

#[delouse::main(flavor = "multi_thread", worker_threads = 1, bind = "127.0.0.3:0")]
async fn multi_thread() {
    serve_for_ever().await
}

#[delouse::main(flavor = "current_thread", bind = "127.0.0.3:0")]
async fn current_thread() {
    serve_for_ever().await
}

#[delouse::main(flavor = "local", bind = "127.0.0.3:0")]
async fn local() {
    serve_for_ever().await
}

/// A function with the attribute below another: one server for both, which the inner one's end leaves alone.
#[delouse::main(worker_threads = 1)]
async fn nested() {
    let inner = tokio::task::spawn_blocking(|| short(7132));
    println!("inner said {:?}", inner.await.ok());
    serve_for_ever().await
}

#[delouse::main(flavor = "current_thread")]
async fn short(number: u32) -> u32 {
    tokio::task::yield_now().await;
    number
}

/// Servers start and end on two threads at once.
fn again_and_again() {
    let run = || (0..20).for_each(|n| assert_eq!(short(n), n));
    std::thread::scope(|scope| {
        scope.spawn(run);
        scope.spawn(run);
    });
}

/// `init` before, inside and after: one server throughout, which stays.
fn init_around() {
    let before = delouse::init();
    let inside = inits();
    let after = delouse::init();
    println!("one server: {}", before.address().is_some() && before == inside && inside == after);
    println!("ready");
    loop {
        std::thread::park();
    }
}

#[delouse::main(flavor = "current_thread")]
async fn inits() -> delouse::Started {
    delouse::init()
}

/// The runtime waits in its shutdown for a blocking task that never ends.
#[delouse::main(worker_threads = 1)]
async fn exit_hangs() {
    let (began, begin) = tokio::sync::oneshot::channel();
    tokio::task::spawn_blocking(move || {
        let _gone = began.send(());
        never_ends()
    });
    let _begun = begin.await;
    println!("ready");
}

fn never_ends() {
    loop {
        std::thread::park();
    }
}

#[delouse::main(worker_threads = 1)]
async fn exits_inside() {
    std::process::exit(7)
}

#[delouse::main(worker_threads = 1)]
async fn panics() {
    tokio::task::yield_now().await;
    panic!("on purpose");
}

/// `block_on` panics while main's body waits: what the body holds is dropped inside its runtime.
#[cfg(tokio_unstable)]
#[delouse::main(flavor = "current_thread", unhandled_panic = "shutdown_runtime")]
async fn runtime_gives_up() {
    struct SaysWhere;
    impl Drop for SaysWhere {
        fn drop(&mut self) {
            println!("dropped inside a runtime: {}", tokio::runtime::Handle::try_current().is_ok());
        }
    }
    let _held = SaysWhere;
    tokio::spawn(async { panic!("on purpose") });
    std::future::pending().await
}
