//! Repeated diagnoses of a healthy service under load: no finding, few observations, no failed request, no long pause.
//!
//! `DIAGNOSES=500` for more than a few; `SERVICE=path` for another build of it.
#![cfg(all(feature = "debug", target_os = "linux", target_arch = "x86_64"))]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use delouse_tests::wire::Wire;
use delouse_tests::{PATIENCE, Program};

/// Connections, each of which sends one request after the other.
const CLIENTS: usize = 8;
/// The most observations of one diagnosis.
const MAX_OBSERVATIONS: usize = 3;
/// The default of `DELOUSE_PAUSE_BUDGET_MS`.
const BUDGET_US: u64 = 50_000;

/// Sends requests until `stop` is set, and counts the answers.
fn client(number: usize, service: SocketAddr, stop: &AtomicBool, answered: &AtomicUsize) {
    let mut wire = Wire::connect(service).expect("a connection");
    let paths = [format!("/visit/{number}"), format!("/square/{number}"), "/visit/0".into(), "/slow".into()];
    for path in paths.iter().cycle() {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let head = wire.ask("GET", path, &[]).expect("an answer");
        let body = wire.body(&head).expect("a body");
        assert!(head.status == 200 && !body.is_empty(), "{path}: {} {body:?}", head.status);
        answered.fetch_add(1, Ordering::Relaxed);
    }
}

/// A program that serves at `service` while it is diagnosed.
struct Served {
    program: Program,
    service: SocketAddr,
}

impl Served {
    fn start(command: Command) -> Self {
        let program = Program::start(command);
        let line = program.printed("serving on ");
        let service = line.trim_start_matches("serving on ").parse().expect("an address");
        Self { program, service }
    }

    /// Diagnoses it again and again while each of [`CLIENTS`] clients runs until its flag is set, and counts its answers.
    fn diagnose(&self, client: impl Fn(usize, SocketAddr, &AtomicBool, &AtomicUsize) + Sync) {
        let diagnoses: usize = std::env::var("DIAGNOSES").map_or(20, |n| n.parse().expect("a number"));
        let (stop, answered) = (AtomicBool::new(false), AtomicUsize::new(0));
        let mut pauses = Vec::new();
        let mut took = Vec::new();
        let mut observed: BTreeMap<String, usize> = BTreeMap::new();
        std::thread::scope(|scope| {
            for number in 0..CLIENTS {
                let (stop, answered, client) = (&stop, &answered, &client);
                scope.spawn(move || client(number, self.service, stop, answered));
            }
            // Ends the clients even if an assertion below fails.
            let _stop = Stop(&stop);
            let mut before = 0;
            for _ in 0..diagnoses {
                let response = self.program.get("/diagnosis");
                assert_eq!(response.status, 200, "{}", response.body);
                let answer = response.json();
                assert_eq!(answer["findings"].as_array().map(Vec::len), Some(0), "{}", answer["diagnosis"]);
                assert!(answer["scope"]["tasks"].as_u64() >= Some(CLIENTS as u64), "{answer}");
                let observations = answer["observations"].as_array().expect("observations");
                assert!(observations.len() <= MAX_OBSERVATIONS, "{}", answer["diagnosis"]);
                for kind in observations.iter().filter_map(|one| one["kind"].as_str()) {
                    *observed.entry(kind.to_owned()).or_default() += 1;
                }
                pauses.push(answer["capture"]["pause_us"].as_u64().expect("a pause"));
                took.push(response.took);
                let now = answered.load(Ordering::Relaxed);
                assert!(now > before, "the service makes no progress");
                before = now;
            }
        });
        pauses.sort_unstable();
        took.sort_unstable();
        let (median, longest) = (pauses[pauses.len() / 2], pauses[pauses.len() - 1]);
        println!(
            "{diagnoses} diagnoses, {} requests answered; pause {median} µs (longest {longest}); a diagnosis took \
             {:?} (longest {:?})",
            answered.load(Ordering::Relaxed),
            took[took.len() / 2],
            took[took.len() - 1],
        );
        println!("observations: {observed:?}");
        assert!(median <= BUDGET_US, "paused for {median} µs");
    }
}

#[test]
fn no_finding_and_no_effect_on_clients() {
    let path = std::env::var("SERVICE").unwrap_or_else(|_| env!("CARGO_BIN_EXE_service").to_owned());
    Served::start(Command::new(path)).diagnose(client);
}

/// Sends messages to a room of the chat, and reads those of all of its members, until `stop` is set.
fn member(number: usize, service: SocketAddr, stop: &AtomicBool, answered: &AtomicUsize) {
    let url = format!("ws://{service}/chat/{}", number % 2);
    let (mut socket, _) = tungstenite::connect(url).expect("a connection");
    for round in 0_usize.. {
        if stop.load(Ordering::Relaxed) {
            return socket.close(None).expect("it is open");
        }
        let own = format!("{number}: {round}");
        socket.send(own.clone().into()).expect("it is sent");
        while socket.read().expect("a message").to_text().expect("a text") != own {}
        answered.fetch_add(1, Ordering::Relaxed);
        // Slow enough for the others of the room to read everything.
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// `CHAT=path` for another build of it.
#[test]
fn no_finding_in_a_chat() {
    let path = std::env::var("CHAT").unwrap_or_else(|_| env!("CARGO_BIN_EXE_chat").to_owned());
    Served::start(Command::new(path)).diagnose(member);
}

/// `LOOKS=600` for more than a few.
#[test]
fn a_watch_finds_nothing_and_has_no_effect_on_clients() {
    let looks: u64 = std::env::var("LOOKS").map_or(15, |n| n.parse().expect("a number"));
    let path = std::env::var("SERVICE").unwrap_or_else(|_| env!("CARGO_BIN_EXE_service").to_owned());
    let mut command = Command::new(path);
    command.env("DELOUSE_WATCH", "1s");
    let program = Program::start(command);
    let line = program.printed("serving on ");
    let service: SocketAddr = line.trim_start_matches("serving on ").parse().expect("an address");
    let (stop, answered) = (AtomicBool::new(false), AtomicUsize::new(0));
    let history = std::thread::scope(|scope| {
        for number in 0..CLIENTS {
            let (stop, answered) = (&stop, &answered);
            scope.spawn(move || client(number, service, stop, answered));
        }
        let _stop = Stop(&stop);
        let mut last = (0, Instant::now());
        loop {
            std::thread::sleep(Duration::from_millis(50));
            let history = program.get("/history").json();
            let now = history["watch"]["looks"].as_u64().expect("it is watched");
            if now >= looks {
                break history;
            }
            if now > last.0 {
                last = (now, Instant::now());
            }
            assert!(last.1.elapsed() < PATIENCE, "the watch makes no progress: {history}");
        }
    });
    println!("{} requests answered; {}", answered.load(Ordering::Relaxed), history["history"]);
    assert_eq!(history["events"].as_array().map(Vec::len), Some(0), "{}", history["history"]);
    assert_eq!(history["watch"]["failed"], 0, "{}", history["history"]);
    assert!(!program.stderr().iter().any(|line| line.contains("===")), "{:#?}", program.stderr());
}

/// Sets the flag when dropped.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
