//! What `#[delouse::main]` calls with debug on.

use tokio::runtime::Builder;

use crate::Config;

/// Drives `body` on a runtime of flavor multi_thread or current_thread.
#[expect(clippy::expect_used, reason = "as tokio::main: without a runtime there is no program")]
pub fn block_on<F: Future>(builder: &mut Builder, config: Config, body: F) -> F::Output {
    let _ = config;
    builder.enable_all().build().expect("Failed building the Runtime").block_on(body)
}

/// Drives `body` on a runtime of flavor local.
#[expect(clippy::expect_used, reason = "as tokio::main: without a runtime there is no program")]
pub fn block_on_local<F: Future>(builder: &mut Builder, config: Config, body: F) -> F::Output {
    let _ = config;
    builder.enable_all().build_local(Default::default()).expect("Failed building the Runtime").block_on(body)
}
