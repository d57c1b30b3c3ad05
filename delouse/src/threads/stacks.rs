//! Unwinds the stacks of a snapshot's threads.

use super::classify::{self, Condition};
use super::{Activity, SIGNAL_FRAME, StackFrame, ThreadStack};
use crate::debuginfo::modules::Modules;
use crate::debuginfo::symbols::{Origin, Symbols};
use crate::debuginfo::unwind::{CodeAddress, MAX_FRAMES, StackEnd, Unwinder};
use crate::snapshot::{Address, Snapshot, Thread, Unavailable, micros};

/// The stacks of all threads of `snapshot`, in its order, and notes about missing information.
///
/// Takes about 20 µs per thread; the first call also opens the debug information of the modules on the stacks (see
/// [`Symbols`]).
pub(crate) fn stacks(snapshot: &dyn Snapshot, symbols: &Symbols) -> (Vec<ThreadStack>, Vec<String>) {
    stacks_of(snapshot, snapshot.threads(), symbols)
}

/// The same of these threads.
pub(crate) fn stacks_of(
    snapshot: &dyn Snapshot,
    threads: &[Thread],
    symbols: &Symbols,
) -> (Vec<ThreadStack>, Vec<String>) {
    let modules = symbols.modules(snapshot);
    let mut unwinder = Unwinder::new(&modules, snapshot.arch());
    let threads = threads
        .iter()
        .map(|thread| {
            let (addresses, end) = unwinder.unwind(snapshot, thread);
            let frames = addresses.iter().flat_map(|&at| frames(at, &modules, symbols)).collect();
            describe(snapshot, thread, frames, end)
        })
        .collect();
    (threads, modules.notes.clone())
}

fn describe(snapshot: &dyn Snapshot, thread: &Thread, frames: Vec<StackFrame>, end: StackEnd) -> ThreadStack {
    let end = if end == StackEnd::Complete && is_landing(&frames) { StackEnd::Between } else { end };
    let role = classify::role(&thread.name, &frames);
    let in_syscall = thread.registers.is_ok_and(|r| is_in_syscall(snapshot, r.pc));
    let activity = match thread.registers {
        Ok(registers) => {
            let on_processor = thread.state == Some('R');
            let condition = Condition { in_syscall, on_processor, on_futex: registers.futex.is_some() };
            classify::activity(role, &frames, condition)
        }
        Err(_) => Activity::Unknown,
    };
    ThreadStack {
        tid: thread.tid,
        name: thread.name.clone(),
        state: thread.state.map(|s| state(s).to_owned()),
        role,
        activity,
        cpu_us: thread.cpu.map(micros),
        queued_us: thread.queued.map(micros),
        runs_task: None,
        unavailable: thread.registers.err().map(|reason| unavailable(reason).to_owned()),
        kernel: thread.kernel.clone(),
        truncated: thread.registers.ok().and_then(|_| truncated(end)),
        frames,
    }
}

/// The functions at one address: several if they are inlined into each other.
fn frames(at: CodeAddress, modules: &Modules, symbols: &Symbols) -> Vec<StackFrame> {
    let module = modules.find(at.lookup());
    let address = at.pc.to_string();
    let bare = |function: Option<String>| StackFrame {
        function,
        module: module.map(|m| m.name.clone()),
        address: address.clone(),
        guessed: at.is_guess,
        ..StackFrame::default()
    };
    if at.is_signal {
        return vec![bare(Some(SIGNAL_FRAME.to_owned()))];
    }
    let Some(module) = module else { return vec![bare(None)] };
    let locations = symbols.find(module, at.lookup());
    locations
        .iter()
        .map(|location| {
            // In a library without symbols, the offset is less misleading than the name of a nearby symbol.
            let nameless = || format!("{}+{:#x}", module.name, module.file_address(at.pc));
            StackFrame {
                function: location.function.clone().or_else(|| Some(nameless())),
                file: location.file.clone(),
                line: location.line,
                own: location.origin == Some(Origin::Own) && !is_wrapper(location.function.as_deref()),
                inlined: location.inlined,
                ..bare(None)
            }
        })
        .collect()
}

/// Whether the thread may be installing the registers of the frame in which a panic continues. While it does so, it
/// overwrites the saved registers of its caller, so that unwinding may skip frames (libgcc's `uw_install_context`).
fn is_landing(frames: &[StackFrame]) -> bool {
    let installs = |frame: &StackFrame| {
        let function = frame.function.as_deref().unwrap_or_default();
        ["_Unwind_Resume", "_Unwind_RaiseException", "_Unwind_Resume_or_Rethrow", "_Unwind_ForcedUnwind"]
            .contains(&function)
    };
    frames.iter().take(2).any(installs)
}

/// Whether it is a function of delouse in which `#[delouse::main]` wraps the program's main future.
fn is_wrapper(function: Option<&str>) -> bool {
    function.is_some_and(|name| name.starts_with("delouse::runtime::"))
}

/// Whether the thread was in a system call: its program counter is directly after the instruction, or at the instruction if
/// the kernel will restart the call after a signal.
fn is_in_syscall(snapshot: &dyn Snapshot, pc: Address) -> bool {
    let instruction = snapshot.arch().system_call();
    let mut code = vec![0; instruction.len()];
    [pc.checked_sub(instruction.len() as u64), Some(pc)]
        .into_iter()
        .flatten()
        .any(|at| snapshot.read(at, &mut code) == code.len() && code == instruction)
}

/// A name for a state letter (proc_pid_stat(5)).
fn state(letter: char) -> &'static str {
    match letter {
        'R' => "running",
        'S' => "sleeping",
        'D' => "uninterruptible",
        'T' => "stopped",
        't' => "traced",
        'Z' => "zombie",
        'X' | 'x' => "dead",
        'I' => "idle",
        'P' => "parked",
        _ => "unknown",
    }
}

fn truncated(end: StackEnd) -> Option<String> {
    match end {
        StackEnd::Complete => None,
        StackEnd::TooDeep => Some(format!("only the innermost {MAX_FRAMES} frames are shown: endless recursion?")),
        StackEnd::MemoryEnds => Some("the rest of the stack was not captured".to_owned()),
        StackEnd::NoUnwindInfo => Some(
            "the code of the last frame has no unwind tables (hand-written assembly, JIT), or the stack is damaged"
                .to_owned(),
        ),
        StackEnd::Between => {
            Some("it is unwinding a panic from one frame to another: callers may be missing; repeat the request".to_owned())
        }
    }
}

fn unavailable(reason: Unavailable) -> &'static str {
    match reason {
        Unavailable::SignalBlocked => "it blocks the signal that captures the stack",
        Unavailable::SigWait => "it waits in sigwait for the signal that captures the stack",
        Unavailable::Uninterruptible => {
            "it is in uninterruptible sleep (state D): a disk or network file system that does not answer, a vfork, or a lock of the memory map that is held for long"
        }
        Unavailable::Stopped => "it is stopped by a debugger or by SIGSTOP",
        Unavailable::Exited => "it ended during the capture",
        Unavailable::NoAnswer => {
            "it did not run its signal handler in time (no free processor?): repeat the request"
        }
        Unavailable::NoSlot => "too many threads at once: repeat the request",
        Unavailable::NoFiles => {
            "the program has as many files open as its limit allows: raise the limit with prlimit"
        }
        Unavailable::NotCaptured => "this kind of capture has no registers of other threads (see the notes)",
    }
}
