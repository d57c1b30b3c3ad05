//! Loops that never wait, because a branch of theirs is ready whenever it is polled; and tasks that only have much to do.

use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{broadcast, mpsc};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::harness::{self, Case, DAY, faulty, healthy};

pub(crate) const CASES: &[Case] = &[
    faulty!(own main_selects_on_a_closed_flume: "busy_loop", says "busy::ui at", "`playback` is empty and has no sender"),
    faulty!(selects_on_a_closed_channel: "busy_loop", says "busy::serve at", "`requests` is empty and has no sender"),
    faulty!(ignores_that_a_broadcast_has_ended: "busy_loop", says "busy::listens at", "`events`"),
    // The loop itself is not found yet.
    faulty!(reads_nothing_at_the_end: "busy_loop", says "busy::reads at", "`stream`"),
    // These never yield.
    faulty!(selects_on_no_futures: "busy_loop" | "blocked_worker", says "busy::works at"),
    faulty!(selects_on_no_tasks: "busy_loop" | "blocked_worker", says "busy::supervises at"),
    faulty!(selects_on_a_cancelled_token: "busy_loop", says "busy::stops_never at", "`stop` is cancelled"),
    healthy!(computes_and_yields),
    healthy!(drains_a_closed_channel),
    healthy!(never_catches_up),
    healthy!(echoes_under_load),
    healthy!(own main_that_computes_and_yields),
    healthy!(has_disabled_a_closed_branch),
];

#[delouse::main(worker_threads = 2)]
async fn main_selects_on_a_closed_flume() {
    let (sender, playback) = flume::unbounded::<u32>();
    tokio::spawn(async move { sender.send(1) });
    harness::ready_on_a_thread(1);
    ui(playback).await;
}

async fn ui(playback: flume::Receiver<u32>) {
    let mut frames = tokio::time::interval(Duration::from_millis(16));
    let mut drawn = 0_u64;
    harness::waits();
    loop {
        tokio::select! {
            biased;
            _ = frames.tick() => drawn += 1,
            state = playback.recv_async() => {
                if let Ok(state) = state {
                    println!("{state} {drawn}");
                }
            }
        }
    }
}

async fn selects_on_a_closed_channel() {
    let (sender, requests) = mpsc::channel::<u32>(4);
    tokio::spawn(serve(requests));
    let _ = sender.send(1).await;
    drop(sender);
    harness::ready(1).await;
}

async fn serve(mut requests: mpsc::Receiver<u32>) {
    let mut ticks = tokio::time::interval(Duration::from_secs(60));
    let mut served = 0;
    harness::waits();
    loop {
        tokio::select! {
            request = requests.recv() => served += request.map_or(0, |_| 1),
            _ = ticks.tick() => println!("{served} served"),
        }
    }
}

async fn ignores_that_a_broadcast_has_ended() {
    let (sender, events) = broadcast::channel::<u32>(4);
    tokio::spawn(listens(events));
    let _ = sender.send(1);
    drop(sender);
    harness::ready(1).await;
}

async fn listens(mut events: broadcast::Receiver<u32>) {
    harness::waits();
    loop {
        match events.recv().await {
            Ok(event) => println!("{event}"),
            Err(_) => continue,
        }
    }
}

async fn reads_nothing_at_the_end() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (server, _) = listener.accept().await.unwrap();
    tokio::spawn(reads(server));
    drop(client);
    harness::ready(1).await;
}

async fn reads(mut stream: TcpStream) {
    let mut message = Vec::new();
    let mut buffer = [0; 64];
    harness::waits();
    while let Ok(n) = stream.read(&mut buffer).await {
        message.extend_from_slice(&buffer[..n]);
        if message.ends_with(b"\n") {
            println!("{} bytes", message.len());
        }
    }
}

async fn selects_on_no_futures() {
    let (_sender, jobs) = mpsc::channel::<u32>(4);
    tokio::spawn(works(jobs));
    harness::ready(1).await;
}

async fn works(mut jobs: mpsc::Receiver<u32>) {
    let mut working = FuturesUnordered::new();
    harness::waits();
    loop {
        tokio::select! {
            Some(job) = jobs.recv() => working.push(tokio::time::sleep(Duration::from_secs(job.into()))),
            _ = working.next() => {}
        }
    }
}

async fn selects_on_no_tasks() {
    let (_sender, jobs) = mpsc::channel::<u32>(4);
    tokio::spawn(supervises(jobs));
    harness::ready(1).await;
}

async fn supervises(mut jobs: mpsc::Receiver<u32>) {
    let mut working = JoinSet::new();
    harness::waits();
    loop {
        tokio::select! {
            Some(job) = jobs.recv() => { working.spawn(tokio::time::sleep(Duration::from_secs(job.into()))); }
            _ = working.join_next() => {}
        }
    }
}

async fn selects_on_a_cancelled_token() {
    let stop = CancellationToken::new();
    let (_sender, jobs) = mpsc::channel::<u32>(4);
    tokio::spawn(stops_never(stop.clone(), jobs));
    stop.cancel();
    harness::ready(1).await;
}

async fn stops_never(stop: CancellationToken, mut jobs: mpsc::Receiver<u32>) {
    let mut stopping = false;
    harness::waits();
    loop {
        tokio::select! {
            () = stop.cancelled() => stopping = true,
            job = jobs.recv() => println!("{job:?} {stopping}"),
        }
    }
}

fn compute(n: u64) -> u64 {
    let step = |state: u64, i| std::hint::black_box(state.wrapping_mul(6364136223846793005).wrapping_add(i));
    (0..n).fold(1, step)
}

async fn computes_and_yields() {
    tokio::spawn(async {
        harness::waits();
        loop {
            std::hint::black_box(compute(10_000));
            tokio::task::yield_now().await;
        }
    });
    harness::ready(1).await;
}

#[delouse::main(worker_threads = 2)]
async fn main_that_computes_and_yields() {
    harness::ready_on_a_thread(1);
    harness::waits();
    loop {
        std::hint::black_box(compute(10_000));
        tokio::task::yield_now().await;
    }
}

/// Nothing sends any more, but what was sent takes its time.
async fn drains_a_closed_channel() {
    let (sender, mut jobs) = mpsc::unbounded_channel::<u64>();
    for _ in 0..2_000_000 {
        let _ = sender.send(50_000);
    }
    drop(sender);
    tokio::spawn(async move {
        harness::waits();
        while let Some(n) = jobs.recv().await {
            std::hint::black_box(compute(n));
        }
    });
    harness::ready(1).await;
}

/// One task sends as fast as another one receives.
async fn never_catches_up() {
    let (sender, mut jobs) = mpsc::channel::<u64>(64);
    tokio::spawn(async move {
        harness::waits();
        while sender.send(100).await.is_ok() {}
    });
    tokio::spawn(async move {
        harness::waits();
        while let Some(n) = jobs.recv().await {
            std::hint::black_box(compute(n));
        }
    });
    harness::ready(2).await;
}

async fn echoes_under_load() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (mut server, _) = listener.accept().await.unwrap();
    tokio::spawn(async move {
        let mut buffer = [0; 4096];
        harness::waits();
        while let Ok(n @ 1..) = server.read(&mut buffer).await {
            let _ = server.write_all(&buffer[..n]).await;
        }
    });
    tokio::spawn(async move {
        let mut buffer = [7; 4096];
        harness::waits();
        while client.write_all(&buffer).await.is_ok() {
            let _ = client.read_exact(&mut buffer).await;
        }
    });
    harness::ready(2).await;
}

/// The end of the channel is known: its branch is not polled any more. The other one is busy.
async fn has_disabled_a_closed_branch() {
    let (ends, mut closed) = mpsc::channel::<u32>(4);
    let (sender, mut jobs) = mpsc::channel::<u64>(64);
    drop(ends);
    tokio::spawn(async move {
        harness::waits();
        while sender.send(100).await.is_ok() {}
    });
    tokio::spawn(async move {
        let mut open = true;
        harness::waits();
        loop {
            tokio::select! {
                message = closed.recv(), if open => open = message.is_some(),
                Some(n) = jobs.recv() => { std::hint::black_box(compute(n)); }
                else => break,
            }
        }
        tokio::time::sleep(DAY).await;
    });
    harness::ready(2).await;
}
