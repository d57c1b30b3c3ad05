//! Calls on a thread's stack that block it until a future is done: `block_on`, `blocking_lock`.
//!
//! A task or a main future that makes such a call drives another future, which is on no list. The function is generic
//! in the future's type, and debug information describes the arguments of the functions on a stack, also of inlined
//! ones; the future itself is a variable of one of them (`runtime/park.rs` and `runtime/scheduler/` of tokio,
//! `local_pool.rs` of futures-executor).

use std::ops::Range;

use super::process::Process;
use super::{Frame, Origin};
use crate::debuginfo::address::FileAddress;
use crate::debuginfo::modules::Modules;
use crate::debuginfo::symbols::readable;
use crate::debuginfo::types::{FrameBase, FrameVariable, Scope, TypeId, names};
use crate::debuginfo::unwind::StackPlace;
use crate::snapshot::Address;
use crate::threads::classify::plain;

/// One such call.
#[derive(Debug, Default)]
pub(super) struct Call {
    /// The function that blocks, with the name by which the program has called it.
    pub(super) function: String,
    /// The program's function that has called it.
    pub(super) caller: Option<Frame>,
    /// What the thread does inside it.
    pub(super) inside: Inside,
    /// What has called it, outside the program's own functions.
    pub(super) outside: Runner,
    /// Where the future may be, the likeliest place first.
    pub(super) drivers: Vec<Driver>,
    /// It is part of the shutdown of a runtime, not a call by the program.
    pub(super) is_shutdown: bool,
    /// It is the call of `#[delouse::main]`.
    pub(super) is_registered: bool,
}

/// A function that has the future, or a pointer to it.
#[derive(Debug)]
pub(super) struct Driver {
    /// The type of what it was called with.
    pub(super) future: TypeId,
    /// Its variables: types and addresses.
    pub(super) variables: Vec<(TypeId, Address)>,
    /// What pointers to values in its frame point to: the types of the pointers, and the addresses of the values.
    pub(super) pointed_to: Vec<(TypeId, Address)>,
    /// Its frame on the stack.
    pub(super) frame: Range<Address>,
}

/// What a thread does inside of a call that blocks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Inside {
    /// It sleeps until the future is woken.
    #[default]
    Waits,
    /// It polls the future.
    Polls,
    /// It polls a task of the runtime.
    RunsTask,
}

/// What polls futures.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Runner {
    /// Nothing does: it is the thread's outermost call.
    #[default]
    Nothing,
    /// A runtime that polls a task.
    Task,
    /// Another call that blocks.
    Call,
}

/// The frames on a stack whose code is in the file of the program, innermost first: code of other libraries drives no
/// futures of the program's, and waits for nothing on its behalf.
pub(super) fn frames<'f>(
    process: &'f Process<'_, '_>,
    modules: &'f Modules,
    places: &'f [StackPlace],
) -> impl Iterator<Item = StackFrame> + 'f {
    places.iter().enumerate().filter_map(move |(number, place)| {
        let code = place.at.lookup();
        modules.find(code).filter(|module| module.bias == process.bias)?;
        let caller_sp = places.get(number + 1).map_or(place.sp, |caller| caller.sp);
        Some(StackFrame { code: process.bias.file_address(code), place: *place, caller_sp, number })
    })
}

/// The calls on the stack of a thread with these frames, innermost first.
pub(super) fn of_thread(process: &Process<'_, '_>, modules: &Modules, places: &[StackPlace]) -> Vec<Call> {
    let mut search = Search { process, calls: Vec::new(), open: None, polled: None };
    for frame in frames(process, modules, places) {
        for (depth, scope) in process.types.scopes(frame.code).iter().enumerate() {
            search.scope(scope, depth == 0, &frame);
        }
    }
    search.close(Runner::Nothing);
    search.calls
}

/// What the program's own functions have on the stack of a thread, from the innermost one to what polls the task, or
/// drives the main future.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct OwnFrames {
    /// The part of the stack.
    pub(crate) range: Range<Address>,
    /// The variables in scope whose places debug information has. Some may have been moved.
    pub(crate) variables: Vec<StackVariable>,
}

/// A variable on the stack of a thread.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StackVariable {
    pub(crate) name: String,
    pub(crate) of: TypeId,
    pub(crate) at: Address,
}

/// The frames of the program's own functions on the stack of a thread.
pub(super) fn own_frames(
    process: &Process<'_, '_>,
    modules: &Modules,
    places: &[StackPlace],
) -> Option<OwnFrames> {
    let is_own = |file: &str| Origin::of_file(file) == Origin::User;
    let mut own: Option<OwnFrames> = None;
    for frame in frames(process, modules, places) {
        let scopes = process.types.scopes(frame.code);
        let is_runner = |scope: &Scope| matches!(kind(scope), Kind::RunsTask | Kind::Wraps);
        if scopes.iter().any(is_runner) {
            break;
        }
        let end = frame.caller_sp;
        let innermost = process.types.source_at(frame.code);
        let source = |scope: &Scope| scope.call_site.clone().or_else(|| innermost.clone());
        let own_scopes: Vec<&Scope> =
            scopes.iter().filter(|scope| source(scope).is_some_and(|source| is_own(&source.file))).collect();
        if let Some(own) = &mut own {
            own.range.end = end;
        } else if !own_scopes.is_empty() {
            own = Some(OwnFrames { range: frame.place.sp..end, variables: Vec::new() });
        }
        if let Some(own) = &mut own {
            let all = own_scopes.into_iter().flat_map(|scope| &scope.variables);
            own.variables.extend(all.filter_map(|variable| {
                let at = frame.variable(process, variable)?;
                Some(StackVariable { name: variable.name.clone()?, of: variable.of, at })
            }));
        }
    }
    own
}

/// A frame on the stack of a thread.
pub(super) struct StackFrame {
    /// The address of its code.
    pub(super) code: FileAddress,
    pub(super) place: StackPlace,
    /// The stack pointer of its caller.
    pub(super) caller_sp: Address,
    /// How many frames are inside of it.
    pub(super) number: usize,
}

struct Search<'s, 'p, 'i> {
    process: &'s Process<'p, 'i>,
    /// The calls whose callers are known.
    calls: Vec<Call>,
    /// The call whose caller is being searched for.
    open: Option<Call>,
    /// What polls, among the functions since the last call, going outwards.
    polled: Option<Inside>,
}

impl Search<'_, '_, '_> {
    /// Handles one function, going outwards; `is_innermost`: no other function is inlined there.
    fn scope(&mut self, scope: &Scope, is_innermost: bool, frame: &StackFrame) {
        match kind(scope) {
            Kind::RunsTask => {
                self.close(Runner::Task);
                self.polled = Some(Inside::RunsTask);
            }
            Kind::Polls => {
                // A call that is outside of this poll is its runner, unless a task is nearer.
                self.close(Runner::Call);
                self.polled = Some(Inside::Polls);
            }
            Kind::Drives(future) => {
                let inside = self.polled.take();
                let call = self
                    .open
                    .get_or_insert_with(|| Call { inside: inside.unwrap_or_default(), ..Call::default() });
                if call.caller.is_none() {
                    call.function = function(scope);
                }
                if let Some(future) = future {
                    call.drivers.push(frame.driver(self.process, scope, future));
                }
            }
            Kind::ShutsDown => {
                if let Some(call) = &mut self.open {
                    call.is_shutdown = true;
                }
            }
            Kind::Wraps => {
                if let Some(call) = &mut self.open {
                    call.is_registered = true;
                }
            }
            Kind::Other => self.called_by(scope, is_innermost.then_some(frame.code)),
        }
    }

    /// Records the caller of a blocking call: the program's own function and the functions outside it do not belong to
    /// the call.
    fn called_by(&mut self, scope: &Scope, code: Option<FileAddress>) {
        let Some(call) = self.open.as_mut().filter(|call| call.caller.is_none()) else { return };
        let source = scope.call_site.clone().or_else(|| self.process.types.source_at(code?));
        let Some(source) = source else { return };
        let origin = Origin::of_file(&source.file);
        if origin == Origin::User {
            let file = Some(source.shown.to_string());
            let function = function(scope);
            call.caller = Some(Frame {
                function,
                file,
                line: Some(source.line),
                origin,
                at_declaration: false,
                waits: 0,
                carries: None,
                children: Vec::new(),
            });
        } else if origin == Origin::Dependency {
            // If a library calls `block_on`, the program has called the library.
            call.function = function(scope);
        }
    }

    /// Completes the open call, which `outside` has made.
    fn close(&mut self, outside: Runner) {
        if let Some(call) = self.open.take() {
            self.calls.push(Call { outside, ..call });
        } else if outside == Runner::Task
            && self.polled == Some(Inside::Polls)
            && let Some(last) = self.calls.last_mut().filter(|last| last.outside == Runner::Call)
        {
            // No other call was between the poll and the task.
            last.outside = Runner::Task;
        }
    }
}

/// The purpose of a function on a stack.
enum Kind {
    /// It polls a task.
    RunsTask,
    /// It polls a future.
    Polls,
    /// It drives a future of that type.
    Drives(Option<TypeId>),
    ShutsDown,
    /// It is delouse's own, around the main future.
    Wraps,
    Other,
}

/// The modules of tokio that poll tasks; others in `task` wrap futures.
const TASKS: [&str; 3] =
    ["tokio::runtime::task::raw::", "tokio::runtime::task::harness::", "tokio::runtime::task::core::"];

fn kind(scope: &Scope) -> Kind {
    let path = scope.path.as_str();
    let name = names::last_segment(names::without_parameters(path));
    let part_of = |modules: &[&str]| modules.iter().any(|module| path.starts_with(module));
    if part_of(&["tokio::runtime::blocking::shutdown::", "tokio::runtime::blocking::pool::"])
        && matches!(name, "wait" | "shutdown")
    {
        Kind::ShutsDown
    } else if part_of(&["delouse::runtime::", "delouse::test_run::"]) {
        Kind::Wraps
    } else if part_of(&TASKS) && name.starts_with("poll") {
        Kind::RunsTask
    } else if (name.starts_with("poll")
        && !part_of(&["mio::", "polling::", "rustix::", "tokio::runtime::io::"]))
        || name.starts_with("{async_")
    {
        Kind::Polls
    } else if name.starts_with("block_on")
        || (part_of(&["futures_executor::"]) && name.starts_with("run_"))
        || (part_of(&["async_std::"]) && name == "blocking")
    {
        Kind::Drives(scope.parameters.first().copied())
    } else {
        Kind::Other
    }
}

/// A function's path as in source: without generic arguments, and the function for its closures.
pub(super) fn function(scope: &Scope) -> String {
    let path = match &scope.linkage_name {
        Some(linkage_name) => plain(&readable(linkage_name)),
        None => names::without_parameters(&scope.path).to_owned(),
    };
    let mut path = path.as_str();
    while let Some((outer, last)) = path.rsplit_once("::")
        && last.starts_with('{')
    {
        path = outer;
    }
    path.to_owned()
}

impl StackFrame {
    /// One of the functions of this frame, which drives a future of type `future`.
    fn driver(&self, process: &Process<'_, '_>, scope: &Scope, future: TypeId) -> Driver {
        let variables = scope
            .variables
            .iter()
            .filter_map(|variable| Some((variable.of, self.variable(process, variable)?)));
        let pointers = process.types.pointers_into_frame(self.code).into_iter();
        let pointed_to =
            pointers.filter_map(|of| Some((of.of, self.address(process, of.base, of.offset)?))).collect();
        Driver { future, variables: variables.collect(), pointed_to, frame: self.place.sp..self.caller_sp }
    }

    fn variable(&self, process: &Process<'_, '_>, variable: &FrameVariable) -> Option<Address> {
        let at = self.address(process, variable.base, variable.offset)?;
        if variable.indirect { process.memory.address(at) } else { Some(at) }
    }

    fn address(&self, process: &Process<'_, '_>, base: FrameBase, offset: i64) -> Option<Address> {
        let [sp, fp] = process.memory.snapshot().arch().dwarf_pointers();
        let base = match base {
            FrameBase::Register(number) if number == sp => self.place.sp,
            FrameBase::Register(number) if number == fp => self.place.fp,
            FrameBase::Register(_) => return None,
            FrameBase::CallerStack => self.caller_sp,
        };
        base.checked_add_signed(offset)
    }
}
