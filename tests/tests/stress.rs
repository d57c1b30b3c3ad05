//! Captures of a program under stress: see `src/bin/stress.rs`.
//!
//! Two clients request `/stacktrace/rust`, rolling and consistent, and `/core` in turn, while others put load on the
//! program's own web server. The short form takes half a minute; the long one is
//! `DELOUSE_STRESS=2000 cargo test --release -p delouse-tests --test stress -- --nocapture`.
#![cfg(target_os = "linux")]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use delouse_tests::core_dump::CoreDump;
use delouse_tests::process::{self, Entry};
use delouse_tests::wire::Wire;
use delouse_tests::{PATIENCE, Program, Response, program, request};
use serde_json::Value;

/// What a thread does, by the prefix of its name: its function, and whether it blocks there for good.
const ROLES: [(&str, &str, bool); 10] = [
    ("still-park", "stress::blocks_in_park", true),
    ("still-slp", "stress::blocks_in_sleep", true),
    ("still-lock", "stress::blocks_in_lock", true),
    ("still-read", "stress::blocks_in_read", true),
    ("alloc", "stress::allocates", false),
    ("panic", "stress::panics", false),
    ("load", "stress::loads", false),
    ("child", "stress::starts_children", false),
    ("breed", "stress::breeds", false),
    ("ticker", "stress::ticks", false),
];

/// `force` ignores the budget: on a busy machine forks take longer, and delouse would refuse them.
const CORE: &str = "/core?force=true";

/// The kinds of capture, in the order in which a client takes them.
const KINDS: [&str; 3] = ["/stacktrace/rust", "/stacktrace/rust?consistent=true", CORE];

/// Growth below this is noise: allocator arenas of some 200 threads that allocate at random.
const NOISE: u64 = 32 << 20;

/// The results of the captures.
#[derive(Default)]
struct Tally {
    captures: BTreeMap<&'static str, Vec<Duration>>,
    pauses_us: BTreeMap<&'static str, Vec<u64>>,
    busy: usize,
    inconsistent: usize,
    most_threads: usize,
    /// How often a thread was excused, by reason.
    excuses: BTreeMap<String, usize>,
    /// How often that was a thread that is blocked for good.
    still_excused: usize,
    /// How often a thread that lives throughout was looked for.
    looked_for: usize,
}

/// The program, its threads that run from start to end, and the results.
struct StressedProgram {
    program: Program,
    server: SocketAddr,
    lasting: Vec<Entry>,
    /// The fewest at any moment before the captures and the load.
    open_files: usize,
    tally: Mutex<Tally>,
    served: AtomicUsize,
    failed: Mutex<Vec<String>>,
}

#[test]
fn nothing_is_lost_and_nothing_breaks() {
    let wanted = std::env::var("DELOUSE_STRESS").ok().and_then(|n| n.parse().ok()).unwrap_or(60);
    let stressed = StressedProgram::start();
    let pid = stressed.program.pid();
    let over = AtomicBool::new(false);
    let (mut before, mut after) = ((0, 0), (0, 0));
    thread::scope(|scope| {
        let _ends = EndsLoad(&over);
        for _ in 0..4 {
            scope.spawn(|| stressed.load(&over));
        }
        stressed.capture(wanted / 4);
        before = (process::bytes(pid, "RssAnon"), process::bytes(pid, "VmRSS"));
        stressed.capture(wanted / 4);
        // From here on the signal that was used so far is the program's own.
        assert_eq!(stressed.ask("/sigurg"), "taken");
        stressed.capture(wanted / 2);
        after = (process::bytes(pid, "RssAnon"), process::bytes(pid, "VmRSS"));
    });
    stressed.report(before, after);
    let figures = stressed.figures();

    let failed = std::mem::take(&mut *stressed.failed.lock().unwrap());
    assert!(failed.is_empty(), "{} requests failed: {failed:#?}", failed.len());
    assert!(stressed.served.load(SeqCst) > wanted, "the server was not under load");
    for happened in ["births", "panics", "loads", "children", "sigurg_raised"] {
        assert!(figures[happened] > 0, "{happened}: {figures:?}");
    }
    assert_eq!(figures["children_failed"], 0);
    // One may have been raised and not yet counted.
    let lost = figures["sigurg_raised"].abs_diff(figures["sigurg_seen"]);
    assert!(lost <= 1, "the program's own signals: {figures:?}");
    assert!(after.0 < before.0 + NOISE, "memory grew from {} to {} bytes", before.0, after.0);
    stressed.leaves_nothing_behind();
}

/// Ends the load when the captures are over, or when one of them panicked.
struct EndsLoad<'o>(&'o AtomicBool);

impl Drop for EndsLoad<'_> {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}

impl StressedProgram {
    fn start() -> Self {
        let program = Program::start(program!("stress"));
        let line = program.printed("serving http://");
        let server = line.trim().rsplit('/').next().unwrap().parse().unwrap();
        let lives = || {
            let mut threads = process::threads(program.pid());
            threads.retain(|thread| role(&thread.name).is_some());
            // A newborn has its mother's name until it takes its own; she is older.
            threads.sort_by(|a, b| (&a.name, a.id).cmp(&(&b.name, b.id)));
            threads.dedup_by(|newborn, mother| newborn.name == mother.name);
            threads
        };
        // A thread takes its name a moment after it was born.
        let begun = Instant::now();
        while lives().len() < 60 + 50 + 20 + 10 + 6 + 4 + 1 {
            assert!(begun.elapsed() < PATIENCE, "{:?}", lives());
            thread::yield_now();
        }
        let lasting = lives();
        let _warm = program.get(KINDS[0]);
        let open_files = (0..200).map(|_| process::open_files(program.pid())).min().unwrap();
        let (tally, served, failed) = Default::default();
        Self { server, lasting, open_files, program, tally, served, failed }
    }

    fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap()
    }

    /// A request to the program's own server.
    fn ask(&self, path: &str) -> String {
        request("GET", self.server, path, &[]).body
    }

    fn figures(&self) -> BTreeMap<String, u64> {
        let text = self.ask("/figures");
        let figure =
            |line: &str| Some((line.split_once(' ')?.0.to_owned(), line.split_once(' ')?.1.parse().ok()?));
        text.lines().filter_map(figure).collect()
    }

    /// Requests to the program's own server, one after the other: none may fail.
    fn load(&self, over: &AtomicBool) {
        let mut wire = None;
        let mut requests = 0_usize;
        while !over.load(SeqCst) {
            requests += 1;
            let mut work = || -> Result<(), String> {
                let connect = || Wire::connect(self.server).map_err(|e| format!("connecting: {e}"));
                let mut connection = wire.take().map_or_else(connect, Ok)?;
                let head = connection.ask("GET", "/work", &[]).map_err(|e| format!("asking: {e}"))?;
                let body = connection.body(&head).map_err(|e| format!("reading: {e}"))?;
                if head.status != 200 || body != b"worked" {
                    return Err(format!("{head:?} {}", String::from_utf8_lossy(&body)));
                }
                // Now and then a new connection.
                wire = (!requests.is_multiple_of(50)).then_some(connection);
                Ok(())
            };
            match work() {
                Ok(()) => drop(self.served.fetch_add(1, SeqCst)),
                Err(error) => self.failed.lock().unwrap().push(error),
            }
            // Some load, not all that the machine can bear: four of these run.
            thread::sleep(Duration::from_millis(4));
        }
    }

    /// Takes `wanted` captures, by two clients at once.
    fn capture(&self, wanted: usize) {
        let taken = AtomicUsize::new(0);
        thread::scope(|scope| {
            for client in 0..2 {
                let taken = &taken;
                scope.spawn(move || {
                    let mut number = client;
                    while taken.fetch_add(1, SeqCst) < wanted {
                        self.capture_one(KINDS[number % KINDS.len()]);
                        number += 1;
                    }
                });
            }
        });
    }

    fn capture_one(&self, kind: &'static str) {
        let begun = Instant::now();
        loop {
            assert!(begun.elapsed() < PATIENCE, "{kind}: never free");
            if kind == CORE {
                let mut wire = Wire::connect(self.program.address()).unwrap();
                let head = wire.ask("GET", kind, &[]).unwrap();
                let body = wire.body(&head).unwrap();
                if head.status == 200 {
                    let pause = head.header("x-delouse-pause-us").unwrap().parse().unwrap();
                    return self.check_core(&body, pause, begun.elapsed());
                }
                assert_eq!(head.status, 429, "{}", String::from_utf8_lossy(&body));
            } else {
                let response = self.program.get(kind);
                if response.status == 200 {
                    return self.check_stacks(kind, &response);
                }
                assert_eq!(response.status, 429, "{}", response.body);
            }
            self.tally().busy += 1;
            // The other client's capture is on.
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Every lasting thread is listed in its function, or with a reason why not.
    fn check_stacks(&self, kind: &'static str, response: &Response) {
        let json = response.json();
        let threads = json["threads"].as_array().unwrap();
        let by_tid: BTreeMap<u64, &Value> =
            threads.iter().map(|thread| (thread["tid"].as_u64().unwrap(), thread)).collect();
        let mut tally = self.tally();
        for Entry { id, name, .. } in &self.lasting {
            tally.looked_for += 1;
            let thread =
                by_tid.get(&u64::from(*id)).unwrap_or_else(|| panic!("{kind}: {name} ({id}) is missing"));
            let (_, function, stands_still) = role(name).unwrap();
            let frames = thread["frames"].as_array().unwrap();
            if frames.iter().any(|frame| frame["function"].as_str() == Some(function)) {
                continue;
            }
            let excuse = thread["unavailable"].as_str().or(thread["truncated"].as_str());
            let excuse = excuse.unwrap_or_else(|| panic!("{kind}: {name} is not in {function}: {thread:#}"));
            tally.still_excused += usize::from(stands_still);
            *tally.excuses.entry(excuse.to_owned()).or_default() += 1;
        }
        let capture = &json["capture"];
        tally.inconsistent += usize::from(kind.contains("consistent") && capture["consistent"] != true);
        tally.most_threads = tally.most_threads.max(threads.len());
        tally.captures.entry(kind).or_default().push(response.took);
        tally.pauses_us.entry(kind).or_default().push(capture["pause_us"].as_u64().unwrap());
    }

    /// The file is complete and has the registers and stack of every thread.
    fn check_core(&self, file: &[u8], pause_us: u64, took: Duration) {
        let core = CoreDump::parse(file).unwrap();
        assert_eq!(file.len() as u64, core.bytes, "the core file is cut");
        let mut tally = self.tally();
        for Entry { id, name, .. } in &self.lasting {
            tally.looked_for += 1;
            assert_eq!(core.names.get(id), Some(name));
            match core.stack_pointers.get(id) {
                Some(&sp) => assert!(core.holds(sp), "/core: the stack of {name} is missing"),
                None => *tally.excuses.entry("no registers in /core".to_owned()).or_default() += 1,
            }
        }
        tally.captures.entry(CORE).or_default().push(took);
        tally.pauses_us.entry(CORE).or_default().push(pause_us);
    }

    fn report(&self, before: (u64, u64), after: (u64, u64)) {
        let tally = self.tally();
        for (kind, times) in &tally.captures {
            let (mut times, mut pauses) = (times.clone(), tally.pauses_us[kind].clone());
            times.sort();
            pauses.sort();
            println!(
                "{kind}: {} captures, median {:?}, worst {:?}; pause median {} µs, worst {} µs",
                times.len(),
                times[times.len() / 2],
                times[times.len() - 1],
                pauses[pauses.len() / 2],
                pauses[pauses.len() - 1],
            );
        }
        println!("{} threads at most; {} answers 'busy'", tally.most_threads, tally.busy);
        println!("not consistent: {}", tally.inconsistent);
        println!(
            "{} threads looked for, not found with a reason: {:#?}, {} of them of threads that stand still",
            tally.looked_for, tally.excuses, tally.still_excused
        );
        println!(
            "{} requests served, {} failed",
            self.served.load(SeqCst),
            self.failed.lock().unwrap().len()
        );
        println!(
            "RssAnon {} -> {} KB, VmRSS {} -> {} KB",
            before.0 >> 10,
            after.0 >> 10,
            before.1 >> 10,
            after.1 >> 10
        );
        println!("{:?}", self.figures());
        // A thread that does not answer is a stack less: rare, or something is wrong.
        let excused: usize = tally.excuses.values().sum();
        assert!(excused * 100 <= tally.looked_for, "{:#?} of {}", tally.excuses, tally.looked_for);
    }

    /// Checks that no child, zombie or descriptor is left, and that the program runs.
    fn leaves_nothing_behind(mut self) {
        let pid = self.program.pid();
        assert_eq!(process::zombies(pid), []);
        assert_eq!(process::images(pid), []);
        // The server closes connections of clients that have ended within a moment, and threads that start children
        // have some descriptors open for a moment.
        let begun = Instant::now();
        let mut open = process::open_files(pid);
        while open > self.open_files {
            assert!(begun.elapsed() < Duration::from_secs(10), "{open} files, {} before", self.open_files);
            open = process::open_files(pid);
        }
        println!("{} open files before, {open} after", self.open_files);
        let ticks = self.figures()["ticks"];
        while self.figures()["ticks"] == ticks {
            thread::yield_now();
        }
        assert!(self.program.is_running());
        // On a slow machine, a client is told why the first answer takes long.
        let is_complaint = |line: &&String| !line.contains("still reading debug information");
        let complaints = self.program.stderr().iter().filter(is_complaint).count();
        assert_eq!(complaints, 1, "complained: {:#?}", self.program.stderr());
    }
}

/// What the thread of that name does, if it runs from start to end.
fn role(name: &str) -> Option<(&'static str, &'static str, bool)> {
    ROLES.into_iter().find(|(prefix, _, _)| name.starts_with(prefix))
}
