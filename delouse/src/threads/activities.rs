//! Maps functions on a stack to activities.
//!
//! Function paths are those of std 1.88 to 1.95, tokio 1.40 to 1.54, parking_lot 0.12, dashmap 5 and 6,
//! crossbeam-channel 0.5, rayon-core 1.12, futures 0.3, futures-lite 2, pollster 0.3 and 0.4, async-lock 3 and glibc.
//! A renamed function is no longer recognised, and the thread is listed by its system call. Nothing else depends on these
//! paths.

use super::Activity;

/// An activity, and the functions that it is recognised by.
pub(super) struct Rule {
    pub(super) activity: Activity,
    /// The rule applies only if the inner frames mean one of these activities. For functions that also run code of their
    /// caller, or whose names are not specific. Empty: the rule always applies.
    pub(super) within: &'static [Activity],
    /// Paths without types and generic arguments (see [`super::classify`]); `*` matches any text.
    pub(super) patterns: &'static [&'static str],
}

/// Activities of a sleeping thread that do not tell what it waits for.
const ASLEEP: &[Activity] =
    &[Activity::Park, Activity::Futex, Activity::Condvar, Activity::Io, Activity::Sleep, Activity::BlockOn];

/// The first rule that matches a function applies. Of several functions on a stack, the outermost decides.
pub(super) const RULES: &[Rule] = &[
    Rule {
        activity: Activity::Idle,
        within: &[],
        patterns: &[
            "tokio::runtime::scheduler::multi_thread::worker::park*",
            "tokio::runtime::scheduler::multi_thread::park::*",
        ],
    },
    // A worker that waits for a job that it has started itself also sleeps in `rayon_core::sleep::sleep`.
    Rule {
        activity: Activity::Idle,
        within: &[Activity::Pool],
        patterns: &["rayon_core::registry::main_loop"],
    },
    Rule {
        activity: Activity::Pool,
        within: &[],
        patterns: &[
            "rayon_core::sleep::sleep",
            "rayon_core::latch::*wait*",
            "rayon_core::registry::*wait*",
            "rayon_core::registry::in_worker_c*",
        ],
    },
    Rule {
        activity: Activity::Shutdown,
        within: &[Activity::BlockOn, Activity::Join, Activity::Shutdown],
        patterns: &[
            "tokio::runtime::blocking::shutdown::wait",
            "tokio::runtime::blocking::pool::shutdown",
            "tokio::runtime::scheduler::*::shutdown*",
        ],
    },
    Rule {
        activity: Activity::AsyncLock,
        within: ASLEEP,
        patterns: &[
            "tokio::sync::mutex::blocking_*",
            "tokio::sync::rwlock::blocking_*",
            "tokio::sync::semaphore::blocking_*",
            "async_lock::*_blocking",
        ],
    },
    Rule {
        activity: Activity::Channel,
        within: &[],
        patterns: &[
            "std::sync::mpsc::*recv*",
            "std::sync::mpsc::*send*",
            "std::sync::mpmc::*recv*",
            "std::sync::mpmc::*send*",
            "crossbeam_channel::*recv*",
            "crossbeam_channel::*send*",
            "crossbeam_channel::select::*",
            "flume::*recv*",
            "flume::*send*",
            "kanal::*recv*",
            "kanal::*send*",
            "tokio::sync::mpsc::*blocking_*",
            "tokio::sync::oneshot::blocking_recv",
            "tokio::sync::broadcast::blocking_recv",
            "async_channel::*_blocking",
        ],
    },
    Rule {
        activity: Activity::BlockOn,
        within: ASLEEP,
        patterns: &[
            "tokio::runtime::scheduler::current_thread::park*",
            "tokio::runtime::park::park*",
            "*::block_on",
            "*::block_on_*",
            "futures_executor::local_pool::run*",
            "futures_executor::local_pool::next",
            "async_std::task::builder::blocking",
        ],
    },
    Rule {
        activity: Activity::PoolObject,
        within: &[Activity::Condvar, Activity::Park, Activity::Futex],
        patterns: &["r2d2::get", "r2d2::get_timeout"],
    },
    Rule {
        activity: Activity::Condvar,
        within: &[],
        patterns: &["*::condvar::*wait*", "pthread_cond_*wait*"],
    },
    Rule {
        activity: Activity::Barrier,
        within: &[],
        patterns: &[
            "std::sync::barrier::wait",
            "pthread_barrier_wait",
            "crossbeam_utils::sync::wait_group::wait",
        ],
    },
    Rule {
        activity: Activity::Once,
        within: &[Activity::Futex, Activity::Park, Activity::Condvar],
        patterns: &[
            "std::sys::sync::once::*",
            "std::sync::*once::*wait*",
            "parking_lot::once::call_once_slow",
            "once_cell::imp::*wait*",
            "pthread_once*",
        ],
    },
    Rule {
        activity: Activity::Lock,
        within: &[],
        patterns: &[
            "*::lock_contended",
            "*::read_contended",
            "*::write_contended",
            "parking_lot::raw_mutex::lock_slow",
            "parking_lot::raw_rwlock::*_slow",
            "parking_lot::raw_rwlock::lock_common",
            "parking_lot::raw_rwlock::wait_for_readers",
            "spin::*::lock",
            "spin::rwlock::read",
            "spin::rwlock::write",
            "spin::rwlock::upgradeable_read",
            "pthread_mutex_lock",
            "pthread_mutex_timedlock",
            "pthread_mutex_clocklock",
            "pthread_rwlock_*lock",
            "pthread_spin_lock",
            "lll_lock_wait*",
            "*malloc_mutex_lock_slow",
        ],
    },
    // Locks of crates that park threads themselves, for example by `parking_lot_core`.
    Rule {
        activity: Activity::Lock,
        within: &[Activity::Park, Activity::Futex],
        patterns: &["*::*lock*_slow", "*::*acquire*_slow", "*::lock", "*::lock_exclusive", "*::lock_shared"],
    },
    Rule { activity: Activity::Join, within: &[], patterns: &["std::thread::*join", "pthread_*join*"] },
    // The function also runs the scope's closure.
    Rule { activity: Activity::Join, within: &[Activity::Park], patterns: &["std::thread::scoped::scope"] },
    Rule {
        activity: Activity::Sleep,
        within: &[],
        patterns: &["std::thread::*sleep*", "nanosleep", "clock_nanosleep*", "usleep", "sleep"],
    },
    Rule {
        activity: Activity::Park,
        within: &[],
        patterns: &[
            "*::park",
            "*::park_timeout*",
            "*::park_until",
            "*::park_deadline",
            "*::park_internal",
            "event_listener::*wait*",
        ],
    },
    Rule {
        activity: Activity::Child,
        within: &[],
        patterns: &["waitpid", "wait4", "waitid", "wait", "std::process::wait*"],
    },
    Rule {
        activity: Activity::Signal,
        within: &[],
        patterns: &["sigwait", "sigwaitinfo", "sigtimedwait", "sigsuspend", "pause"],
    },
    Rule {
        activity: Activity::FileLock,
        within: &[],
        patterns: &["flock", "lockf", "lockf64", "fcntl", "fcntl64", "fcntl_lock"],
    },
    Rule { activity: Activity::Io, within: &[], patterns: IO },
    Rule {
        activity: Activity::Futex,
        within: &[],
        patterns: &[
            "*::futex::futex_wait*",
            "*::futex_wait*",
            "futex_*wait*",
            "sem_*wait*",
            "semop",
            "semtimedop",
        ],
    },
];

/// libc's functions that make a system call for input or output.
const IO: &[&str] = &[
    "read",
    "write",
    "readv",
    "writev",
    "pread64",
    "pwrite64",
    "preadv*",
    "pwritev*",
    "recv",
    "recvfrom",
    "recvmsg",
    "recvmmsg",
    "send",
    "sendto",
    "sendmsg",
    "sendmmsg",
    "accept",
    "accept4",
    "connect",
    "poll",
    "ppoll",
    "select",
    "pselect",
    "epoll_wait",
    "epoll_pwait",
    "epoll_pwait2",
    "io_uring_enter*",
    "io_getevents",
    "fsync",
    "fdatasync",
    "sync_file_range",
    "open",
    "open64",
    "openat",
    "openat64",
    "sendfile",
    "sendfile64",
    "splice",
    "copy_file_range",
    "msgrcv",
    "msgsnd",
];

/// Functions that poll a future or run a job of a pool. The frames outside of them belong to the executor, and do not tell
/// what the thread waits for.
pub(super) const RUNNERS: &[&str] = &["*::poll", "*::poll_*", "rayon_core::job::*execute*"];

/// Functions that match [`RUNNERS`] but wait for events.
pub(super) const NO_RUNNERS: &[&str] =
    &["mio::*", "polling::*", "rustix::*", "nix::*", "async_io::reactor::*", "tokio::runtime::io::*"];

/// A crate that makes system calls without libc, by functions with the same names as libc's.
pub(super) const RAW_CALLERS: &str = "rustix::";

/// The outermost calls of a runtime's own `block_on`: a thread that waits in one, and in nothing else, is idle.
pub(super) const RUNTIME_BLOCK_ON: &[&str] = &[
    "tokio::runtime::runtime::block_on*",
    "tokio::runtime::local_runtime::runtime::block_on*",
    "tokio::runtime::scheduler::*block_on*",
];

/// `Handle::block_on` drives a future but not the runtime.
pub(super) const HANDLE_BLOCK_ON: &str = "tokio::runtime::handle::block_on*";

/// Functions that drive futures. If one of them is outside of a `block_on`, that is nested.
pub(super) const DRIVERS: &[&str] = &[
    "tokio::runtime::runtime::block_on*",
    "tokio::runtime::local_runtime::runtime::block_on*",
    "tokio::runtime::scheduler::*block_on*",
    HANDLE_BLOCK_ON,
    "tokio::runtime::task::raw::poll*",
    "tokio::runtime::task::harness::poll*",
    "tokio::runtime::task::core::poll*",
    "tokio::runtime::blocking::task::poll*",
    "tokio::runtime::blocking::pool::run*",
    "futures_executor::local_pool::run*",
    "pollster::block_on",
    "futures_lite::future::block_on",
    "async_io::driver::block_on",
];
