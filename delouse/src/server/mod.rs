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
mod stream;
mod thread;

pub(crate) use gate::room;
pub(crate) use thread::spawn;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;
use std::{fmt, io};

use dropshot::{BuildError, ConfigDropshot, HandlerTaskMode, HttpServer, ServerBuilder};
use tokio::net::unix::pipe::Receiver;
use tokio::sync::oneshot;

use crate::debuginfo::symbols::Symbols;
use crate::dump::{self, Sources};
use crate::settings::Settings;
use crate::snapshot::{self, Quits};
use crate::tasks::engine::Engines;

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
    let (ready, started) = mpsc::sync_channel(1);
    let (stop, stop_asked) = oneshot::channel();
    let (done, stopped) = mpsc::sync_channel(1);
    let body = move || {
        // What it starts does, too.
        snapshot::give_way();
        serve(settings, &ready, stop_asked);
        let _nobody_waits = done.send(());
    };
    let thread = std::thread::Builder::new().name("delouse-server".to_owned());
    snapshot::shielded(|| thread.spawn(body)).map_err(StartError::NoThread)?;
    let (address, sources) = match started.recv_timeout(START) {
        Ok(listening) => listening?,
        Err(mpsc::RecvTimeoutError::Timeout) => return Err(StartError::Slow),
        Err(mpsc::RecvTimeoutError::Disconnected) => {
            return Err(StartError::Build("its thread panicked".to_owned()));
        }
    };
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
        let result = listen(settings, &log).await;
        match result {
            Ok(server) => {
                let sources = server.app_private().sources();
                let quits = if sigquit { snapshot::quits() } else { None };
                // Nobody waits for us if we were too slow: then nobody could stop us either.
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

/// Forgets symbols that nobody has asked for lately: they take tens of megabytes.
async fn give_memory_back(server: &HttpServer<Context>) {
    loop {
        tokio::time::sleep(SYMBOLS_UNUSED / 2).await;
        server.app_private().symbols.trim(SYMBOLS_UNUSED);
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

async fn listen(settings: Settings, log: &log::Log) -> Result<HttpServer<Context>, StartError> {
    let wanted = settings.bind;
    let server = match build(settings.clone(), wanted, log) {
        Err(BuildError::BindError { error, .. })
            if matches!(error.kind(), io::ErrorKind::AddrInUse | io::ErrorKind::PermissionDenied) =>
        {
            let why = match error.kind() {
                io::ErrorKind::AddrInUse => "is taken",
                _ => "is not allowed to this user",
            };
            let server = build(settings, SocketAddr::new(wanted.ip(), 0), log);
            if server.is_ok() {
                log.say(&format!("{wanted} {why}; using a free port instead"));
            }
            server
        }
        other => other,
    };
    let server = server.map_err(|error| match error {
        BuildError::BindError { address, error } => StartError::Bind(address, error),
        other => StartError::Build(other.to_string()),
    })?;
    let address = server.local_addr();
    let host = match address.ip() {
        ip if ip == Ipv4Addr::LOCALHOST => format!("localhost:{}", address.port()),
        _ => address.to_string(),
    };
    log.say(&format!("listening on http://{address} - try: curl '{host}/?format=text'"));
    Ok(server)
}

fn build(
    settings: Settings,
    bind_address: SocketAddr,
    log: &log::Log,
) -> Result<HttpServer<Context>, BuildError> {
    let api = endpoints::api();
    let openapi = Arc::new(endpoints::openapi(&api));
    let context = Context {
        gate: gate::Gate::default(),
        elf_gate: gate::Gate::default(),
        engines: Arc::new(Engines::new(settings.limits)),
        routes: front::routes(api, openapi.clone()),
        openapi,
        log: log.clone(),
        symbols: Arc::new(Symbols::new()),
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
