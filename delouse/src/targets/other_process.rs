//! Another process: an image of one moment where that is possible, and otherwise its memory while it runs.
//!
//! Sleeping threads are not stopped for the image: `/proc` has their program counters. A thread that waits in a futex, or
//! else in `epoll_wait`, forks the image; threads that run are stopped meanwhile. All of it is done by a helper process
//! (`stop`), so that the process continues whatever happens to this one.
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]
#![cfg_attr(
    not(all(any(target_arch = "x86_64", target_arch = "aarch64"), not(delouse_portable))),
    allow(dead_code, reason = "what only the helper process uses")
)]

mod arch;
mod core_image;
mod error;
mod files;
mod forecast;
mod handle;
mod identity;
mod left_over;
mod memory;
mod permit;
mod sample;
mod stop_costs;
mod task_files;
mod thread_list;
mod thread_registers;

#[cfg(all(any(target_arch = "x86_64", target_arch = "aarch64"), not(delouse_portable)))]
mod stop;
#[cfg(not(all(any(target_arch = "x86_64", target_arch = "aarch64"), not(delouse_portable))))]
#[path = "other_process/no_stop.rs"]
mod stop;

#[cfg(all(test, any(target_arch = "x86_64", target_arch = "aarch64"), not(delouse_portable)))]
mod tests;

use std::fs::File;
use std::io;
use std::ops::{Range, RangeInclusive};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use rustix::fs::OFlags;

pub(crate) use self::core_image::{CapturedProcess, capture_for_core};
pub(crate) use self::error::AttachError;
use self::forecast::Forecast;
use self::handle::Process;
pub(crate) use self::identity::Identity;
use self::memory::Memory;
pub(crate) use self::permit::permit_tracing;
use self::sample::Sample;
use self::stop::{Captured, Request};
use self::task_files::Status;
use self::thread_list::ThreadNames;
use self::thread_registers::ThreadRegisters;
use super::maps;
use crate::snapshot::{Address, Capture, Mapping, Snapshot, StackCopy, Thread, micros};

/// How a process may be captured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AttachOptions {
    /// Whether threads may be stopped. Without it, memory is read while the program runs.
    pub(crate) pause: bool,
    /// The longest stop that may be predicted for an image. Otherwise memory is read while the program runs.
    pub(crate) max_pause: Duration,
}

impl Default for AttachOptions {
    fn default() -> Self {
        Self { pause: true, max_pause: Duration::from_millis(50) }
    }
}

/// A process that this process may trace: a child, or any with CAP_SYS_PTRACE.
///
/// An image of it ends when this is dropped; the process reaps it then, which takes up to a second.
pub(crate) struct OtherProcess {
    memory: Memory,
    mappings: Vec<Mapping>,
    threads: Vec<Thread>,
    /// Registers of threads as the kernel has them, for core files.
    registers: Vec<ThreadRegisters>,
    capture: Capture,
    executable: PathBuf,
    executable_name: PathBuf,
    /// The process with the image.
    image: Option<i32>,
    /// Keeps the image.
    _helper: Option<stop::Helper>,
}

/// Captures the process `pid` once. `known` has the identity of the process and its program from the first capture on.
///
/// Stops a thread for some milliseconds (35 ms per gigabyte of memory), and threads that run meanwhile. If an image cannot
/// be made, [`Capture::consistent`] is false, and the notes say why.
///
/// # Errors
/// If the process does not exist, has no program, may not be traced, or is not the one that is known.
pub(crate) fn attach_known(
    pid: u32,
    options: &AttachOptions,
    known: &OnceLock<Identity>,
) -> Result<OtherProcess, AttachError> {
    let started = Instant::now();
    if let Some(known) = known.get() {
        known.check_running()?;
    }
    let process = Process::find(pid)?;
    let status = process.status().ok_or(AttachError::Gone { pid })?;
    let access = if options.pause { OFlags::RDWR } else { OFlags::RDONLY };
    let memory = process.open("mem", access)?;
    Identity::check_or_record(known, &process, &memory)?;
    let seen = Seen::of(&process, &status)?;
    let mut notes = Vec::new();
    let mut captured = seen.capture(&process, &status, &memory, options, &mut notes);
    let costs = known.get().map(Identity::stop_costs);
    let stopped = costs.map(|costs| costs.subtract(&mut captured.threads)).unwrap_or_default();
    let mut other = match captured.image {
        Ok(Some(child)) => OtherProcess::of_image(&process, child, seen, captured, notes),
        _ => OtherProcess::of_running(&process, memory, seen, captured, notes),
    }?;
    other.capture.total_us = micros(started.elapsed());
    if let Some(costs) = costs {
        costs.add(process.files(), &stopped);
    }
    Ok(other)
}

/// The same for a single capture.
#[cfg(test)]
pub(crate) fn attach(pid: u32, options: &AttachOptions) -> Result<OtherProcess, AttachError> {
    attach_known(pid, options, &OnceLock::new())
}

/// What is read of a process before any of its threads is stopped.
struct Seen {
    mappings: Vec<Mapping>,
    threads: Vec<i32>,
    names: ThreadNames,
    executable: PathBuf,
    is_stopped: bool,
}

impl Seen {
    fn of(process: &Process, status: &Status) -> Result<Self, AttachError> {
        let pid = process.pid();
        let mut mappings = read_mappings(process)?;
        if mappings.is_empty() {
            return Err(if status.anonymous == 0 {
                AttachError::Zombie { pid }
            } else {
                AttachError::Gone { pid }
            });
        }
        let executable = files::executable(process);
        files::resolve(process, &executable, &mut mappings);
        let threads = process.threads()?;
        let names = ThreadNames::read(process.files(), &threads);
        let is_stopped = names.are_all_stopped();
        Ok(Self { mappings, threads, names, executable, is_stopped })
    }

    /// Captures threads, and an image if possible. Adds to `notes` why something was not captured.
    fn capture(
        &self,
        process: &Process,
        status: &Status,
        memory: &File,
        options: &AttachOptions,
        notes: &mut Vec<String>,
    ) -> Captured {
        let refusal = if !options.pause {
            Some("no thread was to be stopped (--no-pause)".to_owned())
        } else {
            (status.tracer != 0).then(|| format!("process {} already traces it", named(status.tracer)))
        };
        if let Some(refusal) = refusal {
            notes.push(running_note(&refusal));
            return Captured::nothing();
        }
        let gadgets = self.gadgets(process, status, memory, options.max_pause);
        let captured = stop::capture(&Request {
            process,
            memory,
            mappings: &self.mappings,
            threads: &self.threads,
            gadgets: gadgets.as_ref().ok().copied(),
            is_stopped: self.is_stopped,
            left_over: &left_over::find(process, &self.threads),
            max_pause: options.max_pause,
        });
        if let Some(why) = gadgets.as_ref().err().or(captured.image.as_ref().err()) {
            notes.push(running_note(why));
        }
        captured
    }

    /// The instructions that make an image, or why there must be none.
    fn gadgets(
        &self,
        process: &Process,
        status: &Status,
        memory: &File,
        max_pause: Duration,
    ) -> Result<stop::Gadgets, String> {
        if self.is_stopped {
            return Err("it is stopped by a signal (SIGCONT resumes it)".to_owned());
        }
        if process.first_thread_ended() {
            return Err("its first thread has ended".to_owned());
        }
        if status.shadow_stack {
            return Err("it runs with a shadow stack (CET)".to_owned());
        }
        if let Some(objection) = Forecast::of(process, status, self.mappings.len()).objection(max_pause) {
            return Err(objection);
        }
        let memory = memory.try_clone().map(|file| Memory::live(file, None));
        let found = memory.ok().and_then(|memory| stop::find_gadgets(&memory, &self.mappings));
        found.ok_or_else(|| "its code has no known system-call instructions".to_owned())
    }
}

impl Captured {
    /// Where no thread may be stopped.
    fn nothing() -> Self {
        Self {
            threads: Vec::new(),
            image: Ok(None),
            pause: Duration::ZERO,
            held: Duration::ZERO,
            helper: None,
        }
    }
}

/// The note of a capture without an image.
fn running_note(why: &str) -> String {
    format!("memory was read while the program ran, so that parts may not agree: {why}")
}

/// A process with its name, for messages. The id may be that of one of its threads, as a tracer is one.
fn named(thread: u64) -> String {
    let status = std::fs::read(format!("/proc/{thread}/status")).unwrap_or_default();
    let pid = Status::parse(&status).process.unwrap_or(thread);
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    match name.trim_end() {
        "" => pid.to_string(),
        name => format!("{pid} ({name})"),
    }
}

fn read_mappings(process: &Process) -> Result<Vec<Mapping>, AttachError> {
    let maps = process.open("maps", OFlags::RDONLY)?;
    maps::read(maps).map_err(|error| {
        let error = rustix::io::Errno::from_io_error(&error).unwrap_or(rustix::io::Errno::IO);
        process.error("maps", error)
    })
}

/// Threads as a snapshot lists them, and their registers as a core file has them.
struct Threads {
    list: Vec<Thread>,
    registers: Vec<ThreadRegisters>,
}

impl Threads {
    fn new(
        process: &Process,
        names: ThreadNames,
        samples: Vec<(Sample, Option<StackCopy>)>,
        memory: &Memory,
        has_image: bool,
    ) -> Self {
        let samples_only: Vec<Sample> = samples.iter().map(|(sample, _)| *sample).collect();
        let list = thread_list::threads(process.files(), names, samples, memory, has_image);
        let registers = {
            let tls = |tid: i32| {
                let place = list.binary_search_by_key(&tid, |thread| thread.tid).ok()?;
                Some(list.get(place)?.registers.as_ref().ok()?.tls)
            };
            let of = |sample: &Sample| ThreadRegisters::of(sample, tls(sample.tid));
            samples_only.iter().filter_map(of).collect()
        };
        Self { list, registers }
    }
}

impl OtherProcess {
    fn of_image(
        process: &Process,
        child: i32,
        seen: Seen,
        captured: Captured,
        mut notes: Vec<String>,
    ) -> Result<Self, AttachError> {
        let pid = process.pid();
        let proc = Path::new("/proc").join(child.to_string());
        let ended = |error: io::Error| AttachError::ImageEnded { pid, error };
        let memory = File::open(proc.join("mem")).map_err(ended)?;
        let memory = Memory::image(memory, File::open(proc.join("pagemap")).ok());
        if handle::executable_of(&proc).is_some_and(|found| found != process.executable()) {
            return Err(AttachError::Replaced { pid });
        }
        let mut mappings = File::open(proc.join("maps")).and_then(maps::read).map_err(ended)?;
        if mappings.is_empty() {
            return Err(ended(rustix::io::Errno::SRCH.into()));
        }
        files::resolve(process, &seen.executable, &mut mappings);
        let moved = captured.threads.iter().filter(|(sample, _)| sample.moved).count();
        if moved > 0 {
            notes.push(format!(
                "{moved} of {} threads ran while the image was made: their stacks are some milliseconds newer",
                captured.threads.len()
            ));
        }
        let capture = Capture {
            pause_us: micros(captured.pause),
            held_us: micros(captured.held),
            consistent: true,
            notes,
            ..Capture::default()
        };
        let threads = Threads::new(process, seen.names, captured.threads, &memory, true);
        let other = Self::new(process, memory, mappings, threads, capture, seen.executable, captured.helper);
        Ok(Self { image: Some(child), ..other })
    }

    fn of_running(
        process: &Process,
        memory: File,
        seen: Seen,
        captured: Captured,
        notes: Vec<String>,
    ) -> Result<Self, AttachError> {
        let samples = match captured.threads {
            stopped if !stopped.is_empty() => stopped,
            _ => thread_list::read(process.files(), &memory, &seen.threads),
        };
        let pagemap = process.open_raw("pagemap", OFlags::RDONLY).ok();
        let memory = Memory::live(memory, pagemap);
        process.check_unchanged()?;
        let capture = Capture {
            pause_us: micros(captured.pause),
            held_us: micros(captured.held),
            notes,
            ..Capture::default()
        };
        let threads = Threads::new(process, seen.names, samples, &memory, false);
        // The helper still traces a thread that has not stopped yet. Otherwise, it ends now.
        Ok(Self::new(process, memory, seen.mappings, threads, capture, seen.executable, captured.helper))
    }

    fn new(
        process: &Process,
        memory: Memory,
        mappings: Vec<Mapping>,
        threads: Threads,
        capture: Capture,
        executable: PathBuf,
        helper: Option<stop::Helper>,
    ) -> Self {
        let executable_name = process.executable_name().unwrap_or_else(|| executable.clone());
        Self {
            memory,
            mappings,
            threads: threads.list,
            registers: threads.registers,
            capture,
            executable,
            executable_name,
            image: None,
            _helper: helper,
        }
    }

    /// A path that opens the executable that runs: its usual path, or `/proc/PID/exe` if that opens another file or none.
    /// Mappings of the executable have the same path.
    pub(crate) fn executable(&self) -> &Path {
        &self.executable
    }

    /// The path that the executable was started from, for messages. It ends with ` (deleted)` if it was deleted.
    #[allow(dead_code, reason = "for messages of the command")]
    pub(crate) fn executable_name(&self) -> &Path {
        &self.executable_name
    }
}

impl Snapshot for OtherProcess {
    fn read(&self, address: Address, buf: &mut [u8]) -> usize {
        self.memory.read(self.mapping(address), address, buf)
    }

    /// Returns the parts that were ever written: other parts of anonymous memory contain zeroes.
    fn search(
        &self,
        range: Range<Address>,
        wanted: &RangeInclusive<u64>,
        _visit: &mut dyn FnMut(Address, u64),
    ) -> Vec<Range<Address>> {
        match self.mapping(range.start).filter(|mapping| range.end <= mapping.range.end) {
            Some(mapping) if !wanted.contains(&0) => self.memory.written(mapping, range),
            _ => vec![range],
        }
    }

    fn mappings(&self) -> &[Mapping] {
        &self.mappings
    }

    fn threads(&self) -> &[Thread] {
        &self.threads
    }

    fn capture(&self) -> &Capture {
        &self.capture
    }
}
