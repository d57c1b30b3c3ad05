//! What a program pays while no request comes: loops of spawn, yield and channel ping-pong (`tests/loops`),
//! built in each way, and run in turns.
//!
//! ```text
//! cargo bench -p delouse-tests --bench loops
//! ```
//!
//! Each figure is the median of the fastest runs, in nanoseconds for one round, and through that of plain tokio.
//!
//! Times differ by half from run to run on a virtual machine. With valgrind installed, a second table counts the instructions of a
//! round: those of a run with more rounds, without those of a run with fewer, so that the start is not in them.
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
    if Command::new("valgrind").arg("--version").output().is_ok() {
        count(&programs);
    } else {
        println!("\nskipped: instructions: valgrind is not installed");
    }
}

/// Prints the instructions of a round. console-subscriber is left out: what its own threads do meanwhile is in the count.
fn count(programs: &[PathBuf]) {
    const FEWER: u64 = 10_000;
    const MORE: u64 = 60_000;
    println!("\n| instructions | spawn | | yield | | ping-pong | |");
    println!("| --- |{}", " ---: |".repeat(6));
    let round = |way: usize, name: &str| {
        let count = |rounds| instructions(&programs[way], name, rounds);
        count(MORE).saturating_sub(count(FEWER)) as f64 / (MORE - FEWER) as f64
    };
    let names = ["spawn", "yield", "ping-pong"];
    let plain = names.map(|name| round(0, name));
    for (way, (name, _)) in WAYS.iter().enumerate().take(3) {
        let figures = [0, 1, 2].map(|of| {
            let own = if way == 0 { plain[of] } else { round(way, names[of]) };
            format!("{own:.0} | {:.3}", own / plain[of])
        });
        println!("| {name} | {} |", figures.join(" | "));
    }
}

/// All instructions of one run, as callgrind counts them.
fn instructions(program: &Path, name: &str, rounds: u64) -> u64 {
    let mut command = Command::new("valgrind");
    command.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]).arg(program);
    let output =
        command.args([name, &rounds.to_string()]).env("DELOUSE_BIND", "127.0.0.1:0").output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    let collected = stderr.lines().find_map(|line| line.split("Collected : ").nth(1));
    collected.and_then(|text| text.trim().parse().ok()).unwrap_or_else(|| panic!("{stderr}"))
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
