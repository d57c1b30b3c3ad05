#[delouse::main(worker_threads = 0)]
async fn no_workers() {}

#[delouse::main(flavor = "foo")]
async fn flavor() {}

#[delouse::main(flavor = "single_thread")]
async fn single_thread() {}

#[delouse::main(flavor = "basic_scheduler")]
async fn basic_scheduler() {}

#[delouse::main(flavor = "threaded_scheduler")]
async fn threaded_scheduler() {}

#[delouse::main(flavor = "current_thread", unhandled_panic = "abort")]
async fn unhandled_panic() {}

fn main() {}
