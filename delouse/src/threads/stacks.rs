//! From a snapshot to the stack of each of its threads.

use super::classify::{self, Condition};
use super::{Activity, StackFrame, ThreadStack};
use crate::debuginfo::modules::Modules;
use crate::debuginfo::symbols::{Origin, Symbols};
use crate::debuginfo::unwind::{CodeAddress, MAX_FRAMES, StackEnd, Unwinder};
use crate::snapshot::{Snapshot, Thread, Unavailable, micros};

/// The function of the frame that the kernel puts between a signal's handler and what it interrupted.
pub(crate) const SIGNAL_FRAME: &str = "<signal handler called>";

/// The stacks of all threads of `snapshot`, in its order, and what could not be had.
///
/// Warm, about 20 µs for each thread; the first call opens the debug information of the modules on the
/// stacks (see [`Symbols`]).
pub(crate) fn stacks(snapshot: &dyn Snapshot, symbols: &Symbols) -> (Vec<ThreadStack>, Vec<String>) {
    let modules = symbols.modules(snapshot);
    let mut unwinder = Unwinder::new(&modules);
    let threads = snapshot
        .threads()
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
        Ok(_) => {
            let condition = Condition { in_syscall, on_processor: thread.state == Some('R') };
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
        runs_task: None,
        unavailable: thread.registers.err().map(|reason| unavailable(reason).to_owned()),
        kernel: thread.kernel.clone(),
        truncated: thread.registers.ok().and_then(|_| truncated(end)),
        frames,
    }
}

/// The functions at one address: several where they are inlined into each other.
fn frames(at: CodeAddress, modules: &Modules, symbols: &Symbols) -> Vec<StackFrame> {
    let module = modules.find(at.lookup());
    let address = format!("{:#x}", at.pc);
    let bare = |function: Option<String>| StackFrame {
        function,
        file: None,
        line: None,
        module: module.map(|m| m.name.clone()),
        address: address.clone(),
        own: false,
        inlined: false,
    };
    if at.is_signal {
        return vec![bare(Some(SIGNAL_FRAME.to_owned()))];
    }
    let Some(module) = module else { return vec![bare(None)] };
    let locations = symbols.find(module, at.lookup());
    locations
        .iter()
        .map(|location| {
            // A library without symbols: where in it, rather than a name that happens to lie nearby.
            let nameless = || format!("{}+{:#x}", module.name, module.stated(at.pc));
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

/// Whether an unwinder may just be installing the registers of the frame that a panic goes on in: it writes them
/// over those that it saved of its own caller, through which we would go on (libgcc's `uw_install_context`).
fn is_landing(frames: &[StackFrame]) -> bool {
    let installs = |frame: &StackFrame| {
        let function = frame.function.as_deref().unwrap_or_default();
        ["_Unwind_Resume", "_Unwind_RaiseException", "_Unwind_Resume_or_Rethrow", "_Unwind_ForcedUnwind"]
            .contains(&function)
    };
    frames.iter().take(2).any(installs)
}

/// What `#[delouse::main]` puts around the program's main future: nothing that its author wrote.
fn is_wrapper(function: Option<&str>) -> bool {
    function.is_some_and(|name| name.starts_with("delouse::runtime::"))
}

/// Whether the thread was in a system call: its program counter lies behind the instruction, or on it
/// where the kernel will restart the call after a signal.
fn is_in_syscall(snapshot: &dyn Snapshot, pc: u64) -> bool {
    #[cfg(target_arch = "aarch64")]
    const SYSCALL: &[u8] = &[0x01, 0x00, 0x00, 0xd4];
    #[cfg(not(target_arch = "aarch64"))]
    const SYSCALL: &[u8] = &[0x0f, 0x05];
    let mut code = [0; SYSCALL.len()];
    [pc.checked_sub(SYSCALL.len() as u64), Some(pc)]
        .into_iter()
        .flatten()
        .any(|at| snapshot.read(at, &mut code) == code.len() && code == SYSCALL)
}

/// The words of `/proc/PID/status` for the state letters (proc_pid_stat(5)).
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
        StackEnd::MemoryEnds => Some("the stack goes on where it was not captured".to_owned()),
        StackEnd::NoUnwindInfo => Some(
            "the code of the last frame has no unwind tables (hand-written assembly, JIT), or the stack is damaged"
                .to_owned(),
        ),
        StackEnd::Between => {
            Some("it is on its way from one frame to another (unwinding a panic): callers may be missing, ask again".to_owned())
        }
    }
}

fn unavailable(reason: Unavailable) -> &'static str {
    match reason {
        Unavailable::SignalBlocked => "it blocks the signal that asks for the stack",
        Unavailable::SigWait => "it waits in sigwait for the signal that asks for the stack",
        Unavailable::Uninterruptible => {
            "it is in uninterruptible sleep (state D): a disk or network file system that does not answer, a vfork, or a memory map that is locked for long"
        }
        Unavailable::Stopped => "it is stopped by a debugger or by SIGSTOP",
        Unavailable::Exited => "it ended while it was asked",
        Unavailable::NoAnswer => "it did not answer in time: no processor for it? ask again",
        Unavailable::NoSlot => "too many threads at once: ask again",
        Unavailable::NoFiles => "the program has as many files open as it may: raise the limit with prlimit",
        Unavailable::NotCaptured => "this kind of capture has no registers of other threads (see the notes)",
    }
}
