//! The effective settings: the environment overrides the code, which overrides the defaults.

use std::path::PathBuf;
use std::time::Duration;

use crate::Config;
use crate::duration;
use crate::targets::Limits;

/// The settings of captures and dumps. `server::settings` has those of the server.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// Whether SIGQUIT prints a dump.
    pub(crate) sigquit: bool,
    /// Whether the second SIGTERM prints what the program waits for.
    pub(crate) sigterm: bool,
    /// Whether a panic in a task prints its stack.
    pub(crate) panic: bool,
    /// How long the end of the program may take.
    pub(crate) shutdown: Option<Duration>,
    pub(crate) limits: Limits,
    pub(crate) watch: WatchSettings,
    /// Messages about invalid values, which are ignored.
    pub(crate) ignored: Vec<String>,
}

/// How the program is watched.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct WatchSettings {
    /// The time between looks; `None`: the program is not watched.
    pub(crate) interval: Option<Duration>,
    /// Where reports are written.
    pub(crate) directory: Option<PathBuf>,
}

/// Variables, and descriptions of their values.
const SIGQUIT: (&str, &str) = ("DELOUSE_SIGQUIT", "on or off");
const SIGTERM: (&str, &str) = ("DELOUSE_SIGTERM", "on or off");
const PANIC: (&str, &str) = ("DELOUSE_PANIC", "on or off");
const SHUTDOWN: (&str, &str) = ("DELOUSE_SHUTDOWN_REPORT", "a time such as 10s, or off");
const WATCH: (&str, &str) = ("DELOUSE_WATCH", "a time such as 30s, or off");
const BUDGET: (&str, &str) = ("DELOUSE_PAUSE_BUDGET_MS", "a number of milliseconds");

impl Settings {
    /// The settings of this process; `None` if `DELOUSE=off`.
    pub(crate) fn resolve(config: &Config) -> Option<Self> {
        Self::resolve_with(config, variable)
    }

    fn resolve_with(config: &Config, environment: impl Fn(&str) -> Option<String>) -> Option<Self> {
        let off = ["off", "0", "false", "no"];
        let is_off = |value: String| off.contains(&value.to_ascii_lowercase().as_str());
        if environment("DELOUSE").is_some_and(is_off) {
            return None;
        }
        let mut ignored = Vec::new();
        let on = |text: &str| match text {
            "on" | "1" | "true" | "yes" => Some(true),
            text => off.contains(&text).then_some(false),
        };
        let sigquit = valid(&environment, SIGQUIT, on, &mut ignored).or(config.sigquit).unwrap_or(true);
        let milliseconds = |text: &str| text.parse().ok().map(Duration::from_millis);
        let default = Limits::default();
        let budget = valid(&environment, BUDGET, milliseconds, &mut ignored).unwrap_or(default.budget);
        let time = |text: &str| match text {
            text if off.contains(&text) => Some(None),
            text => duration::parse(text).map(Some),
        };
        let sigterm = valid(&environment, SIGTERM, on, &mut ignored).unwrap_or(true);
        let panic = valid(&environment, PANIC, on, &mut ignored).unwrap_or(false);
        let shutdown = valid(&environment, SHUTDOWN, time, &mut ignored).unwrap_or(config.shutdown_report);
        let interval = valid(&environment, WATCH, time, &mut ignored).unwrap_or(config.watch);
        let directory = environment("DELOUSE_WATCH_DIR").filter(|path| !path.is_empty()).map(PathBuf::from);
        let watch = WatchSettings { interval, directory: directory.or_else(|| config.watch_dir.clone()) };
        Some(Self { sigquit, sigterm, panic, shutdown, limits: Limits { budget, ..default }, watch, ignored })
    }
}

/// The value of a variable. A value that is not UTF-8 is converted, so that it is reported as invalid instead of being
/// ignored. This is important for the token.
pub(crate) fn variable(name: &str) -> Option<String> {
    Some(std::env::var_os(name)?.to_string_lossy().into_owned())
}

/// The parsed value of a variable; `None` if it is not set or invalid.
pub(crate) fn valid<T>(
    environment: impl Fn(&str) -> Option<String>,
    (name, wanted): (&str, &str),
    parse: impl Fn(&str) -> Option<T>,
    ignored: &mut Vec<String>,
) -> Option<T> {
    let value = environment(name)?;
    let text = value.trim().to_ascii_lowercase();
    let parsed = parse(&text);
    if parsed.is_none() && !text.is_empty() {
        ignored.push(format!("{name} is `{value}`, which is ignored: it can be {wanted}"));
    }
    parsed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(config: Config, environment: &[(&str, &str)]) -> Option<Settings> {
        Settings::resolve_with(&config, |name| {
            environment.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned())
        })
    }

    #[test]
    fn delouse_can_be_switched_off() {
        for off in ["off", "OFF", "0", "false", "no"] {
            assert!(resolve(Config::new(), &[("DELOUSE", off)]).is_none());
        }
        assert!(resolve(Config::new(), &[("DELOUSE", "on")]).is_some());
    }

    #[test]
    fn invalid_values_are_reported() {
        let settings = |value| {
            let variables = ["DELOUSE_SIGQUIT", "DELOUSE_PAUSE_BUDGET_MS"];
            resolve(Config::new(), &variables.map(|name| (name, value))).unwrap()
        };
        let nonsense = settings("-7 or so");
        assert_eq!(nonsense.ignored.len(), 2);
        assert_eq!(
            nonsense.ignored[1],
            "DELOUSE_PAUSE_BUDGET_MS is `-7 or so`, which is ignored: it can be a number of milliseconds"
        );
        assert_eq!((nonsense.sigquit, nonsense.limits), (true, Limits::default()));
        assert!(settings("").ignored.is_empty(), "an empty value is like an unset variable");
        let budget = resolve(Config::new(), &[("DELOUSE_PAUSE_BUDGET_MS", " 70 ")]).unwrap();
        assert_eq!((budget.limits.budget, budget.ignored), (Duration::from_millis(70), vec![]));
    }

    #[test]
    fn watching_is_off_unless_asked_for() {
        let watch = |config, environment: &[_]| resolve(config, environment).unwrap().watch;
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        let config = || Config::new().watch(Duration::from_secs(5)).watch_dir("of/code");
        assert_eq!(watch(Config::new(), &[]), WatchSettings::default());
        assert_eq!(watch(config(), &[]).interval, seconds(5));
        assert_eq!(watch(config(), &[("DELOUSE_WATCH", "2m")]).interval, seconds(120));
        assert_eq!(watch(config(), &[("DELOUSE_WATCH", "off")]).interval, None);
        assert_eq!(watch(config(), &[("DELOUSE_WATCH_DIR", "/x")]).directory, Some("/x".into()));
        let ignored = resolve(Config::new(), &[("DELOUSE_WATCH", "often")]).unwrap().ignored;
        assert_eq!(
            ignored,
            ["DELOUSE_WATCH is `often`, which is ignored: it can be a time such as 30s, or off"]
        );
    }

    #[test]
    fn the_sigquit_handler_can_be_switched_off() {
        let sigquit = |config, environment: &[_]| resolve(config, environment).unwrap().sigquit;
        assert!(sigquit(Config::new(), &[]));
        assert!(!sigquit(Config::new().sigquit(false), &[]));
        assert!(!sigquit(Config::new(), &[("DELOUSE_SIGQUIT", "Off")]));
        assert!(
            sigquit(Config::new().sigquit(false), &[("DELOUSE_SIGQUIT", "on")]),
            "the environment overrides the code"
        );
    }
}
