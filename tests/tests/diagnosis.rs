//! `/diagnosis` reports every faulty scenario with its cause, tasks and lines, and nothing in a healthy one.
//!
//! Without `CASES`, one case in six: the first answer of each program reads all of its debug information, which takes seconds
//! without optimisations. `CASES=all` checks all, as .ci/run does, and `CASES=name,name` these.
//! `SCENARIOS=path` checks another build of the program.
//! `OUTSIDE=path` asks that command `delouse`, of programs without their own server.
#![cfg(all(feature = "debug", target_os = "linux", target_arch = "x86_64"))]

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use delouse_tests::{PATIENCE, Program};
use serde_json::Value;

/// How many cases run at the same time.
const AT_ONCE: usize = 3;
/// How long a task may take from its report that it is about to wait until it waits.
const SETTLING: Duration = Duration::from_secs(30);
/// Prefixes of cases that run alone: large ones need the whole machine in a build without optimisations, and busy ones must
/// get most of a processor.
const ALONE: &[&str] = &[
    "ten_thousand",
    "selects_on_",
    "main_selects_on_",
    "ignores_that_",
    "reads_nothing_at_",
    "yields_until_",
];
/// Of all faulty cases, the share that may be missed on a busy machine, in percent. No healthy one may have a finding.
const MISSED: usize = 5;
/// The most observations of a healthy scenario.
const MAX_OBSERVATIONS: usize = 3;
/// How often `/diagnosis` is requested of a healthy scenario.
const ASKED: usize = 3;

struct Case {
    name: String,
    findings: Vec<String>,
    /// If nothing is proven wrong: kinds of observation of which one must be reported.
    observations: Vec<String>,
    /// What the text must contain.
    says: Vec<String>,
    query: String,
}

impl Case {
    fn is_faulty(&self) -> bool {
        !self.findings.is_empty() || !self.observations.is_empty()
    }
}

/// The result of a case.
#[derive(Default)]
struct Outcome {
    name: String,
    positive: bool,
    complaints: Vec<String>,
    /// Findings that should not have been reported.
    wrong: usize,
    /// Kinds of observations.
    observed: Vec<String>,
    /// The severity of the worst finding.
    severity: String,
    took: Duration,
}

fn program() -> Command {
    Command::new(std::env::var("SCENARIOS").unwrap_or_else(|_| env!("CARGO_BIN_EXE_scenarios").to_owned()))
}

/// The cases that are `wanted`: all, or those with these names.
fn cases(wanted: &str) -> Vec<Case> {
    let output = program().arg("list").env("DELOUSE", "off").output().expect("a list");
    let wanted: Option<Vec<&str>> = match wanted {
        "" | "all" => None,
        names => Some(names.split(',').collect()),
    };
    let lines = String::from_utf8(output.stdout).expect("UTF-8");
    let cases = lines.lines().map(|line| {
        let case: Value = serde_json::from_str(line).expect("JSON");
        Case {
            name: text(&case["name"]),
            findings: texts(&case["findings"]),
            observations: texts(&case["observations"]),
            says: texts(&case["says"]),
            query: text(&case["query"]),
        }
    });
    let is_wanted = |name: &str| wanted.as_ref().is_none_or(|wanted| wanted.contains(&name));
    let cases: Vec<Case> = cases.filter(|case| is_wanted(&case.name)).collect();
    assert!(!cases.is_empty(), "no case is called {wanted:?}");
    cases
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
    if outside().is_some() {
        command.env("DELOUSE", "off");
    }
    let program = Program::start(command);
    let ready: Value = serde_json::from_str(&program.printed("\"ready\"")).expect("JSON");
    let begun = Instant::now();
    let mut outcome = if case.is_faulty() { faulty(case, &program, &ready) } else { healthy(case, &program) };
    outcome.name.clone_from(&case.name);
    outcome.positive = case.is_faulty();
    outcome.took = begun.elapsed();
    outcome
}

/// The command that is asked instead of the server.
fn outside() -> Option<std::ffi::OsString> {
    std::env::var_os("OUTSIDE")
}

/// The same from outside.
fn diagnosis_from_outside(command: &mut Command, case: &Case, program: &Program) -> Value {
    command.args(["diagnose", "--json"]).arg(program.pid().to_string());
    // The server knows from its earlier answers since when a task waits. The command has to take its time.
    let observes = case.is_faulty() && case.findings.is_empty();
    match case.query.strip_prefix("?seconds=") {
        Some(seconds) => drop(command.args(["--seconds", seconds])),
        None if observes => drop(command.args(["--seconds", "11"])),
        None => {}
    }
    let output = command.output().expect("the command");
    let answer: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("{}: {}", case.name, String::from_utf8_lossy(&output.stderr)));
    let found = answer["findings"].as_array().is_some_and(|findings| !findings.is_empty());
    assert_eq!(output.status.code(), Some(if found { 2 } else { 0 }), "{}", case.name);
    answer
}

fn diagnosis(case: &Case, program: &Program) -> Value {
    if let Some(command) = outside() {
        return diagnosis_from_outside(&mut Command::new(command), case, program);
    }
    let begun = Instant::now();
    let mut response = program.get(&format!("/diagnosis{}", case.query));
    // Refused, for example for lack of processor time: repeat the request, as the answer says.
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

fn healthy(case: &Case, program: &Program) -> Outcome {
    let mut outcome = Outcome::default();
    for _ in 0..ASKED {
        let answer = diagnosis(case, program);
        let findings = answer["findings"].as_array().expect("findings");
        if !findings.is_empty() {
            outcome.wrong = outcome.wrong.max(findings.len());
            outcome.complaints = vec![format!("nothing is wrong, but: {}", text(&answer["diagnosis"]))];
        }
        let observations = answer["observations"].as_array().expect("observations");
        let summary = text(&answer["summary"]);
        let fits = match observations.as_slice() {
            [] => summary == "nothing wrong found",
            _ => summary.starts_with("nothing proven wrong; "),
        };
        // From outside, a main future that is being polled may not be found; the answer says so.
        let is_empty = answer["scope"]["tasks"] == 0 && outside().is_none();
        if outcome.complaints.is_empty() && !fits || is_empty {
            outcome.complaints.push(format!("not reported as healthy: {answer}"));
        }
        if observations.len() > MAX_OBSERVATIONS {
            outcome.complaints.push(format!("too much to look at: {}", text(&answer["diagnosis"])));
        }
        outcome.observed = observations.iter().map(|one| text(&one["kind"])).collect();
    }
    outcome
}

fn faulty(case: &Case, program: &Program, ready: &Value) -> Outcome {
    let begun = Instant::now();
    loop {
        let answer = diagnosis(case, program);
        let complaints = missing(case, ready, &answer);
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
            let observations = answer["observations"].as_array().map(Vec::as_slice).unwrap_or_default();
            let observed = observations.iter().map(|one| text(&one["kind"])).collect();
            return Outcome { complaints, wrong: wrong.len(), severity, observed, ..Outcome::default() };
        }
    }
}

/// What the answer lacks.
fn missing(case: &Case, ready: &Value, answer: &Value) -> Vec<String> {
    let mut complaints = Vec::new();
    let reported = if case.findings.is_empty() { "observations" } else { "findings" };
    let reports = answer[reported].as_array().map(Vec::as_slice).unwrap_or_default();
    let wanted = if case.findings.is_empty() { &case.observations } else { &case.findings };
    let Some(worst) = reports.first() else {
        return vec![format!("no {reported}")];
    };
    let is_wanted = |report: &Value| wanted.contains(&text(&report["kind"]));
    // An observation may stand behind others.
    if !is_wanted(worst) && (!case.findings.is_empty() || !reports.iter().any(is_wanted)) {
        complaints.push(format!("the worst is a {}, not a {wanted:?}", worst["kind"]));
    }
    // The tasks that are in any finding of the right kind; the reader's text.
    let named: BTreeSet<u64> = reports
        .iter()
        .filter(|report| is_wanted(report))
        .flat_map(|finding| finding["tasks"].as_array().expect("tasks"))
        .filter_map(Value::as_u64)
        .collect();
    let text = text(&answer["diagnosis"]);
    let affected = ready["affected"].as_array().expect("affected");
    for one in affected {
        let task: u64 = one["task"].as_str().and_then(|id| id.parse().ok()).expect("an id");
        if task != 0 && !named.contains(&task) {
            complaints.push(format!("task {task} is not named"));
        }
    }
    complaints.truncate(5);
    // Lines that the report wrapped are joined first.
    let line = text.replace("\n      ", " ").replace("\n    ", " ");
    for part in case.says.iter().filter(|part| !line.contains(part.as_str())) {
        complaints.push(format!("`{part}` is not in the text"));
    }
    let places: BTreeSet<(&str, &str)> = affected
        .iter()
        .map(|one| (one["function"].as_str().expect("a name"), one["place"].as_str().expect("a place")))
        .collect();
    for (function, place) in places {
        if !line.contains(place) || !line.contains(function) {
            complaints.push(format!("{function} at {place} is not reported"));
        }
    }
    complaints
}

#[test]
fn faulty_scenarios_are_found_and_no_healthy_one() {
    let wanted = std::env::var("CASES").unwrap_or_default();
    let mut cases = cases(&wanted);
    let faulty = cases.iter().filter(|case| case.is_faulty()).count();
    if matches!(wanted.as_str(), "" | "all") {
        assert!(
            faulty >= 100 && cases.len() - faulty >= faulty - faulty / 20,
            "{faulty} faulty scenarios of {}",
            cases.len()
        );
    }
    if wanted.is_empty() {
        cases = cases.into_iter().step_by(6).collect();
    }
    check(&cases, if wanted == "all" { MISSED } else { 0 });
}

/// Checks the cases, of which so many in a hundred faulty ones may be missed.
fn check(cases: &[Case], missed: usize) {
    let (large, small): (Vec<&Case>, Vec<&Case>) =
        cases.iter().partition(|case| ALONE.iter().any(|prefix| case.name.starts_with(prefix)));
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
    let faulty = outcomes.iter().filter(|outcome| outcome.positive).count();
    let healthy = failed.iter().filter(|outcome| !outcome.positive || outcome.wrong > 0).count();
    assert!(
        healthy == 0 && failed.len() * 100 <= faulty * missed,
        "{} of {} cases failed: {}",
        failed.len(),
        cases.len(),
        names.join(", ")
    );
}

fn run_all(cases: &[&Case], at_once: usize) -> Vec<Outcome> {
    let next = AtomicUsize::new(0);
    let outcomes = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..at_once {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    // If a program fails, only its case fails.
                    let outcome = catch_unwind(AssertUnwindSafe(|| run(case))).unwrap_or_else(|_| Outcome {
                        name: case.name.clone(),
                        positive: case.is_faulty(),
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
        let kind = if outcome.positive { "faulty" } else { "healthy" };
        let (took, severity) = (outcome.took.as_secs_f64(), &outcome.severity);
        let observed = outcome.observed.join(" ");
        let line = format!("{kind:7} {:45} {verdict}  {took:6.2} s  {severity} {observed}", outcome.name);
        println!("{}", line.trim_end());
    }
    let (faulty, healthy): (Vec<&Outcome>, Vec<&Outcome>) =
        outcomes.iter().partition(|outcome| outcome.positive);
    let named = faulty.iter().filter(|outcome| outcome.complaints.is_empty()).count();
    let certain = faulty.iter().filter(|outcome| outcome.severity == "certain").count();
    let flagged = healthy.iter().filter(|outcome| outcome.wrong > 0).count();
    let wrong: usize = outcomes.iter().map(|outcome| outcome.wrong).sum();
    println!(
        "\n{} faulty scenarios, {} of them found, {certain} of them certain; {} healthy ones, {flagged} of them with findings",
        faulty.len(),
        named,
        healthy.len()
    );
    let share =
        |part: usize, whole: usize| if whole == 0 { 100.0 } else { 100.0 * part as f64 / whole as f64 };
    println!("precision {:.1} %, recall {:.1} %", share(named, named + wrong), share(named, faulty.len()));
}
