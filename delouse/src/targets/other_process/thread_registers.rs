//! Registers of the threads of another process, as core files have them.

use super::sample::{Known, Sample, WORDS};
use crate::snapshot::Address;

/// The registers of one thread, in the order of `elf_gregset_t`, which is that of `struct user_regs_struct`.
pub(super) struct ThreadRegisters {
    pub(super) tid: i32,
    pub(super) words: [u64; WORDS],
    /// Whether all registers are known.
    pub(super) is_complete: bool,
}

impl ThreadRegisters {
    /// Those of a sample; `None` if none are known. `tls`: the thread pointer.
    pub(super) fn of(sample: &Sample, tls: Option<Address>) -> Option<Self> {
        match sample.known {
            Known::Registers => Some(Self { tid: sample.tid, words: sample.words, is_complete: true }),
            Known::Asleep => {
                let words = words_of_sleeper(sample, tls.map_or(0, Address::get))?;
                Some(Self { tid: sample.tid, words, is_complete: false })
            }
            _ => None,
        }
    }
}

/// What is known of a thread that waits in a system call (`/proc/TID/syscall`), as registers are at its entry.
fn words_of_sleeper(sample: &Sample, tls: u64) -> Option<[u64; WORDS]> {
    /// The kernel's selectors for code and data of 64-bit programs (asm/segment.h).
    const CODE: u64 = 0x33;
    const DATA: u64 = 0x2b;
    /// The result in rax until the call returns.
    const NOT_YET: u64 = (-libc::ENOSYS as i64) as u64;
    let [rdi, rsi, rdx, r10, r8, r9] = sample.sleep.arguments;
    let mut words = [0; WORDS];
    for (index, value) in [
        (7, r10),
        (8, r9),
        (9, r8),
        (10, NOT_YET),
        (12, rdx),
        (13, rsi),
        (14, rdi),
        (15, sample.sleep.number as u64),
        (16, sample.sleep.pc),
        (17, CODE),
        (19, sample.sleep.sp),
        (20, DATA),
        (21, tls),
    ] {
        *words.get_mut(index)? = value;
    }
    Some(words)
}
