//! Since when tasks have waited: of each capture, the next one keeps a few bytes for each task.

use std::hash::{Hash, Hasher};
use std::sync::Mutex;

use rustc_hash::{FxHashMap, FxHasher};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::memory::Memory;
use super::{Frame, LeafPlace, WaitsOn};
use crate::host::lock::lock;
use crate::snapshot::Address;

/// Bytes of a future that are compared. What lies beyond seldom changes alone.
const MAX_FUTURE: u64 = 2048;
/// Bytes of a leaf, and of the resource that it waits for, that are compared: counters of messages and lists of waiters
/// are in the first cache lines.
const MAX_RESOURCE: u64 = 256;
/// Waits of one task that are compared.
const MAX_WAITS: usize = 16;

/// How long a task has waited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[non_exhaustive]
pub struct Waiting {
    /// In milliseconds. Since that time, every capture has found the task with the same variables, in the same wait, and
    /// what it waits for unchanged. A task that was woken in between and has returned to exactly this state is not told
    /// apart.
    pub at_least_ms: u64,
    /// It is not only the time since an earlier capture, but since the task began to wait.
    pub exact: bool,
}

/// What the last capture has seen of the tasks that waited: 16 bytes for each.
#[derive(Debug, Default)]
pub(crate) struct History {
    entries: Mutex<Vec<Entry>>,
}

/// A task that waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    /// The task's id; of a main future, its address.
    task: u64,
    /// What it looked like.
    fingerprint: u32,
    /// Since when, in units of [`UNIT`] nanoseconds of the monotonic clock.
    since: u32,
}

/// A tenth of a second, in nanoseconds: 32 bits last for thirteen years.
const UNIT: u64 = 100_000_000;

impl History {
    /// Begins a capture that was made at `now`, in nanoseconds of the monotonic clock.
    pub(super) fn begin(&self, now: u64) -> Recent<'_> {
        let before = std::mem::take(&mut *lock(&self.entries));
        Recent {
            history: self,
            next: Vec::with_capacity(before.len()),
            before,
            now,
            stacks: FxHashMap::default(),
        }
    }
}

/// One capture, compared with the one before it. When it is dropped, the next one is compared with it.
pub(super) struct Recent<'h> {
    history: &'h History,
    /// Ordered.
    before: Vec<Entry>,
    next: Vec<Entry>,
    now: u64,
    /// Hashes of stacks that tasks share, by their place.
    stacks: FxHashMap<*const Frame, u64>,
}

impl Recent<'_> {
    /// Since when a task has looked as it does now; `None` if that is new.
    pub(super) fn waiting(&mut self, task: u64, fingerprint: u32) -> Option<Waiting> {
        let first =
            self.before.partition_point(|entry| (entry.task, entry.fingerprint) < (task, fingerprint));
        let known =
            self.before.get(first).filter(|entry| (entry.task, entry.fingerprint) == (task, fingerprint));
        // Rounded so that the time is never too long.
        let since = known.map_or_else(|| (self.now.div_ceil(UNIT)) as u32, |known| known.since);
        self.next.push(Entry { task, fingerprint, since });
        let passed = self.now.checked_sub(u64::from(known?.since) * UNIT)?;
        Some(Waiting { at_least_ms: passed / 1_000_000, exact: false })
    }

    /// What a task that waits looks like: its stack, its variables as far as they are in its future of `size` bytes at
    /// `address`, its waits and what it waits for.
    pub(super) fn fingerprint(
        &mut self,
        memory: &Memory<'_>,
        stack: &[Frame],
        (address, size): (Address, u64),
        waits: (&[WaitsOn], &[LeafPlace]),
    ) -> u32 {
        let mut hasher = FxHasher::default();
        let shared = self.stacks.entry(stack.as_ptr()).or_insert_with(|| {
            let mut hasher = FxHasher::default();
            stack.hash(&mut hasher);
            hasher.finish()
        });
        hasher.write_u64(*shared);
        let mut bytes = |address: Address, length: u64| {
            memory.visit_range(address, length, |bytes| hasher.write(bytes));
        };
        bytes(address, size.min(MAX_FUTURE));
        for leaf in waits.1.iter().take(MAX_WAITS) {
            // Most leaves are within the future.
            if !(address..address.saturating_add(size.min(MAX_FUTURE))).contains(&leaf.at) {
                bytes(leaf.at, MAX_RESOURCE / 4);
            }
            let places = [leaf.address, leaf.resource.filter(|resource| Some(*resource) != leaf.address)];
            places.into_iter().flatten().for_each(|place| bytes(place, MAX_RESOURCE));
        }
        for wait in waits.0.iter().take(MAX_WAITS) {
            (wait.kind, wait.address, wait.deadline, wait.available, wait.arrived, wait.senders)
                .hash(&mut hasher);
        }
        (hasher.finish() >> 32) as u32
    }
}

impl Drop for Recent<'_> {
    fn drop(&mut self) {
        let mut next = std::mem::take(&mut self.next);
        next.sort_unstable();
        next.shrink_to_fit();
        *lock(&self.history.entries) = next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn at_least(history: &History, now: u64, tasks: &[(u64, u32)]) -> Vec<Option<u64>> {
        let mut recent = history.begin(now);
        let of = tasks.iter().map(|(task, fingerprint)| recent.waiting(*task, *fingerprint));
        of.map(|waiting| waiting.map(|waiting| waiting.at_least_ms)).collect()
    }

    #[test]
    fn the_time_counts_from_the_first_capture_that_has_seen_a_task_as_it_is() {
        let history = History::default();
        let begun = 500 * SECOND;
        assert_eq!(at_least(&history, begun, &[(7, 1), (9, 1)]), [None, None]);
        assert_eq!(at_least(&history, begun + 2 * SECOND, &[(9, 1), (7, 2)]), [Some(2000), None]);
        assert_eq!(at_least(&history, begun + 5 * SECOND, &[(7, 2), (9, 1)]), [Some(3000), Some(5000)]);
        // A task that was not seen to wait in between starts anew.
        assert_eq!(at_least(&history, begun + 6 * SECOND, &[(9, 1)]), [Some(6000)]);
        assert_eq!(at_least(&history, begun + 7 * SECOND, &[(7, 2)]), [None]);
    }

    #[test]
    fn the_time_is_never_too_long() {
        let history = History::default();
        let begun = 500 * SECOND + 1;
        at_least(&history, begun, &[(7, 1)]);
        assert_eq!(at_least(&history, begun + SECOND, &[(7, 1)]), [Some(900)]);
        assert_eq!(at_least(&history, 3, &[(7, 1)]), [None], "the clock is another one");
    }
}
