//! Registers of another process's threads, by architecture. Other architectures than these capture no threads
//! (`no_stop.rs`), and have x86_64's only so that they compile.

#[cfg_attr(target_arch = "aarch64", path = "aarch64.rs")]
#[cfg_attr(not(target_arch = "aarch64"), path = "x86_64.rs")]
mod current;

pub(super) use current::{
    VISIBLE_REGISTERS, WORDS, all_registers, musl_thread, thread_pointer, words_of_sleeper,
};
