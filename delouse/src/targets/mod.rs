//! Sources of a [`Snapshot`](crate::snapshot::Snapshot): this process, another process, a core file.

pub(crate) mod core_dump;
pub(crate) mod core_file;
mod error;
mod fork_rates;
mod maps;
#[cfg(any(
    not(target_os = "linux"),
    not(any(target_arch = "x86_64", target_arch = "aarch64")),
    delouse_portable
))]
mod never;
#[cfg_attr(not(target_os = "linux"), path = "no_open_files.rs")]
pub(crate) mod open_files;
#[cfg_attr(not(target_os = "linux"), path = "no_other_process.rs")]
pub(crate) mod other_process;
mod pagemap;
pub(crate) mod program_file;
#[cfg(target_os = "linux")]
mod unix_peers;

pub(crate) use error::SnapshotError;
#[cfg(not(feature = "dump"))]
pub(crate) use open_files::writes_to_a_full_pipe;

#[cfg(feature = "dump")]
pub(crate) mod core_pattern;
#[cfg(feature = "dump")]
mod own_object;
#[cfg(feature = "dump")]
mod pause_budget;
#[cfg(feature = "dump")]
#[cfg_attr(
    not(all(
        target_os = "linux",
        any(target_arch = "x86_64", target_arch = "aarch64"),
        not(delouse_portable)
    )),
    path = "unsupported.rs"
)]
mod this_process;

#[cfg(feature = "dump")]
pub(crate) use {
    maps::own_mappings,
    own_object::own_object,
    pause_budget::{Joined, Limits, Prediction},
    this_process::{
        ForkedImage, Live, QuitSignals, SignalWakes, TermSignals, closed_by_peer, core_writer, defer_term,
        end_by_sigterm, fork, fork_with_threads, freeze, freeze_fork_thaw, join_huge_pages, listen_for_quit,
        listen_for_term, monotonic_nanos, open_file, own_connections, rolling, with_signals_blocked,
        writes_to_a_full_pipe, yield_to_program,
    },
};
