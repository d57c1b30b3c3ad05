//! How much memory this process may still use, by the limits of the system and of its cgroups.

use std::fs::read_to_string;
use std::path::{Path, PathBuf};

use super::proc_text::{decimal, size_field};

/// Memory that this process may still use, and a name of the limit that is reached first.
pub(crate) fn memory_left() -> Option<(u64, &'static str)> {
    memory_left_in(&read_to_string("/proc/self/cgroup").unwrap_or_default())
}

/// The same for a process whose `/proc/PID/cgroup` has the contents `cgroups`.
pub(crate) fn memory_left_in(cgroups: &str) -> Option<(u64, &'static str)> {
    let system = meminfo("MemAvailable:").map(|bytes| (bytes, "the system's memory"));
    let cgroup = tightest_of(cgroups).map(|(bytes, _)| (bytes, "the cgroup's memory limit"));
    let commit = strict_commit_left().map(|bytes| (bytes, "the system's commit limit"));
    [system, cgroup, commit].into_iter().flatten().min_by_key(|&(bytes, _)| bytes)
}

/// Memory that may still be committed. `None` without strict accounting (`vm.overcommit_memory=2`).
pub(crate) fn strict_commit_left() -> Option<u64> {
    let mode = read_to_string("/proc/sys/vm/overcommit_memory").ok()?;
    if mode.trim() != "2" {
        return None;
    }
    Some(meminfo("CommitLimit:")?.saturating_sub(meminfo("Committed_AS:")?))
}

pub(crate) fn meminfo(key: &str) -> Option<u64> {
    size_field(&read_to_string("/proc/meminfo").ok()?, key)
}

/// Of this process's memory cgroup and its parents: the least memory left, and the directory of the cgroup that sets it.
pub(crate) fn tightest_cgroup() -> Option<(u64, PathBuf)> {
    tightest_of(&read_to_string("/proc/self/cgroup").ok()?)
}

fn tightest_of(cgroups: &str) -> Option<(u64, PathBuf)> {
    let (root, own) = memory_cgroup(cgroups)?;
    // In a container, the path may be that on the host, and the container's own cgroup is mounted at the root.
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

/// Parses `/proc/self/cgroup` (cgroups(7)): the usual mount point of the memory controller, and the path below it.
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

/// The limit minus the memory in use, without file caches that can be reclaimed at once; `None` if there is no limit.
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
    fn memory_left_in_a_cgroup_excludes_inactive_files() {
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
}
