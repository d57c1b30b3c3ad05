//! aarch64.

use crate::snapshot::arch::{AARCH64, Arch};
use crate::snapshot::{Address, FutexWait, Registers};
use crate::targets::other_process::memory::Memory;
use crate::targets::other_process::sample::Sample;
use crate::targets::other_process::task_files::Sleep;

/// Words of `elf_gregset_t`, which is `struct user_pt_regs` (asm/ptrace.h): x0 to x30, sp, pc, pstate.
pub(in super::super) const WORDS: usize = 34;
/// The registers that are known of a thread that was not stopped, for messages.
pub(in super::super) const VISIBLE_REGISTERS: &str = "pc, sp, arguments of the call";

/// The number of a call is in x8.
const X8: usize = 8;
const SP: usize = 31;
const PC: usize = 32;

/// The registers of a thread that was stopped. In a call that the kernel will restart, they already are those with which it
/// will be entered again (arch/arm64/kernel/signal.c, `do_signal`).
pub(in super::super) fn all_registers(sample: &Sample) -> Option<Registers> {
    let word = |index: usize| sample.words.get(index).copied();
    let arch: &dyn Arch = AARCH64;
    let registers = arch.core_registers(&word)?;
    // A thread that ran may have these values by chance.
    let futex: Option<FutexWait> = registers.futex.filter(|_| !sample.ran);
    Some(Registers { futex, tls: Address::new(sample.tls), ..registers })
}

/// What is known of a thread that waits in a system call (`/proc/TID/syscall`). The thread pointer is not one of the words.
pub(in super::super) fn words_of_sleeper(sleep: &Sleep, _tls: u64) -> Option<[u64; WORDS]> {
    let mut words = [0; WORDS];
    for (word, argument) in words.iter_mut().zip(sleep.arguments) {
        *word = argument;
    }
    for (index, value) in [(X8, sleep.number as u64), (SP, sleep.sp), (PC, sleep.pc)] {
        *words.get_mut(index)? = value;
    }
    Some(words)
}

/// The thread pointer of a thread whose list of robust mutexes is at `robust`, in glibc's `struct pthread`, which ends where
/// the thread pointer points to. `None` with another C library.
///
/// The thread pointer leads to glibc's `tcbhead_t` (sysdeps/aarch64/nptl/tls.h), whose first word is the vector of
/// thread-local blocks: pairs of words, of which the second pair belongs to the executable. Its block follows the two words of
/// `tcbhead_t`, at the segment's alignment.
pub(in super::super) fn thread_pointer(robust: u64, memory: &Memory) -> Option<u64> {
    /// More than the size of `struct pthread`, and than the largest alignment of thread locals that is expected.
    const FARTHEST: usize = 4096;
    let mut bytes = [0; FARTHEST];
    let read = memory.read(None, Address::new(robust), &mut bytes);
    let (words, _) = bytes.get(..read)?.as_chunks::<8>();
    let is_head = |(address, vector): &(u64, u64)| {
        let mut block = [0; 8];
        let pair = Address::new(vector.saturating_add(16));
        address % 16 == 0
            && *vector != 0
            && vector % 8 == 0
            && memory.read(None, pair, &mut block) == block.len()
            && u64::from_le_bytes(block)
                .checked_sub(*address)
                .is_some_and(|distance| (16..=FARTHEST as u64).contains(&distance))
    };
    let addresses = (0_u64..).map(|index| robust.saturating_add(8 * index));
    let words = words.iter().map(|word| u64::from_le_bytes(*word));
    addresses.zip(words).find(is_head).map(|(address, _)| address)
}

/// Of a musl thread: not known here, because musl's control block ends where the thread pointer points to, and has a size of its
/// own in each version.
pub(in super::super) fn musl_thread(_pointer: u64, _memory: &Memory) -> Option<(i32, u64)> {
    None
}
