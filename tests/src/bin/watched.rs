//! A service that is healthy until a test provokes a fault, by a command over a connection that no task serves.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, mpsc as std_mpsc};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{Barrier, Mutex, mpsc};
use tokio::task::AbortHandle;

#[delouse::main(worker_threads = 3)]
async fn main() {
    delouse::Config::new()
        .on_finding(|event| {
            println!("event {:?} {} report={}", event.change, event.kind, event.report.is_some())
        })
        .init();
    let runtime = Handle::current();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    println!("control {}", listener.local_addr().expect("an address"));
    std::thread::spawn(move || {
        if let Ok((connection, _)) = listener.accept() {
            commands(connection, &runtime);
        }
    });
    let mut ticks = tokio::time::interval(Duration::from_millis(20));
    loop {
        ticks.tick().await;
    }
}

/// Keeps what a fault needs until the program ends.
#[derive(Default)]
struct Provoked {
    deadlocked: Vec<AbortHandle>,
    senders: Vec<std_mpsc::Sender<()>>,
}

fn commands(connection: TcpStream, runtime: &Handle) {
    let mut answers = connection.try_clone().expect("a descriptor");
    let mut provoked = Provoked::default();
    for command in BufReader::new(connection).lines().map_while(Result::ok) {
        match command.as_str() {
            "deadlock" => provoked.deadlocked.extend(deadlock(runtime)),
            "end the deadlock" => provoked.deadlocked.drain(..).for_each(|task| task.abort()),
            "leak" => leak(runtime),
            "block" => provoked.senders.push(block(runtime)),
            other => panic!("no command: {other}"),
        }
        let _gone = writeln!(answers, "done");
    }
}

fn deadlock(runtime: &Handle) -> [AbortHandle; 2] {
    let (debit, credit) = (Arc::new(Mutex::new(0)), Arc::new(Mutex::new(0)));
    let both = Arc::new(Barrier::new(2));
    let one = runtime.spawn(transfer(debit.clone(), credit.clone(), both.clone()));
    let other = runtime.spawn(transfer(credit, debit, both));
    [one.abort_handle(), other.abort_handle()]
}

async fn transfer(from: Arc<Mutex<i32>>, to: Arc<Mutex<i32>>, both: Arc<Barrier>) {
    let mut from = from.lock().await;
    both.wait().await;
    let mut to = to.lock().await;
    *from -= 1;
    *to += 1;
}

fn leak(runtime: &Handle) {
    let (to_reader, from_writer) = mpsc::channel::<u32>(1);
    let (to_writer, from_reader) = mpsc::channel::<u32>(1);
    runtime.spawn(half(from_writer, to_writer));
    runtime.spawn(half(from_reader, to_reader));
}

async fn half(mut from: mpsc::Receiver<u32>, to: mpsc::Sender<u32>) {
    while let Some(number) = from.recv().await {
        let _gone = to.send(number).await;
    }
}

fn block(runtime: &Handle) -> std_mpsc::Sender<()> {
    let (sender, blocked) = std_mpsc::channel::<()>();
    runtime.spawn(blocks(blocked));
    sender
}

async fn blocks(blocked: std_mpsc::Receiver<()>) {
    let _never = blocked.recv();
}
