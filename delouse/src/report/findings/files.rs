//! Open files near their limit.

use crate::report::format::count;
use crate::waits::{Evidence, Finding};

pub(super) fn summary(finding: &Finding) -> String {
    let Some(Evidence::OpenFiles { open, limit, .. }) = finding.evidence.first() else {
        return String::new();
    };
    let most = finding.evidence.iter().find_map(|fact| match fact {
        Evidence::IoAt { place, tasks } => {
            Some(format!(": {} wait for I/O at {place}", count(tasks.count, "task")))
        }
        _ => None,
    });
    format!("{open} files are open, of at most {limit}{}", most.unwrap_or_default())
}

pub(super) fn remedy(finding: &Finding) -> Option<String> {
    let Some(Evidence::OpenFiles { pid, .. }) = finding.evidence.first() else { return None };
    Some(format!(
        "close what is not needed any more (timeouts for idle connections), or raise the limit: now with \
         prlimit --pid {pid} --nofile=65536, for ever with ulimit -n or LimitNOFILE= of systemd"
    ))
}
