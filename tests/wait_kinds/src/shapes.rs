//! Shapes of futures: combinators, macros, boxes, generics, futures written by hand.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt, TryFutureExt};
use futures::stream::{FuturesOrdered, FuturesUnordered, StreamExt};
use tokio::sync::{Mutex, Notify, mpsc, oneshot};

use crate::cases::Cases;

/// One task of every shape.
pub(crate) fn spawn(cases: &Cases) {
    cases.spawn(select);
    cases.spawn(select_biased_by_hand);
    cases.spawn(select_disabled);
    cases.spawn(join);
    cases.spawn(try_join);
    cases.spawn(join_all);
    cases.spawn(join_all_many);
    cases.spawn(futures_unordered);
    cases.spawn(futures_ordered);
    cases.spawn(futures_select);
    cases.spawn(futures_join);
    cases.spawn(map_then);
    cases.spawn(shared);
    cases.spawn(boxed);
    cases.spawn(recursive);
    cases.spawn(generic::<u64>);
    cases.spawn(methods);
    cases.spawn(by_trait);
    cases.spawn(closure);
    cases.spawn(async_closure);
    cases.spawn(|cases| async move {
        cases.waits("block", "notify");
        Notify::new().notified().await;
    });
    cases.spawn(hand_written);
    cases.spawn(pinned_sleep);
    cases.spawn(large);
    cases.spawn(stream_next);
    cases.spawn(stream_collect);
    cases.spawn(buffer_unordered);
    cases.spawn(futures_channel);
    cases.spawn(futures_oneshot);
    cases.spawn(async_channel_recv);
    cases.spawn(flume_recv);
    cases.spawn(flume_send);
    cases.spawn(poll_fn);
    cases.spawn(pending);
    cases.spawn(wrapped_in_timeout);
    cases.spawn(gat);
    cases.spawn(async_fn_in_trait);
    cases.spawn(instrumented);
    cases.spawn(tower_limit);
    cases.spawn(tower_timeout);
    cases.spawn(framed);
    cases.spawn(run_until_cancelled);
    cases.spawn(tracker);
    cases.spawn(abortable);
    cases.spawn(select_all);
    cases.spawn(stream_select_all);
    cases.spawn(for_each_concurrent);
    cases.spawn(futures_mutex);
    cases.spawn(small_vec_inline);
    cases.spawn(small_vec_spilled);
    cases.spawn(emptied_branches);
}

async fn leaf() {
    Notify::new().notified().await;
}

async fn number() -> u32 {
    Notify::new().notified().await;
    1
}

async fn select(cases: Cases) {
    let (_tx, mut rx) = mpsc::channel::<u8>(1);
    cases.waits("select", "channel_recv");
    tokio::select! {
        _ = rx.recv() => {}
        _ = leaf() => {}
        _ = tokio::time::sleep(Duration::from_secs(86_400)) => {}
    }
}

async fn select_biased_by_hand(cases: Cases) {
    let mutex = Arc::new(Mutex::new(()));
    let _held = mutex.clone().lock_owned().await;
    let mut first = std::pin::pin!(leaf());
    cases.waits("select_biased_by_hand", "mutex");
    tokio::select! {
        biased;
        _ = &mut first => {}
        _ = mutex.lock() => {}
    }
}

async fn select_disabled(cases: Cases) {
    let mutex = Arc::new(Mutex::new(()));
    let _held = mutex.clone().lock_owned().await;
    let never = std::hint::black_box(false);
    cases.waits("select_disabled", "mutex");
    tokio::select! {
        () = tokio::time::sleep(Duration::from_secs(86_400)), if never => {}
        _ = mutex.lock() => {}
        () = leaf(), if never => {}
    }
}

async fn join(cases: Cases) {
    cases.waits("join", "notify");
    tokio::join!(leaf(), number());
}

async fn try_join(cases: Cases) {
    cases.waits("try_join", "notify");
    let _ = tokio::try_join!(leaf().map(Ok::<(), ()>), number().map(Ok));
}

async fn join_all(cases: Cases) {
    cases.waits("join_all", "notify");
    futures::future::join_all([leaf(), leaf(), leaf()]).await;
}

async fn join_all_many(cases: Cases) {
    cases.waits("join_all_many", "notify");
    futures::future::join_all((0..40).map(|_| leaf())).await;
}

async fn futures_unordered(cases: Cases) {
    let mut all: FuturesUnordered<_> = (0..3).map(|_| leaf()).collect();
    cases.waits("futures_unordered", "notify");
    all.next().await;
}

async fn futures_ordered(cases: Cases) {
    let mut all: FuturesOrdered<_> = (0..3).map(|_| number()).collect();
    cases.waits("futures_ordered", "notify");
    all.next().await;
}

async fn futures_select(cases: Cases) {
    let mut one = Box::pin(leaf().fuse());
    let mut two = Box::pin(number().fuse());
    cases.waits("futures_select", "notify");
    futures::select! {
        _ = one => {}
        _ = two => {}
    }
}

async fn futures_join(cases: Cases) {
    cases.waits("futures_join", "notify");
    futures::join!(leaf(), number());
}

async fn map_then(cases: Cases) {
    cases.waits("map_then", "notify");
    number().map(|n| n + 1).then(|n| async move { n }).map(Ok::<u32, ()>).map_err(|()| "no").await.ok();
}

async fn shared(cases: Cases) {
    let shared = number().boxed().shared();
    cases.waits("shared", "notify");
    shared.clone().await;
}

async fn boxed(cases: Cases) {
    let boxed: Pin<Box<dyn Future<Output = u32> + Send>> = Box::pin(number());
    cases.waits("boxed", "notify");
    boxed.await;
}

async fn recursive(cases: Cases) {
    fn deeper(cases: Cases, depth: u32) -> BoxFuture<'static, ()> {
        async move {
            if depth > 0 {
                deeper(cases, depth - 1).await;
            } else {
                cases.waits("recursive", "notify");
                Notify::new().notified().await;
            }
        }
        .boxed()
    }
    deeper(cases, 12).await;
}

async fn generic<T: Default + Send + 'static>(cases: Cases) {
    let value = T::default();
    cases.waits("generic", "oneshot");
    let _ = oneshot::channel::<T>().1.map(|_| drop(value)).await;
}

struct Server {
    requests: Mutex<mpsc::Receiver<u8>>,
}

impl Server {
    async fn handle(&self, cases: &Cases) {
        let mut requests = self.requests.lock().await;
        cases.waits("methods", "channel_recv");
        requests.recv().await;
    }
}

async fn methods(cases: Cases) {
    let (_tx, rx) = mpsc::channel(1);
    Server { requests: Mutex::new(rx) }.handle(&cases).await;
}

#[async_trait::async_trait]
trait Handler {
    async fn call(&self, cases: Cases);
}

#[async_trait::async_trait]
impl Handler for Server {
    async fn call(&self, cases: Cases) {
        cases.waits("by_trait", "notify");
        leaf().await;
    }
}

async fn by_trait(cases: Cases) {
    let (_tx, rx) = mpsc::channel(1);
    let handler: Arc<dyn Handler + Send + Sync> = Arc::new(Server { requests: Mutex::new(rx) });
    handler.call(cases).await;
}

async fn closure(cases: Cases) {
    let run = |cases: Cases| async move {
        cases.waits("closure", "notify");
        leaf().await;
    };
    run(cases).await;
}

async fn async_closure(cases: Cases) {
    let run = async |cases: Cases| {
        cases.waits("async_closure", "notify");
        leaf().await;
    };
    run(cases).await;
}

struct HandWritten {
    name: &'static str,
    inner: BoxFuture<'static, ()>,
}

impl Future for HandWritten {
    type Output = usize;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<usize> {
        self.inner.as_mut().poll(cx).map(|()| self.name.len())
    }
}

async fn hand_written(cases: Cases) {
    let inner = leaf().boxed();
    cases.waits("hand_written", "notify");
    HandWritten { name: "hand", inner }.await;
}

async fn pinned_sleep(cases: Cases) {
    let sleep = tokio::time::sleep(Duration::from_secs(86_400));
    tokio::pin!(sleep);
    cases.waits("pinned_sleep", "timer");
    sleep.as_mut().await;
}

async fn large(cases: Cases) {
    let block = [1_u8; 100 << 10];
    cases.waits("large", "notify");
    leaf().await;
    std::hint::black_box(block);
}

async fn stream_next(cases: Cases) {
    let mut stream = std::pin::pin!(futures::stream::once(number()).map(|n| n + 1));
    cases.waits("stream_next", "notify");
    stream.next().await;
}

async fn stream_collect(cases: Cases) {
    let stream = futures::stream::once(number()).boxed();
    cases.waits("stream_collect", "notify");
    stream.collect::<Vec<_>>().await;
}

async fn buffer_unordered(cases: Cases) {
    let mut stream = futures::stream::iter(0..8).map(|_| number()).buffer_unordered(4);
    cases.waits("buffer_unordered", "notify");
    stream.next().await;
}

async fn futures_channel(cases: Cases) {
    let (_tx, mut rx) = futures::channel::mpsc::channel::<u8>(1);
    cases.waits("futures_channel", "channel_recv");
    rx.next().await;
}

async fn futures_oneshot(cases: Cases) {
    let (_tx, rx) = futures::channel::oneshot::channel::<u8>();
    cases.waits("futures_oneshot", "oneshot");
    let _ = rx.await;
}

async fn async_channel_recv(cases: Cases) {
    let (_tx, rx) = async_channel::bounded::<u8>(1);
    cases.waits("async_channel_recv", "channel_recv");
    let _ = rx.recv().await;
}

async fn flume_send(cases: Cases) {
    let (tx, _rx) = flume::bounded::<u8>(1);
    let _ = tx.send(1);
    cases.waits("flume_send", "channel_send");
    let _ = tx.into_send_async(2).await;
}

async fn flume_recv(cases: Cases) {
    let (_tx, rx) = flume::bounded::<u8>(1);
    cases.waits("flume_recv", "channel_recv");
    let _ = rx.recv_async().await;
}

async fn poll_fn(cases: Cases) {
    let mut notified = leaf().boxed();
    cases.waits("poll_fn", "notify");
    std::future::poll_fn(|cx| notified.as_mut().poll(cx)).await;
}

async fn pending(cases: Cases) {
    cases.waits("pending", "never");
    std::future::pending::<()>().await;
}

async fn wrapped_in_timeout(cases: Cases) {
    let waiting = tokio::time::timeout(Duration::from_secs(86_400), Box::pin(leaf()));
    cases.waits("wrapped_in_timeout", "notify");
    let _ = waiting.await;
}

trait Fetch {
    type Fetching<'f>: Future<Output = usize> + Send
    where
        Self: 'f;
    fn fetch<'f>(&'f self, cases: &'f Cases) -> Self::Fetching<'f>;
    fn fetch_later(&self, cases: &Cases) -> impl Future<Output = usize> + Send;
}

impl Fetch for String {
    type Fetching<'f> = BoxFuture<'f, usize>;

    fn fetch<'f>(&'f self, cases: &'f Cases) -> BoxFuture<'f, usize> {
        async move {
            cases.waits("gat", "notify");
            leaf().await;
            self.len()
        }
        .boxed()
    }

    async fn fetch_later(&self, cases: &Cases) -> usize {
        cases.waits("async_fn_in_trait", "notify");
        leaf().await;
        self.len()
    }
}

async fn fetch_by<F: Fetch + Sync>(fetcher: &F, cases: &Cases) -> usize {
    fetcher.fetch(cases).await
}

async fn gat(cases: Cases) {
    fetch_by(&"text".to_owned(), &cases).await;
}

async fn async_fn_in_trait(cases: Cases) {
    "text".to_owned().fetch_later(&cases).await;
}

async fn instrumented(cases: Cases) {
    use tracing::Instrument as _;
    cases.waits("instrumented", "notify");
    leaf().instrument(tracing::info_span!("span")).await;
}

async fn tower_limit(cases: Cases) {
    use futures::FutureExt as _;
    use tower::{Service as _, ServiceExt as _};
    let service = tower::service_fn(|()| leaf().map(Ok::<(), ()>));
    let mut first = tower::limit::ConcurrencyLimit::new(service, 1);
    let mut second = first.clone();
    let _busy = first.ready().await.expect("free").call(());
    cases.waits("tower_limit", "semaphore");
    let _ = second.ready().await;
}

async fn tower_timeout(cases: Cases) {
    use futures::FutureExt as _;
    use tower::ServiceExt as _;
    let service = tower::service_fn(|()| leaf().map(Ok::<(), std::convert::Infallible>));
    let service = tower::timeout::Timeout::new(service, Duration::from_secs(86_400));
    cases.waits("tower_timeout", "notify");
    let _ = service.oneshot(()).await;
}

async fn framed(cases: Cases) {
    let (here, _there) = tokio::io::duplex(64);
    let mut lines = tokio_util::codec::FramedRead::new(here, tokio_util::codec::LinesCodec::new());
    cases.waits("framed", "io");
    lines.next().await;
}

async fn run_until_cancelled(cases: Cases) {
    let token = tokio_util::sync::CancellationToken::new();
    cases.waits("run_until_cancelled", "oneshot");
    token.run_until_cancelled(oneshot::channel::<u8>().1).await;
}

async fn tracker(cases: Cases) {
    let tracker = tokio_util::task::TaskTracker::new();
    tracker.spawn(leaf());
    tracker.close();
    cases.waits("tracker", "notify");
    tracker.wait().await;
}

async fn abortable(cases: Cases) {
    let (abortable, _handle) = futures::future::abortable(leaf());
    cases.waits("abortable", "notify");
    let _ = abortable.await;
}

async fn select_all(cases: Cases) {
    cases.waits("select_all", "notify");
    futures::future::select_all([leaf().boxed(), leaf().boxed()]).await;
}

async fn stream_select_all(cases: Cases) {
    let streams = (0..2).map(|_| futures::stream::once(number()).boxed());
    let mut streams = futures::stream::select_all(streams);
    cases.waits("stream_select_all", "notify");
    streams.next().await;
}

async fn for_each_concurrent(cases: Cases) {
    let stream = futures::stream::iter(0..3);
    cases.waits("for_each_concurrent", "notify");
    stream.for_each_concurrent(2, |_| leaf()).await;
}

async fn futures_mutex(cases: Cases) {
    let mutex = futures::lock::Mutex::new(());
    let _held = mutex.lock().await;
    cases.waits("futures_mutex", "mutex");
    let _never = mutex.lock().await;
}

/// Futures that one task polls, kept as an actor of actix keeps them.
struct Small(smallvec::SmallVec<[BoxFuture<'static, ()>; 2]>);

impl Future for Small {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.0.retain(|future| future.as_mut().poll(cx).is_pending());
        if self.0.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    }
}

async fn small_vec_inline(cases: Cases) {
    let small = Small((0..2).map(|_| leaf().boxed()).collect());
    cases.waits("small_vec_inline", "notify");
    small.await;
}

async fn small_vec_spilled(cases: Cases) {
    let small = Small((0..3).map(|_| leaf().boxed()).collect());
    cases.waits("small_vec_spilled", "notify");
    small.await;
}

/// Is over for good when its future is: a `Fuse`, written by hand.
struct Emptied(Option<BoxFuture<'static, ()>>);

impl Future for Emptied {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Some(inner) = &mut self.0 else { return Poll::Pending };
        let ready = inner.as_mut().poll(cx);
        if ready.is_ready() {
            self.0 = None;
        }
        ready
    }
}

async fn emptied_branches(cases: Cases) {
    let mut by_hand = Emptied(Some(async {}.boxed()));
    let mut fused = std::pin::pin!(async {}.fuse());
    (&mut by_hand).await;
    fused.as_mut().await;
    cases.waits("emptied_branches", "notify");
    tokio::select! {
        () = &mut by_hand => {}
        () = &mut fused => {}
        () = leaf() => {}
    }
}
