//! ELF modules and DWARF: which file is mapped where, symbols and lines of an address, types.

pub(crate) mod image;
pub(crate) mod types;
