//! HTTP: the endpoints, who may ask, and the thread that all of it lives on.
//!
//! The server shares nothing with the program's runtimes: an OS thread of its own, a current-thread
//! runtime of its own, a log thread of its own. It answers while every worker of the program is blocked.

mod access;
mod answer;
mod endpoints;
mod error;
mod front;
mod gate;
pub(crate) mod log;
mod looks;
mod pieces;
mod readers;
mod startup;
mod stream;
mod thread;

pub(crate) use gate::room;
pub(crate) use thread::spawn;

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};
use std::{fmt, io};

use dropshot::{BuildError, ConfigDropshot, HandlerTaskMode, HttpServer, ServerBuilder};
use tokio::net::unix::pipe::Receiver;
use tokio::sync::oneshot;

use crate::debuginfo::symbols::Symbols;
use crate::dump::{self, Sources};
use crate::settings::Settings;
use crate::snapshot::{self, Quits, heap};
use crate::tasks::engine::Engines;
use startup::Startup;

/// What every endpoint works with.
pub(crate) struct Context {
    settings: Settings,
    /// Of captures.
    gate: gate::Gate,
    elf_gate: gate::Gate,
    engines: Arc<Engines>,
    openapi: Arc<serde_json::Value>,
    routes: front::Routes,
    log: log::Log,
    symbols: Arc<Symbols>,
    /// For diagnoses of what has grown.
    marks: looks::Marks,
    /// The runtime that all of this runs on: no answer lists its tasks.
    runtime: tokio::runtime::Handle,
}

impl Context {
    fn sources(&self) -> Sources {
        let (engines, symbols) = (self.engines.clone(), self.symbols.clone());
        Sources { engines, symbols, own: Some(self.runtime.clone()) }
    }
}

/// How long the program waits for the server, to come and to go.
const START: Duration = Duration::from_secs(1);
const STOP: Duration = Duration::from_millis(200);
/// How long a port that is taken is waited for.
const PORT: Duration = Duration::from_millis(100);

/// How long symbols are kept for the next request.
const SYMBOLS_UNUSED: Duration = Duration::from_secs(60);

/// A server that runs; dropped, it stops.
pub(crate) struct Server {
    address: SocketAddr,
    sources: Sources,
    stop: Option<oneshot::Sender<()>>,
    stopped: Mutex<mpsc::Receiver<()>>,
}

/// Why the server does not run.
#[derive(Debug)]
pub(crate) enum StartError {
    NoThread(io::Error),
    NoRuntime(io::Error),
    Bind(SocketAddr, io::Error),
    Build(String),
    Slow,
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoThread(error) => write!(f, "no thread for the server: {error}"),
            Self::NoRuntime(error) => write!(f, "no runtime for the server: {error}"),
            Self::Bind(address, error) => {
                write!(f, "cannot listen on {address}: {error}. Set DELOUSE_BIND to another address")
            }
            Self::Build(error) => write!(f, "cannot set up the server: {error}"),
            Self::Slow => write!(f, "the server did not start within {START:?}; the program goes on without"),
        }
    }
}

/// Starts the server and waits until it listens, for a second at most.
pub(crate) fn start(settings: Settings) -> Result<Server, StartError> {
    start_within(settings, START)
}

fn start_within(settings: Settings, patience: Duration) -> Result<Server, StartError> {
    let startup = Arc::new(Startup::default());
    let theirs = startup.clone();
    let (ready, started) = mpsc::sync_channel(1);
    let (stop, stop_asked) = oneshot::channel();
    let (done, stopped) = mpsc::sync_channel(1);
    let body = move || {
        // What it starts does, too.
        snapshot::give_way();
        serve(settings, &theirs, &ready, stop_asked);
        let _nobody_waits = done.send(());
    };
    let thread = std::thread::Builder::new().name("delouse-server".to_owned());
    snapshot::shielded(|| thread.spawn(body)).map_err(StartError::NoThread)?;
    let listening = match started.recv_timeout(patience) {
        Err(mpsc::RecvTimeoutError::Timeout) if startup.give_up() => return Err(StartError::Slow),
        // It has begun to listen at the last moment.
        Err(mpsc::RecvTimeoutError::Timeout) => started.recv().ok(),
        other => other.ok(),
    };
    let panicked = || StartError::Build("its thread panicked".to_owned());
    let (address, sources) = listening.ok_or_else(panicked)??;
    Ok(Server { address, sources, stop: Some(stop), stopped: Mutex::new(stopped) })
}

impl Server {
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it reads by.
    pub(crate) fn sources(&self) -> &Sources {
        &self.sources
    }
}

impl Drop for Server {
    /// So that the port is free again when `main`'s body has ended; but never longer than `STOP`.
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _gone = stop.send(());
        }
        if let Ok(stopped) = self.stopped.get_mut() {
            let _late = stopped.recv_timeout(STOP);
        }
    }
}

/// The server thread's body.
fn serve(
    settings: Settings,
    startup: &Startup,
    ready: &mpsc::SyncSender<Result<(SocketAddr, Sources), StartError>>,
    stop: oneshot::Receiver<()>,
) {
    let log = match log::Log::new(settings.log) {
        Ok(log) => log,
        Err(error) => {
            let _gone = ready.send(Err(StartError::NoThread(error)));
            return;
        }
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            let _gone = ready.send(Err(StartError::NoRuntime(error)));
            return;
        }
    };
    settings.ignored.iter().for_each(|line| log.say(line));
    runtime.block_on(async {
        let sigquit = settings.sigquit;
        let result = listen(settings, startup, &log).await;
        match result {
            // Nobody waits any more: then nobody could stop it either.
            Ok(None) => {}
            Ok(Some(server)) => {
                let sources = server.app_private().sources();
                let quits = if sigquit { snapshot::quits() } else { None };
                if ready.send(Ok((server.local_addr(), sources.clone()))).is_ok() {
                    tokio::select! {
                        _asked = stop => {}
                        () = give_memory_back(&server) => {}
                        () = dump_at_quit(quits, &sources, &log) => {}
                    }
                }
            }
            Err(error) => drop(ready.send(Err(error))),
        }
    });
    // Neither clients nor captures that still run keep the program from ending.
    runtime.shutdown_background();
    // A program that ends at once has said where it listened.
    log.flush();
}

/// Frees symbols that no request has used lately: they take tens of megabytes. On a thread of its own, as freeing them
/// takes a while, and as a request may hold them for seconds.
async fn give_memory_back(server: &HttpServer<Context>) {
    loop {
        tokio::time::sleep(SYMBOLS_UNUSED / 2).await;
        let symbols = &server.app_private().symbols;
        if symbols.is_unused(SYMBOLS_UNUSED) {
            let symbols = Arc::clone(symbols);
            // Without a thread they are kept until the next time.
            let _no_thread = spawn("delouse-free", move || symbols.trim(SYMBOLS_UNUSED).give_back());
        }
    }
}

/// Prints a dump for each SIGQUIT.
async fn dump_at_quit(quits: Option<Quits>, sources: &Sources, log: &log::Log) {
    let reader = quits.as_ref().and_then(|quits| Receiver::from_owned_fd(quits.reader().ok()?).ok());
    if let Some(quits) = reader {
        while quits.readable().await.is_ok() {
            if quits.try_read(&mut [0; 64]).is_ok_and(|read| read > 0) {
                let failed = |error| format!("no dump at SIGQUIT: {error}");
                let voice = log.clone();
                let done = move |result: Result<(), _>| {
                    let _written = result.map_err(|error| voice.say(&failed(error)));
                };
                if let Err(error) = dump::start(sources.clone(), done) {
                    log.say(&failed(error));
                }
            }
        }
    }
    std::future::pending().await
}

/// Listens, and says where. `None` where that took too long.
async fn listen(
    settings: Settings,
    startup: &Startup,
    log: &log::Log,
) -> Result<Option<HttpServer<Context>>, StartError> {
    let wanted = settings.bind;
    let mut server = build(settings.clone(), wanted, log);
    if refusal(&server) == Some(io::ErrorKind::AddrInUse) && becomes_free(wanted).await {
        server = build(settings.clone(), wanted, log);
    }
    let instead = match refusal(&server) {
        Some(io::ErrorKind::AddrInUse) => Some("is taken"),
        Some(io::ErrorKind::PermissionDenied) => Some("is not allowed to this user"),
        _ => None,
    };
    if instead.is_some() {
        server = build(settings, SocketAddr::new(wanted.ip(), 0), log);
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
    snapshot::listener::limit_connections(address, readers::STALLED, readers::SOCKET_BUFFER);
    let host = match address.ip() {
        ip if ip == Ipv4Addr::LOCALHOST => format!("localhost:{}", address.port()),
        _ => address.to_string(),
    };
    log.say(&format!("listening on http://{address} - try: curl '{host}/?format=text'"));
    Ok(Some(server))
}

/// Why the kernel does not give us an address.
fn refusal(server: &Result<HttpServer<Context>, BuildError>) -> Option<io::ErrorKind> {
    match server {
        Err(BuildError::BindError { error, .. }) => Some(error.kind()),
        _ => None,
    }
}

/// Waits a moment for a port that is taken, as a program that was killed to be started again may still be ending.
/// Returns whether the port is free now.
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
    settings: Settings,
    bind_address: SocketAddr,
    log: &log::Log,
) -> Result<HttpServer<Context>, BuildError> {
    let api = endpoints::api();
    let openapi = Arc::new(endpoints::openapi(&api));
    let (engines, symbols) = (Arc::new(Engines::new(settings.limits)), Arc::new(Symbols::new()));
    let kept = (engines.clone(), symbols.clone());
    let release = move || {
        let (engines, symbols) = &kept;
        engines.release();
        symbols.trim(Duration::ZERO);
        heap::give_back();
    };
    let context = Context {
        gate: gate::Gate::new(release),
        elf_gate: gate::Gate::default(),
        engines,
        routes: front::routes(api, openapi.clone()),
        openapi,
        log: log.clone(),
        symbols,
        marks: looks::Marks::default(),
        runtime: tokio::runtime::Handle::current(),
        settings,
    };
    let config = ConfigDropshot {
        bind_address,
        default_request_body_max_bytes: 1024,
        // A capture that was begun is finished, whoever has gone away meanwhile.
        default_handler_task_mode: HandlerTaskMode::Detached,
        ..ConfigDropshot::default()
    };
    ServerBuilder::new(front::api(), context, log.dropshot().clone()).config(config).start()
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;
    use std::process::Command;

    use super::*;

    const NAME: &str = "server::tests::a_server_listens_or_is_said_not_to";

    /// Whether any of the server's threads is there.
    fn is_there() -> bool {
        let names = std::fs::read_dir("/proc/self/task").unwrap().flatten();
        let mut names = names.filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok());
        names.any(|name| ["delouse-server", "delouse-log"].contains(&name.trim_end()))
    }

    /// Starts servers for which nobody waits long, and says what came of each.
    fn start_many() {
        let config = crate::Config::new().bind("127.0.0.1:0");
        let mut longest = Duration::ZERO;
        for round in 0..40 {
            let settings = Settings::resolve(&config).unwrap();
            let begun = Instant::now();
            // From no patience at all to as much as a start has taken.
            match start_within(settings, longest * round / 30) {
                Ok(server) => {
                    longest = longest.max(begun.elapsed());
                    assert!(TcpStream::connect(server.address()).is_ok());
                    println!("it listens");
                }
                Err(StartError::Slow) => {}
                Err(other) => panic!("{other}"),
            }
            if round == 0 {
                longest = longest.max(Duration::from_millis(1));
                drop(
                    start_within(Settings::resolve(&config).unwrap(), START).map(|_| println!("it listens")),
                );
                longest = longest.max(begun.elapsed());
            }
        }
        while is_there() {
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
