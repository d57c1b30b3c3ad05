//! What the user can choose, in code. The environment has the last word: see [`Config`].

/// What the debug server needs to know before it starts.
///
/// For programs that build their own runtime; `#[delouse::main]` makes one of these by itself. With the
/// feature `debug` off it holds nothing and [`init`](Config::init) does nothing, so that user code needs
/// no `cfg`.
///
/// The environment overrides what code says, which overrides the default:
///
/// | variable | meaning | default |
/// | --- | --- | --- |
/// | `DELOUSE` | `off`: no server, no thread, no registration | on |
/// | `DELOUSE_BIND` | address to listen on: `127.0.0.1:7132`, `[::1]:7132`, `localhost:7132`, or a port alone | `127.0.0.1:7132` |
/// | `DELOUSE_TOKEN` | clients must send `Authorization: Bearer …`; needed for any address that is not loopback | none |
/// | `DELOUSE_PAUSE_BUDGET_MS` | the longest that the program may be stopped for a capture, in milliseconds | 50 |
/// | `DELOUSE_SIGQUIT` | `off`: SIGQUIT (Ctrl-\\) ends the program at once; else the first prints a [`dump`](crate::dump()) | on |
/// | `DELOUSE_LOG` | what reaches stderr: `off`, `error`, `warning`, `info`, `debug` | `warning` |
///
/// ```
/// let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
/// let address = delouse::Config::new().bind("127.0.0.1:0").runtime(runtime.handle()).init();
/// if let Some(address) = address {
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
    #[cfg(feature = "debug")]
    pub(crate) sigquit: Option<bool>,
    #[cfg(feature = "debug")]
    pub(crate) runtimes: Vec<tokio::runtime::Handle>,
}

#[cfg_attr(not(feature = "debug"), expect(unused_variables, unused_mut, reason = "nothing is kept"))]
impl Config {
    /// The defaults: loopback, port 7132, no token.
    pub fn new() -> Self {
        Self::default()
    }

    /// The address to listen on, in one of the forms of `DELOUSE_BIND`. A port that is taken is no
    /// failure: a free one is used and printed. Port 0 asks for any free one.
    pub fn bind(mut self, address: impl Into<String>) -> Self {
        #[cfg(feature = "debug")]
        {
            self.bind = Some(address.into());
        }
        self
    }

    /// The token that clients must present as `Authorization: Bearer …`. Without one, the server refuses
    /// to listen on any address but loopback.
    pub fn token(mut self, token: impl Into<String>) -> Self {
        #[cfg(feature = "debug")]
        {
            self.token = Some(token.into());
        }
        self
    }

    /// Whether SIGQUIT (Ctrl-\ at the terminal, `kill -QUIT`) prints a [`dump`](crate::dump()) to stderr,
    /// which it does unless told otherwise. A second one within two seconds ends the program, as SIGQUIT
    /// always did. A program that handles or ignores the signal itself, whenever it says so, is left alone.
    pub fn sigquit(mut self, dumps: bool) -> Self {
        #[cfg(feature = "debug")]
        {
            self.sigquit = Some(dumps);
        }
        self
    }

    /// A runtime whose tasks are to be shown. Can be given several times; [`register`](crate::register)
    /// does the same for runtimes that are built later.
    pub fn runtime(mut self, handle: &tokio::runtime::Handle) -> Self {
        #[cfg(feature = "debug")]
        {
            self.runtimes.push(handle.clone());
        }
        self
    }

    /// Starts the debug server, registers the runtimes given, and the one that this is called in.
    ///
    /// Returns the address that it listens on, or `None` where it does not: the feature is off,
    /// `DELOUSE=off`, or something went wrong, which is then told on stderr. Never panics, never blocks
    /// for more than a second. Where a server runs already, the runtimes are added to that one.
    pub fn init(self) -> Option<std::net::SocketAddr> {
        #[cfg(feature = "debug")]
        return crate::runtime::init(self);
        #[cfg(not(feature = "debug"))]
        None
    }
}
