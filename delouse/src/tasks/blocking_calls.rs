//! Calls on a thread's stack that block it until a future is done: `block_on`, `blocking_lock`.
//!
//! A task or a main future that makes such a call drives another future, which no runtime lists. The functions of the call
//! are generic in the type of that future, which debug information therefore has, also for inlined functions. The future
//! is stored in a variable of one of them (`runtime/park.rs` and `runtime/scheduler/` of tokio, `local_pool.rs` of
//! futures-executor).

use std::ops::Range;

use super::process::Process;
use super::vtable::takes_context;
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
    /// The function that the program called.
    pub(super) function: String,
    /// The program's own function that called it.
    pub(super) caller: Option<Frame>,
    /// What the thread does inside the call.
    pub(super) inside: Inside,
    /// What polls the code that made the call.
    pub(super) runner: Runner,
    /// The functions that may have the future, the likeliest first.
    pub(super) drivers: Vec<Driver>,
    /// A runtime that shuts down made the call, not the program.
    pub(super) is_shutdown: bool,
    /// `#[delouse::main]` made the call, and registered its future.
    pub(super) is_registered: bool,
}

/// A function that has the future, or a pointer to it.
#[derive(Debug)]
pub(super) struct Driver {
    /// The type of the future, its first generic argument; it may be a pointer.
    pub(super) future: TypeId,
    /// The types and addresses of its variables.
    pub(super) variables: Vec<(TypeId, Address)>,
    /// The types of its pointers into its own frame, and the addresses that they point to.
    pub(super) pointed_to: Vec<(TypeId, Address)>,
    /// Its frame on the stack.
    pub(super) frame: Range<Address>,
}

/// What a thread does inside a call that blocks.
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

/// What polls the code that made a call.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Runner {
    /// Nothing: it is the outermost call of the thread.
    #[default]
    Nothing,
    /// A runtime: the call is part of a task.
    Task,
    /// Another call that blocks: the call is part of the future that it drives.
    Call,
}

/// The frames on a stack whose code is in the examined file (executable or shared library), innermost first. Code of other
/// files does not drive futures of this one.
pub(super) fn frames<'f>(
    process: &'f Process<'_, '_>,
    modules: &'f Modules,
    places: &'f [StackPlace],
) -> impl Iterator<Item = StackFrame> + 'f {
    places.iter().enumerate().filter_map(move |(index, place)| {
        let code = place.at.lookup();
        modules.find(code).filter(|module| module.bias == process.bias)?;
        let caller_sp = places.get(index + 1).map_or(place.sp, |caller| caller.sp);
        Some(StackFrame { code: process.bias.file_address(code), place: *place, caller_sp, index })
    })
}

/// The blocking calls on the stack of a thread, innermost first.
pub(super) fn calls_on_stack(
    process: &Process<'_, '_>,
    modules: &Modules,
    places: &[StackPlace],
) -> Vec<Call> {
    let mut search = Search { process, calls: Vec::new(), open: None, inside: None };
    for frame in frames(process, modules, places) {
        for (depth, scope) in process.types.scopes(frame.code).iter().enumerate() {
            search.scope(scope, depth == 0, &frame);
        }
    }
    search.close(Runner::Nothing);
    search.calls
}

/// The frames of the program's own functions on the stack of a thread, from the innermost one to the function that polls the
/// task, or to delouse's function around the main future.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct OwnFrames {
    /// The part of the stack from the innermost to the outermost of these frames.
    pub(crate) range: Range<Address>,
    /// The variables in scope whose addresses debug information has. The values of some may have been moved out.
    pub(crate) variables: Vec<StackVariable>,
}

/// A variable on the stack of a thread.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StackVariable {
    pub(crate) name: String,
    pub(crate) of: TypeId,
    pub(crate) at: Address,
}

/// Searches the stack of a thread for the frames of the program's own functions.
pub(super) fn own_frames(
    process: &Process<'_, '_>,
    modules: &Modules,
    places: &[StackPlace],
) -> Option<OwnFrames> {
    let is_own = |file: &str| Origin::of_file(file) == Origin::User;
    let mut own: Option<OwnFrames> = None;
    for frame in frames(process, modules, places) {
        let scopes = process.types.scopes(frame.code);
        let is_runner = |scope: &Scope| matches!(kind(process, scope), Kind::RunsTask | Kind::RegistersMain);
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
    /// Its index on the stack, from the innermost frame.
    pub(super) index: usize,
}

struct Search<'s, 'p, 'i> {
    process: &'s Process<'p, 'i>,
    /// The calls whose callers are known.
    calls: Vec<Call>,
    /// The call whose caller is being searched for.
    open: Option<Call>,
    /// What the next call does inside: the outermost poll that was found since the previous call.
    inside: Option<Inside>,
}

impl Search<'_, '_, '_> {
    /// Handles the next function outwards. An innermost function has no other one inlined at that address.
    fn scope(&mut self, scope: &Scope, is_innermost: bool, frame: &StackFrame) {
        match kind(self.process, scope) {
            Kind::RunsTask => {
                self.close(Runner::Task);
                self.inside = Some(Inside::RunsTask);
            }
            Kind::Polls => {
                // The next call outwards runs the open one, unless a task is nearer: then `close` corrects that.
                self.close(Runner::Call);
                self.inside = Some(Inside::Polls);
            }
            Kind::Drives(future) => {
                let inside = self.inside.take();
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
            Kind::RegistersMain => {
                if let Some(call) = &mut self.open {
                    call.is_registered = true;
                }
            }
            Kind::Other => self.add_caller(scope, is_innermost.then_some(frame.code)),
        }
    }

    /// Records the caller of the open call: the innermost function of the program's own code, and which function that one
    /// called. Later functions do not belong to the call.
    fn add_caller(&mut self, scope: &Scope, code: Option<FileAddress>) {
        let Some(call) = self.open.as_mut().filter(|call| call.caller.is_none()) else { return };
        let source = scope.call_site.clone().or_else(|| self.process.types.source_at(code?));
        let Some(source) = source else { return };
        let origin = Origin::of_file(&source.file);
        if origin == Origin::User {
            let file = Some(source.shown.to_string());
            let function = function(scope);
            call.caller = Some(Frame { function, file, line: Some(source.line), origin, ..Frame::default() });
        } else if origin == Origin::Dependency {
            // A library called `block_on`: what the program called is the library.
            call.function = function(scope);
        }
    }

    /// Completes the open call, whose code `runner` polls.
    fn close(&mut self, runner: Runner) {
        if let Some(call) = self.open.take() {
            self.calls.push(Call { runner, ..call });
        } else if runner == Runner::Task
            && self.inside == Some(Inside::Polls)
            && let Some(last) = self.calls.last_mut().filter(|last| last.runner == Runner::Call)
        {
            // No other call is between that poll and the task, so the poll is the task's.
            last.runner = Runner::Task;
        }
    }
}

/// The purpose of a function on a stack.
enum Kind {
    /// It polls a task.
    RunsTask,
    /// It polls a future.
    Polls,
    /// It blocks the thread and drives a future of that type, if it is known.
    Drives(Option<TypeId>),
    /// It waits for the threads of a runtime that shuts down.
    ShutsDown,
    /// It is the function of delouse that registers the main future and drives it.
    RegistersMain,
    Other,
}

/// The modules of tokio that poll tasks. Other modules of `runtime/task` wrap futures: their `poll` polls no task.
const TASKS: [&str; 3] =
    ["tokio::runtime::task::raw::", "tokio::runtime::task::harness::", "tokio::runtime::task::core::"];

fn kind(process: &Process<'_, '_>, scope: &Scope) -> Kind {
    let path = scope.path.as_str();
    let name = names::last_segment(names::without_parameters(path));
    let is_in = |modules: &[&str]| modules.iter().any(|module| path.starts_with(module));
    if is_in(&["tokio::runtime::blocking::shutdown::", "tokio::runtime::blocking::pool::"])
        && matches!(name, "wait" | "shutdown")
    {
        Kind::ShutsDown
    } else if is_in(&["delouse::runtime::", "delouse::test_run::"]) {
        Kind::RegistersMain
    } else if is_in(&TASKS) && name.starts_with("poll") {
        Kind::RunsTask
    } else if name.starts_with("{async_")
        || (name.starts_with("poll") && takes_context(process, &scope.arguments))
    {
        Kind::Polls
    } else if name.starts_with("block_on")
        || (is_in(&["futures_executor::"]) && name.starts_with("run_"))
        || (is_in(&["async_std::"]) && name == "blocking")
    {
        Kind::Drives(scope.parameters.first().copied())
    } else {
        Kind::Other
    }
}

/// The path of a function as in source, without generic arguments; of a closure, that of the function around it.
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
    /// Describes a function of this frame, `scope`, that drives a future of type `future`.
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
