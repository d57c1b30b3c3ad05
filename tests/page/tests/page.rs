//! The page in headless Chromium, for programs with each kind of fault. What a person does there is in
//! `browser/scenarios.mjs`; with `DELOUSE_SCREENSHOTS=DIRECTORY`, pictures are kept.

mod common;

use std::process::Command;

use common::{chromium, is_possible, page_sources, run, run_script};

/// Runs a scenario with a program.
fn browse(scenario: &str, program: &str) {
    if is_possible(&["node", &chromium()], "playwright-core") {
        println!("{}", run_script("scenarios.mjs", &[scenario, program]));
    }
}

#[test]
fn a_deadlock() {
    browse("deadlock", env!("CARGO_BIN_EXE_page-deadlock"));
}

#[test]
fn a_leak() {
    browse("leak", env!("CARGO_BIN_EXE_page-leak"));
}

#[test]
fn a_blocked_worker() {
    browse("blockedWorker", env!("CARGO_BIN_EXE_page-blocked-worker"));
}

#[test]
fn a_busy_program() {
    browse("busy", env!("CARGO_BIN_EXE_page-busy"));
}

#[test]
fn a_hundred_thousand_tasks() {
    browse("manyTasks", env!("CARGO_BIN_EXE_page-many-tasks"));
}

#[test]
fn more_stacks_than_fit_into_an_answer() {
    browse("manyStacks", env!("CARGO_BIN_EXE_page-many-tasks"));
}

#[test]
fn members_of_a_group_by_page() {
    browse("pages", env!("CARGO_BIN_EXE_page-many-tasks"));
}

#[test]
fn names_stay_text() {
    browse("names", env!("CARGO_BIN_EXE_page-names"));
}

#[test]
fn a_token_is_typed_in() {
    browse("token", env!("CARGO_BIN_EXE_page-deadlock"));
}

#[test]
fn another_origin_gets_nothing() {
    browse("otherOrigin", env!("CARGO_BIN_EXE_page-deadlock"));
}

#[test]
fn a_small_window() {
    browse("small", env!("CARGO_BIN_EXE_page-deadlock"));
}

/// Fails where `dist/` was not built again after a change of the sources.
#[test]
fn the_built_page_is_what_its_sources_make() {
    if is_possible(&["node", "npm"], "esbuild") {
        run(Command::new("npm").args(["run", "--silent", "check"]).current_dir(page_sources()));
    }
}
