//! Many idle tasks: `many_tasks COUNT STACKS` has STACKS different stacks of eight functions each; `many_tasks COUNT plain`
//! has stacks of three.
//!
//! Every future is boxed, as in a service with a stack of middleware; with `plain` none is, as where one `async fn` calls
//! another. One more task ticks every millisecond. The program prints `control ADDRESS` when all tasks are idle. There, each
//! line is a command, answered by a line.
//! - `gap`: the longest time between two ticks since the last `gap`, in microseconds;
//! - `dump`: runs tokio's own `Handle::dump()`, and answers with the time that it took in microseconds and the
//!   number of tasks, or why not.

use std::future::Future;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::Notify;

/// Functions around what a task waits for.
const DEPTH: u32 = 7;
const LONG: Duration = Duration::from_secs(86_400);

static GAP_US: AtomicU64 = AtomicU64::new(0);
static RESTING: AtomicUsize = AtomicUsize::new(0);

type Boxed = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The way down that the digits of `code` name, to one of three leaves.
fn down(code: u32, left: u32) -> Boxed {
    match (left, code % 3) {
        (0, 0) => Box::pin(waits()),
        (0, 1) => Box::pin(waits_for_long()),
        (0, _) => Box::pin(waits_for_either()),
        (_, 0) => Box::pin(handles(code / 3, left - 1)),
        (_, 1) => Box::pin(retries(code / 3, left - 1)),
        (_, _) => Box::pin(limits(code / 3, left - 1)),
    }
}

async fn handles(code: u32, left: u32) {
    down(code, left).await;
}

async fn retries(code: u32, left: u32) {
    down(code, left).await;
}

async fn limits(code: u32, left: u32) {
    down(code, left).await;
}

/// A resource that is never available.
async fn never() {
    RESTING.fetch_add(1, Relaxed);
    Notify::new().notified().await;
}

async fn waits() {
    never().await;
}

async fn waits_for_long() {
    let _over = tokio::time::timeout(LONG, never()).await;
}

async fn waits_for_either() {
    tokio::select! {
        () = never() => {}
        () = std::future::pending() => {}
    }
}

/// Seven functions above a leaf, all in one future.
macro_rules! plain {
    ($first:ident, $leaf:ident) => {
        async fn $first() {
            async fn listens() {
                accepts().await;
            }
            async fn accepts() {
                serves().await;
            }
            async fn serves() {
                routes().await;
            }
            async fn routes() {
                answers().await;
            }
            async fn answers() {
                asks().await;
            }
            async fn asks() {
                $leaf().await;
            }
            listens().await;
        }
    };
}

plain!(plainly, waits);
plain!(plainly_for_long, waits_for_long);
plain!(plainly_for_either, waits_for_either);

fn spawn(number: u32, stacks: u32, is_plain: bool) {
    let code = number % stacks;
    match (is_plain, code % 3) {
        // The last digit of a code's way is its leaf: neighbours differ there.
        (false, leaf) => tokio::spawn(down(code / 3 + leaf * 3_u32.pow(DEPTH), DEPTH)),
        (true, 0) => tokio::spawn(plainly()),
        (true, 1) => tokio::spawn(plainly_for_long()),
        (true, _) => tokio::spawn(plainly_for_either()),
    };
}

async fn ticks() {
    let mut last = Instant::now();
    loop {
        tokio::time::sleep(Duration::from_millis(1)).await;
        GAP_US.fetch_max(u64::try_from(last.elapsed().as_micros()).unwrap_or(u64::MAX), Relaxed);
        last = Instant::now();
    }
}

#[delouse::main]
async fn main() -> std::io::Result<()> {
    let mut numbers = std::env::args().skip(1).filter_map(|number| number.parse::<u32>().ok());
    let (count, stacks) = (numbers.next().unwrap_or(100_000), numbers.next().unwrap_or(3));
    let is_plain = std::env::args().any(|argument| argument == "plain");
    for number in 0..count {
        spawn(number, stacks, is_plain);
    }
    tokio::spawn(ticks());
    while RESTING.load(Relaxed) < count as usize {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let control = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    println!("control {}", control.local_addr()?);
    let runtime = Handle::current();
    thread::spawn(move || control.incoming().flatten().for_each(|client| obey(&runtime, client)));
    std::future::pending().await
}

/// Serves one controlling client.
fn obey(runtime: &Handle, client: TcpStream) {
    let Ok(mut answers) = client.try_clone() else { return };
    for line in BufReader::new(client).lines().map_while(Result::ok) {
        let answer = match line.as_str() {
            "gap" => GAP_US.swap(0, Relaxed).to_string(),
            "dump" => dump(runtime),
            other => format!("no command: {other}"),
        };
        if answers.write_all(format!("{answer}\n").as_bytes()).is_err() {
            return;
        }
    }
}

#[cfg(all(feature = "taskdump", tokio_unstable, target_os = "linux"))]
fn dump(runtime: &Handle) -> String {
    let asking = tokio::runtime::Builder::new_current_thread().build();
    let Ok(asking) = asking else { return "no runtime to ask from".to_owned() };
    let begun = Instant::now();
    let dump = asking.block_on(runtime.dump());
    let took = begun.elapsed().as_micros();
    format!("{took} {}", dump.tasks().iter().count())
}

#[cfg(not(all(feature = "taskdump", tokio_unstable, target_os = "linux")))]
fn dump(_: &Handle) -> String {
    "built without tokio's task dump".to_owned()
}
