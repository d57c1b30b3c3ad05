//! What a fork costs, measured on a small virtual machine.

/// Nanoseconds per megabyte of anonymous memory in 4K pages.
pub(super) const FORK_NS_PER_MB: u64 = 35_000;
/// Nanoseconds per megabyte in huge pages.
pub(super) const FORK_NS_PER_HUGE_MB: u64 = 1_500;
/// Nanoseconds per mapping.
pub(super) const FORK_NS_PER_MAPPING: u64 = 1_100;
/// Forks of less memory, in megabytes, do not measure the rate.
pub(super) const LEAST_MEASURED_MB: u64 = 64;
/// Memory that always stays free, in bytes.
pub(super) const RESERVE: u64 = 16 << 20;
