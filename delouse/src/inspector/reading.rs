//! What the first answers read, for clients that wait.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::host::unoptimized;
use crate::targets;

/// What was read for earlier answers. It may have been dropped since: the next answer then takes as long, but a client
/// has been told before.
#[derive(Default)]
pub(super) struct Reading {
    types: AtomicBool,
    lines: AtomicBool,
}

impl Reading {
    /// Types were read.
    pub(super) fn has_types(&self) {
        self.types.store(true, Ordering::Relaxed);
    }

    /// Lines were read.
    pub(super) fn has_lines(&self) {
        self.lines.store(true, Ordering::Relaxed);
    }

    /// What is being read for an answer, if that is the first one to need it.
    pub(super) fn describe(&self) -> Option<String> {
        if self.types.load(Ordering::Relaxed) && self.lines.load(Ordering::Relaxed) {
            return None;
        }
        let own = targets::own_object().ok()?;
        let megabytes = fs::metadata(&own.opened).ok()?.len() / 1_000_000;
        Some(describe(&own.mapped.display().to_string(), megabytes, unoptimized::IS_UNOPTIMIZED))
    }
}

fn describe(file: &str, megabytes: u64, is_unoptimized: bool) -> String {
    let remedy = match is_unoptimized {
        true => format!("; delouse is compiled without optimisation: {}", unoptimized::REMEDY),
        false => String::new(),
    };
    format!(
        "still reading debug information of {file} ({megabytes} MB) for the first answer; the next ones will be quicker{remedy}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_told_what_is_read_until_all_is() {
        let reading = Reading::default();
        let own = std::env::current_exe().unwrap();
        reading.has_lines();
        assert!(reading.describe().is_some_and(|text| text.contains(&own.display().to_string())));
        reading.has_types();
        assert_eq!(reading.describe(), None);
        assert_eq!(
            describe("/app", 206, false),
            "still reading debug information of /app (206 MB) for the first answer; the next ones will be quicker"
        );
        assert!(describe("/app", 206, true).ends_with(unoptimized::REMEDY));
    }
}
