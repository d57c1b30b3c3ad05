//! Runs one capture at a time. Identical requests share a capture; others are refused and can be repeated.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::error::ApiError;
use super::readers;
use crate::host::descriptor_reserve::DescriptorPermit;
use crate::host::lock::lock;
use crate::host::memory_budget::ActiveRequest;
use crate::own_threads::{capture_permit, spawn};
use crate::snapshot::OwnThread;

/// How long a client waits before the program's stderr says why.
const SLOW: Duration = Duration::from_secs(1);
/// The time between attempts while another capture is in progress.
const AGAIN: Duration = Duration::from_millis(50);

/// The lock for captures.
#[derive(Default, Clone)]
pub(crate) struct Gate {
    running: Arc<Mutex<Option<Running>>>,
    /// Drops caches that are kept for the next capture.
    release: Option<Arc<dyn Fn() + Send + Sync>>,
    /// Called once, when a client has waited for [`SLOW`] for the first time.
    slow: Option<Arc<dyn Fn() + Send + Sync>>,
    is_slow: Arc<AtomicBool>,
}

/// Holds the gate closed until dropped.
pub(crate) struct Permit {
    gate: Gate,
    _request: ActiveRequest,
    files: Option<DescriptorPermit>,
}

impl Drop for Permit {
    fn drop(&mut self) {
        // Before the next capture needs the descriptors.
        drop(self.files.take());
        *lock(&self.gate.running) = None;
    }
}

/// A capture in progress.
struct Running {
    /// Endpoint and parameters: requests with the same key have the same answer.
    key: String,
    /// A `Receiver<Outcome<T>>`. The key determines `T`.
    outcome: Box<dyn Any + Send>,
}

type Outcome<T> = Option<Result<Arc<T>, ApiError>>;

impl Gate {
    /// A gate that calls `release` after captures that leave the program little memory, and `slow` once when a client has
    /// waited for longer than a second.
    pub(crate) fn new(
        release: impl Fn() + Send + Sync + 'static,
        slow: impl Fn() + Send + Sync + 'static,
    ) -> Self {
        Self { release: Some(Arc::new(release)), slow: Some(Arc::new(slow)), ..Self::default() }
    }

    /// Runs `capture` on its own thread, or waits for a capture with the same key that is in progress.
    ///
    /// If the client disconnects, the capture continues, and the gate opens when it ends.
    pub(crate) async fn run<T, F>(&self, key: String, capture: F) -> Result<Arc<T>, ApiError>
    where
        T: Send + Sync + 'static,
        F: FnOnce() -> Result<T, ApiError> + Send + 'static,
    {
        let mut outcome = self.join_or_start(key, capture)?;
        loop {
            if let Some(result) = outcome.borrow_and_update().clone() {
                return result;
            }
            let changed = match tokio::time::timeout(SLOW, outcome.changed()).await {
                Ok(changed) => changed,
                Err(_elapsed) => {
                    if let Some(slow) =
                        self.slow.as_ref().filter(|_| !self.is_slow.swap(true, Ordering::Relaxed))
                    {
                        slow();
                    }
                    outcome.changed().await
                }
            };
            if changed.is_err() {
                return Err(ApiError::Failed("the capture's thread has ended".to_owned()));
            }
        }
    }

    /// The same, but waits for up to `patience` while another capture is in progress.
    pub(crate) async fn run_within<T, F>(
        &self,
        patience: Duration,
        key: &str,
        capture: impl Fn() -> F,
    ) -> Result<Arc<T>, ApiError>
    where
        T: Send + Sync + 'static,
        F: FnOnce() -> Result<T, ApiError> + Send + 'static,
    {
        let begun = Instant::now();
        loop {
            match self.run(key.to_owned(), capture()).await {
                Err(ApiError::Busy { .. }) if begun.elapsed() < patience => tokio::time::sleep(AGAIN).await,
                outcome => return outcome,
            }
        }
    }

    /// Closes the gate until the permit is dropped, for a capture that is not shared.
    pub(crate) fn hold(&self, key: &str) -> Result<Permit, ApiError> {
        let mut running = lock(&self.running);
        if let Some(current) = running.as_ref() {
            return Err(ApiError::Busy { running: current.key.clone() });
        }
        let request = ActiveRequest::begin();
        let files = capture_permit()?;
        *running = Some(Running { key: key.to_owned(), outcome: Box::new(()) });
        Ok(Permit { gate: self.clone(), _request: request, files: Some(files) })
    }

    fn join_or_start<T, F>(&self, key: String, capture: F) -> Result<watch::Receiver<Outcome<T>>, ApiError>
    where
        T: Send + Sync + 'static,
        F: FnOnce() -> Result<T, ApiError> + Send + 'static,
    {
        let mut running = lock(&self.running);
        if let Some(current) = running.as_ref() {
            let same = if current.key == key { current.outcome.downcast_ref() } else { None };
            return same.cloned().ok_or_else(|| ApiError::Busy { running: current.key.clone() });
        }
        readers::check()?;
        let request = ActiveRequest::begin();
        let files = capture_permit()?;
        let (done, outcome) = watch::channel(None);
        let gate = self.clone();
        let body = move || {
            let release = gate.release.clone();
            let permit = Permit { gate, _request: ActiveRequest::begin(), files: Some(files) };
            let result = catch_unwind(AssertUnwindSafe(capture))
                .unwrap_or_else(|_| Err(ApiError::Failed("the capture panicked".to_owned())));
            // Open the gate before publishing the answer, so that a client that has it can send its next request at once.
            drop(permit);
            done.send_replace(Some(result.map(Arc::new)));
            if let Some(release) = release.filter(|_| request.should_release()) {
                release();
            }
        };
        *running = Some(Running { key, outcome: Box::new(outcome.clone()) });
        drop(running);
        spawn_or_run(body);
        Ok(outcome)
    }
}

/// Runs `body` on its own thread. If no thread can be started, runs it on the calling thread, which blocks the server: a
/// program that has reached its limit of threads should still be diagnosed.
fn spawn_or_run(body: impl FnOnce() + Send + 'static) {
    fn run(body: &Mutex<Option<impl FnOnce()>>) {
        let body = lock(body).take();
        if let Some(body) = body {
            body();
        }
    }
    let body = Arc::new(Mutex::new(Some(body)));
    let shared = Arc::clone(&body);
    if spawn(OwnThread::Capture, move || run(&shared)).is_err() {
        run(&body);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;
    use std::sync::mpsc;

    #[tokio::test]
    async fn same_requests_share_and_others_are_refused() {
        let gate = Gate::default();
        let (open, wait) = mpsc::channel::<()>();
        let runs = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&runs);
        let first = gate.join_or_start("tasks".to_owned(), move || {
            count.fetch_add(1, Ordering::SeqCst);
            wait.recv().unwrap();
            Ok(7)
        });
        let third = gate.run::<i32, _>("threads".to_owned(), || panic!("must be refused"));
        assert_eq!(third.await, Err(ApiError::Busy { running: "tasks".to_owned() }));
        drop(first);
        let joined = gate.join_or_start::<i32, _>("tasks".to_owned(), || panic!("must join the first"));
        let second = tokio::spawn(async move {
            let mut outcome = joined.unwrap();
            outcome.wait_for(Option::is_some).await.unwrap().clone().unwrap()
        });
        open.send(()).unwrap();
        assert_eq!(*second.await.unwrap().unwrap(), 7);
        assert_eq!(runs.load(Ordering::SeqCst), 1);
        assert_eq!(*gate.run("threads".to_owned(), || Ok("free again")).await.unwrap(), "free again");
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_slow_capture_is_reported_once() {
        let reports = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&reports);
        let gate = Gate::new(
            || {},
            move || {
                count.fetch_add(1, Ordering::SeqCst);
            },
        );
        for _ in 0..2 {
            let (open, wait) = mpsc::channel::<()>();
            let asked = gate.run("a".to_owned(), move || {
                wait.recv().unwrap();
                Ok(())
            });
            // Time is advanced while nothing else is ready.
            let answer = async {
                tokio::time::sleep(SLOW * 2).await;
                open.send(()).unwrap();
            };
            assert!(tokio::join!(asked, answer).0.is_ok());
        }
        assert_eq!(reports.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn a_panic_is_an_error_and_the_gate_opens() {
        let gate = Gate::default();
        let answer = gate.run::<(), _>("a".to_owned(), || panic!("oops")).await;
        assert_eq!(answer, Err(ApiError::Failed("the capture panicked".to_owned())));
        assert!(gate.run("b".to_owned(), || Ok(())).await.is_ok());
    }

    #[tokio::test]
    async fn the_gate_opens_after_a_client_disconnects() {
        let gate = Gate::default();
        let (open, wait) = mpsc::channel::<()>();
        let (left, gone) = mpsc::channel::<()>();
        {
            let asked = gate.run("a".to_owned(), move || {
                wait.recv().unwrap();
                left.send(()).unwrap();
                Ok(())
            });
            tokio::select! { biased; _ = asked => unreachable!(), () = std::future::ready(()) => {} }
        }
        assert!(matches!(gate.run::<(), _>("b".to_owned(), || Ok(())).await, Err(ApiError::Busy { .. })));
        open.send(()).unwrap();
        gone.recv().unwrap();
        // The gate opens shortly after the capture. Until then, a request with another key is refused.
        while matches!(gate.run::<(), _>("b".to_owned(), || Ok(())).await, Err(ApiError::Busy { .. })) {
            tokio::task::yield_now().await;
        }
    }
}
