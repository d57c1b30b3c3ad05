//! x86_64.

use std::arch::asm;
use std::arch::x86_64::__cpuid_count;
use std::array;
use std::ffi::{CStr, c_void};
use std::sync::atomic::{AtomicBool, Ordering};

use libc::{
    REG_CSGSFS, REG_EFL, REG_R8, REG_R9, REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15, REG_RAX,
    REG_RBP, REG_RBX, REG_RCX, REG_RDI, REG_RDX, REG_RIP, REG_RSI, REG_RSP,
};

use object::elf::{NT_X86_XSTATE, NoteType};

use crate::snapshot::arch::X86_64;
use crate::snapshot::{Address, FutexWait, Hidden, Registers};

/// The most stack that the signal handler uses, in bytes: about 1,850 in a build without optimisations.
pub(in super::super) const STACK_NEEDED: u64 = 2048;
/// System calls that other architectures do not have: old forms of others.
pub(in super::super) const OLD_CALLS: &[(libc::c_long, &str)] = &[
    (libc::SYS_epoll_wait, "epoll_wait"),
    (libc::SYS_open, "open"),
    (libc::SYS_pause, "pause"),
    (libc::SYS_poll, "poll"),
    (libc::SYS_select, "select"),
    (libc::SYS_vfork, "vfork"),
];
/// Those of them in which a thread waits for events of several files.
pub(in super::super) const OLD_EVENT_CALLS: &[libc::c_long] =
    &[libc::SYS_epoll_wait, libc::SYS_poll, libc::SYS_select];
/// The vDSO's name for `clock_gettime` (vdso(7)).
pub(in super::super) const VDSO_CLOCK: &CStr = c"__vdso_clock_gettime";
/// Words of `elf_gregset_t` (`user_regs_struct`).
const GENERAL: usize = 27;
/// Indices in `elf_gregset_t`.
const RBP: usize = 4;
const R10: usize = 7;
const RAX: usize = 10;
const RDX: usize = 12;
const RSI: usize = 13;
const RDI: usize = 14;
const RIP: usize = 16;
const RSP: usize = 19;
const FS_BASE: usize = 21;
/// `elf_fpregset_t`: the legacy area that `fxsave` writes.
pub(in super::super) const FLOAT_BYTES: usize = 512;
/// An upper bound of the size of the xsave area (11 KB with AMX): a larger size means that it was misread.
const MAX_EXTENDED: u32 = 64 << 10;

/// The registers of a thread, which the kernel has saved on its stack for the signal handler.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct SignalContext {
    /// In the order of `elf_gregset_t`.
    pub(in super::super) general: [u64; GENERAL],
    /// Address of the xsave area, which is valid until the handler returns; 0 if there is none.
    pub(in super::super) extended: u64,
    /// Size of the xsave area in bytes: 512 if the kernel saved only the legacy area.
    pub(in super::super) extended_len: u32,
}

impl SignalContext {
    /// Reads the context that the kernel passes to a signal handler. Async-signal-safe.
    ///
    /// # Safety
    /// `ucontext` is the third argument of a handler installed with `SA_SIGINFO`, and that handler has
    /// not returned.
    pub(in super::super) unsafe fn capture(ucontext: *const c_void) -> Self {
        let ucontext = ucontext.cast::<libc::ucontext_t>();
        // Read as words, because the kernel's structure is shorter than libc's, and musl hides some of its fields.
        // Linux asm/sigcontext.h: 23 registers, then the pointer to the floating-point state.
        // SAFETY: by the contract above, the kernel has written at least 24 words of `uc_mcontext`.
        let words = unsafe { std::ptr::addr_of!((*ucontext).uc_mcontext).cast::<[u64; 24]>().read() };
        // cs, gs, fs and ss share a word (`REG_CSGSFS`, Linux asm/sigcontext.h).
        // Not in a loop with a closure, which would take kilobytes of stack in builds without optimisations.
        let segments = words[REG_CSGSFS as usize];
        let (cs, gs) = (segments & 0xffff, (segments >> 16) & 0xffff);
        let (fs, ss) = ((segments >> 32) & 0xffff, segments >> 48);
        // Tells debuggers that no system call is in progress: an interrupted one has its result in rax already.
        let orig_rax = u64::MAX;
        let [fs_base, gs_base] = segment_bases();
        let general = [
            words[REG_R15 as usize],
            words[REG_R14 as usize],
            words[REG_R13 as usize],
            words[REG_R12 as usize],
            words[REG_RBP as usize],
            words[REG_RBX as usize],
            words[REG_R11 as usize],
            words[REG_R10 as usize],
            words[REG_R9 as usize],
            words[REG_R8 as usize],
            words[REG_RAX as usize],
            words[REG_RCX as usize],
            words[REG_RDX as usize],
            words[REG_RSI as usize],
            words[REG_RDI as usize],
            orig_rax,
            words[REG_RIP as usize],
            cs,
            words[REG_EFL as usize],
            words[REG_RSP as usize],
            ss,
            fs_base,
            gs_base,
            // ds and es, which 64-bit code does not use.
            0,
            0,
            fs,
            gs,
        ];
        let extended = words[23];
        let mut extended_len = 0;
        if extended != 0 {
            extended_len = FLOAT_BYTES as u32;
            // Linux asm/sigcontext.h, `struct _fpx_sw_bytes` at offset 464 of the legacy area: a magic
            // number, a size, the features (8 bytes), the size of the xsave area.
            // SAFETY: a legacy area of 512 bytes always follows the context when the pointer is set.
            let (magic, len) = unsafe {
                let software = (extended as *const u8).add(464).cast::<u32>();
                (software.read_unaligned(), software.add(4).read_unaligned())
            };
            if magic == 0x4650_5853 && len >= FLOAT_BYTES as u32 && len <= MAX_EXTENDED {
                extended_len = len;
            }
        }
        Self { general, extended, extended_len }
    }

    /// Stack pointer and base of the thread locals. Async-signal-safe.
    pub(in super::super) fn stack(&self) -> (u64, u64) {
        let [.., sp, _ss, tls, _gs_base, _ds, _es, _fs, _gs] = self.general;
        (sp, tls)
    }

    /// The registers as the rest of delouse uses them. Not called in the handler.
    pub(in super::super) fn registers(&self) -> Registers {
        let general = &self.general;
        // A system call that the signal interrupted will be restarted (SA_RESTART): its number is in rax.
        let arguments = [general[RDI], general[RSI], general[RDX], general[R10]];
        let futex = FutexWait::from_syscall(X86_64, general[RAX], arguments);
        Registers {
            pc: Address::new(general[RIP]),
            sp: Address::new(general[RSP]),
            fp: Hidden::new(general[RBP]),
            lr: 0,
            tls: Address::new(general[FS_BASE]),
            futex,
            general: array::from_fn(|index| Hidden::new(if index <= RDI { general[index] } else { 0 })),
        }
    }
}

/// Prefetches memory. `address` may be invalid. Async-signal-safe.
#[inline(always)]
pub(in super::super) fn prefetch(address: u64) {
    // SAFETY: a hint, which never faults.
    unsafe { asm!("prefetcht0 [{}]", in(reg) address, options(nostack, preserves_flags, readonly)) };
}

/// A bit of `AT_HWCAP2`: programs may read segment bases with instructions (Linux 5.9, asm/hwcap2.h).
const HWCAP2_FSGSBASE: u64 = 1 << 1;
static HAS_FSGSBASE: AtomicBool = AtomicBool::new(false);

/// Detects features of the processor that the handler uses.
pub(in super::super) fn prepare() {
    // SAFETY: reads a constant of the process.
    let features = unsafe { libc::getauxval(libc::AT_HWCAP2) };
    HAS_FSGSBASE.store(features & HWCAP2_FSGSBASE != 0, Ordering::Relaxed);
}

/// Lets the calling thread read memory that protection keys (pkeys(7)) would forbid, as a read through `/proc` may.
/// Async-signal-safe. Not yet tested on a processor with protection keys.
pub(in super::super) fn ignore_protection_keys() {
    // OSPKE: the system uses protection keys (Intel SDM, CPUID, leaf 7). All 64-bit processors have leaf 0.
    if __cpuid_count(0, 0).eax >= 7 && __cpuid_count(7, 0).ecx & (1 << 4) != 0 {
        // SAFETY: changes the access rights of this thread only.
        unsafe { asm!("wrpkru", in("eax") 0, in("ecx") 0, in("edx") 0, options(nostack, preserves_flags)) };
    }
}

/// The contents of an `NT_FPREGSET` note, from the saved area; `None` if there is none.
pub(in super::super) fn float_registers(extended: &[u8]) -> Option<Vec<u8>> {
    extended.get(..FLOAT_BYTES).map(<[u8]>::to_vec)
}

/// Converts the area that the kernel has saved on the stack into the contents of an `NT_X86_XSTATE` note. At offset 464,
/// XCR0 replaces data of the kernel: the features for which the area is laid out. gdb reads it there (`i387_get_xcr0`).
pub(in super::super) fn extended_registers(mut extended: Vec<u8>) -> Option<(NoteType, Vec<u8>)> {
    if extended.len() <= FLOAT_BYTES {
        return None;
    }
    let word = |at: usize| Some(u64::from_le_bytes(extended.get(at..at.checked_add(8)?)?.try_into().ok()?));
    let (mut features, in_use) = (word(472)?, word(512)?);
    // Remove tile registers that the thread does not use: gdb 13 prints a warning for a larger area.
    if in_use & TILES == 0 {
        features &= !TILES;
    }
    extended.get_mut(464..512)?.fill(0);
    extended.get_mut(464..472)?.copy_from_slice(&features.to_le_bytes());
    let moved = intel_layout(&extended, features);
    Some((NT_X86_XSTATE, moved.unwrap_or(extended)))
}

/// Parts of the xsave area: feature, offset on Intel processors, size (Intel SDM volume 1, 13.5). On AMD processors, the
/// AVX-512 parts have other offsets. Core files do not record the layout: gdb before 14 assumes Intel's, and later versions
/// derive it from the size.
const PARTS: [(u32, usize, usize); 5] =
    [(2, 576, 256), (5, 1088, 64), (6, 1152, 512), (7, 1664, 1024), (9, 2688, 8)];
const AVX_512: u64 = 0xe0;
const PKRU: u64 = 1 << 9;
/// AMX: configuration and contents of tile registers.
const TILES: u64 = 0b11 << 17;
/// x87, SSE, AVX, AVX-512, PKRU: the features in [`PARTS`] or the legacy area.
const MOVABLE: u64 = 0x2e7;

/// Converts the area to Intel's layout. `None` if it has this layout already, or contains unknown parts.
fn intel_layout(area: &[u8], features: u64) -> Option<Vec<u8>> {
    if features & AVX_512 == 0 || features & !MOVABLE != 0 {
        return None;
    }
    let len = if features & PKRU != 0 { 2696 } else { 2688 };
    let mut moved = vec![0; len];
    // Legacy area and header.
    moved.get_mut(..576)?.copy_from_slice(area.get(..576)?);
    for (feature, to, size) in PARTS {
        if features & (1 << feature) != 0 {
            let from = __cpuid_count(13, feature).ebx as usize;
            moved.get_mut(to..to + size)?.copy_from_slice(area.get(from..from + size)?);
        }
    }
    Some(moved)
}

const ARCH_GET_FS: usize = 0x1003;
const ARCH_GET_GS: usize = 0x1004;

/// The bases of fs and gs. Async-signal-safe.
fn segment_bases() -> [u64; 2] {
    if !HAS_FSGSBASE.load(Ordering::Relaxed) {
        return [segment_base(ARCH_GET_FS), segment_base(ARCH_GET_GS)];
    }
    let (fs, gs);
    // SAFETY: reads two registers by instructions that the kernel allows.
    unsafe {
        asm!("rdfsbase {}", "rdgsbase {}", out(reg) fs, out(reg) gs, options(nomem, nostack, preserves_flags));
    }
    [fs, gs]
}

fn segment_base(which: usize) -> u64 {
    let mut base = 0_u64;
    // SAFETY: `arch_prctl(ARCH_GET_FS or ARCH_GET_GS, &word)` writes one word.
    unsafe { syscall(libc::SYS_arch_prctl, [which, (&raw mut base) as usize, 0, 0, 0, 0]) };
    base
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
    // SAFETY: the kernel changes rax, rcx and r11 only, and memory as the call's contract says.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number as isize => result,
            in("rdi") arguments[0],
            in("rsi") arguments[1],
            in("rdx") arguments[2],
            in("r10") arguments[3],
            in("r8") arguments[4],
            in("r9") arguments[5],
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    result
}

/// Arguments of `clone` for a child with a copy of the caller's stack. The order on this architecture: flags, stack,
/// parent's tid (or pidfd), child's tid, tls.
pub(in super::super) fn clone_arguments(flags: usize, pidfd: usize) -> [usize; 6] {
    [flags, 0, pidfd, 0, 0, 0]
}
