use super::*;

#[test]
fn plain_paths() {
    for (name, path) in [
        ("std::sync::mpsc::Receiver<T>::recv", "std::sync::mpsc::Receiver::recv"),
        ("<std::sync::mpsc::Receiver<i32>>::recv", "std::sync::mpsc::Receiver::recv"),
        ("std::thread::sleep", "std::thread::sleep"),
        (
            "<alloc::boxed::Box<dyn core::ops::FnOnce<(), Output = i32>> as core::ops::FnOnce<()>>::call_once",
            "alloc::boxed::Box::call_once",
        ),
        ("<fn() -> i32 as core::ops::FnOnce<()>>::call_once", "fn() -> i32::call_once"),
        ("core::iter::Iterator::map::<u8, fn(u8) -> u8>", "core::iter::Iterator::map"),
        ("<T>", "T"),
        (">>><<<::<", ""),
    ] {
        let got = plain(name);
        if path.is_empty() {
            continue;
        }
        assert_eq!(got, path, "{name}");
    }
}

#[test]
fn patterns_match_whole_paths() {
    assert!(matches("a::b::lock_contended", "*::lock_contended"));
    assert!(!matches("a::b::lock_contended_not", "*::lock_contended"));
    assert!(matches("std::thread::join_handle::join", "std::thread::*join"));
    assert!(matches("parking_lot::raw_rwlock::lock_shared_slow", "parking_lot::raw_rwlock::lock_*_slow"));
    assert!(matches("std::sync::poison::condvar::wait_while", "*::condvar::*wait*"));
    assert!(!matches("std::sync::condvar::notify", "*::condvar::*wait*"));
    assert!(matches("std::thread::functions::sleep", "std::thread::*sleep*"));
    assert!(matches("std::thread::sleep_until", "std::thread::*sleep*"));
    assert!(!matches("pread", "read"));
    assert!(!matches("reader", "read"));
}

fn frame(function: &str, own: bool) -> StackFrame {
    StackFrame {
        function: Some(function.to_owned()),
        file: None,
        line: None,
        module: None,
        address: "0x1".to_owned(),
        own,
        inlined: false,
        guessed: false,
    }
}

const WAITS: Condition = Condition { in_syscall: true, on_processor: false, on_futex: false };
const COMPUTES: Condition = Condition { in_syscall: false, on_processor: true, on_futex: false };

#[test]
fn the_outermost_function_before_own_code_decides() {
    let stack = [
        frame("std::sys::pal::unix::futex::futex_wait", false),
        frame("std::thread::park", false),
        frame("std::sync::mpmc::list::Channel<T>::recv", false),
        frame("app::worker", true),
        frame("<std::sys::sync::mutex::futex::Mutex>::lock_contended", false),
    ];
    assert_eq!(activity(ThreadRole::Other, &stack, WAITS), Activity::Channel);
    assert_eq!(activity(ThreadRole::Other, &stack[3..], COMPUTES), Activity::Running);
    assert_eq!(activity(ThreadRole::Other, &[frame("__libc_read", false)], WAITS), Activity::Io);
    assert_eq!(activity(ThreadRole::Other, &[], COMPUTES), Activity::Unknown);
    assert_eq!(activity(ThreadRole::Other, &stack[4..], WAITS), Activity::Lock);
}

#[test]
fn modules_are_derived_from_files_if_dwarf_has_none() {
    let mut bare = frame("park_internal", false);
    bare.file = Some("tokio-1.54.1/src/runtime/scheduler/multi_thread/worker.rs".to_owned());
    assert_eq!(activity(ThreadRole::TokioWorker, &[bare.clone()], WAITS), Activity::Idle);
    bare.function = Some("run".to_owned());
    assert_eq!(role("", &[bare]), ThreadRole::TokioWorker);
}

#[test]
fn a_thread_on_a_processor_runs_whatever_its_functions_are_called() {
    let both = [true, false].map(|in_syscall| Condition { in_syscall, on_processor: true, on_futex: false });
    for condition in
        both.into_iter().chain([Condition { in_syscall: false, on_processor: false, on_futex: false }])
    {
        for function in ["epoll_wait", "write", "std::thread::sleep", "app::unknown"] {
            let stack = [frame(function, false)];
            assert_eq!(activity(ThreadRole::Other, &stack, condition), Activity::Running, "{function}");
        }
        let spins = [frame("spin::mutex::spin::SpinMutex<T, R>::lock", false), frame("app::f", true)];
        assert_eq!(activity(ThreadRole::Other, &spins, condition), Activity::Lock);
    }
    assert_eq!(activity(ThreadRole::Other, &[frame("prctl", false)], WAITS), Activity::Syscall);
    let on_futex = Condition { on_futex: true, ..WAITS };
    assert_eq!(activity(ThreadRole::Other, &[frame("musl+0x123", false)], on_futex), Activity::Futex);
}

/// The frames of a stack, innermost first. `+` marks the program's own functions.
fn stack(frames: &[&str]) -> Vec<StackFrame> {
    let of = |name: &&str| frame(name.trim_start_matches('+'), name.starts_with('+'));
    frames.iter().map(of).collect()
}

/// The role and the activity of a waiting thread with these frames.
fn classified(frames: &[StackFrame]) -> (ThreadRole, Activity) {
    let role = role("", frames);
    (role, activity(role, frames, WAITS))
}

/// `CachedParkThread::park`, in builds without and with optimisations.
const PARK_DEV: &[&str] = &[
    "syscall",
    "parking_lot_core::thread_parker::imp::ThreadParker::futex_wait",
    "<parking_lot_core::thread_parker::imp::ThreadParker as parking_lot_core::thread_parker::ThreadParkerT>::park",
    "parking_lot_core::parking_lot::park::{{closure}}",
    "parking_lot_core::parking_lot::park",
    "parking_lot::condvar::Condvar::wait_until_internal",
    "tokio::loom::std::parking_lot::Condvar::wait",
    "tokio::runtime::park::Inner::park",
    "tokio::runtime::park::CachedParkThread::park::{{closure}}",
    "std::thread::local::LocalKey<T>::try_with",
    "tokio::runtime::park::CachedParkThread::park",
    "tokio::runtime::park::CachedParkThread::block_on",
    "tokio::runtime::context::blocking::BlockingRegionGuard::block_on",
];
const PARK_RELEASE: &[&str] = &[
    "__futex_abstimed_wait_common64",
    "pthread_cond_wait@@GLIBC_2.3.2",
    "tokio::runtime::park::Inner::park",
    "tokio::runtime::context::runtime::enter_runtime",
];
const FUTURES: &[&str] = &[
    "std::sys::pal::unix::futex::futex_wait",
    "std::sys::sync::thread_parking::futex::Parker::park",
    "std::thread::park",
    "futures_executor::local_pool::run_executor::{{closure}}",
    "futures_executor::local_pool::run_executor",
    "futures_executor::local_pool::block_on",
];
/// The frames outside of the poll of a task.
const TASK: &[&str] = &[
    "+app::serve::{{closure}}",
    "tokio::runtime::task::core::Core<T,S>::poll::{{closure}}",
    "tokio::runtime::task::harness::poll_future",
    "tokio::runtime::task::raw::poll",
    "tokio::runtime::scheduler::multi_thread::worker::Context::run_task",
    "tokio::runtime::scheduler::multi_thread::worker::run",
    "<tokio::runtime::blocking::task::BlockingTask<T> as core::future::future::Future>::poll",
    "tokio::runtime::blocking::pool::Inner::run",
];
const BLOCKING: &[&str] = &[
    "+app::job::{{closure}}",
    "<tokio::runtime::blocking::task::BlockingTask<T> as core::future::future::Future>::poll",
    "tokio::runtime::task::raw::poll",
    "tokio::runtime::blocking::pool::Inner::run",
];

#[test]
fn idle_is_the_outermost_block_on_of_a_runtime() {
    let runtime = &[
        "tokio::runtime::scheduler::multi_thread::MultiThread::block_on",
        "tokio::runtime::runtime::Runtime::block_on_inner",
        "tokio::runtime::runtime::Runtime::block_on",
    ][..];
    let handle =
        &["tokio::runtime::handle::Handle::block_on_inner", "tokio::runtime::handle::Handle::block_on"][..];
    let lock = &["tokio::future::block_on::block_on", "tokio::sync::mutex::Mutex<T>::blocking_lock"][..];
    let main = &["+app::main"][..];
    use ThreadRole::{Other, TokioBlockOn, TokioBlocking, TokioWorker};
    for park in [PARK_DEV, PARK_RELEASE] {
        // `blocking_lock` does not enter a runtime.
        let bare: Vec<&str> = park.iter().copied().filter(|name| !name.ends_with("enter_runtime")).collect();
        for (what, stacks, expected) in [
            ("main", [park, runtime, main], (TokioBlockOn, Activity::Idle)),
            ("a thread that drives a future", [park, handle, main], (TokioBlockOn, Activity::BlockOn)),
            ("a task, by a handle", [park, handle, TASK], (TokioWorker, Activity::BlockOn)),
            ("a task, by another runtime", [park, runtime, TASK], (TokioWorker, Activity::BlockOn)),
            ("a blocking task", [park, handle, BLOCKING], (TokioBlocking, Activity::BlockOn)),
            ("a runtime in a blocking task", [park, runtime, BLOCKING], (TokioBlocking, Activity::BlockOn)),
            ("a lock in a task", [&bare, lock, TASK], (TokioWorker, Activity::AsyncLock)),
            ("a lock in a thread", [&bare, lock, main], (Other, Activity::AsyncLock)),
            (
                "a channel in a thread",
                [&bare, &["tokio::sync::mpsc::bounded::Receiver<T>::blocking_recv"], main],
                (Other, Activity::Channel),
            ),
            (
                "an answer in a blocking task",
                [&bare, &["tokio::sync::oneshot::Receiver<T>::blocking_recv"], BLOCKING],
                (TokioBlocking, Activity::Channel),
            ),
            (
                "a runtime that is dropped",
                [
                    &bare,
                    &[
                        "tokio::runtime::blocking::shutdown::Receiver::wait",
                        "tokio::runtime::blocking::pool::BlockingPool::shutdown",
                        "<tokio::runtime::blocking::pool::BlockingPool as core::ops::drop::Drop>::drop",
                        "core::ptr::drop_in_place<tokio::runtime::runtime::Runtime>",
                    ],
                    main,
                ],
                (Other, Activity::Shutdown),
            ),
        ] {
            let frames = stack(&stacks.concat());
            assert_eq!(classified(&frames), expected, "{what}: {frames:#?}");
            let thread = ThreadStack { role: expected.0, activity: expected.1, frames, ..thread() };
            let is_main = what == "main" || what == "a thread that drives a future";
            assert_eq!(rests(&thread), is_main, "{what}");
        }
    }
    for (what, stacks, expected) in [
        ("a thread", [FUTURES, main], (Other, Activity::BlockOn)),
        ("a task", [FUTURES, TASK], (TokioWorker, Activity::BlockOn)),
        (
            "pollster",
            [
                &[
                    "futex_wait",
                    "std::sync::poison::condvar::Condvar::wait",
                    "pollster::Signal::wait",
                    "pollster::block_on",
                ],
                main,
            ],
            (Other, Activity::BlockOn),
        ),
        (
            "smol",
            [
                &[
                    "epoll_wait",
                    "polling::Poller::wait",
                    "async_io::reactor::ReactorLock::react",
                    "async_io::driver::block_on",
                    "smol::block_on",
                ],
                main,
            ],
            (Other, Activity::BlockOn),
        ),
    ] {
        assert_eq!(classified(&stack(&stacks.concat())), expected, "{what}");
    }
}

#[test]
fn a_runtime_of_one_thread_is_idle_in_its_own_park() {
    let park = &[
        "epoll_wait",
        "mio::poll::Poll::poll",
        "tokio::runtime::io::driver::Driver::turn",
        "tokio::runtime::driver::Driver::park",
        "tokio::runtime::scheduler::current_thread::Context::park_internal::{{closure}}",
        "tokio::runtime::scheduler::current_thread::Context::park",
        "tokio::runtime::scheduler::current_thread::CoreGuard::block_on::{{closure}}",
        "tokio::runtime::scheduler::current_thread::CoreGuard::block_on",
        "tokio::runtime::context::runtime::enter_runtime",
        "tokio::runtime::scheduler::current_thread::CurrentThread::block_on",
        "tokio::runtime::runtime::Runtime::block_on",
    ];
    let idle = (ThreadRole::TokioBlockOn, Activity::Idle);
    assert_eq!(classified(&stack(&[park, &["+app::main"][..]].concat())), idle);
    assert_eq!(classified(&stack(park)), idle, "of a program whose own code is not known");
    let nested = classified(&stack(&[park, BLOCKING].concat()));
    assert_eq!(nested, (ThreadRole::TokioBlocking, Activity::BlockOn));
}

/// Frames outside of a poll do not tell what the thread waits for.
#[test]
fn a_library_that_blocks_inside_a_poll() {
    let main = &[
        "<core::pin::Pin<P> as core::future::future::Future>::poll",
        "tokio::runtime::park::CachedParkThread::block_on::{{closure}}",
        "tokio::runtime::park::CachedParkThread::block_on",
        "tokio::runtime::runtime::Runtime::block_on",
        "+app::main",
    ];
    for (inner, expected) in [
        (
            &["std::sys::sync::mutex::futex::Mutex::lock_contended", "pool::take::{{closure}}"][..],
            Activity::Lock,
        ),
        (&["read", "std::fs::File::read", "store::load::{{closure}}"], Activity::Io),
    ] {
        let frames = stack(&[inner, main].concat());
        assert_eq!(classified(&frames), (ThreadRole::TokioBlockOn, expected));
        assert!(!rests(&ThreadStack { activity: expected, frames, ..thread() }));
    }
}

#[test]
fn locks_and_waits_of_other_crates() {
    let futex = "std::sys::pal::unix::futex::futex_wait";
    let parked = "parking_lot_core::parking_lot::park";
    for (frames, expected) in [
        (
            &[
                "syscall",
                parked,
                "dashmap::lock::RawRwLock::lock_exclusive_slow",
                "dashmap::DashMap<K,V,S>::insert",
            ][..],
            Activity::Lock,
        ),
        (
            &[
                "syscall",
                parked,
                "dashmap::lock::RawRwLock::lock_shared_slow",
                "dashmap::DashMap<K,V,S>::get",
            ],
            Activity::Lock,
        ),
        (&["syscall", parked, "parking_lot::raw_mutex::RawMutex::lock_slow"], Activity::Lock),
        (&["syscall", parked, "parking_lot::raw_rwlock::RawRwLock::lock_common"], Activity::Lock),
        (&["syscall", parked, "parking_lot::condvar::Condvar::wait_until_internal"], Activity::Condvar),
        (&["syscall", parked, "parking_lot::once::Once::call_once_slow"], Activity::Once),
        (&["syscall", parked, "events::Event::wait"], Activity::Park),
        (
            &[
                futex,
                "std::sys::sync::once::futex::Once::call",
                "std::sync::once_lock::OnceLock<T>::initialize",
            ],
            Activity::Once,
        ),
        (
            &[futex, "std::sys::sync::once::futex::Once::wait", "std::sync::poison::once::Once::wait"],
            Activity::Once,
        ),
        (
            &[futex, "std::thread::park", "once_cell::imp::wait", "once_cell::imp::initialize_or_wait"],
            Activity::Once,
        ),
        (
            &[futex, "std::sys::sync::condvar::futex::Condvar::wait", "std::sync::barrier::Barrier::wait"],
            Activity::Barrier,
        ),
        (&[futex, "std::sys::sync::rwlock::futex::RwLock::read_contended"], Activity::Lock),
        (
            &[
                futex,
                "std::sys::sync::mutex::futex::Mutex::lock_contended",
                "std::sync::reentrant_lock::ReentrantLock<T>::lock",
            ],
            Activity::Lock,
        ),
        (&[futex, "std::thread::park", "std::thread::scoped::scope"], Activity::Join),
        (
            &[
                "__pthread_clockjoin_ex",
                "std::sys::thread::unix::Thread::join",
                "std::thread::JoinHandle<T>::join",
            ],
            Activity::Join,
        ),
        (&["waitid", "std::process::Child::wait"], Activity::Child),
        (&["__flock", "std::fs::File::lock"], Activity::FileLock),
        (&["__write", "std::io::stdio::_print"], Activity::Io),
        (&["__poll", "send_dg", "getaddrinfo", "std::net::socket_addr::LookupHost::try_from"], Activity::Io),
        (&["rustix::backend::event::syscalls::epoll_wait", "polling::epoll::Poller::wait"], Activity::Io),
        (
            &[
                futex,
                "std::sync::poison::condvar::Condvar::wait",
                "rayon_core::latch::LockLatch::wait_and_reset",
                "rayon_core::registry::Registry::in_worker_cold",
            ],
            Activity::Pool,
        ),
        (
            &[
                futex,
                "rayon_core::sleep::Sleep::sleep",
                "rayon_core::registry::WorkerThread::wait_until_cold",
                "rayon_core::join::join_context",
            ],
            Activity::Pool,
        ),
        (
            &[
                futex,
                "crossbeam_channel::context::Context::wait_until",
                "crossbeam_channel::flavors::list::Channel<T>::recv",
            ],
            Activity::Channel,
        ),
        (&[futex, "flume::Receiver<T>::recv"], Activity::Channel),
        (
            &[
                futex,
                "std::thread::park",
                "parking::Inner::park",
                "async_channel::Receiver<T>::recv_blocking",
            ],
            Activity::Channel,
        ),
        (
            &[
                futex,
                "std::thread::park",
                "event_listener::EventListener<T>::wait",
                "async_lock::mutex::Mutex<T>::lock_blocking",
            ],
            Activity::AsyncLock,
        ),
        (&[futex, "std::thread::park_timeout", "reqwest::blocking::wait::timeout"], Activity::Park),
    ] {
        let frames = stack(&[frames, &["+app::work"]].concat());
        assert_eq!(activity(ThreadRole::Other, &frames, WAITS), expected, "{frames:#?}");
    }
    let idle = [
        futex,
        "rayon_core::sleep::Sleep::sleep",
        "rayon_core::registry::WorkerThread::wait_until_cold",
        "rayon_core::registry::ThreadBuilder::run",
        "rayon_core::registry::main_loop",
    ];
    assert_eq!(classified(&stack(&idle)).1, Activity::Idle);
    let pool = [
        "syscall",
        parked,
        "parking_lot::condvar::Condvar::wait_until_internal",
        "tokio::runtime::blocking::pool::Inner::run",
    ];
    assert_eq!(classified(&stack(&pool)), (ThreadRole::TokioBlocking, Activity::Idle));
}

fn thread() -> ThreadStack {
    ThreadStack {
        tid: 1,
        name: String::new(),
        state: None,
        role: ThreadRole::TokioBlockOn,
        activity: Activity::Unknown,
        cpu_us: None,
        queued_us: None,
        runs_task: None,
        unavailable: None,
        kernel: None,
        truncated: None,
        frames: Vec::new(),
    }
}
