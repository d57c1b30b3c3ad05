//! Any answer, as text.

pub(crate) mod elf;
