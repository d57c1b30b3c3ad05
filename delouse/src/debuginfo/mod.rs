//! ELF modules and DWARF: which file is mapped where, symbols and lines of an address, types.

pub(crate) mod modules;
pub(crate) mod object_file;
pub(crate) mod symbols;
pub(crate) mod unwind;
