use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::time::{Duration, Instant, advance};

#[delouse::main(flavor = "multi_thread", worker_threads = 3, name = "orders", bind = "127.0.0.1:0",)]
async fn multi_thread() {
    assert_eq!(Handle::current().runtime_flavor(), RuntimeFlavor::MultiThread);
    assert_eq!(Handle::current().metrics().num_workers(), 3);
}

// Names are taken in any case.
#[delouse::main(Worker_Threads = 2u8, FLAVOR = r"multi_thread")]
async fn any_case() {
    assert_eq!(Handle::current().metrics().num_workers(), 2);
}

#[delouse::main(flavor = "current_thread", start_paused = true, bind = "[::1]:0")]
async fn current_thread() {
    assert_eq!(Handle::current().runtime_flavor(), RuntimeFlavor::CurrentThread);
    let before = Instant::now();
    advance(Duration::from_secs(60)).await;
    assert_eq!(before.elapsed(), Duration::from_secs(60));
}

#[delouse::main(flavor = "local", start_paused = false, name = "local")]
async fn local() {
    let not_send = std::rc::Rc::new(7132);
    let task = tokio::task::spawn_local(async move { *not_send });
    assert_eq!(task.await.unwrap(), 7132);
}

fn main() {
    multi_thread();
    any_case();
    current_thread();
    local();
}
