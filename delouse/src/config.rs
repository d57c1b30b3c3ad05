//! Settings in code, which the environment overrides: see [`Config`].

use std::path::PathBuf;
#[cfg(feature = "dump")]
use std::sync::Arc;
use std::time::Duration;

#[cfg(feature = "dump")]
use crate::finding_event::Callback;
use crate::finding_event::FindingEvent;
use crate::started::Started;

/// Settings of the debug server and of dumps.
///
/// For programs that build their own runtime; `#[delouse::main]` creates a `Config` itself. With the features `dump` and
/// `debug` off, it is empty and [`init`](Config::init) does nothing, so that user code needs no `cfg`. With `dump` alone,
/// settings of the server are ignored.
///
/// The environment overrides the code, which overrides the default:
///
/// | variable | meaning | default |
/// | --- | --- | --- |
/// | `DELOUSE` | `off`: no server, no thread, no registration | on |
/// | `DELOUSE_BIND` | address to listen on: `127.0.0.1:7132`, `[::1]:7132`, `localhost:7132`, or a port alone | `127.0.0.1:7132` |
/// | `DELOUSE_TOKEN` | clients must send `Authorization: Bearer …`; needed for any address that is not loopback | none |
/// | `DELOUSE_PAUSE_BUDGET_MS` | the longest that the program may be stopped for a capture, in milliseconds | 50 |
/// | `DELOUSE_SIGQUIT` | `off`: SIGQUIT (Ctrl-\\) ends the program at once; otherwise the first prints a [`dump`](crate::dump()) | on |
/// | `DELOUSE_SIGTERM` | `off`: SIGTERM is not counted; otherwise the second one prints what keeps the program from ending | on |
/// | `DELOUSE_SHUTDOWN_REPORT` | prints the same when the end of the program takes longer than this: `10s` | off |
/// | `DELOUSE_PANIC` | `on`: a panic in a task also prints the task: where it was spawned, its async stack, and the stack of its thread | off |
/// | `DELOUSE_WATCH` | looks for findings this often, `30s`, `500ms`, `2m`, and prints each once to stderr; `off` | off |
/// | `DELOUSE_WATCH_DIR` | a directory to which each new finding is written, as text and as JSON | none |
/// | `DELOUSE_LOG` | messages printed to stderr: `off`, `error`, `warning`, `info`, `debug` | `warning` |
///
/// ```
/// let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
/// let started = delouse::Config::new().bind("127.0.0.1:0").runtime(runtime.handle()).init();
/// if let Some(address) = started.address() {
///     println!("curl {address}/stacktrace/tokio");
/// }
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct Config {
    #[cfg(feature = "debug")]
    pub(crate) bind: Option<String>,
    #[cfg(feature = "debug")]
    pub(crate) token: Option<String>,
    #[cfg(feature = "dump")]
    pub(crate) sigquit: Option<bool>,
    #[cfg(feature = "dump")]
    pub(crate) runtimes: Vec<tokio::runtime::Handle>,
    #[cfg(feature = "dump")]
    pub(crate) watch: Option<Duration>,
    #[cfg(feature = "dump")]
    pub(crate) watch_dir: Option<PathBuf>,
    #[cfg(feature = "dump")]
    pub(crate) shutdown_report: Option<Duration>,
    #[cfg(feature = "dump")]
    pub(crate) callbacks: Vec<Callback>,
}

#[cfg_attr(
    not(feature = "debug"),
    expect(unused_variables, unused_mut, reason = "not kept without the feature")
)]
impl Config {
    /// The defaults: loopback, port 7132, no token.
    pub fn new() -> Self {
        Self::default()
    }

    /// The address to listen on, in one of the forms of `DELOUSE_BIND`. If the port is in use, a free port is used and
    /// printed. Port 0 means any free port.
    pub fn bind(mut self, address: impl Into<String>) -> Self {
        #[cfg(feature = "debug")]
        {
            self.bind = Some(address.into());
        }
        self
    }

    /// The token that clients must send as `Authorization: Bearer …`. Without a token, the server only listens on loopback
    /// addresses.
    pub fn token(mut self, token: impl Into<String>) -> Self {
        #[cfg(feature = "debug")]
        {
            self.token = Some(token.into());
        }
        self
    }

    /// Whether SIGQUIT (Ctrl-\ at the terminal, `kill -QUIT`) prints a [`dump`](crate::dump()) to stderr; true by default.
    /// A second SIGQUIT within two seconds ends the program, as by default. If the program handles or ignores the signal
    /// itself, before or after this, delouse does not handle it.
    pub fn sigquit(mut self, dumps: bool) -> Self {
        #[cfg(feature = "dump")]
        {
            self.sigquit = Some(dumps);
        }
        self
    }

    /// Adds a runtime whose tasks are listed. Can be called several times; [`register`](crate::register) does the same for
    /// runtimes that are built later.
    pub fn runtime(mut self, handle: &tokio::runtime::Handle) -> Self {
        #[cfg(feature = "dump")]
        {
            self.runtimes.push(handle.clone());
        }
        self
    }

    /// Looks for findings this often, one second at least; off by default.
    ///
    /// A finding that two looks in succession have seen is printed to stderr, once, in one block; again only when it
    /// becomes certain, is about twice as many tasks, or is gone. `/history` has the last of them. A look stops the program
    /// no longer than the pause budget allows. Looks take at most half of the time, otherwise there are fewer; while
    /// memory is short, there are none. `/metrics` and `/history` say what they cost.
    pub fn watch(mut self, interval: Duration) -> Self {
        #[cfg(feature = "dump")]
        {
            self.watch = Some(interval);
        }
        self
    }

    /// Prints what keeps the program from ending to stderr, once, when its end takes longer than this: from the first
    /// SIGTERM, or from the return of the main future of `#[delouse::main]`. Off by default. A second SIGTERM prints it in any
    /// case.
    ///
    /// SIGTERM is left to the program: delouse's handler is installed at start where the program has none, and those of
    /// tokio and signal-hook, which are installed later, call it; until there is one, SIGTERM ends the program at once, as
    /// by default. A program that installs its handler before delouse starts, or one that calls no other handler, is not
    /// disturbed, and its SIGTERMs are not seen.
    pub fn shutdown_report(mut self, after: Duration) -> Self {
        #[cfg(feature = "dump")]
        {
            self.shutdown_report = Some(after);
        }
        self
    }

    /// With [`watch`](Self::watch), writes each new finding to this directory before it is printed: as text and as JSON,
    /// each file whole or not there. Of all programs that share the directory, the last 64 reports are kept, each file of
    /// at most 1 MiB.
    pub fn watch_dir(mut self, directory: impl Into<PathBuf>) -> Self {
        #[cfg(feature = "dump")]
        {
            self.watch_dir = Some(directory.into());
        }
        self
    }

    /// With [`watch`](Self::watch), calls this function for each finding that is new, has changed, or is gone: for
    /// `tracing`, or a pager. It runs on delouse's thread, outside of all runtimes; the next look waits for it. If it
    /// panics, the watch continues.
    pub fn on_finding(mut self, callback: impl Fn(&FindingEvent) + Send + Sync + 'static) -> Self {
        #[cfg(feature = "dump")]
        {
            self.callbacks.push(Callback(Arc::new(callback)));
        }
        self
    }
}

/// [`Config::init`] with the defaults.
pub fn init() -> Started {
    Config::new().init()
}
