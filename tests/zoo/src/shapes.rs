//! Shapes of futures: combinators, macros, boxes, generics, futures written by hand.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt, TryFutureExt};
use futures::stream::{FuturesOrdered, FuturesUnordered, StreamExt};
use tokio::sync::{Mutex, Notify, mpsc, oneshot};

use crate::keeper::Keeper;

/// One task of every shape.
pub(crate) fn spawn(keeper: &Keeper) {
    keeper.spawn(select);
    keeper.spawn(select_biased_by_hand);
    keeper.spawn(select_disabled);
    keeper.spawn(join);
    keeper.spawn(try_join);
    keeper.spawn(join_all);
    keeper.spawn(join_all_many);
    keeper.spawn(futures_unordered);
    keeper.spawn(futures_ordered);
    keeper.spawn(futures_select);
    keeper.spawn(futures_join);
    keeper.spawn(map_then);
    keeper.spawn(shared);
    keeper.spawn(boxed);
    keeper.spawn(recursive);
    keeper.spawn(generic::<u64>);
    keeper.spawn(methods);
    keeper.spawn(by_trait);
    keeper.spawn(closure);
    keeper.spawn(async_closure);
    keeper.spawn(|zoo| async move {
        zoo.waits("block", "notify");
        Notify::new().notified().await;
    });
    keeper.spawn(hand_written);
    keeper.spawn(pinned_sleep);
    keeper.spawn(large);
    keeper.spawn(stream_next);
    keeper.spawn(stream_collect);
    keeper.spawn(buffer_unordered);
    keeper.spawn(futures_channel);
    keeper.spawn(futures_oneshot);
    keeper.spawn(async_channel_recv);
    keeper.spawn(flume_recv);
    keeper.spawn(flume_send);
    keeper.spawn(poll_fn);
    keeper.spawn(pending);
    keeper.spawn(wrapped_in_timeout);
    keeper.spawn(gat);
    keeper.spawn(async_fn_in_trait);
    keeper.spawn(instrumented);
    keeper.spawn(tower_limit);
    keeper.spawn(tower_timeout);
    keeper.spawn(framed);
    keeper.spawn(run_until_cancelled);
    keeper.spawn(tracker);
    keeper.spawn(abortable);
    keeper.spawn(select_all);
    keeper.spawn(stream_select_all);
    keeper.spawn(for_each_concurrent);
    keeper.spawn(futures_mutex);
    keeper.spawn(small_vec_inline);
    keeper.spawn(small_vec_spilled);
    keeper.spawn(emptied_branches);
}

async fn leaf() {
    Notify::new().notified().await;
}

async fn number() -> u32 {
    Notify::new().notified().await;
    1
}

async fn select(zoo: Keeper) {
    let (_tx, mut rx) = mpsc::channel::<u8>(1);
    zoo.waits("select", "channel_recv");
    tokio::select! {
        _ = rx.recv() => {}
        _ = leaf() => {}
        _ = tokio::time::sleep(Duration::from_secs(86_400)) => {}
    }
}

async fn select_biased_by_hand(zoo: Keeper) {
    let mutex = Arc::new(Mutex::new(()));
    let _held = mutex.clone().lock_owned().await;
    let mut first = std::pin::pin!(leaf());
    zoo.waits("select_biased_by_hand", "mutex");
    tokio::select! {
        biased;
        _ = &mut first => {}
        _ = mutex.lock() => {}
    }
}

async fn select_disabled(zoo: Keeper) {
    let mutex = Arc::new(Mutex::new(()));
    let _held = mutex.clone().lock_owned().await;
    let never = std::hint::black_box(false);
    zoo.waits("select_disabled", "mutex");
    tokio::select! {
        () = tokio::time::sleep(Duration::from_secs(86_400)), if never => {}
        _ = mutex.lock() => {}
        () = leaf(), if never => {}
    }
}

async fn join(zoo: Keeper) {
    zoo.waits("join", "notify");
    tokio::join!(leaf(), number());
}

async fn try_join(zoo: Keeper) {
    zoo.waits("try_join", "notify");
    let _ = tokio::try_join!(leaf().map(Ok::<(), ()>), number().map(Ok));
}

async fn join_all(zoo: Keeper) {
    zoo.waits("join_all", "notify");
    futures::future::join_all([leaf(), leaf(), leaf()]).await;
}

async fn join_all_many(zoo: Keeper) {
    zoo.waits("join_all_many", "notify");
    futures::future::join_all((0..40).map(|_| leaf())).await;
}

async fn futures_unordered(zoo: Keeper) {
    let mut all: FuturesUnordered<_> = (0..3).map(|_| leaf()).collect();
    zoo.waits("futures_unordered", "notify");
    all.next().await;
}

async fn futures_ordered(zoo: Keeper) {
    let mut all: FuturesOrdered<_> = (0..3).map(|_| number()).collect();
    zoo.waits("futures_ordered", "notify");
    all.next().await;
}

async fn futures_select(zoo: Keeper) {
    let mut one = Box::pin(leaf().fuse());
    let mut two = Box::pin(number().fuse());
    zoo.waits("futures_select", "notify");
    futures::select! {
        _ = one => {}
        _ = two => {}
    }
}

async fn futures_join(zoo: Keeper) {
    zoo.waits("futures_join", "notify");
    futures::join!(leaf(), number());
}

async fn map_then(zoo: Keeper) {
    zoo.waits("map_then", "notify");
    number().map(|n| n + 1).then(|n| async move { n }).map(Ok::<u32, ()>).map_err(|()| "no").await.ok();
}

async fn shared(zoo: Keeper) {
    let shared = number().boxed().shared();
    zoo.waits("shared", "notify");
    shared.clone().await;
}

async fn boxed(zoo: Keeper) {
    let boxed: Pin<Box<dyn Future<Output = u32> + Send>> = Box::pin(number());
    zoo.waits("boxed", "notify");
    boxed.await;
}

async fn recursive(zoo: Keeper) {
    fn deeper(zoo: Keeper, depth: u32) -> BoxFuture<'static, ()> {
        async move {
            if depth > 0 {
                deeper(zoo, depth - 1).await;
            } else {
                zoo.waits("recursive", "notify");
                Notify::new().notified().await;
            }
        }
        .boxed()
    }
    deeper(zoo, 12).await;
}

async fn generic<T: Default + Send + 'static>(zoo: Keeper) {
    let value = T::default();
    zoo.waits("generic", "oneshot");
    let _ = oneshot::channel::<T>().1.map(|_| drop(value)).await;
}

struct Server {
    requests: Mutex<mpsc::Receiver<u8>>,
}

impl Server {
    async fn handle(&self, zoo: &Keeper) {
        let mut requests = self.requests.lock().await;
        zoo.waits("methods", "channel_recv");
        requests.recv().await;
    }
}

async fn methods(zoo: Keeper) {
    let (_tx, rx) = mpsc::channel(1);
    Server { requests: Mutex::new(rx) }.handle(&zoo).await;
}

#[async_trait::async_trait]
trait Handler {
    async fn call(&self, zoo: Keeper);
}

#[async_trait::async_trait]
impl Handler for Server {
    async fn call(&self, zoo: Keeper) {
        zoo.waits("by_trait", "notify");
        leaf().await;
    }
}

async fn by_trait(zoo: Keeper) {
    let (_tx, rx) = mpsc::channel(1);
    let handler: Arc<dyn Handler + Send + Sync> = Arc::new(Server { requests: Mutex::new(rx) });
    handler.call(zoo).await;
}

async fn closure(zoo: Keeper) {
    let run = |zoo: Keeper| async move {
        zoo.waits("closure", "notify");
        leaf().await;
    };
    run(zoo).await;
}

async fn async_closure(zoo: Keeper) {
    let run = async |zoo: Keeper| {
        zoo.waits("async_closure", "notify");
        leaf().await;
    };
    run(zoo).await;
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

async fn hand_written(zoo: Keeper) {
    let inner = leaf().boxed();
    zoo.waits("hand_written", "notify");
    HandWritten { name: "hand", inner }.await;
}

async fn pinned_sleep(zoo: Keeper) {
    let sleep = tokio::time::sleep(Duration::from_secs(86_400));
    tokio::pin!(sleep);
    zoo.waits("pinned_sleep", "timer");
    sleep.as_mut().await;
}

async fn large(zoo: Keeper) {
    let block = [1_u8; 100 << 10];
    zoo.waits("large", "notify");
    leaf().await;
    std::hint::black_box(block);
}

async fn stream_next(zoo: Keeper) {
    let mut stream = std::pin::pin!(futures::stream::once(number()).map(|n| n + 1));
    zoo.waits("stream_next", "notify");
    stream.next().await;
}

async fn stream_collect(zoo: Keeper) {
    let stream = futures::stream::once(number()).boxed();
    zoo.waits("stream_collect", "notify");
    stream.collect::<Vec<_>>().await;
}

async fn buffer_unordered(zoo: Keeper) {
    let mut stream = futures::stream::iter(0..8).map(|_| number()).buffer_unordered(4);
    zoo.waits("buffer_unordered", "notify");
    stream.next().await;
}

async fn futures_channel(zoo: Keeper) {
    let (_tx, mut rx) = futures::channel::mpsc::channel::<u8>(1);
    zoo.waits("futures_channel", "channel_recv");
    rx.next().await;
}

async fn futures_oneshot(zoo: Keeper) {
    let (_tx, rx) = futures::channel::oneshot::channel::<u8>();
    zoo.waits("futures_oneshot", "oneshot");
    let _ = rx.await;
}

async fn async_channel_recv(zoo: Keeper) {
    let (_tx, rx) = async_channel::bounded::<u8>(1);
    zoo.waits("async_channel_recv", "channel_recv");
    let _ = rx.recv().await;
}

async fn flume_send(zoo: Keeper) {
    let (tx, _rx) = flume::bounded::<u8>(1);
    let _ = tx.send(1);
    zoo.waits("flume_send", "channel_send");
    let _ = tx.into_send_async(2).await;
}

async fn flume_recv(zoo: Keeper) {
    let (_tx, rx) = flume::bounded::<u8>(1);
    zoo.waits("flume_recv", "channel_recv");
    let _ = rx.recv_async().await;
}

async fn poll_fn(zoo: Keeper) {
    let mut notified = leaf().boxed();
    zoo.waits("poll_fn", "notify");
    std::future::poll_fn(|cx| notified.as_mut().poll(cx)).await;
}

async fn pending(zoo: Keeper) {
    zoo.waits("pending", "never");
    std::future::pending::<()>().await;
}

async fn wrapped_in_timeout(zoo: Keeper) {
    let waiting = tokio::time::timeout(Duration::from_secs(86_400), Box::pin(leaf()));
    zoo.waits("wrapped_in_timeout", "notify");
    let _ = waiting.await;
}

trait Fetch {
    type Fetching<'f>: Future<Output = usize> + Send
    where
        Self: 'f;
    fn fetch<'f>(&'f self, zoo: &'f Keeper) -> Self::Fetching<'f>;
    fn fetch_later(&self, zoo: &Keeper) -> impl Future<Output = usize> + Send;
}

impl Fetch for String {
    type Fetching<'f> = BoxFuture<'f, usize>;

    fn fetch<'f>(&'f self, zoo: &'f Keeper) -> BoxFuture<'f, usize> {
        async move {
            zoo.waits("gat", "notify");
            leaf().await;
            self.len()
        }
        .boxed()
    }

    async fn fetch_later(&self, zoo: &Keeper) -> usize {
        zoo.waits("async_fn_in_trait", "notify");
        leaf().await;
        self.len()
    }
}

async fn fetch_by<F: Fetch + Sync>(fetcher: &F, zoo: &Keeper) -> usize {
    fetcher.fetch(zoo).await
}

async fn gat(zoo: Keeper) {
    fetch_by(&"text".to_owned(), &zoo).await;
}

async fn async_fn_in_trait(zoo: Keeper) {
    "text".to_owned().fetch_later(&zoo).await;
}

async fn instrumented(zoo: Keeper) {
    use tracing::Instrument as _;
    zoo.waits("instrumented", "notify");
    leaf().instrument(tracing::info_span!("span")).await;
}

async fn tower_limit(zoo: Keeper) {
    use futures::FutureExt as _;
    use tower::{Service as _, ServiceExt as _};
    let service = tower::service_fn(|()| leaf().map(Ok::<(), ()>));
    let mut first = tower::limit::ConcurrencyLimit::new(service, 1);
    let mut second = first.clone();
    let _busy = first.ready().await.expect("free").call(());
    zoo.waits("tower_limit", "semaphore");
    let _ = second.ready().await;
}

async fn tower_timeout(zoo: Keeper) {
    use futures::FutureExt as _;
    use tower::ServiceExt as _;
    let service = tower::service_fn(|()| leaf().map(Ok::<(), std::convert::Infallible>));
    let service = tower::timeout::Timeout::new(service, Duration::from_secs(86_400));
    zoo.waits("tower_timeout", "notify");
    let _ = service.oneshot(()).await;
}

async fn framed(zoo: Keeper) {
    let (here, _there) = tokio::io::duplex(64);
    let mut lines = tokio_util::codec::FramedRead::new(here, tokio_util::codec::LinesCodec::new());
    zoo.waits("framed", "io");
    lines.next().await;
}

async fn run_until_cancelled(zoo: Keeper) {
    let token = tokio_util::sync::CancellationToken::new();
    zoo.waits("run_until_cancelled", "oneshot");
    token.run_until_cancelled(oneshot::channel::<u8>().1).await;
}

async fn tracker(zoo: Keeper) {
    let tracker = tokio_util::task::TaskTracker::new();
    tracker.spawn(leaf());
    tracker.close();
    zoo.waits("tracker", "notify");
    tracker.wait().await;
}

async fn abortable(zoo: Keeper) {
    let (abortable, _handle) = futures::future::abortable(leaf());
    zoo.waits("abortable", "notify");
    let _ = abortable.await;
}

async fn select_all(zoo: Keeper) {
    zoo.waits("select_all", "notify");
    futures::future::select_all([leaf().boxed(), leaf().boxed()]).await;
}

async fn stream_select_all(zoo: Keeper) {
    let streams = (0..2).map(|_| futures::stream::once(number()).boxed());
    let mut streams = futures::stream::select_all(streams);
    zoo.waits("stream_select_all", "notify");
    streams.next().await;
}

async fn for_each_concurrent(zoo: Keeper) {
    let stream = futures::stream::iter(0..3);
    zoo.waits("for_each_concurrent", "notify");
    stream.for_each_concurrent(2, |_| leaf()).await;
}

async fn futures_mutex(zoo: Keeper) {
    let mutex = futures::lock::Mutex::new(());
    let _held = mutex.lock().await;
    zoo.waits("futures_mutex", "mutex");
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

async fn small_vec_inline(zoo: Keeper) {
    let small = Small((0..2).map(|_| leaf().boxed()).collect());
    zoo.waits("small_vec_inline", "notify");
    small.await;
}

async fn small_vec_spilled(zoo: Keeper) {
    let small = Small((0..3).map(|_| leaf().boxed()).collect());
    zoo.waits("small_vec_spilled", "notify");
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

async fn emptied_branches(zoo: Keeper) {
    let mut by_hand = Emptied(Some(async {}.boxed()));
    let mut fused = std::pin::pin!(async {}.fuse());
    (&mut by_hand).await;
    fused.as_mut().await;
    zoo.waits("emptied_branches", "notify");
    tokio::select! {
        () = &mut by_hand => {}
        () = &mut fused => {}
        () = leaf() => {}
    }
}
