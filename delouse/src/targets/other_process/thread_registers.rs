//! Registers of the threads of another process, as core files have them.

use super::arch::{WORDS, words_of_sleeper};
use super::sample::{Known, Sample};
use crate::snapshot::Address;

/// The registers of one thread, in the order of `elf_gregset_t`.
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
                let words = words_of_sleeper(&sample.sleep, tls.map_or(0, Address::get))?;
                Some(Self { tid: sample.tid, words, is_complete: false })
            }
            _ => None,
        }
    }
}
