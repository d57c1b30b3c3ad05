//! Notes of a thread that core files have on this architecture only.

use super::image::ThreadNote;

/// aarch64: the thread pointer, which is not one of the general registers, and which bits of an address may be its
/// signature, without which debuggers do not find signed return addresses.
#[cfg(all(target_arch = "aarch64", target_os = "linux"))]
pub(in crate::targets) fn host_notes(thread_pointer: u64) -> Vec<ThreadNote> {
    use object::elf::{NT_ARM_TLS, NoteType};
    /// `struct user_pac_mask`: of data, and of code (linux/elf.h).
    const NT_ARM_PAC_MASK: NoteType = NoteType(0x406);
    let note = |kind, contents| ThreadNote { name: b"LINUX", kind, contents };
    let pointer = note(NT_ARM_TLS, thread_pointer.to_le_bytes().to_vec());
    let mask = signature_mask();
    let mask = (mask != 0).then(|| note(NT_ARM_PAC_MASK, [mask.to_le_bytes(); 2].concat()));
    std::iter::once(pointer).chain(mask).collect()
}

/// x86_64: none, because the bases of segments are general registers.
#[cfg(not(all(target_arch = "aarch64", target_os = "linux")))]
pub(in crate::targets) fn host_notes(_thread_pointer: u64) -> Vec<ThreadNote> {
    Vec::new()
}

/// The bits of an address that are its signature (pointer authentication); 0 if addresses are not signed.
#[cfg(all(target_arch = "aarch64", target_os = "linux"))]
fn signature_mask() -> u64 {
    /// All bits of an address of user space, which has a zero in bit 55.
    const ALL: u64 = (1 << 55) - 1;
    let mut address = ALL;
    // SAFETY: `xpaclri`, a hint, which removes the signature from x30, or does nothing on a processor that does not sign.
    unsafe {
        std::arch::asm!("hint #7", inout("x30") address, options(nomem, nostack, preserves_flags));
    }
    ALL ^ address
}
