//! The signal frame on which a thread makes a call for the helper.
//!
//! If the helper ends while the thread makes the call, the kernel lets the thread run on: it returns from the call into the
//! frame, and the frame restores all its registers, as after a signal handler (`rt_sigreturn`).

use super::arch::Registers;

/// Addresses of code in the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Gadgets {
    /// A system call, and a return.
    pub(crate) call: u64,
    /// The end of a signal handler.
    pub(crate) restore: u64,
    /// The end of a thread or a process.
    pub(crate) exit: u64,
}

/// The instructions that [`Gadgets`] are found by.
pub(super) struct Instructions {
    pub(super) call: &'static [u8],
    pub(super) restore: &'static [u8],
    /// Any of these.
    pub(super) exit: &'static [&'static [u8]],
    /// Instructions start at multiples of this.
    pub(super) alignment: usize,
}

/// What is written to the thread's stack, and where.
pub(super) struct Frame {
    /// Address of the first byte.
    pub(super) base: u64,
    /// Number of bytes.
    pub(super) length: usize,
    /// The stack pointer for the call: the address of the frame.
    pub(super) sp: u64,
    /// The stack pointer of a forked image.
    pub(super) child_sp: u64,
}

/// The state of a thread that the frame restores.
pub(super) struct State<'a> {
    pub(super) registers: &'a Registers,
    /// As [`super::sys::extended_registers`] returns it.
    pub(super) extended: &'a [u8],
    pub(super) blocked_signals: u64,
}

/// Writes to the bytes of a frame by their addresses.
pub(super) struct Writer<'b> {
    pub(super) bytes: &'b mut [u8],
    pub(super) base: u64,
}

impl Writer<'_> {
    pub(super) fn word(&mut self, address: u64, word: u64) -> Option<()> {
        self.copy(address, &word.to_le_bytes())
    }

    pub(super) fn copy(&mut self, address: u64, bytes: &[u8]) -> Option<()> {
        let start = usize::try_from(address.checked_sub(self.base)?).ok()?;
        self.bytes.get_mut(start..start.checked_add(bytes.len())?)?.copy_from_slice(bytes);
        Some(())
    }
}
