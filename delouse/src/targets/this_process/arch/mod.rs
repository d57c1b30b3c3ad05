//! Code that depends on the processor's architecture: raw system calls, the layout of a signal's context, register sets of
//! core files. One file per architecture; all have the same items in the same order.

#[cfg_attr(target_arch = "aarch64", path = "aarch64.rs")]
#[cfg_attr(target_arch = "x86_64", path = "x86_64.rs")]
mod host;

pub(super) use host::*;
