//! What `#[delouse::test]` does with tests, with debug on and off.

use std::time::Duration;

use tokio::time::{Instant, sleep};

#[delouse::test]
async fn it_is_on_one_thread() {
    let flavor = tokio::runtime::Handle::current().runtime_flavor();
    assert_eq!(flavor, tokio::runtime::RuntimeFlavor::CurrentThread);
}

#[delouse::test(flavor = "multi_thread", worker_threads = 3)]
async fn it_has_workers() {
    assert_eq!(tokio::runtime::Handle::current().metrics().num_workers(), 3);
}

#[delouse::test(start_paused = true, timeout = "30s")]
async fn a_paused_clock_goes_on() {
    let begun = Instant::now();
    sleep(Duration::from_secs(3600)).await;
    assert!(begun.elapsed() >= Duration::from_secs(3600));
}

#[delouse::test(timeout = "100ms")]
#[should_panic(expected = "did not end within 100ms")]
async fn a_late_test_fails() {
    std::future::pending::<()>().await;
}

#[delouse::test(flavor = "multi_thread", timeout = "100ms")]
#[should_panic(expected = "has ended, but its runtime did not within 100ms")]
async fn a_late_runtime_fails() {
    let (started, begun) = tokio::sync::oneshot::channel();
    tokio::task::spawn_blocking(move || {
        let _ = started.send(());
        loop {
            std::thread::park();
        }
    });
    begun.await.expect("it begins");
}

#[delouse::test(leaks = "fail")]
#[should_panic(expected = "1 task is left after")]
async fn a_task_that_is_left_fails() {
    tokio::spawn(std::future::pending::<()>());
}

#[delouse::test(leaks = "warn", timeout = "off")]
async fn a_task_that_is_left_is_told() {
    tokio::spawn(std::future::pending::<()>());
}

#[delouse::test]
#[should_panic(expected = "of its own")]
async fn a_panic_is_the_test_s_own() {
    panic!("of its own");
}

#[delouse::test]
async fn a_result_is_returned() -> Result<(), std::num::ParseIntError> {
    "7".parse::<u32>().map(drop)
}

/// Dropped values of the body may spawn tasks.
#[delouse::test(timeout = "30s")]
async fn the_body_is_dropped_in_its_runtime() {
    struct Spawns;
    impl Drop for Spawns {
        fn drop(&mut self) {
            tokio::spawn(async {});
        }
    }
    let _value = Spawns;
}
