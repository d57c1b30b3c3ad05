//! What `#[delouse::test]` expands to: a test on a runtime of its own, with a watchdog.

#[cfg(feature = "dump")]
mod terminated;
mod test;
mod watchdog;

#[cfg(feature = "dump")]
mod report;
#[cfg(not(feature = "dump"))]
#[path = "test_run/no_report.rs"]
mod report;

use std::future::Future;
use std::pin::Pin;
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Handle, LocalRuntime, Runtime};

pub use test::{Leaks, Test};
use test::{fail, print};
use watchdog::{SHUTDOWN, Watchdog, Watched};

/// How long a test that has failed waits for the end of its runtime.
const SHUTDOWN_OF_FAILED: Duration = Duration::from_secs(1);

/// Called by the expansion of `#[delouse::test]` for the flavors `multi_thread` and `current_thread`.
///
/// # Panics
/// If the runtime cannot be built, if the body panics, and if the test takes too long.
pub fn run_test<F: Future>(builder: &mut Builder, test: Test, body: F) -> F::Output {
    #[expect(clippy::expect_used, reason = "what #[tokio::test] does, word for word")]
    let runtime = builder.build().expect("Failed building the Runtime");
    execute(runtime, &test, body)
}

/// Called by the expansion of `#[delouse::test]` for the flavor `local`.
///
/// # Panics
/// As [`run_test`].
pub fn run_test_local<F: Future>(builder: &mut Builder, test: Test, body: F) -> F::Output {
    #[expect(clippy::expect_used, reason = "what #[tokio::test] does, word for word")]
    let runtime = builder.build_local(Default::default()).expect("Failed building the Runtime");
    execute(runtime, &test, body)
}

/// A runtime that a test owns.
trait Owned {
    fn handle(&self) -> &Handle;
    fn drive<F: Future>(&self, future: F) -> F::Output;
    fn shutdown_timeout(self, time: Duration);
}

impl Owned for Runtime {
    fn handle(&self) -> &Handle {
        Self::handle(self)
    }

    fn drive<F: Future>(&self, future: F) -> F::Output {
        Self::block_on(self, future)
    }

    fn shutdown_timeout(self, time: Duration) {
        Self::shutdown_timeout(self, time);
    }
}

impl Owned for LocalRuntime {
    fn handle(&self) -> &Handle {
        Self::handle(self)
    }

    fn drive<F: Future>(&self, future: F) -> F::Output {
        Self::block_on(self, future)
    }

    fn shutdown_timeout(self, time: Duration) {
        Self::shutdown_timeout(self, time);
    }
}

fn execute<R: Owned, F: Future>(runtime: R, test: &Test, body: F) -> F::Output {
    let limit = test.limit();
    let body = Box::pin(body);
    let registered = report::Registered::new(runtime.handle(), body.as_ref().get_ref());
    #[cfg(feature = "dump")]
    let _terminable = terminated::Terminable::new(test, runtime.handle());
    let watchdog = limit.and_then(|limit| Watchdog::start(test, limit, runtime.handle().clone()));
    let deadline = limit.map(|limit| Instant::now() + limit);
    let ending = Ending { runtime: Some(runtime), watchdog, deadline };
    let result = {
        // Values that the body owns may spawn tasks when they are dropped.
        let handle = ending.handle();
        let _inside = handle.as_ref().map(Handle::enter);
        let mut body = body;
        let _registered = registered;
        ending.run(body.as_mut())
    };
    let left = ending.left_over(test);
    ending.end();
    match left {
        Some(text) if test.leaks == Leaks::Fail => fail(&text),
        Some(text) => print(&format!("delouse: test `{}`: {text}\n", test.name)),
        None => {}
    }
    result
}

/// The end of a test, also by a panic: its runtime is shut down before the watchdog is let go.
struct Ending<R: Owned> {
    runtime: Option<R>,
    watchdog: Option<Watchdog>,
    deadline: Option<Instant>,
}

impl<R: Owned> Ending<R> {
    fn handle(&self) -> Option<Handle> {
        self.runtime.as_ref().map(|runtime| runtime.handle().clone())
    }

    /// Drives the body. Panics if it takes too long.
    fn run<F: Future>(&self, body: Pin<&mut F>) -> F::Output {
        let Some(runtime) = &self.runtime else { unreachable!("it is taken at the end") };
        match &self.watchdog {
            Some(watchdog) => runtime.drive(Watched::new(body, watchdog)),
            None => runtime.drive(body),
        }
    }

    /// The tasks that are left, if the test says what happens then.
    fn left_over(&self, test: &Test) -> Option<String> {
        if test.leaks == Leaks::Off {
            return None;
        }
        let handle = self.handle()?;
        // tokio counts a task until its future is dropped.
        match handle.metrics().num_alive_tasks() {
            0 => None,
            count => Some(report::left_over(test, &handle, count)),
        }
    }

    /// Shuts the runtime down. Panics if that takes too long.
    fn end(mut self) {
        if let Some(verdict) = self.shut_down() {
            fail(&verdict);
        }
    }

    /// Shuts the runtime down, and returns the watchdog's verdict, if it took too long.
    fn shut_down(&mut self) -> Option<String> {
        let runtime = self.runtime.take()?;
        let Some((watchdog, deadline)) = self.watchdog.as_ref().zip(self.deadline) else {
            drop(runtime);
            return None;
        };
        let has_failed = watchdog.body_has_ended();
        let left = deadline.saturating_duration_since(Instant::now());
        runtime.shutdown_timeout(left + if has_failed { SHUTDOWN_OF_FAILED } else { SHUTDOWN });
        watchdog.end()
    }
}

impl<R: Owned> Drop for Ending<R> {
    /// After a panic of the body: a second one would end the process.
    fn drop(&mut self) {
        if let Some(verdict) = self.shut_down() {
            print(&format!("delouse: {verdict}\n"));
        }
    }
}
