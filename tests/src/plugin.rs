//! A shared library with a tokio runtime of its own, as an extension module of Python is: its host is no Rust program,
//! or another one.

use std::time::Duration;

async fn fetch() {
    tokio::time::sleep(Duration::from_secs(86_400)).await;
}

async fn compute() {
    loop {
        std::hint::spin_loop();
    }
}

#[delouse::main(worker_threads = 2)]
async fn run() {
    tokio::spawn(fetch());
    tokio::spawn(compute());
    std::future::pending::<()>().await;
}

/// Called by the host once; the runtime lives on a thread of its own.
#[unsafe(no_mangle)]
pub extern "C" fn start() {
    std::thread::spawn(run);
}

/// What the loader calls, where the environment asks for it: a runtime without delouse.
extern "C" fn loaded() {
    if std::env::var_os("PLUGIN_STARTS").is_some() {
        std::thread::spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(async {
                tokio::spawn(fetch());
                std::future::pending::<()>().await
            });
        });
    }
}

#[used]
// SAFETY: the loader calls what the section points to, without arguments that matter (System V ABI, "Initialization and
// Termination Functions"); `loaded` unwinds nowhere, as it only starts a thread.
#[unsafe(link_section = ".init_array")]
static LOADED: extern "C" fn() = loaded;
