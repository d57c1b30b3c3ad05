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

use crate::keeper::Keeper;

/// One task of every kind.
pub(crate) fn spawn(keeper: &Keeper) {
    keeper.spawn(axum_accepts);
    keeper.spawn(hyper_serves_nobody);
    keeper.spawn(hyper_serves_a_request);
    keeper.spawn(hyper_client_idle);
    keeper.spawn(hyper_client_asks);
    // The connection's task is axum's; the handler tells.
    keeper.announce();
    tokio::spawn(axum_handles(keeper.clone()));
}

async fn listener() -> (TcpListener, std::net::SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    let address = listener.local_addr().expect("bound");
    (listener, address)
}

async fn axum_accepts(zoo: Keeper) {
    let (listener, _) = listener().await;
    let app: Router = Router::new();
    zoo.waits("axum_accepts", "io");
    let _ = axum::serve(listener, app).await;
}

async fn handler(State(zoo): State<Keeper>) -> &'static str {
    zoo.waits("axum_handles", "notify");
    Notify::new().notified().await;
    "never"
}

async fn axum_handles(zoo: Keeper) {
    let (listener, address) = listener().await;
    let app = Router::new().route("/", get(handler)).with_state(zoo);
    tokio::spawn(async move { axum::serve(listener, app).await });
    let mut client = TcpStream::connect(address).await.expect("connected");
    client.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await.expect("asked");
    Notify::new().notified().await;
}

async fn never(_: Request<Incoming>) -> Result<Response<Empty<Bytes>>, std::convert::Infallible> {
    Notify::new().notified().await;
    Ok(Response::new(Empty::new()))
}

async fn hyper_serves_nobody(zoo: Keeper) {
    let (listener, address) = listener().await;
    let (_client, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
    let io = TokioIo::new(accepted.expect("accepted").0);
    let server = hyper::server::conn::http1::Builder::new();
    zoo.waits("hyper_serves_nobody", "io");
    let _ = server.serve_connection(io, hyper::service::service_fn(never)).await;
}

async fn hyper_serves_a_request(zoo: Keeper) {
    let (mut client, server) = tokio::io::duplex(1024);
    client.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await.expect("room");
    let answer = |_: Request<Incoming>| {
        let zoo = zoo.clone();
        async move {
            zoo.waits("hyper_serves_a_request", "notify");
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

async fn hyper_client_idle(zoo: Keeper) {
    let (_sender, connection, _there) = client().await;
    zoo.waits("hyper_client_idle", "io");
    let _ = connection.await;
}

async fn hyper_client_asks(zoo: Keeper) {
    let (mut sender, connection, _there) = client().await;
    tokio::spawn(connection);
    let request = Request::new(Empty::<Bytes>::new());
    zoo.waits("hyper_client_asks", "oneshot");
    let _ = sender.send_request(request).await;
}
