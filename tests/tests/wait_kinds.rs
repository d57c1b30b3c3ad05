//! Every case of `wait_kinds` is listed at the line where it waits, with the wait that it states.
#![cfg(all(feature = "debug", target_os = "linux", target_arch = "x86_64"))]

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use delouse::model::{Frame, Listing, Origin, Task, TaskKind, TaskState, WaitsOn};
use serde_json::Value;

/// The program `wait_kinds`, killed when dropped.
struct WaitKinds {
    process: Child,
    _stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    cases: Vec<Case>,
}

struct Case {
    name: String,
    id: u64,
    file: String,
    line: u32,
    /// Fields of one of its waits.
    resource: Value,
}

impl WaitKinds {
    fn start() -> Self {
        let path =
            std::env::var("WAIT_KINDS").unwrap_or_else(|_| env!("CARGO_BIN_EXE_wait_kinds").to_owned());
        Self::spawn(&mut Command::new(path))
    }

    fn spawn(command: &mut Command) -> Self {
        let mut process =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the program starts");
        let stdin = process.stdin.take().expect("piped");
        let mut stdout = BufReader::new(process.stdout.take().expect("piped"));
        let mut line = String::new();
        stdout.read_line(&mut line).expect("a line");
        let report: Value = serde_json::from_str(&line).expect("JSON");
        let cases = report["cases"].as_array().expect("cases").iter().map(|case| {
            let text = |key: &str| case[key].as_str().expect(key).to_owned();
            Case {
                name: text("name"),
                id: text("id").parse().expect("a number"),
                file: text("file"),
                line: case["line"].as_u64().expect("line") as u32,
                resource: case["resource"].clone(),
            }
        });
        Self { cases: cases.collect(), process, _stdin: stdin, stdout }
    }

    /// The tasks, once all of them wait.
    fn tasks(&self) -> Listing {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let list = delouse::offline::tasks_of_process(self.process.id()).expect("a list of tasks");
            let moves = |task: &Task| matches!(task.state, Some(TaskState::Scheduled | TaskState::Running));
            let async_task = |task: &Task| task.kind != TaskKind::Blocking;
            // A task that was polled while it was read, and waits again, is mentioned in the notes.
            let rests =
                list.notes.is_empty() && !list.tasks.iter().any(|task| moves(task) && async_task(task));
            if rests || Instant::now() > deadline {
                return list;
            }
            std::thread::yield_now();
        }
    }
}

impl Drop for WaitKinds {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Whether one of the user's frames is at that line.
fn is_at_line(frames: &[Frame], file: &str, line: u32) -> bool {
    frames.iter().any(|frame| {
        let here = frame.origin == Origin::User
            && frame.line == Some(line)
            && frame.file.as_ref().is_some_and(|path| path.ends_with(file));
        here || is_at_line(&frame.children, file, line)
    })
}

/// The number of waits of all frames.
fn waits_of(frames: &[Frame]) -> u32 {
    frames.iter().map(|frame| frame.waits + waits_of(&frame.children)).sum()
}

/// Whether `value` has all fields that `expected` has.
fn has(value: &Value, expected: &Value) -> bool {
    match expected.as_object() {
        Some(fields) => fields.iter().all(|(name, expected)| has(&value[name], expected)),
        None => value == expected,
    }
}

fn complaints(program: &WaitKinds, list: &Listing) -> Vec<String> {
    let mut complaints = Vec::new();
    for Case { name, id, file, line, resource } in &program.cases {
        let Some(task) = list.tasks.iter().find(|task| task.id == *id) else {
            complaints.push(format!("{name} (task {id}) is missing"));
            continue;
        };
        if !is_at_line(&task.stack, file, *line) {
            complaints.push(format!("{name} is not at {file}:{line} but at {:#?}", task.stack));
        }
        let is_expected = |waits| has(&serde_json::to_value(waits).expect("JSON"), resource);
        if !task.waits_on.iter().any(is_expected) {
            complaints.push(format!("{name} waits not for {resource} but for {:?}", task.waits_on));
        }
        if waits_of(&task.stack) as usize != task.waits_on.len() {
            complaints.push(format!("{name} has waits that no frame has: {task:#?}"));
        }
        let frames = serde_json::to_string(&task.stack).expect("JSON");
        if ["_env#", "{async_", "$", "{impl"].iter().any(|raw| frames.contains(raw)) {
            complaints.push(format!("{name} has names that are in no source: {frames}"));
        }
        if ["/macros/", "/async_await/"].iter().any(|file| frames.contains(file)) {
            complaints.push(format!("{name} has a line of a macro: {frames}"));
        }
    }
    complaints
}

/// The pairs of `shadowed.rs`: each that is deadlocked is found, and none of the others.
fn complaints_about_guards(program: &WaitKinds) -> Vec<String> {
    let answer = delouse::offline::diagnosis_of_process(program.process.id()).expect("a diagnosis");
    let deadlocks: Vec<&Vec<u64>> = answer
        .findings
        .iter()
        .filter(|finding| finding.kind == delouse::model::FindingKind::Deadlock)
        .map(|finding| &finding.tasks)
        .collect();
    let mut complaints = Vec::new();
    for Case { name, id, .. } in &program.cases {
        let found = deadlocks.iter().any(|tasks| tasks.len() == 2 && tasks.contains(id));
        let named = answer.findings.iter().any(|finding| finding.tasks.contains(id));
        if name.starts_with("shadowed_") && !found {
            complaints.push(format!("the deadlock of {name} (task {id}) was not found"));
        } else if name.starts_with("healthy_") && named {
            complaints.push(format!("{name} (task {id}) waits for a timer only"));
        }
    }
    if !complaints.is_empty() {
        complaints.push(answer.diagnosis);
    }
    complaints
}

#[test]
fn every_case_is_listed_where_it_waits() {
    let program = WaitKinds::start();
    let list = program.tasks();
    let complaints = complaints(&program, &list);
    assert!(
        complaints.is_empty(),
        "{}\n{} of {}",
        complaints.join("\n"),
        complaints.len(),
        program.cases.len()
    );
    let task = |name: &str| {
        let case = program.cases.iter().find(|case| case.name == name).expect("a case of that name");
        list.tasks.iter().find(|task| task.id == case.id).expect("is listed")
    };
    // Branches whose `if` does not hold are neither shown nor waited for.
    let select = task("select_disabled");
    assert_eq!(select.waits_on.len(), 1, "{select:?}");
    assert!(!format!("{:?}", select.stack).contains("leaf"), "{select:?}");
    assert_eq!(task("copies_between_halves").waits_on.len(), 1, "{:?}", task("copies_between_halves"));
    assert_eq!(task("emptied_branches").waits_on.len(), 1, "{:?}", task("emptied_branches"));
    for (name, futures) in [("small_vec_inline", 2), ("small_vec_spilled", 3)] {
        assert_eq!(task(name).waits_on.len(), futures, "{:?}", task(name));
    }
    for name in ["flume_recv", "flume_send"] {
        assert!(task(name).waits_on.iter().all(|waits| waits.address.is_some()), "{:?}", task(name));
    }
    // All waits of these cases: none is missing and none is added.
    for (name, kinds) in [
        ("budget_used_up", "yield"),
        ("copy_about_to_be_woken", "io"),
        ("dyn_bidirectional", "io io"),
        ("dyn_copy_of_bytes", "io"),
        ("dyn_counted", "io"),
        ("dyn_framed", "io"),
        ("dyn_in_enum", "io"),
        ("dyn_in_join", "io notify"),
        ("dyn_in_select", "channel_recv io"),
        ("dyn_in_timeout", "io timer"),
        ("dyn_not_polled", "timer"),
        ("dyn_own_poll", "channel_recv"),
        ("dyn_split", "io"),
        ("dyn_stream", "channel_recv"),
        ("join", "notify notify"),
        ("no_signal", "channel_recv"),
        ("select", "channel_recv notify timer"),
        ("tcp_connect", "io"),
        ("unknown_dyn_in_select", "channel_recv unknown"),
        ("unknown_in_join", "notify unknown"),
        ("unknown_in_select", "channel_recv unknown"),
        ("unknown_in_timeout", "timer unknown"),
        ("wrapped_in_timeout", "notify timer"),
        ("yielded", "yield"),
    ] {
        let kind = |waits: &WaitsOn| serde_json::to_value(waits.kind).expect("a name");
        let task = task(name);
        let mut found: Vec<String> =
            task.waits_on.iter().filter_map(|waits| Some(kind(waits).as_str()?.to_owned())).collect();
        found.sort();
        assert_eq!(found.join(" "), kinds, "{name}: {task:#?}");
    }
    assert_eq!(list.notes, Vec::<String>::new());
    let complaints = complaints_about_guards(&program);
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
    println!("{} cases", program.cases.len());
    assert!(program.cases.len() >= 180, "{} cases", program.cases.len());
}

/// Side by side with `Handle::dump()`, in one run: which of the two shows the user's line of which case.
#[test]
#[cfg(all(tokio_unstable, feature = "taskdump"))]
fn beside_tokios_own_dump() {
    let mut program =
        WaitKinds::spawn(Command::new(env!("CARGO_BIN_EXE_wait_kinds")).env("WAIT_KINDS_DUMP", "1"));
    let list = program.tasks();
    let mut line = String::new();
    program.stdout.read_line(&mut line).expect("a second line");
    let traces: Value = serde_json::from_str(&line).expect("JSON");
    if let Some(why) = traces.as_str() {
        delouse_tests::skipped!("{why}");
        return;
    }
    let (mut ours, mut theirs, mut empty) = (0, 0, 0);
    println!("{:<28} {:<8} {:<8} delouse: waits for", "case", "delouse", "dump");
    for Case { name, id, file, line, .. } in &program.cases {
        let task = list.tasks.iter().find(|task| task.id == *id);
        let here = task.is_some_and(|task| is_at_line(&task.stack, file, *line));
        let trace = traces[id.to_string()].as_str();
        let there = trace.is_some_and(|trace| trace.contains(&format!("{file}:{line}")));
        empty += usize::from(trace.is_some_and(|trace| trace.trim().is_empty()));
        ours += usize::from(here);
        theirs += usize::from(there);
        let seen = |line: bool, listed: bool| match (line, listed) {
            (true, _) => "line",
            (false, true) => "no line",
            (false, false) => "-",
        };
        let waits: Vec<String> = task
            .iter()
            .flat_map(|task| &task.waits_on)
            .map(|waits| serde_json::to_value(waits.kind).expect("a name").as_str().unwrap_or("?").to_owned())
            .collect();
        println!(
            "{name:<28} {:<8} {:<8} {}",
            seen(here, task.is_some()),
            seen(there, trace.is_some()),
            waits.join(", ")
        );
    }
    println!(
        "lines seen: delouse {ours}, dump {theirs} of {}; empty traces of dump: {empty}",
        program.cases.len()
    );
    assert_eq!(ours, program.cases.len());
    assert!(ours >= theirs);
}
