//! Every bad day is named by its cause, the tasks and the lines; no good day is complained about.
//!
//! `BAD_DAYS=path` checks another build of the program, `CASES=name,name` some cases only.
#![cfg(all(feature = "debug", target_os = "linux", target_arch = "x86_64"))]

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use delouse_tests::{PATIENCE, Program};
use serde_json::Value;

/// Cases that run at the same time.
const AT_ONCE: usize = 3;
/// How long a task may take from where it says that it waits to where it does.
const SETTLING: Duration = Duration::from_secs(30);
/// Such names begin cases that need the machine for themselves in a build without optimisations.
const LARGE: &str = "ten_thousand";
/// How often a good day is asked about.
const ASKED: usize = 3;

struct Case {
    name: String,
    findings: Vec<String>,
    query: String,
}

/// How a case went: what was found that is there, what was found that is not, what was missed.
#[derive(Default)]
struct Outcome {
    name: String,
    positive: bool,
    complaints: Vec<String>,
    /// Findings that were told and should not have been.
    wrong: usize,
    /// How sure the worst finding was.
    severity: String,
    took: Duration,
}

fn program() -> Command {
    Command::new(std::env::var("BAD_DAYS").unwrap_or_else(|_| env!("CARGO_BIN_EXE_bad_days").to_owned()))
}

fn cases() -> Vec<Case> {
    let output = program().arg("list").env("DELOUSE", "off").output().expect("a list");
    let wanted = std::env::var("CASES").ok();
    let wanted: Option<Vec<&str>> = wanted.as_ref().map(|names| names.split(',').collect());
    let lines = String::from_utf8(output.stdout).expect("UTF-8");
    let cases = lines.lines().map(|line| {
        let case: Value = serde_json::from_str(line).expect("JSON");
        Case { name: text(&case["name"]), findings: texts(&case["findings"]), query: text(&case["query"]) }
    });
    cases.filter(|case| wanted.as_ref().is_none_or(|wanted| wanted.contains(&case.name.as_str()))).collect()
}

fn text(value: &Value) -> String {
    value.as_str().expect("a string").to_owned()
}

fn texts(value: &Value) -> Vec<String> {
    value.as_array().expect("an array").iter().map(text).collect()
}

fn run(case: &Case) -> Outcome {
    let mut command = program();
    command.arg(&case.name);
    let program = Program::start(command);
    let stands: Value = serde_json::from_str(&program.printed("\"stands\"")).expect("JSON");
    let begun = Instant::now();
    let mut outcome =
        if case.findings.is_empty() { good_day(case, &program) } else { bad_day(case, &program, &stands) };
    outcome.name.clone_from(&case.name);
    outcome.positive = !case.findings.is_empty();
    outcome.took = begun.elapsed();
    outcome
}

fn diagnosis(case: &Case, program: &Program) -> Value {
    let begun = Instant::now();
    let mut response = program.get(&format!("/diagnosis{}", case.query));
    // Refused for lack of processor time, say: as it says itself, once more.
    while response.status == 503 && begun.elapsed() < PATIENCE {
        response = program.get(&format!("/diagnosis{}", case.query));
    }
    assert_eq!(response.status, 200, "{}: {}", case.name, response.body);
    let answer = response.json();
    assert!(response.body.starts_with("{\"summary\":"), "{}", response.body);
    let first = text(&answer["diagnosis"]).lines().next().map(str::to_owned);
    assert_eq!(first.as_deref(), answer["summary"].as_str(), "the first line names the cause");
    answer
}

fn good_day(case: &Case, program: &Program) -> Outcome {
    let mut outcome = Outcome::default();
    for _ in 0..ASKED {
        let answer = diagnosis(case, program);
        let findings = answer["findings"].as_array().expect("findings");
        if !findings.is_empty() {
            outcome.wrong = outcome.wrong.max(findings.len());
            outcome.complaints = vec![format!("nothing is wrong, but: {}", text(&answer["diagnosis"]))];
        } else if answer["summary"] != "nothing wrong found" || answer["looked_at"]["tasks"] == 0 {
            outcome.complaints.push(format!("not plainly healthy: {answer}"));
        }
    }
    outcome
}

fn bad_day(case: &Case, program: &Program, stands: &Value) -> Outcome {
    let begun = Instant::now();
    loop {
        let answer = diagnosis(case, program);
        let complaints = missing(case, stands, &answer);
        let strange = |finding: &&Value| !case.findings.contains(&text(&finding["kind"]));
        let wrong: Vec<&Value> =
            answer["findings"].as_array().expect("findings").iter().filter(strange).collect();
        let settled = complaints.is_empty() && wrong.is_empty();
        if settled || begun.elapsed() > SETTLING {
            let mut complaints = complaints;
            complaints.extend(wrong.iter().map(|finding| format!("not wrong: {}", finding["summary"])));
            if !settled {
                complaints.push(text(&answer["diagnosis"]));
            }
            let severity = answer["findings"][0]["severity"].as_str().unwrap_or_default().to_owned();
            return Outcome { complaints, wrong: wrong.len(), severity, ..Outcome::default() };
        }
    }
}

/// What a reader is not told.
fn missing(case: &Case, stands: &Value, answer: &Value) -> Vec<String> {
    let Some(worst) = answer["findings"].as_array().and_then(|findings| findings.first()) else {
        return vec!["nothing was found".to_owned()];
    };
    let mut complaints = Vec::new();
    if !case.findings.contains(&text(&worst["kind"])) {
        complaints.push(format!("the worst is a {}, not a {:?}", worst["kind"], case.findings));
    }
    // The tasks that are in any finding of the right kind; the reader's text.
    let of_kind = |finding: &&Value| case.findings.contains(&text(&finding["kind"]));
    let findings = answer["findings"].as_array().expect("findings").iter().filter(of_kind);
    let named: BTreeSet<u64> = findings
        .flat_map(|finding| finding["tasks"].as_array().expect("tasks"))
        .filter_map(Value::as_u64)
        .collect();
    let text = text(&answer["diagnosis"]);
    let guilty = stands["guilty"].as_array().expect("guilty");
    for one in guilty {
        let task: u64 = one["task"].as_str().and_then(|id| id.parse().ok()).expect("an id");
        if task != 0 && !named.contains(&task) {
            complaints.push(format!("task {task} is not named"));
        }
    }
    complaints.truncate(5);
    let places: BTreeSet<(&str, &str)> = guilty
        .iter()
        .map(|one| (one["function"].as_str().expect("a name"), one["place"].as_str().expect("a place")))
        .collect();
    for (function, place) in places {
        // As a reader finds it: both on one line, or on two where it was broken.
        let line = text.replace("\n      ", " ").replace("\n    ", " ");
        if !line.contains(place) || !line.contains(function) {
            complaints.push(format!("{function} at {place} is not told"));
        }
    }
    complaints
}

#[test]
fn every_bad_day_is_named_and_no_good_day() {
    let cases = cases();
    let (large, small): (Vec<&Case>, Vec<&Case>) =
        cases.iter().partition(|case| case.name.starts_with(LARGE));
    let mut outcomes = run_all(&small, AT_ONCE);
    outcomes.extend(run_all(&large, 1));
    outcomes.sort_by(|a, b| (!a.positive, &a.name).cmp(&(!b.positive, &b.name)));
    assert_eq!(outcomes.len(), cases.len());
    let failed: Vec<&Outcome> = outcomes.iter().filter(|outcome| !outcome.complaints.is_empty()).collect();
    for outcome in &failed {
        println!("{}:\n  {}\n", outcome.name, outcome.complaints.join("\n  "));
    }
    table(&outcomes);
    let names: Vec<&str> = failed.iter().map(|outcome| outcome.name.as_str()).collect();
    assert!(failed.is_empty(), "{} of {} cases failed: {}", failed.len(), cases.len(), names.join(", "));
    if std::env::var("CASES").is_err() {
        let bad = outcomes.iter().filter(|outcome| outcome.positive).count();
        assert!(bad >= 14 && outcomes.len() - bad > bad, "{bad} bad days of {}", outcomes.len());
    }
}

fn run_all(cases: &[&Case], at_once: usize) -> Vec<Outcome> {
    let next = AtomicUsize::new(0);
    let outcomes = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..at_once {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    // A program that fails is a case that fails, not the end of all others.
                    let outcome = catch_unwind(AssertUnwindSafe(|| run(case))).unwrap_or_else(|_| Outcome {
                        name: case.name.clone(),
                        positive: !case.findings.is_empty(),
                        complaints: vec!["panicked, see above".to_owned()],
                        ..Outcome::default()
                    });
                    outcomes.lock().expect("no panic").push(outcome);
                }
            });
        }
    });
    outcomes.into_inner().expect("no panic")
}

fn table(outcomes: &[Outcome]) {
    for outcome in outcomes {
        let verdict = if outcome.complaints.is_empty() { "right" } else { "WRONG" };
        let day = if outcome.positive { "bad" } else { "good" };
        let (took, severity) = (outcome.took.as_secs_f64(), &outcome.severity);
        println!("{}", format!("{day:5} {:45} {verdict}  {took:6.2} s  {severity}", outcome.name).trim_end());
    }
    let (bad, good): (Vec<&Outcome>, Vec<&Outcome>) = outcomes.iter().partition(|outcome| outcome.positive);
    let named = bad.iter().filter(|outcome| outcome.complaints.is_empty()).count();
    let certain = bad.iter().filter(|outcome| outcome.severity == "certain").count();
    let flagged = good.iter().filter(|outcome| outcome.wrong > 0).count();
    let wrong: usize = outcomes.iter().map(|outcome| outcome.wrong).sum();
    println!(
        "\n{} bad days, {} of them named, {certain} for certain; {} good days, {flagged} of them complained about",
        bad.len(),
        named,
        good.len()
    );
    let share =
        |part: usize, whole: usize| if whole == 0 { 100.0 } else { 100.0 * part as f64 / whole as f64 };
    println!("precision {:.1} %, recall {:.1} %", share(named, named + wrong), share(named, bad.len()));
}
