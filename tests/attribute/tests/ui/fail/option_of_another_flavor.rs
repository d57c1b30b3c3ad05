#[delouse::main(flavor = "current_thread", worker_threads = 4)]
async fn workers_of_current_thread() {}

#[delouse::main(worker_threads = 4, flavor = "local")]
async fn workers_of_local() {}

#[delouse::main(start_paused = true)]
async fn paused() {}

#[delouse::main(flavor = "multi_thread", unhandled_panic = "ignore")]
async fn unhandled_panic() {}

fn main() {}
