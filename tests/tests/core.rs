//! `/core`: the same file however it is compressed, the same stacks as in the living program, and a program
//! that continues to run, with its sockets, while its image is read.
#![cfg(target_os = "linux")]

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use delouse_tests::controlled::Controlled;
use delouse_tests::core_dump::CoreDump;
use delouse_tests::wire::Wire;
use delouse_tests::{PATIENCE, process, program};

/// What delouse says where the memory of the machine is too fragmented for huge pages, as it is on one that has built for an
/// hour: [`compact_memory`] may help.
const NONE_LEFT: &str = "the system has no huge pages left";

/// Asks the kernel to make huge pages out of free memory. Only root may.
fn compact_memory() {
    let _ = std::fs::write("/proc/sys/vm/compact_memory", "1");
}

/// The functions of each thread's stack, by thread id.
type Stacks = BTreeMap<u32, Vec<String>>;

fn core(controlled: &Controlled, encoding: Option<&str>) -> Vec<u8> {
    let mut wire = Wire::connect(controlled.program.address()).unwrap();
    let accept: Vec<_> = encoding.map(|name| ("accept-encoding", name)).into_iter().collect();
    let head = wire.ask("GET", "/core", &accept).unwrap();
    let body = wire.body(&head).unwrap();
    assert_eq!(head.status, 200, "{}", String::from_utf8_lossy(&body));
    assert_eq!(head.header("content-encoding"), encoding);
    body
}

#[test]
fn the_same_core_however_it_is_compressed() {
    let controlled = Controlled::start(program!("sized_process"), 20, 30);
    let plain = core(&controlled, None);
    let expected = CoreDump::parse(&plain).unwrap();
    assert_eq!(expected.bytes, plain.len() as u64);
    assert!(expected.bytes > 30 << 20);
    for tool in ["zstd", "gzip"] {
        let packed = core(&controlled, Some(tool));
        assert!(packed.len() * 4 < plain.len(), "{tool}: {} of {}", packed.len(), plain.len());
        let Some(unpacked) = unpack(tool, packed) else {
            delouse_tests::skipped!("no {tool}");
            continue;
        };
        let got = CoreDump::parse(&unpacked).unwrap();
        assert_eq!(got.bytes, unpacked.len() as u64, "{tool}: cut");
        // Idle threads have the same stack in both captures.
        let resting = |core: &CoreDump| {
            let is_resting = |tid: &u32| core.names.get(tid).is_some_and(|name| name.starts_with("rest-"));
            core.stack_pointers.clone().into_iter().filter(|(tid, _)| is_resting(tid)).collect::<Vec<_>>()
        };
        assert_eq!(resting(&got).len(), 20);
        assert_eq!(resting(&got), resting(&expected), "{tool}");
        println!("{tool}: {} MB become {} KB", unpacked.len() >> 20, plain.len() >> 10);
    }
}

fn unpack(tool: &str, packed: Vec<u8>) -> Option<Vec<u8>> {
    let mut command = Command::new(tool);
    command.args(["-d", "-c"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().ok()?;
    let mut stdin = child.stdin.take().unwrap();
    let feeding = std::thread::spawn(move || stdin.write_all(&packed));
    let output = child.wait_with_output().unwrap();
    feeding.join().unwrap().unwrap();
    assert!(output.status.success(), "{tool} does not take it");
    Some(output.stdout)
}

/// A client that has read an answer to its end is never refused because of that capture.
#[test]
fn one_core_after_another() {
    let controlled = Controlled::start(program!("sized_process"), 2, 1);
    let mut wire = Wire::connect(controlled.program.address()).unwrap();
    for _ in 0..30 {
        let head = wire.ask("GET", "/core", &[("accept-encoding", "zstd")]).unwrap();
        let body = wire.body(&head).unwrap();
        assert_eq!(head.status, 200, "{}", String::from_utf8_lossy(&body));
    }
}

#[test]
fn what_it_would_cost_is_told_first() {
    let controlled = Controlled::start(program!("sized_process"), 20, 30);
    let actual = core(&controlled, None).len() as u64;
    let mut wire = Wire::connect(controlled.program.address()).unwrap();
    let head = wire.ask("HEAD", "/core", &[]).unwrap();
    assert_eq!(head.status, 200);
    let number = |name: &str| head.header(name).unwrap().parse::<u64>().unwrap();
    let told = number("x-delouse-bytes");
    assert!(told.abs_diff(actual) < actual / 5, "{told} told, {actual} come");
    assert_eq!(number("x-delouse-budget-us"), 50_000);
    assert!(number("x-delouse-pause-us") < 50_000);
    let json = controlled.program.get("/core?estimate=true").json();
    assert!(json["bytes"].as_u64().unwrap().abs_diff(actual) < actual / 5, "{json}");
    assert!(json["refused"].is_null());
    let text = controlled.program.get("/core?estimate=true&format=text").body;
    assert!(text.contains("a core file of about"), "{text}");
    assert_eq!(process::children(controlled.program.pid()), []);
}

/// A program with more memory than the pause budget allows: the refusal says what to do, and doing it helps.
#[test]
fn huge_pages_make_the_stop_short() {
    compact_memory();
    let mut command = program!("sized_process");
    command.env("DELOUSE_PAUSE_BUDGET_MS", "6");
    let mut controlled = Controlled::start(command, 4, 400);
    assert_eq!(controlled.tell("joinable"), "true");
    let refused = controlled.program.get("/core");
    assert_eq!(refused.status, 503, "{}", refused.body);
    assert!(refused.body.contains("POST /huge-pages"), "{}", refused.body);
    assert!(refused.body.contains("?huge_pages=true"), "{}", refused.body);
    let joined = controlled.program.post("/huge-pages?format=text", &[]);
    if joined.status == 501 {
        return delouse_tests::skipped!("{}", joined.body);
    }
    assert_eq!(joined.status, 200, "{}", joined.body);
    println!("{}", joined.body);
    if !joined.body.contains("are in huge pages now") {
        return delouse_tests::skipped!("an old kernel");
    }
    if joined.body.contains(NONE_LEFT) {
        return delouse_tests::skipped!("{}", joined.body);
    }
    let again = controlled.program.post("/huge-pages", &[]).json();
    assert!(again["huge_bytes"].as_u64().unwrap() > 390 << 20, "{again}");
    assert!(again["pause_us"].as_u64() < again["budget_us"].as_u64(), "{again}");
    assert!(core(&controlled, None).len() > 400 << 20);
    let tasks = controlled.program.get("/stacktrace/tokio").json();
    assert_eq!(tasks["capture"]["consistent"], true, "{tasks}");
    assert_eq!(controlled.program.get("/huge-pages").status, 405);
}

/// The same in one request. If joining does not help, the refusal gives the reason.
#[test]
fn a_core_may_be_joined_first() {
    compact_memory();
    let start = |budget| {
        let mut command = program!("sized_process");
        command.env("DELOUSE_PAUSE_BUDGET_MS", budget);
        Controlled::start(command, 4, 400)
    };
    let mut controlled = start("6");
    assert_eq!(controlled.tell("joinable"), "true");
    assert_eq!(controlled.program.get("/core").status, 503);
    let estimate = controlled.program.get("/core?estimate=true&huge_pages=true").json();
    assert!(estimate["refused"].is_string(), "an estimate joins nothing: {estimate}");
    let mut wire = Wire::connect(controlled.program.address()).unwrap();
    let head = wire.ask("GET", "/core?huge_pages=true", &[]).unwrap();
    let body = wire.body(&head).unwrap();
    if head.status == 200 {
        assert!(body.len() > 400 << 20);
        assert_eq!(CoreDump::parse(&body).unwrap().bytes, body.len() as u64);
    } else {
        let body = String::from_utf8_lossy(&body);
        println!("no huge pages here: {body}");
        let reasons = ["huge pages are not available", NONE_LEFT];
        let is_told = |why: &str| body.contains(&format!("Not all of its memory could be joined: {why}"));
        assert!(reasons.iter().any(|why| is_told(why)), "{body}");
    }

    // The program has asked the kernel not to join its memory.
    let controlled = start("1");
    let refused = controlled.program.get("/core?huge_pages=true");
    assert_eq!(refused.status, 503, "{}", refused.body);
    assert_eq!(refused.json()["error_code"], "OverBudget");
    assert!(refused.body.contains("Not all of its memory could be joined: "), "{}", refused.body);
}

#[test]
fn gdb_shows_what_it_shows_of_the_living_program() {
    if Command::new("gdb").arg("--version").output().is_err() {
        delouse_tests::skipped!("no gdb");
        return;
    }
    let controlled = Controlled::start(program!("sized_process"), 20, 10);
    let pid = controlled.program.pid();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("core");
    let bytes = core(&controlled, None);
    std::fs::write(&path, &bytes).unwrap();
    let executable = program!("sized_process").get_program().to_owned();

    let (dead, complaints) = gdb(&[executable.as_ref(), &path]);
    let (live, complaints_live) = gdb(&["-p".as_ref(), pid.to_string().as_ref()]);
    let tids: Vec<u32> =
        process::threads(pid).iter().filter(|t| t.name.starts_with("rest-")).map(|t| t.id).collect();
    assert_eq!(tids.len(), 20);
    for tid in &tids {
        assert!(
            live[tid].iter().any(|function| function.contains("sized_process::rests_in")),
            "{:?}",
            live[tid]
        );
        assert_eq!(dead.get(tid), Some(&live[tid]), "thread {tid}");
    }
    let names = CoreDump::parse(&bytes).unwrap().names;
    for thread in process::threads(pid).iter().filter(|thread| names.contains_key(&thread.id)) {
        assert_eq!(names[&thread.id], thread.name);
    }
    assert!(names.len() >= 20 + 3);
    println!("{} threads, complaints of gdb: {complaints:#?}; live: {complaints_live:#?}", dead.len());
    assert!(!complaints.iter().any(|line| line.contains("too small")), "{complaints:#?}");
}

/// All backtraces that gdb shows, and its warnings.
fn gdb(of: &[&Path]) -> (Stacks, Vec<String>) {
    let mut command = Command::new("gdb");
    command
        .args(["-nx", "-batch", "-ex", "set debuginfod enabled off", "-ex", "thread apply all bt"])
        .args(of);
    let output = command.output().unwrap();
    let (text, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let mut stacks = Stacks::new();
    let mut current = None;
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("Thread ") {
            let tid = rest.split("LWP ").nth(1).and_then(|rest| rest.split(')').next()?.parse().ok());
            current = tid.map(|tid| stacks.entry(tid).or_default());
        } else if line.starts_with('#')
            && let Some(stack) = &mut current
        {
            // "#1  0x0000 in function (arguments) at file:line", "#0  function (…".
            let rest = line.split_once(' ').map(|(_, rest)| rest.trim_start()).unwrap_or_default();
            let function =
                rest.split_once(" in ").filter(|(a, _)| a.starts_with("0x")).map_or(rest, |(_, f)| f);
            stack.push(function.split(" (").next().unwrap_or(function).to_owned());
        }
    }
    assert!(!stacks.is_empty(), "{text} {errors}");
    (stacks, errors.lines().filter(|line| line.contains("warning")).map(str::to_owned).collect())
}

#[test]
fn sockets_behave_while_the_image_is_read() {
    let mut controlled = Controlled::start(program!("sized_process"), 10, 60);
    let port = controlled.tell("listen");
    let mut peer = TcpStream::connect(format!("127.0.0.1:{port}")).unwrap();
    peer.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(controlled.tell("accept"), "accepted");

    // A client that reads little keeps the image.
    let mut wire = Wire::connect(controlled.program.address()).unwrap();
    assert_eq!(wire.ask("GET", "/core", &[]).unwrap().status, 200);
    let pid = controlled.program.pid();
    assert_eq!(process::images(pid).len(), 1);
    peer.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    assert_eq!(peer.read(&mut [0; 1]).unwrap_err().kind(), ErrorKind::WouldBlock, "still open");

    assert_eq!(controlled.tell("close"), "closed");
    peer.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(peer.read(&mut [0; 1]).unwrap(), 0, "its end is told to the peer");
    assert_eq!(controlled.tell(&format!("bind {port}")), "bound");
    assert_eq!(process::images(pid).len(), 1, "all of that while the image lived");
    drop(wire);
    let begun = std::time::Instant::now();
    while !process::children(pid).is_empty() {
        assert!(begun.elapsed() < PATIENCE);
        std::thread::yield_now();
    }
    assert!(File::open(format!("/proc/{pid}/status")).is_ok());
}
