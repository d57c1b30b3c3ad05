//! Tasks, threads and findings of a target: what every face calls.
//!
//! [`Inspector`] captures the process that it is part of. [`Foreign`] captures another process, or reads a core file. Both
//! make samples and diagnoses by the same functions. A server asks either by the trait [`Inspect`](inspect::Inspect).

#[cfg(feature = "dump")]
mod calling_thread;
#[cfg(feature = "dump")]
mod engines;
pub(crate) mod foreign;
#[cfg(feature = "dump")]
pub(crate) mod foreign_inspector;
#[cfg(feature = "dump")]
pub(crate) mod inspect;
mod learned;
#[cfg(feature = "dump")]
mod memory_engine;
#[cfg(feature = "dump")]
mod polling_threads;
#[cfg(feature = "dump")]
mod reading;
pub(crate) mod sampling;
pub(crate) mod target;
#[cfg(feature = "dump")]
mod taskdump;
#[cfg(feature = "dump")]
mod this_process;
#[cfg(feature = "dump")]
mod threads;

#[cfg(feature = "dump")]
pub(crate) use this_process::Inspector;
