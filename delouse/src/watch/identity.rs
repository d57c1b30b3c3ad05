//! What makes two findings of different looks the same: kind, tasks, resources and lines; not wording, and no numbers that
//! change with time.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::report::FindingReport;
use crate::waits::FindingKind;

/// A finding without what changes from look to look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Identity {
    kind: FindingKind,
    /// Ids; 0 for a `main` future.
    tasks: BTreeSet<u64>,
    /// Addresses.
    resources: BTreeSet<String>,
    /// `function at file:line`.
    places: BTreeSet<String>,
}

impl Identity {
    pub(super) fn of(finding: &FindingReport) -> Self {
        let mut identity = Self {
            kind: finding.kind,
            tasks: finding.tasks.iter().copied().collect(),
            resources: BTreeSet::new(),
            places: BTreeSet::new(),
        };
        for fact in &finding.facts {
            // By the names of JSON, so that each kind of evidence, also a later one, is covered.
            identity.collect(&serde_json::to_value(fact).unwrap_or_default());
        }
        identity
    }

    fn collect(&mut self, value: &Value) {
        match value {
            Value::Array(values) => values.iter().for_each(|value| self.collect(value)),
            Value::Object(fields) => {
                let text = |name: &str| fields.get(name).and_then(Value::as_str);
                if let Some(function) = text("function") {
                    let line = fields.get("line").and_then(Value::as_u64).unwrap_or_default();
                    let file = text("file").unwrap_or_default();
                    self.places.insert(format!("{function} at {file}:{line}"));
                }
                self.resources.extend(text("address").map(str::to_owned));
                fields.values().for_each(|value| self.collect(value));
            }
            _ => {}
        }
    }

    /// Whether both looks have seen the same tasks, or where there are none, the same resources at the same lines.
    pub(super) fn is_same_instance(&self, other: &Self) -> bool {
        let is_same = if self.tasks.is_empty() && other.tasks.is_empty() {
            self.resources == other.resources && self.places == other.places
        } else {
            !self.tasks.is_disjoint(&other.tasks)
        };
        self.kind == other.kind && is_same
    }

    /// Whether one report is enough for both: the same tasks, or other tasks at the same lines.
    pub(super) fn is_same_cause(&self, other: &Self) -> bool {
        self.kind == other.kind && (!self.tasks.is_disjoint(&other.tasks) || self.places == other.places)
    }

    /// Adds the tasks of another finding of the same cause.
    pub(super) fn join(&mut self, other: &Self) {
        self.tasks.extend(&other.tasks);
    }
}
