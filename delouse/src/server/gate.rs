//! One heavy capture at a time: requests for the same thing share it, others are told to come back.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::error::ApiError;
use super::{readers, thread};
use crate::snapshot::files;
use crate::snapshot::room::Question;

/// The one place for captures.
#[derive(Default, Clone)]
pub(crate) struct Gate {
    running: Arc<Mutex<Option<Running>>>,
    /// Frees what is kept for the next capture.
    release: Option<Arc<dyn Fn() + Send + Sync>>,
}

/// The gate is shut; dropped, it opens.
pub(crate) struct Permit {
    gate: Gate,
    _question: Question,
}

impl Drop for Permit {
    fn drop(&mut self) {
        *self.gate.lock() = None;
    }
}

/// A capture that has not ended.
struct Running {
    /// What is captured, with all that makes a difference to the answer.
    key: String,
    /// A `Receiver<T>` of the `T` that goes with the key.
    outcome: Box<dyn Any + Send>,
}

type Outcome<T> = Option<Result<Arc<T>, ApiError>>;

impl Gate {
    /// One that calls `release` after captures which leave the program little memory.
    pub(crate) fn new(release: impl Fn() + Send + Sync + 'static) -> Self {
        Self { release: Some(Arc::new(release)), ..Self::default() }
    }

    /// Runs `capture` on a thread of its own, or joins the one of the same key that runs already.
    ///
    /// The capture does not depend on who asked for it: a client that goes away leaves it to finish, and
    /// the gate opens when it has.
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
            if outcome.changed().await.is_err() {
                return Err(ApiError::Failed("the capture's thread is gone".to_owned()));
            }
        }
    }

    /// Keeps all captures out for as long as the permit lives: for one that is not shared.
    pub(crate) fn hold(&self, key: &str) -> Result<Permit, ApiError> {
        let question = Question::begin();
        room()?;
        let mut running = self.lock();
        if let Some(current) = running.as_ref() {
            return Err(ApiError::Busy { running: current.key.clone() });
        }
        *running = Some(Running { key: key.to_owned(), outcome: Box::new(()) });
        Ok(Permit { gate: self.clone(), _question: question })
    }

    fn join_or_start<T, F>(&self, key: String, capture: F) -> Result<watch::Receiver<Outcome<T>>, ApiError>
    where
        T: Send + Sync + 'static,
        F: FnOnce() -> Result<T, ApiError> + Send + 'static,
    {
        let mut running = self.lock();
        if let Some(current) = running.as_ref() {
            let same = if current.key == key { current.outcome.downcast_ref() } else { None };
            return same.cloned().ok_or_else(|| ApiError::Busy { running: current.key.clone() });
        }
        readers::room()?;
        let question = Question::begin();
        room()?;
        let (done, outcome) = watch::channel(None);
        let gate = self.clone();
        let body = move || {
            let release = gate.release.clone();
            let permit = Permit { gate, _question: Question::begin() };
            let result = catch_unwind(AssertUnwindSafe(capture))
                .unwrap_or_else(|_| Err(ApiError::Failed("the capture panicked".to_owned())));
            // Open before the answer is known: who has it can ask for the next one.
            drop(permit);
            done.send_replace(Some(result.map(Arc::new)));
            if let Some(release) = release.filter(|_| question.should_give_back()) {
                release();
            }
        };
        *running = Some(Running { key, outcome: Box::new(outcome.clone()) });
        drop(running);
        spawn_or_run(body);
        Ok(outcome)
    }

    fn lock(&self) -> MutexGuard<'_, Option<Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs `body` on a thread of its own, or right here where no thread can be had: a program that has used
/// up its threads is one that somebody wants to look into, and our own thread can wait.
fn spawn_or_run(body: impl FnOnce() + Send + 'static) {
    fn run(body: &Mutex<Option<impl FnOnce()>>) {
        let body = body.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(body) = body {
            body();
        }
    }
    let body = Arc::new(Mutex::new(Some(body)));
    let theirs = Arc::clone(&body);
    if thread::spawn("delouse-capture", move || run(&theirs)).is_err() {
        run(&body);
    }
}

/// Whether there is room for a capture: address space for a thread, and files (`RLIMIT_NOFILE`), of which a program that has
/// none left to open may fail.
pub(crate) fn room() -> Result<(), ApiError> {
    files::spare().map_err(|left| ApiError::NoFiles { left })?;
    thread::room()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
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

    #[tokio::test]
    async fn a_panic_is_an_answer_and_the_gate_opens() {
        let gate = Gate::default();
        let answer = gate.run::<(), _>("a".to_owned(), || panic!("oops")).await;
        assert_eq!(answer, Err(ApiError::Failed("the capture panicked".to_owned())));
        assert!(gate.run("b".to_owned(), || Ok(())).await.is_ok());
    }

    #[tokio::test]
    async fn a_client_that_goes_away_leaves_nothing_locked() {
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
        // The gate opens right after the capture; the same key either joins its last moment or runs anew.
        while matches!(gate.run::<(), _>("b".to_owned(), || Ok(())).await, Err(ApiError::Busy { .. })) {
            tokio::task::yield_now().await;
        }
    }
}
