//! The notes of a core file: registers and names of threads, mapped files, the auxiliary vector.
//!
//! Layouts are those of `struct elf_prstatus` and `struct elf_prpsinfo` (linux/elfcore.h) and of
//! `fill_files_note` (fs/binfmt_elf.c), for 64-bit machines.

use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use object::elf::{NT_ARM_TLS, NT_AUXV, NT_FILE, NT_PRPSINFO, NT_PRSTATUS, NoteType};

use crate::snapshot::arch::Arch;
use crate::snapshot::{Address, FileOffset, Thread};

/// More threads than a Linux system allows by default; damaged files may claim more.
const MAX_THREADS: usize = 1 << 18;
/// `vm.max_map_count` is 65,530 by default, and may be raised.
const MAX_FILES: usize = 1 << 20;

/// The name of delouse's own notes.
pub(in crate::targets) const DELOUSE: &[u8] = b"delouse";
/// One record of 24 bytes for each thread, also for those without registers: tid (4 bytes, little-endian),
/// state letter (1), 3 zeroes, name (16, padded with zeroes). Standard notes contain no names of threads.
///
/// The number differs from those of standard notes, because some readers ignore the name of a note.
pub(in crate::targets) const NT_DELOUSE_THREADS: NoteType = NoteType(0x444c_0001);

/// A range of memory that is mapped from a file, according to NT_FILE.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FileRange {
    pub(super) range: Range<Address>,
    /// What the file has at the start of the range.
    pub(super) offset: FileOffset,
    pub(super) path: PathBuf,
}

/// The contents of the notes.
#[derive(Debug, Default)]
pub(super) struct Notes {
    /// Threads with registers, in the order of the file.
    pub(super) threads: Vec<Thread>,
    /// In the order of the file.
    pub(super) files: Vec<FileRange>,
    /// The auxiliary vector: pairs of a key (`AT_*`) and a value.
    pub(super) auxv: Vec<(u64, u64)>,
    /// Id, name and state from NT_PRPSINFO. The kernel and gdb write one such note, for the main thread. Other writers
    /// may write one for each thread.
    names: Vec<(i32, String, char)>,
    /// Id, name and state of all threads, from delouse's own note.
    listed: Vec<(i32, String, char)>,
}

impl Notes {
    /// Adds one note. Notes of unknown kind and notes that are too short are ignored.
    pub(super) fn add(&mut self, arch: &dyn Arch, kind: NoteType, name: &[u8], desc: &[u8]) {
        match (name, kind) {
            (b"CORE", NT_PRSTATUS) if self.threads.len() < MAX_THREADS => {
                self.threads.extend(thread(desc, arch));
            }
            (b"CORE", NT_PRPSINFO) => self.names.extend(process_name(desc)),
            (b"CORE", NT_AUXV) => self.auxv = auxv(desc),
            (b"CORE", NT_FILE) => self.files = files(desc).unwrap_or_default(),
            // Written by `this_process/core_notes.rs`.
            (DELOUSE, NT_DELOUSE_THREADS) => {
                self.listed = desc.chunks_exact(24).take(MAX_THREADS).filter_map(listed).collect();
            }
            // aarch64: follows the NT_PRSTATUS of its thread. On x86_64, NT_PRSTATUS contains this register.
            (b"LINUX", NT_ARM_TLS) => {
                if let (Some(Thread { registers: Ok(registers), .. }), Some(tls)) =
                    (self.threads.last_mut(), u64_at(desc, 0))
                {
                    registers.tls = Address::new(tls);
                }
            }
            _ => {}
        }
    }

    /// Returns the threads with their names, ordered by id. Call this after the last note.
    pub(super) fn take_threads(&mut self) -> Vec<Thread> {
        let mut threads = std::mem::take(&mut self.threads);
        threads.sort_by_key(|t| t.tid);
        threads.dedup_by_key(|t| t.tid);
        let listed = std::mem::take(&mut self.listed);
        for (tid, name, state) in self.names.iter().chain(&listed) {
            if let Ok(at) = threads.binary_search_by_key(tid, |t| t.tid)
                && let Some(thread) = threads.get_mut(at)
            {
                thread.name.clone_from(name);
                // gcore stops threads with ptrace and records the resulting state `t`, not the thread's own state.
                thread.state = Some(*state).filter(|s| s.is_ascii_alphabetic() && *s != 't');
            }
        }
        let captured: Vec<_> = threads.iter().map(|t| t.tid).collect();
        for (tid, name, state) in listed {
            if captured.binary_search(&tid).is_err() {
                let state = Some(state).filter(char::is_ascii_alphabetic);
                threads.push(Thread { name, state, ..Thread::new(tid) });
            }
        }
        threads.sort_by_key(|t| t.tid);
        threads.dedup_by_key(|t| t.tid);
        threads
    }

    /// A value of the auxiliary vector.
    pub(super) fn aux(&self, key: u64) -> Option<u64> {
        self.auxv.iter().find(|(k, _)| *k == key).map(|(_, v)| *v)
    }
}

fn thread(desc: &[u8], arch: &dyn Arch) -> Option<Thread> {
    const PR_PID: usize = 32;
    const PR_UTIME: usize = 48;
    const PR_STIME: usize = 64;
    const PR_REG: usize = 112;
    let time = |at: usize| -> Option<Duration> {
        let (seconds, micros) = (u64_at(desc, at)?, u64_at(desc, at + 8)?);
        Some(
            Duration::from_secs(seconds.min(u64::from(u32::MAX))) + Duration::from_micros(micros % 1_000_000),
        )
    };
    let register = |index: usize| u64_at(desc, PR_REG + 8 * index);
    Some(Thread {
        // gcore writes no times.
        cpu: time(PR_UTIME)
            .zip(time(PR_STIME))
            .map(|(user, system)| user + system)
            .filter(|cpu| !cpu.is_zero()),
        registers: Ok(arch.core_registers(&register)?),
        ..Thread::new(i32_at(desc, PR_PID)?)
    })
}

/// The thread id, name and state in an NT_PRPSINFO.
fn process_name(desc: &[u8]) -> Option<(i32, String, char)> {
    const PR_SNAME: usize = 1;
    const PR_PID: usize = 24;
    const PR_FNAME: usize = 40;
    Some((i32_at(desc, PR_PID)?, name_at(desc, PR_FNAME)?, char::from(*desc.get(PR_SNAME)?)))
}

/// One record of [`NT_DELOUSE_THREADS`].
fn listed(record: &[u8]) -> Option<(i32, String, char)> {
    Some((i32_at(record, 0)?, name_at(record, 8)?, char::from(*record.get(4)?)))
}

fn auxv(desc: &[u8]) -> Vec<(u64, u64)> {
    (0..desc.len() / 16)
        .map_while(|i| Some((u64_at(desc, 16 * i)?, u64_at(desc, 16 * i + 8)?)))
        .take_while(|(key, _)| *key != 0)
        .collect()
}

fn files(desc: &[u8]) -> Option<Vec<FileRange>> {
    let count = usize::try_from(u64_at(desc, 0)?).ok().filter(|&n| n <= MAX_FILES.min(desc.len() / 24))?;
    let page_size = u64_at(desc, 8)?;
    let mut paths = desc.get(16 + 24 * count..)?.split(|&b| b == 0);
    let mut ranges = Vec::with_capacity(count);
    for i in 0..count {
        let at = 16 + 24 * i;
        let path = paths.next()?;
        ranges.push(FileRange {
            range: Address::range(u64_at(desc, at)?..u64_at(desc, at + 8)?),
            offset: FileOffset::new(u64_at(desc, at + 16)?.checked_mul(page_size)?),
            path: path_of(path),
        });
    }
    Some(ranges)
}

#[cfg(unix)]
fn path_of(bytes: &[u8]) -> PathBuf {
    use std::os::unix::ffi::OsStrExt;
    PathBuf::from(std::ffi::OsStr::from_bytes(bytes))
}

#[cfg(not(unix))]
fn path_of(bytes: &[u8]) -> PathBuf {
    PathBuf::from(String::from_utf8_lossy(bytes).into_owned())
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().copied().map(u64::from_le_bytes)
}

fn i32_at(bytes: &[u8], at: usize) -> Option<i32> {
    bytes.get(at..)?.first_chunk().copied().map(i32::from_le_bytes)
}

/// A name in a field of 16 bytes, which is padded with zeroes.
fn name_at(bytes: &[u8], at: usize) -> Option<String> {
    let name = bytes.get(at..)?.first_chunk::<16>()?.split(|&byte| byte == 0).next()?;
    Some(String::from_utf8_lossy(name).into_owned())
}
