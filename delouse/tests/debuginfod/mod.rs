//! `--debuginfod`: debug information from servers, which nothing asks without the option.

use std::fs;
use std::io::Write as _;
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::support::{Answer, Program, delouse, program, serve_paths, until};

/// Runs the command with a cache, and with servers.
fn with_servers(urls: &str, cache: &Path, arguments: &[&str]) -> Answer {
    let mut command = crate::support::command();
    for proxy in ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"] {
        command.env_remove(proxy);
    }
    command.env("DEBUGINFOD_URLS", urls).env("DEBUGINFOD_CACHE_PATH", cache).stdin(Stdio::null());
    Answer::of(command.args(arguments).output().unwrap())
}

/// A server that has one file, and counts its requests.
fn server_of(path: String, file: Vec<u8>) -> (String, Arc<AtomicUsize>) {
    let requests = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&requests);
    let answer = move |requested: &str, mut stream: TcpStream| {
        counted.fetch_add(1, Ordering::SeqCst);
        let (status, body) =
            if requested == path { ("200 OK", file.as_slice()) } else { ("404 Not Found", [].as_slice()) };
        let head =
            format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
        let _closed = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
    };
    (serve_paths(answer), requests)
}

#[test]
fn debug_information_is_fetched_only_when_it_is_asked_for() {
    let directory = tempfile::tempdir().unwrap();
    let (stripped, cache) = (directory.path().join("stripped"), directory.path().join("cache"));
    let full = program("plain_deadlock");
    let strip = Command::new("strip").arg("-o").arg(&stripped).arg(&full).status();
    if !strip.is_ok_and(|status| status.success()) {
        return eprintln!("skipped: there is no strip");
    }
    let elf = delouse(&["elf", stripped.to_str().unwrap(), "--json"]).out;
    let elf: serde_json::Value = serde_json::from_str(&elf).unwrap();
    let id = elf["build_id"].as_str().unwrap();
    let (url, requests) = server_of(format!("/buildid/{id}/debuginfo"), fs::read(&full).unwrap());
    let running = Program::start_command(&mut Command::new(&stripped));
    let asked = || requests.load(Ordering::SeqCst);
    let pid = running.pid();

    with_servers(&url, &cache, &["diagnose", &pid]).fails_with("is stripped");
    assert_eq!((asked(), cache.exists()), (0, false), "nothing was asked");

    with_servers("", &cache, &["diagnose", &pid, "--debuginfod"]).fails_with("the variable DEBUGINFOD_URLS");
    let encrypted = "https://127.0.0.1:1";
    with_servers(encrypted, &cache, &["diagnose", &pid, "--debuginfod"]).fails_with("is not plain http");
    let (other, _) = server_of(String::new(), Vec::new());
    let missing = with_servers(&other, &cache, &["diagnose", &pid, "--debuginfod"]);
    missing.fails_with(&format!("it answers 404 Not Found; `debuginfod-find debuginfo {id}`"));

    let both = format!("{other} {url}/");
    let found = until(|| {
        Some(with_servers(&both, &cache, &["diagnose", &pid, "--debuginfod"]))
            .filter(|found| found.status == 2)
    });
    assert!(found.out.contains("plain_deadlock::debit_first at"), "{}", found.out);
    let fetched = fs::read(cache.join(id).join("debuginfo")).unwrap();
    assert!(fetched == fs::read(&full).unwrap(), "the file is in the cache");
    assert_eq!(asked(), 1, "and is not fetched again");

    // A file of another build is refused, whatever server sends it.
    fs::copy(program("plain_leak"), cache.join(id).join("debuginfo")).unwrap();
    let wrong = with_servers(&url, &cache, &["diagnose", &pid, "--debuginfod"]);
    wrong.fails_with("does not have the debug information of");
    // What has its own debug information needs none.
    let full = Program::start("plain_deadlock");
    let answer = with_servers("", &cache, &["tasks", &full.pid(), "--debuginfod"]);
    assert_eq!(answer.status, 0, "{}", answer.err);
}
