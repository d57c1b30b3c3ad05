//! Predicts the cost of a fork.

use std::ffi::CString;
use std::fs::{File, read_to_string};
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStringExt as _;
#[cfg(test)]
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::child::anonymous_bytes;
use super::{huge_memory, own_mappings};
use crate::host::lock::lock;
use crate::host::memory_left::{memory_left, strict_commit_left, tightest_cgroup};
use crate::host::proc_text::size_field;
use crate::targets::fork_rates::{
    FORK_NS_PER_HUGE_MB, FORK_NS_PER_MAPPING, FORK_NS_PER_MB, LEAST_MEASURED_MB, RESERVE,
};
use crate::targets::{Prediction, SnapshotError};

/// Rates of the last forks of this process, and [`FORK_NS_PER_MB`] until there are some. The median is used, so that one fork that was interrupted does not prevent
/// the next.
static FORKS: Mutex<Forks> = Mutex::new(Forks { rates: [FORK_NS_PER_MB; 5], next: 0, last: None });
/// After this time, slow forks are ignored: while they cause forks to be refused, nothing new is measured.
const EXPIRY: Duration = Duration::from_secs(60);
/// Nanoseconds to stop and resume one thread.
const FREEZE_NS_PER_THREAD: u64 = 35_000;

/// Predicts a fork, and the stop of `threads` active threads.
pub(crate) fn predict(threads: usize) -> Result<Prediction, SnapshotError> {
    let status = read_to_string("/proc/self/status").map_err(SnapshotError::proc("/proc/self/status"))?;
    let size = |key: &str| size_field(&status, key).unwrap_or(0);
    let anonymous = size("RssAnon:");
    let mappings = own_mappings()?;
    // With little memory, huge pages make no difference.
    let huge =
        if anonymous >> 20 >= LEAST_MEASURED_MB { huge_memory::bytes(&mappings).unwrap_or(0) } else { 0 };
    let huge = huge.min(anonymous);
    let nanos = 500_000_u64
        .saturating_add(((anonymous - huge) >> 20).saturating_mul(lock(&FORKS).rate(Instant::now())))
        .saturating_add((huge >> 20).saturating_mul(FORK_NS_PER_HUGE_MB))
        .saturating_add((mappings.len() as u64).saturating_mul(FORK_NS_PER_MAPPING))
        .saturating_add((threads as u64).saturating_mul(FREEZE_NS_PER_THREAD));
    // Programs write few of their pages while an image exists. Assume a tenth; if they write more, the child exits before
    // memory runs out.
    let needed = size("VmPTE:").saturating_add(anonymous / 10).saturating_add(RESERVE);
    let commit = strict_commit_left().filter(|_| anonymous > 0);
    let needed_if_committed = size("VmData:").saturating_add(size("VmStk:"));
    let headroom = match commit {
        // With vm.overcommit_memory=2 a fork counts all private writable memory again.
        Some(left) if left < needed_if_committed => Some((0, "the system's commit limit")),
        _ => memory_left(),
    };
    Ok(Prediction { pause: Duration::from_nanos(nanos), anonymous, huge, needed, headroom })
}

/// Records how long a fork took, for later predictions.
pub(super) fn observe(prediction: &Prediction, taken: Duration) {
    let megabytes = prediction.anonymous.saturating_sub(prediction.huge) >> 20;
    let of_huge = (prediction.huge >> 20).saturating_mul(FORK_NS_PER_HUGE_MB);
    // If most memory is in huge pages, the rate of the rest cannot be measured.
    if megabytes >= LEAST_MEASURED_MB && megabytes >= prediction.huge >> 24 {
        let rate = u64::try_from(taken.as_nanos()).unwrap_or(u64::MAX).saturating_sub(of_huge) / megabytes;
        lock(&FORKS).add(rate.min(1_000_000), Instant::now());
    }
}

/// The last forks of this process.
struct Forks {
    /// Nanoseconds per megabyte. A ring: `next` is the oldest.
    rates: [u64; 5],
    next: usize,
    last: Option<Instant>,
}

impl Forks {
    fn add(&mut self, rate: u64, now: Instant) {
        if let Some(oldest) = self.rates.get_mut(self.next) {
            *oldest = rate;
        }
        self.next = (self.next + 1) % self.rates.len();
        self.last = Some(now);
    }

    fn rate(&self, now: Instant) -> u64 {
        let mut rates = self.rates;
        rates.sort_unstable();
        let [.., median, _, _] = rates;
        let is_old = self.last.is_none_or(|last| now.duration_since(last) > EXPIRY);
        if is_old { median.min(FORK_NS_PER_MB) } else { median }
    }
}

/// The memory limit that a child observes.
#[derive(Debug)]
pub(super) struct Watch {
    /// The cgroup's `memory.stat`; `None` without a limit.
    path: Option<CString>,
    /// If the anonymous memory in the file exceeds this, in bytes, the child exits.
    pub(super) ceiling: u64,
}

impl Watch {
    /// The limit of this process's cgroup.
    pub(super) fn new() -> Self {
        let nothing = Self { path: None, ceiling: u64::MAX };
        let Some((left, directory)) = tightest_cgroup() else { return nothing };
        let path = directory.join("memory.stat");
        let Ok(file) = File::open(&path) else { return nothing };
        let Some(now) = anonymous_bytes(file.as_fd()) else { return nothing };
        let ceiling = now.saturating_add(left.saturating_sub(RESERVE / 2));
        Self { path: CString::new(path.into_os_string().into_vec()).ok(), ceiling }
    }

    #[cfg(test)]
    pub(super) fn with_file(path: &Path, ceiling: u64) -> Self {
        Self { path: Some(CString::new(path.as_os_str().as_encoded_bytes()).unwrap()), ceiling }
    }

    /// Address of the path, in this process and in a forked child; 0 without a path.
    pub(super) fn path_address(&self) -> u64 {
        self.path.as_ref().map_or(0, |path| path.as_ptr().expose_provenance() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_slow_fork_does_not_change_the_rate() {
        let now = Instant::now();
        let mut forks = Forks { rates: [FORK_NS_PER_MB; 5], next: 0, last: None };
        forks.add(1_000_000, now);
        assert_eq!(forks.rate(now), FORK_NS_PER_MB);
        forks.add(90_000, now);
        forks.add(80_000, now);
        assert_eq!(forks.rate(now), 80_000, "three of five");
        assert_eq!(forks.rate(now + EXPIRY * 2), FORK_NS_PER_MB, "the measurements have expired");
    }

    #[test]
    fn a_fork_of_this_process_is_predicted() {
        let prediction = predict(10).unwrap();
        assert!(prediction.anonymous > 0);
        assert!(prediction.pause > Duration::ZERO);
        assert!(prediction.needed > RESERVE);
    }
}
