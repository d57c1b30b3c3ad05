//! What requests cost a server that works: its throughput and the times of its answers while delouse is asked every five seconds,
//! beside those while it is not.
//!
//! ```text
//! cargo bench -p delouse-tests --bench load              # 50 MB and 1 GB, half a minute each way
//! cargo bench -p delouse-tests --bench load -- 10240     # that many MB
//! ```
//!
//! The server is `src/bin/write_load.rs`: each of its requests writes to 64 pages of its memory at random, so that a fork makes it
//! copy pages. Four clients send 250 requests a second each, at fixed times: a request that is due while the server does not
//! answer counts from when it was due. Turns without and with questions alternate, so that both see the same machine. `stop` is
//! the longest that an answer of delouse says it has stopped the program.
#![cfg(target_os = "linux")]

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use delouse_tests::measure::show;
use delouse_tests::wire::Wire;
use delouse_tests::{Program, program};

const PAGES: &str = "64";
const CLIENTS: u32 = 4;
/// Between two requests of a client.
const PERIOD: Duration = Duration::from_millis(4);
/// Between two questions to delouse.
const ASKED: Duration = Duration::from_secs(5);
/// One turn, of which there are three each way.
const TURN: Duration = Duration::from_secs(20);
const TURNS: usize = 3;

fn main() {
    if cfg!(debug_assertions) {
        println!("(a debug build: figures mean little)");
    }
    let sizes: Vec<usize> = std::env::args().filter_map(|argument| argument.parse().ok()).collect();
    println!(
        "| MB | asked for | stop | requests/s | median | 99 of 100 | 999 of 1000 | longest | 99 of 100, to not asked |"
    );
    println!("| ---: | --- |{}", " ---: |".repeat(7));
    for megabytes in if sizes.is_empty() { vec![50, 1024] } else { sizes } {
        for path in ["/stacktrace/tokio", "/diagnosis"] {
            compare(megabytes, path);
        }
    }
}

fn compare(megabytes: usize, path: &str) {
    let mut command = program!("write_load");
    command.args([&megabytes.to_string(), PAGES]);
    let program = Program::start(command);
    let line = program.printed("serving on ");
    let server: SocketAddr = line.rsplit(' ').next().and_then(|text| text.parse().ok()).expect("an address");
    // Debug information is read by the first answer.
    program.get(path);
    let (mut alone, mut asked, mut stop) = (Vec::new(), Vec::new(), Duration::ZERO);
    for _ in 0..TURNS {
        alone.extend(turn(server, || {}));
        asked.extend(turn(server, || {
            let answer = program.get(path).json();
            let capture = &answer["capture"];
            assert_eq!(capture["consistent"], true, "{answer}");
            stop = stop.max(Duration::from_micros(capture["pause_us"].as_u64().expect("a pause")));
        }));
    }
    let of = |times: &mut Vec<Duration>| {
        times.sort();
        let at = |thousandth: usize| times[(times.len() - 1) * thousandth / 1000];
        (times.len(), [at(500), at(990), at(999), at(1000)])
    };
    let (alone, asked) = (of(&mut alone), of(&mut asked));
    let ratio = asked.1[1].as_secs_f64() / alone.1[1].as_secs_f64();
    for (what, stop, (count, times), ratio) in
        [("nothing", String::new(), alone, String::new()), (path, show(stop), asked, format!("{ratio:.2}"))]
    {
        let rate = count as f64 / (TURN.as_secs_f64() * TURNS as f64);
        let times = times.map(show).join(" | ");
        println!("| {megabytes} | {what} | {stop} | {rate:.0} | {times} | {ratio} |");
    }
}

/// Times of the answers during one turn, in which `ask` is called now and then.
fn turn(server: SocketAddr, mut ask: impl FnMut()) -> Vec<Duration> {
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let client = |number: u32| {
            let is_over = &is_over;
            scope.spawn(move || requests(server, PERIOD * number / CLIENTS, is_over))
        };
        let clients: Vec<_> = (0..CLIENTS).map(client).collect();
        let begun = Instant::now();
        while begun.elapsed() + ASKED <= TURN {
            thread::sleep(ASKED);
            ask();
        }
        thread::sleep(TURN.saturating_sub(begun.elapsed()));
        is_over.store(true, Relaxed);
        clients.into_iter().flat_map(|client| client.join().expect("it answers")).collect()
    })
}

/// Sends a request each [`PERIOD`], whether or not the last one was late.
fn requests(server: SocketAddr, offset: Duration, is_over: &AtomicBool) -> Vec<Duration> {
    let mut wire = Wire::connect(server).expect("it listens");
    let mut times = Vec::new();
    let mut due = Instant::now() + offset;
    while !is_over.load(Relaxed) {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        let head = wire.ask("GET", "/write", &[]).expect("an answer");
        let body = wire.body(&head).expect("a body");
        assert!(head.status == 200 && !body.is_empty(), "{}", head.status);
        times.push(due.elapsed());
        due += PERIOD;
    }
    times
}
