//! What the command lists of a program equals what delouse's server in that program answers: `tests/from-outside` builds
//! both, and sets `INSIDE` to the program `wait_kinds` with the server in it, and `OUTSIDE` to the command.
#![cfg(all(feature = "debug", target_os = "linux", target_arch = "x86_64"))]

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::process::{Command, Stdio};
use std::time::Instant;

use delouse_tests::{PATIENCE, Program};
use serde_json::Value;

/// How many tasks `wait_kinds` has at least.
const TASKS: usize = 180;

/// Both programs, if the environment names them.
fn programs() -> Option<[OsString; 2]> {
    let program = |name| std::env::var_os(name);
    Some([program("INSIDE")?, program("OUTSIDE")?])
}

/// The tasks of an answer by kind, id and first function, without what changes from one moment to the next.
fn tasks(answer: &Value) -> BTreeMap<String, Value> {
    let list = answer["tasks"].as_array().expect("tasks");
    // From outside, the server's own task is one of the program's.
    let is_own = |task: &&Value| task.to_string().contains("\"carries\":\"delouse::");
    let entries = list.iter().filter(|task| !is_own(task)).map(|task| {
        let key = format!("{} {} {}", task["kind"], task["id"], task["stack"][0]["function"]);
        (key, steady(task))
    });
    entries.collect()
}

/// A task without times: how long it waits, which only a server knows, and how long until a timer fires. Where the main future
/// was found is left out, too: it tells the server itself. And the state of main futures: the server does not know it.
fn steady(task: &Value) -> Value {
    let mut task = task.clone();
    let fields = task.as_object_mut().expect("a task");
    fields.retain(|name, _| !matches!(name.as_str(), "waiting" | "found_in"));
    if fields["kind"] == "main" {
        fields.remove("state");
    }
    for wait in fields["waits_on"].as_array_mut().expect("waits") {
        wait.as_object_mut().expect("a wait").remove("in_ms");
    }
    task
}

/// What differs, in a line for each task.
fn differences(inside: &BTreeMap<String, Value>, outside: &BTreeMap<String, Value>) -> Vec<String> {
    let mut lines = Vec::new();
    for (key, task) in inside {
        match outside.get(key) {
            None => lines.push(format!("{key} is missing from outside: {task}")),
            Some(other) => lines.extend(fields_that_differ(key, task, other)),
        }
    }
    let more = outside.iter().filter(|(key, _)| !inside.contains_key(*key));
    lines.extend(more.map(|(key, task)| format!("{key} is seen from outside only: {task}")));
    lines
}

fn fields_that_differ(key: &str, inside: &Value, outside: &Value) -> Vec<String> {
    let names = |task: &Value| task.as_object().expect("a task").keys().cloned().collect::<Vec<_>>();
    let mut names = [names(inside), names(outside)].concat();
    names.sort();
    names.dedup();
    let differs = |name: &String| inside[name.as_str()] != outside[name.as_str()];
    let line = |name: String| {
        let (inside, outside) = (&inside[name.as_str()], &outside[name.as_str()]);
        format!("{key}: {name}\n    inside  {inside}\n    outside {outside}")
    };
    names.into_iter().filter(differs).map(line).collect()
}

fn from_outside(command: &OsString, program: &Program) -> Value {
    let output = Command::new(command).args(["tasks", "--json"]).arg(program.pid().to_string()).output();
    let output = output.expect("the command");
    let answer = serde_json::from_slice(&output.stdout);
    answer.unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)))
}

#[test]
fn the_command_lists_what_the_server_lists() {
    let Some([inside, outside]) = programs() else {
        return delouse_tests::skipped!("tests/from-outside builds the programs that it compares");
    };
    for runtime in ["multi_thread", "current_thread", "local_set"] {
        let mut command = Command::new(&inside);
        command.args(Some(runtime).filter(|runtime| *runtime != "multi_thread"));
        let program = Program::start_reading(command, Stdio::piped());
        program.printed("\"cases\"");
        let begun = Instant::now();
        // Some tasks have only just begun to wait.
        let (tasks, differences) = loop {
            let inside = tasks(&program.get("/stacktrace/tokio").json());
            let answer = from_outside(&outside, &program);
            let outside = tasks(&answer);
            let differences = differences(&inside, &outside);
            let is_image = answer["capture"]["consistent"] == true;
            if differences.is_empty() && is_image || begun.elapsed() > PATIENCE {
                break (inside.len(), differences);
            }
        };
        assert!(differences.is_empty(), "{runtime}:\n{}", differences.join("\n"));
        assert!(tasks >= TASKS, "{runtime}: {tasks} tasks");
        println!("equal: {tasks} tasks on {runtime}");
    }
}
