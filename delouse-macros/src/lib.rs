//! The attributes `#[delouse::main]` and `#[delouse::test]`.
//!
//! Use them through the crate `delouse`, which re-exports them and contains the functions that their expansions call.

#![forbid(unsafe_code)]

mod args;
mod expand;
mod item;
mod refusal;
#[cfg(test)]
mod tests;

use proc_macro2::TokenStream;
use syn::{Attribute, Meta};

use crate::args::Kind;
use crate::item::Item;
use crate::refusal::{Refusal, Refusals};

/// Runs an `async fn` on a tokio runtime, as `#[tokio::main]` does, and starts delouse's debug server.
///
/// ```
/// #[delouse::main]
/// async fn main() {
///     println!("ready");
/// }
/// ```
///
/// It replaces `#[tokio::main]`, with the same arguments, defaults and errors.
///
/// - With delouse's features `dump` and `debug` **off**, it expands to the same code as `#[tokio::main]`.
/// - With `debug` **on**, the debug server starts before the function's body and stops after it. With `dump` alone, there is
///   no server: SIGQUIT prints the tasks. The body is driven by `block_on` as before, so its future need not be `Send`.
///
/// Your own crate needs no `cfg` for this, and a feature of yours that is also named `debug` does not matter.
///
/// # Arguments
///
/// | argument | value | meaning | default |
/// | --- | --- | --- | --- |
/// | `flavor` | `"multi_thread"`, `"current_thread"`, `"local"` | which runtime; see below | `"multi_thread"` |
/// | `worker_threads` | integer above 0 | number of worker threads; `multi_thread` only | number of CPUs |
/// | `start_paused` | `true`, `false` | tokio's clock is paused at the start; not `multi_thread`; needs tokio's feature `test-util` | `false` |
/// | `unhandled_panic` | `"ignore"`, `"shutdown_runtime"` | what a task's panic does; not `multi_thread`; needs `--cfg tokio_unstable` | `"ignore"` |
/// | `name` | string | the runtime's name | none |
/// | `bind` | IP address and port, as a string | where the debug server listens; see below | `"127.0.0.1:7132"` |
/// | `crate` | path, as a string | where tokio is, if you renamed it | `"tokio"` |
/// | `delouse` | path, as a string | where delouse is, if you renamed it | `"::delouse"` |
///
/// ```
/// #[delouse::main(flavor = "multi_thread", worker_threads = 2, name = "orders", bind = "127.0.0.1:7133")]
/// async fn main() {
///     println!("ready");
/// }
/// ```
///
/// ## `flavor`
///
/// - `multi_thread`: worker threads share the tasks. Needs tokio's feature `rt-multi-thread`. Enable it in your own
///   `Cargo.toml`: the attribute cannot see your features, and delouse enables it only with its own feature `debug`.
///   Without it, the compiler reports that `Builder` has no `new_multi_thread`.
/// - `current_thread`: everything runs on the calling thread.
/// - `local`: as `current_thread`, and `tokio::task::spawn_local` accepts tasks that are not `Send`.
///
/// ```
/// #[delouse::main(flavor = "local")]
/// async fn main() {
///     let shared = std::rc::Rc::new(7);
///     let task = tokio::task::spawn_local(async move { *shared });
///     assert_eq!(task.await.ok(), Some(7));
/// }
/// ```
///
/// ## `bind`
///
/// A host name, such as `localhost`, is a compile error. The environment variable `DELOUSE_BIND` overrides it. Without a
/// server, it is checked and ignored.
///
/// ## `crate` and `delouse`
///
/// ```
/// use ::delouse as bugs;
/// use ::tokio as tokio_one;
///
/// #[bugs::main(delouse = "bugs", crate = "tokio_one")]
/// async fn main() {}
/// ```
///
/// # Functions
///
/// The attribute can be used on any `async fn`, also on an associated function without `self`. All functions except `main`
/// may have arguments. Each call starts a runtime, so use it for entry points only.
///
/// ```
/// #[delouse::main(flavor = "current_thread")]
/// async fn double(number: u32) -> u32 {
///     tokio::task::yield_now().await;
///     2 * number
/// }
///
/// assert_eq!(double(21), 42);
/// ```
///
/// The function may return anything that a plain function may:
///
/// ```
/// #[delouse::main]
/// async fn main() -> Result<(), std::num::ParseIntError> {
///     let port: u16 = "7132".parse()?;
///     println!("{port}");
///     Ok(())
/// }
/// ```
///
/// # Equivalent code
///
/// With both features off, `#[delouse::main(worker_threads = 2)]` expands a function's body to
///
/// ```
/// tokio::runtime::Builder::new_multi_thread()
///     .worker_threads(2)
///     .enable_all()
///     .build()
///     .expect("Failed building the Runtime")
///     .block_on(async {
///         // the body
///     })
/// ```
///
/// # Panics
///
/// If the runtime cannot be built, because the limit of threads or file descriptors is reached.
#[proc_macro_attribute]
pub fn main(args: proc_macro::TokenStream, item: proc_macro::TokenStream) -> proc_macro::TokenStream {
    attribute(args.into(), item.into(), Kind::Main).into()
}

/// Runs an `async fn` as a test on a tokio runtime, as `#[tokio::test]` does, and reports what hangs.
///
/// ```
/// #[delouse::test(timeout = "30s")]
/// async fn answers_in_time() {
///     assert_eq!(tokio::spawn(async { 7 }).await.ok(), Some(7));
/// }
/// ```
///
/// It replaces `#[tokio::test]`, with the same arguments, defaults and errors.
///
/// - With delouse's features `dump` and `debug` **off**, it expands to the same code as `#[tokio::test]`. With `timeout`, a
///   test that takes longer fails, without a reason.
/// - With one of them **on**, a test that takes longer than its timeout fails: the first line of the panic says what is wrong,
///   or where the body waits. The diagnosis, all tasks and all threads are on stderr before, and in `target/delouse/`, in a
///   file `.txt` and a file `.json` for each test. A runtime that does not react within two seconds after that, because its
///   thread is blocked, ends the whole process.
///
/// The time is measured by an OS thread from the first line of the body to the end of the runtime: a paused clock does not
/// stop it.
///
/// Attributes of other crates (rstest, test-log) may stand above or below. `#[serial]` of serial_test belongs below: above
/// `#[delouse::test]`, the time in which the test waits for other tests is part of the body, and counts.
///
/// # Arguments
///
/// Those of `#[tokio::test]`, which are those of [`macro@main`] without `bind`; the default of `flavor` is
/// `"current_thread"`. And:
///
/// | argument | value | meaning | default |
/// | --- | --- | --- | --- |
/// | `timeout` | such as `"30s"`, `"500ms"`, `"2m"`, or `"off"` | how long the test may take | `"60s"`; without the features, none |
/// | `leaks` | `"warn"`, `"fail"`, `"off"` | what happens if tasks are left when the body has ended | `"off"` |
///
/// The environment variable `DELOUSE_TEST_TIMEOUT` overrides `timeout`, except where that is `"off"`.
#[proc_macro_attribute]
pub fn test(args: proc_macro::TokenStream, item: proc_macro::TokenStream) -> proc_macro::TokenStream {
    attribute(args.into(), item.into(), Kind::Test).into()
}

/// Emits the function even if there are errors, so that editors can analyse it.
fn attribute(args: TokenStream, item: TokenStream, kind: Kind) -> TokenStream {
    let mut refusals = Refusals::default();
    let function = match syn::parse2::<Item>(item.clone()) {
        Ok(function) => Some(function),
        Err(error) => {
            refusals.push(error);
            None
        }
    };
    if let Some(Item { signature, attributes, .. }) = &function {
        if let Some(second) = attributes.iter().find(|other| kind == Kind::Test && is_test(other)) {
            refusals.push(Refusal::SecondTest.on(second));
        }
        if kind == Kind::Main && signature.ident == "main" && !signature.inputs.is_empty() {
            refusals.push(Refusal::MainWithArguments.on(&signature.ident));
        }
        if signature.asyncness.is_none() {
            refusals.push(Refusal::NotAsync.on(signature.fn_token));
        }
    }
    let config = args::parse(args, kind, &mut refusals);
    let mut tokens = match function {
        Some(function) => expand::expand(function, kind, &config),
        None => item,
    };
    tokens.extend(refusals.into_compile_errors());
    tokens
}

/// Whether it is the attribute `#[test]` itself, under one of its names.
fn is_test(attribute: &Attribute) -> bool {
    let Meta::Path(path) = &attribute.meta else { return false };
    let names: Vec<String> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
    match names.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["test"] => path.leading_colon.is_none(),
        ["core" | "std", "prelude", _, "test"] => true,
        _ => false,
    }
}
