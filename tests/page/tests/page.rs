//! The page in headless Chromium, for programs with each kind of fault. What a person does there is in
//! `browser/scenarios.mjs`; with `DELOUSE_SCREENSHOTS=DIRECTORY`, pictures are kept.

use std::path::{Path, PathBuf};
use std::process::Command;

use delouse_tests::{Program, program, skipped};

/// A tool that is needed and is not there.
fn missing() -> Option<String> {
    let runs =
        |tool: &str| Command::new(tool).arg("--version").output().is_ok_and(|out| out.status.success());
    let chromium = std::env::var("CHROMIUM").unwrap_or_else(|_| "/usr/bin/chromium".to_owned());
    if !runs("node") {
        return Some("there is no node".to_owned());
    }
    if !runs(&chromium) {
        return Some("there is no chromium".to_owned());
    }
    let modules = page_sources().join("node_modules/playwright-core");
    (!modules.exists()).then(|| "there is no playwright-core: npm ci in delouse/page".to_owned())
}

fn page_sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../delouse/page")
}

/// Runs a scenario of `browser/scenarios.mjs`; returns what it prints.
fn browse(scenario: &str, program: &Program, argument: &str) -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("browser/scenarios.mjs");
    let url = format!("http://{}/", program.address());
    let output = Command::new("node").arg(script).args([scenario, &url, argument]).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{scenario}: {}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

macro_rules! scenario {
    ($test:ident, $name:literal, $program:literal, $ready:literal) => {
        #[test]
        fn $test() {
            if let Some(missing) = missing() {
                return skipped!("{missing}");
            }
            let program = Program::start(program!($program));
            program.printed($ready);
            browse($name, &program, "");
        }
    };
}

scenario!(a_deadlock, "deadlock", "page-deadlock", "two transfers on their way");
scenario!(a_leak, "leak", "page-leak", "connection 2");
scenario!(a_blocked_worker, "blockedWorker", "page-blocked-worker", "still serving");
scenario!(a_busy_program, "busy", "page-busy", "strokes a second");
scenario!(names_stay_text, "names", "page-names", "ready");
scenario!(another_origin_gets_nothing, "otherOrigin", "page-deadlock", "two transfers on their way");
scenario!(a_small_window, "small", "page-deadlock", "two transfers on their way");

#[test]
fn a_hundred_thousand_tasks() {
    if let Some(missing) = missing() {
        return skipped!("{missing}");
    }
    let mut command = program!("page-many-tasks");
    command.args(["100000", "1000"]);
    let program = Program::start(command);
    program.printed("control ");
    println!("{}", browse("manyTasks", &program, ""));
}

#[test]
fn a_token_is_typed_in() {
    if let Some(missing) = missing() {
        return skipped!("{missing}");
    }
    let mut command = program!("page-deadlock");
    command.env("DELOUSE_TOKEN", "s3cret-of-this-test");
    let program = Program::start(command);
    program.printed("two transfers on their way");
    // The page itself needs no token, its answers do.
    let html = [("accept", "text/html")];
    assert_eq!(program.get_with("/", &html).status, 200);
    assert_eq!(program.get("/").status, 401);
    assert_eq!(program.get_with("/diagnosis", &html).status, 401);
    browse("token", &program, "s3cret-of-this-test");
}

#[test]
fn the_built_page_is_what_its_sources_make() {
    let is_there = |tool: &str| Command::new(tool).arg("--version").output().is_ok();
    if !is_there("node") || !page_sources().join("node_modules/esbuild").exists() {
        return skipped!("there is no node, or no esbuild: npm ci in delouse/page");
    }
    let output =
        Command::new("npm").args(["run", "--silent", "check"]).current_dir(page_sources()).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
}
