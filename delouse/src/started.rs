//! The result of starting the debug server. Compiled in every build, so that user code needs no `cfg`.

use std::fmt;
use std::net::SocketAddr;

/// The result of [`Config::init`](crate::Config::init).
///
/// It can be ignored: failures are also printed to stderr.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Started {
    /// A server listens at this address. It may have been started before.
    Listening(SocketAddr),
    /// There is no server in this build, which has the feature `dump` without `debug`. SIGQUIT and [`dump`](crate::dump())
    /// print the tasks and threads.
    WithoutServer,
    /// Nothing was started: the features are off, or the environment has `DELOUSE=off`.
    Off,
    /// The server could not be started, for this reason. The program runs without it.
    Failed(String),
}

impl Started {
    /// The address of the server; `None` if there is none.
    pub fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::Listening(address) => Some(*address),
            Self::WithoutServer | Self::Off | Self::Failed(_) => None,
        }
    }
}

impl fmt::Display for Started {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listening(address) => write!(f, "listening on http://{address}"),
            Self::WithoutServer => f.write_str("without a server, which needs the feature `debug`"),
            Self::Off => f.write_str("off"),
            Self::Failed(why) => write!(f, "not started: {why}"),
        }
    }
}
