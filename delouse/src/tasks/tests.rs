//! The engine on a program that the tests know best: themselves, forked.
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod damage;

use std::cell::RefCell;
use std::future::Future;
use std::pin::pin;
use std::task::Poll;

use tokio::runtime::{Builder, Handle};
use tokio::sync::{Mutex, oneshot};

use super::*;
use crate::debuginfo::image::Image;
use crate::debuginfo::types::{Types, Work};
use crate::registry::{MainFuture, Roots};
use crate::snapshot::Snapshot;
use crate::targets;
use crate::targets::Limits;

fn capture(roots: &[Root], scan: u64) -> Listing {
    let image = targets::fork(Limits { force: true, ..Limits::default() }).unwrap();
    let executable = std::env::current_exe().unwrap();
    let file = Image::open(&executable).unwrap();
    let bias = file.bias(&executable, image.mappings()).unwrap();
    let types = Types::open(&file);
    list(
        &image,
        &types,
        roots,
        &Options { bias, scan, now: None, history: None, places: true, entered: false },
    )
}

/// Counts what is read, as times depend on the machine.
#[test]
fn a_listing_reads_a_part_of_the_debug_information_and_reads_it_once() {
    let file = Image::open(&std::env::current_exe().unwrap()).unwrap();
    let types = Types::open(&file);
    assert_eq!(types.work(), Work::default(), "opening reads headers");
    let read_for_a_listing = || {
        let handle = Handle::current();
        let image = targets::fork(Limits { force: true, ..Limits::default() }).unwrap();
        let bias = file.bias(&std::env::current_exe().unwrap(), image.mappings()).unwrap();
        let roots = [Root::Handle { address: Address::new(std::ptr::from_ref(&handle).addr() as u64) }];
        let options = Options { bias, scan: 0, now: None, history: None, places: true, entered: false };
        assert!(!list(&image, &types, &roots, &options).tasks.is_empty());
        types.work()
    };
    Builder::new_current_thread().build().unwrap().block_on(async {
        let (sender, receiver) = oneshot::channel();
        let task = tokio::spawn(async move { waits_for(&Mutex::new(1), receiver).await });
        settle().await;
        let first = read_for_a_listing();
        assert_eq!(read_for_a_listing(), first);
        let all = file.section(gimli::SectionId::DebugInfo).len();
        assert!(first.units > 0 && first.bytes < all / 2, "{first:?} of {all} bytes");
        sender.send(1).unwrap();
        assert_eq!(task.await.unwrap(), 2);
    });
}

#[test]
fn a_thread_leads_to_the_runtime_that_it_has_entered() {
    let (told, id) = std::sync::mpsc::channel();
    let (stop, stopped) = oneshot::channel::<()>();
    let thread = std::thread::spawn(move || {
        Builder::new_current_thread().build().unwrap().block_on(async {
            let task = tokio::spawn(std::future::pending::<()>());
            settle().await;
            told.send(task.id().to_string()).unwrap();
            stopped.await.unwrap();
        });
    });
    let id: u64 = id.recv().unwrap().parse().unwrap();
    let listed = |entered| {
        let image = targets::fork_with_threads(Limits { force: true, ..Limits::default() }).unwrap();
        let executable = std::env::current_exe().unwrap();
        let file = Image::open(&executable).unwrap();
        let bias = file.bias(&executable, image.mappings()).unwrap();
        let options = Options { bias, scan: 0, now: None, history: None, places: true, entered };
        let listing = list(&image, &Types::open(&file), &[], &options);
        listing.tasks.iter().any(|task| task.id == id)
    };
    assert_eq!((listed(false), listed(true)), (false, true));
    stop.send(()).unwrap();
    thread.join().unwrap();
}

#[test]
fn a_future_on_the_stack_of_its_thread() {
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let handle = runtime.handle().clone();
    let (sender, receiver) = oneshot::channel();
    let thread = std::thread::spawn(move || handle.block_on(waits_for(&Mutex::new(1), receiver)));
    let executable = std::env::current_exe().unwrap();
    let file = Image::open(&executable).unwrap();
    let types = Types::open(&file);
    // Until it sleeps.
    let found = loop {
        let image = targets::fork_with_threads(Limits { force: true, ..Limits::default() }).unwrap();
        let bias = file.bias(&executable, image.mappings()).unwrap();
        let options = Options { bias, scan: 0, now: None, history: None, places: true, entered: true };
        let listing = list(&image, &types, &[], &options);
        let of_test = |task: &&Task| functions(&task.stack).contains(&"delouse::tasks::tests::waits_for");
        if let Some(task) = listing.tasks.iter().filter(|task| task.found_in.is_some()).find(of_test) {
            break task.clone();
        }
        std::thread::yield_now();
    };
    assert_eq!((found.id, found.kind, found.waits_on.len()), (0, TaskKind::Main, 1));
    assert_eq!(found.waits_on[0].kind, ResourceKind::Oneshot);
    let call = found.found_in.unwrap();
    assert_eq!((call.function.as_str(), call.guess), ("tokio::runtime::handle::Handle::block_on", false));
    let caller = call.caller.unwrap();
    assert_eq!(caller.function, "delouse::tasks::tests::a_future_on_the_stack_of_its_thread");
    assert!(caller.file.as_ref().unwrap().ends_with("tasks/tests.rs") && caller.line.is_some());
    sender.send(1).unwrap();
    assert_eq!(thread.join().unwrap(), 2);
}

/// Polls `future` until it is pending, with tasks of the runtime polled in between.
async fn settle() {
    for _ in 0..64 {
        tokio::task::yield_now().await;
    }
}

async fn waits_for(mutex: &Mutex<u8>, number: oneshot::Receiver<u8>) -> u8 {
    number.await.unwrap_or(0) + *mutex.lock().await
}

fn functions(frames: &[Frame]) -> Vec<&str> {
    frames
        .iter()
        .flat_map(|frame| std::iter::once(frame.function.as_str()).chain(functions(&frame.children)))
        .collect()
}

/// Without what tokio puts around a spawned future in builds with its features `tracing` and `taskdump`.
fn unwrapped(stack: &[Frame]) -> &[Frame] {
    match stack {
        [only] if only.origin == Origin::Dependency && only.function.contains("trac") => {
            unwrapped(&only.children)
        }
        stack => stack,
    }
}

#[test]
fn a_handle_leads_to_its_tasks() {
    let runtime = Builder::new_current_thread().build().unwrap();
    let (_sender, receiver) = oneshot::channel();
    let line = line!() + 2;
    let id = runtime.block_on(async {
        let task = tokio::spawn(async move { waits_for(&Mutex::new(1), receiver).await });
        settle().await;
        task.id()
    });
    let mut roots = Roots::new();
    roots.add_runtime(runtime.handle());
    let listing = capture(&roots.addresses(), 0);
    let task = listing.tasks.iter().find(|task| task.id.to_string() == id.to_string()).unwrap();
    assert_eq!((task.kind, task.state), (TaskKind::Task, Some(TaskState::Idle)));
    assert!(task.runtime.as_ref().unwrap().starts_with("current_thread "), "{task:?}");
    assert_eq!(unwrapped(&task.stack)[0].line, Some(line), "{task:?}");
    assert_eq!(
        functions(unwrapped(&task.stack)),
        [
            "delouse::tasks::tests::a_handle_leads_to_its_tasks::{async block}::{async block}",
            "delouse::tasks::tests::waits_for",
            "tokio::sync::oneshot::Receiver<u8>",
        ]
    );
    assert_eq!(task.waits_on.len(), 1);
    assert_eq!(task.waits_on[0].kind, ResourceKind::Oneshot);
}

#[test]
fn runtimes_go_by_their_names() {
    let named = Builder::new_current_thread().name("mine").build().unwrap();
    let local = Builder::new_current_thread().name("its own").build_local(Default::default()).unwrap();
    let plain = Builder::new_multi_thread().worker_threads(1).build().unwrap();
    let there = named.spawn(std::future::pending::<()>()).id();
    let here = local.spawn_local(std::future::pending::<()>()).id();
    let elsewhere = plain.spawn(std::future::pending::<()>()).id();
    let mut roots = Roots::new();
    for handle in [named.handle(), local.handle(), plain.handle()] {
        roots.add_runtime(handle);
    }
    let listing = capture(&roots.addresses(), 0);
    for (id, kind, start, end) in [
        (there, TaskKind::Task, "mine (current_thread ", ")"),
        (here, TaskKind::Local, "its own (local ", ")"),
        (elsewhere, TaskKind::Task, "multi_thread ", ""),
    ] {
        let task = listing.tasks.iter().find(|task| task.id.to_string() == id.to_string()).unwrap();
        let runtime = task.runtime.as_deref().unwrap();
        assert!(task.kind == kind && runtime.starts_with(start) && runtime.ends_with(end), "{task:?}");
    }
}

#[test]
fn a_main_future_is_known_by_its_poll() {
    let runtime = Builder::new_current_thread().build().unwrap();
    let mutex = Mutex::new(1);
    let held = mutex.try_lock().unwrap();
    let (sender, receiver) = oneshot::channel();
    sender.send(1).unwrap();
    let mut main = pin!(waits_for(&mutex, receiver));
    let mut roots = Roots::new();
    roots.add_main(MainFuture::new(main.as_ref().get_ref()));
    runtime.block_on(std::future::poll_fn(|cx| {
        assert!(main.as_mut().poll(cx).is_pending());
        Poll::Ready(())
    }));
    let listing = capture(&roots.addresses(), 0);
    let main = listing.tasks.iter().find(|task| task.kind == TaskKind::Main).unwrap();
    assert_eq!(main.stack[0].function, "delouse::tasks::tests::waits_for");
    assert_eq!(main.waits_on[0].kind, ResourceKind::Mutex);
    assert_eq!((main.waits_on[0].wanted, main.waits_on[0].available), (Some(1), Some(0)));
    drop(held);
}

#[test]
fn a_main_future_in_the_middle_of_a_poll_waits_for_nothing() {
    let (roots, seen) = (RefCell::new(Roots::new()), RefCell::new(None));
    let mut main = pin!(async {
        tokio::task::yield_now().await;
        *seen.borrow_mut() = Some(capture(&roots.borrow().addresses(), 0));
    });
    roots.borrow_mut().add_main(MainFuture::new(main.as_ref().get_ref()));
    Builder::new_current_thread().build().unwrap().block_on(main.as_mut());
    let listing = seen.take().unwrap();
    let main = listing.tasks.iter().find(|task| task.kind == TaskKind::Main).unwrap();
    assert_eq!((main.state, main.waits_on.as_slice()), (Some(TaskState::Running), [].as_slice()), "{main:?}");
}

#[test]
fn a_running_task_is_said_to_run() {
    let runtime = Builder::new_multi_thread().worker_threads(1).build().unwrap();
    let (running, runs) = std::sync::mpsc::channel();
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let task = runtime.spawn(async move {
        running.send(()).unwrap();
        stopped.recv().ok()
    });
    runs.recv().unwrap();
    let mut roots = Roots::new();
    roots.add_runtime(runtime.handle());
    let listing = capture(&roots.addresses(), 0);
    let found = listing.tasks.iter().find(|found| found.id.to_string() == task.id().to_string()).unwrap();
    assert_eq!(found.state, Some(TaskState::Running));
    drop(stop);
}

/// Has been woken from its first await, whose future it has overwritten by now.
async fn overwrites(first: oneshot::Receiver<()>, running: impl FnOnce()) -> usize {
    async fn awaits(first: oneshot::Receiver<()>) {
        let kept = [1_u8; 64];
        let _ = first.await;
        std::hint::black_box(&kept);
    }
    awaits(first).await;
    let bytes = [0xee_u8; 256];
    running();
    tokio::task::yield_now().await;
    std::hint::black_box(&bytes).len()
}

#[test]
fn a_running_task_may_be_in_the_middle_of_anything() {
    let runtime = Builder::new_multi_thread().worker_threads(1).build().unwrap();
    let (running, runs) = std::sync::mpsc::channel();
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let (wake, woken) = oneshot::channel();
    let task = runtime.spawn(overwrites(woken, move || {
        running.send(()).unwrap();
        let _ = stopped.recv();
    }));
    wake.send(()).unwrap();
    runs.recv().unwrap();
    let mut roots = Roots::new();
    roots.add_runtime(runtime.handle());
    let listing = capture(&roots.addresses(), 0);
    let found = listing.tasks.iter().find(|found| found.id.to_string() == task.id().to_string()).unwrap();
    assert_eq!(found.state, Some(TaskState::Running));
    assert!(found.waits_on.iter().all(|on| on.kind != ResourceKind::Unknown), "{found:#?}");
    assert!(listing.notes.iter().all(|note| !note.contains("not shown to its end")), "{:?}", listing.notes);
    drop(stop);
}

#[test]
fn a_completed_task_is_found_in_memory_only() {
    let runtime = Builder::new_current_thread().build().unwrap();
    let task = runtime.spawn(std::future::ready(7));
    runtime.block_on(settle());
    let mut roots = Roots::new();
    roots.add_runtime(runtime.handle());
    let of_task = |listing: &Listing| {
        listing.tasks.iter().find(|found| found.id.to_string() == task.id().to_string()).cloned()
    };
    assert_eq!(of_task(&capture(&roots.addresses(), 0)), None);
    let found = of_task(&capture(&roots.addresses(), 1 << 30)).unwrap();
    assert_eq!((found.state, found.stack.len()), (Some(TaskState::Complete), 0));
}

/// Outputs and futures that are aligned to `N` bytes.
#[allow(dead_code, reason = "values that only need room")]
mod aligned {
    use super::*;

    #[repr(align(32))]
    pub(super) struct By32([u8; 40]);
    #[repr(align(64))]
    pub(super) struct By64([u8; 1]);
    #[repr(align(128))]
    pub(super) struct By128([u8; 200]);

    pub(super) trait Sample: Send + 'static {
        fn sample() -> Self;
    }

    impl Sample for u8 {
        fn sample() -> Self {
            1
        }
    }

    impl Sample for u128 {
        fn sample() -> Self {
            1
        }
    }

    impl Sample for By32 {
        fn sample() -> Self {
            Self([1; 40])
        }
    }

    impl Sample for By64 {
        fn sample() -> Self {
            Self([1])
        }
    }

    impl Sample for By128 {
        fn sample() -> Self {
            Self([1; 200])
        }
    }

    pub(super) const LINE: u32 = line!() + 3;
    /// Has a value of `V` across its await, and gives one of `O`.
    pub(super) async fn keeps<V: Sample, O: Sample>(_kept: V) -> O {
        tokio::sync::Notify::new().notified().await;
        O::sample()
    }

    /// Four words, then a future: written by hand.
    pub(super) struct ByHand<O>(
        pub(super) [u64; 4],
        pub(super) std::pin::Pin<Box<dyn Future<Output = O> + Send>>,
    );

    impl<O> Future for ByHand<O> {
        type Output = O;

        fn poll(mut self: std::pin::Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> Poll<O> {
            self.1.as_mut().poll(cx)
        }
    }
}

#[test]
fn a_future_is_found_whatever_its_output_needs() {
    use aligned::{By32, By64, By128, ByHand, Sample, keeps};
    let runtime = Builder::new_current_thread().build().unwrap();
    let local = tokio::task::LocalSet::new();
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let mut ids = Vec::new();
    macro_rules! spawn {
        ($($kept:ty => $output:ty),*) => {$({
            let future = || keeps::<$kept, $output>(Sample::sample());
            ids.push(tokio::spawn(future()).id());
            ids.push(tokio::spawn(ByHand([7; 4], Box::pin(future()))).id());
            ids.push(tokio::task::spawn_local(future()).id());
        })*};
    }
    local.block_on(&runtime, async {
        spawn!(u8 => u8, u8 => u128, u8 => By32, u8 => By64, u8 => By128);
        spawn!(u128 => u8, By32 => u8, By64 => u8, By128 => u8, By64 => u128, u128 => By64);
        tokio::task::spawn_blocking(move || stopped.recv().map_or(By64::sample(), |()| By64::sample()));
        settle().await;
    });
    let mut roots = Roots::new();
    roots.add_runtime(runtime.handle());
    let listing = capture(&roots.addresses(), 1 << 30);
    for id in &ids {
        let task = listing.tasks.iter().find(|task| task.id.to_string() == id.to_string()).unwrap();
        let at =
            |frame: &Frame| frame.function.ends_with("aligned::keeps") && frame.line == Some(aligned::LINE);
        assert!(chain(&task.stack).any(at), "{task:#?}");
        let waits: Vec<_> = task.waits_on.iter().map(|on| on.kind).collect();
        assert_eq!(waits, [ResourceKind::Notify], "{task:#?}");
    }
    computed_starts_are_among_the_possible(&roots.addresses());
    drop(stop);
}

/// The first child of the first child, and so on.
fn chain(stack: &[Frame]) -> impl Iterator<Item = &Frame> {
    std::iter::successors(stack.first(), |frame| frame.children.first())
}

/// Where the types of a stage are missing, its layout is computed: the true one is among those.
fn computed_starts_are_among_the_possible(roots: &[Root]) {
    let image = targets::fork(Limits { force: true, ..Limits::default() }).unwrap();
    let executable = std::env::current_exe().unwrap();
    let file = Image::open(&executable).unwrap();
    let bias = file.bias(&executable, image.mappings()).unwrap();
    let types = Types::open(&file);
    let knowledge = Knowledge::new(types, bias);
    let options = Options { bias, scan: 1 << 30, now: None, history: None, places: true, entered: false };
    let compared = examine_with(&image, &knowledge, roots, &options, |examination| {
        let headers = header::Headers::new(examination.process, knowledge.kinds.as_ref().unwrap());
        let mut compared = 0;
        for header in examination.places.iter().filter_map(|place| place.header) {
            let kind = headers.kind_of(header).unwrap();
            let (parts, _) = headers.parts(headers.vtable(header).unwrap()).unwrap();
            let computed = cell::StageLayout::computed(examination.process, &parts).unwrap();
            assert!(!kind.stage.is_guess(), "{kind:#?}");
            assert!(computed.places().contains(&kind.stage.places()[0]), "{computed:#?}\n{kind:#?}");
            assert!(computed.read(examination.process, kind.future, header).is_some());
            compared += 1;
        }
        compared
    });
    assert!(compared > 33, "{compared}");
}

#[test]
fn nothing_is_polled() {
    let runtime = Builder::new_current_thread().build().unwrap();
    let polls = Arc::new(std::sync::atomic::AtomicU32::new(0));
    let counted = polls.clone();
    runtime.block_on(async {
        tokio::spawn(std::future::poll_fn(move |_| {
            counted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            Poll::<()>::Pending
        }));
        settle().await;
        let mut roots = Roots::new();
        roots.add_runtime(&Handle::current());
        for _ in 0..3 {
            assert!(!capture(&roots.addresses(), 0).tasks.is_empty());
        }
        settle().await;
    });
    assert_eq!(polls.load(std::sync::atomic::Ordering::Relaxed), 1);
}

fn deeper(depth: u32) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send>> {
    Box::pin(async move {
        match depth {
            0 => std::future::pending().await,
            _ => deeper(depth - 1).await,
        }
    })
}

/// The stack of the thread that walks is what bounds the depth: this runs on one of two megabytes, as the
/// engine does.
#[test]
fn recursion_is_followed_down_to_a_bound() {
    let runtime = Builder::new_current_thread().build().unwrap();
    let ids = runtime.block_on(async {
        let tasks = [100, 600].map(|depth| tokio::spawn(deeper(depth)).id());
        settle().await;
        tasks
    });
    let mut roots = Roots::new();
    roots.add_runtime(runtime.handle());
    let listing = capture(&roots.addresses(), 0);
    let frames = |id: tokio::task::Id| {
        let task = listing.tasks.iter().find(|task| task.id.to_string() == id.to_string()).unwrap();
        functions(unwrapped(&task.stack)).len()
    };
    assert_eq!(frames(ids[0]), 102, "101 functions and what the innermost awaits");
    assert!(frames(ids[1]) > 100);
    assert!(listing.notes.iter().any(|note| note.contains("not shown to its end")), "{:?}", listing.notes);
}
