//! The texts of Go's `?debug=1` and `?debug=2`, for its tools and for people.

use std::fmt::Write as _;

use super::{Profile, task_frames, wait_of};
use crate::report::json::name;
use crate::tasks::Task;

/// `?debug=1`: each distinct stack with its count and its labels.
pub(crate) fn counted(profile: &Profile, name: &str) -> String {
    let mut out = format!("{name} profile: total {}\n", profile.total());
    for sample in &profile.samples {
        let _infallible = writeln!(out, "{} @", sample.count);
        if !sample.labels.is_empty() {
            let labels: Vec<String> =
                sample.labels.iter().map(|(key, value)| format!("{key:?}:{value:?}")).collect();
            let _infallible = writeln!(out, "# labels: {{{}}}", labels.join(", "));
        }
        for site in &sample.frames {
            let _infallible = match site.file.as_str() {
                "" => writeln!(out, "#\t{}", site.function),
                file => writeln!(out, "#\t{}\t{file}:{}", site.function, site.line),
            };
        }
        out.push('\n');
    }
    out
}

/// `?debug=2`: a block for each task, `goroutine 4 [mutex, 3 minutes]:`, as tools for dumps of Go programs read it.
pub(crate) fn blocks<'t>(tasks: impl IntoIterator<Item = &'t Task>) -> String {
    let mut out = String::new();
    for task in tasks {
        let doing = wait_of(task).map_or_else(|| name(&task.state), |kind| kind.name().to_owned());
        let waited = task.waiting.map_or(0, |waiting| waiting.at_least_ms / 60_000);
        let waited = if waited > 0 { format!(", {waited} minutes") } else { String::new() };
        let _infallible = writeln!(out, "goroutine {} [{}{waited}]:", task.id, doing.replace('_', " "));
        for site in task_frames(task) {
            let _infallible = writeln!(out, "{}()", site.function);
            if !site.file.is_empty() {
                let _infallible = writeln!(out, "\t{}:{}", site.file, site.line);
            }
        }
        out.push('\n');
    }
    out
}
