//! Predicts what an image of another process costs it.

use std::time::Duration;

use super::handle::Process;
use super::task_files::Status;
use crate::host::memory_left::{memory_left_in, strict_commit_left};
use crate::host::proc_text::size_field;
use crate::targets::fork_rates::{
    FORK_NS_PER_HUGE_MB, FORK_NS_PER_MAPPING, FORK_NS_PER_MB, LEAST_MEASURED_MB, RESERVE,
};

/// Nanoseconds to stop a thread and to have it make the call.
const STOP_NS: u64 = 500_000;
/// Bytes of page tables that one call of the kernel copies without a check of the limit.
const SLACK: u64 = RESERVE;

/// The predicted cost of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Forecast {
    /// How long one thread is stopped, and how long threads wait that allocate memory.
    pub(super) pause: Duration,
    /// Anonymous memory in bytes.
    pub(super) anonymous: u64,
    needed: u64,
    /// Bytes that may still be used, and the limit that applies.
    headroom: Option<(u64, &'static str)>,
}

impl Forecast {
    pub(super) fn of(process: &Process, status: &Status, mappings: usize) -> Self {
        let anonymous = status.anonymous;
        let small = Self::new(anonymous, 0, status, mappings, process);
        // Reading how much is in huge pages takes milliseconds per gigabyte.
        if small.pause < Duration::from_millis(10) || anonymous >> 20 < LEAST_MEASURED_MB {
            return small;
        }
        Self::new(anonymous, huge_bytes(process).unwrap_or(0).min(anonymous), status, mappings, process)
    }

    fn new(anonymous: u64, huge: u64, status: &Status, mappings: usize, process: &Process) -> Self {
        let nanos = STOP_NS
            .saturating_add((anonymous.saturating_sub(huge) >> 20).saturating_mul(FORK_NS_PER_MB))
            .saturating_add((huge >> 20).saturating_mul(FORK_NS_PER_HUGE_MB))
            .saturating_add((mappings as u64).saturating_mul(FORK_NS_PER_MAPPING));
        // Programs write few of their pages while an image exists: assume a tenth. If memory runs out, the kernel kills
        // the image first.
        let needed = status.page_tables.saturating_add(anonymous / 10).saturating_add(SLACK);
        let cgroup = process.read("cgroup").unwrap_or_default();
        let headroom = match strict_commit_left() {
            // With vm.overcommit_memory=2 a fork counts all private writable memory again.
            Some(left) if left < anonymous => Some((left, "the system's commit limit")),
            _ => memory_left_in(&String::from_utf8_lossy(&cgroup)),
        };
        Self { pause: Duration::from_nanos(nanos), anonymous, needed, headroom }
    }

    /// Why no image may be taken.
    pub(super) fn objection(&self, max_pause: Duration) -> Option<String> {
        let megabytes = |bytes: u64| bytes >> 20;
        if self.pause > max_pause {
            return Some(format!(
                "an image would stop it for about {} ms ({} MB of memory), more than the {} ms allowed: raise --max-pause",
                self.pause.as_millis(),
                megabytes(self.anonymous),
                max_pause.as_millis()
            ));
        }
        let (available, limit) = self.headroom.filter(|(available, _)| *available < self.needed)?;
        Some(format!(
            "an image may need {} MB, {limit} leaves {} MB: give the program more memory",
            megabytes(self.needed),
            megabytes(available)
        ))
    }
}

/// Anonymous memory in huge pages.
fn huge_bytes(process: &Process) -> Option<u64> {
    size_field(&String::from_utf8_lossy(&process.read("smaps_rollup").ok()?), "AnonHugePages:")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_that_costs_too_much_is_refused_with_figures() {
        let mut forecast = Forecast {
            pause: Duration::from_millis(80),
            anonymous: 2 << 30,
            needed: 300 << 20,
            headroom: Some((100 << 20, "the cgroup's memory limit")),
        };
        let text = forecast.objection(Duration::from_millis(50)).unwrap();
        assert!(text.contains("about 80 ms (2048 MB of memory), more than the 50 ms allowed"), "{text}");
        let text = forecast.objection(Duration::from_millis(90)).unwrap();
        assert!(text.contains("may need 300 MB, the cgroup's memory limit leaves 100 MB"), "{text}");
        forecast.headroom = Some((400 << 20, "the cgroup's memory limit"));
        assert_eq!(forecast.objection(Duration::from_millis(90)), None);
    }
}
