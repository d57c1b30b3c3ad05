//! A program that stresses captures: some 200 threads that block, start and end,
//! allocate, panic and unwind, load libraries and start children, beside a web server under load.
//!
//! Its own web server, whose address it prints as `serving`, knows
//! - `/work`: a little of everything that requests do;
//! - `/figures`: what has happened so far, as `name number` lines; `gap_us` counts from the last time;
//! - `/sigurg`: from now on the program handles SIGURG itself, and raises it.

use std::hint::black_box;
use std::io::{PipeReader, Read, pipe};
use std::panic::catch_unwind;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::thread::{self, Builder};
use std::time::{Duration, Instant};

use axum::Router;
use axum::routing::get;

const LONG: Duration = Duration::from_secs(100_000);
/// Between two rounds of a thread that works: all of them together leave most of a processor free.
const BREATH: Duration = Duration::from_millis(25);

/// Counters of what has happened.
static GAP_US: AtomicU64 = AtomicU64::new(0);
static TICKS: AtomicU64 = AtomicU64::new(0);
static BIRTHS: AtomicU64 = AtomicU64::new(0);
static PANICS: AtomicU64 = AtomicU64::new(0);
static LOADS: AtomicU64 = AtomicU64::new(0);
static CHILDREN: AtomicU64 = AtomicU64::new(0);
static CHILDREN_FAILED: AtomicU64 = AtomicU64::new(0);
static SIGURG_RAISED: AtomicU64 = AtomicU64::new(0);
static SIGURG_SEEN: AtomicU64 = AtomicU64::new(0);

#[delouse::main(worker_threads = 4)]
async fn main() -> std::io::Result<()> {
    let default = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        // Those are meant to.
        if !thread::current().name().is_some_and(|name| name.starts_with("panic") || name == "brief") {
            default(info);
        }
    }));
    let lock: &'static Mutex<()> = Box::leak(Box::new(Mutex::new(())));
    // Held for good.
    std::mem::forget(lock.lock().unwrap_or_else(PoisonError::into_inner));
    let mut writers = Vec::new();
    named("ticker", ticks);
    for number in 0..15 {
        let (reader, writer) = pipe()?;
        writers.push(writer);
        named(&format!("still-park-{number}"), blocks_in_park);
        named(&format!("still-slp-{number}"), blocks_in_sleep);
        named(&format!("still-lock-{number}"), || blocks_in_lock(lock));
        named(&format!("still-read-{number}"), || blocks_in_read(reader));
    }
    for number in 0..50 {
        named(&format!("alloc-{number}"), move || allocates(number));
    }
    for number in 0..20 {
        named(&format!("panic-{number}"), panics);
    }
    for number in 0..10 {
        named(&format!("load-{number}"), move || loads(number));
    }
    for number in 0..6 {
        named(&format!("child-{number}"), move || starts_children(number % 2 == 0));
    }
    for number in 0..4 {
        named(&format!("breed-{number}"), breeds);
    }
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    println!("serving http://{} ", listener.local_addr()?);
    let app = Router::new()
        .route("/work", get(work))
        .route("/figures", get(async || figures()))
        .route("/sigurg", get(async || takes_sigurg()));
    let served = axum::serve(listener, app).await;
    drop(writers);
    served
}

fn named(name: &str, body: impl FnOnce() + Send + 'static) {
    if Builder::new().name(name.to_owned()).spawn(body).is_err() {
        std::process::abort();
    }
}

/// A request: a timer, a task, now and then a thread of the blocking pool.
async fn work() -> String {
    let number = TICKS.load(Relaxed);
    let spawned = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(1)).await;
        vec![number; 1000]
    });
    let sum: u64 = spawned.await.map(|numbers| numbers.iter().sum()).unwrap_or(0);
    let blocking = if number.is_multiple_of(8) {
        tokio::task::spawn_blocking(move || sum / 1000).await.ok()
    } else {
        Some(number)
    };
    if blocking == Some(number) { "worked".to_owned() } else { "failed".to_owned() }
}

fn figures() -> String {
    let counters: [(&str, u64); 9] = [
        ("gap_us", GAP_US.swap(0, Relaxed)),
        ("ticks", TICKS.load(Relaxed)),
        ("births", BIRTHS.load(Relaxed)),
        ("panics", PANICS.load(Relaxed)),
        ("loads", LOADS.load(Relaxed)),
        ("children", CHILDREN.load(Relaxed)),
        ("children_failed", CHILDREN_FAILED.load(Relaxed)),
        ("sigurg_raised", SIGURG_RAISED.load(Relaxed)),
        ("sigurg_seen", SIGURG_SEEN.load(Relaxed)),
    ];
    counters.map(|(name, value)| format!("{name} {value}\n")).concat()
}

/// The heartbeat: how long the program stood still at most.
fn ticks() {
    let mut last = Instant::now();
    loop {
        thread::sleep(Duration::from_millis(1));
        GAP_US.fetch_max(u64::try_from(last.elapsed().as_micros()).unwrap_or(u64::MAX), Relaxed);
        last = Instant::now();
        TICKS.fetch_add(1, Relaxed);
    }
}

fn blocks_in_park() {
    loop {
        thread::park();
    }
}

fn blocks_in_sleep() {
    thread::sleep(LONG);
}

fn blocks_in_lock(lock: &Mutex<()>) {
    drop(black_box(lock.lock()));
}

fn blocks_in_read(mut reader: PipeReader) {
    let _ = black_box(reader.read(&mut [0; 1]));
}

fn allocates(seed: usize) {
    loop {
        let blocks: Vec<Vec<u8>> = (0..64).map(|n| vec![1; (seed * 613 + n * 331) % 5000 + 1]).collect();
        // Above glibc's threshold: mapped and unmapped.
        let large = vec![1_u8; 160 << 10];
        black_box((blocks, large));
        thread::sleep(BREATH);
    }
}

/// Frees something while the stack is unwound.
struct Cleanup(Vec<u8>);

impl Drop for Cleanup {
    fn drop(&mut self) {
        black_box(&mut self.0).push(1);
    }
}

fn panics() {
    loop {
        unwinds();
        thread::sleep(BREATH);
    }
}

fn unwinds() {
    fn dive(depth: u32) {
        let cleanup = Cleanup(vec![0; 100]);
        #[expect(clippy::panic, reason = "what it is there for")]
        if depth == 0 {
            panic!("as planned, with {} bytes", cleanup.0.len());
        }
        dive(depth - 1);
        black_box(&cleanup);
    }
    if catch_unwind(|| dive(20)).is_err() {
        PANICS.fetch_add(1, Relaxed);
    }
}

fn loads(number: usize) {
    let libraries = [c"libresolv.so.2", c"libanl.so.1", c"libBrokenLocale.so.1", c"libthread_db.so.1"];
    for round in number.. {
        let Some(name) = libraries.get(round % libraries.len()) else { continue };
        // SAFETY: libraries of libc without constructors that matter; each handle is closed once.
        unsafe {
            let handle = libc::dlopen(name.as_ptr(), libc::RTLD_NOW);
            if !handle.is_null() {
                LOADS.fetch_add(1, Relaxed);
                libc::dlclose(handle);
            }
        }
        thread::sleep(BREATH);
    }
}

fn starts_children(by_fork: bool) {
    loop {
        let mut command = Command::new("/bin/true");
        command.stdin(Stdio::null());
        if by_fork {
            use std::os::unix::process::CommandExt;
            // Anything before `exec` keeps std from posix_spawn, which is a vfork.
            // SAFETY: does nothing.
            unsafe { command.pre_exec(|| Ok(())) };
        }
        let good = command.status().is_ok_and(|status| status.success());
        if good { &CHILDREN } else { &CHILDREN_FAILED }.fetch_add(1, Relaxed);
        thread::sleep(12 * BREATH);
    }
}

fn breeds() {
    loop {
        let briefs: Vec<_> = (0..10)
            .filter_map(|number| {
                let body = move || {
                    black_box(vec![number; 10_000]);
                    if number % 3 == 0 {
                        unwinds();
                    }
                    thread::sleep(BREATH * number);
                };
                Builder::new().name("brief".to_owned()).spawn(body).ok()
            })
            .collect();
        for brief in briefs {
            BIRTHS.fetch_add(u64::from(brief.join().is_ok()), Relaxed);
        }
    }
}

/// A handler of the program's own on the signal that delouse likes best.
fn takes_sigurg() -> String {
    extern "C" fn seen(_signal: i32) {
        SIGURG_SEEN.fetch_add(1, Relaxed);
    }
    // SAFETY: the handler only counts.
    unsafe { libc::signal(libc::SIGURG, seen as extern "C" fn(i32) as libc::sighandler_t) };
    named("raises-sigurg", || {
        loop {
            // SAFETY: handled since before.
            unsafe { libc::raise(libc::SIGURG) };
            SIGURG_RAISED.fetch_add(1, Relaxed);
            thread::sleep(BREATH);
        }
    });
    "taken".to_owned()
}
