//! What `/proc` tells of a thread: parsing, and reading without allocation.
//!
//! Rules of the reading half: it runs in the window in which threads stand still, so **no allocation, no
//! lock, no panic**. Everything read is bounded by the caller's buffer.

use std::ffi::CStr;
use std::time::Duration;

use super::sys::{self, Errno};

/// What one thread's `stat` tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stat {
    name: [u8; 16],
    name_len: usize,
    /// `R`, `S`, `D`, `T`, `t`, `Z`, `X`, …
    pub(super) state: u8,
    /// User and system time, in clock ticks.
    ticks: u64,
    /// Blocked signals 1 to 31 (the kernel's "obsolete" field: real-time signals are not in it).
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

    /// Parses `/proc/PID/task/TID/stat` (proc(5)): the name stands in parentheses and may hold any byte,
    /// spaces and parentheses too, so fields are counted from the last `)`.
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

    /// Reads it for thread `tid` of this process.
    pub(super) fn read(tid: i32) -> Option<Self> {
        let mut buf = [0; 1024];
        Self::parse(read_of_thread(tid, c"stat", &mut buf).ok()?)
    }

    /// Whether the thread blocks `signal`; `None` where that cannot be known.
    pub(super) fn blocks(&self, tid: i32, signal: i32) -> Option<bool> {
        if signal < 32 {
            return Some(mask_has(self.blocked, signal));
        }
        let mut buf = [0; 4096];
        let status = read_of_thread(tid, c"status", &mut buf).ok()?;
        Some(mask_has(status_field(status, b"SigBlk:").and_then(hexadecimal)?, signal))
    }
}

/// Whether a kernel signal set holds `signal`.
pub(super) fn mask_has(mask: u64, signal: i32) -> bool {
    signal > 0 && mask.checked_shr(signal as u32 - 1).is_some_and(|shifted| shifted & 1 == 1)
}

/// The first word after `key` at the start of a line of `/proc/PID/status` and its kin.
pub(super) fn status_field<'a>(text: &'a [u8], key: &[u8]) -> Option<&'a [u8]> {
    let value = text.split(|&b| b == b'\n').find_map(|line| line.strip_prefix(key))?;
    value.split(u8::is_ascii_whitespace).find(|word| !word.is_empty())
}

/// A system call that a thread sleeps in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Call {
    pub(super) number: u64,
    /// The first of them.
    pub(super) arguments: [u64; 4],
}

/// Parses `/proc/PID/task/TID/syscall`. `None`: it runs.
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

/// A decimal number, whole.
pub(super) fn decimal(word: &[u8]) -> Option<u64> {
    digits(word, 10)
}

/// A hexadecimal number without `0x`, whole.
pub(super) fn hexadecimal(word: &[u8]) -> Option<u64> {
    digits(word, 16)
}

fn digits(word: &[u8], radix: u32) -> Option<u64> {
    if word.is_empty() {
        return None;
    }
    word.iter().try_fold(0_u64, |number, &byte| {
        let digit = char::from(byte).to_digit(radix)?;
        number.checked_mul(u64::from(radix))?.checked_add(u64::from(digit))
    })
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

/// Calls `each` with every thread id of this process. `buf` should hold a few kilobytes.
///
/// One pass may miss a thread when another ends meanwhile (the kernel finds its place by counting). Returns
/// whether as many were seen as there are in the end: who needs all of them goes on until then.
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

/// How many threads this process has.
pub(super) fn thread_count() -> Result<u64, Errno> {
    let fd = sys::open(c"/proc/self/task", libc::O_RDONLY | libc::O_DIRECTORY)?;
    Ok(links_of_threads(&fd))
}

/// `/proc/self/task` has two links and one more for each thread.
fn links_of_threads(fd: &sys::Fd) -> u64 {
    sys::links(fd.borrow()).map_or(0, |links| links.saturating_sub(2))
}

/// Walks `linux_dirent64` records: inode, offset (8 bytes each), length (2), type (1), name, NUL.
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
    fn a_name_may_hold_parentheses_and_spaces() {
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
    fn our_own_thread_is_told_as_it_is() {
        std::thread::Builder::new()
            .name("told as it is".into())
            .spawn(|| {
                let stat = Stat::read(sys::gettid()).unwrap();
                assert_eq!(stat.name(), "told as it is");
                assert_eq!(stat.state, b'R');
                assert_eq!(stat.blocks(sys::gettid(), libc::SIGURG), Some(false));
                assert_eq!(stat.blocks(sys::gettid(), libc::SIGRTMAX()), Some(false));
            })
            .unwrap()
            .join()
            .unwrap();
    }

    #[test]
    fn the_thread_list_holds_ourselves() {
        let mut found = Vec::new();
        // Other tests' threads come and go meanwhile.
        while !for_each_thread(&mut [0; 4096], |tid| found.push(tid)).unwrap() {
            found.clear();
        }
        assert!(found.contains(&sys::gettid()));
        assert!(found.contains(&sys::getpid()));
    }

    #[test]
    fn whatever_stands_there_nothing_panics() {
        let good = b"77 (name) S 1 2 3 4 5 6 7 8 9 10 700 50 0 0 20 0 1 0 5 6 7 8 9 10 11 12 13 14 0 0 0\n";
        let mut random = super::super::tests::Random::new(7);
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
