#[delouse::main(core_threads = 4)]
async fn core_threads() {}

#[delouse::main(foo = 1)]
async fn unknown() {}

#[delouse::main(Foo)]
async fn unknown_without_value() {}

#[delouse::main(threaded_scheduler)]
async fn threaded_scheduler() {}

#[delouse::main(multi_thread)]
async fn multi_thread() {}

#[delouse::main(basic_scheduler)]
async fn basic_scheduler() {}

#[delouse::main(current_thread)]
async fn current_thread() {}

#[delouse::main(single_threaded)]
async fn single_threaded() {}

#[delouse::main(flavor)]
async fn flavor() {}

#[delouse::main(worker_threads)]
async fn worker_threads() {}

#[delouse::main(start_paused)]
async fn start_paused() {}

#[delouse::main(crate)]
async fn tokio() {}

#[delouse::main(unhandled_panic)]
async fn unhandled_panic() {}

#[delouse::main(name)]
async fn name() {}

#[delouse::main(flavor("multi_thread"))]
async fn list() {}

#[delouse::main(tokio::flavor = "multi_thread")]
async fn path() {}

#[delouse::main(tokio::flavor)]
async fn path_without_value() {}

#[delouse::main(worker_threads = 2 + 2)]
async fn not_a_literal() {}

fn main() {}
