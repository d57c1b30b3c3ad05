//! The entries of a unit, read without gimli.
//!
//! A dev build compiles dependencies without optimisation too. There, each method of gimli's readers costs more than the
//! bytes that it reads: a pass over the entries of the units that one answer needs took seconds. What visits millions of
//! bytes is therefore written here with slice patterns, which the compiler translates in place, and skips entries by
//! sizes that are computed once for each abbreviation. Everything else (locations, ranges, addresses and strings by index)
//! is left to gimli.

mod abbreviations;
pub(super) mod aranges;
pub(super) mod bytes;
mod entry;
mod forms;
mod lines;
mod walk;

#[cfg(test)]
mod tests;

pub(super) use abbreviations::Abbreviation;
pub(super) use entry::{Entry, Value};
pub(super) use lines::{Lines, Program, Row};
pub(super) use walk::Entries;
