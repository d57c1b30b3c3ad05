//! hyper and axum, client and server, idle and in the middle of a request.

use axum::Router;
use axum::extract::State;
use axum::routing::get;
use http_body_util::Empty;
use hyper::body::{Bytes, Incoming};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncWriteExt, DuplexStream};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

use crate::cases::Cases;

/// One task of every kind.
pub(crate) fn spawn(cases: &Cases) {
    cases.spawn(axum_accepts);
    cases.spawn(hyper_serves_no_client);
    cases.spawn(hyper_serves_a_request);
    cases.spawn(hyper_client_idle);
    cases.spawn(hyper_client_asks);
    // The connection's task belongs to axum; the handler states the wait.
    cases.announce();
    tokio::spawn(axum_handles(cases.clone()));
}

async fn listener() -> (TcpListener, std::net::SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    let address = listener.local_addr().expect("bound");
    (listener, address)
}

async fn axum_accepts(cases: Cases) {
    let (listener, _) = listener().await;
    let app: Router = Router::new();
    cases.waits("axum_accepts", "io");
    let _ = axum::serve(listener, app).await;
}

async fn handler(State(cases): State<Cases>) -> &'static str {
    cases.waits("axum_handles", "notify");
    Notify::new().notified().await;
    "never"
}

async fn axum_handles(cases: Cases) {
    let (listener, address) = listener().await;
    let app = Router::new().route("/", get(handler)).with_state(cases);
    tokio::spawn(async move { axum::serve(listener, app).await });
    let mut client = TcpStream::connect(address).await.expect("connected");
    client.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await.expect("asked");
    Notify::new().notified().await;
}

async fn never(_: Request<Incoming>) -> Result<Response<Empty<Bytes>>, std::convert::Infallible> {
    Notify::new().notified().await;
    Ok(Response::new(Empty::new()))
}

async fn hyper_serves_no_client(cases: Cases) {
    let (listener, address) = listener().await;
    let (_client, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
    let io = TokioIo::new(accepted.expect("accepted").0);
    let server = hyper::server::conn::http1::Builder::new();
    cases.waits("hyper_serves_no_client", "io");
    let _ = server.serve_connection(io, hyper::service::service_fn(never)).await;
}

async fn hyper_serves_a_request(cases: Cases) {
    let (mut client, server) = tokio::io::duplex(1024);
    client.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await.expect("room");
    let answer = |_: Request<Incoming>| {
        let cases = cases.clone();
        async move {
            cases.waits("hyper_serves_a_request", "notify");
            Notify::new().notified().await;
            Ok::<_, std::convert::Infallible>(Response::new(Empty::<Bytes>::new()))
        }
    };
    let server = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(server), hyper::service::service_fn(answer));
    let _ = server.await;
}

async fn client() -> (
    hyper::client::conn::http1::SendRequest<Empty<Bytes>>,
    hyper::client::conn::http1::Connection<TokioIo<DuplexStream>, Empty<Bytes>>,
    DuplexStream,
) {
    let (here, there) = tokio::io::duplex(1024);
    let (sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(here)).await.expect("no bytes are exchanged");
    (sender, connection, there)
}

async fn hyper_client_idle(cases: Cases) {
    let (_sender, connection, _there) = client().await;
    cases.waits("hyper_client_idle", "io");
    let _ = connection.await;
}

async fn hyper_client_asks(cases: Cases) {
    let (mut sender, connection, _there) = client().await;
    tokio::spawn(connection);
    let request = Request::new(Empty::<Bytes>::new());
    cases.waits("hyper_client_asks", "oneshot");
    let _ = sender.send_request(request).await;
}
