//! Reads and parses the files of `/proc` about another process and its threads.
//!
//! Nothing here allocates except where a function says so, because the helper process uses it (`stop/helper.rs`).

use std::ffi::CStr;
use std::os::fd::BorrowedFd;

use rustix::fs::{Mode, OFlags, openat};
use rustix::io::Errno;

use crate::host::proc_text::{decimal, hexadecimal, status_field};

/// Fields of a `stat` file (proc_pid_stat(5)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stat {
    /// `R`, `S`, `D`, `T`, `t`, `Z`, `X`, …
    pub(super) state: u8,
    /// `PF_*` of the kernel.
    pub(super) flags: u64,
    pub(super) threads: u64,
    /// When the process started, in clock ticks after boot.
    pub(super) start: u64,
    /// The signal that its parent gets when it ends; 0 for a forked image of a process, `None` for a thread.
    pub(super) exit_signal: Option<u64>,
}

impl Stat {
    /// The name is in parentheses and may contain any byte, so that fields are counted from the last `)`.
    pub(super) fn parse(text: &[u8]) -> Option<Self> {
        let close = text.iter().rposition(|&byte| byte == b')')?;
        let rest = text.get(close.checked_add(1)?..)?;
        let mut fields = rest.split(u8::is_ascii_whitespace).filter(|field| !field.is_empty());
        let state = *fields.next()?.first()?; // field 3
        let mut number = |skip: usize| fields.nth(skip).and_then(decimal);
        let flags = number(5)?; // field 9
        let threads = number(10)?; // field 20
        let start = number(1)?; // field 22
        let exit_signal = number(15); // field 38
        Some(Self { state, flags, threads, start, exit_signal })
    }

    /// The name in a `stat` file. Allocates.
    pub(super) fn name(text: &[u8]) -> Option<String> {
        let open = text.iter().position(|&byte| byte == b'(')?;
        let close = text.iter().rposition(|&byte| byte == b')')?;
        Some(String::from_utf8_lossy(text.get(open.checked_add(1)?..close)?).into_owned())
    }
}

/// Fields of a `status` file (proc_pid_status(5)).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Status {
    /// The id of the process, of which this may be a thread.
    pub(super) process: Option<u64>,
    /// The effective user.
    pub(super) user: Option<u64>,
    /// The real, the effective and the saved user.
    pub(super) users: Option<[u64; 3]>,
    pub(super) tracer: u64,
    /// Whether it has no system-call filter. A status that was cut short does not say so.
    pub(super) unfiltered: bool,
    /// The effective capabilities.
    pub(super) capabilities: Option<u64>,
    /// Whether calls and returns are checked by a shadow stack (CET).
    pub(super) shadow_stack: bool,
    pub(super) anonymous: u64,
    pub(super) page_tables: u64,
}

impl Status {
    pub(super) fn parse(text: &[u8]) -> Self {
        let number = |key: &[u8]| status_field(text, key).and_then(decimal);
        let size = |key: &[u8]| number(key).unwrap_or(0).saturating_mul(1024);
        let uids = text.split(|&byte| byte == b'\n').find_map(|line| line.strip_prefix(b"Uid:"));
        let users = uids.and_then(|uids| {
            let mut words = uids.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()).map(decimal);
            Some([words.next()??, words.next()??, words.next()??])
        });
        let features =
            text.split(|&byte| byte == b'\n').find_map(|line| line.strip_prefix(b"x86_Thread_features:"));
        Self {
            process: number(b"Tgid:"),
            user: users.map(|[_, effective, _]| effective),
            users,
            tracer: number(b"TracerPid:").unwrap_or(0),
            unfiltered: number(b"Seccomp:") == Some(0),
            capabilities: status_field(text, b"CapEff:").and_then(hexadecimal),
            shadow_stack: features
                .is_some_and(|set| set.split(u8::is_ascii_whitespace).any(|feature| feature == b"shstk")),
            anonymous: size(b"RssAnon:"),
            page_tables: size(b"VmPTE:"),
        }
    }

    /// Allocates.
    pub(super) fn of_this_process() -> Self {
        std::fs::read("/proc/self/status").map(|text| Self::parse(&text)).unwrap_or_default()
    }

    /// The id in each pid namespace, from the reader's to its own. Allocates.
    pub(super) fn ids(text: &[u8]) -> Vec<i32> {
        let line = text.split(|&byte| byte == b'\n').find_map(|line| line.strip_prefix(b"NSpid:"));
        let words = line.unwrap_or_default().split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
        words.filter_map(|word| i32::try_from(decimal(word)?).ok()).collect()
    }
}

/// A system call that a thread sleeps in, or the place where it is stopped.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(C)]
pub(super) struct Sleep {
    /// The number of the call; −1 if the thread is stopped outside of a call.
    pub(super) number: i64,
    pub(super) arguments: [u64; 6],
    pub(super) sp: u64,
    pub(super) pc: u64,
}

/// What `/proc/PID/task/TID/syscall` contains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Syscall {
    /// The thread runs on a processor, or waits for one.
    Running,
    Asleep(Sleep),
}

impl Syscall {
    pub(super) fn parse(text: &[u8]) -> Option<Self> {
        let mut words = text.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
        let first = words.next()?;
        if first == b"running" {
            return Some(Self::Running);
        }
        let mut word = || hexadecimal(words.next()?.strip_prefix(b"0x")?);
        if first == b"-1" {
            let (sp, pc) = (word()?, word()?);
            return Some(Self::Asleep(Sleep { number: -1, arguments: [0; 6], sp, pc }));
        }
        let number = i64::try_from(decimal(first)?).ok()?;
        let mut arguments = [0; 6];
        for argument in &mut arguments {
            *argument = word()?;
        }
        let (sp, pc) = (word()?, word()?);
        Some(Self::Asleep(Sleep { number, arguments, sp, pc }))
    }
}

/// What `/proc/PID/task/TID/schedstat` contains.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Runs {
    /// Processor time in nanoseconds.
    pub(super) cpu: u64,
    /// How long the thread could have run, but had no processor, in nanoseconds.
    pub(super) queued: u64,
    /// How often the thread began to run. If the number is unchanged, the thread did not run.
    pub(super) count: u64,
}

impl Runs {
    fn parse(text: &[u8]) -> Option<Self> {
        let mut words = text.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()).map(decimal);
        let cpu = words.next()??;
        let queued = words.next()??;
        Some(Self { cpu, queued, count: words.next()?? })
    }
}

/// The directory of a process: the files of its threads are below it.
#[derive(Clone, Copy)]
pub(super) struct TaskFiles<'a> {
    pub(super) dir: BorrowedFd<'a>,
}

impl TaskFiles<'_> {
    /// Reads the beginning of `task/TID/FILE` into `buf`.
    pub(super) fn read<'b>(&self, tid: i32, file: &str, buf: &'b mut [u8]) -> Result<&'b [u8], Errno> {
        let mut path = [0_u8; 64];
        let path = task_path(&mut path, tid, file).ok_or(Errno::NAMETOOLONG)?;
        read_at(self.dir, path, buf)
    }

    /// `None` if the thread has ended, or may not be traced.
    pub(super) fn syscall(&self, tid: i32) -> Option<Syscall> {
        Syscall::parse(self.read(tid, "syscall", &mut [0; 256]).ok()?)
    }

    pub(super) fn runs(&self, tid: i32) -> Option<Runs> {
        Runs::parse(self.read(tid, "schedstat", &mut [0; 96]).ok()?)
    }

    pub(super) fn stat(&self, tid: i32) -> Option<Stat> {
        Stat::parse(self.read(tid, "stat", &mut [0; 1024]).ok()?)
    }

    pub(super) fn status(&self, tid: i32) -> Option<Status> {
        Some(Status::parse(self.read(tid, "status", &mut [0; 16 << 10]).ok()?))
    }
}

/// Reads the beginning of a file below `dir` into `buf`.
pub(super) fn read_at<'b>(dir: BorrowedFd<'_>, path: &CStr, buf: &'b mut [u8]) -> Result<&'b [u8], Errno> {
    let file = openat(dir, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let mut filled = 0;
    while let Some(rest) = buf.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match rustix::io::read(&file, rest) {
            Ok(0) => break,
            Ok(count) => filled = filled.saturating_add(count),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(buf.get(..filled).unwrap_or_default())
}

/// Writes the path `task/TID/FILE`.
fn task_path<'b>(path: &'b mut [u8; 64], tid: i32, file: &str) -> Option<&'b CStr> {
    let mut digits = [0_u8; 10];
    let parts = [b"task/", number(&mut digits, tid), b"/", file.as_bytes(), b"\0"];
    join(path, &parts)
}

/// Joins the parts of a path, of which the last ends with a NUL.
pub(super) fn join<'b>(path: &'b mut [u8; 64], parts: &[&[u8]]) -> Option<&'b CStr> {
    let mut at = 0_usize;
    for part in parts {
        let end = at.checked_add(part.len())?;
        path.get_mut(at..end)?.copy_from_slice(part);
        at = end;
    }
    CStr::from_bytes_until_nul(path).ok()
}

/// The decimal digits of a positive number.
pub(super) fn number(digits: &mut [u8; 10], number: i32) -> &[u8] {
    let (mut left, mut first) = (number.unsigned_abs(), digits.len());
    for (place, digit) in digits.iter_mut().enumerate().rev() {
        *digit = b'0'.wrapping_add((left % 10) as u8);
        left /= 10;
        first = place;
        if left == 0 {
            break;
        }
    }
    digits.get(first..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stat_file_is_parsed_from_its_end() {
        let text = b"77 (a) R (b) S 5 6 7 8 9 4194304 1 2 3 4 700 50 0 0 20 0 12 0 9876 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 17 1 0\n";
        let stat = Stat::parse(text).unwrap();
        let expected =
            Stat { state: b'S', flags: 4_194_304, threads: 12, start: 9876, exit_signal: Some(17) };
        assert_eq!(stat, expected);
        assert_eq!(Stat::name(text).unwrap(), "a) R (b");
    }

    #[test]
    fn the_stat_file_of_this_process_is_parsed() {
        let text = std::fs::read("/proc/self/stat").unwrap();
        let stat = Stat::parse(&text).unwrap();
        assert!(stat.threads >= 1 && stat.start > 0);
        assert_eq!(stat.exit_signal, Some(libc::SIGCHLD as u64));
    }

    #[test]
    fn each_form_of_a_system_call_is_parsed() {
        let asleep = Sleep { number: 202, arguments: [1, 2, 3, 4, 5, 6], sp: 0x7ffc_0000, pc: 0x7f00_0000 };
        let text = b"202 0x1 0x2 0x3 0x4 0x5 0x6 0x7ffc0000 0x7f000000\n";
        assert_eq!(Syscall::parse(text), Some(Syscall::Asleep(asleep)));
        let stopped = Sleep { number: -1, arguments: [0; 6], sp: 0x10, pc: 0x20 };
        assert_eq!(Syscall::parse(b"-1 0x10 0x20\n"), Some(Syscall::Asleep(stopped)));
        assert_eq!(Syscall::parse(b"running\n"), Some(Syscall::Running));
        assert_eq!(Syscall::parse(b"202 0x1 0x2\n"), None);
        assert_eq!(Syscall::parse(b""), None);
    }

    #[test]
    fn a_status_file_is_parsed() {
        let text = b"Tgid:\t7\nTracerPid:\t3\nUid:\t1\t2\t3\t4\nNSpid:\t7\t1\nRssAnon:\t  12 kB\nVmPTE:\t 4 kB\nCapEff:\t0000000000080000\nSeccomp:\t2\nx86_Thread_features:\tshstk wrss \n";
        let status = Status::parse(text);
        assert_eq!((status.process, status.tracer, status.unfiltered), (Some(7), 3, false));
        assert_eq!((status.user, status.users), (Some(2), Some([1, 2, 3])));
        assert_eq!((status.anonymous, status.page_tables), (12 << 10, 4 << 10));
        assert_eq!(status.capabilities, Some(1 << 19));
        assert!(status.shadow_stack);
        assert_eq!(Status::ids(text), [7, 1]);
        assert_eq!(Status::parse(b""), Status::default());
    }

    #[test]
    fn malformed_input_never_panics() {
        let mut random = crate::host::random::Random::new(5);
        for file in ["stat", "status", "schedstat", "syscall"] {
            let good = std::fs::read(format!("/proc/self/task/{}/{file}", std::process::id())).unwrap();
            for _ in 0..2_000 {
                let mut text = good.clone();
                text.truncate(random.below(good.len() + 1));
                for _ in 0..random.below(6) {
                    let at = random.below(text.len().max(1));
                    if let Some(byte) = text.get_mut(at) {
                        *byte = random.next() as u8;
                    }
                }
                let _ = (Stat::parse(&text), Stat::name(&text), Syscall::parse(&text), Runs::parse(&text));
                let _ = (Status::parse(&text), Status::ids(&text));
            }
        }
    }

    #[test]
    fn paths_are_written_without_allocation() {
        let mut path = [0; 64];
        assert_eq!(task_path(&mut path, 1_234_567_890, "schedstat").unwrap(), c"task/1234567890/schedstat");
        assert_eq!(task_path(&mut path, 0, "stat").unwrap(), c"task/0/stat");
        assert!(task_path(&mut path, 1, &"x".repeat(64)).is_none());
    }
}
