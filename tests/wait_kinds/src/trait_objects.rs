//! Sockets and other resources behind trait objects, alone and beside others.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use futures::stream::{BoxStream, StreamExt};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc};
use tokio::time::{sleep, timeout};
use tower::{Service as _, ServiceExt as _};

use crate::cases::Cases;
use crate::tokio_kinds::connected;

const LONG: Duration = Duration::from_secs(86_400);

/// One task of every kind.
pub(crate) fn spawn(cases: &Cases) {
    cases.spawn(dyn_async_read);
    cases.spawn(dyn_pinned);
    cases.spawn(dyn_own_trait);
    cases.spawn(dyn_borrowed);
    cases.spawn(dyn_buffered);
    cases.spawn(dyn_wrapped);
    cases.spawn(dyn_in_enum);
    cases.spawn(dyn_split);
    cases.spawn(dyn_bidirectional);
    cases.spawn(dyn_framed);
    cases.spawn(dyn_service);
    cases.spawn(dyn_async_trait);
    cases.spawn(dyn_stream);
    cases.spawn(dyn_own_poll);
    cases.spawn(dyn_counted);
    cases.spawn(dyn_in_select);
    cases.spawn(dyn_in_join);
    cases.spawn(dyn_in_timeout);
    cases.spawn(dyn_copy_of_bytes);
    cases.spawn(dyn_not_polled);
    cases.spawn(unknown_in_select);
    cases.spawn(unknown_dyn_in_select);
    cases.spawn(unknown_in_timeout);
    cases.spawn(unknown_in_join);
    #[cfg(not(feature = "old-tokio"))]
    cases.spawn(dyn_body);
}

trait Transport: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Transport for T {}

async fn transport() -> (Box<dyn Transport>, TcpStream) {
    let (here, there) = connected().await;
    (Box::new(here), there)
}

async fn dyn_async_read(cases: Cases) {
    let (here, _there) = connected().await;
    let mut stream: Box<dyn AsyncRead + Send + Unpin> = Box::new(here);
    cases.waits("dyn_async_read", "io");
    let _ = stream.read_u8().await;
}

async fn dyn_pinned(cases: Cases) {
    let (here, _there) = connected().await;
    let mut stream: Pin<Box<dyn AsyncRead + Send>> = Box::pin(here);
    cases.waits("dyn_pinned", "io");
    let _ = stream.read_u8().await;
}

async fn dyn_own_trait(cases: Cases) {
    let (mut stream, _there) = transport().await;
    cases.waits("dyn_own_trait", "io");
    let _ = stream.read_u8().await;
}

async fn dyn_borrowed(cases: Cases) {
    async fn read(stream: &mut Box<dyn Transport>, cases: &Cases) {
        let mut buffer = [0; 16];
        cases.waits("dyn_borrowed", "io");
        let _ = stream.read(&mut buffer).await;
    }
    let (mut stream, _there) = transport().await;
    read(&mut stream, &cases).await;
}

async fn dyn_buffered(cases: Cases) {
    let (stream, _there) = transport().await;
    let mut lines = BufReader::new(stream).lines();
    cases.waits("dyn_buffered", "io");
    let _ = lines.next_line().await;
}

struct Counted<T> {
    bytes: usize,
    inner: T,
}

impl<T: AsyncRead + Unpin> AsyncRead for Counted<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(cx, buf))?;
        self.bytes += buf.filled().len() - before;
        Poll::Ready(Ok(()))
    }
}

async fn dyn_wrapped(cases: Cases) {
    let (inner, _there) = transport().await;
    let mut stream = Counted { bytes: 0, inner };
    cases.waits("dyn_wrapped", "io");
    let _ = stream.read_u8().await;
}

enum Either {
    Plain(TcpStream),
    Boxed(Box<dyn Transport>),
}

impl AsyncRead for Either {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Boxed(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

async fn dyn_in_enum(cases: Cases) {
    let (here, there) = connected().await;
    let mut both = [Either::Plain(there), Either::Boxed(Box::new(here))];
    let last = std::hint::black_box(both.len() - 1);
    cases.waits("dyn_in_enum", "io");
    let _ = both[last].read_u8().await;
}

async fn dyn_split(cases: Cases) {
    let (stream, _there) = transport().await;
    let (mut reader, _writer) = tokio::io::split(stream);
    cases.waits("dyn_split", "io");
    let _ = reader.read_u8().await;
}

async fn dyn_bidirectional(cases: Cases) {
    let (mut one, _there) = transport().await;
    let (mut other, _elsewhere) = connected().await;
    cases.waits("dyn_bidirectional", "io");
    let _ = tokio::io::copy_bidirectional(&mut one, &mut other).await;
}

async fn dyn_framed(cases: Cases) {
    let (stream, _there) = transport().await;
    let mut lines = tokio_util::codec::Framed::new(stream, tokio_util::codec::LinesCodec::new());
    cases.waits("dyn_framed", "io");
    lines.next().await;
}

async fn dyn_service(cases: Cases) {
    let service = tower::service_fn(|()| async {
        Notify::new().notified().await;
        Ok::<(), std::convert::Infallible>(())
    });
    let mut service = service.boxed();
    cases.waits("dyn_service", "notify");
    let _ = service.call(()).await;
}

#[async_trait::async_trait]
trait Source: Send {
    async fn next(&mut self) -> u8;
}

#[async_trait::async_trait]
impl Source for TcpStream {
    async fn next(&mut self) -> u8 {
        self.read_u8().await.unwrap_or(0)
    }
}

async fn dyn_async_trait(cases: Cases) {
    let (here, _there) = connected().await;
    let mut source: Box<dyn Source> = Box::new(here);
    cases.waits("dyn_async_trait", "io");
    source.next().await;
}

async fn dyn_stream(cases: Cases) {
    let (_tx, rx) = mpsc::channel::<u8>(1);
    let mut stream: BoxStream<'static, u8> =
        futures::stream::unfold(rx, |mut rx| async { Some((rx.recv().await?, rx)) }).boxed();
    cases.waits("dyn_stream", "channel_recv");
    stream.next().await;
}

trait Link: Send {
    fn receive(&mut self, cx: &mut Context<'_>) -> Poll<u8>;
}

impl Link for mpsc::Receiver<u8> {
    fn receive(&mut self, cx: &mut Context<'_>) -> Poll<u8> {
        self.poll_recv(cx).map(Option::unwrap_or_default)
    }
}

async fn dyn_own_poll(cases: Cases) {
    let (_tx, rx) = mpsc::channel::<u8>(1);
    let mut link: Box<dyn Link> = Box::new(rx);
    cases.waits("dyn_own_poll", "channel_recv");
    poll_fn(|cx| link.receive(cx)).await;
}

trait Datagrams: Send + Sync {
    fn poll_receive(&self, cx: &mut Context<'_>) -> Poll<u8>;
}

impl Datagrams for TcpStream {
    fn poll_receive(&self, cx: &mut Context<'_>) -> Poll<u8> {
        self.poll_read_ready(cx).map(|_| 1)
    }
}

async fn dyn_counted(cases: Cases) {
    let (here, _there) = connected().await;
    let socket: Arc<dyn Datagrams> = Arc::new(here);
    let waiting = poll_fn(move |cx| socket.poll_receive(cx));
    cases.waits("dyn_counted", "io");
    waiting.await;
}

async fn dyn_in_select(cases: Cases) {
    let (mut stream, _there) = transport().await;
    let (_tx, mut rx) = mpsc::channel::<u8>(1);
    cases.waits("dyn_in_select", "io");
    tokio::select! {
        _ = stream.read_u8() => {}
        _ = rx.recv() => {}
    }
}

async fn dyn_in_join(cases: Cases) {
    let (mut stream, _there) = transport().await;
    let notify = Notify::new();
    cases.waits("dyn_in_join", "io");
    let _ = tokio::join!(notify.notified(), stream.read_u8());
}

async fn dyn_in_timeout(cases: Cases) {
    let (mut stream, _there) = transport().await;
    cases.waits("dyn_in_timeout", "io");
    let _ = timeout(LONG, stream.read_u8()).await;
}

/// The bytes are there: it is the socket that is waited for.
async fn dyn_copy_of_bytes(cases: Cases) {
    let (mut here, _there) = connected().await;
    let mut bytes: Box<dyn AsyncRead + Send + Unpin> = Box::new(std::io::Cursor::new(vec![0; 64 << 20]));
    cases.waits("dyn_copy_of_bytes", "io");
    let _ = tokio::io::copy(&mut bytes, &mut here).await;
    let _ = here.flush().await;
}

trait Logger: Send {
    fn log(&mut self, line: &str);
}

impl Logger for TcpStream {
    fn log(&mut self, line: &str) {
        let _ = self.try_write(line.as_bytes());
    }
}

trait TcpStreamHandler: Send {
    fn handle(&self, bytes: &[u8]) -> usize;
}

impl TcpStreamHandler for mpsc::Receiver<u8> {
    fn handle(&self, bytes: &[u8]) -> usize {
        bytes.len() + self.len()
    }
}

/// Has a socket and a channel that it does not wait for.
struct Logged<F> {
    logger: Box<dyn Logger>,
    handler: Box<dyn TcpStreamHandler>,
    inner: Pin<Box<F>>,
}

impl<F: Future<Output = ()>> Future for Logged<F> {
    type Output = usize;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<usize> {
        ready!(self.inner.as_mut().poll(cx));
        self.logger.log("over");
        Poll::Ready(self.handler.handle(b"over"))
    }
}

async fn dyn_not_polled(cases: Cases) {
    let (here, _there) = connected().await;
    let (_tx, rx) = mpsc::channel::<u8>(1);
    let logged = Logged { logger: Box::new(here), handler: Box::new(rx), inner: Box::pin(sleep(LONG)) };
    cases.waits("dyn_not_polled", "timer");
    logged.await;
}

/// Stores its waker in a place that only code that knows this type can find.
#[derive(Clone, Default)]
struct Gate(Arc<Mutex<Option<Waker>>>);

impl Gate {
    fn poll_open(&self, cx: &mut Context<'_>) -> Poll<()> {
        *self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl Future for Gate {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.poll_open(cx)
    }
}

impl AsyncRead for Gate {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        _: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        self.poll_open(cx).map(Ok)
    }
}

async fn unknown_in_select(cases: Cases) {
    let (_tx, mut rx) = mpsc::channel::<u8>(1);
    cases.waits("unknown_in_select", "unknown");
    tokio::select! {
        () = Gate::default() => {}
        _ = rx.recv() => {}
    }
}

async fn unknown_dyn_in_select(cases: Cases) {
    let mut stream: Box<dyn AsyncRead + Send + Unpin> = Box::new(Gate::default());
    let (_tx, mut rx) = mpsc::channel::<u8>(1);
    cases.waits("unknown_dyn_in_select", "unknown");
    tokio::select! {
        _ = stream.read_u8() => {}
        _ = rx.recv() => {}
    }
}

async fn unknown_in_timeout(cases: Cases) {
    cases.waits("unknown_in_timeout", "unknown");
    let _ = timeout(LONG, Gate::default()).await;
}

async fn unknown_in_join(cases: Cases) {
    let notify = Notify::new();
    cases.waits("unknown_in_join", "unknown");
    tokio::join!(notify.notified(), Gate::default());
}

#[cfg(not(feature = "old-tokio"))]
async fn dyn_body(cases: Cases) {
    use http_body_util::{BodyExt as _, StreamBody};
    use hyper::body::{Bytes, Frame};
    let (_tx, rx) = futures::channel::mpsc::unbounded::<Bytes>();
    let frames = rx.map(|bytes| Ok::<_, std::convert::Infallible>(Frame::data(bytes)));
    let mut body = StreamBody::new(frames).boxed_unsync();
    cases.waits("dyn_body", "channel_recv");
    body.frame().await;
}
