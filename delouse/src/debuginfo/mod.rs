//! ELF modules and DWARF: which file is mapped where, symbols and lines of an address, types.

mod bounded_file;
pub(crate) mod elf;
pub(crate) mod separate;
