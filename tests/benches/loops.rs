//! What a program pays while no request comes: loops of spawn, yield and channel ping-pong (`tests/loops`),
//! built in each way, and run in turns.
//!
//! ```text
//! cargo bench -p delouse-tests --bench loops
//! ```
//!
//! Each figure is the median of the fastest runs, in nanoseconds for one round, and through that of plain tokio.
#![cfg(target_os = "linux")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

/// How often each program runs.
const TURNS: usize = 7;

/// Name in the table, features of the package `loops`.
const WAYS: [(&str, &str); 4] = [
    ("plain tokio", ""),
    ("delouse", "debug"),
    ("delouse, tokio's task dump compiled in", "taskdump"),
    ("console-subscriber", "console"),
];

fn main() {
    let directory = tempfile::tempdir().unwrap();
    let programs: Vec<PathBuf> = WAYS
        .iter()
        .map(|(name, features)| {
            println!("building: {name}");
            build(features, directory.path())
        })
        .collect();
    let mut times: BTreeMap<(usize, String), Vec<f64>> = BTreeMap::new();
    for _ in 0..TURNS {
        for (way, program) in programs.iter().enumerate() {
            for (name, nanos) in run(program) {
                times.entry((way, name)).or_default().push(nanos);
            }
        }
    }
    println!("\n| | spawn | | yield | | ping-pong | |");
    println!("| --- |{}", " ---: |".repeat(6));
    let mut median = |way: usize, name: &str| {
        let times = times.get_mut(&(way, name.to_owned())).unwrap();
        times.sort_by(f64::total_cmp);
        times[times.len() / 2]
    };
    for (way, (name, _)) in WAYS.iter().enumerate() {
        let figures = ["spawn", "yield", "ping-pong"].map(|of| {
            let (own, plain) = (median(way, of), median(0, of));
            format!("{own:.0} ns | {:.2}", own / plain)
        });
        println!("| {name} | {} |", figures.join(" | "));
    }
}

/// Builds the package with these features only, and keeps the program.
fn build(features: &str, directory: &Path) -> PathBuf {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(workspace).args(["build", "--release", "--quiet", "--package", "loops"]);
    command.args(["--no-default-features", "--features", features, "--message-format", "json"]);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let messages = String::from_utf8(output.stdout).unwrap();
    let built = messages
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter_map(|message| message["executable"].as_str().map(PathBuf::from))
        .next_back();
    let kept = directory.join(format!("loops-{features}"));
    std::fs::copy(built.expect("an executable"), &kept).unwrap();
    kept
}

fn run(program: &Path) -> Vec<(String, f64)> {
    let output = Command::new(program).env("DELOUSE_BIND", "127.0.0.1:0").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = String::from_utf8(output.stdout).unwrap();
    let figure = |line: &str| {
        let (name, nanos) = line.split_once(' ')?;
        Some((name.to_owned(), nanos.parse().ok()?))
    };
    let figures: Vec<_> = lines.lines().filter_map(figure).collect();
    assert_eq!(figures.len(), 3, "{lines}");
    figures
}
