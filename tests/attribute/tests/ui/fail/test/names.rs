#[delouse::test(core_threads = 4)]
async fn core_threads() {}

#[delouse::test(foo = 1)]
async fn unknown() {}

#[delouse::test(Foo)]
async fn unknown_without_value() {}

#[delouse::test(threaded_scheduler)]
async fn threaded_scheduler() {}

#[delouse::test(multi_thread)]
async fn multi_thread() {}

#[delouse::test(basic_scheduler)]
async fn basic_scheduler() {}

#[delouse::test(current_thread)]
async fn current_thread() {}

#[delouse::test(single_threaded)]
async fn single_threaded() {}

#[delouse::test(flavor)]
async fn flavor() {}

#[delouse::test(worker_threads)]
async fn worker_threads() {}

#[delouse::test(start_paused)]
async fn start_paused() {}

#[delouse::test(crate)]
async fn tokio() {}

#[delouse::test(unhandled_panic)]
async fn unhandled_panic() {}

#[delouse::test(name)]
async fn name() {}

#[delouse::test(flavor("multi_thread"))]
async fn list() {}

#[delouse::test(tokio::flavor = "multi_thread")]
async fn path() {}

#[delouse::test(tokio::flavor)]
async fn path_without_value() {}

#[delouse::test(worker_threads = 2 + 2)]
async fn not_a_literal() {}

fn main() {}
