//! The answer of `/diagnosis`: what a colleague would write who has looked.

use std::fmt::Write as _;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::snapshot::Capture;
use crate::tasks::{Task, TaskState};
use crate::waits::diagnosis::Diagnosis;
use crate::waits::look::Look;
use crate::waits::{Finding, FindingKind, LookedAt, NotJudged, NotJudgedList, Severity, words};

/// Tasks of one finding that are told where they stand.
const TASKS: usize = 6;
/// Places that could not be judged which are shown.
const NOT_JUDGED: usize = 8;
/// Lines are broken here.
const WIDTH: usize = 110;

/// What is wrong, worst first.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct DiagnosisAnswer {
    /// The worst cause in one sentence.
    pub summary: String,
    /// All of it as text for people.
    pub diagnosis: String,
    /// What is wrong, worst first; nothing, where nothing was found.
    pub findings: Vec<Finding>,
    /// Tasks of which delouse could not find out whether they will go on: the findings say nothing of these. The places
    /// with most tasks first.
    #[serde(default)]
    pub not_judged: Vec<NotJudged>,
    /// How many tasks could not be judged at places that `not_judged` leaves out.
    #[serde(default)]
    pub not_judged_more: usize,
    /// What that rests on.
    pub looked_at: LookedAt,
    /// How the capture went. The pause is the longest of all looks.
    pub capture: Capture,
    /// The name of this capture, for `?since=`: kept for the next few.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
}

impl DiagnosisAnswer {
    /// `last`: the look that tells where the tasks stand.
    pub(crate) fn new(
        Diagnosis { findings, looked_at, not_judged }: Diagnosis,
        last: &Look,
        capture: Capture,
        id: Option<String>,
    ) -> Self {
        let summary = match findings.first() {
            Some(worst) => headline(worst),
            None if looked_at.not_looked_at.is_empty() => "nothing wrong found".to_owned(),
            None => {
                let missing = looked_at.not_looked_at.join("; ");
                format!("cannot tell what is wrong: could not look at {missing}")
            }
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
        not_judged_text(&mut out, &not_judged);
        let _infallible = writeln!(out, "\nLooked at {}.", looked_at.words());
        for note in &capture.notes {
            wrapped(&mut out, "Note: ", note);
        }
        if let Some(id) = &id {
            let _infallible = writeln!(
                out,
                "What grows: /diagnosis?seconds=10; what has grown since now: /diagnosis?since={id}"
            );
        }
        let NotJudgedList { places: not_judged, more: not_judged_more } = not_judged;
        Self { summary, diagnosis: out, findings, not_judged, not_judged_more, looked_at, capture, id }
    }
}

/// What the findings say nothing of, and why.
fn not_judged_text(out: &mut String, NotJudgedList { places, more }: &NotJudgedList) {
    let tasks = places.iter().map(|place| place.count).sum::<usize>() + more;
    if tasks == 0 {
        return;
    }
    let _infallible = writeln!(out, "\nNot judged: {}", words::count(tasks, "task"));
    for place in places.iter().take(NOT_JUDGED) {
        wrapped(out, "  - ", &not_judged_line(place));
    }
    let left_out = tasks - places.iter().take(NOT_JUDGED).map(|place| place.count).sum::<usize>();
    if left_out > 0 {
        let _infallible = writeln!(out, "  and {} more", words::count(left_out, "task"));
    }
}

/// `task 7 in app::serve at src/main.rs:9, in `hyper::body::Incoming`: why`.
fn not_judged_line(place: &NotJudged) -> String {
    let NotJudged { tasks, count, place, leaf, reason } = place;
    let mut line = match count {
        1 => words::ids(tasks),
        count => words::many(*count, tasks),
    };
    if let Some(place) = place {
        let _infallible = write!(line, " in {place}");
    }
    if let Some(leaf) = leaf {
        let _infallible = write!(line, ", at `{leaf}`");
    }
    let _infallible = write!(line, ": {reason}");
    line
}

/// One line for one finding; a suspicion is called one.
pub(super) fn headline(finding: &Finding) -> String {
    let kind = match finding.kind {
        FindingKind::Deadlock => "deadlock",
        FindingKind::BlockedWorker => "blocked worker",
        FindingKind::Futurelock => "futurelock",
        FindingKind::LeakedTasks => "leaked tasks",
        FindingKind::UnwakeableTask => "unwakeable task",
        FindingKind::StarvedTasks => "starved tasks",
        FindingKind::FileDescriptors => "open files near their limit",
        FindingKind::GrowingGroup => "growing group",
    };
    let headline = match finding.severity {
        Severity::Certain => format!("{kind}: {}", lower(&finding.summary)),
        Severity::Suspected => format!("suspected {kind}: {}", lower(&finding.summary)),
    };
    upper(&headline)
}

/// The same with a capital.
fn upper(sentence: &str) -> String {
    let mut letters = sentence.chars();
    let first = letters.next().map(|first| first.to_uppercase().to_string()).unwrap_or_default();
    first + letters.as_str()
}

/// The same sentence in the middle of another.
fn lower(sentence: &str) -> String {
    let mut letters = sentence.chars();
    let first = letters.next().map(|first| first.to_lowercase().to_string()).unwrap_or_default();
    first + letters.as_str()
}

fn finding_text(out: &mut String, finding: &Finding, last: &Look) {
    let _infallible = writeln!(out, "{}", headline(finding));
    let mut mains = last.listing.tasks.iter().take_while(|task| task.id == 0);
    let main = mains.next().filter(|_| mains.next().is_none());
    let known = |id: &u64| if *id == 0 { main } else { last.task(*id) };
    let known: Vec<&Task> = finding.tasks.iter().filter_map(known).collect();
    if !known.is_empty() {
        out.push_str("  who\n");
        for task in known.iter().take(TASKS) {
            wrapped(out, "    ", &whereabouts(task));
        }
        if known.len() > TASKS {
            let _infallible = writeln!(out, "    and {} more", known.len() - TASKS);
        }
    }
    if !finding.evidence.is_empty() {
        out.push_str("  how that is known\n");
        finding.evidence.iter().for_each(|line| wrapped(out, "    - ", line));
    }
    if let Some(remedy) = &finding.remedy {
        out.push_str("  what would help\n");
        wrapped(out, "    ", remedy);
    }
}

/// `task 12, in app::transfer at src/main.rs:31, spawned at src/main.rs:12:5`.
fn whereabouts(task: &Task) -> String {
    let mut text = words::name(task.id);
    match words::user_frame(&task.stack) {
        // Its frames are where it was suspended before.
        _ if task.state == Some(TaskState::Running) => {
            if let Some(outermost) = task.stack.iter().find_map(user_root) {
                let _infallible = write!(text, ", {outermost}, running");
            }
        }
        Some(frame) => {
            let _infallible = write!(text, ", in {}", words::frame_at(frame));
        }
        None => {}
    }
    if let Some(spawned) = &task.spawned_at {
        let _infallible = write!(text, ", spawned at {}", words::place(spawned, None));
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
fn wrapped(out: &mut String, start: &str, text: &str) {
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
    use crate::waits::made_up;

    fn deadlock(severity: Severity) -> Finding {
        Finding {
            kind: FindingKind::Deadlock,
            severity,
            summary: "Task 1 and task 2 wait for each other's mutex".to_owned(),
            tasks: vec![1, 2],
            evidence: vec!["task 1 waits for mutex-2".to_owned(), "word ".repeat(40).trim_end().to_owned()],
            remedy: Some("take both locks in the same order everywhere".to_owned()),
        }
    }

    fn answer(findings: Vec<Finding>) -> DiagnosisAnswer {
        answer_with(findings, NotJudgedList::default())
    }

    fn answer_with(findings: Vec<Finding>, not_judged: NotJudgedList) -> DiagnosisAnswer {
        let mut tasks = vec![made_up::task(1, "app::debit", 31), made_up::task(2, "app::credit", 40)];
        if let Some(task) = tasks.first_mut() {
            task.spawned_at = Some("src/main.rs:12:5".into());
        }
        let look = made_up::look(0, tasks, Vec::new());
        let looked_at = LookedAt { tasks: 2, threads: 3, looks: 1, ..LookedAt::default() };
        let capture = Capture { notes: vec!["something is missing".to_owned()], ..Capture::default() };
        DiagnosisAnswer::new(
            Diagnosis { findings, looked_at, not_judged },
            &look,
            capture,
            Some("4".to_owned()),
        )
    }

    #[test]
    fn the_cause_comes_first() {
        let answer = answer(vec![deadlock(Severity::Certain), deadlock(Severity::Suspected)]);
        let lines: Vec<&str> = answer.diagnosis.lines().collect();
        assert_eq!(
            lines[..4],
            [
                "Deadlock: task 1 and task 2 wait for each other's mutex",
                "  who",
                "    task 1, in app::debit at src/main.rs:31, spawned at src/main.rs:12:5",
                "    task 2, in app::credit at src/main.rs:40",
            ]
        );
        assert!(answer.diagnosis.contains("\nSuspected deadlock: task 1"), "{}", answer.diagnosis);
        assert!(answer.diagnosis.contains("  what would help\n    take both locks"), "{}", answer.diagnosis);
        assert!(lines.iter().all(|line| line.chars().count() <= WIDTH), "{}", answer.diagnosis);
        assert!(lines.contains(&"Note: something is missing"));
        assert_eq!(
            lines.last(),
            Some(&"What grows: /diagnosis?seconds=10; what has grown since now: /diagnosis?since=4")
        );
        let json = serde_json::to_string(&answer).unwrap();
        assert!(json.starts_with("{\"summary\":\"Deadlock: task 1"), "{json}");
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
                "Looked at 2 tasks, 3 threads, 0 resources that somebody waits for; one look; growth was not measured."
            ]
        );
    }

    #[test]
    fn what_could_not_be_judged_is_listed_under_the_verdict() {
        let place = |ids: std::ops::RangeInclusive<u64>, leaf: Option<&str>| NotJudged {
            count: ids.clone().count(),
            tasks: ids.collect(),
            place: Some("app::serve at src/main.rs:9".into()),
            leaf: leaf.map(Into::into),
            reason: "delouse does not know what this type of future waits for".to_owned(),
        };
        let places = vec![place(7..=7, Some("hyper::Incoming")), place(10..=21, None)];
        let list = NotJudgedList { places, more: 242 };
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
