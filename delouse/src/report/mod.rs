//! Answers as text for people. JSON is the models themselves.

pub(crate) mod elf;
pub(crate) mod threads;
