//! One thread for each system call that blocks, by the calls themselves: libraries repeat those that return EINTR. A call that
//! returns, or one with a timeout that returns early, ends the program with a line on stderr.
//!
//! Prints `READY` when every thread sleeps, and ends with its standard input.

use std::io::Read as _;
use std::os::fd::{AsRawFd as _, RawFd};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::ptr::{null, null_mut};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, Builder};
use std::time::{Duration, Instant};

use libc::{c_int, c_long};

const DAY: c_long = 86_400;
/// How long the calls last that return all the time.
const BRIEFLY: Duration = Duration::from_millis(3);

static STARTED: AtomicUsize = AtomicUsize::new(0);

/// Starts a thread for a call that must not return.
fn never(name: &'static str, call: impl FnOnce() -> c_long + Send + 'static) {
    start(name, move || {
        let returned = call();
        wrong(name, &format!("returned {returned}: {}", std::io::Error::last_os_error()));
    });
}

/// Starts a thread that makes a call again and again, which must return by its timeout.
fn briefly(name: &'static str, call: impl Fn() -> c_long + Send + 'static, ends: fn(c_long, c_int) -> bool) {
    start(name, move || {
        loop {
            let begun = Instant::now();
            let returned = call();
            let error = std::io::Error::last_os_error();
            if !ends(returned, error.raw_os_error().unwrap_or(0)) {
                wrong(name, &format!("returned {returned}: {error}"));
            }
            if begun.elapsed() < BRIEFLY {
                wrong(name, &format!("returned after {:?}", begun.elapsed()));
            }
        }
    });
}

fn start(name: &'static str, body: impl FnOnce() + Send + 'static) {
    STARTED.fetch_add(1, Ordering::SeqCst);
    let thread = Builder::new().name(name.to_owned()).stack_size(64 << 10).spawn(body);
    assert!(thread.is_ok(), "cannot start {name}");
}

fn wrong(name: &str, what: &str) -> ! {
    eprintln!("thread_calls: {name} {what}");
    std::process::exit(1);
}

fn time(seconds: c_long) -> libc::timespec {
    libc::timespec { tv_sec: seconds, tv_nsec: 0 }
}

fn brief_time() -> libc::timespec {
    libc::timespec { tv_sec: 0, tv_nsec: BRIEFLY.as_nanos() as c_long }
}

/// A descriptor that never becomes readable. Leaked.
fn silent() -> RawFd {
    let Ok((near, far)) = UnixStream::pair() else { std::process::abort() };
    std::mem::forget(far);
    let descriptor = near.as_raw_fd();
    std::mem::forget(near);
    descriptor
}

fn futex_wait(timeout: *const libc::timespec) -> c_long {
    static WORD: AtomicUsize = AtomicUsize::new(0);
    let operation = libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG;
    // SAFETY: the word is a static, and the timeout a variable of the caller or null.
    unsafe { libc::syscall(libc::SYS_futex, WORD.as_ptr(), operation, 0, timeout) }
}

/// Calls that the kernel repeats after a stop, so that the program does not notice.
fn restarted() {
    never("futex", || futex_wait(null()));
    never("futex_timed", || futex_wait(&time(DAY)));
    // SAFETY: the time is a variable of the closure.
    never("nanosleep", || unsafe { libc::nanosleep(&time(DAY), null_mut()) }.into());
    never("clock_nanosleep", || {
        // SAFETY: the time is a variable of the closure.
        unsafe { libc::clock_nanosleep(libc::CLOCK_MONOTONIC, 0, &time(DAY), null_mut()) }.into()
    });
    // SAFETY: no descriptors.
    never("poll", || unsafe { libc::poll(null_mut(), 0, -1) }.into());
    // SAFETY: no descriptors.
    never("ppoll", || unsafe { libc::ppoll(null_mut(), 0, null(), null()) }.into());
    // SAFETY: no descriptors.
    never("select", || unsafe { libc::select(0, null_mut(), null_mut(), null_mut(), null_mut()) }.into());
    never("sigsuspend", || {
        // SAFETY: an empty set on the stack.
        unsafe {
            let mut none: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&raw mut none);
            libc::sigsuspend(&raw const none).into()
        }
    });
    // SAFETY: takes nothing.
    never("pause", || unsafe { libc::pause() }.into());
    let from = silent();
    // SAFETY: one byte on the stack.
    never("read", move || unsafe { libc::read(from, [0_u8; 1].as_mut_ptr().cast(), 1) } as c_long);
    let from = silent();
    // SAFETY: one byte on the stack.
    never("recv", move || unsafe { libc::recv(from, [0_u8; 1].as_mut_ptr().cast(), 1, 0) } as c_long);
    let to = silent();
    never("send", move || {
        loop {
            // SAFETY: a buffer on the stack. The last call of these fills the socket.
            let sent = unsafe { libc::send(to, [0_u8; 4096].as_ptr().cast(), 4096, 0) };
            if sent < 0 {
                return sent as c_long;
            }
        }
    });
    never("accept", || {
        let Ok(listener) = std::net::TcpListener::bind("127.0.0.1:0") else { return 0 };
        // SAFETY: no address is asked for.
        unsafe { libc::accept(listener.as_raw_fd(), null_mut(), null_mut()) }.into()
    });
    never("waitpid", || {
        // It ends with this process.
        let mut command = Command::new("cat");
        let Ok(child) = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn() else { return 0 };
        let mut status = 0;
        // SAFETY: a variable for the status.
        unsafe { libc::waitpid(child.id() as i32, &raw mut status, 0) }.into()
    });
}

/// Calls that return EINTR after a stop.
fn not_restarted() {
    never("epoll", || epoll_wait(-1));
    never("epoll_timed", || epoll_wait(DAY as c_int * 1000));
    let from = silent();
    never("recv_timed", move || receive_for(from, libc::timeval { tv_sec: DAY, tv_usec: 0 }));
    never("sigtimedwait", || {
        // SAFETY: an empty set on the stack.
        unsafe {
            let mut none: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&raw mut none);
            libc::sigtimedwait(&raw const none, null_mut(), &time(DAY)).into()
        }
    });
}

fn epoll_wait(timeout: c_int) -> c_long {
    // SAFETY: a buffer of one event on the stack.
    unsafe {
        let mut event: libc::epoll_event = std::mem::zeroed();
        libc::epoll_wait(libc::epoll_create1(libc::EPOLL_CLOEXEC), &raw mut event, 1, timeout).into()
    }
}

fn receive_for(from: RawFd, time: libc::timeval) -> c_long {
    let size = size_of::<libc::timeval>() as libc::socklen_t;
    // SAFETY: the timeout and one byte are on the stack.
    unsafe {
        libc::setsockopt(from, libc::SOL_SOCKET, libc::SO_RCVTIMEO, (&raw const time).cast(), size);
        libc::recv(from, [0_u8; 1].as_mut_ptr().cast(), 1, 0) as c_long
    }
}

/// Timeouts that end all the time, none early. That of a socket is not among them: the kernel counts it in ticks of 4 ms.
fn timed() {
    let is_zero: fn(c_long, c_int) -> bool = |returned, _| returned == 0;
    let is_timeout: fn(c_long, c_int) -> bool = |returned, error| returned == -1 && error == libc::ETIMEDOUT;
    briefly("futex_brief", || futex_wait(&brief_time()), is_timeout);
    // SAFETY: a variable of the closure.
    briefly("sleep_brief", || unsafe { libc::nanosleep(&brief_time(), null_mut()) }.into(), is_zero);
    // SAFETY: no descriptors.
    briefly("poll_brief", || unsafe { libc::poll(null_mut(), 0, 3) }.into(), is_zero);
}

/// How many threads sleep (proc_pid_stat(5): the state follows the name in parentheses).
fn asleep() -> usize {
    let Ok(tasks) = std::fs::read_dir("/proc/self/task") else { return 0 };
    let stats = tasks.flatten().filter_map(|task| std::fs::read_to_string(task.path().join("stat")).ok());
    stats.filter(|stat| stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('S'))).count()
}

fn main() {
    let Ok(runtime) = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()
    else {
        std::process::abort()
    };
    runtime.spawn(std::future::pending::<()>());
    restarted();
    not_restarted();
    // The worker sleeps, too.
    while asleep() <= STARTED.load(Ordering::SeqCst) {
        thread::yield_now();
    }
    timed();
    println!("READY");
    let _ended = std::io::stdin().read(&mut [0; 1]);
    std::process::exit(0);
}
