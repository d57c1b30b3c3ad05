//! The limit of open files is near.

use std::collections::BTreeMap;

use super::{Finding, FindingKind, Severity, words};
use crate::snapshot::files::{Files, SPARE};
use crate::snapshot::limits;
use crate::tasks::{ResourceKind, Task};

/// Percent of the limit from which on it is near.
const NEAR: u64 = 90;
/// Groups of tasks that are told.
const GROUPS: usize = 3;

/// The finding, where the limit is near.
pub(crate) fn check(files: &Files, tasks: &[Task]) -> Option<Finding> {
    let limit = files.limit?;
    let open = files.open as u64;
    let few_are_left = limit.saturating_sub(open) < SPARE as u64;
    if open.saturating_mul(100) < limit.saturating_mul(NEAR) && !few_are_left {
        return None;
    }
    let holders = holders(tasks);
    let most = match holders.first() {
        Some((place, ids)) => format!(": {} wait for I/O at {place}", words::count(ids.len(), "task")),
        None => String::new(),
    };
    let mut kinds: Vec<_> = files.kinds.iter().collect();
    kinds.sort_by_key(|(_, n)| std::cmp::Reverse(**n));
    let kinds: Vec<String> = kinds.into_iter().map(|(kind, n)| format!("{n} {kind}")).collect();
    let mut evidence = vec![format!("open are {}", kinds.join(", "))];
    evidence.extend(holders.iter().take(GROUPS).map(|(place, ids)| {
        format!("{} at {place} for a socket or pipe of their own: {}", waits(ids.len()), words::ids(ids))
    }));
    let mut tasks: Vec<u64> = holders.into_iter().take(1).flat_map(|(_, ids)| ids).collect();
    tasks.sort_unstable();
    Some(Finding {
        kind: FindingKind::FileDescriptors,
        severity: Severity::Suspected,
        summary: format!("{open} files are open, of {limit} that may be{most}"),
        tasks,
        evidence,
        remedy: Some(format!(
            "close what is not needed any more (timeouts for idle connections), or raise the limit: now with {}, \
             for ever with ulimit -n or LimitNOFILE= of systemd",
            limits::more_files()
        )),
    })
}

fn waits(tasks: usize) -> String {
    if tasks == 1 { "1 task waits".to_owned() } else { format!("{tasks} tasks wait") }
}

/// Tasks that wait for a file descriptor, by where, the most first.
fn holders(tasks: &[Task]) -> Vec<(String, Vec<u64>)> {
    let mut places: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for task in tasks {
        let io = task.waits_on.iter().any(|waits| waits.kind == ResourceKind::Io && waits.fd.is_some());
        if let Some(frame) = words::user_frame(&task.stack).filter(|_| io) {
            places.entry(words::frame_at(frame)).or_default().push(task.id);
        }
    }
    let mut places: Vec<_> = places.into_iter().collect();
    places.sort_by_key(|(_, ids)| std::cmp::Reverse(ids.len()));
    places
}

#[cfg(test)]
mod tests {
    use super::super::made_up;
    use super::*;

    fn files(open: usize, limit: Option<u64>) -> Files {
        let kinds = [("sockets".to_owned(), open - 3), ("files".to_owned(), 3)].into();
        Files { open, limit, kinds }
    }

    #[test]
    fn near_the_limit_and_who_holds_them() {
        let mut tasks = vec![made_up::task(1, "app::main_loop", 7)];
        for id in 2..90 {
            let mut task = made_up::task(id, "app::connection", 31);
            task.waits_on = vec![made_up::io(id as i32)];
            tasks.push(task);
        }
        let finding = check(&files(90, Some(100)), &tasks).unwrap();
        assert_eq!(
            finding.summary,
            "90 files are open, of 100 that may be: 88 tasks wait for I/O at app::connection at \
             src/main.rs:31"
        );
        assert_eq!(finding.tasks, (2..90).collect::<Vec<_>>());
        assert_eq!(finding.evidence[0], "open are 87 sockets, 3 files");
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
