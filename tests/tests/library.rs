//! A Rust library in a program that is not Rust: its tasks are found, by its own debug information.
#![cfg(all(feature = "debug", target_os = "linux", target_arch = "x86_64"))]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use delouse_tests::{PATIENCE, Program};

/// Loads the library that is its argument and calls `start` of it.
const HOST: &str = r#"
#include <dlfcn.h>
#include <stdio.h>
#include <unistd.h>
int main(int argc, char **argv) {
    void *library = dlopen(argv[1], RTLD_NOW);
    void (*start)(void) = library ? (void (*)(void)) dlsym(library, "start") : 0;
    if (!start) { fprintf(stderr, "%s\n", dlerror()); return 1; }
    start();
    for (;;) pause();
}
"#;

fn host(directory: &Path) -> PathBuf {
    let program = directory.join("host");
    let mut compiler = Command::new("cc")
        .args(["-x", "c", "-", "-ldl", "-o"])
        .arg(&program)
        .stdin(Stdio::piped())
        .spawn()
        .expect("a C compiler, which rustc needs as well");
    compiler.stdin.take().expect("piped").write_all(HOST.as_bytes()).expect("a reader");
    assert!(compiler.wait().expect("our child").success());
    program
}

/// `cargo test` builds examples and puts them beside the programs; `cargo test --test library` does not.
fn library() -> PathBuf {
    let programs = Path::new(env!("CARGO_BIN_EXE_wedged")).parent().expect("a directory");
    let library = programs.join("examples/libplugin.so");
    if !library.exists() {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "-q", "-p", "delouse-tests", "--example", "plugin", "--target-dir"]);
        let target = programs.parent().expect("the target directory");
        assert!(cargo.arg(target).status().expect("cargo").success());
    }
    library
}

#[test]
fn a_library_beside_a_rust_program_is_listed() {
    let mut command = delouse_tests::program!("example-heartbeat");
    command.env("LD_PRELOAD", library()).env("PLUGIN_STARTS", "1");
    let program = Program::start(command);
    program.printed("heartbeat 1");
    let begun = Instant::now();
    let mut text = String::new();
    while !text.contains("plugin::fetch at ") {
        assert!(begun.elapsed() < PATIENCE, "{text}");
        text = program.get("/stacktrace/tokio?format=text").body;
    }
    assert!(text.contains("heartbeat::beat at ") && text.contains(" of libplugin.so"), "{text}");
    let diagnosis = program.get("/diagnosis").json();
    let notes = diagnosis["capture"]["notes"].to_string();
    assert!(notes.contains("libplugin.so holds a tokio of its own"), "{diagnosis}");
    assert_eq!(diagnosis["summary"], "nothing wrong found");
}

#[test]
fn the_tasks_of_a_library_are_found() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut command = Command::new(host(directory.path()));
    command.arg(library());
    let program = Program::start(command);
    let begun = Instant::now();
    let mut text = String::new();
    while !text.contains("running on thread") {
        assert!(begun.elapsed() < PATIENCE, "{text}");
        text = program.get("/stacktrace/tokio?format=text").body;
    }
    for part in ["plugin::fetch at ", "plugin.rs:7", "plugin::compute at ", "the main future"] {
        assert!(text.contains(part), "{part} is not in: {text}");
    }
    let elf = program.get("/elf/info").json();
    assert!(elf["path"].as_str().expect("a path").ends_with("libplugin.so"), "{elf}");
    let listing = delouse::offline::tasks_of_process(program.pid()).expect("a list of tasks");
    let text = delouse::offline::text(&listing, false);
    assert!(text.contains("plugin::fetch at "), "{text}");
    let diagnosis = program.get("/diagnosis?format=text").body;
    assert!(diagnosis.starts_with("Blocked worker") || diagnosis.contains("plugin::compute"), "{diagnosis}");
}
