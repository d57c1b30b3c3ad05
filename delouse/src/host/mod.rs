//! The process that delouse runs in, and limits of what a request may take from it: memory, address space, descriptors.
//! Files are mapped and read within these limits.

pub(crate) mod descriptor_reserve;
pub(crate) mod descriptors;
pub(crate) mod file_parts;
pub(crate) mod heap;
pub(crate) mod limits;
#[cfg(target_os = "linux")]
pub(crate) mod listener;
pub(crate) mod lock;
pub(crate) mod mapped_file;
pub(crate) mod memory_budget;
pub(crate) mod memory_left;
pub(crate) mod open_files;
pub(crate) mod proc_text;
#[cfg(feature = "debug")]
pub(crate) mod process_figures;
#[cfg(test)]
pub(crate) mod random;
pub(crate) mod scratch;
pub(crate) mod search;
pub(crate) mod shared_bytes;
#[cfg(all(feature = "cli", target_os = "linux"))]
pub(crate) mod signals;
pub(crate) mod unoptimized;
