#[delouse::main(flavor = 1)]
async fn flavor() {}

#[delouse::main(worker_threads = "4")]
async fn worker_threads() {}

#[delouse::main(worker_threads = 99999999999999999999)]
async fn too_many_worker_threads() {}

#[delouse::main(flavor = "current_thread", start_paused = "true")]
async fn start_paused() {}

#[delouse::main(flavor = "current_thread", unhandled_panic = true)]
async fn unhandled_panic() {}

#[delouse::main(name = 'n')]
async fn name() {}

#[delouse::main(crate = 1)]
async fn tokio() {}

#[delouse::main(crate = "not a path")]
async fn tokio_path() {}

fn main() {}
