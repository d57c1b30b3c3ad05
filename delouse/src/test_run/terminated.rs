//! SIGTERM while tests run: their reports, then the end. nextest sends it to a test that takes too long, and SIGKILL ten
//! seconds later.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, mpsc};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;

use super::report;
use super::test::{Test, print};
use crate::duration;
use crate::snapshot::OwnThread;
use crate::targets::{self, SignalWakes, TermSignals};

/// How long the report may take before the process ends without it: less than the time that nextest leaves by default.
const GRACE: Duration = Duration::from_secs(8);
/// Overrides that, for runners that leave more time.
const VARIABLE: &str = "DELOUSE_TEST_GRACE";
/// How long one wait for a signal lasts; it is repeated.
const LONG: Duration = Duration::from_secs(3600);

/// The tests that run.
static RUNNING: Mutex<Vec<Running>> = Mutex::new(Vec::new());
/// There is a thread that waits for the signal.
static IS_AWAITED: AtomicBool = AtomicBool::new(false);

#[derive(Debug, Clone)]
struct Running {
    test: Test,
    begun: Instant,
    runtime: Handle,
}

/// The state is valid at any time, so that a poisoned lock can be ignored.
fn running() -> MutexGuard<'static, Vec<Running>> {
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A test of which SIGTERM prints a report, until this is dropped. A handler of the program wins.
#[derive(Debug)]
pub(super) struct Terminable {
    runtime: Handle,
    _signals: Option<TermSignals>,
}

impl Terminable {
    /// Without a thread for it, SIGTERM ends the process at once, as by default.
    pub(super) fn new(test: &Test, runtime: &Handle) -> Self {
        let seen = SignalWakes::count();
        let is_awaited = IS_AWAITED.swap(true, Ordering::AcqRel) || {
            let body = move || wait(seen);
            let thread = OwnThread::Term.builder();
            targets::with_signals_blocked(|| thread.spawn(body)).is_ok()
        };
        IS_AWAITED.store(is_awaited, Ordering::Release);
        running().push(Running { test: test.clone(), begun: Instant::now(), runtime: runtime.clone() });
        let signals = if is_awaited { targets::defer_term() } else { None };
        Self { runtime: runtime.clone(), _signals: signals }
    }
}

impl Drop for Terminable {
    fn drop(&mut self) {
        running().retain(|running| running.runtime.id() != self.runtime.id());
    }
}

fn wait(mut seen: u32) {
    while !TermSignals::is_deferred() {
        seen = SignalWakes::wait(seen, LONG);
    }
    let tests = running().clone();
    let grace = std::env::var(VARIABLE).ok().and_then(|text| duration::parse(&text)).unwrap_or(GRACE);
    let (done, is_done) = mpsc::sync_channel(1);
    let body = move || {
        for Running { test, begun, runtime } in tests {
            let after = begun.elapsed().as_secs_f32();
            let why = format!("test `{}` was ended by SIGTERM after {after:.1} s", test.name);
            print(&format!("{}\n", report::make(&test, &why, &runtime)));
        }
        let _late = done.send(());
    };
    if report::spawn(body).is_ok() && is_done.recv_timeout(grace).is_err() {
        print("delouse: SIGTERM: the report has taken too long\n");
    }
    targets::end_by_sigterm();
}
