//! The programs that are captured. Each checks itself.

use std::fs::File;
use std::io::{BufRead as _, Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering::SeqCst};
use std::sync::{Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use super::super::attach;
use super::harness::{PATIENT, SCENARIO};
use crate::snapshot::Snapshot as _;

/// Pages apart, whatever the size of a page: at most 64 KB.
#[repr(align(65536))]
struct Page(AtomicU64);

/// Two threads write a counter to the first of their two pages, then to the second.
static TWINS: [[Page; 2]; 2] = [const { [const { Page(AtomicU64::new(0)) }; 2] }; 2];
/// What went wrong.
static WRONG: AtomicU64 = AtomicU64::new(0);
/// EINTR from `epoll_wait`.
static INTERRUPTED: AtomicU64 = AtomicU64::new(0);
static ECHOES: AtomicU64 = AtomicU64::new(0);
static SUMS: AtomicU64 = AtomicU64::new(0);
/// The longest gap of the ticker, in microseconds.
static GAP: AtomicU64 = AtomicU64::new(0);
static STOP: AtomicBool = AtomicBool::new(false);
/// A child that the program has not waited for.
static CHILD: Mutex<Option<Child>> = Mutex::new(None);

/// Not a test: what the children do that [`super::harness::Target`] starts.
#[test]
fn scenario() {
    let Ok(scenario) = std::env::var(SCENARIO) else { return };
    let (name, argument) = scenario.split_once(' ').unwrap_or((&scenario, "0"));
    let number: u64 = argument.parse().unwrap_or(0);
    println!();
    match name {
        "parked" => park(number),
        "busy" => busy(),
        "ticker" => ticker(number),
        "memory" => memory(number),
        "filtered" => filtered(argument),
        "leaderless" => leaderless(),
        "parent" => parent(),
        "exec" => exec(number),
        "churn" => churn(),
        "asleep" => sleepers(),
        "in-epoll" => first_thread_in_epoll(-1),
        "in-epoll-timed" => first_thread_in_epoll(3_600_000),
        "tool" => {
            let image = attach(number as u32, &PATIENT).unwrap();
            println!("consistent {}", u64::from(image.capture().consistent));
            Box::leak(Box::new(image));
        }
        other => panic!("no scenario {other}"),
    }
    let has_first = name != "leaderless" && !name.starts_with("in-epoll");
    let stack = if has_first { alternate_stack() } else { 0 };
    println!("ready");
    serve(stack);
}

/// Answers requests for reports until the input ends. `stack` is the result of [`alternate_stack`].
fn serve(stack: u64) {
    for line in std::io::stdin().lock().lines() {
        assert_eq!(line.unwrap(), "report");
        if stack != 0 && alternate_stack() != stack {
            wrong("the alternate signal stack has changed");
        }
        if let Some(child) = CHILD.lock().unwrap().as_mut() {
            let end = child.try_wait();
            if !end.is_ok_and(|end| end.is_some_and(|status| status.success())) {
                wrong("the end of a child was lost");
            }
        }
        let numbers = [
            ("wrong", &WRONG),
            ("interrupted", &INTERRUPTED),
            ("echoes", &ECHOES),
            ("sums", &SUMS),
            ("gap", &GAP),
        ];
        for (key, number) in numbers {
            println!("{key} {}", number.load(SeqCst));
        }
        GAP.store(0, SeqCst);
        println!("reported");
    }
    STOP.store(true, SeqCst);
    // libtest would wait for output that other threads hold.
    std::process::exit(0);
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) {
    thread::Builder::new().name(name.to_owned()).stack_size(256 << 10).spawn(work).unwrap();
}

fn wrong(what: &str) {
    eprintln!("wrong: {what}");
    WRONG.fetch_add(1, SeqCst);
}

/// The size of the first thread's alternate signal stack, and one more. std has installed one.
///
/// The first thread waits in a futex, so that it is the one that forks images.
fn alternate_stack() -> u64 {
    static SIZE: AtomicU64 = AtomicU64::new(0);
    extern "C" fn note(_: libc::c_int) {
        // SAFETY: reads the present one, of the calling thread.
        let size = unsafe {
            let mut stack: libc::stack_t = std::mem::zeroed();
            libc::sigaltstack(std::ptr::null(), &mut stack);
            stack.ss_size
        };
        SIZE.store(size as u64 + 1, SeqCst);
    }
    SIZE.store(0, SeqCst);
    // SAFETY: the handler makes one system call.
    unsafe {
        libc::signal(libc::SIGUSR2, note as extern "C" fn(libc::c_int) as *const () as libc::sighandler_t);
        libc::syscall(libc::SYS_tgkill, libc::getpid(), libc::getpid(), libc::SIGUSR2);
    }
    while SIZE.load(SeqCst) == 0 {
        thread::yield_now();
    }
    SIZE.load(SeqCst)
}

/// Threads that wait for a condition variable that is never notified.
fn park(number: u64) {
    static NEVER: (Mutex<bool>, Condvar) = (Mutex::new(false), Condvar::new());
    static WAITING: AtomicU64 = AtomicU64::new(0);
    for _ in 0..number {
        spawn("parked", || {
            let mut lock = NEVER.0.lock().unwrap();
            WAITING.fetch_add(1, SeqCst);
            while !*lock {
                let (again, _) = NEVER.1.wait_timeout(lock, Duration::from_secs(3600)).unwrap();
                lock = again;
            }
        });
    }
    while WAITING.load(SeqCst) < number {
        thread::yield_now();
    }
}

/// A thread for each kind of work that checks itself.
fn busy() {
    park(3);
    for (index, [low, high]) in TWINS.iter().enumerate() {
        println!("low{index} {}", low.0.as_ptr() as u64);
        println!("high{index} {}", high.0.as_ptr() as u64);
        spawn("twin", move || {
            for counter in 1.. {
                low.0.store(counter, SeqCst);
                high.0.store(counter, SeqCst);
                if STOP.load(SeqCst) {
                    return;
                }
            }
        });
    }
    spawn("sums", sums);
    spawn("blocks", blocks);
    spawn("naps", naps);
    echo();
}

/// Integer and floating-point sums of which the result is known, in registers all the time.
fn sums() {
    let mut expected = None;
    while !STOP.load(SeqCst) {
        let (mut integer, mut real, mut product) = (0_u64, 0.0_f64, 1.0_f64);
        for step in 1..20_000_u64 {
            integer = integer.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(step);
            real += (step as f64).sqrt();
            product = product * 1.000_001 + 1e-9;
        }
        let sum = (integer, real.to_bits(), product.to_bits());
        if *expected.get_or_insert(sum) != sum {
            wrong("a sum");
        }
        SUMS.fetch_add(1, SeqCst);
    }
}

/// Memory that is allocated, filled, checked and freed.
fn blocks() {
    let mut round = 0_u8;
    while !STOP.load(SeqCst) {
        round = round.wrapping_add(1);
        let blocks: Vec<Vec<u8>> = (1..40).map(|size| vec![round; size * 97]).collect();
        if blocks.iter().flatten().any(|byte| *byte != round) {
            wrong("a block");
        }
        thread::sleep(Duration::from_micros(200));
    }
}

/// Timeouts must not be early.
fn naps() {
    let (_never, nothing) = std::sync::mpsc::channel::<()>();
    while !STOP.load(SeqCst) {
        let began = Instant::now();
        thread::sleep(Duration::from_millis(2));
        let _timeout = nothing.recv_timeout(Duration::from_millis(2));
        if began.elapsed() < Duration::from_millis(4) {
            wrong("a timeout was early");
        }
    }
}

/// A thread that sends, and one that waits in `epoll_wait` and answers.
fn echo() {
    let (near, far) = UnixStream::pair().unwrap();
    spawn("echo", move || answer(&far));
    spawn("sender", move || {
        for number in 0_u64.. {
            let mut back = [0; 8];
            if (&near).write_all(&number.to_le_bytes()).is_err() || (&near).read_exact(&mut back).is_err() {
                return wrong("a socket");
            }
            if u64::from_le_bytes(back) != number {
                wrong("an echo");
            }
            ECHOES.fetch_add(1, SeqCst);
            if number.is_multiple_of(64) {
                thread::sleep(Duration::from_millis(1));
            }
        }
    });
}

fn answer(mut socket: &UnixStream) {
    // SAFETY: the descriptors are open, and the kernel writes one event.
    unsafe {
        let epoll = libc::epoll_create1(libc::EPOLL_CLOEXEC);
        let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: 0 };
        assert_eq!(libc::epoll_ctl(epoll, libc::EPOLL_CTL_ADD, socket.as_raw_fd(), &mut event), 0);
        loop {
            let count = libc::epoll_wait(epoll, &mut event, 1, -1);
            if count < 0 {
                INTERRUPTED.fetch_add(1, SeqCst);
                continue;
            }
            let mut bytes = [0; 8];
            if socket.read_exact(&mut bytes).is_err() || socket.write_all(&bytes).is_err() {
                return;
            }
        }
    }
}

/// One thread in each kind of wait, and a ticker.
fn sleepers() {
    park(2);
    spawn("in-sleep", || thread::sleep(Duration::from_secs(3600)));
    spawn("in-read", || {
        let (reader, _writer) = std::io::pipe().unwrap();
        let _never = (&reader).read(&mut [0]);
    });
    spawn("in-epoll", || {
        let (near, _far) = UnixStream::pair().unwrap();
        answer(&near);
    });
    spawn("in-accept", || {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let _never = listener.accept();
    });
    spawn("in-poll", || {
        // SAFETY: waits for no descriptor.
        unsafe { libc::poll(std::ptr::null_mut(), 0, -1) };
    });
}

/// Starts a child that ends at once.
fn parent() {
    park(1);
    let child = Command::new("/bin/true").spawn().unwrap();
    println!("child {}", child.id());
    *CHILD.lock().unwrap() = Some(child);
}

/// Has the first thread wait in `epoll_wait` instead of a futex, in which no thread waits then: libtest's thread never returns
/// from the signal handler.
fn first_thread_in_epoll(timeout: libc::c_int) {
    static TIMEOUT: AtomicI32 = AtomicI32::new(0);
    static WAITS: AtomicBool = AtomicBool::new(false);
    extern "C" fn wait(_: libc::c_int) {
        // SAFETY: system calls, with a buffer of one event.
        unsafe {
            let epoll = libc::epoll_create1(libc::EPOLL_CLOEXEC);
            let mut event: libc::epoll_event = std::mem::zeroed();
            WAITS.store(true, SeqCst);
            loop {
                let returned = libc::epoll_wait(epoll, &mut event, 1, TIMEOUT.load(SeqCst));
                let is_eintr = returned == -1 && *libc::__errno_location() == libc::EINTR;
                let counter = if is_eintr { &INTERRUPTED } else { &WRONG };
                counter.fetch_add(1, SeqCst);
            }
        }
    }
    TIMEOUT.store(timeout, SeqCst);
    // SAFETY: the handler makes system calls only.
    unsafe {
        libc::signal(libc::SIGUSR1, wait as extern "C" fn(libc::c_int) as *const () as libc::sighandler_t);
        libc::syscall(libc::SYS_tgkill, libc::getpid(), libc::getpid(), libc::SIGUSR1);
    }
    while !WAITS.load(SeqCst) {
        thread::yield_now();
    }
}

/// Measures the longest gap of a thread that repeatedly sleeps for a millisecond, beside `number` parked threads.
fn ticker(number: u64) {
    let (threads, megabytes) = (number % 10_000, number / 10_000);
    // So that other work of the machine is not measured. Threads that are started inherit it.
    for tid in [0, std::process::id() as i32] {
        let priority = libc::sched_param { sched_priority: 1 };
        // SAFETY: reads the parameters.
        let _needs_root = unsafe { libc::sched_setscheduler(tid, libc::SCHED_FIFO, &priority) };
    }
    park(threads);
    memory(megabytes);
    spawn("ticker", || {
        let mut last = Instant::now();
        while !STOP.load(SeqCst) {
            thread::sleep(Duration::from_millis(1));
            GAP.fetch_max(last.elapsed().as_micros() as u64, SeqCst);
            last = Instant::now();
        }
    });
}

/// Written memory in small pages.
fn memory(megabytes: u64) {
    if megabytes > 0 {
        let mut block = memmap2::MmapMut::map_anon((megabytes << 20) as usize).unwrap();
        let _kernel_has_none = block.advise(memmap2::Advice::NoHugePage);
        block.chunks_mut(4096).for_each(|page| page[0] = 1);
        std::mem::forget(block);
    }
}

/// A system-call filter that refuses `clone` and `wait4`, or kills the process.
fn filtered(action: &str) {
    park(2);
    const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    let action = match action {
        "errno" => libc::SECCOMP_RET_ERRNO | libc::EPERM as u32,
        _ => libc::SECCOMP_RET_KILL_PROCESS,
    };
    let step = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let mut program = [
        step(LOAD, 0, 0, 0),
        step(EQUAL, 1, 0, libc::SYS_clone as u32),
        step(EQUAL, 0, 1, libc::SYS_wait4 as u32),
        step(RETURN, 0, 0, action),
        step(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    // SAFETY: the program outlives the calls.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
        let all_threads = libc::SECCOMP_FILTER_FLAG_TSYNC;
        let set = libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, all_threads, &filter);
        assert_eq!(set, 0);
    }
}

/// The first thread ends; the others continue.
fn leaderless() {
    park(2);
    let (reader, mut writer) = std::io::pipe().unwrap();
    // The first thread belongs to libtest: it is ended from outside, by a handler.
    extern "C" fn end_thread(_: libc::c_int) {
        // SAFETY: ends the calling thread only.
        unsafe { libc::syscall(libc::SYS_exit, 0) };
    }
    // SAFETY: the handler only makes a system call; the first thread holds no lock that the others need.
    unsafe {
        let handler = end_thread as extern "C" fn(libc::c_int);
        libc::signal(libc::SIGUSR1, handler as *const () as libc::sighandler_t);
        let pid = libc::getpid();
        libc::syscall(libc::SYS_tgkill, pid, pid, libc::SIGUSR1);
    }
    writer.write_all(&[1]).unwrap();
    drop(reader);
    let is_zombie = || {
        let mut stat = String::new();
        File::open("/proc/self/stat").unwrap().read_to_string(&mut stat).unwrap();
        stat.contains(") Z ")
    };
    while !is_zombie() {
        thread::yield_now();
    }
}

/// Replaces its program by itself, again and again.
fn exec(left: u64) {
    use std::os::unix::process::CommandExt as _;
    park(2);
    if left > 0 {
        thread::sleep(Duration::from_millis(30));
        let mut again = super::harness::Target::command(&format!("exec {}", left - 1));
        panic!("{}", again.exec());
    }
}

/// Threads that start and end all the time.
fn churn() {
    park(2);
    for _ in 0..2 {
        spawn("spawner", || {
            while !STOP.load(SeqCst) {
                thread::spawn(|| std::hint::black_box((0..2_000_u64).sum::<u64>())).join().unwrap();
            }
        });
    }
}
