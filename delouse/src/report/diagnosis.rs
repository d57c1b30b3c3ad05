//! The answer of `/diagnosis`.

use std::fmt::Write as _;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::findings::{FindingReport, driven, spawned};
use super::format::{self, count, counted, in_place, lower, millis, task};
use super::formats::Renders;
use super::gaps;
use super::observations::ObservationReport;
use crate::snapshot::Capture;
use crate::tasks::{Task, TaskState};
use crate::waits::diagnosis::Diagnosis;
use crate::waits::sample::Sample;
use crate::waits::{
    CodeLocation, Evidence, ObservationKind, Scope, TaskIds, Unjudged, UnjudgedList, UnjudgedTasks, location,
};

/// Tasks of one finding whose places are listed.
const TASKS: usize = 6;
/// Places that could not be judged which are shown.
const NOT_JUDGED: usize = 8;
/// Lines are broken here.
const WIDTH: usize = 110;

/// What is wrong, worst first.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[non_exhaustive]
pub struct DiagnosisAnswer {
    /// The worst cause in one sentence.
    pub summary: String,
    /// All of it as text for people.
    pub diagnosis: String,
    /// What is wrong, worst first; nothing, where nothing was found.
    pub findings: Vec<FindingReport>,
    /// What is true and may be wrong, worst first: a person who knows the program has to judge it.
    #[serde(default)]
    pub observations: Vec<ObservationReport>,
    /// Tasks of which delouse could not find out whether they will go on: the findings say nothing of these. The places
    /// with most tasks first.
    #[serde(default)]
    pub not_judged: Vec<NotJudged>,
    /// How many tasks could not be judged at places that `not_judged` leaves out.
    #[serde(default)]
    pub not_judged_more: usize,
    /// What delouse could not read, and why: it may be wrong there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub not_covered: Vec<String>,
    /// What the diagnosis is based on.
    pub scope: Scope,
    /// How the capture went. The pause is the longest of all samples.
    pub capture: Capture,
    /// The name of this capture, for `?since=`: kept for the next few.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
}

/// Tasks that wait at one place, and why delouse cannot say whether they will continue.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NotJudged {
    /// Ids of the tasks, the first few; 0 for a `main` future.
    pub tasks: Vec<u64>,
    /// The OS thread that drives it, where that tells several `main` futures apart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thread: Option<i32>,
    /// How many tasks there are.
    pub count: usize,
    /// `function at file:line` of the program's innermost function that waits.
    pub place: Option<String>,
    /// The type of the innermost future that waits.
    pub leaf: Option<String>,
    /// What is not known, as a sentence.
    pub reason: String,
    /// The same for programs.
    #[serde(default)]
    pub why: Unjudged,
}

impl From<UnjudgedTasks> for NotJudged {
    fn from(of: UnjudgedTasks) -> Self {
        Self {
            reason: gaps::unjudged(&of),
            tasks: of.tasks,
            thread: of.driver,
            count: of.count,
            place: of.place.as_deref().map(CodeLocation::to_string),
            leaf: of.leaf.as_deref().map(str::to_owned),
            why: of.why,
        }
    }
}

impl Renders for DiagnosisAnswer {
    fn text(&self) -> String {
        self.diagnosis.clone()
    }
}

impl DiagnosisAnswer {
    /// The part of `diagnosis` about each finding, in their order: it comes first, and an empty line ends each.
    pub(crate) fn texts_of_findings(&self) -> impl Iterator<Item = &str> {
        let mut rest = self.diagnosis.as_str();
        self.findings.iter().map(move |_| {
            let end = rest.find("\n\n").map_or(rest.len(), |end| end + 1);
            let (text, after) = rest.split_at(end);
            rest = after.trim_start_matches('\n');
            text
        })
    }

    /// Leaves the first few ids of each finding: a hundred thousand leaked tasks are a megabyte of ids.
    pub(crate) fn limit_ids(&mut self, most: usize) {
        self.findings.iter_mut().for_each(|finding| finding.tasks.truncate(most));
    }

    /// `last`: the sample that has the places of the tasks.
    pub(crate) fn new(found: Diagnosis, last: &Sample, capture: Capture, id: Option<String>) -> Self {
        let Diagnosis {
            findings,
            scope,
            not_judged: UnjudgedList { places, more },
            observations,
            not_covered,
        } = found;
        let observations: Vec<ObservationReport> =
            observations.into_iter().map(ObservationReport::from).collect();
        let findings = FindingReport::all(findings);
        let not_covered: Vec<String> = not_covered.iter().map(gaps::not_covered).collect();
        let not_judged: Vec<NotJudged> = places.into_iter().map(NotJudged::from).collect();
        let summary = match findings.first() {
            Some(worst) => worst.headline(),
            None if not_covered.is_empty() => nothing_proven(&observations),
            None => format!("cannot tell what is wrong: could not read {}", not_covered.join("; ")),
        };
        let mut out = String::new();
        for (number, finding) in findings.iter().enumerate() {
            if number > 0 {
                out.push('\n');
            }
            finding_text(&mut out, finding, last);
        }
        if findings.is_empty() {
            let _infallible = writeln!(out, "{summary}");
        }
        observations_text(&mut out, &observations, findings.is_empty() && not_covered.is_empty());
        not_judged_text(&mut out, &not_judged, more);
        let _infallible = writeln!(out, "\nScope: {}.", scope_text(&scope));
        for note in &capture.notes {
            wrapped(&mut out, "Note: ", note);
        }
        if let Some(id) = &id {
            let _infallible = writeln!(
                out,
                "What grows: /diagnosis?seconds=10; what has grown since now: /diagnosis?since={id}"
            );
        }
        Self {
            summary,
            diagnosis: out,
            findings,
            observations,
            not_judged,
            not_judged_more: more,
            not_covered,
            scope,
            capture,
            id,
        }
    }
}

/// `12 tasks, 6 threads, 9 resources with waiters, 18 open files; 2 samples, 150 ms apart; growth was not measured`.
fn scope_text(scope: &Scope) -> String {
    let (tasks, threads) = (count(scope.tasks, "task"), count(scope.threads, "thread"));
    let files = scope.open_files.map(|open| format!(", {}", count(open, "open file"))).unwrap_or_default();
    let samples = match scope.samples {
        0 | 1 => "one sample".to_owned(),
        2 => format!("2 samples, {} apart", millis(scope.interval_ms)),
        more => format!("{more} samples in {}", millis(scope.interval_ms)),
    };
    let growth = match scope.growth_over_ms {
        Some(ms) => format!("growth over {}", millis(ms)),
        None => "growth was not measured".to_owned(),
    };
    let resources = count(scope.resources, "resource");
    format!("{tasks}, {threads}, {resources} with waiters{files}; {samples}; {growth}")
}

/// The summary where there is no finding.
fn nothing_proven(observations: &[ObservationReport]) -> String {
    match observations.first() {
        None => "nothing wrong found".to_owned(),
        Some(first) if first.kind == ObservationKind::NotJudged => {
            format!("nothing proven wrong; {}", lower(&first.summary))
        }
        Some(first) => format!("nothing proven wrong; worth a look: {}", lower(&first.summary)),
    }
}

/// The observations; without the first one where that is in the summary, and without what has a list of its own.
fn observations_text(out: &mut String, observations: &[ObservationReport], is_summary: bool) {
    let rest = observations.iter().skip(usize::from(is_summary));
    let rest: Vec<_> = rest.filter(|one| one.kind != ObservationKind::NotJudged).collect();
    if !rest.is_empty() {
        let _infallible =
            writeln!(out, "\n{}", if is_summary { "Also worth a look" } else { "Worth a look" });
        rest.iter().for_each(|one| wrapped(out, "  - ", &one.summary));
    }
}

/// The tasks that the findings do not cover, and why. `more` of them are at other places.
fn not_judged_text(out: &mut String, places: &[NotJudged], more: usize) {
    let tasks = places.iter().map(|place| place.count).sum::<usize>() + more;
    if tasks == 0 {
        return;
    }
    let _infallible = writeln!(out, "\nNot judged: {}", count(tasks, "task"));
    for place in places.iter().take(NOT_JUDGED) {
        wrapped(out, "  - ", &not_judged_line(place));
    }
    let left_out = tasks - places.iter().take(NOT_JUDGED).map(|place| place.count).sum::<usize>();
    if left_out > 0 {
        let _infallible = writeln!(out, "  and {} more", count(left_out, "task"));
    }
}

/// `task 7 in app::serve at src/main.rs:9, in `hyper::body::Incoming`: why`.
fn not_judged_line(of: &NotJudged) -> String {
    let tasks = TaskIds { count: of.count, ..TaskIds::of(of.tasks.iter().copied()) };
    let place = in_place(of.place.as_ref());
    let leaf = of.leaf.as_ref().map(|leaf| format!(", at `{leaf}`")).unwrap_or_default();
    let tasks = of.thread.map_or_else(|| counted(&tasks), driven);
    format!("{tasks}{place}{leaf}: {}", of.reason)
}

fn finding_text(out: &mut String, finding: &FindingReport, last: &Sample) {
    let _infallible = writeln!(out, "{}", finding.headline());
    let mut mains = mains_of(finding, last);
    let known = |id: &u64| match id {
        0 => std::mem::take(&mut mains),
        id => last.task(*id).into_iter().collect(),
    };
    let known: Vec<&Task> = finding.tasks.iter().flat_map(known).collect();
    if !known.is_empty() {
        out.push_str("  Affected tasks\n");
        for task in known.iter().take(TASKS) {
            wrapped(out, "    ", &whereabouts(task, last));
        }
        if known.len() > TASKS {
            let _infallible = writeln!(out, "    and {} more", known.len() - TASKS);
        }
    }
    if !finding.evidence.is_empty() {
        out.push_str("  Evidence\n");
        finding.evidence.iter().for_each(|line| wrapped(out, "    - ", line));
    }
    if let Some(remedy) = &finding.remedy {
        out.push_str("  Suggested fix\n");
        wrapped(out, "    ", remedy);
    }
}

/// The main futures that a finding is about. Of several, its waits say which.
fn mains_of<'s>(finding: &FindingReport, last: &'s Sample) -> Vec<&'s Task> {
    let all: Vec<&Task> = last.listing.tasks.iter().take_while(|task| task.id == 0).collect();
    if all.len() == 1 {
        return all;
    }
    let waits = finding.facts.iter().filter_map(|fact| match fact {
        Evidence::Waits(wait) if wait.task == 0 => Some(wait.thread),
        _ => None,
    });
    let threads: Vec<Option<i32>> = waits.collect();
    let thread = |main: &Task| main.found_in.as_ref().map(|call| call.thread);
    all.into_iter().filter(|main| threads.contains(&thread(main))).collect()
}

/// `task 12, in app::transfer at src/main.rs:31, spawned at src/main.rs:12:5`.
pub(super) fn whereabouts(of: &Task, last: &Sample) -> String {
    let is_one_of_several = last.listing.tasks.get(1).is_some_and(|task| task.id == 0);
    let mut text = match &of.found_in {
        Some(call) if is_one_of_several => driven(call.thread),
        _ => task(of.id),
    };
    match location::of_waiting(of) {
        // Its frames are where it was suspended before.
        _ if of.state == Some(TaskState::Running) => {
            if let Some(outermost) = of.stack.iter().find_map(user_root) {
                let _infallible = write!(text, ", {outermost}, running");
            }
        }
        Some(place) => {
            let _infallible = write!(text, ", in {place}");
        }
        None => {}
    }
    if let Some(time) = format::waiting(of.waiting) {
        let _infallible = write!(text, ", {time}");
    }
    if let Some(place) = &of.spawned_at {
        let _infallible = write!(text, ", spawned at {}", spawned(place));
    }
    text
}

/// The outermost function of the program's own.
fn user_root(frame: &crate::tasks::Frame) -> Option<&str> {
    if frame.origin == crate::tasks::Origin::User {
        return Some(&frame.function);
    }
    frame.children.iter().find_map(user_root)
}

/// A paragraph, broken between words, its later lines indented as far as the text of the first.
pub(super) fn wrapped(out: &mut String, start: &str, text: &str) {
    let indent = start.chars().count();
    let mut column = indent;
    out.push_str(start);
    for (number, word) in text.split(' ').enumerate() {
        let length = word.chars().count();
        if number > 0 {
            if column + 1 + length > WIDTH {
                let _infallible = write!(out, "\n{:indent$}", "");
                column = indent;
            } else {
                out.push(' ');
                column += 1;
            }
        }
        out.push_str(word);
        column += length;
    }
    out.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tasks::ResourceKind;
    use crate::waits::{Evidence, Finding, FindingKind, Party, Resource, Severity, TaskWait, fixtures};

    fn wait(task: u64, mutex: &str, holder: u64) -> Evidence {
        let resource = Resource { id: mutex.to_owned(), kind: ResourceKind::Mutex, address: None };
        Evidence::Waits(TaskWait {
            task,
            thread: None,
            blocks: false,
            place: None,
            future: None,
            resource: resource.into(),
            holders: vec![Party {
                task: Some(holder),
                variable: "a_guard_with_a_name_that_is_so_long_that_the_line_is_broken".to_owned(),
                handle: "MutexGuard".to_owned(),
                certain: true,
                ..Party::default()
            }],
            more_holders: 0,
            behind_writer: false,
            all_known: true,
        })
    }

    fn deadlock(severity: Severity) -> Finding {
        let evidence = vec![wait(1, "mutex-2", 2), wait(2, "mutex-1", 1)];
        Finding { kind: FindingKind::Deadlock, severity, tasks: vec![1, 2], evidence }
    }

    fn answer(findings: Vec<Finding>) -> DiagnosisAnswer {
        answer_with(findings, UnjudgedList::default())
    }

    fn answer_with(findings: Vec<Finding>, not_judged: UnjudgedList) -> DiagnosisAnswer {
        let mut tasks = vec![fixtures::task(1, "app::debit", 31), fixtures::task(2, "app::credit", 40)];
        if let Some(task) = tasks.first_mut() {
            task.spawned_at = Some("src/main.rs:12:5".into());
        }
        let sample = fixtures::sample(0, tasks, Vec::new());
        let scope = Scope { tasks: 2, threads: 3, samples: 1, ..Scope::default() };
        let capture = Capture { notes: vec!["something is missing".to_owned()], ..Capture::default() };
        let found = Diagnosis { findings, scope, not_judged, ..Diagnosis::default() };
        DiagnosisAnswer::new(found, &sample, capture, Some("4".to_owned()))
    }

    #[test]
    fn the_cause_comes_first() {
        let answer = answer(vec![deadlock(Severity::Certain), deadlock(Severity::Suspected)]);
        let lines: Vec<&str> = answer.diagnosis.lines().collect();
        assert_eq!(
            lines[..4],
            [
                "Deadlock: task 1 and task 2 wait for each other: 1 for mutex-2, 2 for mutex-1",
                "  Affected tasks",
                "    task 1, in app::debit at src/main.rs:31, spawned at src/main.rs:12:5",
                "    task 2, in app::credit at src/main.rs:40",
            ]
        );
        assert!(answer.diagnosis.contains("\nSuspected deadlock: task 1"), "{}", answer.diagnosis);
        assert!(answer.diagnosis.contains("  Suggested fix\n    take these locks"), "{}", answer.diagnosis);
        assert!(lines.iter().all(|line| line.chars().count() <= WIDTH), "{}", answer.diagnosis);
        let broken = "_is_broken`, a\n      MutexGuard) holds";
        assert!(answer.diagnosis.contains(broken), "{}", answer.diagnosis);
        assert!(lines.contains(&"Note: something is missing"));
        let texts: Vec<&str> = answer.texts_of_findings().collect();
        let [first, second] = texts[..] else { panic!("{texts:?}") };
        assert!(
            first.starts_with("Deadlock: task 1") && first.ends_with("waiting for the next\n"),
            "{first}"
        );
        assert!(
            second.starts_with("Suspected deadlock: task 1") && second.contains("Suggested fix"),
            "{second}"
        );
        assert!(!second.contains("Scope:"), "{second}");
        assert_eq!(
            lines.last(),
            Some(&"What grows: /diagnosis?seconds=10; what has grown since now: /diagnosis?since=4")
        );
        let json = serde_json::to_string(&answer).unwrap();
        assert!(json.starts_with("{\"summary\":\"Deadlock: task 1"), "{json}");
        let finding = answer.findings.first().unwrap();
        assert_eq!(finding.facts, [wait(1, "mutex-2", 2), wait(2, "mutex-1", 1)]);
        let back: DiagnosisAnswer = serde_json::from_str(&json).unwrap();
        assert_eq!(back.findings, answer.findings);
    }

    #[test]
    fn nothing_wrong_and_what_was_looked_at() {
        let answer = answer(Vec::new());
        assert_eq!(answer.summary, "nothing wrong found");
        let first: Vec<&str> = answer.diagnosis.lines().take(3).collect();
        assert_eq!(
            first,
            [
                "nothing wrong found",
                "",
                "Scope: 2 tasks, 3 threads, 0 resources with waiters; one sample; growth was not measured."
            ]
        );
    }

    #[test]
    fn what_could_not_be_judged_is_listed_under_the_verdict() {
        let place = |ids: std::ops::RangeInclusive<u64>, leaf: Option<&str>| UnjudgedTasks {
            count: ids.clone().count(),
            tasks: ids.collect(),
            place: location::of_task(&fixtures::task(1, "app::serve", 9).stack),
            leaf: leaf.map(Into::into),
            why: Unjudged::UnknownFuture,
            ..UnjudgedTasks::default()
        };
        let places = vec![place(7..=7, Some("hyper::Incoming")), place(10..=21, None)];
        let list = UnjudgedList { places, more: 242 };
        let DiagnosisAnswer { summary, diagnosis, not_judged, not_judged_more, .. } =
            answer_with(Vec::new(), list);
        assert_eq!((summary.as_str(), not_judged.len(), not_judged_more), ("nothing wrong found", 2, 242));
        let unbroken = diagnosis.replace("\n    ", " ");
        for line in [
            "nothing wrong found\n\nNot judged: 255 tasks\n",
            "\n  - task 7 in app::serve at src/main.rs:9, at `hyper::Incoming`: delouse does not know what this type of future waits for\n",
            "\n  - 12 tasks (10, 11, 12, 13, 14, 15, 16, 17 and 4 more) in app::serve at src/main.rs:9: delouse",
            "\n  and 242 tasks more\n",
        ] {
            assert!(unbroken.contains(line), "{line} is not in: {unbroken}");
        }
    }
}
