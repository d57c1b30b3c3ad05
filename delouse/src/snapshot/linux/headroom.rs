//! What a fork would cost, before it is made.

use std::ffi::CString;
use std::fs::{File, read_to_string};
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::child::anonymous_bytes;
use super::proc::{decimal, status_field};
use super::{huge_pages, maps};
use crate::snapshot::{Prediction, SnapshotError};

/// Nanoseconds that a fork takes for a megabyte of anonymous memory, before this process has made any: a cautious
/// guess (35 ms/GB was measured with 4K pages on a small virtual machine).
const FORK_NS_PER_MB: u64 = 35_000;
/// What this process's own last forks took. Their median: one that was interrupted must not rule the next out.
static FORKS: Mutex<Forks> = Mutex::new(Forks { rates: [FORK_NS_PER_MB; 5], next: 0, last: None });
/// After that long a slow fork is forgotten: while forks are refused for it, no other can tell better.
const FORGOTTEN: Duration = Duration::from_secs(60);
/// And for a megabyte in huge pages.
const FORK_NS_PER_HUGE_MB: u64 = 1_500;
/// And for a mapping.
const FORK_NS_PER_MAPPING: u64 = 1_100;
/// What stopping and waking one thread takes.
const FREEZE_NS_PER_THREAD: u64 = 35_000;
/// A fork of less memory says little about its rate.
const TELLING_MB: u64 = 64;
/// Kept free in any case.
const RESERVE: u64 = 16 << 20;

/// Predicts a fork: with its freeze, if that keeps `threads` from going on.
pub(crate) fn predict(threads: usize) -> Result<Prediction, SnapshotError> {
    let status = read_to_string("/proc/self/status").map_err(|error| {
        SnapshotError::Proc("/proc/self/status", error.raw_os_error().unwrap_or(libc::EIO))
    })?;
    let kilobytes = |key: &str| {
        let value = status_field(status.as_bytes(), key.as_bytes()).and_then(decimal);
        value.unwrap_or(0).saturating_mul(1024)
    };
    let anonymous = kilobytes("RssAnon:");
    let mappings = maps::own()?;
    // Where there is little, it makes no difference.
    let huge = if anonymous >> 20 >= TELLING_MB { huge_pages::bytes(&mappings).unwrap_or(0) } else { 0 };
    let huge = huge.min(anonymous);
    let nanos = 500_000_u64
        .saturating_add(((anonymous - huge) >> 20).saturating_mul(forks().rate(Instant::now())))
        .saturating_add((huge >> 20).saturating_mul(FORK_NS_PER_HUGE_MB))
        .saturating_add((mappings.len() as u64).saturating_mul(FORK_NS_PER_MAPPING))
        .saturating_add((threads as u64).saturating_mul(FREEZE_NS_PER_THREAD));
    // Programs write few of their pages in the moments that an image lives: a tenth is allowed for, and
    // the child ends by itself when it becomes more than there is.
    let needed = kilobytes("VmPTE:").saturating_add(anonymous / 10).saturating_add(RESERVE);
    let commit = strict_commit_left().filter(|_| anonymous > 0);
    let needed_if_committed = kilobytes("VmData:").saturating_add(kilobytes("VmStk:"));
    let headroom = match commit {
        // With vm.overcommit_memory=2 a fork counts all private writable memory again.
        Some(left) if left < needed_if_committed => Some((0, "the system's commit limit")),
        _ => memory_left(),
    };
    Ok(Prediction { pause: Duration::from_nanos(nanos), anonymous, huge, needed, headroom })
}

/// Learns from a fork that `prediction` was made for, and that took `taken`.
pub(super) fn observe(prediction: &Prediction, taken: Duration) {
    let megabytes = prediction.anonymous.saturating_sub(prediction.huge) >> 20;
    let of_huge = (prediction.huge >> 20).saturating_mul(FORK_NS_PER_HUGE_MB);
    // Of little beside much, the rest of the time tells nothing.
    if megabytes >= TELLING_MB && megabytes >= prediction.huge >> 24 {
        let rate = u64::try_from(taken.as_nanos()).unwrap_or(u64::MAX).saturating_sub(of_huge) / megabytes;
        forks().add(rate.min(1_000_000), Instant::now());
    }
}

/// Nanoseconds per megabyte.
struct Forks {
    rates: [u64; 5],
    next: usize,
    last: Option<Instant>,
}

fn forks() -> MutexGuard<'static, Forks> {
    FORKS.lock().unwrap_or_else(PoisonError::into_inner)
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
        let is_old = self.last.is_none_or(|last| now.duration_since(last) > FORGOTTEN);
        if is_old { median.min(FORK_NS_PER_MB) } else { median }
    }
}

/// What the child watches while it lives.
#[derive(Debug)]
pub(super) struct Watch {
    /// The cgroup's `memory.stat`.
    path: Option<CString>,
    pub(super) ceiling: u64,
}

impl Watch {
    /// The cgroup's `memory.stat` and how high its anonymous memory may rise.
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
    pub(super) fn of(path: &Path, ceiling: u64) -> Self {
        Self { path: Some(CString::new(path.as_os_str().as_encoded_bytes()).unwrap()), ceiling }
    }

    /// Where the path is in memory, and in that of a child; 0 where there is none.
    pub(super) fn path_address(&self) -> u64 {
        self.path.as_ref().map_or(0, |path| path.as_ptr().expose_provenance() as u64)
    }
}

/// Memory that is left to this process, and by whose limit.
pub(crate) fn memory_left() -> Option<(u64, &'static str)> {
    let system = meminfo("MemAvailable:").map(|bytes| (bytes, "the system's memory"));
    let cgroup = tightest_cgroup().map(|(bytes, _)| (bytes, "the cgroup's memory limit"));
    let commit = strict_commit_left().map(|bytes| (bytes, "the system's commit limit"));
    [system, cgroup, commit].into_iter().flatten().min_by_key(|&(bytes, _)| bytes)
}

/// Under `vm.overcommit_memory=2`: what may still be committed.
fn strict_commit_left() -> Option<u64> {
    let mode = read_to_string("/proc/sys/vm/overcommit_memory").ok()?;
    if mode.trim() != "2" {
        return None;
    }
    Some(meminfo("CommitLimit:")?.saturating_sub(meminfo("Committed_AS:")?))
}

fn meminfo(key: &str) -> Option<u64> {
    let text = read_to_string("/proc/meminfo").ok()?;
    Some(status_field(text.as_bytes(), key.as_bytes()).and_then(decimal)?.saturating_mul(1024))
}

/// The memory cgroup, of this process's and those above it, with the least left, and its directory.
fn tightest_cgroup() -> Option<(u64, PathBuf)> {
    let text = read_to_string("/proc/self/cgroup").ok()?;
    let (root, own) = memory_cgroup(&text)?;
    // In a container the path may be the host's: its own is then what is mounted.
    let mut directory = root.join(own.trim_start_matches('/'));
    if !directory.is_dir() {
        directory = root.clone();
    }
    let mut tightest: Option<(u64, PathBuf)> = None;
    while directory.starts_with(&root) {
        if let Some(left) = left_in(&directory)
            && tightest.as_ref().is_none_or(|(least, _)| left < *least)
        {
            tightest = Some((left, directory.clone()));
        }
        if !directory.pop() {
            break;
        }
    }
    tightest
}

/// From `/proc/self/cgroup` (cgroups(7)): where the memory controller is mounted by convention, and the
/// path below.
fn memory_cgroup(text: &str) -> Option<(PathBuf, &str)> {
    let mut version_2 = None;
    for line in text.lines() {
        let mut fields = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (fields.next(), fields.next(), fields.next()) else {
            continue;
        };
        if controllers.split(',').any(|controller| controller == "memory") {
            return Some((PathBuf::from("/sys/fs/cgroup/memory"), path));
        }
        if controllers.is_empty() {
            version_2 = Some((PathBuf::from("/sys/fs/cgroup"), path));
        }
    }
    version_2
}

/// Limit minus what is used and cannot be reclaimed at once; `None` where there is no limit.
fn left_in(directory: &Path) -> Option<u64> {
    let number = |name: &str| {
        read_to_string(directory.join(name)).ok().and_then(|text| decimal(text.trim().as_bytes()))
    };
    let (limit, used, inactive) = match number("memory.max") {
        Some(limit) => (limit, number("memory.current")?, "inactive_file "),
        None => (number("memory.limit_in_bytes")?, number("memory.usage_in_bytes")?, "total_inactive_file "),
    };
    // Version 1 writes "no limit" as a number near 2^63.
    if limit > 1 << 60 {
        return None;
    }
    let stat = read_to_string(directory.join("memory.stat")).unwrap_or_default();
    let cache = stat.lines().find_map(|line| decimal(line.strip_prefix(inactive)?.as_bytes())).unwrap_or(0);
    Some(limit.saturating_sub(used.saturating_sub(cache)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_controller_is_found_in_either_version() {
        let hybrid = "4:memory:/a/b\n1:cpu,cpuacct:/\n0::/\n";
        assert_eq!(memory_cgroup(hybrid), Some((PathBuf::from("/sys/fs/cgroup/memory"), "/a/b")));
        assert_eq!(memory_cgroup("0::/user.slice\n"), Some((PathBuf::from("/sys/fs/cgroup"), "/user.slice")));
        assert_eq!(memory_cgroup("nonsense\n"), None);
    }

    #[test]
    fn a_cgroup_directory_tells_what_is_left() {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(directory.path().join(name), text).unwrap();
        assert_eq!(left_in(directory.path()), None);
        write("memory.max", "1000000\n");
        write("memory.current", "900000\n");
        write("memory.stat", "anon 600000\nfile 300000\ninactive_file 250000\n");
        assert_eq!(left_in(directory.path()), Some(350_000));
        write("memory.max", "max\n");
        assert_eq!(left_in(directory.path()), None);
    }

    #[test]
    fn one_slow_fork_rules_nothing_out() {
        let now = Instant::now();
        let mut forks = Forks { rates: [FORK_NS_PER_MB; 5], next: 0, last: None };
        forks.add(1_000_000, now);
        assert_eq!(forks.rate(now), FORK_NS_PER_MB);
        forks.add(90_000, now);
        forks.add(80_000, now);
        assert_eq!(forks.rate(now), 80_000, "three of five");
        assert_eq!(forks.rate(now + FORGOTTEN * 2), FORK_NS_PER_MB, "nothing newer can be known");
    }

    #[test]
    fn this_process_is_predicted_to_be_cheap() {
        let prediction = predict(10).unwrap();
        assert!(prediction.anonymous > 0);
        assert!(prediction.pause > Duration::ZERO);
        assert!(prediction.needed > RESERVE);
    }
}
