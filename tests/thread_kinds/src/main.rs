//! One thread for each way to block or to run. Tests compare delouse's stacks of them with gdb's.
//!
//! Prints `READY` when every thread is where it should be, and ends with its standard input.

use std::hint::black_box;
use std::io::{PipeReader, PipeWriter, Read, Write, pipe};
use std::net::TcpListener;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Condvar, Mutex, MutexGuard, OnceLock, RwLock, mpsc};
use std::thread::{self, Builder};
use std::time::Duration;

const LONG: Duration = Duration::from_secs(100_000);

/// How many threads have reached the line before the one at which they block.
static ARRIVED: AtomicUsize = AtomicUsize::new(0);
/// How many are meant to.
static STARTED: AtomicUsize = AtomicUsize::new(0);

/// Those that never sleep: case-malloc, case-busy, a worker, and the main thread that counts them.
const BUSY: usize = 4;

/// How many threads are not asleep (proc_pid_stat(5): the state follows the name in parentheses).
fn awake() -> usize {
    let Ok(tasks) = std::fs::read_dir("/proc/self/task") else { return 0 };
    tasks
        .flatten()
        .filter_map(|task| std::fs::read_to_string(task.path().join("stat")).ok())
        .filter(|stat| !stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('S')))
        .count()
}

fn arrive() {
    ARRIVED.fetch_add(1, Ordering::SeqCst);
}

fn case(name: &str, body: impl FnOnce() + Send + 'static) {
    small_case(name, 256 << 10, body);
}

fn small_case(name: &str, stack: usize, body: impl FnOnce() + Send + 'static) {
    STARTED.fetch_add(1, Ordering::SeqCst);
    let spawned = Builder::new().name(name.to_owned()).stack_size(stack).spawn(body);
    assert!(spawned.is_ok(), "cannot start {name}");
}

#[inline(never)]
fn read_forever(mut from: PipeReader) {
    arrive();
    let _ = from.read(&mut [0; 8]);
}

extern "C" fn compare(_: *const libc::c_void, _: *const libc::c_void) -> libc::c_int {
    arrive();
    thread::sleep(LONG);
    0
}

struct BlocksInDrop;

impl Drop for BlocksInDrop {
    fn drop(&mut self) {
        arrive();
        thread::park();
    }
}

#[inline(never)]
fn panics_with(_guard: BlocksInDrop) {
    let none: Option<u32> = black_box(None);
    assert!(none.is_some(), "a panic that is part of the test");
}

#[inline(never)]
fn allocates_forever() {
    arrive();
    let mut n = 1_usize;
    loop {
        n = n.wrapping_mul(31) % 4096 + 1;
        black_box(vec![0_u8; n]);
    }
}

#[inline(never)]
fn spins_forever() {
    arrive();
    let mut n = 0_u64;
    loop {
        n = black_box(n).wrapping_add(1);
    }
}

#[inline(never)]
fn recurses(depth: u32) -> u32 {
    if depth == 0 {
        arrive();
        thread::sleep(LONG);
        return 0;
    }
    black_box(recurses(black_box(depth - 1))) + 1
}

extern "C" fn handler(_: libc::c_int) {
    arrive();
    // Other signals may end it.
    loop {
        // SAFETY: `pause` takes nothing and is async-signal-safe.
        unsafe { libc::pause() };
    }
}

/// Blocks in the handler of a signal that the thread sends to itself.
#[inline(never)]
fn in_a_handler(signal: libc::c_int, alternate: bool) {
    if alternate {
        let stack = Box::leak(vec![0_u8; 64 << 10].into_boxed_slice());
        let stack = libc::stack_t { ss_sp: stack.as_mut_ptr().cast(), ss_flags: 0, ss_size: stack.len() };
        // SAFETY: the memory is leaked, so it outlives the thread.
        assert_eq!(unsafe { libc::sigaltstack(&raw const stack, std::ptr::null_mut()) }, 0);
    }
    // SAFETY: a zeroed sigaction is a valid one; the handler only calls what is async-signal-safe.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler as *const () as usize;
        action.sa_flags = if alternate { libc::SA_ONSTACK } else { 0 };
        assert_eq!(libc::sigaction(signal, &raw const action, std::ptr::null_mut()), 0);
        libc::raise(signal);
    }
}

#[inline(never)]
fn blocks_all_signals(from: PipeReader) {
    // SAFETY: a signal set on the stack, filled before it is used.
    unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, std::ptr::null_mut());
    }
    read_forever(from);
}

#[inline(never)]
fn waits_for_signals() {
    // SAFETY: as above; `sigwait` writes the signal's number to a variable that outlives the call.
    unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, std::ptr::null_mut());
        arrive();
        let mut signal = 0;
        libc::sigwait(&raw const all, &raw mut signal);
    }
}

fn a_pipe_of_ours() -> (PipeReader, PipeWriter) {
    pipe().unwrap_or_else(|_| std::process::abort())
}

/// Writes to a pipe that is full.
#[inline(never)]
fn fills(mut to: PipeWriter) {
    arrive();
    loop {
        let _ = to.write_all(&[0; 4096]);
    }
}

/// A thread for each way to wait for what another thread does.
fn waits_for_other_threads() {
    static ONCE: OnceLock<u32> = OnceLock::new();
    static BARRIER: OnceLock<Barrier> = OnceLock::new();
    static SHARED: RwLock<u32> = RwLock::new(0);
    // Held for as long as the program runs.
    std::mem::forget(SHARED.write());
    case("case-rwlock", || {
        arrive();
        drop(black_box(SHARED.read()));
    });
    let barrier = BARRIER.get_or_init(|| Barrier::new(2));
    case("case-barrier", || {
        arrive();
        black_box(barrier.wait());
    });
    let begun = Arc::new(AtomicUsize::new(0));
    let begins = begun.clone();
    case("case-init", move || {
        ONCE.get_or_init(|| {
            begins.store(1, Ordering::SeqCst);
            arrive();
            thread::sleep(LONG);
            0
        });
    });
    case("case-once", move || {
        while begun.load(Ordering::SeqCst) == 0 {
            thread::yield_now();
        }
        arrive();
        black_box(ONCE.get_or_init(|| 0));
    });
    case("case-join", || {
        let other = thread::spawn(|| thread::sleep(LONG));
        arrive();
        let _ = black_box(other.join());
    });
    case("case-scope", || {
        thread::scope(|scope| {
            scope.spawn(|| thread::sleep(LONG));
            arrive();
        });
    });
}

/// A thread for each call that blocks it until a future is done, and one that drops a runtime.
fn waits_for_futures(handle: &tokio::runtime::Handle) {
    let lock: &'static tokio::sync::Mutex<u32> = Box::leak(Box::default());
    std::mem::forget(lock.try_lock());
    case("case-async-lock", || {
        arrive();
        drop(black_box(lock.blocking_lock()));
    });
    let (sender, mut inbox) = tokio::sync::mpsc::channel::<u32>(1);
    std::mem::forget(sender);
    case("case-async-recv", move || {
        arrive();
        black_box(inbox.blocking_recv());
    });
    let by = handle.clone();
    case("case-handle", move || {
        arrive();
        by.block_on(async { tokio::time::sleep(LONG).await });
    });
    STARTED.fetch_add(1, Ordering::SeqCst);
    let by = handle.clone();
    handle.spawn_blocking(move || {
        arrive();
        by.block_on(async { tokio::time::sleep(LONG).await });
    });
    case("case-shutdown", || {
        let Ok(runtime) = tokio::runtime::Builder::new_current_thread().build() else { return };
        let (begins, begun) = mpsc::channel();
        runtime.spawn_blocking(move || {
            let _ = begins.send(());
            thread::sleep(LONG);
        });
        let _ = begun.recv();
        arrive();
        drop(runtime);
    });
}

/// Keeps every case in its state until dropped.
pub struct Fixture {
    _reader: PipeReader,
    _writers: Vec<PipeWriter>,
    _sender: mpsc::Sender<u32>,
    _held: MutexGuard<'static, u32>,
    _runtime: tokio::runtime::Runtime,
}

/// Starts every thread and waits until each is where it should be. `others` of the process' threads may be
/// awake besides.
pub fn open(others: usize) -> Fixture {
    let held: &'static Mutex<u32> = Box::leak(Box::new(Mutex::new(0)));
    let Ok(guard) = held.lock() else { std::process::abort() };
    let pair = Arc::new((Mutex::new(false), Condvar::new()));
    let (sender, receiver) = mpsc::channel::<u32>();
    let mut writers = Vec::new();
    let mut a_pipe = || {
        let Ok((reader, writer)) = pipe() else { std::process::abort() };
        writers.push(writer);
        reader
    };

    case("case-sleep", || {
        arrive();
        thread::sleep(LONG);
    });
    case("case-mutex", || {
        arrive();
        drop(black_box(held.lock()));
    });
    case("case-condvar", move || {
        let (lock, condvar) = &*pair;
        let Ok(guard) = lock.lock() else { return };
        arrive();
        drop(black_box(condvar.wait(guard)));
    });
    case("case-channel", move || {
        arrive();
        let _ = black_box(receiver.recv());
    });
    case("case-accept", || {
        let Ok(listener) = TcpListener::bind("127.0.0.1:0") else { return };
        arrive();
        drop(black_box(listener.accept()));
    });
    let reader = a_pipe();
    case("case-read", move || read_forever(reader));
    case("case-qsort", || {
        let mut numbers = [3, 1, 2];
        // SAFETY: three elements of four bytes each; the callback reads none of them.
        unsafe { libc::qsort(numbers.as_mut_ptr().cast(), 3, 4, Some(compare)) };
        black_box(numbers);
    });
    case("case-panic", || panics_with(BlocksInDrop));
    case("case-malloc", allocates_forever);
    case("case-busy", spins_forever);
    case("case-deep", || {
        black_box(recurses(700));
    });
    case("case-handler", || in_a_handler(libc::SIGUSR1, false));
    case("case-altstack", || in_a_handler(libc::SIGUSR2, true));
    for _ in 0..2 {
        small_case("case-small", 16 << 10, || {
            arrive();
            thread::park();
        });
    }
    let reader = a_pipe();
    case("case-blocked", move || blocks_all_signals(reader));
    case("case-sigwait", waits_for_signals);
    case("case-block-on", || {
        let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
        arrive();
        runtime.block_on(async { tokio::time::sleep(LONG).await });
    });

    let (reader, writer) = a_pipe_of_ours();
    case("case-write", move || fills(writer));
    waits_for_other_threads();
    let Ok(runtime) = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(4)
        .thread_name("case-worker")
        .enable_all()
        .build()
    else {
        std::process::abort()
    };
    waits_for_futures(runtime.handle());
    STARTED.fetch_add(3, Ordering::SeqCst);
    runtime.spawn(async {
        spins_forever();
    });
    runtime.spawn(async {
        arrive();
        thread::sleep(LONG);
    });
    runtime.spawn_blocking(|| {
        arrive();
        thread::sleep(LONG);
    });

    while ARRIVED.load(Ordering::SeqCst) < STARTED.load(Ordering::SeqCst) || awake() > BUSY + others {
        thread::yield_now();
    }
    Fixture { _reader: reader, _writers: writers, _sender: sender, _held: guard, _runtime: runtime }
}

#[allow(dead_code, reason = "the in-crate tests include this file as a module")]
fn main() {
    let _cases = open(0);
    println!("READY");
    let _ = std::io::stdin().read(&mut [0; 1]);
    std::process::exit(0);
}
