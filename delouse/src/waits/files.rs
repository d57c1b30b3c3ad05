//! The limit of open files is near.

use std::collections::BTreeMap;

use super::{CodeLocation, Evidence, Finding, FindingKind, Severity, TaskIds, location};
use crate::host::descriptors::SPARE;
use crate::host::open_files::OpenFiles;
use crate::tasks::{ResourceKind, Task};

/// Percent of the limit from which on it is near.
const NEAR: u64 = 90;
/// Groups of tasks that are listed.
const GROUPS: usize = 3;

/// The finding, where the limit is near.
pub(crate) fn check(files: &OpenFiles, tasks: &[Task]) -> Option<Finding> {
    let limit = files.limit?;
    let few_are_left = limit.saturating_sub(files.open as u64) < SPARE as u64;
    if (files.open as u64).saturating_mul(100) < limit.saturating_mul(NEAR) && !few_are_left {
        return None;
    }
    let holders = holders(tasks);
    let tasks = holders.first().map(|(_, ids)| ids.clone()).unwrap_or_default();
    let OpenFiles { pid, open, kinds, .. } = files.clone();
    let mut evidence = vec![Evidence::OpenFiles { pid, open, limit, kinds }];
    let listed = holders.into_iter().take(GROUPS);
    evidence.extend(listed.map(|(place, ids)| Evidence::IoAt { place, tasks: TaskIds::of(ids) }));
    Some(Finding { kind: FindingKind::FileDescriptors, severity: Severity::Suspected, tasks, evidence })
}

/// Tasks that wait for a file descriptor, by where, the most first.
fn holders(tasks: &[Task]) -> Vec<(CodeLocation, Vec<u64>)> {
    let mut places: BTreeMap<CodeLocation, Vec<u64>> = BTreeMap::new();
    for task in tasks {
        let io = task.waits_on.iter().any(|waits| waits.kind == ResourceKind::Io && waits.fd.is_some());
        if let Some(frame) = location::user_frame(&task.stack).filter(|_| io) {
            places.entry(CodeLocation::of_frame(frame)).or_default().push(task.id);
        }
    }
    places.values_mut().for_each(|ids| ids.sort_unstable());
    let mut places: Vec<_> = places.into_iter().collect();
    places.sort_by_key(|(_, ids)| std::cmp::Reverse(ids.len()));
    places
}

#[cfg(test)]
mod tests {
    use super::super::fixtures;
    use super::*;
    use crate::report::FindingReport;

    fn files(open: usize, limit: Option<u64>) -> OpenFiles {
        let kinds = [("sockets".to_owned(), open - 3), ("files".to_owned(), 3)].into();
        OpenFiles { pid: 7, open, limit, kinds }
    }

    #[test]
    fn near_the_limit_and_what_holds_them() {
        let mut tasks = vec![fixtures::task(1, "app::main_loop", 7)];
        for id in 2..90 {
            let mut task = fixtures::task(id, "app::connection", 31);
            task.waits_on = vec![fixtures::io(id as i32)];
            tasks.push(task);
        }
        let finding = FindingReport::from(check(&files(90, Some(100)), &tasks).unwrap());
        assert_eq!(
            finding.summary,
            "90 files are open, of at most 100: 88 tasks wait for I/O at app::connection at \
             src/main.rs:31"
        );
        assert_eq!(finding.tasks, (2..90).collect::<Vec<_>>());
        assert_eq!(finding.evidence[0], "open are 87 sockets, 3 files");
        assert!(finding.remedy.unwrap().contains("prlimit --pid 7 "));
    }

    #[test]
    fn far_from_the_limit_or_without_one() {
        assert_eq!(check(&files(890, Some(1000)), &[]), None);
        assert_eq!(check(&files(48, Some(64)), &[]), None);
        assert!(check(&files(49, Some(64)), &[]).is_some(), "too few are left for a capture");
        assert_eq!(check(&files(1_000_000, None), &[]), None);
        assert_eq!(check(&files(1000, Some(20_000)), &[]), None);
        assert!(check(&files(usize::MAX, Some(u64::MAX)), &[]).is_some());
    }
}
