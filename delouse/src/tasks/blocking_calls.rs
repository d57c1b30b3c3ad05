//! Calls on a thread's stack that block it until a future is done: `block_on`, `blocking_lock`.
//!
//! A task or a main future that makes such a call drives another future, which no list has. The function is generic in
//! the future's type, and debug information knows the arguments of the functions on a stack, those that were inlined,
//! too; the future itself is a variable of one of them (`runtime/park.rs` and `runtime/scheduler/` of tokio,
//! `local_pool.rs` of futures-executor).

use std::ops::Range;

use super::process::Process;
use super::{Frame, Origin};
use crate::debuginfo::modules::Modules;
use crate::debuginfo::symbols::readable;
use crate::debuginfo::types::{FrameBase, FrameVariable, Scope, TypeId, names};
use crate::debuginfo::unwind::{StackPlace, Unwinder};
use crate::snapshot::Thread;
use crate::threads::classify::plain;

/// One such call.
#[derive(Debug, Default)]
pub(super) struct Call {
    /// The function that blocks, as the program has called it.
    pub(super) function: String,
    /// The program's function that has called it.
    pub(super) caller: Option<Frame>,
    /// What the thread does inside of it.
    pub(super) inside: Inside,
    /// What has called it, outside of the program's own functions.
    pub(super) outside: Runner,
    /// Where the future may be, the likeliest place first.
    pub(super) drivers: Vec<Driver>,
    /// It is part of the shutdown of a runtime, not a call of the program's.
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
    pub(super) variables: Vec<(TypeId, u64)>,
    /// Its frame on the stack.
    pub(super) frame: Range<u64>,
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

/// The calls on the stack of a thread, innermost first.
pub(super) fn of_thread(
    process: &Process<'_, '_>,
    modules: &Modules,
    unwinder: &mut Unwinder,
    thread: &Thread,
) -> Vec<Call> {
    let places = unwinder.places(process.memory.snapshot(), thread);
    let mut search = Search { process, calls: Vec::new(), open: None, polled: None };
    for (number, place) in places.iter().enumerate() {
        let code = place.at.lookup();
        // Code of libraries drives no futures of the program's.
        if modules.find(code).is_none_or(|module| module.bias != process.bias) {
            continue;
        }
        let caller_sp = places.get(number + 1).map_or(place.sp, |caller| caller.sp);
        let code = code.wrapping_sub(process.bias);
        for (depth, scope) in process.types.scopes(code).iter().enumerate() {
            search.scope(scope, (depth == 0).then_some(code), *place, caller_sp);
        }
    }
    search.close(Runner::Nothing);
    search.calls
}

struct Search<'s, 'p, 'i> {
    process: &'s Process<'p, 'i>,
    /// Those whose callers are known.
    calls: Vec<Call>,
    /// The one that is being looked at.
    open: Option<Call>,
    /// What was last seen to poll, going outwards, since the last call.
    polled: Option<Inside>,
}

impl Search<'_, '_, '_> {
    /// One function, outside of those before; `code` is where it is, unless another function is inlined there.
    fn scope(&mut self, scope: &Scope, code: Option<u64>, place: StackPlace, caller_sp: u64) {
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
                    let variables = scope.variables.iter();
                    let variables = variables
                        .filter_map(|v| Some((v.of, address(self.process, v, place, caller_sp)?)))
                        .collect();
                    call.drivers.push(Driver { future, variables, frame: place.sp..caller_sp });
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
            Kind::Other => self.called_by(scope, code),
        }
    }

    /// Notes who has called what blocks: from the program's own function on, nothing is part of it any more.
    fn called_by(&mut self, scope: &Scope, code: Option<u64>) {
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
            // A library that calls `block_on` is what the program has called.
            call.function = function(scope);
        }
    }

    /// The call that is being looked at was made by `outside`.
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

/// What a function on a stack is for.
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
    } else if part_of(&["delouse::runtime::"]) {
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

/// A function's path as people write it: without generic arguments, closures counted to their functions.
fn function(scope: &Scope) -> String {
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

fn address(
    process: &Process<'_, '_>,
    variable: &FrameVariable,
    place: StackPlace,
    caller_sp: u64,
) -> Option<u64> {
    let base = match variable.base {
        FrameBase::Stack => place.sp,
        FrameBase::Frame => place.fp,
        FrameBase::CallerStack => caller_sp,
    };
    let at = base.checked_add_signed(variable.offset)?;
    if variable.indirect { process.memory.word(at) } else { Some(at) }
}
