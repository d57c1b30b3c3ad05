//! `delouse serve`, as a user runs it: requests as `curl` sends them, for a process and for a core file.

use std::fs;
use std::io::Write as _;
use std::net::TcpListener;
use std::process::{Command, Stdio};

use serde_json::Value;

use super::support::{Program, Served, delouse, program, until};

/// Waits until the diagnosis of the program that was just started has a finding.
fn until_deadlock(served: &Served) -> String {
    until(|| Some(served.get("/diagnosis?format=text").text).filter(|text| text.contains("eadlock: task ")))
}

#[test]
fn a_process_is_served_as_by_its_own_server() {
    let deadlock = Program::start("plain_deadlock");
    let served = Served::start(&[&deadlock.pid()]);
    assert!(served.subject.contains(&format!("process {}", deadlock.pid())), "{}", served.subject);
    let text = until_deadlock(&served);
    assert!(text.contains("plain_deadlock::credit_first at"), "{text}");
    let json: Value = serde_json::from_str(&served.get("/diagnosis").text).unwrap();
    assert_eq!(json["findings"][0]["kind"], "deadlock", "{json}");
    assert_eq!(json["capture"]["consistent"], true, "{json}");
    // The counts of an earlier answer are kept.
    let since = served.get(&format!("/diagnosis?since={}", json["id"].as_str().unwrap()));
    assert_eq!(since.status, 200, "{}", since.text);

    let tasks = served.get("/stacktrace/tokio?format=text&match=credit_first").text;
    assert!(tasks.starts_with("1 of ") && tasks.contains("→ mutex 0x"), "{tasks}");
    let threads = served.get("/stacktrace/rust?format=text").text;
    assert!(threads.contains("→ plain_deadlock::main at"), "{threads}");
    let json: delouse::model::ThreadsAnswer =
        serde_json::from_str(&served.get("/stacktrace/rust").text).unwrap();
    assert!(json.threads.len() > 1);
    let waits = served.get("/waits?format=text").text;
    assert!(waits.contains("<- the circle closes here"), "{waits}");
    assert!(served.get("/waits?format=dot").text.starts_with("digraph"));
    let elf: Value = serde_json::from_str(&served.get("/elf/info").text).unwrap();
    assert!(elf["build_id"].is_string(), "{elf}");
    let index = served.get("/?format=text").text;
    let about = format!("delouse: what every task and every thread of process {} is doing", deadlock.pid());
    assert!(index.starts_with(&about) && index.contains("/diagnosis"), "{index}");
    // A browser gets the page.
    let page = served.request("GET", "/", &[("Accept", "text/html")]);
    assert!(page.status == 200 && page.text.contains("<html"), "{}", page.text);

    // The command reads it as any other server.
    let answer = delouse(&["diagnose", &served.url]);
    assert_eq!((answer.status, answer.err.as_str()), (2, ""), "{}", answer.out);

    let unharmed = fs::read_to_string(format!("/proc/{0}/task/{0}/status", deadlock.pid())).unwrap();
    assert!(unharmed.contains("TracerPid:\t0\n"), "{unharmed}");
    assert_eq!(served.stop(), 0);
    until(|| children(&deadlock.pid()).is_empty().then_some(()));
}

/// The children of a process.
fn children(pid: &str) -> String {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
    tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok()).collect()
}

#[test]
fn what_only_the_program_itself_can_do_is_refused_in_one_sentence() {
    let deadlock = Program::start("plain_deadlock");
    let served = Served::start(&[&deadlock.pid()]);
    let refused = |method: &str, path: &str, sentence: &str| {
        let answer = served.request(method, path, &[]);
        assert_eq!(answer.status, 501, "{}", answer.text);
        assert!(answer.text.contains(sentence), "{}", answer.text);
        assert_eq!(answer.text.lines().count(), 1, "{}", answer.text);
    };
    refused("POST", "/coredump?format=text", &format!("kill -ABRT {}", deadlock.pid()));
    refused("GET", "/coredump?format=text", "is not ended by this server");
    refused("POST", "/huge-pages?format=text", "its memory is not changed");
    refused("GET", "/stacktrace/tokio?format=text&engine=taskdump", "leave out engine=taskdump");
    until_deadlock(&served);
}

#[test]
fn the_access_rules_are_those_of_the_programs_own_server() {
    let healthy = Program::start("plain_healthy");
    let served = Served::start(&[&healthy.pid()]);
    assert_eq!(served.request("GET", "/waits", &[("Host", "example.com")]).status, 403);
    let origin = served.request("GET", "/waits", &[("Origin", "http://example.com")]);
    assert_eq!(origin.status, 403, "{}", origin.text);
    assert_eq!(served.get("/waits").status, 200);

    let secret = Served::start_with(&[&healthy.pid()], &[("DELOUSE_TOKEN", "s3cret")]);
    let answer = secret.get("/waits?format=text");
    assert_eq!(answer.status, 401, "{}", answer.text);
    assert_eq!(secret.request("GET", "/waits", &[("Authorization", "Bearer s3cret")]).status, 200);
    delouse(&["serve", &healthy.pid(), "--bind", "0.0.0.0:0"]).fails_with("there is no token");
}

#[test]
fn the_end_of_the_process_is_in_the_answers() {
    let deadlock = Program::start("plain_deadlock");
    let served = Served::start(&[&deadlock.pid()]);
    let pid = deadlock.pid();
    until_deadlock(&served);
    drop(deadlock);
    for path in ["/diagnosis", "/stacktrace/tokio", "/stacktrace/rust", "/waits", "/elf/info"] {
        let answer = served.get(&format!("{path}?format=text"));
        assert_eq!(answer.status, 410, "{path}: {}", answer.text);
        assert!(answer.text.contains(&format!("process {pid}")), "{path}: {}", answer.text);
        assert!(answer.text.contains("has ended"), "{path}: {}", answer.text);
    }
    assert_eq!(served.stop(), 0);
}

#[test]
fn another_program_in_the_same_process_is_not_taken_for_the_first_one() {
    let mut shell = Command::new("/bin/sh");
    // The same program again, so that neither its id, its start nor its file differ.
    shell.args(["-c", "read line; exec /bin/sh -c 'read line'"]).stdin(Stdio::piped());
    let mut shell = shell.spawn().unwrap();
    let pid = shell.id().to_string();
    let served = Served::start(&[&pid]);
    assert_eq!(served.get("/stacktrace/rust").status, 200);
    let arguments = || fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap();
    let first = arguments();
    writeln!(shell.stdin.as_mut().unwrap()).unwrap();
    until(|| (arguments() != first).then_some(()));
    let answer = served.get("/stacktrace/rust?format=text");
    assert_eq!(answer.status, 410, "{}", answer.text);
    assert!(answer.text.contains(&format!("process {pid} has ended the program")), "{}", answer.text);
    shell.kill().unwrap();
    shell.wait().unwrap();
}

#[test]
fn a_core_file_is_served() {
    if Command::new("gcore").arg("-h").output().is_err() {
        return eprintln!("skipped: there is no gcore");
    }
    let directory = tempfile::tempdir().unwrap();
    let deadlock = Program::start("plain_deadlock");
    until(|| (delouse(&["diagnose", &deadlock.pid()]).status == 2).then_some(()));
    let prefix = directory.path().join("core");
    let gcore = Command::new("gcore").arg("-o").arg(&prefix).arg(deadlock.pid()).output().unwrap();
    assert!(gcore.status.success(), "{gcore:?}");
    let core = format!("{}.{}", prefix.display(), deadlock.pid());
    drop(deadlock);

    let served = Served::start(&[program("plain_deadlock").to_str().unwrap(), &core]);
    assert!(served.subject.contains("the core file"), "{}", served.subject);
    // Growth is not waited for: a core file does not grow.
    let text = served.get("/diagnosis?format=text&seconds=60").text;
    assert!(text.contains("eadlock: task ") && text.contains("a single sample"), "{text}");
    let tasks = served.get("/stacktrace/tokio?format=text").text;
    assert!(tasks.contains("plain_deadlock::main::{async block}"), "{tasks}");
    let ended = served.request("POST", "/coredump?format=text", &[]);
    assert!(ended.status == 501 && ended.text.contains("its program has ended"), "{}", ended.text);
    assert_eq!(served.stop(), 0);
}

#[test]
fn a_port_in_use_is_replaced_and_bad_targets_are_refused() {
    let healthy = Program::start("plain_healthy");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let served = Served::start(&[&healthy.pid(), "--bind", &address]);
    assert!(!served.url.ends_with(&address), "{}", served.url);
    assert_eq!(served.get("/waits").status, 200);

    delouse(&["serve"]).fails_with("name a process or a core file");
    delouse(&["serve", &served.url]).fails_with("the address of a server already");
    delouse(&["serve", "999999999"]).fails_with("there is no process");
    delouse(&["serve", &healthy.pid(), "--bind", "nonsense"]).fails_with("is not an address");
}
