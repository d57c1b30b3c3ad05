//! The face towards the program: its runtimes, its main future, the server's life.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::runtime::{Builder, Handle};

use crate::Config;
use crate::debuginfo::symbols::Symbols;
use crate::dump::Sources;
use crate::server::{self, Server, log};
use crate::settings::{Settings, SettingsError};
use crate::tasks::engine::Engines;
use crate::tasks::roots::{MainFuture, Roots};

/// What the program told us about itself. Held for a push, a removal or a clone, never longer.
static ROOTS: Mutex<Roots> = Mutex::new(Roots::new());

/// The server of this process. Those who need it hold it: each `#[delouse::main]` that runs, and `KEPT`.
static SERVER: Mutex<Weak<Server>> = Mutex::new(Weak::new());

/// Keeps the server of [`init`] for the rest of the process.
static KEPT: Mutex<Option<Arc<Server>>> = Mutex::new(None);

/// None of these critical sections can leave a half-done state behind.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where captures start from.
pub(crate) fn roots() -> Roots {
    lock(&ROOTS).clone()
}

/// What a dump is read by; `None` where `DELOUSE=off`.
pub(crate) fn sources() -> Option<Sources> {
    // The server may go while we hold it: then it goes under the lock, as ever.
    let running = lock(&SERVER);
    if let Some(server) = running.upgrade() {
        return Some(server.sources().clone());
    }
    drop(running);
    let limits = match Settings::resolve(&Config::new()) {
        Err(SettingsError::Off) => return None,
        settings => settings.map_or_else(|_| Settings::limits(), |settings| settings.limits),
    };
    let engines = Arc::new(Engines::new(limits));
    Some(Sources { engines, symbols: Arc::new(Symbols::new()), own: None })
}

/// Starts the debug server with the defaults and the environment: [`Config::init`].
pub(crate) fn init(config: Config) -> Option<SocketAddr> {
    let server = start(&config)?;
    for handle in config.runtimes.iter().chain(Handle::try_current().ok().as_ref()) {
        lock(&ROOTS).add_runtime(handle);
    }
    let address = server.address();
    *lock(&KEPT) = Some(server);
    Some(address)
}

/// Shows the tasks of one more runtime. Does nothing where the feature `debug` is off.
///
/// The handle is kept until the process ends; it keeps the runtime's bookkeeping, not its tasks, alive.
pub fn register(runtime: &Handle) {
    lock(&ROOTS).add_runtime(runtime);
}

fn start(config: &Config) -> Option<Arc<Server>> {
    let settings = match Settings::resolve(config) {
        Ok(settings) => settings,
        Err(SettingsError::Off) => return None,
        Err(error) => {
            log::say_once(&format!("not started: {error}"));
            return None;
        }
    };
    let mut running = lock(&SERVER);
    if let Some(server) = running.upgrade() {
        return Some(server);
    }
    match server::start(settings) {
        Ok(server) => {
            let server = Arc::new(server);
            *running = Arc::downgrade(&server);
            Some(server)
        }
        Err(error) => {
            log::say_once(&format!("not started: {error}"));
            None
        }
    }
}

/// The server as those hold it who do not keep it for good: the last one to go stops it.
struct Lease(Option<Arc<Server>>);

impl Drop for Lease {
    /// Under the lock: who starts a server next waits for this one to give back its port.
    fn drop(&mut self) {
        let _next = lock(&SERVER);
        drop(self.0.take());
    }
}

/// What `#[delouse::main]` expands to for the flavors `multi_thread` and `current_thread`.
#[doc(hidden)]
pub fn block_on<F: Future>(builder: &mut Builder, config: Config, body: F) -> F::Output {
    let body = Box::pin(body);
    // Before the runtime, so that it goes after it: a runtime that hangs on its way out can still be asked about.
    let server = Lease(start(&config));
    #[expect(clippy::expect_used, reason = "what #[tokio::main] does, word for word")]
    let runtime = prepare(builder).build().expect("Failed building the Runtime");
    drive(&server, runtime.handle(), body, |body| runtime.block_on(body))
}

/// What `#[delouse::main]` expands to for the flavor `local`.
#[doc(hidden)]
pub fn block_on_local<F: Future>(builder: &mut Builder, config: Config, body: F) -> F::Output {
    let body = Box::pin(body);
    let server = Lease(start(&config));
    #[expect(clippy::expect_used, reason = "what #[tokio::main] does, word for word")]
    let runtime = prepare(builder).build_local(Default::default()).expect("Failed building the Runtime");
    drive(&server, runtime.handle(), body, |body| runtime.block_on(body))
}

/// Settings that suit capture and cost nothing per poll: threads that can be told apart by name.
fn prepare(builder: &mut Builder) -> &mut Builder {
    let threads = AtomicUsize::new(0);
    builder
        .enable_all()
        .thread_name_fn(move || format!("tokio-rt-{}", threads.fetch_add(1, Ordering::Relaxed)))
}

/// Runs `body`, known to delouse by the address that it is pinned at: tokio itself keeps the future of
/// `block_on` in no list. On the way out, by return or by panic, it is forgotten before it is dropped.
///
/// It is on the heap, as tokio puts large ones there too: a stack that is enough for `#[tokio::main]` is enough
/// for us.
fn drive<F: Future>(
    server: &Lease,
    handle: &Handle,
    body: Pin<Box<F>>,
    block_on: impl FnOnce(Pin<&mut F>) -> F::Output,
) -> F::Output {
    // A body that did not end, by a panic, is dropped inside its runtime, as in tokio's own `block_on`: what it
    // holds may spawn when it goes.
    let _inside = handle.enter();
    let mut body = body;
    let _registered =
        server.0.as_ref().map(|_| Registered::new(handle, MainFuture::new(body.as_ref().get_ref())));
    block_on(body.as_mut())
}

/// A runtime and its main future, for as long as `block_on` runs.
struct Registered<'h> {
    runtime: &'h Handle,
    main: MainFuture,
}

impl<'h> Registered<'h> {
    fn new(runtime: &'h Handle, main: MainFuture) -> Self {
        let mut roots = lock(&ROOTS);
        roots.add_main(main);
        roots.add_runtime(runtime);
        Self { runtime, main }
    }
}

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        let mut roots = lock(&ROOTS);
        roots.remove_main(self.main);
        roots.remove_runtime(self.runtime);
    }
}
