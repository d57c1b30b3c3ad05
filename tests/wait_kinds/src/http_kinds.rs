//! Bodies, HTTP/2 streams and clients of hyper.

use futures::FutureExt as _;
use http_body_util::{BodyExt as _, Empty, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

use crate::cases::Cases;

/// A body that never yields a frame.
type Endless = StreamBody<futures::stream::Pending<Result<Frame<Bytes>, std::convert::Infallible>>>;

/// One task of every kind.
pub(crate) fn spawn(cases: &Cases) {
    cases.spawn(http1_client_ready);
    cases.spawn(http1_body_collect);
    cases.spawn(http1_body_frame);
    cases.spawn(http1_request_body);
    cases.spawn(http2_response);
    cases.spawn(http2_body);
    cases.spawn(http2_server_idle);
    cases.spawn(sends_an_endless_body);
}

type Http1 = hyper::client::conn::http1::SendRequest<Empty<Bytes>>;

async fn client() -> (Http1, DuplexStream) {
    let (here, there) = tokio::io::duplex(1024);
    let (sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(here)).await.expect("no bytes are exchanged");
    tokio::spawn(connection);
    (sender, there)
}

/// While one request is not answered, no other one can be sent.
async fn http1_client_ready(cases: Cases) {
    let (mut sender, mut there) = client().await;
    let mut asked = std::pin::pin!(sender.send_request(Request::new(Empty::new())));
    assert!(asked.as_mut().now_or_never().is_none());
    let _ = there.read_u8().await.expect("a request");
    cases.waits("http1_client_ready", "channel_send");
    let _ = sender.ready().await;
}

/// The body of a response of which the server sends only a part.
async fn half_a_body() -> (Http1, DuplexStream, Incoming) {
    let (mut sender, mut there) = client().await;
    let asked = sender.send_request(Request::new(Empty::new()));
    let answered = async {
        let mut buffer = [0; 512];
        let _ = there.read(&mut buffer).await.expect("a request");
        there.write_all(HALF).await.expect("room");
    };
    let (response, ()) = tokio::join!(asked, answered);
    (sender, there, response.expect("a response").into_body())
}

const HALF: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\nhalf";

async fn http1_body_collect(cases: Cases) {
    let (_sender, _there, body) = half_a_body().await;
    cases.waits("http1_body_collect", "channel_recv");
    let _ = body.collect().await;
}

async fn http1_body_frame(cases: Cases) {
    let (_sender, _there, mut body) = half_a_body().await;
    let _half = body.frame().await;
    cases.waits("http1_body_frame", "channel_recv");
    let _ = body.frame().await;
}

/// The handler waits for the rest of a request.
async fn http1_request_body(cases: Cases) {
    let (mut client, server) = tokio::io::duplex(1024);
    client.write_all(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\nhalf").await.expect("room");
    let answer = |request: Request<Incoming>| {
        let cases = cases.clone();
        async move {
            cases.waits("http1_request_body", "channel_recv");
            let _ = request.into_body().collect().await;
            Ok::<_, std::convert::Infallible>(Response::new(Empty::<Bytes>::new()))
        }
    };
    let connection = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(server), hyper::service::service_fn(answer));
    let _ = connection.await;
}

async fn never(_: Request<Incoming>) -> Result<Response<Endless>, std::convert::Infallible> {
    std::future::pending().await
}

async fn endless(_: Request<Incoming>) -> Result<Response<Endless>, std::convert::Infallible> {
    Ok(Response::new(StreamBody::new(futures::stream::pending())))
}

async fn http2<F>(answer: fn(Request<Incoming>) -> F) -> hyper::client::conn::http2::SendRequest<Empty<Bytes>>
where
    F: Future<Output = Result<Response<Endless>, std::convert::Infallible>> + Send + 'static,
{
    let (here, there) = tokio::io::duplex(1 << 16);
    let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    tokio::spawn(server.serve_connection(TokioIo::new(there), hyper::service::service_fn(answer)));
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(here))
            .await
            .expect("both speak it");
    tokio::spawn(connection);
    sender
}

async fn http2_response(cases: Cases) {
    let mut sender = http2(never).await;
    cases.waits("http2_response", "oneshot");
    let _ = sender.send_request(Request::new(Empty::new())).await;
}

async fn http2_body(cases: Cases) {
    let mut sender = http2(endless).await;
    let response = sender.send_request(Request::new(Empty::new())).await.expect("headers");
    let body = response.into_body();
    cases.waits_for("http2_body", json!({ "kind": "http2_stream", "stream": 1 }));
    let _ = body.collect().await;
}

async fn http2_server_idle(cases: Cases) {
    let (_here, there) = tokio::io::duplex(1024);
    let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    let connection = server.serve_connection(TokioIo::new(there), hyper::service::service_fn(never));
    cases.waits("http2_server_idle", "io");
    let _ = connection.await;
}

/// The connection waits for the next piece of a body.
async fn sends_an_endless_body(cases: Cases) {
    let (mut client, server) = tokio::io::duplex(1024);
    client.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("room");
    let connection = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(server), hyper::service::service_fn(endless));
    cases.waits("sends_an_endless_body", "never");
    let _ = connection.await;
}
