//! Good days of whole programs: idle, busy, coming and going.

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

use crate::stage::{self, AGES, Case, good};

pub(crate) const CASES: &[Case] = &[
    good!(idle_server_with_many_connections),
    good!(pool_on_a_shared_queue),
    good!(long_spawn_blocking),
    good!(waits_for_a_signal),
    good!(waits_for_timers),
    good!(shutting_down),
    good!(busy_and_polite),
    good!(tasks_come_and_go, "?seconds=2"),
    good!(local_tasks),
    good!(finished_but_not_joined),
    good!(half_of_the_files),
    good!(nothing_at_all),
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
            stage::waits();
            let _ = stream.read(&mut answer).await;
        });
    }
    stage::stands(CONNECTIONS).await;
}

/// One waits for a message with the lock of the queue in its hands, the others for the lock.
async fn pool_on_a_shared_queue() {
    let (jobs, queue) = mpsc::channel::<u32>(8);
    let queue = Arc::new(Mutex::new(queue));
    for _ in 0..8 {
        let queue = queue.clone();
        tokio::spawn(async move {
            stage::waits();
            while let Some(job) = queue.lock().await.recv().await {
                println!("{job}");
            }
        });
    }
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    tokio::spawn(async move {
        let mut datagram = [0; 4];
        stage::waits();
        while socket.recv(&mut datagram).await.is_ok() {
            let _ = jobs.send(u32::from_ne_bytes(datagram)).await;
        }
    });
    drop(queue);
    stage::stands(9).await;
}

async fn long_spawn_blocking() {
    tokio::spawn(async {
        let long = tokio::task::spawn_blocking(|| {
            let begun = Instant::now();
            while begun.elapsed() < AGES {
                std::hint::spin_loop();
            }
        });
        stage::waits();
        let _ = long.await;
    });
    let _sleeps = tokio::task::spawn_blocking(|| thread::sleep(AGES));
    stage::stands(1).await;
}

async fn waits_for_a_signal() {
    let mut terminate = signal(SignalKind::terminate()).unwrap();
    tokio::spawn(async move {
        stage::waits();
        terminate.recv().await;
    });
    tokio::spawn(async {
        stage::waits();
        let _ = tokio::signal::ctrl_c().await;
    });
    stage::stands(2).await;
}

async fn waits_for_timers() {
    for _ in 0..500 {
        tokio::spawn(async {
            stage::waits();
            sleep(AGES).await;
        });
    }
    tokio::spawn(async {
        stage::waits();
        let mut interval = tokio::time::interval(Duration::from_millis(10));
        loop {
            interval.tick().await;
        }
    });
    stage::stands(501).await;
}

/// All have been told to end; one of them takes its time.
async fn shutting_down() {
    let stop = CancellationToken::new();
    let mut tasks = JoinSet::new();
    for n in 0..10 {
        let stop = stop.child_token();
        tasks.spawn(async move {
            stop.cancelled().await;
            if n == 0 {
                stage::waits();
                sleep(AGES).await;
            }
        });
    }
    stop.cancel();
    for _ in 0..9 {
        tasks.join_next().await;
    }
    tokio::spawn(async move {
        stage::waits();
        tasks.join_next().await;
    });
    stage::stands(2).await;
}

/// Tasks that need every processor, and give way all the time.
async fn busy_and_polite() {
    for _ in 0..6 {
        tokio::spawn(async {
            stage::waits();
            loop {
                let begun = Instant::now();
                while begun.elapsed() < Duration::from_millis(2) {
                    std::hint::spin_loop();
                }
                tokio::task::yield_now().await;
            }
        });
    }
    stage::stands(6).await;
}

/// As many come as go: none of the groups grows for long.
async fn tasks_come_and_go() {
    let again = Arc::new(AtomicBool::new(true));
    tokio::spawn(async move {
        stage::waits();
        while again.load(Ordering::Relaxed) {
            for _ in 0..20 {
                tokio::spawn(sleep(Duration::from_millis(150)));
            }
            sleep(Duration::from_millis(100)).await;
        }
    });
    stage::stands(1).await;
}

async fn local_tasks() {
    thread::spawn(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        LocalSet::new().block_on(&runtime, async {
            let lock = std::rc::Rc::new(Mutex::new(0));
            let guard = lock.lock().await;
            let theirs = lock.clone();
            tokio::task::spawn_local(async move {
                stage::waits();
                *theirs.lock().await += 1;
            });
            stage::waits();
            sleep(AGES).await;
            drop(guard);
        });
    });
    stage::stands(2).await;
}

async fn finished_but_not_joined() {
    let ended: Vec<_> = (0..50).map(|n| tokio::spawn(std::future::ready(n))).collect();
    while !ended.iter().all(tokio::task::JoinHandle::is_finished) {
        tokio::task::yield_now().await;
    }
    stage::stands(0).await;
    drop(ended);
}

async fn half_of_the_files() {
    const LIMIT: usize = 256;
    limit_files(LIMIT);
    for _ in 0..LIMIT / 2 {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        tokio::spawn(async move {
            stage::waits();
            let _ = socket.recv(&mut [0; 16]).await;
        });
    }
    stage::stands(LIMIT / 2).await;
}

async fn nothing_at_all() {
    stage::stands(0).await;
}
