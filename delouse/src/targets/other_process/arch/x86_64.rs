//! x86_64.

use std::array;

use crate::snapshot::arch::{Arch, X86_64};
use crate::snapshot::{Address, FutexWait, Registers};
use crate::targets::other_process::memory::Memory;
use crate::targets::other_process::sample::Sample;
use crate::targets::other_process::task_files::Sleep;

/// Words of `elf_gregset_t`, which is `struct user_regs_struct` (sys/user.h).
pub(in super::super) const WORDS: usize = 27;
/// The registers that are known of a thread that was not stopped, for messages.
pub(in super::super) const VISIBLE_REGISTERS: &str = "rip, rsp, arguments of the call";

/// The registers of a thread that was stopped.
pub(in super::super) fn all_registers(sample: &Sample) -> Option<Registers> {
    const R10: usize = 7;
    const RDX: usize = 12;
    const RSI: usize = 13;
    const RDI: usize = 14;
    const ORIG_RAX: usize = 15;
    let word = |index: usize| sample.words.get(index).copied();
    let arch: &dyn Arch = X86_64;
    let registers = arch.core_registers(&word)?;
    // Whatever the kernel will return from an interrupted wait, the thread waits.
    let arguments = [word(RDI)?, word(RSI)?, word(RDX)?, word(R10)?];
    let futex = FutexWait::from_syscall(arch, word(ORIG_RAX)?, arguments).filter(|_| !sample.ran);
    Some(Registers { futex, ..registers })
}

/// What is known of a thread that waits in a system call (`/proc/TID/syscall`), as registers are at its entry. `tls` is
/// the thread pointer.
pub(in super::super) fn words_of_sleeper(sleep: &Sleep, tls: u64) -> Option<[u64; WORDS]> {
    /// The kernel's selectors for code and data of 64-bit programs (asm/segment.h).
    const CODE: u64 = 0x33;
    const DATA: u64 = 0x2b;
    /// The result in rax until the call returns.
    const NOT_YET: u64 = (-libc::ENOSYS as i64) as u64;
    let [rdi, rsi, rdx, r10, r8, r9] = sleep.arguments;
    let mut words = [0; WORDS];
    for (index, value) in [
        (7, r10),
        (8, r9),
        (9, r8),
        (10, NOT_YET),
        (12, rdx),
        (13, rsi),
        (14, rdi),
        (15, sleep.number as u64),
        (16, sleep.pc),
        (17, CODE),
        (19, sleep.sp),
        (20, DATA),
        (21, tls),
    ] {
        *words.get_mut(index)? = value;
    }
    Some(words)
}

/// How far behind the start of a thread's control block libc keeps its list of robust mutexes.
const CONTROL_BLOCK: u64 = 4096;

/// The thread pointer of a thread whose list of robust mutexes is at `robust`, which is in the thread's control block.
///
/// The control block begins with its own address (System V ABI: `%fs:0`), and glibc and musl repeat that in the third or
/// second word.
pub(in super::super) fn thread_pointer(robust: u64, memory: &Memory) -> Option<u64> {
    let start = robust.saturating_sub(CONTROL_BLOCK);
    let mut bytes = [0; CONTROL_BLOCK as usize];
    let read = memory.read(None, Address::new(start), &mut bytes);
    // The control block may be the first thing in its mapping.
    let (start, read) = match read {
        0 => {
            let page = robust & !(CONTROL_BLOCK - 1);
            let part = bytes.get_mut(..usize::try_from(robust.saturating_sub(page)).ok()?)?;
            (page, memory.read(None, Address::new(page), part))
        }
        read => (start, read),
    };
    let (words, _) = bytes.get(..read)?.as_chunks::<8>();
    let words: [u64; CONTROL_BLOCK as usize / 8] =
        array::from_fn(|index| words.get(index).map_or(0, |word| u64::from_le_bytes(*word)));
    let is_block = |index: &usize| {
        let address = start.saturating_add(8 * *index as u64);
        let word = |offset: usize| words.get(index.saturating_add(offset)).copied();
        word(0) == Some(address) && word(2) == Some(address)
    };
    let index = (0..read / 8).rev().find(is_block)?;
    Some(start.saturating_add(8 * index as u64))
}

/// Of the musl thread whose thread pointer is `pointer`: its id, and the thread pointer of the next thread.
///
/// musl links the control blocks of all threads in a circle (src/internal/pthread_impl.h, since 1.1.22): a block begins with its
/// own address, the vector of thread locals, the previous and the next block, two more words, and the id. glibc has other data
/// there.
pub(in super::super) fn musl_thread(pointer: u64, memory: &Memory) -> Option<(i32, u64)> {
    let mut bytes = [0; 7 * 8];
    if memory.read(None, Address::new(pointer), &mut bytes) < bytes.len() {
        return None;
    }
    let (words, _) = bytes.as_chunks::<8>();
    let word = |index: usize| words.get(index).map(|word| u64::from_le_bytes(*word));
    (word(0)? == pointer).then_some((word(6)? as u32 as i32, word(3)?))
}
