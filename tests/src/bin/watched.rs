//! A service that is healthy until a test provokes a fault, by a command over a connection.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex as StdMutex, mpsc as std_mpsc};

use tokio::sync::{Barrier, Mutex, mpsc, oneshot};

/// What keeps workers blocked.
type Blocking = Arc<StdMutex<Vec<std_mpsc::Sender<()>>>>;

/// A command, and what is dropped when it is done.
type Command = (String, oneshot::Sender<()>);

#[delouse::main(worker_threads = 3)]
async fn main() {
    delouse::Config::new()
        .on_finding(|event| {
            println!("event {:?} {} report={}", event.change, event.kind, event.report.is_some())
        })
        .init();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    println!("control {}", listener.local_addr().expect("an address"));
    let (sender, commands) = mpsc::unbounded_channel();
    let blocking = Blocking::default();
    let unblocked = Arc::clone(&blocking);
    // A thread, because a blocked worker may be the one that waits for input.
    std::thread::spawn(move || {
        if let Ok((connection, _)) = listener.accept() {
            accept(connection, &sender, &unblocked);
        }
    });
    let _ended = tokio::spawn(provokes(commands, blocking)).await;
}

fn accept(connection: TcpStream, commands: &mpsc::UnboundedSender<Command>, blocking: &Blocking) {
    let mut answers = connection.try_clone().expect("a descriptor");
    for command in BufReader::new(connection).lines().map_while(Result::ok) {
        if command == "unblock" {
            blocking.lock().expect("no panic").clear();
        } else {
            let (done, is_done) = oneshot::channel();
            let _gone = commands.send((command, done));
            let _dropped = is_done.blocking_recv();
        }
        let _gone = answers.write_all(b"done\n");
    }
}

/// Spawns tasks as other tasks do.
async fn provokes(mut commands: mpsc::UnboundedReceiver<Command>, blocking: Blocking) {
    while let Some((command, _done)) = commands.recv().await {
        match command.as_str() {
            "deadlock" => deadlock(),
            "leak" => leak(),
            "block" => blocking.lock().expect("no panic").push(block()),
            other => panic!("no command: {other}"),
        }
    }
}

fn deadlock() {
    let (debit, credit) = (Arc::new(Mutex::new(0)), Arc::new(Mutex::new(0)));
    let both = Arc::new(Barrier::new(2));
    tokio::spawn(transfer(debit.clone(), credit.clone(), both.clone()));
    tokio::spawn(transfer(credit, debit, both));
}

async fn transfer(from: Arc<Mutex<i32>>, to: Arc<Mutex<i32>>, both: Arc<Barrier>) {
    let mut from = from.lock().await;
    both.wait().await;
    let mut to = to.lock().await;
    *from -= 1;
    *to += 1;
}

fn leak() {
    let (to_reader, from_writer) = mpsc::channel::<u32>(1);
    let (to_writer, from_reader) = mpsc::channel::<u32>(1);
    tokio::spawn(half(from_writer, to_writer));
    tokio::spawn(half(from_reader, to_reader));
}

async fn half(mut from: mpsc::Receiver<u32>, to: mpsc::Sender<u32>) {
    while let Some(number) = from.recv().await {
        let _gone = to.send(number).await;
    }
}

fn block() -> std_mpsc::Sender<()> {
    let (sender, blocked) = std_mpsc::channel::<()>();
    tokio::spawn(blocks(blocked));
    sender
}

async fn blocks(blocked: std_mpsc::Receiver<()>) {
    let _never = blocked.recv();
}
