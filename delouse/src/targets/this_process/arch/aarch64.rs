//! aarch64. Tested in a guest (tests/targets/aarch64.sh), not on hardware.

use std::arch::asm;
use std::ffi::{CStr, c_void};

use object::elf::NoteType;

use crate::snapshot::arch::AARCH64;
use crate::snapshot::{Address, FutexWait, Hidden, Registers};

/// The most stack that the signal handler uses, in bytes: about 2,210 in a build without optimisations.
pub(in super::super) const STACK_NEEDED: u64 = 3072;
/// System calls that other architectures do not have: old forms of others.
pub(in super::super) const OLD_CALLS: &[(libc::c_long, &str)] = &[];
/// Those of them in which a thread waits for events of several files.
pub(in super::super) const OLD_EVENT_CALLS: &[libc::c_long] = &[];
/// The vDSO's name for `clock_gettime` (vdso(7)).
pub(in super::super) const VDSO_CLOCK: &CStr = c"__kernel_clock_gettime";
/// Words of `elf_gregset_t` (`user_pt_regs`): x0 to x30, sp, pc, pstate.
const GENERAL: usize = 34;
/// `user_fpsimd_state`: v0 to v31, fpsr, fpcr, padding.
pub(in super::super) const FLOAT_BYTES: usize = 528;
/// `struct fpsimd_context`: a header of 8 bytes, fpsr, fpcr, v0 to v31.
const FPSIMD_BYTES: u32 = 528;
const FPSIMD_MAGIC: u32 = 0x4650_8001;
/// `fault_address`, 31 registers, sp, pc, pstate, and padding to 16 bytes come before the records.
const RECORDS_OFFSET: usize = 288;
/// `__reserved` of `struct sigcontext`.
const RECORDS_BYTES: usize = 4096;

/// The registers of a thread, which the kernel has saved on its stack for the signal handler.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct SignalContext {
    /// In the order of `elf_gregset_t`.
    pub(in super::super) general: [u64; GENERAL],
    /// Address of the `fpsimd_context` record, which is valid until the handler returns; 0 if there is none.
    pub(in super::super) extended: u64,
    /// Size of the record in bytes.
    pub(in super::super) extended_len: u32,
    tls: u64,
}

impl SignalContext {
    /// Reads the context that the kernel passes to a signal handler. Async-signal-safe.
    ///
    /// # Safety
    /// `ucontext` is the third argument of a handler installed with `SA_SIGINFO`, and that handler has
    /// not returned.
    pub(in super::super) unsafe fn capture(ucontext: *const c_void) -> Self {
        let ucontext = ucontext.cast::<libc::ucontext_t>();
        // SAFETY: by the contract above, `uc_mcontext` was written by the kernel.
        let mcontext = unsafe { std::ptr::addr_of!((*ucontext).uc_mcontext) }.cast::<u8>();
        let mut general = [0; GENERAL];
        // SAFETY: `struct sigcontext` is `fault_address`, then these 34 words (Linux asm/sigcontext.h).
        unsafe { std::ptr::copy_nonoverlapping(mcontext.add(8).cast(), general.as_mut_ptr(), GENERAL) };

        // Records follow, each with a magic number and its size, the last with both zero.
        let (mut extended, mut extended_len, mut offset) = (0, 0, 0);
        while offset <= RECORDS_BYTES - 8 {
            // SAFETY: `offset` stays inside the 4,096 bytes of `__reserved`.
            let (magic, size) = unsafe {
                let record = mcontext.add(RECORDS_OFFSET.wrapping_add(offset)).cast::<u32>();
                (record.read(), record.add(1).read())
            };
            if magic == FPSIMD_MAGIC && size == FPSIMD_BYTES {
                extended = (mcontext as u64).wrapping_add(RECORDS_OFFSET as u64).wrapping_add(offset as u64);
                extended_len = size;
                break;
            }
            if magic == 0 || size < 8 || size as usize > RECORDS_BYTES {
                break;
            }
            offset = offset.wrapping_add(size as usize);
        }

        let tls;
        // SAFETY: reads a register that user mode may read.
        unsafe { asm!("mrs {}, tpidr_el0", out(reg) tls, options(nomem, nostack, preserves_flags)) };
        Self { general, extended, extended_len, tls }
    }

    /// Stack pointer and base of the thread locals. Async-signal-safe.
    pub(in super::super) fn stack(&self) -> (u64, u64) {
        let [.., sp, _pc, _pstate] = self.general;
        (sp, self.tls)
    }

    /// The registers as the rest of delouse uses them. Not called in the handler. Pointers keep their authentication bits,
    /// which readers of pointers remove.
    pub(in super::super) fn registers(&self) -> Registers {
        let [x0, x1, x2, x3, _, _, _, _, x8, .., fp, lr, sp, pc, _pstate] = self.general;
        // A system call that the signal interrupted will be restarted (SA_RESTART).
        let futex = FutexWait::from_syscall(AARCH64, x8, [x0, x1, x2, x3]);
        let general = std::array::from_fn(|index| Hidden::new(self.general[index]));
        let [pc, sp, tls] = [pc, sp, self.tls].map(Address::new);
        Registers { pc, sp, fp: Hidden::new(fp), lr, tls, futex, general }
    }
}

/// Does nothing: permission overlays, the equivalent on this architecture, are not supported.
pub(in super::super) fn ignore_protection_keys() {}

/// Prefetches memory. `address` may be invalid. Async-signal-safe.
#[inline(always)]
pub(in super::super) fn prefetch(address: u64) {
    // SAFETY: a hint, which never faults.
    unsafe { asm!("prfm pldl1keep, [{}]", in(reg) address, options(nostack, preserves_flags, readonly)) };
}

/// Does nothing: the handler uses no optional features of the processor.
pub(in super::super) fn prepare() {}

/// The contents of an `NT_FPREGSET` note, from the saved record: the same registers in another order.
pub(in super::super) fn float_registers(extended: &[u8]) -> Option<Vec<u8>> {
    let control = extended.get(8..16)?;
    let vectors = extended.get(16..FLOAT_BYTES)?;
    let mut note = Vec::with_capacity(FLOAT_BYTES);
    note.extend_from_slice(vectors);
    note.extend_from_slice(control);
    note.resize(FLOAT_BYTES, 0);
    Some(note)
}

/// Always `None`: gdb needs no second note.
pub(in super::super) fn extended_registers(_: Vec<u8>) -> Option<(NoteType, Vec<u8>)> {
    None
}

/// Makes a system call without libc: no `errno`, no cancellation point. Returns a negated error number on failure.
///
/// Always inlined, so that the call is made in the caller's frame.
///
/// # Safety
/// The arguments obey the contract of system call `number`.
#[inline(always)]
pub(in super::super) unsafe fn syscall(number: i64, arguments: [usize; 6]) -> isize {
    let result;
    // SAFETY: the kernel changes x0 only, and memory as the call's contract says.
    unsafe {
        asm!(
            "svc #0",
            in("x8") number,
            inlateout("x0") arguments[0] => result,
            in("x1") arguments[1],
            in("x2") arguments[2],
            in("x3") arguments[3],
            in("x4") arguments[4],
            in("x5") arguments[5],
            options(nostack),
        );
    }
    result
}

/// Arguments of `clone` for a child with a copy of the caller's stack. The order on this architecture: flags, stack,
/// parent's tid (or pidfd), tls, child's tid.
pub(in super::super) fn clone_arguments(flags: usize, pidfd: usize) -> [usize; 6] {
    [flags, 0, pidfd, 0, 0, 0]
}
