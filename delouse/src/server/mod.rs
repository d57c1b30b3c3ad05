//! The HTTP server: access control, endpoints, and the server's thread.
//!
//! The server shares nothing with the program's runtimes. It has its own OS thread with a current-thread runtime, and its
//! own thread for log messages, so that it answers while all workers of the program are blocked.
//!
//! In the command `delouse serve`, the same server answers about another program. Everything but the inspector is shared;
//! `other_program.rs` has the answers of endpoints that have no meaning there.

mod access;
mod answer;
mod dropshot_log;
mod endpoints;
mod error;
mod format;
mod front;
mod gate;
mod json_stream;
mod last_look;
mod marks;
mod other_program;
mod page;
mod readers;
mod settings;
mod startup;
mod stream;

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use dropshot::{BuildError, ConfigDropshot, HandlerTaskMode, HttpServer, ServerBuilder};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::Config;
use crate::host;
use crate::host::{descriptor_reserve, heap};
use crate::inspector::Inspector;
use crate::inspector::foreign_inspector::ForeignInspector;
use crate::inspector::inspect::Inspect;
use crate::log::Log;
use crate::own_threads::spawn;
use crate::settings::Settings;
use crate::snapshot::OwnThread;
use crate::started::Started;
use crate::targets;
use crate::watch::Journal;
use settings::{ServerSettings, SettingsError};
use startup::Startup;

/// The state that all endpoints share.
pub(crate) struct Context {
    settings: ServerSettings,
    /// For captures.
    gate: gate::Gate,
    elf_gate: gate::Gate,
    openapi: Arc<serde_json::Value>,
    routes: front::Routes,
    log: Log,
    inspector: Arc<dyn Inspect>,
    /// For metrics.
    last_look: last_look::LastLook,
    /// For diagnoses of growth.
    marks: marks::Marks,
    /// What watching has found.
    journal: Arc<Journal>,
}

/// How long the program waits for the server to start and to stop.
const START: Duration = Duration::from_secs(1);
/// How long a command waits for it that only serves.
const START_ALONE: Duration = Duration::from_secs(30);
const STOP: Duration = Duration::from_millis(200);
/// How long the server waits for a port that is in use.
const PORT: Duration = Duration::from_millis(100);

/// Symbols, and types of another program, that are unused for this long are dropped.
const UNUSED: Duration = Duration::from_secs(60);

/// A running server. Dropping it stops the server.
pub(crate) struct Server<I = Inspector> {
    address: SocketAddr,
    inspector: Arc<I>,
    stop: Option<oneshot::Sender<()>>,
    stopped: Mutex<mpsc::Receiver<()>>,
}

/// Why the server does not run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    #[error(transparent)]
    Settings(#[from] SettingsError),
    #[error("no thread for the server: {0}")]
    NoThread(#[source] io::Error),
    #[error("no runtime for the server: {0}")]
    NoRuntime(#[source] io::Error),
    #[error("cannot listen on {0}: {1}. Set DELOUSE_BIND, or --bind of `delouse serve`, to another address")]
    Bind(SocketAddr, #[source] io::Error),
    #[error("cannot set up the server: {0}")]
    Build(String),
    #[error("the server did not start within {0:?}; the program runs without it")]
    Slow(Duration),
}

/// Starts the server, and waits until it listens, at most [`START`].
pub(crate) fn start(
    config: &Config,
    settings: Settings,
    journal: &Arc<Journal>,
) -> Result<Server, StartError> {
    start_within(config, settings, START, journal)
}

fn start_within(
    config: &Config,
    settings: Settings,
    patience: Duration,
    journal: &Arc<Journal>,
) -> Result<Server, StartError> {
    let settings = ServerSettings::resolve(config, settings)?;
    let limits = settings.limits;
    let inspector = move |own| {
        // Threads that the server starts inherit this.
        targets::yield_to_program();
        Arc::new(Inspector::new(limits, Some(own)))
    };
    start_with(settings, patience, Arc::clone(journal), inspector)
}

/// Starts a server that answers about another program. `bind` overrides the environment and the default.
pub(crate) fn start_for(
    inspector: ForeignInspector,
    bind: Option<&str>,
) -> Result<Server<ForeignInspector>, StartError> {
    let inspector = Arc::new(inspector);
    start_with(ServerSettings::of_command(bind)?, START_ALONE, Arc::default(), |_| inspector)
}

/// `inspector` is called on the server's thread, with the handle of the server's runtime.
fn start_with<I: Inspect + 'static>(
    settings: ServerSettings,
    patience: Duration,
    journal: Arc<Journal>,
    inspector: impl FnOnce(Handle) -> Arc<I> + Send + 'static,
) -> Result<Server<I>, StartError> {
    let startup = Arc::new(Startup::default());
    let shared = startup.clone();
    let (ready, started) = mpsc::sync_channel(1);
    let (stop, stop_requested) = oneshot::channel();
    let (done, stopped) = mpsc::sync_channel(1);
    let body = move || {
        serve(settings, journal, inspector, &shared, &ready, stop_requested);
        let _disconnected = done.send(());
    };
    let thread = OwnThread::Server.builder();
    targets::with_signals_blocked(|| thread.spawn(body)).map_err(StartError::NoThread)?;
    let listening = match started.recv_timeout(patience) {
        Err(mpsc::RecvTimeoutError::Timeout) if startup.give_up() => return Err(StartError::Slow(patience)),
        // The server began to listen at the last moment: its result follows.
        Err(mpsc::RecvTimeoutError::Timeout) => started.recv().ok(),
        other => other.ok(),
    };
    let panicked = || StartError::Build("its thread panicked".to_owned());
    let (address, inspector) = listening.ok_or_else(panicked)??;
    Ok(Server { address, inspector, stop: Some(stop), stopped: Mutex::new(stopped) })
}

impl<I> Server<I> {
    pub(crate) fn started(&self) -> Started {
        Started::Listening(self.address)
    }

    /// The inspector of its captures.
    pub(crate) fn inspector(&self) -> Arc<I> {
        self.inspector.clone()
    }
}

impl<I> Drop for Server<I> {
    /// Waits until the server has stopped, so that its port is free afterwards, but at most [`STOP`].
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _gone = stop.send(());
        }
        if let Ok(stopped) = self.stopped.get_mut() {
            let _late = stopped.recv_timeout(STOP);
        }
    }
}

/// The main function of the server's thread.
fn serve<I: Inspect + 'static>(
    settings: ServerSettings,
    journal: Arc<Journal>,
    inspector: impl FnOnce(Handle) -> Arc<I>,
    startup: &Startup,
    ready: &mpsc::SyncSender<Result<(SocketAddr, Arc<I>), StartError>>,
    stop: oneshot::Receiver<()>,
) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            let _gone = ready.send(Err(StartError::NoRuntime(error)));
            return;
        }
    };
    let inspector = inspector(runtime.handle().clone());
    let log = match Log::new() {
        Ok(log) => log,
        Err(error) => {
            let _gone = ready.send(Err(StartError::NoThread(error)));
            return;
        }
    };
    settings.ignored.iter().for_each(|line| log.say(line));
    runtime.block_on(async {
        let result =
            listen(settings, &journal, &(inspector.clone() as Arc<dyn Inspect>), startup, &log).await;
        match result {
            // The program has stopped waiting, and has no handle to stop the server: it must not run.
            Ok(None) => {}
            Ok(Some(server)) => {
                descriptor_reserve::open();
                if ready.send(Ok((server.local_addr(), inspector))).is_ok() {
                    tokio::select! {
                        _requested = stop => {}
                        () = drop_unused(&server.app_private().inspector) => {}
                    }
                }
            }
            Err(error) => drop(ready.send(Err(error))),
        }
    });
    // Does not wait for clients and captures, so that they do not delay the end of the program.
    runtime.shutdown_background();
    descriptor_reserve::close();
    // Otherwise the line with the address might be lost if the program ends at once.
    log.flush();
}

/// Frees symbols that no request has used for [`UNUSED`]: they take tens of megabytes. Runs on a separate thread, because
/// freeing them takes time, and because a request may lock them for seconds.
async fn drop_unused(inspector: &Arc<dyn Inspect>) {
    loop {
        tokio::time::sleep(UNUSED / 2).await;
        if inspector.is_unused(UNUSED) {
            let inspector = Arc::clone(inspector);
            // If no thread can be started, they are kept until the next check.
            let _no_thread = spawn(OwnThread::Free, move || inspector.drop_unused(UNUSED).release_freed());
        }
    }
}

/// Listens, and logs the address. `None` if the program has stopped waiting.
async fn listen(
    settings: ServerSettings,
    journal: &Arc<Journal>,
    inspector: &Arc<dyn Inspect>,
    startup: &Startup,
    log: &Log,
) -> Result<Option<HttpServer<Context>>, StartError> {
    let wanted = settings.bind;
    let mut server = build(settings.clone(), journal, inspector, wanted, log);
    if refusal(&server) == Some(io::ErrorKind::AddrInUse) && becomes_free(wanted).await {
        server = build(settings.clone(), journal, inspector, wanted, log);
    }
    let instead = match refusal(&server) {
        Some(io::ErrorKind::AddrInUse) => Some("is in use"),
        Some(io::ErrorKind::PermissionDenied) => Some("is not permitted for this user"),
        _ => None,
    };
    if instead.is_some() {
        server = build(settings, journal, inspector, SocketAddr::new(wanted.ip(), 0), log);
    }
    let server = server.map_err(|error| match error {
        BuildError::BindError { address, error } => StartError::Bind(address, error),
        other => StartError::Build(other.to_string()),
    })?;
    if !startup.listens() {
        return Ok(None);
    }
    if let Some(why) = instead {
        log.say(&format!("{wanted} {why}; using a free port instead"));
    }
    let address = server.local_addr();
    #[cfg(target_os = "linux")]
    host::listener::limit_connections(address, readers::STALLED, readers::SOCKET_BUFFER);
    let host = match address.ip() {
        ip if ip == Ipv4Addr::LOCALHOST => format!("localhost:{}", address.port()),
        _ => address.to_string(),
    };
    log.say(&format!("listening on http://{address} - try: curl '{host}/?format=text'"));
    Ok(Some(server))
}

/// Why the kernel refuses to bind the address.
fn refusal(server: &Result<HttpServer<Context>, BuildError>) -> Option<io::ErrorKind> {
    match server {
        Err(BuildError::BindError { error, .. }) => Some(error.kind()),
        _ => None,
    }
}

/// Waits for a port that is in use, at most [`PORT`]: a previous instance of the program may still be ending. Returns
/// whether the port is free now.
async fn becomes_free(address: SocketAddr) -> bool {
    let begun = Instant::now();
    while begun.elapsed() < PORT {
        tokio::time::sleep(PORT / 10).await;
        if TcpListener::bind(address).is_ok() {
            return true;
        }
    }
    false
}

fn build(
    settings: ServerSettings,
    journal: &Arc<Journal>,
    inspector: &Arc<dyn Inspect>,
    bind_address: SocketAddr,
    log: &Log,
) -> Result<HttpServer<Context>, BuildError> {
    let api = endpoints::api();
    let openapi = Arc::new(endpoints::openapi(&api, &inspector.inspected()));
    let logger = dropshot_log::logger(log, settings.log);
    let kept = inspector.clone();
    let release = move || {
        kept.release();
        heap::release_freed();
    };
    let (reader, stderr) = (inspector.clone(), log.clone());
    let is_silent = settings.log == slog::FilterLevel::Off;
    let slow = move || {
        if let Some(reading) = reader.reading().filter(|_| !is_silent) {
            stderr.say(&reading);
        }
    };
    let context = Context {
        gate: gate::Gate::new(release, slow),
        elf_gate: gate::Gate::default(),
        inspector: inspector.clone(),
        routes: front::routes(api, openapi.clone()),
        openapi,
        log: log.clone(),
        last_look: last_look::LastLook::default(),
        marks: marks::Marks::default(),
        journal: journal.clone(),
        settings,
    };
    let config = ConfigDropshot {
        bind_address,
        default_request_body_max_bytes: 1024,
        // A capture is finished even if its client disconnects.
        default_handler_task_mode: HandlerTaskMode::Detached,
        ..ConfigDropshot::default()
    };
    ServerBuilder::new(front::api(), context, logger).config(config).start()
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;
    use std::process::Command;

    use super::*;

    const NAME: &str = "server::tests::a_server_listens_or_is_said_not_to";

    /// Whether any of the server's threads exists.
    fn is_running() -> bool {
        let names = std::fs::read_dir("/proc/self/task").unwrap().flatten();
        let mut names = names.filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok());
        names.any(|name| [OwnThread::Server, OwnThread::Log].map(OwnThread::name).contains(&name.trim_end()))
    }

    /// Starts servers with short timeouts, and prints a line for each that listens.
    fn start_many() {
        let config = Config::new().bind("127.0.0.1:0");
        let mut longest = Duration::ZERO;
        for round in 0..40 {
            let settings = Settings::resolve(&config).unwrap();
            let begun = Instant::now();
            // From no timeout to the time that a start has taken.
            match start_within(&config, settings, longest * round / 30, &Arc::default()) {
                Ok(server) => {
                    longest = longest.max(begun.elapsed());
                    assert!(TcpStream::connect(server.address).is_ok());
                    println!("it listens");
                }
                Err(StartError::Slow(_)) => {}
                Err(other) => panic!("{other}"),
            }
            if round == 0 {
                longest = longest.max(Duration::from_millis(1));
                drop(
                    start_within(&config, Settings::resolve(&config).unwrap(), START, &Arc::default())
                        .map(|_| println!("it listens")),
                );
                longest = longest.max(begun.elapsed());
            }
        }
        while is_running() {
            std::thread::yield_now();
        }
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_server_listens_or_is_said_not_to() {
        const MARK: &str = "DELOUSE_TEST_STARTS";
        if std::env::var_os(MARK).is_some() {
            return start_many();
        }
        let mut again = Command::new(std::env::current_exe().unwrap());
        let output = again.args([NAME, "--exact", "--nocapture"]).env(MARK, "1").output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (said, logged) = (text(&output.stdout), text(&output.stderr));
        assert!(output.status.success() && said.contains("1 passed"), "{said}{logged}");
        let count = |text: &str, part: &str| text.matches(part).count();
        assert_eq!(count(&logged, "listening on http://"), count(&said, "it listens"), "{said}{logged}");
    }
}
