//! A thread that measures how long a test takes, whatever its runtime does, and makes it fail.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;

use super::report;
use super::test::{Phase, Test, fail, print};

/// How long after its timeout a test waits for the end of its runtime: the report shows what that waits for meanwhile.
pub(super) const SHUTDOWN: Duration = Duration::from_secs(5);
/// How long a runtime may take to react to a verdict.
const REACTION: Duration = Duration::from_secs(2);
/// How long the panic's message may take: with RUST_BACKTRACE, the names of the frames are read from the program's debug
/// information, which takes seconds if that is large and the machine busy.
const MESSAGE: Duration = Duration::from_secs(30);

#[derive(Default)]
struct State {
    phase: Phase,
    /// The waker of the body.
    waker: Option<Waker>,
    /// The time is over: there is a verdict, or there will be one.
    is_late: bool,
    verdict: Option<String>,
    /// The body has panicked with it, or is about to.
    is_told: bool,
    /// The panic's message is being printed.
    is_printed: bool,
}

impl State {
    /// What changes as long as the runtime reacts.
    fn step(&self) -> (Phase, bool) {
        (self.phase, self.is_printed)
    }

    /// How long this step may take when there is a verdict.
    fn patience(&self) -> Duration {
        match self.step() {
            (_, true) => MESSAGE,
            (Phase::Shutdown, _) => REACTION + SHUTDOWN,
            (Phase::Body | Phase::Over, _) => REACTION,
        }
    }
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

impl Shared {
    /// The state is valid at any time, so that a poisoned lock can be ignored.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `is_met`, or `deadline`.
    fn wait<'s>(
        &self,
        mut state: MutexGuard<'s, State>,
        deadline: Instant,
        is_met: impl Fn(&State) -> bool,
    ) -> MutexGuard<'s, State> {
        while !is_met(&state) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            state = match self.changed.wait_timeout(state, left) {
                Ok((state, _)) => state,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
        state
    }
}

/// The watchdog of a test. Its thread ends with the test.
pub(super) struct Watchdog(Arc<Shared>);

impl Watchdog {
    /// Starts it. `None` if there is no thread for it: the test runs without.
    pub(super) fn start(test: &Test, limit: Duration, runtime: Handle) -> Option<Self> {
        let shared = Arc::new(Shared::default());
        let (theirs, test, deadline) = (Arc::clone(&shared), test.clone(), Instant::now() + limit);
        let body = move || watch(&theirs, &test, limit, deadline, &runtime);
        match report::spawn_waiting(body) {
            Ok(()) => Some(Self(shared)),
            Err(error) => {
                print(&format!("delouse: no timeout: there is no thread for it: {error}\n"));
                None
            }
        }
    }

    /// What follows is the shutdown of the runtime. Returns whether the body was too late.
    pub(super) fn body_has_ended(&self) -> bool {
        let mut state = self.0.lock();
        state.phase = Phase::Shutdown;
        state.waker = None;
        self.0.changed.notify_all();
        state.is_late
    }

    /// The runtime has been shut down: returns the verdict, if that or the body took too long.
    pub(super) fn end(&self) -> Option<String> {
        let mut state = self.0.lock();
        while state.is_late && state.verdict.is_none() {
            state = self.0.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.phase = Phase::Over;
        self.0.changed.notify_all();
        state.verdict.clone().filter(|_| !state.is_told)
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.0.lock().phase = Phase::Over;
        self.0.changed.notify_all();
    }
}

/// The watchdog's thread.
fn watch(shared: &Shared, test: &Test, limit: Duration, deadline: Instant, runtime: &Handle) {
    let mut state = shared.wait(shared.lock(), deadline, |state| state.phase == Phase::Over);
    if state.phase == Phase::Over {
        return;
    }
    state.is_late = true;
    let phase = state.phase;
    drop(state);
    let verdict = report::make_late(test, &test.late(phase, limit), runtime);
    let mut state = shared.lock();
    state.verdict = Some(verdict);
    if let Some(waker) = state.waker.take() {
        waker.wake();
    }
    shared.changed.notify_all();
    // From the body to its panic, to the shutdown, and from there to the end.
    while state.phase != Phase::Over {
        let step = state.step();
        let deadline = Instant::now() + state.patience();
        state = shared.wait(state, deadline, |state| state.step() != step);
        if state.step() == step {
            let text = state.verdict.clone().unwrap_or_default();
            print(&format!(
                "{text}\ndelouse: test `{}`: its runtime does not react, so that the whole process ends\n",
                test.name
            ));
            std::process::abort();
        }
    }
}

/// Dropped when a panic's message has been printed, and the stack is unwound.
struct Printing<'s>(&'s Shared);

impl Drop for Printing<'_> {
    fn drop(&mut self) {
        self.0.lock().is_printed = false;
        self.0.changed.notify_all();
    }
}

/// The body of a test, which panics when the watchdog has a verdict.
pub(super) struct Watched<'f, F> {
    body: Pin<&'f mut F>,
    shared: Arc<Shared>,
}

impl<'f, F> Watched<'f, F> {
    pub(super) fn new(body: Pin<&'f mut F>, watchdog: &Watchdog) -> Self {
        Self { body, shared: Arc::clone(&watchdog.0) }
    }
}

impl<F: Future> Future for Watched<'_, F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let mut state = self.shared.lock();
        if let Some(verdict) = state.verdict.clone() {
            (state.is_told, state.is_printed) = (true, true);
            self.shared.changed.notify_all();
            drop(state);
            let _printing = Printing(&self.shared);
            fail(&verdict);
        }
        match &mut state.waker {
            Some(waker) => waker.clone_from(context.waker()),
            none => *none = Some(context.waker().clone()),
        }
        drop(state);
        self.body.as_mut().poll(context)
    }
}
