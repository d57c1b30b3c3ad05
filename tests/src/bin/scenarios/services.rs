//! Healthy programs: idle ones, busy ones, and ones whose tasks start and end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Mutex, mpsc};
use tokio::task::{JoinSet, LocalSet};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::harness::{self, Case, DAY, healthy};

pub(crate) const CASES: &[Case] = &[
    healthy!(idle_server_with_many_connections),
    healthy!(pool_on_a_shared_queue),
    healthy!(long_spawn_blocking),
    healthy!(waits_for_a_signal),
    healthy!(waits_for_timers),
    healthy!(shutting_down),
    healthy!(busy_and_polite),
    healthy!(tasks_come_and_go, query "?seconds=2"),
    healthy!(local_tasks),
    healthy!(finished_but_not_joined),
    healthy!(half_of_the_files),
    healthy!(nothing_at_all),
];

/// Sets how many files this process may have open.
pub(crate) fn limit_files(files: usize) {
    let mut limit = file_limit();
    limit.rlim_cur = files as libc::rlim_t;
    // SAFETY: the pointer is to an initialised `rlimit` that outlives the call.
    let set = unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) };
    assert_eq!(set, 0, "up to {} files are allowed to this user", limit.rlim_max);
}

fn file_limit() -> libc::rlimit {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the pointer is to a writable `rlimit` that outlives the call.
    assert_eq!(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) }, 0);
    limit
}

/// Raises the limit where it is lower.
fn allow_files(files: usize) {
    if file_limit().rlim_cur < files as libc::rlim_t {
        limit_files(files);
    }
}

/// Both ends are files of this process.
async fn idle_server_with_many_connections() {
    const CONNECTIONS: usize = 2000;
    allow_files(3 * CONNECTIONS);
    let app = axum::Router::new().route("/", axum::routing::get(async || "alive"));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async { axum::serve(listener, app).await });
    for _ in 0..CONNECTIONS {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
        let mut answer = [0; 1024];
        assert!(stream.read(&mut answer).await.unwrap() > 0);
        tokio::spawn(async move {
            harness::waits();
            let _ = stream.read(&mut answer).await;
        });
    }
    harness::ready(CONNECTIONS).await;
}

/// One task waits for a message while it holds the lock of the queue; the others wait for the lock.
async fn pool_on_a_shared_queue() {
    let (jobs, queue) = mpsc::channel::<u32>(8);
    let queue = Arc::new(Mutex::new(queue));
    for _ in 0..8 {
        let queue = queue.clone();
        tokio::spawn(async move {
            harness::waits();
            while let Some(job) = queue.lock().await.recv().await {
                println!("{job}");
            }
        });
    }
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    tokio::spawn(async move {
        let mut datagram = [0; 4];
        harness::waits();
        while socket.recv(&mut datagram).await.is_ok() {
            let _ = jobs.send(u32::from_ne_bytes(datagram)).await;
        }
    });
    drop(queue);
    harness::ready(9).await;
}

async fn long_spawn_blocking() {
    tokio::spawn(async {
        let long = tokio::task::spawn_blocking(|| {
            let begun = Instant::now();
            while begun.elapsed() < DAY {
                std::hint::spin_loop();
            }
        });
        harness::waits();
        let _ = long.await;
    });
    let _sleeps = tokio::task::spawn_blocking(|| thread::sleep(DAY));
    harness::ready(1).await;
}

async fn waits_for_a_signal() {
    let mut terminate = signal(SignalKind::terminate()).unwrap();
    tokio::spawn(async move {
        harness::waits();
        terminate.recv().await;
    });
    tokio::spawn(async {
        harness::waits();
        let _ = tokio::signal::ctrl_c().await;
    });
    harness::ready(2).await;
}

async fn waits_for_timers() {
    for _ in 0..500 {
        tokio::spawn(async {
            harness::waits();
            sleep(DAY).await;
        });
    }
    tokio::spawn(async {
        harness::waits();
        let mut interval = tokio::time::interval(Duration::from_millis(10));
        loop {
            interval.tick().await;
        }
    });
    harness::ready(501).await;
}

/// All tasks are shutting down; one of them takes long.
async fn shutting_down() {
    let stop = CancellationToken::new();
    let mut tasks = JoinSet::new();
    for n in 0..10 {
        let stop = stop.child_token();
        tasks.spawn(async move {
            stop.cancelled().await;
            if n == 0 {
                harness::waits();
                sleep(DAY).await;
            }
        });
    }
    stop.cancel();
    for _ in 0..9 {
        tasks.join_next().await;
    }
    tokio::spawn(async move {
        harness::waits();
        tasks.join_next().await;
    });
    harness::ready(2).await;
}

/// Tasks that use every processor, and yield often.
async fn busy_and_polite() {
    for _ in 0..6 {
        tokio::spawn(async {
            harness::waits();
            loop {
                let begun = Instant::now();
                while begun.elapsed() < Duration::from_millis(2) {
                    std::hint::spin_loop();
                }
                tokio::task::yield_now().await;
            }
        });
    }
    harness::ready(6).await;
}

/// As many tasks start as end: no group grows for long.
async fn tasks_come_and_go() {
    let again = Arc::new(AtomicBool::new(true));
    tokio::spawn(async move {
        harness::waits();
        while again.load(Ordering::Relaxed) {
            for _ in 0..20 {
                tokio::spawn(sleep(Duration::from_millis(150)));
            }
            sleep(Duration::from_millis(100)).await;
        }
    });
    harness::ready(1).await;
}

async fn local_tasks() {
    thread::spawn(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        LocalSet::new().block_on(&runtime, async {
            let lock = std::rc::Rc::new(Mutex::new(0));
            let guard = lock.lock().await;
            let theirs = lock.clone();
            tokio::task::spawn_local(async move {
                harness::waits();
                *theirs.lock().await += 1;
            });
            harness::waits();
            sleep(DAY).await;
            drop(guard);
        });
    });
    harness::ready(2).await;
}

async fn finished_but_not_joined() {
    let ended: Vec<_> = (0..50).map(|n| tokio::spawn(std::future::ready(n))).collect();
    while !ended.iter().all(tokio::task::JoinHandle::is_finished) {
        tokio::task::yield_now().await;
    }
    harness::ready(0).await;
    drop(ended);
}

async fn half_of_the_files() {
    const LIMIT: usize = 256;
    limit_files(LIMIT);
    for _ in 0..LIMIT / 2 {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        tokio::spawn(async move {
            harness::waits();
            let _ = socket.recv(&mut [0; 16]).await;
        });
    }
    harness::ready(LIMIT / 2).await;
}

async fn nothing_at_all() {
    harness::ready(0).await;
}
