//! `delouse diff BEFORE AFTER`: compares two answers that were saved as JSON by the same command.

use std::fs;
use std::path::Path;

use serde_json::Value;

use super::error::CliError;
use crate::report::{DiagnosisAnswer, DiffAnswer, TasksAnswer, WaitsAnswer};

/// The result of a comparison.
pub(super) struct Compared {
    pub(super) answer: DiffAnswer,
    /// The later diagnosis has findings that the earlier one does not have.
    pub(super) new_findings: bool,
}

/// A saved answer, by the command that printed it.
enum Saved {
    Tasks(TasksAnswer),
    Waits(WaitsAnswer),
    Diagnosis(DiagnosisAnswer),
}

impl Saved {
    fn command(&self) -> &'static str {
        match self {
            Self::Tasks(_) => "tasks",
            Self::Waits(_) => "waits",
            Self::Diagnosis(_) => "diagnose",
        }
    }
}

/// Compares the answers in two files.
///
/// # Errors
/// If a file has no such answer, or if the answers are of different commands.
pub(super) fn compare(before: &Path, after: &Path) -> Result<Compared, CliError> {
    let compared = match (read(before)?, read(after)?) {
        (Saved::Tasks(before), Saved::Tasks(after)) => {
            Compared { answer: DiffAnswer::of_tasks(&before, &after), new_findings: false }
        }
        (Saved::Waits(before), Saved::Waits(after)) => {
            Compared { answer: DiffAnswer::of_waits(&before, &after), new_findings: false }
        }
        (Saved::Diagnosis(before), Saved::Diagnosis(after)) => {
            let answer = DiffAnswer::of_diagnoses(&before, &after);
            Compared { new_findings: !answer.came.is_empty(), answer }
        }
        (one, other) => {
            return Err(CliError::Usage(format!(
                "{} has an answer of `{}`, {} of `{}`: compare two answers of the same command",
                before.display(),
                one.command(),
                after.display(),
                other.command()
            )));
        }
    };
    Ok(compared)
}

fn read(path: &Path) -> Result<Saved, CliError> {
    let bytes = fs::read(path).map_err(|error| CliError::File { path: path.to_owned(), error })?;
    let failed = |reason: String| {
        CliError::Usage(format!(
            "{}: {reason}: save one with `delouse tasks TARGET --json >FILE` (or waits, or diagnose)",
            path.display()
        ))
    };
    let value: Value = serde_json::from_slice(&bytes)
        .map_err(|error| failed(format!("this is no JSON answer ({error})")))?;
    let has = |field: &str| value.get(field).is_some();
    // Each command's answer has a field that the others do not have.
    let parsed = if has("diagnosis") {
        serde_json::from_value(value).map(Saved::Diagnosis)
    } else if has("edges") {
        serde_json::from_value(value).map(Saved::Waits)
    } else if has("tasks") && has("engine") {
        serde_json::from_value(value).map(Saved::Tasks)
    } else {
        return Err(failed("this is no answer of tasks, waits or diagnose".to_owned()));
    };
    parsed.map_err(|error| failed(format!("this answer is not understood ({error})")))
}
