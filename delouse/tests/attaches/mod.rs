//! The command again and again on programs that do not know of it: each answer is right, and the program does not notice.
//!
//! The short forms take some seconds. `DELOUSE_ATTACHES=1000` is the number of commands for each program,
//! `DELOUSE_ATTACH_DEATHS=500` that of commands that are killed.

mod echo;

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::{Program, delouse};
use echo::Clients;

/// The idle tasks of `plain_server`, and the one that accepts connections.
const TASKS_OF_SERVER: usize = 20 + 1;
const CLIENTS: usize = 4;
/// How long a program may not run when the command is stopped.
const MOST_STANDSTILL: Duration = Duration::from_secs(2);

fn times(variable: &str, usual: usize) -> usize {
    std::env::var(variable).map_or(usual, |number| number.parse().expect("a number"))
}

/// What a program has, and what an attach must not change.
#[derive(Debug, PartialEq, Eq)]
struct Inventory {
    files: usize,
    threads: usize,
    mappings: usize,
    children: Vec<String>,
    signals: [String; 4],
}

impl Inventory {
    fn of(program: &Program) -> Self {
        let proc = format!("/proc/{}", program.pid());
        let count = |what: &str| std::fs::read_dir(format!("{proc}/{what}")).unwrap().count();
        let status = std::fs::read_to_string(format!("{proc}/status")).unwrap();
        let field = |key: &str| status.lines().find(|line| line.starts_with(key)).unwrap().to_owned();
        Self {
            files: count("fd"),
            threads: count("task"),
            mappings: std::fs::read_to_string(format!("{proc}/maps")).unwrap().lines().count(),
            children: children(program),
            signals: ["SigBlk:", "SigIgn:", "SigCgt:", "TracerPid:"].map(field),
        }
    }
}

/// Its children, including those that have ended and are not reaped.
fn children(program: &Program) -> Vec<String> {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", program.pid())).unwrap();
    let lists = tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("children")).ok());
    lists.flat_map(|list| list.split_whitespace().map(str::to_owned).collect::<Vec<_>>()).collect()
}

/// Runs `delouse tasks --json`, and returns its answer. A process that starts or ends a thread at that moment may be read
/// without a stop, which the answer says: such answers are `None`.
fn tasks(program: &Program) -> Option<Value> {
    let answer = delouse(&["tasks", &program.pid(), "--json", "--max-pause", "2000"]);
    assert_eq!((answer.status, answer.err.as_str()), (0, ""), "{}", answer.out);
    let tasks: Value = serde_json::from_str(&answer.out).expect("one JSON value");
    tasks["capture"]["consistent"].as_bool().expect("it is said").then_some(tasks)
}

/// How many tasks of an answer are in this function.
fn count_in(tasks: &Value, function: &str) -> usize {
    let is_in = |task: &&Value| task["stack"][0]["function"].as_str().is_some_and(|name| name == function);
    tasks["tasks"].as_array().expect("tasks").iter().filter(is_in).count()
}

/// Attaches as often as asked; at least nine answers of ten must be of an image. `check` is called with each of these.
fn attach_to(program: &mut Program, mut check: impl FnMut(&Value)) {
    let wanted = times("DELOUSE_ATTACHES", 20);
    // The first one has the kernel count what was not touched yet.
    let _warm = tasks(program);
    let before = Inventory::of(program);
    let (mut images, mut pauses) = (0, Vec::new());
    for _ in 0..wanted {
        if let Some(answer) = tasks(program) {
            images += 1;
            pauses.push(answer["capture"]["pause_us"].as_u64().expect("a pause"));
            check(&answer);
        }
    }
    assert!(program.is_running());
    assert_eq!(Inventory::of(program), before);
    pauses.sort_unstable();
    let at =
        |percent: usize| pauses.get(pauses.len().saturating_sub(1) * percent / 100).copied().unwrap_or(0);
    println!(
        "{wanted} attaches, {images} images; pause in us: median {}, 99th percentile {}, longest {}",
        at(50),
        at(99),
        at(100)
    );
    assert!(images * 10 >= wanted * 9, "{images} images of {wanted}");
}

#[test]
fn a_server_under_load_is_read_and_answers_each_request() {
    let mut server = Program::start("plain_server");
    let clients = Clients::start(&server, CLIENTS);
    attach_to(&mut server, |tasks| {
        assert_eq!(count_in(tasks, "plain_server::rests"), 20, "{}", tasks["stacktrace"]);
        assert_eq!(count_in(tasks, "plain_server::echoes"), CLIENTS, "{}", tasks["stacktrace"]);
        let of_runtime = tasks["tasks"].as_array().unwrap().iter().filter(|task| task["id"] != 0).count();
        assert_eq!(of_runtime, TASKS_OF_SERVER + CLIENTS, "{}", tasks["stacktrace"]);
    });
    println!("{}", clients.stop());
}

#[test]
fn four_spawners_at_full_speed_are_read() {
    let mut spawners = Program::start("plain_spawners");
    attach_to(&mut spawners, |tasks| {
        assert_eq!(count_in(tasks, "plain_spawners::spawns"), 4, "{}", tasks["stacktrace"]);
        let short = count_in(tasks, "plain_spawners::adds");
        let all = tasks["tasks"].as_array().unwrap().iter().filter(|task| task["id"] != 0).count();
        assert!(short <= 4 * 8 && all <= 4 + 4 * 8, "{short} of {all}: {}", tasks["stacktrace"]);
    });
}

#[test]
fn threads_in_every_kind_of_blocking_call_are_read() {
    let mut kinds = Program::start("thread_kinds");
    let mut first = None;
    attach_to(&mut kinds, |tasks| {
        let mut states: Vec<_> = tasks["tasks"].as_array().unwrap().iter().map(kind_and_state).collect();
        states.sort();
        let expected = first.get_or_insert_with(|| states.clone());
        assert_eq!(states, *expected, "{}", tasks["stacktrace"]);
    });
    assert!(first.is_some_and(|tasks| tasks.len() >= 4));
}

/// The program ends if one of its calls returns that must not, or returns early.
#[test]
fn no_system_call_returns_because_of_an_attach() {
    let mut calls = Program::start("thread_calls");
    attach_to(&mut calls, |tasks| assert_eq!(tasks["total"], 1, "{}", tasks["stacktrace"]));
}

fn kind_and_state(task: &Value) -> [String; 3] {
    [&task["kind"], &task["state"], &task["stack"][0]["function"]].map(Value::to_string)
}

/// Starts the command. Its answer is not read.
fn start_tool(program: &Program) -> Child {
    let mut command = crate::support::command();
    command.args(["tasks", &program.pid()]).stdin(Stdio::null()).stdout(Stdio::null());
    command.stderr(Stdio::null()).spawn().unwrap()
}

/// Moments from the start of a command to a little after its end, in a different order than that of time.
fn moments(program: &Program, count: usize) -> impl Iterator<Item = Duration> + use<> {
    let mut took: Vec<Duration> = (0..5)
        .map(|_| {
            let begun = Instant::now();
            start_tool(program).wait().unwrap();
            begun.elapsed()
        })
        .collect();
    took.sort();
    let usual = took[took.len() / 2];
    // A step by the golden ratio visits all parts of the range evenly.
    (0..count).map(move |number| usual.mul_f64((number as f64 * 0.618_034).fract() * 1.1))
}

/// Waits until `moment` after `begun`, closer than a sleep does.
fn wait_until(begun: Instant, moment: Duration) {
    while begun.elapsed() < moment {
        std::thread::yield_now();
    }
}

/// Whether no thread of it is stopped or traced.
fn is_free(program: &Program) -> bool {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", program.pid())).unwrap();
    tasks.filter_map(Result::ok).all(|task| {
        let status = std::fs::read_to_string(task.path().join("status")).unwrap_or_default();
        !status.contains("State:\tt") && !status.contains("State:\tT") && !has_tracer(&status)
    })
}

fn has_tracer(status: &str) -> bool {
    status.lines().any(|line| line.starts_with("TracerPid:") && !line.ends_with("\t0"))
}

fn signal(tool: &Child, name: &str) {
    let pid = tool.id().to_string();
    // It may have ended; it is not reaped before.
    let _sent = Command::new("kill").args([name, &pid]).stderr(Stdio::null()).status().unwrap();
}

#[test]
fn a_tool_that_is_killed_at_any_moment_leaves_a_server_as_it_was() {
    let mut server = Program::start("plain_server");
    let clients = Clients::start(&server, CLIENTS);
    let _warm = tasks(&server);
    let before = Inventory::of(&server);
    let deaths = times("DELOUSE_ATTACH_DEATHS", 20);
    let mut killed = 0;
    for moment in moments(&server, deaths) {
        let begun = Instant::now();
        let mut tool = start_tool(&server);
        wait_until(begun, moment);
        tool.kill().unwrap();
        killed += usize::from(tool.wait().unwrap().code().is_none());
        assert!(server.is_running(), "killed after {moment:?}");
    }
    // The helper of the last one may still be at work.
    let deadline = Instant::now() + Duration::from_secs(10);
    while !is_free(&server) || !children(&server).is_empty() {
        assert!(Instant::now() < deadline, "children: {:?}", children(&server));
        std::thread::yield_now();
    }
    assert_eq!(Inventory::of(&server), before);
    let answer = crate::support::until(|| tasks(&server));
    assert_eq!(count_in(&answer, "plain_server::echoes"), CLIENTS, "{}", answer["stacktrace"]);
    println!("{killed} of {deaths} commands were killed before their end; {}", clients.stop());
    // On a busy machine, how long a command takes varies by a multiple.
    assert!(killed * 4 >= deaths, "{killed} of {deaths}");
}

#[test]
fn a_tool_that_is_stopped_lets_the_server_continue_within_two_seconds() {
    let mut server = Program::start("plain_server");
    let clients = Clients::start(&server, CLIENTS);
    let _warm = tasks(&server);
    let before = Inventory::of(&server);
    let stops = times("DELOUSE_ATTACH_DEATHS", 20).div_ceil(10);
    let mut longest = Duration::ZERO;
    for moment in moments(&server, stops) {
        let begun = Instant::now();
        let mut tool = start_tool(&server);
        wait_until(begun, moment);
        signal(&tool, "-STOP");
        let stopped = Instant::now();
        while !is_free(&server) {
            assert!(stopped.elapsed() < MOST_STANDSTILL, "stopped after {moment:?}");
            std::thread::yield_now();
        }
        longest = longest.max(stopped.elapsed());
        clients.each_is_answered();
        assert!(stopped.elapsed() < MOST_STANDSTILL, "stopped after {moment:?}: {:?}", stopped.elapsed());
        tool.kill().unwrap();
        tool.wait().unwrap();
    }
    let deadline = Instant::now() + Duration::from_secs(10);
    while !children(&server).is_empty() {
        assert!(Instant::now() < deadline, "children: {:?}", children(&server));
        std::thread::yield_now();
    }
    assert_eq!(Inventory::of(&server), before);
    assert!(server.is_running());
    println!("{stops} commands were stopped; threads were free after {longest:?}; {}", clients.stop());
}
