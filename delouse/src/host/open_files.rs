//! The descriptors that this process has open, by kind, and its limit.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::ffi::OsStrExt as _;

use super::{descriptor_reserve, descriptors};

/// The kind is read for at most this many descriptors: each costs about a microsecond.
const MAX_KINDS: usize = 1 << 16;

/// Open descriptors, by kind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct OpenFiles {
    /// The process that has them.
    pub(crate) pid: u32,
    /// Number of open descriptors.
    pub(crate) open: usize,
    /// `RLIMIT_NOFILE`, the soft limit; `None` is unlimited.
    pub(crate) limit: Option<u64>,
    /// Number of descriptors of each kind: `sockets`, `pipes`, `files`, …
    pub(crate) kinds: BTreeMap<String, usize>,
}

/// Counts the open descriptors of this process. Has one more open while it reads `/proc/self/fd`.
pub(crate) fn open_files() -> io::Result<OpenFiles> {
    let files = OpenFiles { pid: std::process::id(), limit: descriptors::limit()?, ..OpenFiles::default() };
    count(files, "self")
}

/// Counts the open descriptors of another process.
pub(crate) fn open_files_of(pid: u32) -> io::Result<OpenFiles> {
    let limits = std::fs::read_to_string(format!("/proc/{pid}/limits"))?;
    // The soft limit; `unlimited` is no number.
    let limit = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    let limit = limit.and_then(|line| line.split_whitespace().next()?.parse().ok());
    count(OpenFiles { pid, limit, ..OpenFiles::default() }, &pid.to_string())
}

fn count(mut files: OpenFiles, of: &str) -> io::Result<OpenFiles> {
    let set_aside = descriptor_reserve::link();
    for entry in std::fs::read_dir(format!("/proc/{of}/fd"))? {
        let Ok(entry) = entry else { continue };
        files.open += 1;
        if files.open <= MAX_KINDS
            // Fails for a descriptor that was closed meanwhile.
            && let Ok(target) = std::fs::read_link(entry.path())
        {
            let is_set_aside = set_aside.as_ref().is_some_and(|link| target.as_os_str() == link.as_str());
            let kind =
                if is_set_aside { "set aside by delouse" } else { kind(target.as_os_str().as_bytes()) };
            *files.kinds.entry(kind.to_owned()).or_default() += 1;
        }
    }
    Ok(files)
}

/// The kind of a descriptor, from the target of its link in `/proc/PID/fd` (proc_pid_fd(5)).
fn kind(target: &[u8]) -> &'static str {
    match target {
        [b's', b'o', b'c', b'k', b'e', b't', b':', ..] => "sockets",
        [b'p', b'i', b'p', b'e', b':', ..] => "pipes",
        target if target.starts_with(b"anon_inode:inotify") => "inotify",
        target if target.starts_with(b"anon_inode:") => "event and timer descriptors",
        target if target.starts_with(b"/dev/") => "devices",
        _ => "files",
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn open_descriptors_are_counted_by_kind() {
        let count = |kind: &str| open_files().unwrap().kinds.get(kind).copied().unwrap_or(0);
        let held: Vec<_> = (0..100).map(|_| std::net::UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
        let files = open_files().unwrap();
        assert!(files.kinds.get("sockets").copied().unwrap_or(0) >= 100, "{files:?}");
        assert!(files.open >= 103 && files.limit.is_none_or(|limit| limit >= files.open as u64), "{files:?}");
        drop(held);
        // Other tests open descriptors too, but not that many pipes.
        let pipes: Vec<_> = (0..50).map(|_| io::pipe().unwrap()).collect();
        assert!(count("pipes") >= 100);
        drop(pipes);
    }
}
