//! The files that this process has open, and how many it may.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::ffi::OsStrExt as _;

/// File descriptors whose kind is looked up at most: each costs about a microsecond.
const MAX_KINDS: usize = 1 << 16;

/// Open files, by what they are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Files {
    /// How many are open.
    pub(crate) open: usize,
    /// `RLIMIT_NOFILE`, the soft limit; `None` is unlimited.
    pub(crate) limit: Option<u64>,
    /// `sockets`, `pipes`, `files`, …, and how many of each.
    pub(crate) kinds: BTreeMap<String, usize>,
}

/// The open files of this process. Opens one more for as long as it looks.
pub(crate) fn open_files() -> io::Result<Files> {
    let mut files = Files { limit: limit()?, ..Files::default() };
    for entry in std::fs::read_dir("/proc/self/fd")? {
        let Ok(entry) = entry else { continue };
        files.open += 1;
        if files.open <= MAX_KINDS
            // One that is closed by now, our own directory too, is none.
            && let Ok(target) = std::fs::read_link(entry.path())
        {
            *files.kinds.entry(kind(target.as_os_str().as_bytes()).to_owned()).or_default() += 1;
        }
    }
    Ok(files)
}

/// What a capture opens at once: memory, page table and process of two images, and what it reads meanwhile.
const NEEDED: usize = 8;
/// What is left to the program while a capture goes on.
const LEFT: usize = 8;
/// With fewer that may still be opened there is no capture, and the program is about to run out of them.
pub(crate) const SPARE: usize = NEEDED + LEFT;

/// Whether a capture can open its files and leave some to the program; if not, how many more may be opened.
///
/// Costs some microseconds, but where more descriptors are open than half of those that may be: then more.
pub(crate) fn spare() -> Result<(), usize> {
    // Numbers are given out from the lowest on: the highest are free, as a rule.
    let Ok(Some(limit)) = limit() else { return Ok(()) };
    let numbers = (0..i32::try_from(limit).unwrap_or(i32::MAX)).rev();
    // SAFETY: asks about a number, of which nothing need be open.
    let is_free = |number: &i32| unsafe { libc::fcntl(*number, libc::F_GETFD) } < 0;
    match numbers.filter(is_free).take(SPARE).count() {
        free if free < SPARE => Err(free),
        _ => Ok(()),
    }
}

/// The link of a file descriptor says what it is (proc_pid_fd(5)).
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

fn limit() -> io::Result<Option<u64>> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the pointer is to a writable `rlimit` that outlives the call.
    match unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) } {
        0 => Ok((limit.rlim_cur != libc::RLIM_INFINITY).then_some(limit.rlim_cur)),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn our_own_files_are_counted() {
        let of = |kind: &str| open_files().unwrap().kinds.get(kind).copied().unwrap_or(0);
        let held: Vec<_> = (0..100).map(|_| std::net::UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
        let files = open_files().unwrap();
        assert!(files.kinds.get("sockets").copied().unwrap_or(0) >= 100, "{files:?}");
        assert!(files.open >= 103 && files.limit.is_none_or(|limit| limit >= files.open as u64), "{files:?}");
        drop(held);
        // Other tests open files too, but no such number of pipes.
        let pipes: Vec<_> = (0..50).map(|_| io::pipe().unwrap()).collect();
        assert!(of("pipes") >= 100);
        drop(pipes);
    }
}
