//! What is read of one thread. Nothing here allocates: the helper process uses it (`stop/helper.rs`).

use std::os::fd::BorrowedFd;

use super::arch::WORDS;
use super::task_files::{Runs, Sleep, Syscall, TaskFiles};

/// Bytes of a stack that are copied. Deeper frames are read from memory.
pub(super) const STACK: usize = 64 << 10;
/// Functions that call no other may use these bytes below their stack pointer.
const RED_ZONE: u64 = 128;
/// How often a sleeping thread is read until it does not run meanwhile.
const ATTEMPTS: u32 = 4;

/// How much is known of a thread.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Known {
    /// Only that it exists.
    #[default]
    Nothing,
    /// It runs, and could not be stopped or was not to be stopped.
    Running,
    /// The program counter and the stack pointer, from [`Sample::sleep`].
    Asleep,
    /// All registers.
    Registers,
    /// It was not stopped in time.
    NoAnswer,
    /// It has ended.
    Ended,
}

/// One thread. All zeroes are a valid value.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(super) struct Sample {
    pub(super) tid: i32,
    pub(super) known: Known,
    /// The helper traces it: it must be detached before the helper may forget it.
    pub(super) traced: bool,
    /// The signal that is delivered to it when it is resumed; 0 without one.
    pub(super) signal: i32,
    /// It ran when it was read last.
    pub(super) ran: bool,
    /// It ran when the image was made: its registers are of a later moment, and of the copied stack.
    pub(super) moved: bool,
    pub(super) runs: Runs,
    pub(super) sleep: Sleep,
    /// `elf_gregset_t`.
    pub(super) words: [u64; WORDS],
    /// The thread pointer, on architectures where it is not one of the words.
    pub(super) tls: u64,
    /// Address and length of the copied stack; a length of 0 without a copy.
    pub(super) stack_base: u64,
    pub(super) stack_length: usize,
}

impl Sample {
    pub(super) fn new(tid: i32) -> Self {
        Self {
            tid,
            known: Known::Nothing,
            traced: false,
            signal: 0,
            ran: false,
            moved: false,
            runs: Runs::default(),
            sleep: Sleep::default(),
            words: [0; WORDS],
            tls: 0,
            stack_base: 0,
            stack_length: 0,
        }
    }

    /// Reads whether the thread sleeps, and where, without stopping it.
    pub(super) fn read(&mut self, files: TaskFiles<'_>) {
        // The count is read first: if it is unchanged later, the thread has not run since it was read where it sleeps.
        self.runs = files.runs(self.tid).unwrap_or_default();
        self.known = match files.syscall(self.tid) {
            Some(Syscall::Running) => Known::Running,
            Some(Syscall::Asleep(sleep)) => {
                self.sleep = sleep;
                Known::Asleep
            }
            None if files.runs(self.tid).is_none() => Known::Ended,
            None => Known::Nothing,
        };
        self.ran = self.known == Known::Running;
    }

    /// Whether the thread has run since [`Sample::read`].
    pub(super) fn has_run(&self, files: TaskFiles<'_>) -> bool {
        files.runs(self.tid).is_none_or(|runs| runs.count != self.runs.count)
    }

    /// Reads where the thread sleeps, and its stack, without stopping it: again, if it ran meanwhile.
    pub(super) fn read_with_stack(&mut self, files: TaskFiles<'_>, memory: BorrowedFd<'_>, stack: &mut [u8]) {
        for _ in 0..ATTEMPTS {
            self.read(files);
            if self.known != Known::Asleep {
                break;
            }
            self.copy_stack(memory, self.sleep.sp, stack);
            if !self.has_run(files) {
                return;
            }
        }
        // Each time, it ran meanwhile: it runs more often than it sleeps.
        if self.known == Known::Asleep {
            self.known = Known::Running;
        }
        self.stack_length = 0;
    }

    /// Copies the stack from `sp` upwards into `stack`.
    pub(super) fn copy_stack(&mut self, memory: BorrowedFd<'_>, sp: u64, stack: &mut [u8]) {
        self.stack_base = sp.saturating_sub(RED_ZONE) & !7;
        let mut filled = 0_usize;
        // A read that begins in mapped memory returns what is before the first page that is not.
        while let Some(rest) = stack.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match rustix::io::pread(memory, rest, self.stack_base.saturating_add(filled as u64)) {
                Ok(0) | Err(_) => break,
                Ok(count) => filled = filled.saturating_add(count),
            }
        }
        self.stack_length = filled;
    }
}
