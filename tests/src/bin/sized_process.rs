//! A program of a given size: `sized_process THREADS MEGABYTES`.
//!
//! Its threads block; one thread ticks every millisecond. The program prints `control ADDRESS` when all threads block. There,
//! each line is a command, answered by a line.
//! - `joinable`: writes the memory anew, in small pages, which may be joined into huge ones from now on;
//! - `reserve MEGABYTES`: takes so much address space and gives it back, and answers `reserved`, or `failed`;
//! - `gap`: the longest time between two ticks since the last `gap`, in microseconds;
//! - `listen`: listens on a free port and answers it; `accept`: takes one connection;
//! - `close`: closes both; `bind PORT`: listens on that port, and answers `bound` or why not.

use std::hint::black_box;
use std::io::{BufRead, BufReader, PipeReader, Read, Write, pipe};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Condvar, Mutex};
use std::thread::{self, Builder};
use std::time::{Duration, Instant};

const LONG: Duration = Duration::from_secs(100_000);

static GAP_US: AtomicU64 = AtomicU64::new(0);
static ARRIVED: AtomicUsize = AtomicUsize::new(0);
static MEMORY: (AtomicUsize, AtomicUsize) = (AtomicUsize::new(0), AtomicUsize::new(0));
static NEVER: (Mutex<bool>, Condvar) = (Mutex::new(false), Condvar::new());

fn main() -> std::io::Result<()> {
    let mut numbers = std::env::args().skip(1).filter_map(|number| number.parse::<usize>().ok());
    let (threads, megabytes) = (numbers.next().unwrap_or(10), numbers.next().unwrap_or(1));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let _server = delouse::Config::new().runtime(runtime.handle()).init();
    let memory = fill(megabytes);
    let mut writers = Vec::new();
    for number in 0..threads {
        let builder = Builder::new().name(format!("rest-{number}")).stack_size(128 << 10);
        match number % 4 {
            0 => builder.spawn(rests_in_park)?,
            1 => builder.spawn(rests_in_sleep)?,
            2 => builder.spawn(rests_in_condvar)?,
            _ => {
                let (reader, writer) = pipe()?;
                writers.push(writer);
                builder.spawn(|| rests_in_read(reader))?
            }
        };
    }
    Builder::new().name("ticker".to_owned()).spawn(ticks)?;
    while ARRIVED.load(Relaxed) < threads || awake() > 0 {
        thread::yield_now();
    }
    let control = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    println!("control {}", control.local_addr()?);
    for client in control.incoming() {
        let client = client?;
        thread::spawn(|| obey(client));
    }
    drop((memory, writers));
    Ok(())
}

/// Threads that do not block yet.
fn awake() -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    tasks
        .filter_map(|task| std::fs::read_to_string(task.path().join("stat")).ok())
        .filter(|stat| stat.contains("(rest-") && !stat.contains(") S "))
        .count()
}

/// Anonymous memory in small pages, each written: what a fork has to copy the page tables of.
fn fill(megabytes: usize) -> Vec<u8> {
    let mut memory: Vec<u8> = Vec::with_capacity(megabytes << 20);
    MEMORY.0.store((memory.as_mut_ptr() as usize).next_multiple_of(4096), Relaxed);
    MEMORY.1.store((megabytes << 20).saturating_sub(4096), Relaxed);
    advise(libc::MADV_NOHUGEPAGE);
    for word in words().take((megabytes << 20) / 64) {
        memory.extend_from_slice(&word.to_le_bytes());
        memory.extend_from_slice(&[0; 56]);
    }
    black_box(memory)
}

/// Numbers that do not compress.
fn words() -> impl Iterator<Item = u64> {
    std::iter::successors(Some(1_u64), |word| {
        Some(word.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1))
    })
}

/// Whether the system took the advice about the memory. What does not lie on a page boundary is refused.
fn advise(advice: i32) -> bool {
    // SAFETY: our own pages; their contents are not read after they are freed.
    unsafe { libc::madvise(MEMORY.0.load(Relaxed) as *mut _, MEMORY.1.load(Relaxed), advice) == 0 }
}

/// In small pages again, whatever it was in.
fn joinable() -> bool {
    let made = advise(libc::MADV_NOHUGEPAGE) && advise(libc::MADV_DONTNEED);
    let start = MEMORY.0.load(Relaxed) as *mut u64;
    for (line, word) in words().take(MEMORY.1.load(Relaxed) / 64).enumerate() {
        // SAFETY: within the memory, which no other code uses.
        unsafe { start.add(line * 8).write_volatile(word) };
    }
    made && advise(libc::MADV_HUGEPAGE)
}

fn ticks() {
    let mut last = Instant::now();
    loop {
        thread::sleep(Duration::from_millis(1));
        GAP_US.fetch_max(u64::try_from(last.elapsed().as_micros()).unwrap_or(u64::MAX), Relaxed);
        last = Instant::now();
    }
}

fn rests_in_park() {
    ARRIVED.fetch_add(1, Relaxed);
    loop {
        thread::park();
    }
}

fn rests_in_sleep() {
    ARRIVED.fetch_add(1, Relaxed);
    thread::sleep(LONG);
}

fn rests_in_condvar() {
    let Ok(guard) = NEVER.0.lock() else { return };
    ARRIVED.fetch_add(1, Relaxed);
    drop(black_box(NEVER.1.wait_while(guard, |over| !*over)));
}

fn rests_in_read(mut reader: PipeReader) {
    ARRIVED.fetch_add(1, Relaxed);
    let _ = black_box(reader.read(&mut [0; 1]));
}

/// Serves one controlling client.
fn obey(client: TcpStream) {
    let Ok(mut answers) = client.try_clone() else { return };
    let (mut listener, mut connection) = (None, None);
    for line in BufReader::new(client).lines().map_while(Result::ok) {
        let answer = match line.split_once(' ').unwrap_or((&line, "")) {
            ("joinable", _) => joinable().to_string(),
            ("reserve", megabytes) => {
                let mut reserved = Vec::<u8>::new();
                let size = megabytes.parse::<usize>().unwrap_or(0) << 20;
                let answer = if reserved.try_reserve_exact(size).is_ok() { "reserved" } else { "failed" };
                black_box(&mut reserved);
                answer.to_owned()
            }
            ("gap", _) => GAP_US.swap(0, Relaxed).to_string(),
            ("listen", _) => match TcpListener::bind((Ipv4Addr::LOCALHOST, 0)) {
                Ok(bound) => {
                    let port = bound.local_addr().map(|address| address.port());
                    listener = Some(bound);
                    port.unwrap_or(0).to_string()
                }
                Err(error) => error.to_string(),
            },
            ("accept", _) => match listener.as_ref().map(TcpListener::accept) {
                Some(Ok((accepted, _))) => {
                    connection = Some(accepted);
                    "accepted".to_owned()
                }
                other => format!("{other:?}"),
            },
            ("close", _) => {
                drop((listener.take(), connection.take()));
                "closed".to_owned()
            }
            ("bind", port) => match TcpListener::bind((Ipv4Addr::LOCALHOST, port.parse().unwrap_or(0))) {
                Ok(_) => "bound".to_owned(),
                Err(error) => error.to_string(),
            },
            (other, _) => format!("no command: {other}"),
        };
        if answers.write_all(format!("{answer}\n").as_bytes()).is_err() {
            return;
        }
    }
}
