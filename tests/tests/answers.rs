//! What a user reads: the endpoints of healthy programs.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by it")]

use std::process::Command;
use std::time::Instant;

use delouse_tests::{PATIENCE, Program, Response, program};

/// Whether tokio's task dump is in this build.
const TASKDUMP: bool = cfg!(all(tokio_unstable, feature = "taskdump"));

/// The line of the first `needle` in an example's source, as people count.
fn line_of(source: &str, needle: &str) -> usize {
    source.lines().position(|line| line.contains(needle)).expect("is there") + 1
}

macro_rules! example {
    ($name:literal) => {
        (
            Program::start(std::process::Command::new(env!(concat!("CARGO_BIN_EXE_example-", $name)))),
            include_str!(concat!("../../examples/src/bin/", $name, ".rs")),
        )
    };
}

/// The tasks of a healthy program. Its engine refuses while the machine is too busy for its workers to
/// answer in time: then once more, as the answer says.
fn tasks(program: &Program) -> Response {
    let begun = Instant::now();
    loop {
        let response = program.get("/stacktrace/tokio");
        if response.status == 200 {
            return response;
        }
        assert!(response.status == 503 && begun.elapsed() < PATIENCE, "{}", response.body);
    }
}

#[test]
fn heartbeat_shows_its_task_and_line() {
    let (program, source) = example!("heartbeat");
    program.printed("heartbeat 1");
    if !TASKDUMP {
        let response = program.get("/stacktrace/tokio");
        assert_eq!(response.status, 501);
        let message = response.json()["message"].as_str().unwrap().to_owned();
        for setting in
            ["features = [\"taskdump\"]", "[build]\n", "rustflags = [\"--cfg\", \"tokio_unstable\"]"]
        {
            assert!(message.contains(setting), "{message}");
        }
        return;
    }
    let response = tasks(&program);
    let place = format!("examples/src/bin/heartbeat.rs:{}", line_of(source, "sleep("));
    let text = response.stacktrace();
    assert!(text.lines().any(|line| line.contains("heartbeat::beat") && line.contains(&place)), "{text}");
    let json = response.json();
    assert_eq!(json["engine"], "taskdump");
    let tasks = json["tasks"].as_array().unwrap();
    assert_eq!(tasks.len(), 2, "the heart and main, and nothing of delouse's own: {text}");
    assert_eq!((&tasks[0]["kind"], &tasks[0]["id"]), (&"main".into(), &0.into()));
    assert_eq!(tasks[1]["kind"], "task");
    assert!(tasks[1]["id"].as_u64().unwrap() > 0);
    let trace = tasks[1]["trace"].as_str().unwrap();
    assert!(trace.contains('╼') && trace.contains("tokio::time::sleep"), "the raw text is kept: {trace}");
}

#[test]
fn deadlock_shows_both_locks() {
    if !TASKDUMP {
        return;
    }
    // A new program for each try: tokio's dump now and then freezes an idle runtime for good.
    let begun = Instant::now();
    let (text, source) = loop {
        let (program, source) = example!("deadlock");
        program.printed("two transfers on their way");
        let response = program.get("/stacktrace/tokio");
        if response.status == 200 && response.stacktrace().matches("Mutex<T>::acquire at ").count() == 2 {
            break (response.stacktrace(), source);
        }
        assert!(begun.elapsed() < PATIENCE, "{}", response.body);
    };
    for (task, lock) in
        [("debit_first", "bank.credit.lock().await;"), ("credit_first", "bank.debit.lock().await;")]
    {
        // The second of the two locks: each task's first one is the other's second.
        let body = source.find(&format!("async fn {task}")).unwrap();
        let line = source[..body].lines().count() + line_of(&source[body..], lock);
        let place = format!("deadlock::{task} at ");
        let shown = text.lines().find(|l| l.contains(&place)).unwrap_or_else(|| panic!("{text}"));
        assert!(shown.ends_with(&format!("deadlock.rs:{line}")), "{shown}, not line {line}");
    }
}

#[test]
fn leak_is_two_groups() {
    let (program, _) = example!("leak");
    program.printed("connection 2");
    if !TASKDUMP {
        return;
    }
    let text = tasks(&program).stacktrace();
    for half in ["leak::read_half", "leak::write_half"] {
        assert_eq!(text.matches(half).count(), 1, "one group for all connections: {text}");
    }
    assert!(text.lines().filter(|l| l.contains("tasks, runtime 0: ")).count() == 2, "{text}");
}

#[test]
fn a_current_thread_runtime_answers() {
    let (program, _) = example!("current-thread");
    program.printed("tick");
    if !TASKDUMP {
        return;
    }
    let answer = tasks(&program);
    let text = answer.stacktrace();
    assert!(text.contains("current_thread::tick") && text.contains("current_thread::hog"), "{text}");
    assert_eq!(answer.json()["tasks"].as_array().unwrap().len(), 3, "the asking task is left out: {text}");
}

#[test]
fn busy_goes_on() {
    let (mut program, _) = example!("busy");
    program.printed("strokes a second");
    for _ in 0..5 {
        let response = program.get("/stacktrace/tokio");
        assert!([200, 501, 503].contains(&response.status), "{}", response.body);
    }
    // Only that it lives: whether all workers come back from tokio's own dump is for tokio to promise.
    let before = program.stdout().len();
    while program.stdout().len() < before + 2 {
        assert!(program.is_running());
        std::thread::yield_now();
    }
}

#[test]
fn rust_stacktrace_shows_every_thread() {
    let (program, _) = example!("heartbeat");
    program.printed("heartbeat 1");
    let json = program.get("/stacktrace/rust").json();
    let threads = json["threads"].as_array().unwrap();
    let main = threads.iter().find(|t| t["tid"] == program.pid()).unwrap();
    let shown = |thread: &serde_json::Value, function: &str| {
        let frames = thread["frames"].as_array().unwrap();
        frames.iter().any(|f| f["function"].as_str().is_some_and(|name| name.contains(function)))
    };
    if cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        assert!(threads.len() > 3, "main, workers, the server: {json}");
        assert!(shown(main, "example_heartbeat::main"), "{main}");
    }
    assert!(
        threads.iter().all(|t| t["role"] != "delouse" || t["name"].as_str().unwrap().starts_with("delouse"))
    );
    assert!(threads.iter().any(|t| t["role"] == "delouse"), "our own are marked: {json}");
}

#[test]
fn text_or_json_as_asked() {
    let (program, _) = example!("heartbeat");
    for (path, accept, kind) in [
        ("/stacktrace/rust", "*/*", "application/json"),
        ("/stacktrace/rust", "text/plain", "text/plain; charset=utf-8"),
        ("/stacktrace/rust?format=text", "application/json", "text/plain; charset=utf-8"),
        ("/stacktrace/rust?format=json", "text/plain", "application/json"),
        ("/?format=text", "*/*", "text/plain; charset=utf-8"),
    ] {
        let response = program.get_with(path, &[("accept", accept)]);
        assert_eq!(response.header("content-type"), Some(kind), "{path} {accept}");
        assert_eq!(response.header("x-content-type-options"), Some("nosniff"));
        assert_eq!(response.header("cache-control"), Some("no-store"));
    }
    let error = program.get("/stacktrace/rust?format=xml");
    assert_eq!(error.status, 400);
    assert_eq!(error.json()["error_code"], "UnknownFormat");
    assert!(error.json()["message"].as_str().unwrap().contains("use json or text"));
    assert!(error.json()["request_id"].is_string());
    let error = program.get("/stacktrace/rust?fromat=text");
    assert_eq!(error.status, 400);
    assert!(error.json()["message"].as_str().unwrap().contains("unknown field `fromat`"), "{}", error.body);
    let error = program.get("/stacktrace/tokio?engine=magic");
    assert_eq!(error.json()["error_code"], "UnknownEngine");
}

#[test]
fn index_lists_every_endpoint_as_a_command() {
    let (program, _) = example!("heartbeat");
    let text = program.get("/?format=text").body;
    let paths = program.get("/").json()["paths"].as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert!(paths.len() >= 5, "{paths:?}");
    for path in paths {
        let command = format!("'{}{path}?format=text'", program.address());
        assert!(text.contains(&command), "{command} is not in: {text}");
    }
}

#[test]
fn openapi_is_as_reviewed() {
    let (program, _) = example!("heartbeat");
    let mut document = serde_json::to_string_pretty(&program.get("/").json()).unwrap();
    document.push('\n');
    let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/openapi.json");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(golden, &document).unwrap();
    }
    let reviewed = std::fs::read_to_string(golden).unwrap();
    assert!(document == reviewed, "the API changed: review it with UPDATE_GOLDEN=1, then git diff {golden}");
}

#[test]
fn core_dump_opens_in_gdb() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = program!("example-heartbeat");
    command.current_dir(dir.path());
    let mut program = Program::start(command);
    program.printed("heartbeat 1");
    let refused = program.get_with("/coredump", &[("user-agent", "Mozilla/5.0")]);
    assert_eq!((refused.status, refused.header("allow")), (405, Some("POST")));
    assert!(program.is_running());
    let pid = program.pid();
    let answer = program.post("/coredump", &[]);
    assert_eq!(answer.status, 200, "{}", answer.body);
    let status = program.wait();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(6), "SIGABRT");
    let plan = program.complained("core");
    let core = ["core".to_owned(), format!("core.{pid}")].map(|name| dir.path().join(name));
    let Some(core) = core.iter().find(|path| path.exists()) else {
        // A pattern of this machine's that leads elsewhere: then the plan must have said where.
        let pattern = std::fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap();
        assert!(pattern.starts_with('|') || pattern.starts_with('/'), "no core; said: {plan}");
        return;
    };
    let mut gdb = Command::new("gdb");
    gdb.args(["-batch", "-ex", "info threads", env!("CARGO_BIN_EXE_example-heartbeat")]).arg(core);
    let Ok(output) = gdb.output() else {
        println!("skipped: no gdb");
        return;
    };
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("Program terminated with signal SIGABRT"), "{text}");
    assert!(text.lines().filter(|l| l.contains("Thread ") || l.contains("LWP ")).count() >= 4, "{text}");
}
