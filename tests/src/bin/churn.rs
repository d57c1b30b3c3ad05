//! Spawns tasks and ends them as fast as all processors can, and records when each was alive, for tests that capture
//! them. `churn` prints `control ADDRESS` when tasks are being spawned. There, each line is a command, answered by a line.
//! - `polls`: how often the idle tasks were polled since the start, and how many there are;
//! - `spawned`: how many tasks have ended so far;
//! - `check FROM UNTIL ID:STATE…`: which of these tasks were not alive at any moment between the two times
//!   (nanoseconds of the monotonic clock): `wrong ID…`, then `late ID…` for tasks that were found complete though
//!   their handle was gone before FROM: a worker may be about to let go of those, one each.
//!
//! A task is born before `spawn` is called and gone when its `JoinHandle` was dropped after its end.

use std::future::Future;
use std::hint::black_box;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use std::task::{Context, Poll};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::{Mutex, Notify, mpsc, oneshot};

/// Idle tasks of each kind.
const IDLE: u64 = 25;
/// Tasks that one spawner has in hand at a time.
const BATCH: usize = 32;
/// Entries of the book: what is written there lasts for some seconds.
const ENTRIES: usize = 1 << 21;
/// How long an entry may be on its way: a spawner that was put aside between `spawn` and writing it down.
const PATIENCE: Duration = Duration::from_secs(30);

static POLLS: AtomicU64 = AtomicU64::new(0);
static ENDED: AtomicU64 = AtomicU64::new(0);
static BOOK: [Entry; ENTRIES] = [const { Entry::new() }; ENTRIES];

/// One task's life.
struct Entry {
    /// Written last; 0 while the rest is.
    id: AtomicU64,
    born: AtomicU64,
    /// 0: in hand.
    gone: AtomicU64,
}

impl Entry {
    const fn new() -> Self {
        Self { id: AtomicU64::new(0), born: AtomicU64::new(0), gone: AtomicU64::new(0) }
    }

    /// tokio counts its ids up, so neighbours have entries of their own.
    fn of(id: u64) -> &'static Self {
        &BOOK[id as usize % ENTRIES]
    }
}

/// A future that counts how often it is polled.
struct Counted<F>(F);

impl<F: Future + Unpin> Future for Counted<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        POLLS.fetch_add(1, SeqCst);
        Pin::new(&mut self.0).poll(context)
    }
}

fn idle<F: Future<Output = ()> + Send + 'static>(future: F) {
    tokio::spawn(Counted(Box::pin(future)));
}

async fn idles_at_notify() {
    Notify::new().notified().await;
}

async fn idles_at_mutex() {
    let mutex = Mutex::new(());
    let _held = mutex.lock().await;
    let _never = mutex.lock().await;
}

async fn idles_at_channels() {
    let (_sender, mut messages) = mpsc::channel::<()>(1);
    let (_promise, mut answer) = oneshot::channel::<()>();
    tokio::select! {
        _ = messages.recv() => {}
        _ = &mut answer => {}
    }
}

async fn idles_in_a_box() {
    let inner: Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(idles_at_notify());
    inner.await;
}

/// A life that is over soon.
async fn short_lived(number: u64) -> u64 {
    let padding = vec![number; number as usize % 128];
    for _ in 0..number % 3 {
        tokio::task::yield_now().await;
    }
    let mut child = pin!(async { black_box(&padding).len() as u64 });
    if number.is_multiple_of(2) { child.as_mut().await } else { number }
}

/// Spawns and joins for ever.
async fn spawner(seed: u64) {
    let mut number = seed;
    let mut batch = Vec::with_capacity(BATCH);
    loop {
        for _ in 0..BATCH {
            number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let born = now();
            let task = tokio::spawn(short_lived(number >> 33));
            let id = number_of(task.id());
            let entry = Entry::of(id);
            entry.id.store(0, SeqCst);
            entry.born.store(born, SeqCst);
            entry.gone.store(0, SeqCst);
            entry.id.store(id, SeqCst);
            batch.push((id, task));
        }
        for (id, mut task) in batch.drain(..) {
            let _ended = (&mut task).await;
            drop(task);
            Entry::of(id).gone.store(now(), SeqCst);
            ENDED.fetch_add(1, Relaxed);
        }
    }
}

/// `Id` shows its number in no other way.
fn number_of(id: tokio::task::Id) -> u64 {
    id.to_string().parse().unwrap_or_default()
}

/// The monotonic clock, which all processes share.
fn now() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is valid for the call.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

#[delouse::main]
async fn main() -> std::io::Result<()> {
    for _ in 0..IDLE {
        idle(idles_at_notify());
        idle(idles_at_mutex());
        idle(idles_at_channels());
        idle(idles_in_a_box());
    }
    while POLLS.load(SeqCst) < IDLE * 4 {
        tokio::task::yield_now().await;
    }
    let spawners = thread::available_parallelism().map_or(2, usize::from) as u64 * 2;
    for seed in 0..spawners {
        tokio::spawn(spawner(seed));
    }
    while ENDED.load(Relaxed) < 10_000 {
        tokio::task::yield_now().await;
    }
    let control = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    println!("control {}", control.local_addr()?);
    thread::spawn(move || control.incoming().flatten().for_each(obey));
    std::future::pending().await
}

/// Serves one controlling client.
fn obey(client: TcpStream) {
    let Ok(mut answers) = client.try_clone() else { return };
    for line in BufReader::new(client).lines().map_while(Result::ok) {
        let answer = match line.split_once(' ').unwrap_or((&line, "")) {
            ("polls", _) => format!("{} {}", POLLS.load(SeqCst), IDLE * 4),
            ("spawned", _) => ENDED.load(Relaxed).to_string(),
            ("check", tasks) => check(tasks).unwrap_or_else(|| format!("not understood: {tasks}")),
            (other, _) => format!("no command: {other}"),
        };
        if answers.write_all(format!("{answer}\n").as_bytes()).is_err() {
            return;
        }
    }
}

fn check(request: &str) -> Option<String> {
    let mut words = request.split_whitespace();
    let (from, until): (u64, u64) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    let (mut wrong, mut late) = (String::from("wrong"), String::from(" late"));
    for word in words {
        let (id, state) = word.split_once(':')?;
        let life = life(id.parse().ok()?);
        let lived = life.is_some_and(|(born, gone)| born <= until && (gone == 0 || gone >= from));
        let ended_before = life.is_some_and(|(born, gone)| born <= until && gone != 0 && gone < from);
        if !lived {
            let list = if state == "complete" && ended_before { &mut late } else { &mut wrong };
            list.push_str(&format!(" {word}{life:?}").replace(", ", ","));
        }
    }
    Some(wrong + &late)
}

/// When a task was born, and gone; `None` for a task that the book does not know.
fn life(id: u64) -> Option<(u64, u64)> {
    let entry = Entry::of(id);
    let begun = Instant::now();
    while entry.id.load(SeqCst) < id {
        // It is just being written, or about to be.
        if begun.elapsed() > PATIENCE {
            return None;
        }
        thread::yield_now();
    }
    let life = (entry.born.load(SeqCst), entry.gone.load(SeqCst));
    (entry.id.load(SeqCst) == id).then_some(life)
}
