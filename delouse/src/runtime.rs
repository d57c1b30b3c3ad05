//! The functions that the program calls: they register runtimes and the main future, start the server.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::runtime::{Builder, Handle};

use crate::Config;
use crate::inspector::Inspector;
use crate::log;
use crate::panic_hook;
use crate::registry;
use crate::registry::Registered;
use crate::server::{self, Server};
use crate::settings::{Settings, WatchSettings};
use crate::shutdown::{self, RuntimeEnding};
use crate::signal_listener::{SignalListener, Signals};
use crate::started::Started;
use crate::watch::{Journal, Watch};

/// The running server and SIGQUIT listener of this process. Owned by each running `#[delouse::main]`, and by [`KEPT`].
static RUNNING: Mutex<Weak<Running>> = Mutex::new(Weak::new());

/// Owns what [`init`] has started until the process ends.
static KEPT: Mutex<Option<Arc<Running>>> = Mutex::new(None);

/// The server, and the threads that wait for signals and that watch the program.
struct Running {
    _signals: Option<SignalListener>,
    watch: Mutex<Option<Watch>>,
    journal: Arc<Journal>,
    server: Server,
}

impl Running {
    /// Watches the program as `settings` say, unless it is watched already.
    fn watch(&self, settings: &WatchSettings) {
        let mut watch = lock(&self.watch);
        if watch.is_none() {
            *watch = Watch::start(self.server.inspector(), settings, Arc::clone(&self.journal))
                .unwrap_or_else(|error| {
                    log::say_once(&format!("the program is not watched: no thread for it: {error}"));
                    None
                });
        }
    }
}

/// The state of these locks is valid at any time, so that a poisoned lock can be ignored.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The inspector for one dump: that of the server if one is running, to share its caches. `None` if `DELOUSE=off`.
pub(crate) fn inspector() -> Option<Arc<Inspector>> {
    // If this becomes the last owner, the server is dropped here, while the lock is held.
    let guard = lock(&RUNNING);
    if let Some(running) = guard.upgrade() {
        return Some(running.server.inspector());
    }
    drop(guard);
    let Settings { limits, .. } = Settings::resolve(&Config::new())?;
    Some(Arc::new(Inspector::new(limits, None)))
}

/// Starts the debug server with the defaults and the environment: [`Config::init`].
fn init(config: &Config) -> Started {
    let running = match start(config) {
        Ok(running) => running,
        Err(why) => return why,
    };
    for handle in config.runtimes.iter().chain(Handle::try_current().ok().as_ref()) {
        registry::lock().add_runtime(handle);
    }
    let started = running.server.started();
    *lock(&KEPT) = Some(running);
    started
}

/// Lists the tasks of another runtime. Does nothing with the features `dump` and `debug` off.
///
/// The handle is kept until [`unregister`]. It keeps the runtime's internal state alive, but not its tasks.
pub fn register(runtime: &Handle) {
    registry::lock().add_runtime(runtime);
}

/// Undoes one [`register`] or one [`Config::runtime`], so that the runtime's internal state can be freed. Tasks of a runtime
/// that is not registered are still listed if they are found through one of its threads. Does nothing with the features
/// `dump` and `debug` off, or if the runtime is not registered.
pub fn unregister(runtime: &Handle) {
    registry::lock().remove_runtime(runtime);
}

/// Returns the running server of this process, and starts it if there is none. `Err` is [`Started::Off`] or
/// [`Started::Failed`].
fn start(config: &Config) -> Result<Arc<Running>, Started> {
    let settings = Settings::resolve(config).ok_or(Started::Off)?;
    let mut guard = lock(&RUNNING);
    if let Some(running) = guard.upgrade() {
        running.journal.add_callbacks(&config.callbacks);
        running.watch(&settings.watch);
        shutdown::limit(settings.shutdown);
        return Ok(running);
    }
    let signals = Signals { quit: settings.sigquit, term: settings.sigterm, shutdown: settings.shutdown };
    let (watch, panic) = (settings.watch.clone(), settings.panic);
    let journal = Arc::new(Journal::default());
    journal.add_callbacks(&config.callbacks);
    let server = server::start(config, settings, &journal).map_err(|error| {
        let why = error.to_string();
        log::say_once(&format!("not started: {why}"));
        Started::Failed(why)
    })?;
    if panic {
        panic_hook::install(inspector);
    }
    let listener = SignalListener::start(inspector, signals).unwrap_or_else(|error| {
        log::say_once(&format!("signals print no dump: no thread for it: {error}"));
        None
    });
    let running = Arc::new(Running { _signals: listener, watch: Mutex::default(), journal, server });
    running.watch(&watch);
    *guard = Arc::downgrade(&running);
    Ok(running)
}

/// A shared owner of the running server. Dropping the last one stops the server.
struct Lease(Option<Arc<Running>>);

impl Drop for Lease {
    /// Takes the lock, so that the next start waits until this server has released its port.
    fn drop(&mut self) {
        let _next = lock(&RUNNING);
        drop(self.0.take());
    }
}

/// Called by the expansion of `#[delouse::main]` for the flavors `multi_thread` and `current_thread`.
#[doc(hidden)]
pub fn block_on<F: Future>(builder: &mut Builder, config: Config, body: F) -> F::Output {
    let body = Box::pin(body);
    // Created before the runtime, so that it is dropped after it: a runtime that hangs during shutdown can be diagnosed.
    let server = Lease(start(&config).ok());
    // Dropped after the runtime.
    let mut ending = RuntimeEnding::default();
    #[expect(clippy::expect_used, reason = "what #[tokio::main] does, word for word")]
    let runtime = prepare(builder).build().expect("Failed building the Runtime");
    let output = drive(&server, runtime.handle(), body, |body| runtime.block_on(body));
    ending.begin();
    output
}

/// Called by the expansion of `#[delouse::main]` for the flavor `local`.
#[doc(hidden)]
pub fn block_on_local<F: Future>(builder: &mut Builder, config: Config, body: F) -> F::Output {
    let body = Box::pin(body);
    let server = Lease(start(&config).ok());
    // Dropped after the runtime.
    let mut ending = RuntimeEnding::default();
    #[expect(clippy::expect_used, reason = "what #[tokio::main] does, word for word")]
    let runtime = prepare(builder).build_local(Default::default()).expect("Failed building the Runtime");
    let output = drive(&server, runtime.handle(), body, |body| runtime.block_on(body));
    ending.begin();
    output
}

/// Applies settings that help captures and cost nothing per poll: thread names that distinguish workers.
fn prepare(builder: &mut Builder) -> &mut Builder {
    let threads = AtomicUsize::new(0);
    builder
        .enable_all()
        .thread_name_fn(move || format!("tokio-rt-{}", threads.fetch_add(1, Ordering::Relaxed)))
}

/// Runs `body` after registering the address that it is pinned at: tokio has no list with the future of `block_on`. When
/// `body` returns or panics, it is unregistered before it is dropped.
///
/// It is allocated on the heap, as tokio does for large futures, so that this needs no more stack than `#[tokio::main]`.
fn drive<F: Future>(
    server: &Lease,
    handle: &Handle,
    body: Pin<Box<F>>,
    block_on: impl FnOnce(Pin<&mut F>) -> F::Output,
) -> F::Output {
    // After a panic, `body` is dropped inside its runtime, as in tokio's own `block_on`: values that it owns may spawn
    // tasks when they are dropped.
    let _inside = handle.enter();
    let mut body = body;
    let _registered = server.0.as_ref().map(|_| Registered::new(handle, body.as_ref().get_ref()));
    block_on(body.as_mut())
}

impl Config {
    /// Starts the debug server, and registers the given runtimes and the current one. With the feature `dump` alone, handles
    /// SIGQUIT instead.
    ///
    /// Does not panic, and blocks for at most a second. Failures are also printed to stderr. If a server is running already,
    /// adds the runtimes to that server.
    pub fn init(self) -> Started {
        init(&self)
    }
}
