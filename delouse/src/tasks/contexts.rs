//! Reads tokio's thread locals: a thread's runtime, and the task that it polls.

use super::facts::{self, Notes};
use super::process::{Process, Program};
use super::route::Route;
use crate::debuginfo::types::{Discriminant, Shape, TypeId, Variant};
use crate::host::search;
use crate::snapshot::Address;
use crate::snapshot::arch::Arch;

/// The contents of tokio's thread local of one thread: `runtime/context.rs`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ThreadContext {
    pub(super) tid: i32,
    /// Address of the thread's current `scheduler::Handle`.
    pub(super) handle: Option<Address>,
    /// The id of the task that it polls.
    pub(super) task: Option<u64>,
    /// How many rounds its scheduler has made: see [`Rounds`].
    pub(super) rounds: Option<u64>,
}

/// The contexts of all threads whose thread pointer is known.
///
pub(super) fn thread_contexts(
    process: &Process<'_, '_>,
    routes: Option<&Routes>,
    notes: &mut Notes,
) -> Vec<ThreadContext> {
    let threads = process.memory.snapshot().threads();
    let pointers = threads.iter().filter_map(|t| Some((t.tid, t.registers.ok()?.tls)));
    let pointers: Vec<(i32, Address)> = pointers.filter(|(_, tls)| !tls.is_null()).collect();
    if pointers.is_empty() {
        return Vec::new();
    }
    let Some(Routes { locals, handle, task, rounds }) = routes else {
        notes.missing(&facts::CONTEXT);
        return Vec::new();
    };
    if task.is_none() {
        notes.missing(&facts::CURRENT_TASK);
    }
    if rounds.is_none() {
        notes.missing(&facts::ROUNDS);
    }
    let context = |(tid, tls): (i32, Address)| {
        let at = locals.of(process, tls)?;
        // `Option<scheduler::Handle>`: the tags of `Handle`, or one more for `None`.
        let is_there = handle.word(process, at).is_some_and(|tag| tag <= 1);
        Some(ThreadContext {
            tid,
            handle: handle.follow(process, at).filter(|_| is_there),
            task: task.as_ref().and_then(|task| task.word(process, at)).filter(|id| *id != 0),
            rounds: rounds.as_ref().and_then(|rounds| rounds.of(process, at)),
        })
    };
    pointers.into_iter().filter_map(context).collect()
}

/// Where each thread has its copy of a thread local.
#[derive(Debug, Clone, Copy)]
enum ThreadLocal {
    /// The executable's: at this offset from the thread pointer.
    AtPointer(i64),
    /// A shared library's: at this offset of the block that the thread has for the library, whose number is at the
    /// address `module` of the process.
    InBlock { module: Address, offset: u64 },
}

/// More libraries with thread locals than any process has.
const MAX_LIBRARIES: u64 = 1 << 16;

impl ThreadLocal {
    /// Of the one at `offset` in the TLS segment.
    fn new(program: &Program<'_>, arch: &dyn Arch, offset: u64) -> Option<Self> {
        let image = program.types.image();
        if image.is_library() {
            let module = program.bias.process_address(image.library_tls()?.module);
            return Some(Self::InBlock { module, offset });
        }
        let tls = image.tls()?;
        Some(Self::AtPointer(arch.thread_local(offset, tls.size, tls.align)?))
    }

    /// Its address in the thread whose thread pointer is `pointer`.
    fn of(self, process: &Process<'_, '_>, pointer: Address) -> Option<Address> {
        match self {
            Self::AtPointer(offset) => pointer.checked_add_signed(offset),
            Self::InBlock { module, offset } => {
                let memory = &process.memory;
                let number = memory.word(module).filter(|number| (1..MAX_LIBRARIES).contains(number))?;
                // glibc (`sysdeps/*/nptl/tls.h`): a word of the thread's descriptor is the address of its vector of
                // blocks, of two words each.
                let arch = process.memory.snapshot().arch();
                let vector = memory.address(pointer.checked_add(arch.thread_local_vector())?)?;
                // The thread has not used any of the library's thread locals: no address, or all bits set.
                let block = memory.pointer(vector.checked_add(number * 16)?)?;
                block.checked_add(offset).filter(|_| block != Address::new(u64::MAX))
            }
        }
    }
}

/// The routes to the contents of a thread's context.
pub(super) struct Routes {
    locals: ThreadLocal,
    handle: Route,
    task: Option<Route>,
    rounds: Option<Rounds>,
}

impl Routes {
    /// `None` if there is no such thread local.
    pub(super) fn learn(program: &Program<'_>, arch: &dyn Arch) -> Option<Self> {
        let types = &program.types;
        const NAME: &str = "7runtime7context7CONTEXT";
        let parts = [NAME, "RUST_STD_INTERNAL_VAL"];
        let is_value = |name: &[u8]| parts.iter().all(|part| search::find(name, part.as_bytes()).is_some());
        let (name, offset) = types.image().thread_locals().find(|(name, _)| is_value(name))?;
        let locals = ThreadLocal::new(program, arch, offset)?;
        let context = types.symbols_with(NAME);
        let near = types.symbols_with("7runtime7context");
        // The thread local's own initialiser is in the same unit; other functions of the module may be in others.
        let mut near = context.iter().chain(near.iter().take(256));
        let of = near.find_map(|symbol| types.variable(name, symbol.address))?;
        let handle = Route::compile(program, of, "current handle ~core::option::Option")?;
        let task = Route::compile(program, of, "current_task_id");
        Some(Self { locals, handle, task, rounds: Rounds::compile(program, of) })
    }

    /// The offset from its thread pointer at which a thread keeps the id of the task that it polls.
    pub(super) fn task_id_offset(&self) -> Option<i64> {
        let ThreadLocal::AtPointer(offset) = self.locals else { return None };
        offset.checked_add_unsigned(self.task.as_ref()?.offset()?)
    }
}

/// The route to the `tick` of the scheduler's core that a thread works with.
///
/// `multi_thread/worker.rs` and `current_thread/mod.rs`: it goes up by one before each task that is taken from a
/// queue; of the slot for the task woken last, at most three are run within one. While a thread polls, the core
/// is in the scheduler's context; `block_in_place` has given it away.
struct Rounds {
    /// To the `scheduler::Context`.
    context: Route,
    discriminant: Option<Discriminant>,
    /// By the discriminant: from there to the tick.
    flavors: Vec<(Option<u64>, Route)>,
}

impl Rounds {
    fn compile(program: &Program<'_>, of: TypeId) -> Option<Self> {
        let context = Route::compile(program, of, "scheduler inner *")?;
        let scheduler = program.ty(context.end)?;
        let Shape::Variants(variants) = &scheduler.shape else { return None };
        let flavor = |variant: &Variant| {
            let way = Route::compile(program, variant.member.of, "core * tick")?;
            Some((variant.value, way.behind(variant.member.offset)))
        };
        let flavors: Vec<_> = variants.list.iter().filter_map(flavor).collect();
        let known = !flavors.is_empty();
        known.then_some(Self { context, discriminant: variants.discriminant, flavors })
    }

    fn of(&self, process: &Process<'_, '_>, at: Address) -> Option<u64> {
        let context = self.context.follow(process, at)?;
        let value = match self.discriminant {
            Some(of) => Some(process.memory.discriminant(of, context)?),
            None => None,
        };
        let (_, way) = self.flavors.iter().find(|(of, _)| of.is_none() || *of == value)?;
        process.memory.half(way.follow(process, context)?).map(u64::from)
    }
}
