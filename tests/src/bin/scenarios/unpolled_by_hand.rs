//! Combinators that were written by hand: that they do not poll a future is known by its timer, which is over.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::{Stream, StreamExt, stream};
use tokio::sync::{Mutex, Semaphore};

use crate::harness::{self, Case, DAY, faulty, healthy};

pub(crate) const CASES: &[Case] = &[
    faulty!(permits_behind_a_body: "deadlock" | "futurelock", says "seems not to poll"),
    faulty!(lock_of_a_replaced_future: "deadlock" | "futurelock", says "seems not to poll"),
    faulty!(permits_of_an_either: "deadlock" | "futurelock", says "seems not to poll"),
    healthy!(body_that_waits_for_the_clock),
    healthy!(body_that_waits_for_another_task),
    healthy!(body_beside_items_that_are_polled),
];

/// Runs a body for each item of a stream. `Beside` polls the items meanwhile, `Alone` does not.
struct Bodies<S, F, B> {
    items: Pin<Box<S>>,
    body: F,
    current: Option<Pin<Box<B>>>,
    polls: Polls,
}

#[derive(Clone, Copy, PartialEq)]
enum Polls {
    Alone,
    Beside,
}

impl<S: Stream, F: FnMut() -> B + Unpin, B: Future<Output = ()>> Future for Bodies<S, F, B> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        loop {
            if let Some(current) = &mut this.current {
                if current.as_mut().poll(context).is_ready() {
                    this.current = None;
                } else if this.polls == Polls::Beside {
                    let _ = this.items.as_mut().poll_next(context);
                    return Poll::Pending;
                } else {
                    return Poll::Pending;
                }
            }
            match this.items.as_mut().poll_next(context) {
                Poll::Ready(Some(_)) => this.current = Some(Box::pin((this.body)())),
                Poll::Ready(None) => return Poll::Ready(()),
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

fn bodies<S: Stream, F: FnMut() -> B + Unpin, B: Future<Output = ()>>(
    items: S,
    body: F,
    polls: Polls,
) -> impl Future<Output = ()> {
    Bodies { items: Box::pin(items), body, current: None, polls }
}

async fn item(n: u32, database: Arc<Semaphore>, lasts: Duration) -> u32 {
    if n > 0 {
        let _permit = database.acquire().await.unwrap();
        tokio::time::sleep(lasts).await;
    }
    n
}

async fn needs_permit(database: Arc<Semaphore>) {
    harness::affected("needs_permit");
    let _permit = database.acquire().await.unwrap();
}

fn items(database: &Arc<Semaphore>, lasts: Duration) -> impl Stream<Item = u32> + use<> {
    let database = database.clone();
    stream::iter(0..20).map(move |n| item(n, database.clone(), lasts)).buffer_unordered(4)
}

const SHORT: Duration = Duration::from_millis(50);

async fn permits_behind_a_body() {
    tokio::spawn(async {
        let database = Arc::new(Semaphore::new(3));
        bodies(items(&database, SHORT), || needs_permit(database.clone()), Polls::Alone).await;
    });
    harness::ready(1).await;
}

async fn lock_of_a_replaced_future() {
    tokio::spawn(async {
        let lock = Arc::new(Mutex::new(0));
        let (first, second) = (lock.clone(), lock);
        let first = async move {
            let guard = first.lock_owned().await;
            tokio::time::sleep(SHORT).await;
            drop(guard);
        };
        Replaces { first: Box::pin(first), second: Box::pin(needs_lock(second)), polled: 0 }.await;
    });
    harness::ready(1).await;
}

async fn needs_lock(lock: Arc<Mutex<u32>>) {
    harness::affected("needs_lock");
    drop(lock.lock().await);
}

/// Polls the second future, as soon as it is there, in place of the first.
struct Replaces<A, B> {
    first: Pin<Box<A>>,
    second: Pin<Box<B>>,
    polled: u32,
}

impl<A: Future<Output = ()>, B: Future<Output = ()>> Future for Replaces<A, B> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        self.polled += 1;
        if self.polled == 1 {
            context.waker().wake_by_ref();
            return self.first.as_mut().poll(context);
        }
        self.second.as_mut().poll(context)
    }
}

async fn permits_of_an_either() {
    tokio::spawn(async {
        let database = Arc::new(Semaphore::new(1));
        let (first, second) = (database.clone(), database);
        let first = async move {
            let _permit = first.acquire().await.unwrap();
            tokio::time::sleep(SHORT).await;
        };
        Replaces { first: Box::pin(first), second: Box::pin(needs_permit(second)), polled: 0 }.await;
    });
    harness::ready(1).await;
}

/// The timers of the items are over, but the body will go on.
async fn body_that_waits_for_the_clock() {
    tokio::spawn(async {
        let database = Arc::new(Semaphore::new(3));
        let body = || async {
            harness::waits();
            tokio::time::sleep(DAY).await;
        };
        bodies(items(&database, SHORT), body, Polls::Alone).await;
    });
    harness::ready(1).await;
    tokio::time::sleep(DAY).await;
}

async fn body_that_waits_for_another_task() {
    let lock = Arc::new(Mutex::new(0));
    let held = lock.clone().lock_owned().await;
    tokio::spawn(async move {
        tokio::time::sleep(DAY).await;
        drop(held);
    });
    tokio::spawn(async move {
        let database = Arc::new(Semaphore::new(3));
        let body = || {
            let lock = lock.clone();
            async move {
                harness::waits();
                drop(lock.lock().await);
            }
        };
        bodies(items(&database, SHORT), body, Polls::Alone).await;
    });
    harness::ready(1).await;
}

async fn body_beside_items_that_are_polled() {
    tokio::spawn(async {
        let database = Arc::new(Semaphore::new(3));
        let needs = || {
            let database = database.clone();
            async move {
                harness::waits();
                let _permit = database.acquire().await.unwrap();
            }
        };
        bodies(items(&database, DAY), needs, Polls::Beside).await;
    });
    harness::ready(1).await;
}
