//! Reads and parses the files of `/proc` about threads.
//!
//! Rules: these functions run in the window in which threads are stopped, so **no allocation, no lock, no panic**. The
//! caller provides the buffers.

use std::ffi::CStr;
use std::time::Duration;

use super::sys::{self, Errno};
use crate::host::proc_text::{decimal, hexadecimal, status_field};

/// The contents of a thread's `stat`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stat {
    name: [u8; 16],
    name_len: usize,
    /// `R`, `S`, `D`, `T`, `t`, `Z`, `X`, …
    pub(super) state: u8,
    /// User and system time, in clock ticks.
    ticks: u64,
    /// Blocked signals 1 to 31. This field does not include real-time signals.
    blocked: u64,
}

impl Stat {
    /// `comm`, as text.
    pub(super) fn name(&self) -> String {
        String::from_utf8_lossy(self.name.get(..self.name_len).unwrap_or_default()).into_owned()
    }

    /// Processor time, given the ticks of a second (`sysconf(_SC_CLK_TCK)`).
    pub(super) fn cpu(&self, ticks_per_second: u64) -> Duration {
        let micros = self.ticks.saturating_mul(1_000_000) / ticks_per_second.max(1);
        Duration::from_micros(micros)
    }

    /// Parses `/proc/PID/task/TID/stat` (proc(5)). The name is in parentheses and may contain any byte, including spaces
    /// and parentheses, so that fields are counted from the last `)`.
    pub(super) fn parse(text: &[u8]) -> Option<Self> {
        let open = text.iter().position(|&b| b == b'(')?;
        let close = text.iter().rposition(|&b| b == b')')?;
        let comm = text.get(open.checked_add(1)?..close)?;
        let mut name = [0; 16];
        let name_len = comm.len().min(name.len());
        name.get_mut(..name_len)?.copy_from_slice(comm.get(..name_len)?);

        let rest = text.get(close.checked_add(1)?..)?;
        // Field 3 (state) is the first after the name.
        let mut fields = rest.split(u8::is_ascii_whitespace).filter(|field| !field.is_empty());
        let state = *fields.next()?.first()?;
        let mut number = |skip: usize| fields.nth(skip).and_then(decimal);
        let user = number(10)?; // field 14
        let system = number(0)?; // field 15
        let blocked = number(16)?; // field 32
        Some(Self { name, name_len, state, ticks: user.saturating_add(system), blocked })
    }

    /// Reads the file of thread `tid` of this process.
    pub(super) fn read(tid: i32) -> Option<Self> {
        let mut buf = [0; 1024];
        Self::parse(read_of_thread(tid, c"stat", &mut buf).ok()?)
    }

    /// Whether the thread blocks `signal`; `None` if the file cannot be read.
    pub(super) fn blocks(&self, tid: i32, signal: i32) -> Option<bool> {
        if signal < 32 {
            return Some(mask_has(self.blocked, signal));
        }
        let mut buf = [0; 4096];
        let status = read_of_thread(tid, c"status", &mut buf).ok()?;
        Some(mask_has(status_field(status, b"SigBlk:").and_then(hexadecimal)?, signal))
    }
}

/// For how long a thread could have run, but had no processor: the second number of its `schedstat`, in nanoseconds.
pub(super) fn queued(tid: i32) -> Option<Duration> {
    let mut buf = [0; 96];
    let text = read_of_thread(tid, c"schedstat", &mut buf).ok()?;
    let mut words = text.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
    words.nth(1).and_then(decimal).map(Duration::from_nanos)
}

/// Whether a kernel signal set contains `signal`.
pub(super) fn mask_has(mask: u64, signal: i32) -> bool {
    signal > 0 && mask.checked_shr(signal as u32 - 1).is_some_and(|shifted| shifted & 1 == 1)
}

/// A system call that a thread sleeps in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Call {
    pub(super) number: u64,
    /// The first four arguments.
    pub(super) arguments: [u64; 4],
}

/// Parses `/proc/PID/task/TID/syscall`. `None` if the thread runs.
pub(super) fn parse_syscall(text: &[u8]) -> Option<Call> {
    let mut words = text.split(u8::is_ascii_whitespace);
    let number = decimal(words.next()?)?;
    let mut arguments = [0; 4];
    for argument in &mut arguments {
        *argument = hexadecimal(words.next()?.strip_prefix(b"0x")?)?;
    }
    Some(Call { number, arguments })
}

/// The system call that thread `tid` of this process sleeps in.
pub(super) fn call_of(tid: i32) -> Option<Call> {
    let mut buf = [0; 256];
    parse_syscall(read_of_thread(tid, c"syscall", &mut buf).ok()?)
}

/// Reads `/proc/self/task/TID/FILE` into `buf`.
pub(super) fn read_of_thread<'b>(tid: i32, file: &CStr, buf: &'b mut [u8]) -> Result<&'b [u8], Errno> {
    let mut path = [0_u8; 64];
    let mut at = 0;
    let mut push = |bytes: &[u8]| {
        for &byte in bytes {
            if let Some(slot) = path.get_mut(at) {
                *slot = byte;
                at = at.wrapping_add(1);
            }
        }
    };
    push(b"/proc/self/task/");
    let mut digits = [0_u8; 10];
    let mut left = tid.unsigned_abs();
    let mut first = digits.len();
    for (place, digit) in digits.iter_mut().enumerate().rev() {
        *digit = b'0'.wrapping_add((left % 10) as u8);
        left /= 10;
        first = place;
        if left == 0 {
            break;
        }
    }
    push(digits.get(first..).unwrap_or_default());
    push(b"/");
    push(file.to_bytes());
    push(b"\0");
    let path = CStr::from_bytes_until_nul(&path).map_err(|_| libc::ENAMETOOLONG)?;
    read_file(path, buf)
}

/// Reads the beginning of a file into `buf`.
pub(super) fn read_file<'b>(path: &CStr, buf: &'b mut [u8]) -> Result<&'b [u8], Errno> {
    let fd = sys::open(path, libc::O_RDONLY)?;
    let mut filled = 0;
    let result = loop {
        let Some(rest) = buf.get_mut(filled..).filter(|rest| !rest.is_empty()) else { break Ok(()) };
        match sys::read(fd.borrow(), rest) {
            Ok(0) => break Ok(()),
            Ok(n) => filled = filled.wrapping_add(n),
            Err(libc::EINTR) => {}
            Err(errno) => break Err(errno),
        }
    };
    result.map(|()| buf.get(..filled).unwrap_or_default())
}

/// Calls `each` with every thread id of this process. `buf` should be a few kilobytes large.
///
/// May miss a thread if another one exits meanwhile, because the kernel counts threads to find its position in the list.
/// Returns whether as many threads were listed as exist at the end; if not, repeat the call.
pub(super) fn for_each_thread(buf: &mut [u8], mut each: impl FnMut(i32)) -> Result<bool, Errno> {
    let fd = sys::open(c"/proc/self/task", libc::O_RDONLY | libc::O_DIRECTORY)?;
    let mut seen = 0_u64;
    let mut count = |tid| {
        seen = seen.wrapping_add(1);
        each(tid);
    };
    let result = loop {
        match sys::getdents(fd.borrow(), buf) {
            Ok(0) => break Ok(()),
            Ok(n) => entries(buf.get(..n).unwrap_or_default(), &mut count),
            Err(errno) => break Err(errno),
        }
    };
    let there = links_of_threads(&fd);
    result.map(|()| seen >= there)
}

/// The number of threads of this process.
pub(super) fn thread_count() -> Result<u64, Errno> {
    let fd = sys::open(c"/proc/self/task", libc::O_RDONLY | libc::O_DIRECTORY)?;
    Ok(links_of_threads(&fd))
}

/// The number of threads, from the link count of `/proc/self/task`: two, and one for each thread.
fn links_of_threads(fd: &sys::Fd) -> u64 {
    sys::links(fd.borrow()).map_or(0, |links| links.saturating_sub(2))
}

/// Parses `linux_dirent64` records: inode, offset (8 bytes each), length (2), type (1), name, NUL.
fn entries(mut records: &[u8], each: &mut impl FnMut(i32)) {
    while let Some(&[low, high]) = records.get(16..18) {
        let length = usize::from(u16::from_ne_bytes([low, high]));
        let Some(name) = records.get(19..length) else { return };
        let name = name.split(|&b| b == 0).next().unwrap_or_default();
        if let Some(tid) = decimal(name).and_then(|tid| i32::try_from(tid).ok()) {
            each(tid);
        }
        records = records.get(length..).unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_contain_parentheses_and_spaces() {
        let text =
            b"77 (a) R (b) S 1 2 3 4 5 6 7 8 9 10 700 50 0 0 20 0 1 0 5 6 7 8 9 10 11 12 13 14 4194304 0 0\n";
        let stat = Stat::parse(text).unwrap();
        assert_eq!(stat.name(), "a) R (b");
        assert_eq!(stat.state, b'S');
        assert_eq!(stat.cpu(100), Duration::from_millis(7500));
        assert!(mask_has(stat.blocked, 23));
        assert!(!mask_has(stat.blocked, 22));
    }

    #[test]
    fn the_stat_of_the_calling_thread_is_read() {
        std::thread::Builder::new()
            .name("reads its stat".into())
            .spawn(|| {
                let stat = Stat::read(sys::gettid()).unwrap();
                assert_eq!(stat.name(), "reads its stat");
                assert_eq!(stat.state, b'R');
                assert_eq!(stat.blocks(sys::gettid(), libc::SIGURG), Some(false));
                assert_eq!(stat.blocks(sys::gettid(), libc::SIGRTMAX()), Some(false));
            })
            .unwrap()
            .join()
            .unwrap();
    }

    #[test]
    fn the_list_includes_the_calling_and_the_main_thread() {
        let mut found = Vec::new();
        // Threads of other tests start and exit meanwhile.
        while !for_each_thread(&mut [0; 4096], |tid| found.push(tid)).unwrap() {
            found.clear();
        }
        assert!(found.contains(&sys::gettid()));
        assert!(found.contains(&sys::getpid()));
    }

    #[test]
    fn malformed_input_never_panics() {
        let good = b"77 (name) S 1 2 3 4 5 6 7 8 9 10 700 50 0 0 20 0 1 0 5 6 7 8 9 10 11 12 13 14 0 0 0\n";
        let mut random = crate::host::random::Random::new(7);
        for _ in 0..20_000 {
            let mut text = good.to_vec();
            text.truncate(random.below(good.len() + 1));
            for _ in 0..random.below(6) {
                let at = random.below(text.len().max(1));
                if let Some(byte) = text.get_mut(at) {
                    *byte = random.next() as u8;
                }
            }
            let _ = Stat::parse(&text);
            let _ = parse_syscall(&text);
            let _ = status_field(&text, b"SigBlk:");
            entries(&text, &mut |_| {});
        }
        let call = Call { number: 128, arguments: [0x7f_fc00, 0, 0x20, 8] };
        assert_eq!(parse_syscall(b"128 0x7ffc00 0x0 0x20 0x8 0x0 0x0 0x7ffb00 0x55d0\n"), Some(call));
        assert_eq!(parse_syscall(b"128 0x7ffc00 0x0\n"), None);
        assert_eq!(parse_syscall(b"running\n"), None);
        assert_eq!(decimal(b"99999999999999999999999"), None);
    }
}
