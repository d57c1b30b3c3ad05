//! Images of earlier captures that have ended and that nothing has reaped, because the helper was killed.

use std::fs::{read, read_to_string};

use super::handle::Process;
use super::task_files::{Stat, Status};

/// The most children that are examined.
const MOST_CHILDREN: usize = 1 << 12;

/// Finds such images among the children of these threads. Returns their ids in the process's own pid namespace.
pub(super) fn find(process: &Process, threads: &[i32]) -> Vec<i32> {
    let level = Status::ids(&process.read("status").unwrap_or_default()).len();
    let mut buffer = vec![0; 16 << 10];
    let mut found = Vec::new();
    for tid in threads {
        let children = process.files().read(*tid, "children", &mut buffer).unwrap_or_default();
        let children = String::from_utf8_lossy(children);
        let ids = children.split_whitespace().take(MOST_CHILDREN).filter_map(|id| id.parse().ok());
        found.extend(ids.filter_map(|child: i32| own_id_of_image(child, level)));
    }
    found
}

/// The id of `child` in the pid namespace at this level, if it is an image that has ended.
fn own_id_of_image(child: i32, level: usize) -> Option<i32> {
    let stat = Stat::parse(&read(format!("/proc/{child}/stat")).ok()?)?;
    // The parent gets no signal at its end, and it was to be killed first if memory ran out (`stop/image.rs`).
    if stat.state != b'Z' || stat.exit_signal != Some(0) {
        return None;
    }
    let marked =
        read_to_string(format!("/proc/{child}/oom_score_adj")).is_ok_and(|text| text.trim() == "1000");
    let ids = Status::ids(&read(format!("/proc/{child}/status")).ok()?);
    ids.get(level.checked_sub(1)?).copied().filter(|id| marked && *id > 0)
}
