//! What a user reads: the endpoints of healthy programs.

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

/// The tasks by tokio's own dump, which refuses while the machine is too busy for the workers to answer in
/// time: then once more, as the answer says.
fn dumped(program: &Program) -> Response {
    let begun = Instant::now();
    loop {
        let response = program.get("/stacktrace/tokio?engine=taskdump");
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
    let response = program.get("/stacktrace/tokio");
    let place = format!("examples/src/bin/heartbeat.rs:{}", line_of(source, "sleep("));
    let text = response.stacktrace();
    assert!(text.lines().any(|line| line.contains("heartbeat::beat") && line.contains(&place)), "{text}");
    let json = response.json();
    assert_eq!(json["engine"], "memory");
    assert_eq!(json["capture"]["consistent"], true);
    let tasks = json["tasks"].as_array().unwrap();
    assert_eq!(tasks.len(), 2, "the heart and main, and nothing of delouse's own: {text}");
    let (main, heart) = (&tasks[0], &tasks[1]);
    assert_eq!((main["kind"].as_str(), main["id"].as_u64()), (Some("main"), Some(0)));
    assert_eq!((heart["kind"].as_str(), heart["state"].as_str()), (Some("task"), Some("idle")));
    assert_eq!(heart["waits_on"][0]["kind"], "timer");
    assert_eq!(main["waits_on"][0]["kind"], "join");
    assert_eq!(main["waits_on"][0]["task"], heart["id"]);
    assert_eq!(heart["spawned_at"].is_string(), cfg!(tokio_unstable), "{heart}");
}

#[test]
fn tokios_own_dump_when_asked_for() {
    let (program, source) = example!("heartbeat");
    program.printed("heartbeat 1");
    if !TASKDUMP {
        let response = program.get("/stacktrace/tokio?engine=taskdump");
        assert_eq!(response.status, 501);
        let message = response.json()["message"].as_str().unwrap().to_owned();
        for setting in
            ["features = [\"taskdump\"]", "[build]\n", "rustflags = [\"--cfg\", \"tokio_unstable\"]"]
        {
            assert!(message.contains(setting), "{message}");
        }
        return;
    }
    let json = dumped(&program).json();
    let task = json["tasks"].as_array().unwrap().iter().find(|task| task["kind"] == "task").unwrap();
    let trace = task["trace"].as_str().unwrap();
    let place = format!("examples/src/bin/heartbeat.rs:{}", line_of(source, "sleep("));
    assert!(trace.contains('╼') && trace.contains(&place), "the raw text is kept: {trace}");
    assert_eq!(json["engine"], "taskdump");
}

#[test]
fn deadlock_shows_both_locks() {
    let (program, source) = example!("deadlock");
    program.printed("two transfers on their way");
    let text = loop {
        let text = program.get("/stacktrace/tokio").stacktrace();
        if text.matches("→ mutex").count() == 2 {
            break text;
        }
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
    let text = program.get("/stacktrace/tokio").stacktrace();
    for half in ["leak::read_half at ", "leak::write_half at "] {
        assert_eq!(text.matches(half).count(), 1, "one group for all connections: {text}");
    }
    assert_eq!(text.lines().filter(|line| line.contains("tasks, runtime multi_thread")).count(), 2, "{text}");
}

#[test]
fn a_current_thread_runtime_answers() {
    let (program, _) = example!("current-thread");
    program.printed("tick");
    let text = program.get("/stacktrace/tokio").stacktrace();
    assert!(text.contains("current_thread::tick") && text.contains("current_thread::hog"), "{text}");
    if TASKDUMP {
        let answer = dumped(&program);
        assert_eq!(
            answer.json()["tasks"].as_array().unwrap().len(),
            3,
            "the asking task is left out: {text}"
        );
    }
}

#[test]
fn busy_goes_on() {
    let (mut program, _) = example!("busy");
    program.printed("strokes a second");
    for _ in 0..5 {
        let response = program.get("/stacktrace/tokio");
        assert_eq!(response.status, 200, "{}", response.body);
        assert!(response.json()["tasks"].as_array().unwrap().len() > 30, "{}", response.body);
    }
    let before = program.stdout().len();
    while program.stdout().len() < before + 2 {
        assert!(program.is_running());
        std::thread::yield_now();
    }
    let last = program.stdout().last().cloned().unwrap();
    assert!(!last.starts_with("0 strokes"), "{last}");
}

#[test]
fn every_thread_is_shown() {
    // The directory of compilation decides how paths are written, not the directory in which the program runs; both answers agree.
    let mut command = program!("example-blocked-worker");
    command.current_dir("/");
    let program = Program::start(command);
    let source = include_str!("../../examples/src/bin/blocked-worker.rs");
    program.printed("still serving");
    let response = program.get("/stacktrace/rust");
    let threads = response.json()["threads"].as_array().unwrap().len();
    assert!(threads >= 6, "main, two workers, the holder, delouse's own: {threads}");
    let text = response.stacktrace();
    // Worst first, the program's own line marked.
    let place = format!("examples/src/bin/blocked-worker.rs:{}", line_of(source, "ledger.lock()"));
    let marked = text.lines().find(|line| line.contains('→')).unwrap();
    assert!(marked.contains("blocked_worker::book") && marked.ends_with(&place), "{text}");
    assert!(text.contains("waiting for a lock on a tokio worker"), "{text}");
    assert!(text.contains("of delouse itself") && !text.contains("delouse-"), "{text}");
    let full = program.get("/stacktrace/rust?full=true&consistent=true");
    assert!(full.stacktrace().contains("delouse-server"), "{}", full.body);
    let tasks = program.get("/stacktrace/tokio");
    for text in [&text, &tasks.stacktrace()] {
        let named = |how: &str| text.matches(&format!("{how}blocked-worker.rs:")).count();
        assert!(named("") > 0 && named(" at tests/../examples/src/bin/") == named(""), "{text}");
    }
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
    assert!(error.json()["message"].as_str().unwrap().contains("use json, text"), "{}", error.body);
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
        let options = match path.as_str() {
            "/core" => "'",
            "/metrics" | "/debug/pprof" => " ",
            profile if profile.starts_with("/debug/pprof/") => "?debug=1'",
            _ => "?format=text'",
        };
        let command = format!("{}{path}{options}", program.address());
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

/// A refusal says which requests are valid instead, as JSON or as text, like every other answer.
#[test]
fn errors_have_the_format_that_was_asked_for() {
    let (program, _) = example!("heartbeat");
    let cases = [
        ("GET", "/stacktrace/tokyo", 404, "NoSuchPath", "/stacktrace/tokio"),
        ("GET", "/nothing/at/all", 404, "NoSuchPath", "/diagnosis"),
        ("DELETE", "/waits", 405, "MethodNotAllowed", "use GET"),
        ("GET", "/huge-pages", 405, "MethodNotAllowed", "use POST"),
        ("PUT", "/", 405, "MethodNotAllowed", "use GET"),
        ("GET", "/waits?fromat=x", 400, "BadQuery", "format"),
        ("GET", "/stacktrace/tokio?full=perhaps", 400, "BadQuery", "engine"),
        ("GET", "/diagnosis?seconds=0", 400, "BadGrowth", "1 to 60"),
        ("GET", "/stacktrace/tokio?state=asleep", 400, "BadFilter", "idle"),
        ("GET", "/stacktrace/tokio?engine=none", 400, "UnknownEngine", "taskdump"),
        ("GET", "/diagnosis?since=never", 404, "UnknownCapture", "seconds=10"),
    ];
    for (method, path, status, code, advice) in cases {
        let answer = delouse_tests::request(method, program.address(), path, &[]);
        let json = answer.json();
        assert_eq!((answer.status, json["error_code"].as_str()), (status, Some(code)), "{path}: {json}");
        let message = json["message"].as_str().expect("a message");
        assert!(message.contains(advice), "{path}: {message}");
        assert!(json["request_id"].is_string(), "{path}: {json}");

        let question = if path.contains('?') { "&" } else { "?" };
        let by_parameter = format!("{path}{question}format=text");
        let accepted = [("accept", "text/plain")];
        let texts = [
            delouse_tests::request(method, program.address(), &by_parameter, &[]),
            delouse_tests::request(method, program.address(), path, &accepted),
        ];
        for text in texts {
            assert_eq!(text.status, status, "{path}: {}", text.body);
            assert_eq!(text.header("content-type"), Some("text/plain; charset=utf-8"), "{path}");
            assert_eq!(text.body, format!("{message}\n"), "{path}");
        }
    }
    let answer = delouse_tests::request("DELETE", program.address(), "/core", &[]);
    assert_eq!(answer.header("allow"), Some("GET, HEAD"));
    let refused = program.get_with("/waits?format=text", &[("origin", "http://evil.example")]);
    assert_eq!((refused.status, refused.header("content-type")), (403, Some("text/plain; charset=utf-8")));
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
        // The core pattern of this machine may lead elsewhere: then the plan must have said where.
        let pattern = std::fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap();
        assert!(pattern.starts_with('|') || pattern.starts_with('/'), "no core; said: {plan}");
        return;
    };
    let mut gdb = Command::new("gdb");
    gdb.args(["-batch", "-ex", "info threads", env!("CARGO_BIN_EXE_example-heartbeat")]).arg(core);
    let Ok(output) = gdb.output() else {
        delouse_tests::skipped!("no gdb");
        return;
    };
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("Program terminated with signal SIGABRT"), "{text}");
    assert!(text.lines().filter(|l| l.contains("Thread ") || l.contains("LWP ")).count() >= 4, "{text}");
}

#[test]
fn filters_leave_the_tasks_that_were_asked_for() {
    let (program, _) = example!("leak");
    program.printed("connection 2");
    let all = program.get("/stacktrace/tokio").json();
    let there = all["tasks"].as_array().unwrap();
    assert_eq!(all["total"], there.len());
    let reader = there.iter().find(|task| task["stack"].to_string().contains("read_half")).unwrap();
    let (id, address) = (&reader["id"], reader["waits_on"][0]["address"].as_str().unwrap());

    let ids = |query: &str| -> Vec<u64> {
        let tasks = program.get(&format!("/stacktrace/tokio?{query}")).json()["tasks"].clone();
        tasks.as_array().unwrap().iter().map(|task| task["id"].as_u64().unwrap()).collect()
    };
    let id = id.as_u64().unwrap();
    assert_eq!(ids(&format!("task={id}")), [id]);
    assert_eq!(ids(&format!("task=0,{id}")), [0, id]);
    assert_eq!(ids("kind=main"), [0]);
    assert_eq!(ids(&format!("match={}", address.to_uppercase())), [id], "{address}");
    assert_eq!(ids(&format!("match=read_half&state=idle&kind=task&task={id}")), [id]);
    assert!(ids("match=Leak::Read_Half").contains(&id));
    assert!(ids("state=complete").is_empty());

    let text = program.get(&format!("/stacktrace/tokio?format=text&match=read_half&task={id}")).body;
    let first = text.lines().next().unwrap();
    assert!(
        first.starts_with("1 of ") && first.ends_with(&format!("match task={id} match=read_half")),
        "{text}"
    );
    assert!(text.contains("leak::read_half") && !text.contains("leak::write_half"), "{text}");

    for (query, allowed) in [
        ("state=asleep", "use idle, scheduled, running or complete"),
        ("kind=os", "use task, main, local or blocking"),
        ("task=four", "write a number"),
        ("match=", "write a part of a function's name"),
    ] {
        let error = program.get(&format!("/stacktrace/tokio?{query}"));
        assert_eq!((error.status, error.json()["error_code"].as_str()), (400, Some("BadFilter")), "{query}");
        assert!(error.json()["message"].as_str().unwrap().contains(allowed), "{}", error.body);
    }
}

/// What the first leaf of the task in that function waits for.
fn waits_of(answer: &Response, function: &str) -> serde_json::Value {
    let json = answer.json();
    let tasks = json["tasks"].as_array().unwrap();
    let task = tasks.iter().find(|task| task["stack"].to_string().contains(function)).unwrap();
    task["waits_on"][0].clone()
}

#[test]
fn sockets_are_shown_with_direction_addresses_state_and_queues() {
    let program = Program::start(program!("sockets"));
    let addresses = program.printed("server ");
    let [_, server, _, client, _, udp] = addresses.split(' ').collect::<Vec<_>>()[..] else { panic!() };
    program.printed("ready");
    // Writers are polled several times until the kernel takes no more.
    let begun = Instant::now();
    let is_full = |answer: &Response, function: &str| {
        let io = &waits_of(answer, function)["io"];
        io["direction"] == "write" && io["send_queue"].as_u64() > Some(0)
    };
    let answer = loop {
        let answer = program.get("/stacktrace/tokio");
        if is_full(&answer, "sockets::fills") && is_full(&answer, "sockets::answers_after_the_end") {
            break answer;
        }
        assert!(begun.elapsed() < PATIENCE, "{}", answer.stacktrace());
    };
    for (function, direction, file, local, peer, connection) in [
        ("sockets::accepts", "read", "tcp listener", Some(server), None, None),
        ("sockets::serves", "read", "tcp", Some(server), Some(client), Some("accepted")),
        ("sockets::asks", "read", "tcp", Some(client), Some(server), Some("connected")),
        ("sockets::listens", "read", "udp", Some(udp), None, None),
        ("sockets::talks", "read", "unix", None, None, None),
        ("sockets::pipes", "read", "pipe", None, None, None),
    ] {
        let waits = waits_of(&answer, function);
        let io = |field: &str| waits["io"][field].as_str();
        assert_eq!((waits["kind"].as_str(), io("file")), (Some("io"), Some(file)), "{waits}");
        assert_eq!((io("local"), io("peer")), (local, peer), "{waits}");
        assert_eq!((io("direction"), io("connection")), (Some(direction), connection), "{waits}");
    }
    let of = |function: &str| {
        let waits = waits_of(&answer, function);
        let (state, queue) = (waits["io"]["state"].clone(), waits["io"]["send_queue"].to_string());
        (waits["fd"].to_string(), state, queue, waits["io"]["peer"].as_str().unwrap_or("").to_owned())
    };
    let (fd, state, ..) = of("sockets::serves");
    assert_eq!(state, "ESTABLISHED");
    let mut lines = vec![format!("→ to read from tcp {server} ← {client} (fd {fd}, ESTABLISHED)")];
    let (fd, ..) = of("sockets::asks");
    lines.push(format!("→ to read from tcp {client} → {server} (fd {fd}, ESTABLISHED)"));
    let (fd, ..) = of("sockets::accepts");
    lines.push(format!("→ for a connection at tcp listener {server} (fd {fd})"));
    let (fd, state, queue, peer) = of("sockets::answers_after_the_end");
    assert_eq!(state, "CLOSE_WAIT");
    lines.push(format!(
        "→ to write to tcp {server} ← {peer} (fd {fd}, CLOSE_WAIT: the other end has closed its side, {queue} bytes \
         that the other end has not taken)"
    ));
    for line in lines {
        assert!(answer.stacktrace().contains(&line), "{line} is not in: {}", answer.stacktrace());
    }
    for (text, tasks) in [(client, 2), ("CLOSE_WAIT", 1)] {
        let found = program.get(&format!("/stacktrace/tokio?match={text}")).json();
        assert_eq!(found["tasks"].as_array().unwrap().len(), tasks, "{found}");
    }
}

#[test]
fn a_running_task_is_told_with_its_thread_and_what_it_does_there() {
    let (program, source) = example!("blocked-worker");
    program.printed("still serving");
    let answer = program.get("/stacktrace/tokio");
    let json = answer.json();
    let running: Vec<_> =
        json["tasks"].as_array().unwrap().iter().filter(|task| task["state"] == "running").collect();
    let [task] = running[..] else { panic!("{}", answer.body) };
    let tid = task["thread"].as_i64().unwrap();
    let name = std::fs::read_to_string(format!("/proc/{}/task/{tid}/comm", program.pid())).unwrap();
    let text = answer.stacktrace();
    let heading = format!("running on thread {tid} ({})", name.trim());
    assert!(text.contains(&heading), "{heading}: {text}");
    let now = text.lines().skip_while(|line| !line.contains("now, innermost first")).take(3);
    let now = now.collect::<Vec<_>>().join("\n");
    let place = format!("examples/src/bin/blocked-worker.rs:{}", line_of(source, "ledger.lock()"));
    assert!(now.contains("Mutex<T>::lock") && now.contains(&place), "{text}");
    assert_eq!(json["threads"][0]["tid"], tid);
    assert_eq!(json["threads"][0]["runs_task"], task["id"]);

    // What is known by now is reported for threads, too.
    let threads = program.get("/stacktrace/rust");
    let json = threads.json();
    for thread in json["threads"].as_array().unwrap() {
        let expected = if thread["tid"] == tid { &task["id"] } else { &serde_json::Value::Null };
        assert_eq!(&thread["runs_task"], expected, "{thread}");
    }
    assert!(threads.stacktrace().contains(&format!("polls task {}", task["id"])), "{}", threads.body);
}

#[test]
fn threads_tell_their_tasks_before_anybody_has_asked_for_tasks() {
    let (program, _) = example!("blocked-worker");
    program.printed("still serving");
    let begun = Instant::now();
    while !program.get("/stacktrace/rust").stacktrace().contains("polls task ") {
        assert!(begun.elapsed() < PATIENCE);
    }
}

/// As `flamegraph.pl` does, of which inferno is a port.
#[test]
fn flame_graphs_are_drawn_of_tasks_and_threads() {
    let (program, _) = example!("heartbeat");
    program.printed("heartbeat 1");
    for (path, function) in
        [("/stacktrace/tokio", "heartbeat::beat"), ("/stacktrace/rust", "heartbeat::main")]
    {
        let folded = program.get(&format!("{path}?format=folded")).body;
        let (mut picture, mut options) = (Vec::new(), inferno::flamegraph::Options::default());
        inferno::flamegraph::from_lines(&mut options, folded.lines(), &mut picture).unwrap();
        let picture = String::from_utf8(picture).unwrap();
        assert!(picture.contains("<svg") && picture.contains(&format!("{function} (")), "{picture}");
    }
}
