//! Threads that wait in primitives of the standard library, crossbeam, flume, kanal and parking_lot for tasks, and tasks that
//! wait for such threads; and healthy programs of the same shape.

use std::sync::mpsc::{self, sync_channel};
use std::sync::{Arc, Barrier, Condvar, LazyLock, Mutex, OnceLock, RwLock};
use std::thread;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::{block_in_place, spawn_blocking};

use crate::harness::{self, Case, DAY, faulty, healthy};

pub(crate) const CASES: &[Case] = &[
    faulty!(results_whose_sender_the_receiver_keeps: "deadlock" | "blocked_worker"),
    faulty!(thread_that_waits_for_the_task_that_joins_it: "deadlock" | "blocked_worker"),
    faulty!(thread_that_sends_to_the_task_that_waits_for_it: "deadlock"),
    faulty!(crossbeam_jobs_of_a_task_that_waits: "deadlock"),
    faulty!(flume_jobs_of_a_task_that_waits: "deadlock"),
    faulty!(kanal_jobs_of_a_task_that_waits: "deadlock"),
    faulty!(condition_that_the_next_task_makes_true: "deadlock" | "blocked_worker"),
    faulty!(barrier_of_calls_for_one_more: "deadlock"),
    faulty!(once_inside_itself: "deadlock" | "blocked_worker"),
    faulty!(lazy_value_that_asks_a_task_that_wants_it: "deadlock" | "blocked_worker"),
    faulty!(read_guard_and_write_in_one_task: "deadlock" | "blocked_worker"),
    faulty!(parking_lot_condition_without_a_notifier: "blocked_worker" | "deadlock"),
    faulty!(scope_whose_thread_waits_for_the_task: "deadlock" | "blocked_worker"),
    faulty!(thread_locks_what_its_joiner_holds: "deadlock" | "blocked_worker"),
    healthy!(main_fed_by_a_thread),
    healthy!(jobs_for_a_thread_that_serves),
    healthy!(call_that_consumes_what_tasks_send),
    healthy!(thread_that_is_joined_later),
    healthy!(threads_that_share_a_receiver),
    healthy!(barrier_of_calls_that_fills),
];

/// The classic: the original sender is still there when the loop asks for more.
async fn results_whose_sender_the_receiver_keeps() {
    tokio::spawn(collects());
    harness::ready(1).await;
}

async fn collects() {
    let (sender, receiver) = mpsc::channel();
    let workers: Vec<_> = (0..3)
        .map(|number| {
            let sender = sender.clone();
            thread::spawn(move || sender.send(number * number))
        })
        .collect();
    for worker in workers {
        let _ = worker.join();
    }
    let sum = block_in_place(|| {
        let mut sum = 0;
        harness::affected("collects");
        for number in receiver.iter() {
            sum += number;
        }
        sum
    });
    drop(sender);
    println!("{sum}");
}

async fn thread_that_waits_for_the_task_that_joins_it() {
    tokio::spawn(joins_its_reader());
    harness::ready(1).await;
}

async fn joins_its_reader() {
    let (sender, mut receiver) = tokio::sync::mpsc::channel::<u64>(4);
    let reader = thread::spawn(move || {
        let mut sum = 0;
        while let Some(number) = receiver.blocking_recv() {
            sum += number;
        }
        sum
    });
    let _ = sender.send(5).await;
    harness::affected("joins_its_reader");
    let sum = reader.join();
    println!("{sum:?}");
    drop(sender);
}

async fn thread_that_sends_to_the_task_that_waits_for_it() {
    tokio::spawn(waits_for_the_end());
    harness::ready(1).await;
}

async fn waits_for_the_end() {
    let (output, input) = sync_channel::<u64>(1);
    let (done, end) = oneshot::channel::<()>();
    thread::spawn(move || produce(&output, done));
    harness::affected("waits_for_the_end");
    let _ = end.await;
    println!("{}", input.iter().sum::<u64>());
}

fn produce(output: &mpsc::SyncSender<u64>, done: oneshot::Sender<()>) {
    for number in 0..10 {
        let _ = output.send(number);
    }
    let _ = done.send(());
}

async fn crossbeam_jobs_of_a_task_that_waits() {
    tokio::spawn(crossbeam_results());
    harness::ready(1).await;
}

async fn crossbeam_results() {
    let (jobs, take) = crossbeam_channel::bounded::<u64>(1);
    let (results, receive) = oneshot::channel::<u64>();
    thread::spawn(move || {
        let sum = sums(&take);
        let _ = results.send(sum);
    });
    let _ = jobs.send(4);
    harness::affected("crossbeam_results");
    let result = receive.await;
    drop(jobs);
    println!("{result:?}");
}

fn sums(take: &crossbeam_channel::Receiver<u64>) -> u64 {
    let mut sum = 0;
    while let Ok(number) = take.recv() {
        sum += number;
    }
    sum
}

async fn flume_jobs_of_a_task_that_waits() {
    tokio::spawn(flume_results());
    harness::ready(1).await;
}

async fn flume_results() {
    let (jobs, take) = flume::bounded::<u64>(1);
    let (results, receive) = oneshot::channel::<u64>();
    thread::spawn(move || {
        let sum = take.iter().sum();
        let _ = results.send(sum);
    });
    let _ = jobs.send_async(4).await;
    harness::affected("flume_results");
    let result = receive.await;
    drop(jobs);
    println!("{result:?}");
}

async fn kanal_jobs_of_a_task_that_waits() {
    tokio::spawn(kanal_results());
    harness::ready(1).await;
}

async fn kanal_results() {
    let (jobs, take) = kanal::bounded::<u64>(1);
    let (results, receive) = oneshot::channel::<u64>();
    thread::spawn(move || {
        let mut sum = 0;
        while let Ok(number) = take.recv() {
            sum += number;
        }
        let _ = results.send(sum);
    });
    let _ = jobs.as_async().send(4).await;
    harness::affected("kanal_results");
    let result = receive.await;
    drop(jobs);
    println!("{result:?}");
}

/// Runs `main` on its own thread and runtime.
fn on_a_current_thread<F: Future<Output = ()> + 'static>(main: fn() -> F) {
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(main());
    });
}

async fn condition_that_the_next_task_makes_true() {
    on_a_current_thread(|| async {
        let state = Arc::new((Mutex::new(false), Condvar::new()));
        let theirs = state.clone();
        let waiter = tokio::spawn(async move { wait_until(&state) });
        tokio::spawn(async move {
            *theirs.0.lock().unwrap() = true;
            theirs.1.notify_all();
        });
        let _ = waiter.await;
    });
    harness::ready(1).await;
}

fn wait_until(state: &(Mutex<bool>, Condvar)) {
    let mut ready = state.0.lock().unwrap();
    while !*ready {
        harness::affected("wait_until");
        ready = state.1.wait(ready).unwrap();
    }
}

async fn barrier_of_calls_for_one_more() {
    tokio::spawn(loads());
    harness::ready(2).await;
}

async fn loads() {
    let barrier = Arc::new(Barrier::new(3));
    let calls: Vec<_> = (0..2)
        .map(|_| {
            let barrier = barrier.clone();
            spawn_blocking(move || load(&barrier))
        })
        .collect();
    drop(barrier);
    for call in calls {
        let _ = call.await;
    }
}

fn load(barrier: &Barrier) {
    harness::affected("load");
    barrier.wait();
}

static SETTINGS: OnceLock<String> = OnceLock::new();

fn settings() -> &'static str {
    SETTINGS.get_or_init(|| format!("{}!", defaults()))
}

fn defaults() -> String {
    harness::affected("defaults");
    SETTINGS.get_or_init(String::new).clone()
}

async fn once_inside_itself() {
    tokio::spawn(async { println!("{}", settings()) });
    harness::ready(1).await;
}

static CLIENT: LazyLock<u64> = LazyLock::new(|| {
    let asked = tokio::spawn(async {
        harness::waits();
        *CLIENT + 1
    });
    harness::waits();
    futures::executor::block_on(asked).unwrap()
});

async fn lazy_value_that_asks_a_task_that_wants_it() {
    tokio::spawn(async { println!("{}", *CLIENT) });
    harness::ready(1).await;
}

async fn read_guard_and_write_in_one_task() {
    tokio::spawn(refreshes(Arc::new(RwLock::new(0))));
    harness::ready(1).await;
}

async fn refreshes(table: Arc<RwLock<u64>>) {
    let now = table.read().unwrap();
    if *now == 0 {
        harness::affected("refreshes");
        *table.write().unwrap() = 1;
    }
    println!("{now}");
}

async fn parking_lot_condition_without_a_notifier() {
    tokio::spawn(pauses(Arc::default()));
    harness::ready(1).await;
}

async fn pauses(state: Arc<(parking_lot::Mutex<bool>, parking_lot::Condvar)>) {
    let mut ready = state.0.lock();
    while !*ready {
        harness::affected("pauses");
        state.1.wait(&mut ready);
    }
}

async fn scope_whose_thread_waits_for_the_task() {
    tokio::spawn(scopes());
    harness::ready(1).await;
}

async fn scopes() {
    let (jobs, take) = mpsc::channel::<u64>();
    let mut sum = 0;
    thread::scope(|scope| {
        let sum = &mut sum;
        scope.spawn(move || *sum = take.iter().sum());
        let _ = jobs.send(1);
        harness::waits();
    });
    drop(jobs);
    println!("{sum}");
}

async fn thread_locks_what_its_joiner_holds() {
    tokio::spawn(stops(Arc::default()));
    harness::ready(1).await;
}

async fn stops(state: Arc<Mutex<u64>>) {
    let guard = state.lock().unwrap();
    let theirs = state.clone();
    let worker = thread::spawn(move || *theirs.lock().unwrap() += 1);
    harness::affected("stops");
    let _ = worker.join();
    println!("{guard}");
}

async fn main_fed_by_a_thread() {
    let (events, mut take) = tokio::sync::mpsc::channel::<u64>(4);
    thread::spawn(move || {
        loop {
            thread::sleep(Duration::from_millis(700));
            if events.blocking_send(1).is_err() {
                break;
            }
        }
    });
    harness::ready_on_a_thread(1);
    harness::waits();
    while take.recv().await.is_some() {}
}

async fn jobs_for_a_thread_that_serves() {
    let (jobs, take) = mpsc::channel::<(u64, oneshot::Sender<u64>)>();
    thread::spawn(move || {
        for (number, reply) in take {
            thread::sleep(Duration::from_millis(30));
            let _ = reply.send(number + 1);
        }
    });
    for _ in 0..3 {
        let jobs = jobs.clone();
        tokio::spawn(async move {
            harness::waits();
            loop {
                let (reply, receive) = oneshot::channel();
                let _ = jobs.send((1, reply));
                let _ = receive.await;
            }
        });
    }
    harness::ready(3).await;
}

async fn call_that_consumes_what_tasks_send() {
    let (output, input) = mpsc::channel::<u64>();
    let writer = spawn_blocking(move || {
        harness::waits();
        input.iter().sum::<u64>()
    });
    tokio::spawn(async move {
        let mut ticks = tokio::time::interval(Duration::from_secs(20));
        loop {
            ticks.tick().await;
            let _ = output.send(1);
        }
    });
    tokio::spawn(async move {
        harness::waits();
        println!("{:?}", writer.await);
    });
    harness::ready(2).await;
}

async fn thread_that_is_joined_later() {
    let worker = thread::spawn(|| thread::sleep(DAY));
    spawn_blocking(move || {
        harness::waits();
        let _ = worker.join();
    });
    harness::ready(1).await;
}

/// The pool of threads of many textbooks: one thread waits for a job, the others for the lock of the receiver.
async fn threads_that_share_a_receiver() {
    type Job = Box<dyn FnOnce() + Send>;
    let (jobs, take) = mpsc::channel::<Job>();
    let take = Arc::new(Mutex::new(take));
    for _ in 0..3 {
        let take = take.clone();
        thread::spawn(move || {
            harness::waits();
            while let Ok(job) = { take.lock().unwrap().recv() } {
                job();
            }
        });
    }
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(Duration::from_secs(30)).await;
            let _ = jobs.send(Box::new(|| ()));
        }
    });
    harness::ready(3).await;
}

async fn barrier_of_calls_that_fills() {
    let barrier = Arc::new(Barrier::new(3));
    for pause in [0, 0, 400] {
        let barrier = barrier.clone();
        spawn_blocking(move || {
            harness::waits();
            loop {
                thread::sleep(Duration::from_millis(pause));
                barrier.wait();
            }
        });
    }
    harness::ready(3).await;
}
