//! The field's own tools with the server's answers: Go's pprof, speedscope, promtool, Prometheus. What they are asked is in
//! `browser/tools.mjs`.

mod common;

use common::{is_possible, run_script};

fn ask(tool: &str, tools: &[&str], module: &str) {
    if is_possible(tools, module) {
        println!("{}", run_script("tools.mjs", &[tool, env!("CARGO_BIN_EXE_page-deadlock")]));
    }
}

#[test]
fn go_pprof_reads_tasks_and_threads() {
    ask("pprof", &["node", "go"], "playwright-core");
}

#[test]
fn speedscope_shows_tasks() {
    ask("speedscope", &["node", &common::chromium()], "speedscope");
}

#[test]
fn prometheus_scrapes_with_a_token_and_an_alert_fires() {
    ask("prometheus", &["node", "prometheus", "promtool"], "playwright-core");
}
