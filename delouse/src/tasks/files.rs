//! What the descriptors are that tasks wait for: which connection, which pipe.
//!
//! The one thing that is not in memory. It is asked of the kernel after the capture, so it is told of
//! ourselves only, and a descriptor that was closed in between has lost its file.

use std::collections::BTreeMap;

use super::Task;
use crate::snapshot;

/// Descriptors that are asked about at most: each takes some microseconds.
const MAX_FILES: usize = 1 << 14;

/// Adds the file to every wait for a descriptor. Returns a note where some are left out.
pub(super) fn describe(tasks: &mut [Task]) -> Option<String> {
    let mut files = BTreeMap::new();
    let mut left_out = false;
    for waits in tasks.iter_mut().flat_map(|task| &mut task.waits_on) {
        let Some(fd) = waits.fd else { continue };
        if files.len() >= MAX_FILES && !files.contains_key(&fd) {
            left_out = true;
            continue;
        }
        let file = files.entry(fd).or_insert_with(|| snapshot::open_file(fd));
        if let Some(file) = file {
            waits.file = Some(file.what.clone());
            waits.local.clone_from(&file.local);
            waits.peer.clone_from(&file.peer);
        }
    }
    left_out.then(|| format!("addresses of sockets are told for the first {MAX_FILES} descriptors only"))
}
