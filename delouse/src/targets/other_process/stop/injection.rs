//! Has a thread of the other process make system calls, and puts it back as it was.
//!
//! The rules of `sys.rs` apply.

use std::os::fd::BorrowedFd;
use std::time::Instant;

use super::arch::{self, EXTENDED_ROOM, LARGEST_FRAME, Registers};
use super::frame::{Frame, Gadgets, State};
use super::refusal::Refusal;
use super::sys::{self, Stop};
use crate::snapshot::Mapping;
use crate::targets::other_process::task_files::{Sleep, TaskFiles};

/// Bytes of stack below the stack pointer that must be mapped.
const ROOM: u64 = 16 << 10;

/// A thread of which the registers and some bytes of its stack are replaced.
pub(super) struct Injection<'a> {
    tid: i32,
    memory: BorrowedFd<'a>,
    deadline: Instant,
    original: Registers,
    /// 0 if it is one of the registers.
    thread_pointer: u64,
    /// What the thread's stack had where the frame is now.
    saved: [u8; LARGEST_FRAME],
    frame: Frame,
    gadgets: Gadgets,
}

/// Where an injection takes place.
#[derive(Clone, Copy)]
pub(super) struct Site<'a> {
    pub(super) files: TaskFiles<'a>,
    pub(super) memory: BorrowedFd<'a>,
    pub(super) mappings: &'a [Mapping],
    pub(super) gadgets: Gadgets,
    pub(super) deadline: Instant,
    /// Whether a system-call filter must not see the calls.
    pub(super) suspend_filter: bool,
}

/// The thread could be neither used nor put back: the helper has to end, so that the kernel lets the thread go.
pub(super) struct Stuck;

impl<'a> Injection<'a> {
    /// Stops a thread that waits in a futex or `epoll_wait`, and writes the frame to its stack. `sleep` is where it waits; `step`
    /// is called before each step.
    pub(super) fn prepare(
        site: Site<'a>,
        (tid, sleep): (i32, Sleep),
        step: &mut dyn FnMut(),
    ) -> Result<Result<Self, Refusal>, Stuck> {
        step();
        if let Err(errno) = sys::seize(tid) {
            return Ok(Err(if errno == libc::EPERM { Refusal::Traced } else { Refusal::Ended }));
        }
        step();
        let _ended = sys::interrupt(tid);
        let stop = sys::wait_for_stop(tid, site.deadline).ok_or(Stuck)?;
        step();
        let prepared = match stop {
            // Another process may have this id by now.
            Stop::Interrupted if site.files.stat(tid).is_some() => Self::replace(site, tid, &sleep, step),
            Stop::Interrupted => Err(Refusal::Ended),
            Stop::Ended => return Ok(Err(Refusal::Ended)),
            Stop::Group => Err(Refusal::Stopped),
            _ => Err(Refusal::Signal),
        };
        if prepared.is_err() {
            let_go(tid, stop.signal(), site.deadline)?;
        }
        Ok(prepared)
    }

    fn replace(site: Site<'a>, tid: i32, sleep: &Sleep, step: &mut dyn FnMut()) -> Result<Self, Refusal> {
        let original = arch::waiting(sys::registers(tid).map_err(|_| Refusal::Foreign)?, sleep)?;
        if arch::checks_returns(tid) {
            return Err(Refusal::Foreign);
        }
        if !site.gadgets.are_in(site.memory) {
            return Err(Refusal::NoGadgets);
        }
        let mut extended = [0; EXTENDED_ROOM];
        let length = sys::extended_registers(tid, &mut extended).map_err(|_| Refusal::Foreign)?;
        let state = State {
            registers: &original,
            extended: extended.get(..length).unwrap_or_default(),
            blocked_signals: sys::blocked_signals(tid).map_err(|_| Refusal::Foreign)?,
        };
        let mut bytes = [0; LARGEST_FRAME];
        let frame = arch::build_frame(&state, site.gadgets, &mut bytes).ok_or(Refusal::Foreign)?;
        let mut saved = [0; LARGEST_FRAME];
        let (Some(bytes), Some(space)) = (bytes.get(..frame.length), saved.get_mut(..frame.length)) else {
            return Err(Refusal::Foreign);
        };
        let sp = arch::stack_pointer(&original);
        let lowest = frame.base.min(sp.saturating_sub(ROOM));
        if !is_stack(site.mappings, lowest, sp)
            || sys::read_memory(site.memory, frame.base, space) != frame.length
        {
            return Err(Refusal::NoStack);
        }
        let mut options = libc::PTRACE_O_TRACECLONE | libc::PTRACE_O_TRACESYSGOOD;
        if site.suspend_filter {
            options |= libc::PTRACE_O_SUSPEND_SECCOMP;
        }
        sys::set_options(tid, options).map_err(|_| Refusal::Filter)?;
        step();
        if !sys::write_memory(site.memory, frame.base, bytes) {
            let _partly = sys::write_memory(site.memory, frame.base, space);
            return Err(Refusal::NoStack);
        }
        step();
        let (gadgets, memory, deadline) = (site.gadgets, site.memory, site.deadline);
        let thread_pointer = arch::thread_pointer(tid).unwrap_or(0);
        Ok(Self { tid, memory, deadline, original, thread_pointer, saved, frame, gadgets })
    }

    /// The stack pointer with which a forked image would run: it would end at once.
    pub(super) fn child_sp(&self) -> u64 {
        self.frame.child_sp
    }

    /// Has the thread enter the call. `false` if something else stopped it: then [`Injection::end`] has been called.
    pub(super) fn enter(
        &mut self,
        number: libc::c_long,
        arguments: [u64; 4],
        step: &mut dyn FnMut(),
    ) -> Result<bool, Stuck> {
        let registers = arch::call(&self.original, self.gadgets, self.frame.sp, number, arguments);
        if sys::set_registers(self.tid, &registers).is_err() {
            return self.end(Stop::Interrupted).map(|()| false);
        }
        step();
        match self.resume()? {
            Stop::Call => {
                step();
                Ok(true)
            }
            stop => self.end(stop).map(|()| false),
        }
    }

    /// Resumes the thread until its next stop.
    pub(super) fn resume(&mut self) -> Result<Stop, Stuck> {
        // A thread that was killed meanwhile does not resume. Its process can neither exit nor execute another program
        // until the tracer has waited for it.
        let _killed = sys::resume_to_call(self.tid);
        sys::wait_for_stop(self.tid, self.deadline).ok_or(Stuck)
    }

    /// The result of the call, at its end.
    pub(super) fn result(&self) -> i64 {
        sys::registers(self.tid).map_or(-i64::from(libc::ESRCH), |registers| arch::result(&registers))
    }

    pub(super) fn clone_event(&self) -> Result<i32, sys::Errno> {
        sys::event_message(self.tid)
    }

    pub(super) fn tid(&self) -> i32 {
        self.tid
    }

    /// The thread's registers in the call that was interrupted.
    pub(super) fn original(&self) -> &Registers {
        &self.original
    }

    /// The thread pointer, if it is not one of the registers.
    pub(super) fn thread_pointer(&self) -> u64 {
        self.thread_pointer
    }

    /// What the thread's stack had where the frame is.
    pub(super) fn saved(&self) -> (u64, &[u8]) {
        (self.frame.base, self.saved.get(..self.frame.length).unwrap_or_default())
    }

    /// Puts the thread back as it was, and resumes it: it repeats the call that was interrupted.
    pub(super) fn end(&mut self, stop: Stop) -> Result<(), Stuck> {
        if stop == Stop::Ended {
            return Ok(());
        }
        // A fault of the replaced code is not for the program.
        let ours = matches!(stop, Stop::Signal(_)) && sys::is_own_fault(self.tid);
        let signal = if ours { 0 } else { stop.signal() };
        let (base, saved) = self.saved();
        // If one of these fails, the thread was killed, or its memory is gone.
        let _written = sys::write_memory(self.memory, base, saved);
        let _set = sys::set_registers(self.tid, &self.original);
        let_go(self.tid, signal, self.deadline)
    }
}

/// Resumes a stopped thread, and no longer traces it; of a thread that was killed meanwhile, takes its end, for which its
/// process waits.
fn let_go(tid: i32, signal: i32, deadline: Instant) -> Result<(), Stuck> {
    if sys::detach(tid, signal).is_err() {
        sys::wait_for_stop(tid, deadline).ok_or(Stuck)?;
    }
    Ok(())
}

/// Whether private writable memory is mapped from `from` to `to`.
fn is_stack(mappings: &[Mapping], from: u64, to: u64) -> bool {
    let is_it = |mapping: &&Mapping| {
        let range = crate::snapshot::Address::words(&mapping.range);
        range.contains(&from) && range.contains(&to)
    };
    mappings.iter().find(is_it).is_some_and(|mapping| mapping.read && mapping.write && !mapping.shared)
}
