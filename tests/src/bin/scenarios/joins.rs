//! Branches of a `join!` that seem stuck, but end for another reason than what they wait for.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Barrier, Mutex, Semaphore, mpsc};
use tokio::time::sleep;

use crate::harness::{self, Case, DAY, healthy};

pub(crate) const CASES: &[Case] = &[
    healthy!(branch_until_a_socket_hears),
    healthy!(join_until_a_client_hangs_up),
    healthy!(join_until_a_box_is_read),
    healthy!(select_until_a_box_is_read),
    healthy!(branch_that_can_be_aborted),
    healthy!(branch_that_a_flag_ends),
    healthy!(permits_that_a_branch_adds),
];

type Lock = Arc<Mutex<i32>>;

/// Two locks that a task of the case holds crosswise with the caller of `take_both`.
fn crossed() -> (Lock, Lock) {
    let (one, two) = (Lock::default(), Lock::default());
    let meet = Arc::new(Barrier::new(2));
    tokio::spawn(take_both(two.clone(), one.clone(), meet.clone()));
    // The caller's half: it continues once the other task holds its first lock.
    tokio::spawn(async move {
        meet.wait().await;
    });
    (one, two)
}

async fn take_both(first: Lock, second: Lock, meet: Arc<Barrier>) {
    let mut mine = first.lock().await;
    meet.wait().await;
    harness::waits();
    sleep(Duration::from_millis(50)).await;
    *mine += *second.lock().await;
}

async fn take(first: Lock, second: Lock) {
    let mut mine = first.lock().await;
    harness::waits();
    sleep(Duration::from_millis(50)).await;
    *mine += *second.lock().await;
}

async fn ticks() {
    loop {
        sleep(Duration::from_millis(5)).await;
    }
}

async fn connected() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    let address = listener.local_addr().expect("bound");
    let (here, there) = tokio::join!(TcpStream::connect(address), listener.accept());
    (here.expect("connected"), there.expect("accepted").0)
}

/// The other branch owns the other half of the socket, and does not read.
async fn branch_until_a_socket_hears() {
    let (socket, _peer) = connected().await;
    let (mut reader, writer) = socket.into_split();
    let (sender, mut receiver) = mpsc::channel::<u8>(1);
    let lock = Lock::default();
    let locked = lock.clone();
    tokio::spawn(async move {
        let hears = async {
            let guard = locked.lock().await;
            harness::waits();
            let mut buffer = [0; 8];
            tokio::select! { _ = reader.read(&mut buffer) => {}, _ = receiver.recv() => {} }
            drop(guard);
        };
        let beats = async {
            let _writer = writer;
            ticks().await;
        };
        tokio::join!(hears, beats);
    });
    tokio::spawn(async move {
        while lock.try_lock().is_ok() {
            tokio::task::yield_now().await;
        }
        harness::waits();
        drop(lock.lock().await);
        let _ = sender.send(1).await;
    });
    harness::ready(2).await;
}

async fn join_until_a_client_hangs_up() {
    let (socket, _peer) = connected().await;
    let (mut reader, mut writer) = socket.into_split();
    let (one, two) = crossed();
    tokio::spawn(async move {
        let both = async {
            let writes = async {
                let block = vec![0; 64 << 20];
                let _ = writer.write_all(&block).await;
            };
            tokio::join!(take(one, two), writes);
        };
        let mut buffer = [0; 8];
        tokio::select! { _ = reader.read(&mut buffer) => {}, () = both => {} }
    });
    harness::ready(2).await;
}

async fn join_until_a_box_is_read() {
    let (socket, _peer) = connected().await;
    let mut reader: Box<dyn AsyncRead + Send + Unpin> = Box::new(socket);
    let (one, two) = crossed();
    tokio::spawn(async move {
        let both = async {
            tokio::join!(take(one, two), ticks());
        };
        let mut buffer = [0; 8];
        tokio::select! { _ = reader.read(&mut buffer) => {}, () = both => {} }
    });
    harness::ready(2).await;
}

async fn select_until_a_box_is_read() {
    let (one, two) = crossed();
    let (socket, _peer) = connected().await;
    let mut reader: Box<dyn AsyncRead + Send + Unpin> = Box::new(socket);
    tokio::spawn(async move {
        let mut buffer = [0; 8];
        tokio::select! { _ = reader.read(&mut buffer) => {}, () = take(one, two) => {} }
    });
    harness::ready(2).await;
}

/// In `main`, whose wakers are not counted.
async fn branch_that_can_be_aborted() {
    let (one, two) = crossed();
    tokio::spawn(harness::ready(2));
    let (takes, handle) = futures::future::abortable(take(one, two));
    let aborts = async {
        sleep(DAY).await;
        handle.abort();
    };
    let _ = tokio::join!(takes, aborts);
}

async fn branch_that_a_flag_ends() {
    let (one, two) = crossed();
    let over = AtomicBool::new(false);
    tokio::spawn(async move {
        let takes = async {
            let mut takes = pin!(take(one, two));
            std::future::poll_fn(|context| match over.load(Ordering::Relaxed) {
                true => std::task::Poll::Ready(()),
                false => takes.as_mut().poll(context),
            })
            .await;
        };
        let ends = async {
            sleep(DAY).await;
            over.store(true, Ordering::Relaxed);
        };
        tokio::join!(takes, ends);
    });
    harness::ready(2).await;
}

async fn permits_that_a_branch_adds() {
    tokio::spawn(async {
        let permits = Semaphore::new(1);
        let _permit = permits.acquire().await;
        let waits = async {
            harness::waits();
            drop(permits.acquire().await);
        };
        let adds = async {
            sleep(DAY).await;
            permits.add_permits(1);
        };
        tokio::join!(waits, adds);
    });
    tokio::spawn(async {
        let permits = Semaphore::new(1);
        let waits = async {
            let _permit = permits.acquire().await;
            harness::waits();
            drop(permits.acquire().await);
        };
        let adds = async {
            sleep(DAY).await;
            permits.add_permits(1);
        };
        tokio::join!(waits, adds);
    });
    harness::ready(2).await;
}
