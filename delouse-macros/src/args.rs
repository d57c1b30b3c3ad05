//! Parses an attribute's arguments to a [`Config`], and collects all errors.

use std::net::SocketAddr;
use std::time::Duration;

use proc_macro2::{Span, TokenStream, TokenTree};
use syn::parse::{ParseStream, Parser};
use syn::{Expr, ExprLit, Lit, Meta, Path, Token};

use crate::refusal::{Refusal, Refusals};

/// Which attribute it is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Kind {
    Main,
    Test,
}

impl Kind {
    /// Every argument, in the order in which messages list them: tokio's own first.
    pub(crate) const fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::Main => &[
                "flavor",
                "worker_threads",
                "start_paused",
                "crate",
                "unhandled_panic",
                "name",
                "bind",
                "delouse",
            ],
            Self::Test => &[
                "flavor",
                "worker_threads",
                "start_paused",
                "crate",
                "unhandled_panic",
                "name",
                "timeout",
                "leaks",
                "delouse",
            ],
        }
    }

    fn default_flavor(self) -> Flavor {
        match self {
            Self::Main => Flavor::MultiThread,
            Self::Test => Flavor::CurrentThread,
        }
    }
}

/// How long a test may take.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Timeout {
    Off,
    After(Duration),
}

/// What a test does about tasks that are still there when its body has ended.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Leaks {
    Off,
    Warn,
    Fail,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) enum Flavor {
    MultiThread,
    #[default]
    CurrentThread,
    Local,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum UnhandledPanic {
    Ignore,
    ShutdownRuntime,
}

/// The configuration that the arguments describe; always valid.
#[derive(Default)]
pub(crate) struct Config {
    pub(crate) flavor: Flavor,
    pub(crate) worker_threads: Option<usize>,
    pub(crate) start_paused: Option<bool>,
    pub(crate) unhandled_panic: Option<UnhandledPanic>,
    pub(crate) name: Option<String>,
    /// The user's literal, checked to be an address.
    pub(crate) bind: Option<String>,
    pub(crate) timeout: Option<Timeout>,
    pub(crate) leaks: Option<Leaks>,
    pub(crate) tokio: Option<Path>,
    pub(crate) delouse: Option<Path>,
}

/// Parses all arguments. After an error, parsing continues, so that all errors are reported at once. Then the result is a
/// minimal configuration, so that the function still expands and editors can analyse its body.
pub(crate) fn parse(tokens: TokenStream, kind: Kind, refusals: &mut Refusals) -> Config {
    let mut given = Arguments::default();
    let everything = |input: ParseStream<'_>| {
        while !input.is_empty() {
            let argument = input.parse::<Meta>().and_then(|meta| given.take(kind, meta));
            if let Err(error) = argument.and_then(|()| comma(input)) {
                refusals.push(error);
                skip_past_comma(input);
            }
        }
        Ok(())
    };
    if let Err(error) = everything.parse2(tokens) {
        refusals.push(error);
    }
    given.finish(kind, refusals)
}

fn comma(input: ParseStream<'_>) -> syn::Result<()> {
    if input.is_empty() { Ok(()) } else { input.parse::<Token![,]>().map(drop) }
}

fn skip_past_comma(input: ParseStream<'_>) {
    while !input.is_empty() && input.parse::<Token![,]>().is_err() {
        // Cannot fail before the end of the input.
        let _ = input.parse::<TokenTree>();
    }
}

/// The state of one argument during parsing.
#[derive(Default)]
enum Slot<T> {
    #[default]
    Absent,
    /// It was given, and its error has been reported.
    Refused,
    Given(T, Span),
}

impl<T> Slot<T> {
    fn set(
        &mut self,
        name: &'static str,
        value: &Lit,
        read: impl FnOnce(&'static str, &Lit) -> Result<T, Refusal>,
    ) -> syn::Result<()> {
        if !matches!(self, Slot::Absent) {
            return Err(Refusal::Twice(name).at(value.span()));
        }
        let result = read(name, value).map_err(|refusal| refusal.at(value.span()));
        let (slot, result) = match result {
            Ok(read) => (Slot::Given(read, value.span()), Ok(())),
            Err(error) => (Slot::Refused, Err(error)),
        };
        *self = slot;
        result
    }

    fn value(self) -> Option<T> {
        match self {
            Slot::Given(value, _) => Some(value),
            Slot::Absent | Slot::Refused => None,
        }
    }

    /// The value of an option that only some flavors support. Reports an error if this flavor does not.
    fn value_with(self, flavor: Result<(), Refusal>, refusals: &mut Refusals) -> Option<T> {
        match (self, flavor) {
            (Slot::Given(_, span), Err(refusal)) => {
                refusals.push(refusal.at(span));
                None
            }
            (slot, _) => slot.value(),
        }
    }
}

#[derive(Default)]
struct Arguments {
    flavor: Slot<Flavor>,
    worker_threads: Slot<usize>,
    start_paused: Slot<bool>,
    unhandled_panic: Slot<UnhandledPanic>,
    name: Slot<String>,
    bind: Slot<String>,
    timeout: Slot<Timeout>,
    leaks: Slot<Leaks>,
    tokio: Slot<Path>,
    delouse: Slot<Path>,
}

impl Arguments {
    fn take(&mut self, kind: Kind, meta: Meta) -> syn::Result<()> {
        let Meta::NameValue(pair) = meta else {
            return Err(without_value(kind, &meta));
        };
        let Some(name) = lower_case_name(&pair.path) else {
            return Err(Refusal::NoName.on(&pair));
        };
        let Expr::Lit(ExprLit { lit, .. }) = &pair.value else {
            return Err(Refusal::NotALiteral.on(&pair.value));
        };
        match name.as_str() {
            "core_threads" => Err(Refusal::CoreThreads.on(pair)),
            other if !kind.arguments().contains(&other) => Err(Refusal::Unknown(kind, name).on(pair)),
            "flavor" => self.flavor.set("flavor", lit, flavor),
            "worker_threads" => self.worker_threads.set("worker_threads", lit, worker_threads),
            "start_paused" => self.start_paused.set("start_paused", lit, boolean),
            "unhandled_panic" => self.unhandled_panic.set("unhandled_panic", lit, unhandled_panic),
            "name" => self.name.set("name", lit, string),
            "bind" => self.bind.set("bind", lit, address),
            "crate" => self.tokio.set("crate", lit, path),
            "timeout" => self.timeout.set("timeout", lit, timeout),
            "leaks" => self.leaks.set("leaks", lit, leaks),
            "delouse" => self.delouse.set("delouse", lit, path),
            _ => Err(Refusal::Unknown(kind, name).on(pair)),
        }
    }

    /// Checks combinations of arguments.
    fn finish(self, kind: Kind, refusals: &mut Refusals) -> Config {
        // The flavor is unknown, and has been reported: combinations with it cannot be checked.
        let flavor = match self.flavor {
            Slot::Absent => Some(kind.default_flavor()),
            Slot::Refused => None,
            Slot::Given(flavor, _) => Some(flavor),
        };
        let multi_thread_for = |name| match flavor {
            None | Some(Flavor::MultiThread) => Ok(()),
            Some(_) => Err(Refusal::Needs { kind, name, flavor: "multi_thread" }),
        };
        let current_thread_for = |name| match flavor {
            Some(Flavor::MultiThread) => Err(Refusal::Needs { kind, name, flavor: "current_thread" }),
            _ => Ok(()),
        };
        let config = Config {
            flavor: flavor.unwrap_or(Flavor::CurrentThread),
            worker_threads: self.worker_threads.value_with(multi_thread_for("worker_threads"), refusals),
            start_paused: self.start_paused.value_with(current_thread_for("start_paused"), refusals),
            unhandled_panic: self.unhandled_panic.value_with(current_thread_for("unhandled_panic"), refusals),
            name: self.name.value(),
            bind: self.bind.value(),
            timeout: self.timeout.value(),
            leaks: self.leaks.value(),
            tokio: self.tokio.value(),
            delouse: self.delouse.value(),
        };
        if refusals.is_empty() { config } else { config.undemanding() }
    }
}

impl Config {
    /// A configuration that causes no further errors: of tokio's features, it only needs `rt`. The crates' names are kept,
    /// because paths could not be resolved without them.
    pub(crate) fn undemanding(self) -> Config {
        Config { tokio: self.tokio, delouse: self.delouse, ..Config::default() }
    }
}

fn without_value(kind: Kind, meta: &Meta) -> syn::Error {
    let Meta::Path(path) = meta else {
        return Refusal::NotAnArgument.on(meta);
    };
    let Some(name) = lower_case_name(path) else {
        return Refusal::NoName.on(path);
    };
    let refusal = match name.as_str() {
        "threaded_scheduler" | "multi_thread" => Refusal::BareFlavor(kind, "multi_thread"),
        "basic_scheduler" | "current_thread" | "single_threaded" => {
            Refusal::BareFlavor(kind, "current_thread")
        }
        known if kind.arguments().contains(&known) => Refusal::NoValue(name),
        _ => Refusal::Unknown(kind, name),
    };
    refusal.on(path)
}

fn lower_case_name(path: &Path) -> Option<String> {
    path.get_ident().map(|name| name.to_string().to_lowercase())
}

fn string(name: &'static str, value: &Lit) -> Result<String, Refusal> {
    match value {
        Lit::Str(text) => Ok(text.value()),
        _ => Err(Refusal::WrongKind { name, kind: "string" }),
    }
}

fn boolean(name: &'static str, value: &Lit) -> Result<bool, Refusal> {
    match value {
        Lit::Bool(boolean) => Ok(boolean.value),
        _ => Err(Refusal::WrongKind { name, kind: "bool" }),
    }
}

fn path(name: &'static str, value: &Lit) -> Result<Path, Refusal> {
    match value {
        Lit::Str(text) => text.parse().map_err(|_| Refusal::BadPath { name, value: text.value() }),
        _ => Err(Refusal::WrongKind { name, kind: "path" }),
    }
}

fn worker_threads(name: &'static str, value: &Lit) -> Result<usize, Refusal> {
    let Lit::Int(integer) = value else {
        return Err(Refusal::WrongKind { name, kind: "integer" });
    };
    match integer.base10_parse() {
        Ok(0) => Err(Refusal::NoWorkers),
        Ok(count) => Ok(count),
        Err(cause) => Err(Refusal::BadInteger { name, cause }),
    }
}

fn flavor(name: &'static str, value: &Lit) -> Result<Flavor, Refusal> {
    let flavor = string(name, value)?;
    match flavor.as_str() {
        "multi_thread" => Ok(Flavor::MultiThread),
        "current_thread" => Ok(Flavor::CurrentThread),
        "local" => Ok(Flavor::Local),
        "single_thread" => Err(Refusal::SingleThread),
        "basic_scheduler" => Err(Refusal::OldFlavor { old: "basic_scheduler", new: "current_thread" }),
        "threaded_scheduler" => Err(Refusal::OldFlavor { old: "threaded_scheduler", new: "multi_thread" }),
        _ => Err(Refusal::UnknownFlavor(flavor)),
    }
}

fn unhandled_panic(name: &'static str, value: &Lit) -> Result<UnhandledPanic, Refusal> {
    let behavior = string(name, value)?;
    match behavior.as_str() {
        "ignore" => Ok(UnhandledPanic::Ignore),
        "shutdown_runtime" => Ok(UnhandledPanic::ShutdownRuntime),
        _ => Err(Refusal::UnknownPanic(behavior)),
    }
}

/// Refuses host names: they may resolve differently on the machine that builds the program and the machine that runs it.
fn address(name: &'static str, value: &Lit) -> Result<String, Refusal> {
    let text = string(name, value)?;
    match text.parse::<SocketAddr>() {
        Ok(_) => Ok(text),
        Err(_) => Err(Refusal::BadAddress(text)),
    }
}

/// `30s`, `500ms`, `2m`, `1h`, or `off`. The variable `DELOUSE_TEST_TIMEOUT` has the same form: `delouse::test_run`.
fn timeout(name: &'static str, value: &Lit) -> Result<Timeout, Refusal> {
    let text = string(name, value)?;
    if text == "off" {
        return Ok(Timeout::Off);
    }
    let refused = || Refusal::BadTimeout(text.clone());
    let digits = text.find(|first: char| !first.is_ascii_digit()).ok_or_else(refused)?;
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| refused())?;
    let milliseconds = match unit {
        "ms" => Some(1),
        "s" => Some(1_000),
        "m" => Some(60_000),
        "h" => Some(3_600_000),
        _ => None,
    };
    let total = milliseconds.and_then(|unit: u64| number.checked_mul(unit)).filter(|total| *total > 0);
    total.map(|total| Timeout::After(Duration::from_millis(total))).ok_or_else(refused)
}

fn leaks(name: &'static str, value: &Lit) -> Result<Leaks, Refusal> {
    let action = string(name, value)?;
    match action.as_str() {
        "off" => Ok(Leaks::Off),
        "warn" => Ok(Leaks::Warn),
        "fail" => Ok(Leaks::Fail),
        _ => Err(Refusal::UnknownLeaks(action)),
    }
}
