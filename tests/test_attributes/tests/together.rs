//! `#[delouse::test]` below and inside the test attributes of other crates: tests pass, and tests that hang fail with the
//! cause in the first line.
//!
//! The tests that hang are ignored. [`each_test_that_hangs_fails_with_its_cause`] starts this program again with one of them.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rstest::{fixture, rstest};
use serial_test::serial;
use tokio::sync::oneshot;
use tokio::time::sleep;

/// Waits for a sender that the same future keeps.
async fn hangs() {
    let (_sender, receiver) = oneshot::channel::<()>();
    let _never = receiver.await;
}

#[fixture]
fn number() -> u32 {
    7
}

#[fixture]
async fn text() -> String {
    sleep(Duration::from_millis(1)).await;
    "text".to_owned()
}

/// The cases that have run, as rstest passes them.
static CASES: Mutex<Vec<(u32, u32)>> = Mutex::new(Vec::new());

#[rstest]
#[case::two(1, 2)]
#[case::four(2, 4)]
#[delouse::test]
async fn rstest_passes_cases_and_fixtures(
    number: u32,
    #[future] text: String,
    #[case] given: u32,
    #[case] expected: u32,
) {
    sleep(Duration::from_millis(1)).await;
    assert_eq!((number, text.await.as_str(), 2 * given), (7, "text", expected));
    CASES.lock().unwrap_or_else(PoisonError::into_inner).push((given, expected));
    assert!(CASES.lock().unwrap_or_else(PoisonError::into_inner).contains(&(given, expected)));
}

#[rstest]
#[delouse::test(flavor = "multi_thread", worker_threads = 2, timeout = "30s")]
async fn rstest_passes_each_value(#[values(1, 2, 3)] given: u32) -> Result<(), tokio::task::JoinError> {
    assert_eq!(tokio::spawn(async move { given + 1 }).await?, given + 1);
    Ok(())
}

/// Tests of the group that run at this moment.
static SERIAL: AtomicUsize = AtomicUsize::new(0);

/// A test that waits for another one of this kind takes longer than its timeout, if the wait counts.
async fn alone() {
    assert_eq!(SERIAL.fetch_add(1, SeqCst), 0, "serial_test keeps the others waiting");
    sleep(Duration::from_secs(3)).await;
    SERIAL.fetch_sub(1, SeqCst);
}

/// The time that a test waits for serial_test's lock does not count.
#[delouse::test(timeout = "5s")]
#[serial(alone)]
async fn serial_1() {
    alone().await;
}

#[delouse::test(timeout = "5s")]
#[serial(alone)]
async fn serial_2() {
    alone().await;
}

/// Above the attribute, serial_test has the body wait: that counts.
#[serial]
#[delouse::test]
async fn serial_above() {
    sleep(Duration::from_millis(1)).await;
}

#[test_log::test(delouse::test(flavor = "multi_thread", worker_threads = 1))]
async fn test_log_installs_its_logger() {
    sleep(Duration::from_millis(1)).await;
    log::info!("a line");
    assert!(log::max_level() > log::LevelFilter::Off);
}

#[test_log::test(delouse::test)]
#[should_panic(expected = "of its own")]
async fn test_log_and_should_panic() {
    panic!("of its own");
}

#[rstest]
#[case(1)]
#[test_log::test(delouse::test(start_paused = true))]
#[serial]
async fn all_of_them(#[case] hours: u64) {
    let (begun, on_the_wall) = (tokio::time::Instant::now(), Instant::now());
    sleep(Duration::from_secs(hours * 3600)).await;
    assert!(begun.elapsed() >= Duration::from_secs(3600) && on_the_wall.elapsed() < Duration::from_secs(60));
}

#[delouse::test(flavor = "current_thread", start_paused = true)]
async fn a_paused_clock_jumps_over_timers() {
    let begun = tokio::time::Instant::now();
    let (first, second) = (sleep(Duration::from_secs(60)), sleep(Duration::from_secs(3600)));
    tokio::join!(first, second);
    assert_eq!(begun.elapsed().as_secs(), 3600);
    tokio::time::advance(Duration::from_secs(60)).await;
    assert_eq!(begun.elapsed().as_secs(), 3660);
}

#[delouse::test(flavor = "current_thread")]
async fn tasks_of_a_current_thread_run_on_the_thread_of_the_test() {
    let body = std::thread::current().id();
    let task = tokio::spawn(async { std::thread::current().id() });
    assert_eq!(task.await.expect("it ends"), body);
    let has_run = std::rc::Rc::new(AtomicBool::new(false));
    let theirs = has_run.clone();
    let local = tokio::task::LocalSet::new();
    local.run_until(async move { theirs.store(true, SeqCst) }).await;
    assert!(has_run.load(SeqCst));
}

#[rstest]
#[case::first(1)]
#[delouse::test(timeout = "1s")]
#[ignore = "hangs"]
async fn rstest_hangs(#[case] _number: u32) {
    hangs().await;
}

#[delouse::test(timeout = "1s")]
#[serial]
#[ignore = "hangs"]
async fn serial_hangs() {
    hangs().await;
}

#[test_log::test(delouse::test(timeout = "1s"))]
#[ignore = "hangs"]
async fn test_log_hangs() {
    hangs().await;
}

#[delouse::test(start_paused = true, timeout = "1s")]
#[ignore = "hangs"]
async fn paused_hangs() {
    sleep(Duration::from_secs(3600)).await;
    hangs().await;
}

#[delouse::test(flavor = "current_thread", timeout = "1s")]
#[ignore = "hangs"]
async fn current_thread_hangs() {
    tokio::spawn(hangs()).await.expect("it does not end");
}

/// With the features off, `timeout` makes a test fail without a cause: `tests/hanging` has that.
#[cfg(all(feature = "debug", target_os = "linux", target_arch = "x86_64"))]
#[test]
fn each_test_that_hangs_fails_with_its_cause() {
    for name in [
        "rstest_hangs::case_1_first",
        "serial_hangs",
        "test_log_hangs",
        "paused_hangs",
        "current_thread_hangs",
    ] {
        let mut command = std::process::Command::new(std::env::current_exe().expect("this program"));
        command.args(["--exact", name, "--ignored"]).env_remove("DELOUSE_TEST_TIMEOUT");
        let output = command.env_remove("RUST_BACKTRACE").output().expect("it runs");
        let out = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(101), "{name}: {out}");
        let message = out.split(" panicked at ").nth(1).and_then(|text| text.split_once('\n'));
        let mut lines = message.unwrap_or_else(|| panic!("{name}: {out}")).1.lines();
        let (first, second) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
        assert!(first.contains("eaked tasks: ") && first.contains("together::hangs"), "{name}: {first}");
        assert!(second.contains("did not end within 1s; the report is in "), "{name}: {second}");
    }
}
