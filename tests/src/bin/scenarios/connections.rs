//! Connections of which the program has both ends.

use std::convert::Infallible;
use std::time::Duration;

use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{
    AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, BufWriter, DuplexStream,
};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;

use crate::harness::{self, Case, DAY, faulty, healthy};

pub(crate) const CASES: &[Case] = &[
    faulty!(sockets_that_are_both_written_first: "deadlock", says "wait for each other", "the other end"),
    faulty!(request_that_is_not_flushed: "deadlock", says "wait for each other"),
    faulty!(server_that_reads_to_the_end: "deadlock"),
    faulty!(pipes_that_are_both_written_first: "deadlock", says "wait for each other"),
    faulty!(response_before_the_body: "deadlock"),
    healthy!(socket_with_a_slow_reader),
    healthy!(push_to_an_idle_client),
    healthy!(pipe_with_a_slow_reader),
    healthy!(response_after_a_timer),
    healthy!(body_that_comes_slowly),
    healthy!(idle_http2_connection),
];

/// More than both ends of a socket store.
const LARGE: usize = 32 << 20;
const SOON: Duration = Duration::from_millis(700);

async fn sockets() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (one, other) = tokio::join!(TcpStream::connect(address), listener.accept());
    (one.unwrap(), other.unwrap().0)
}

async fn exchange(mut socket: TcpStream) {
    let mut all = vec![7; LARGE];
    harness::affected("exchange");
    socket.write_all(&all).await.unwrap();
    socket.read_exact(&mut all).await.unwrap();
}

async fn sockets_that_are_both_written_first() {
    let (one, other) = sockets().await;
    tokio::spawn(exchange(one));
    tokio::spawn(exchange(other));
    harness::ready(2).await;
}

async fn answers(socket: TcpStream) {
    let (input, mut output) = socket.into_split();
    let mut lines = BufReader::new(input).lines();
    harness::affected("answers");
    while let Some(line) = lines.next_line().await.unwrap() {
        output.write_all(line.as_bytes()).await.unwrap();
    }
}

async fn asks(socket: TcpStream) {
    let (input, output) = socket.into_split();
    let mut output = BufWriter::new(output);
    output.write_all(b"question\n").await.unwrap();
    let mut lines = BufReader::new(input).lines();
    harness::affected("asks");
    println!("{:?}", lines.next_line().await);
    output.shutdown().await.unwrap();
}

async fn request_that_is_not_flushed() {
    let (client, server) = sockets().await;
    tokio::spawn(answers(server));
    tokio::spawn(asks(client));
    harness::ready(2).await;
}

async fn reads_all(mut socket: TcpStream) {
    let mut all = Vec::new();
    harness::affected("reads_all");
    socket.read_to_end(&mut all).await.unwrap();
    socket.write_all(&all).await.unwrap();
}

async fn sends(mut socket: TcpStream) {
    socket.write_all(b"question").await.unwrap();
    harness::affected("sends");
    println!("{:?}", socket.read_u8().await);
}

async fn server_that_reads_to_the_end() {
    let (client, server) = sockets().await;
    tokio::spawn(reads_all(server));
    tokio::spawn(sends(client));
    harness::ready(2).await;
}

async fn pipes(mut pipe: DuplexStream) {
    let mut all = [7; 4096];
    harness::affected("pipes");
    pipe.write_all(&all).await.unwrap();
    pipe.read_exact(&mut all).await.unwrap();
}

async fn pipes_that_are_both_written_first() {
    let (one, other) = tokio::io::duplex(64);
    tokio::spawn(pipes(one));
    tokio::spawn(pipes(other));
    harness::ready(2).await;
}

type Stream =
    StreamBody<std::pin::Pin<Box<dyn tokio_stream::Stream<Item = Result<Frame<Bytes>, Infallible>> + Send>>>;
type Client = hyper::client::conn::http2::SendRequest<Stream>;

async fn http2<F>(service: fn(Request<Incoming>) -> F) -> Client
where
    F: Future<Output = Result<Response<Full<Bytes>>, Infallible>> + Send + 'static,
{
    let (client, server) = sockets().await;
    tokio::spawn(async move {
        let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
            .serve_connection(TokioIo::new(server), service_fn(service));
        let _ = server.await;
    });
    let builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
    let (client, connection) = builder.handshake(TokioIo::new(client)).await.unwrap();
    tokio::spawn(connection);
    client
}

fn request(body: mpsc::Receiver<Bytes>) -> Request<Stream> {
    let body = ReceiverStream::new(body).map(|bytes| Ok(Frame::data(bytes)));
    Request::builder().uri("http://localhost/").body(StreamBody::new(Box::pin(body) as _)).unwrap()
}

async fn echoes(mut request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let first = request.body_mut().frame().await;
    let data = first.and_then(Result::ok).and_then(|frame| frame.into_data().ok());
    Ok(Response::new(Full::new(data.unwrap_or_default())))
}

async fn calls(mut client: Client) {
    let (messages, body) = mpsc::channel(4);
    harness::affected("calls");
    let response = client.send_request(request(body)).await.unwrap();
    messages.send(Bytes::from_static(b"first")).await.unwrap();
    println!("{:?}", response.into_body().collect().await);
}

async fn response_before_the_body() {
    tokio::spawn(calls(http2(echoes).await));
    harness::ready(1).await;
}

async fn socket_with_a_slow_reader() {
    let (mut one, mut other) = sockets().await;
    tokio::spawn(async move {
        let all = vec![7; LARGE];
        harness::waits();
        while one.write_all(&all).await.is_ok() {}
    });
    tokio::spawn(async move {
        let mut some = vec![0; 1 << 16];
        while other.read(&mut some).await.is_ok() {
            tokio::time::sleep(SOON).await;
        }
    });
    harness::ready(1).await;
}

async fn reads_lines(input: tokio::net::tcp::OwnedReadHalf) {
    let mut lines = BufReader::new(input).lines();
    harness::waits();
    while let Ok(Some(_)) = lines.next_line().await {}
}

async fn push_to_an_idle_client() {
    let (client, server) = sockets().await;
    let ((client_in, client_out), (server_in, mut server_out)) = (client.into_split(), server.into_split());
    tokio::spawn(reads_lines(client_in));
    tokio::spawn(reads_lines(server_in));
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(SOON).await;
            let _ = server_out.write_all(b"push\n").await;
        }
    });
    harness::ready(2).await;
    drop(client_out);
}

async fn pipe_with_a_slow_reader() {
    let (mut one, mut other) = tokio::io::duplex(64);
    tokio::spawn(async move {
        harness::waits();
        while one.write_all(&[7; 4096]).await.is_ok() {}
    });
    tokio::spawn(async move {
        let mut some = [0; 16];
        while other.read(&mut some).await.is_ok() {
            tokio::time::sleep(SOON).await;
        }
    });
    harness::ready(1).await;
}

async fn sleeps(_: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    harness::waits();
    tokio::time::sleep(DAY).await;
    Ok(Response::default())
}

async fn polls_long(mut client: Client) {
    let (messages, body) = mpsc::channel(4);
    let _ = client.send_request(request(body)).await;
    drop(messages);
}

async fn response_after_a_timer() {
    tokio::spawn(polls_long(http2(sleeps).await));
    harness::ready(1).await;
}

async fn reads_body(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    harness::waits();
    let _ = request.into_body().collect().await;
    Ok(Response::default())
}

async fn body_that_comes_slowly() {
    let mut client = http2(reads_body).await;
    let (messages, body) = mpsc::channel(4);
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(SOON).await;
            let _ = messages.send(Bytes::from_static(b"more")).await;
        }
    });
    tokio::spawn(async move { client.send_request(request(body)).await });
    harness::ready(1).await;
}

/// The connection stays open for the next request.
async fn idle_http2_connection() {
    let mut client = http2(echoes).await;
    tokio::spawn(async move {
        let mut number = 0_u64;
        loop {
            let (messages, body) = mpsc::channel(4);
            messages.send(Bytes::from(number.to_string())).await.unwrap();
            let response = client.send_request(request(body)).await.unwrap();
            let _ = response.into_body().collect().await;
            if number == 0 {
                harness::waits();
            }
            number += 1;
            tokio::time::sleep(SOON).await;
        }
    });
    harness::ready(1).await;
}
