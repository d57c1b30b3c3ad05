//! The notes of a core file: registers and names of threads, mapped files, the auxiliary vector.
//!
//! Layouts are those of `struct elf_prstatus` and `struct elf_prpsinfo` (linux/elfcore.h) and of
//! `fill_files_note` (fs/binfmt_elf.c), for 64-bit machines.

use std::array;
use std::path::PathBuf;
use std::time::Duration;

use crate::snapshot::{FutexWait, Hidden, Registers, Thread, Unavailable};

/// More threads than any Linux machine runs by default; a limit for files that lie.
const MAX_THREADS: usize = 1 << 18;
/// `vm.max_map_count` is 65,530 by default; some raise it.
const MAX_FILES: usize = 1 << 20;

const NT_PRSTATUS: u32 = 1;
const NT_PRPSINFO: u32 = 3;
const NT_AUXV: u32 = 6;
const NT_FILE: u32 = 0x4649_4c45;
/// The name of our own notes.
pub(in crate::snapshot) const DELOUSE: &[u8] = b"delouse";
/// One record of 24 bytes for each thread, also for those without registers: tid (4 bytes, little-endian),
/// state letter (1), 3 zeroes, name (16, padded with zeroes). No standard note has names of threads, and
/// gdb shows none for a Linux core.
///
/// A number that no standard note has: some readers look at the number alone.
pub(in crate::snapshot) const NT_DELOUSE_THREADS: u32 = 0x444c_0001;
const NT_ARM_TLS: u32 = 0x401;

/// A stretch of memory that NT_FILE says is mapped from a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FileRange {
    /// First address.
    pub(super) start: u64,
    /// One past the last address.
    pub(super) end: u64,
    /// Offset in the file, in bytes.
    pub(super) offset: u64,
    /// The file's path as the kernel had it.
    pub(super) path: PathBuf,
}

/// What the notes tell.
#[derive(Debug, Default)]
pub(super) struct Notes {
    /// In the order of the file.
    pub(super) threads: Vec<Thread>,
    /// In the order of the file.
    pub(super) files: Vec<FileRange>,
    /// Pairs of the auxiliary vector (`AT_*`, value).
    pub(super) auxv: Vec<(u64, u64)>,
    /// Names by thread id: the kernel and gdb write one for the process, whoever writes one for each
    /// thread (`pr_pid` is its tid) names them all.
    names: Vec<(i32, String, char)>,
    /// All threads, also those without registers.
    listed: Vec<(i32, String, char)>,
}

impl Notes {
    /// Takes one note in. Those of unknown kind are passed over, as are those that are too short.
    pub(super) fn add(&mut self, kind: u32, name: &[u8], desc: &[u8]) {
        match (name, kind) {
            (b"CORE", NT_PRSTATUS) if self.threads.len() < MAX_THREADS => {
                self.threads.extend(thread(desc));
            }
            (b"CORE", NT_PRPSINFO) => self.names.extend(name_of(desc)),
            (b"CORE", NT_AUXV) => self.auxv = auxv(desc),
            (b"CORE", NT_FILE) => self.files = files(desc).unwrap_or_default(),
            // Of delouse's own writer (see `snapshot/linux/core_notes.rs`): all threads, named.
            (DELOUSE, NT_DELOUSE_THREADS) => {
                self.listed = desc.chunks_exact(24).take(MAX_THREADS).filter_map(listed).collect();
            }
            // Follows the PRSTATUS of its thread; x86_64 has the same in PRSTATUS.
            (b"LINUX", NT_ARM_TLS) => {
                if let (Some(Thread { registers: Ok(registers), .. }), Some(tls)) =
                    (self.threads.last_mut(), u64_at(desc, 0))
                {
                    registers.tls = tls;
                }
            }
            _ => {}
        }
    }

    /// Takes the threads out, ordered by id and named. After the last note.
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
                // Whoever takes a core by ptrace makes the thread `t`: that says nothing about the program.
                thread.state = Some(*state).filter(|s| s.is_ascii_alphabetic() && *s != 't');
            }
        }
        let captured: Vec<_> = threads.iter().map(|t| t.tid).collect();
        for (tid, name, state) in listed {
            if captured.binary_search(&tid).is_err() {
                let registers = Err(Unavailable::NotCaptured);
                let state = Some(state).filter(char::is_ascii_alphabetic);
                threads.push(Thread {
                    tid,
                    name,
                    state,
                    cpu: None,
                    kernel: None,
                    registers,
                    stack: None,
                    alternate_stack: None,
                });
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

fn thread(desc: &[u8]) -> Option<Thread> {
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
        tid: i32::from_le_bytes(desc.get(PR_PID..PR_PID + 4)?.try_into().ok()?),
        name: String::new(),
        state: None,
        // gcore leaves the times out.
        cpu: time(PR_UTIME)
            .zip(time(PR_STIME))
            .map(|(user, system)| user + system)
            .filter(|cpu| !cpu.is_zero()),
        registers: Ok(registers(register)?),
        kernel: None,
        stack: None,
        alternate_stack: None,
    })
}

/// `struct user_regs_struct` of x86_64 (sys/user.h).
#[cfg(not(target_arch = "aarch64"))]
fn registers(register: impl Fn(usize) -> Option<u64>) -> Option<Registers> {
    const RBP: usize = 4;
    const RAX: usize = 10;
    const RDX: usize = 12;
    const RSI: usize = 13;
    const RDI: usize = 14;
    const ORIG_RAX: usize = 15;
    const RIP: usize = 16;
    const RSP: usize = 19;
    const FS_BASE: usize = 21;
    // The kernel and gcore tell the call that a thread is in, and in rax what is to become of it: one that waits
    // without a limit will be made again (ERESTARTSYS). Delouse's own cores have it about to be made.
    const AGAIN: u64 = -512_i64 as u64;
    let call = match (register(ORIG_RAX)?, register(RAX)?) {
        (call, AGAIN) => call,
        (u64::MAX, call) => call,
        _ => u64::MAX,
    };
    Some(Registers {
        pc: register(RIP)?,
        sp: register(RSP)?,
        fp: Hidden::new(register(RBP)?),
        lr: 0,
        tls: register(FS_BASE)?,
        futex: FutexWait::of(call, [register(RDI)?, register(RSI)?, register(RDX)?]),
        general: array::from_fn(|index| Hidden::new(register(index).unwrap_or(0))),
    })
}

/// `struct user_pt_regs` of aarch64 (asm/ptrace.h): x0 to x30, sp, pc, pstate. Not yet run.
#[cfg(target_arch = "aarch64")]
fn registers(register: impl Fn(usize) -> Option<u64>) -> Option<Registers> {
    Some(Registers {
        pc: register(32)?,
        sp: register(31)?,
        fp: Hidden::new(register(29)?),
        lr: register(30)?,
        futex: FutexWait::of(register(8)?, [register(0)?, register(1)?, register(2)?]),
        general: array::from_fn(|index| Hidden::new(register(index).unwrap_or(0))),
        ..Registers::default()
    })
}

fn name_of(desc: &[u8]) -> Option<(i32, String, char)> {
    const PR_SNAME: usize = 1;
    const PR_PID: usize = 24;
    const PR_FNAME: usize = 40;
    let fname = desc.get(PR_FNAME..PR_FNAME + 16)?;
    let end = fname.iter().position(|&b| b == 0).unwrap_or(fname.len());
    Some((
        i32::from_le_bytes(desc.get(PR_PID..PR_PID + 4)?.try_into().ok()?),
        String::from_utf8_lossy(fname.get(..end)?).into_owned(),
        char::from(*desc.get(PR_SNAME)?),
    ))
}

/// One record of delouse's own note: tid, state letter, three zeroes, name.
fn listed(record: &[u8]) -> Option<(i32, String, char)> {
    let name = record.get(8..24)?;
    let end = name.iter().position(|&b| b == 0).unwrap_or(name.len());
    Some((
        i32::from_le_bytes(record.get(..4)?.try_into().ok()?),
        String::from_utf8_lossy(name.get(..end)?).into_owned(),
        char::from(*record.get(4)?),
    ))
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
            start: u64_at(desc, at)?,
            end: u64_at(desc, at + 8)?,
            offset: u64_at(desc, at + 16)?.checked_mul(page_size)?,
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
    let word = bytes.get(at..at.checked_add(8)?)?;
    Some(u64::from_le_bytes(word.try_into().ok()?))
}
