//! How the arguments of `#[delouse::main]` configure the runtime of the function, with debug on or off.

use tokio::runtime::Handle;

#[delouse::main(flavor = "multi_thread", name = "orders", bind = "127.0.0.1:0")]
async fn name_of_multi_thread() -> Option<String> {
    Handle::current().name().map(str::to_owned)
}

#[delouse::main(flavor = "local", name = "local", bind = "127.0.0.1:0")]
async fn name_of_local() -> Option<String> {
    Handle::current().name().map(str::to_owned)
}

#[test]
fn name() {
    assert_eq!(name_of_multi_thread().as_deref(), Some("orders"));
    assert_eq!(name_of_local().as_deref(), Some("local"));
}

#[cfg(tokio_unstable)]
#[delouse::main(flavor = "current_thread", unhandled_panic = "ignore", bind = "127.0.0.1:0")]
async fn ignore() -> bool {
    tokio::spawn(async { panic!("ignored by the runtime") }).await.is_err()
}

#[cfg(tokio_unstable)]
#[delouse::main(flavor = "current_thread", unhandled_panic = "shutdown_runtime", bind = "127.0.0.1:0")]
async fn shutdown_runtime() {
    let _ = tokio::spawn(async { panic!("shuts the runtime down") }).await;
    std::future::pending().await
}

#[cfg(tokio_unstable)]
#[test]
fn unhandled_panic() {
    assert!(ignore());
    assert!(std::panic::catch_unwind(shutdown_runtime).is_err());
}
