//! ELF modules and DWARF: which file is mapped where, symbols and lines of an address, types.
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

pub(crate) mod address;
mod bounded_file;
mod compressed;
pub(crate) mod elf;
mod entries;
mod frame_pointer;
pub(crate) mod image;
pub(crate) mod lock;
mod module;
pub(crate) mod modules;
pub(crate) mod object_file;
pub(crate) mod paths;
pub(crate) mod separate;
pub(crate) mod symbols;
pub(crate) mod types;
pub(crate) mod unwind;

#[cfg(test)]
mod tests;
