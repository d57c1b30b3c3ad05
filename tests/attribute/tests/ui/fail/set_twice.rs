#[delouse::main(flavor = "multi_thread", flavor = "multi_thread")]
async fn flavor() {}

#[delouse::main(worker_threads = 1, worker_threads = 2)]
async fn worker_threads() {}

#[delouse::main(flavor = "current_thread", start_paused = false, start_paused = true)]
async fn start_paused() {}

#[delouse::main(flavor = "local", unhandled_panic = "ignore", unhandled_panic = "ignore")]
async fn unhandled_panic() {}

#[delouse::main(name = "a", name = "b")]
async fn name() {}

#[delouse::main(crate = "tokio", crate = "tokio")]
async fn tokio() {}

fn main() {}
