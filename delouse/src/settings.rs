//! The configuration in force: environment over code over default.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use crate::Config;
use crate::snapshot::Limits;

const DEFAULT_PORT: u16 = 7132;

/// What the server goes by.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) bind: SocketAddr,
    pub(crate) token: Option<String>,
    pub(crate) log: slog::FilterLevel,
    /// Whether SIGQUIT prints a dump.
    pub(crate) sigquit: bool,
    pub(crate) limits: Limits,
    /// Of values that mean nothing, what they could be: the defaults hold in their place.
    pub(crate) ignored: Vec<String>,
}

/// Why no server is started.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum SettingsError {
    /// `DELOUSE=off`: nothing to tell anybody.
    Off,
    /// Not an address.
    BadBind { source: &'static str, value: String },
    /// Would be open to the network.
    OpenToNetwork(SocketAddr),
    /// A header cannot carry it.
    BadToken,
}

impl fmt::Display for SettingsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => write!(f, "DELOUSE=off"),
            Self::BadBind { source, value } => {
                write!(f, "{source} is `{value}`, which is no address: write 127.0.0.1:{DEFAULT_PORT}")
            }
            Self::OpenToNetwork(bind) => write!(
                f,
                "{bind} is open to the network and there is no token: set DELOUSE_TOKEN, \
                 or bind to 127.0.0.1:{}",
                bind.port()
            ),
            Self::BadToken => write!(f, "the token must be printable ASCII without spaces, and not empty"),
        }
    }
}

impl Settings {
    /// What holds for this process.
    pub(crate) fn resolve(config: &Config) -> Result<Self, SettingsError> {
        Self::resolve_with(config, variable)
    }

    /// What captures may cost, whether there is a server or not.
    pub(crate) fn limits() -> Limits {
        limits(variable, &mut Vec::new())
    }

    fn resolve_with(
        config: &Config,
        environment: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, SettingsError> {
        let off = ["off", "0", "false", "no"];
        let is_off = |value: String| off.contains(&value.to_ascii_lowercase().as_str());
        if environment("DELOUSE").is_some_and(is_off) {
            return Err(SettingsError::Off);
        }
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
        let mut ignored = Vec::new();
        let log = valid(&environment, LOG, level, &mut ignored).unwrap_or(slog::FilterLevel::Warning);
        let on = |text: &str| match text {
            "on" | "1" | "true" | "yes" => Some(true),
            text => off.contains(&text).then_some(false),
        };
        let sigquit = valid(&environment, SIGQUIT, on, &mut ignored).or(config.sigquit).unwrap_or(true);
        let limits = limits(&environment, &mut ignored);
        Ok(Self { bind, token, log, sigquit, limits, ignored })
    }
}

/// What is no text is no valid value either: told, rather than taken for absent. A token least of all.
fn variable(name: &str) -> Option<String> {
    Some(std::env::var_os(name)?.to_string_lossy().into_owned())
}

/// Variables, and what they can be.
const LOG: (&str, &str) = ("DELOUSE_LOG", "off, error, warning, info or debug");
const SIGQUIT: (&str, &str) = ("DELOUSE_SIGQUIT", "on or off");
const BUDGET: (&str, &str) = ("DELOUSE_PAUSE_BUDGET_MS", "a number of milliseconds");

/// What a variable says; `None` where it is not set, or says nothing that `parse` knows.
fn valid<T>(
    environment: impl Fn(&str) -> Option<String>,
    (name, wanted): (&str, &str),
    parse: impl Fn(&str) -> Option<T>,
    ignored: &mut Vec<String>,
) -> Option<T> {
    let value = environment(name)?;
    let text = value.trim().to_ascii_lowercase();
    let parsed = parse(&text);
    if parsed.is_none() && !text.is_empty() {
        ignored.push(format!("{name} is `{value}` and is ignored: it can be {wanted}"));
    }
    parsed
}

fn limits(environment: impl Fn(&str) -> Option<String>, ignored: &mut Vec<String>) -> Limits {
    let milliseconds = |text: &str| text.parse().ok().map(Duration::from_millis);
    let default = Limits::default();
    Limits { budget: valid(environment, BUDGET, milliseconds, ignored).unwrap_or(default.budget), ..default }
}

fn level(name: &str) -> Option<slog::FilterLevel> {
    Some(match name {
        "off" | "none" => slog::FilterLevel::Off,
        "error" => slog::FilterLevel::Error,
        "warning" | "warn" => slog::FilterLevel::Warning,
        "info" => slog::FilterLevel::Info,
        "debug" => slog::FilterLevel::Debug,
        _ => return None,
    })
}

/// No resolver is asked: `localhost` is the one name that is known.
fn parse_bind(source: &'static str, value: &str) -> Result<SocketAddr, SettingsError> {
    let text = value.trim();
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) => (host, port),
        None => ("localhost", text),
    };
    let bad = || SettingsError::BadBind { source, value: value.to_owned() };
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

    fn resolve(config: Config, environment: &[(&str, &str)]) -> Result<Settings, SettingsError> {
        Settings::resolve_with(&config, |name| {
            environment.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned())
        })
    }

    #[test]
    fn environment_over_code_over_default() {
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
    fn off_is_off() {
        for off in ["off", "OFF", "0", "false", "no"] {
            assert_eq!(resolve(Config::new(), &[("DELOUSE", off)]).unwrap_err(), SettingsError::Off);
        }
        assert!(resolve(Config::new(), &[("DELOUSE", "on")]).is_ok());
    }

    #[test]
    fn what_means_nothing_is_told() {
        let settings = |value| {
            let variables = ["DELOUSE_LOG", "DELOUSE_SIGQUIT", "DELOUSE_PAUSE_BUDGET_MS"];
            resolve(Config::new(), &variables.map(|name| (name, value))).unwrap()
        };
        let nonsense = settings("-7 or so");
        assert_eq!(nonsense.ignored.len(), 3);
        assert_eq!(
            nonsense.ignored[2],
            "DELOUSE_PAUSE_BUDGET_MS is `-7 or so` and is ignored: it can be a number of milliseconds"
        );
        assert_eq!((nonsense.sigquit, nonsense.limits), (true, Limits::default()));
        assert!(settings("").ignored.is_empty(), "as good as not set");
        let budget =
            resolve(Config::new(), &[("DELOUSE_PAUSE_BUDGET_MS", " 70 "), ("DELOUSE_LOG", "Warning")]);
        let budget = budget.unwrap();
        assert_eq!((budget.limits.budget, budget.ignored), (Duration::from_millis(70), vec![]));
    }

    #[test]
    fn sigquit_can_be_left_alone() {
        let sigquit = |config, environment: &[_]| resolve(config, environment).unwrap().sigquit;
        assert!(sigquit(Config::new(), &[]));
        assert!(!sigquit(Config::new().sigquit(false), &[]));
        assert!(!sigquit(Config::new(), &[("DELOUSE_SIGQUIT", "Off")]));
        assert!(sigquit(Config::new().sigquit(false), &[("DELOUSE_SIGQUIT", "on")]), "the last word");
    }
}
