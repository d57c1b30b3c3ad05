//! The errors of the attributes, and their messages.
//!
//! If `#[tokio::main]` or `#[tokio::test]` has the same error, the message is the same except for the macro's name, so that users find
//! existing explanations. `tests/attribute/tests/ui.rs` compares the two.

use std::fmt;

use proc_macro2::Span;
use quote::ToTokens;

use crate::args::Kind;

/// One error in an attribute or in its function.
#[derive(Debug)]
pub(crate) enum Refusal {
    NotAsync,
    MainWithArguments,
    SecondTest,
    NoName,
    NotALiteral,
    NotAnArgument,
    Unknown(Kind, String),
    NoValue(String),
    BareFlavor(Kind, &'static str),
    CoreThreads,
    Twice(&'static str),
    WrongKind { name: &'static str, kind: &'static str },
    BadInteger { name: &'static str, cause: syn::Error },
    BadPath { name: &'static str, value: String },
    NoWorkers,
    OldFlavor { old: &'static str, new: &'static str },
    SingleThread,
    UnknownFlavor(String),
    UnknownPanic(String),
    Needs { kind: Kind, name: &'static str, flavor: &'static str },
    BadAddress(String),
    BadTimeout(String),
    UnknownLeaks(String),
}

impl Refusal {
    /// The refusal as a compile error on one token.
    pub(crate) fn at(self, span: Span) -> syn::Error {
        syn::Error::new(span, self)
    }

    /// The refusal as a compile error on all of `tokens`.
    pub(crate) fn on(self, tokens: impl ToTokens) -> syn::Error {
        syn::Error::new_spanned(tokens, self)
    }
}

/// The attribute's path.
impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Main => "delouse::main",
            Self::Test => "delouse::test",
        })
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use Refusal as R;
        match self {
            R::NotAsync => f.write_str("the `async` keyword is missing from the function declaration"),
            R::MainWithArguments => f.write_str("the main function cannot accept arguments"),
            R::NoName => f.write_str("Must have specified ident"),
            R::NotALiteral => f.write_str("Must be a literal"),
            R::NotAnArgument => f.write_str("Unknown attribute inside the macro"),
            R::Unknown(kind, name) => write!(
                f,
                "Unknown attribute {name} is specified; expected one of: `{}`.",
                kind.arguments().join("`, `")
            ),
            R::NoValue(name) => write!(f, "The `{name}` attribute requires an argument."),
            R::BareFlavor(kind, flavor) => {
                write!(f, "Set the runtime flavor with #[{kind}(flavor = \"{flavor}\")].")
            }
            R::CoreThreads => f.write_str("Attribute `core_threads` is renamed to `worker_threads`"),
            R::Twice(name) => write!(f, "`{name}` set multiple times."),
            R::WrongKind { name, kind } => write!(f, "Failed to parse value of `{name}` as {kind}."),
            R::BadInteger { name, cause } => {
                write!(f, "Failed to parse value of `{name}` as integer: {cause}")
            }
            R::BadPath { name, value } => write!(f, "Failed to parse value of `{name}` as path: \"{value}\""),
            R::NoWorkers => f.write_str("`worker_threads` may not be 0."),
            R::OldFlavor { old, new } => {
                write!(f, "The `{old}` runtime flavor has been renamed to `{new}`.")
            }
            R::SingleThread => f.write_str("The single threaded runtime flavor is called `current_thread`."),
            R::UnknownFlavor(flavor) => write!(
                f,
                "No such runtime flavor `{flavor}`. \
                 The runtime flavors are `current_thread`, `local`, and `multi_thread`."
            ),
            R::UnknownPanic(behavior) => write!(
                f,
                "No such unhandled panic behavior `{behavior}`. \
                 The unhandled panic behaviors are `ignore` and `shutdown_runtime`."
            ),
            R::Needs { kind, name, flavor } => write!(
                f,
                "The `{name}` option requires the `{flavor}` runtime flavor. \
                 Use `#[{kind}(flavor = \"{flavor}\")]`"
            ),
            R::BadAddress(value) => write!(
                f,
                "`bind` takes an IP address and a port, such as \"127.0.0.1:7132\" or \"[::1]:7132\", \
                 not \"{value}\"."
            ),
            R::SecondTest => f.write_str(
                "second test attribute is supplied, consider removing or changing the order of your test attributes",
            ),
            R::BadTimeout(value) => write!(
                f,
                "`timeout` takes a time, such as \"30s\", \"500ms\" or \"2m\", or \"off\", not \"{value}\"."
            ),
            R::UnknownLeaks(value) => {
                write!(f, "`leaks` takes \"warn\", \"fail\" or \"off\", not \"{value}\".")
            }
        }
    }
}

/// The refusals of one attribute, so that all of them are reported at once.
#[derive(Default)]
pub(crate) struct Refusals(Option<syn::Error>);

impl Refusals {
    pub(crate) fn push(&mut self, error: syn::Error) {
        match &mut self.0 {
            Some(first) => first.combine(error),
            none => *none = Some(error),
        }
    }

    /// One `compile_error!` for each refusal; nothing if there is none.
    pub(crate) fn into_compile_errors(self) -> proc_macro2::TokenStream {
        self.0.map(syn::Error::into_compile_error).unwrap_or_default()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_none()
    }
}
