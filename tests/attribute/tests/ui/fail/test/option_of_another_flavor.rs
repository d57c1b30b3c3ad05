#[delouse::test(flavor = "current_thread", worker_threads = 4)]
async fn workers_of_current_thread() {}

#[delouse::test(worker_threads = 4)]
async fn workers_of_the_default() {}

#[delouse::test(flavor = "multi_thread", start_paused = true)]
async fn paused() {}

#[delouse::test(flavor = "multi_thread", unhandled_panic = "ignore")]
async fn unhandled_panic() {}

fn main() {}
