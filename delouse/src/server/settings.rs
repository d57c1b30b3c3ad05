//! The settings of the server.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use slog::FilterLevel;

use crate::Config;
use crate::settings::{Settings, WatchSettings, valid, variable};
use crate::targets::Limits;

const DEFAULT_PORT: u16 = 7132;

/// A variable, and a description of its values.
const LOG: (&str, &str) = ("DELOUSE_LOG", "off, error, warning, info or debug");

/// Where the server listens, which clients it answers, and what it logs.
#[derive(Debug, Clone)]
pub(crate) struct ServerSettings {
    pub(super) bind: SocketAddr,
    pub(super) token: Option<String>,
    /// Which of dropshot's messages are printed, from the level on.
    pub(super) log: FilterLevel,
    pub(super) limits: Limits,
    /// Messages about invalid values, which are ignored.
    pub(super) ignored: Vec<String>,
}

/// Why the server is not started.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SettingsError {
    /// The value is not an address.
    #[error("{setting} is `{value}`, which is not an address: write 127.0.0.1:{DEFAULT_PORT}")]
    BadBind { setting: &'static str, value: String },
    /// The server would be open to the network without a token.
    #[error(
        "{0} is open to the network and there is no token: set DELOUSE_TOKEN, or bind to 127.0.0.1:{port}",
        port = .0.port()
    )]
    OpenToNetwork(SocketAddr),
    /// The token cannot be sent in a header.
    #[error("the token must be printable ASCII without spaces, and not empty")]
    BadToken,
}

impl ServerSettings {
    /// The settings of this process, with those that are not only of the server.
    pub(super) fn resolve(config: &Config, settings: Settings) -> Result<Self, SettingsError> {
        Self::resolve_with(config, settings, variable)
    }

    /// The settings of a command that only serves. `bind` overrides the environment.
    pub(super) fn of_command(bind: Option<&str>) -> Result<Self, SettingsError> {
        let config = bind.map_or_else(Config::new, |bind| Config::new().bind(bind));
        let settings = Settings {
            sigquit: false,
            sigterm: false,
            panic: false,
            shutdown: None,
            limits: Limits::default(),
            watch: WatchSettings::default(),
            ignored: Vec::new(),
        };
        let is_overridden = |name: &str| name == "DELOUSE_BIND" && bind.is_some();
        Self::resolve_with(&config, settings, |name| variable(name).filter(|_| !is_overridden(name)))
    }

    fn resolve_with(
        config: &Config,
        Settings { limits, mut ignored, .. }: Settings,
        environment: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, SettingsError> {
        let bind = match (environment("DELOUSE_BIND"), &config.bind) {
            (Some(value), _) => parse_bind("DELOUSE_BIND", &value)?,
            (None, Some(value)) => parse_bind("the bind address", value)?,
            (None, None) => SocketAddr::from((Ipv4Addr::LOCALHOST, DEFAULT_PORT)),
        };
        let token = environment("DELOUSE_TOKEN").or_else(|| config.token.clone());
        if token.as_ref().is_some_and(|t| t.is_empty() || !t.bytes().all(|b| b.is_ascii_graphic())) {
            return Err(SettingsError::BadToken);
        }
        if token.is_none() && !bind.ip().is_loopback() {
            return Err(SettingsError::OpenToNetwork(bind));
        }
        let log = valid(&environment, LOG, level, &mut ignored).unwrap_or(FilterLevel::Warning);
        Ok(Self { bind, token, log, limits, ignored })
    }
}

fn level(name: &str) -> Option<FilterLevel> {
    Some(match name {
        "off" | "none" => FilterLevel::Off,
        "error" => FilterLevel::Error,
        "warning" | "warn" => FilterLevel::Warning,
        "info" => FilterLevel::Info,
        "debug" => FilterLevel::Debug,
        _ => return None,
    })
}

/// Parses an address. Does not resolve names, except `localhost`.
fn parse_bind(setting: &'static str, value: &str) -> Result<SocketAddr, SettingsError> {
    let text = value.trim();
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) => (host, port),
        None => ("localhost", text),
    };
    let bad = || SettingsError::BadBind { setting, value: value.to_owned() };
    let port: u16 = port.parse().map_err(|_| bad())?;
    let ip: IpAddr = match host.to_ascii_lowercase().as_str() {
        "localhost" => Ipv4Addr::LOCALHOST.into(),
        host => host
            .strip_prefix('[')
            .and_then(|h| h.strip_suffix(']'))
            .map_or_else(|| host.parse::<Ipv4Addr>().map(IpAddr::from), |h| h.parse::<IpAddr>())
            .map_err(|_| bad())?,
    };
    Ok(SocketAddr::from((ip, port)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(config: Config, environment: &[(&str, &str)]) -> Result<ServerSettings, SettingsError> {
        let common = Settings {
            sigquit: true,
            sigterm: true,
            panic: false,
            shutdown: None,
            limits: Limits::default(),
            watch: WatchSettings::default(),
            ignored: Vec::new(),
        };
        ServerSettings::resolve_with(&config, common, |name| {
            environment.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned())
        })
    }

    #[test]
    fn the_environment_overrides_the_code_and_the_defaults() {
        let default = resolve(Config::new(), &[]).unwrap();
        assert_eq!(default.bind.to_string(), "127.0.0.1:7132");
        assert_eq!(default.token, None);
        let code = resolve(Config::new().bind("127.0.0.1:1").token("t"), &[]).unwrap();
        assert_eq!((code.bind.port(), code.token.as_deref()), (1, Some("t")));
        let both = resolve(
            Config::new().bind("127.0.0.1:1").token("t"),
            &[("DELOUSE_BIND", "[::1]:2"), ("DELOUSE_TOKEN", "u")],
        );
        let both = both.unwrap();
        assert_eq!((both.bind.to_string().as_str(), both.token.as_deref()), ("[::1]:2", Some("u")));
    }

    #[test]
    fn every_form_of_an_address() {
        for (form, meant) in [
            ("7133", "127.0.0.1:7133"),
            ("localhost:7133", "127.0.0.1:7133"),
            ("LOCALHOST:1", "127.0.0.1:1"),
            ("127.0.0.2:9", "127.0.0.2:9"),
            ("[::1]:7133", "[::1]:7133"),
            (" 0 ", "127.0.0.1:0"),
        ] {
            assert_eq!(parse_bind("x", form).unwrap().to_string(), meant, "{form}");
        }
        for form in ["", "nonsense", "host:1", "127.0.0.1", "127.0.0.1:99999", "::1:7132:x", "[::1]"] {
            let error = resolve(Config::new(), &[("DELOUSE_BIND", form)]).unwrap_err().to_string();
            assert!(
                error.contains(&format!("`{form}`")) && error.contains("write 127.0.0.1:7132"),
                "{error}"
            );
        }
    }

    #[test]
    fn the_network_needs_a_token() {
        let error = resolve(Config::new().bind("0.0.0.0:7132"), &[]).unwrap_err();
        assert_eq!(error, SettingsError::OpenToNetwork("0.0.0.0:7132".parse().unwrap()));
        assert!(error.to_string().contains("set DELOUSE_TOKEN"));
        assert!(resolve(Config::new().bind("0.0.0.0:7132").token("secret"), &[]).is_ok());
        for bad in ["", "two words", "tab\t", "ünïcode", "not \u{fffd} text"] {
            assert_eq!(resolve(Config::new().token(bad), &[]).unwrap_err(), SettingsError::BadToken);
        }
    }

    #[test]
    fn an_invalid_log_level_is_reported() {
        for (value, level, count) in [
            ("-7 or so", FilterLevel::Warning, 1),
            ("", FilterLevel::Warning, 0),
            ("Info", FilterLevel::Info, 0),
        ] {
            let settings = resolve(Config::new(), &[("DELOUSE_LOG", value)]).unwrap();
            assert_eq!((settings.log, settings.ignored.len()), (level, count), "{value}");
        }
    }
}
