//! HTTP/2: bodies that are not read use up the window of their connection.

use std::convert::Infallible;
use std::time::Duration;

use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http2::SendRequest;
use hyper::server::conn::http2::Builder;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

use crate::harness::{self, Case, faulty, healthy, observed};

pub(crate) const CASES: &[Case] = &[
    faulty!(responses_that_are_not_read: "deadlock", says "`first` of task", "http2::downloads"),
    observed!(uploads_that_are_not_read: "http2_window", says "`upload` of task", "http2::checks"),
    healthy!(responses_that_are_read_slowly),
];

/// More than the window of a connection.
const LARGE: usize = 1 << 20;

type Client = SendRequest<Full<Bytes>>;

async fn connect<F>(service: fn(Request<Incoming>) -> F) -> Client
where
    F: Future<Output = Result<Response<Full<Bytes>>, Infallible>> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (socket, _) = listener.accept().await.unwrap();
        let mut server = Builder::new(TokioExecutor::new());
        server.initial_connection_window_size(65_535);
        let _ = server.serve_connection(TokioIo::new(socket), service_fn(service)).await;
    });
    let socket = TcpStream::connect(address).await.unwrap();
    let mut builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
    builder.initial_connection_window_size(65_535).initial_stream_window_size(65_535);
    let (client, connection) = builder.handshake(TokioIo::new(socket)).await.unwrap();
    tokio::spawn(connection);
    client
}

async fn request(client: &mut Client, path: &str, size: usize) -> Response<Incoming> {
    let body = Full::new(Bytes::from(vec![7; size]));
    let request = Request::builder().uri(format!("http://localhost{path}"));
    client.send_request(request.body(body).unwrap()).await.unwrap()
}

async fn large(_: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    Ok(Response::new(Full::new(Bytes::from(vec![7; LARGE]))))
}

async fn downloads(mut client: Client) {
    let first = request(&mut client, "/", 0).await;
    let second = request(&mut client, "/", 0).await;
    harness::waits();
    let body = second.into_body().collect().await.unwrap().to_bytes();
    println!("{} {}", first.status(), body.len());
}

async fn responses_that_are_not_read() {
    tokio::spawn(downloads(connect(large).await));
    harness::ready(1).await;
}

static SECOND: Notify = Notify::const_new();

/// The first waits for the end of the second before it reads its body.
async fn checks(upload: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    if upload.uri().path() == "/first" {
        SECOND.notified().await;
    }
    stores(upload).await;
    SECOND.notify_one();
    Ok(Response::default())
}

async fn stores(upload: Request<Incoming>) {
    harness::waits();
    let body = upload.into_body().collect().await.unwrap().to_bytes();
    println!("{}", body.len());
}

async fn uploads(mut client: Client, path: &'static str) {
    request(&mut client, path, LARGE).await;
}

async fn uploads_that_are_not_read() {
    let client = connect(checks).await;
    tokio::spawn(uploads(client.clone(), "/first"));
    tokio::time::sleep(Duration::from_millis(200)).await;
    tokio::spawn(uploads(client, "/second"));
    harness::ready(1).await;
}

async fn reads_slowly(mut client: Client) {
    loop {
        let mut body = request(&mut client, "/", 0).await.into_body();
        harness::waits();
        while let Some(frame) = body.frame().await {
            drop(frame);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

async fn responses_that_are_read_slowly() {
    tokio::spawn(reads_slowly(connect(large).await));
    harness::ready(1).await;
}
