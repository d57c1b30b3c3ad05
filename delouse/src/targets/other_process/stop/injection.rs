//! Has a thread of the other process make system calls, and puts it back as it was.
//!
//! The rules of `sys.rs` apply.

use std::os::fd::BorrowedFd;
use std::time::Instant;

use super::frame::{self, Frame, Gadgets, LARGEST, State};
use super::refusal::Refusal;
use super::sys::{self, Registers, Stop};
use crate::snapshot::Mapping;
use crate::targets::other_process::task_files::TaskFiles;

/// The selector of 64-bit code (asm/segment.h).
const CODE_64: u64 = 0x33;
/// Bytes of stack below the stack pointer that must be mapped.
const ROOM: u64 = 16 << 10;
/// Room for the extended state: 11 KB with AMX.
const EXTENDED: usize = 12 << 10;

/// A thread of which the registers and some bytes of its stack are replaced.
pub(super) struct Injection<'a> {
    tid: i32,
    memory: BorrowedFd<'a>,
    deadline: Instant,
    original: Registers,
    /// What the thread's stack had where the frame is now.
    saved: [u8; LARGEST],
    frame: Frame,
    call: u64,
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
    /// Stops a thread that waits in a futex or `epoll_wait`, and writes the frame to its stack. `step` is called before each step.
    pub(super) fn prepare(
        site: Site<'a>,
        tid: i32,
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
            Stop::Interrupted if site.files.stat(tid).is_some() => Self::replace(site, tid, step),
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

    fn replace(site: Site<'a>, tid: i32, step: &mut dyn FnMut()) -> Result<Self, Refusal> {
        let original = repeating(sys::registers(tid).map_err(|_| Refusal::Foreign)?);
        check_registers(&original)?;
        if !site.gadgets.are_in(site.memory) {
            return Err(Refusal::NoGadgets);
        }
        let mut extended = [0; EXTENDED];
        let length = sys::extended_registers(tid, &mut extended).map_err(|_| Refusal::Foreign)?;
        let state = State {
            registers: &original,
            extended: extended.get(..length).unwrap_or_default(),
            blocked_signals: sys::blocked_signals(tid).map_err(|_| Refusal::Foreign)?,
        };
        let mut bytes = [0; LARGEST];
        let frame = frame::build(&state, site.gadgets, &mut bytes).ok_or(Refusal::Foreign)?;
        let mut saved = [0; LARGEST];
        let (Some(bytes), Some(space)) = (bytes.get(..frame.length), saved.get_mut(..frame.length)) else {
            return Err(Refusal::Foreign);
        };
        let lowest = frame.base.min(original.rsp.saturating_sub(ROOM));
        if !is_stack(site.mappings, lowest, original.rsp)
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
        let (call, memory, deadline) = (site.gadgets.call, site.memory, site.deadline);
        Ok(Self { tid, memory, deadline, original, saved, frame, call })
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
        let mut registers = self.original;
        [registers.rdi, registers.rsi, registers.rdx, registers.r10] = arguments;
        registers.r8 = 0;
        registers.rip = self.call;
        registers.rsp = self.frame.sp;
        registers.rax = number as u64;
        // No call is to be restarted.
        registers.orig_rax = u64::MAX;
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
        sys::registers(self.tid).map_or(-i64::from(libc::ESRCH), |registers| registers.rax as i64)
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

/// The registers of a stopped thread, changed so that it repeats an `epoll_wait` without a timeout, from which it would
/// return EINTR: with ERESTARTNOHAND, it still returns EINTR if a signal is handled meanwhile.
fn repeating(registers: Registers) -> Registers {
    const ERESTARTNOHAND: i64 = 514;
    let is_endless = registers.r10 as i32 == -1;
    if is_in_epoll(&registers) && is_endless && registers.rax as i64 == -i64::from(libc::EINTR) {
        return Registers { rax: -ERESTARTNOHAND as u64, ..registers };
    }
    registers
}

fn is_in_epoll(registers: &Registers) -> bool {
    registers.orig_rax == libc::SYS_epoll_wait as u64
}

/// Whether the thread was interrupted in a futex or `epoll_wait`, as a 64-bit program.
fn check_registers(registers: &Registers) -> Result<(), Refusal> {
    if registers.cs != CODE_64 {
        return Err(Refusal::Foreign);
    }
    let error = -(registers.rax as i64);
    let is_restarted = matches!(error, 512..=514 | 516);
    let in_futex = registers.orig_rax == libc::SYS_futex as u64 && is_restarted;
    let in_epoll = is_in_epoll(registers) && (is_restarted || error == i64::from(libc::EINTR));
    if in_futex || in_epoll { Ok(()) } else { Err(Refusal::Awake) }
}

/// Whether private writable memory is mapped from `from` to `to`.
fn is_stack(mappings: &[Mapping], from: u64, to: u64) -> bool {
    let is_it = |mapping: &&Mapping| {
        let range = crate::snapshot::Address::words(&mapping.range);
        range.contains(&from) && range.contains(&to)
    };
    mappings.iter().find(is_it).is_some_and(|mapping| mapping.read && mapping.write && !mapping.shared)
}
