//! Where a task keeps its future: tokio's `Cell<T, S>`, `Core<T, S>` and `Stage<T>` (`runtime/task/core.rs`).
//!
//! The stage holds the future, then its output: its alignment is that of the larger of both, so the future's type alone
//! does not say where it starts. The debug information has one of these types for nearly every task; where it has none,
//! the start is computed, and it is a guess where several are possible.

use super::process::{Process, Program};
use super::route::Route;
use crate::debuginfo::address::FileAddress;
use crate::debuginfo::types::{Shape, Type, TypeId};
use crate::snapshot::Address;

const STAGE: &str = "tokio::runtime::task::core::Stage";
/// Alignments that are tried where the type of the stage is missing: that of a `JoinError`, up to that of a `Cell`.
const ALIGNMENTS: [u64; 5] = [8, 16, 32, 64, 128];

/// What a task's future is, or has become (`Stage`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    Future,
    Output,
    Consumed,
}

/// Where the stage of all tasks of one kind is, from the header on.
#[derive(Debug)]
pub(super) struct StageLayout {
    /// The size of the tag.
    size: u64,
    /// The tag's values, by what they mean.
    values: [(u64, Stage); 3],
    /// Where the stage may be: one place, unless this is a guess.
    places: Box<[StagePlace]>,
}

/// Where a stage is, from the header on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct StagePlace {
    tag: u64,
    /// The start of the future.
    start: u64,
}

/// What is known of a kind of task from tokio's vtable and the types of its parameters. Offsets are from the header on.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) future: TypeId,
    pub(super) scheduler: TypeId,
    /// Functions of the vtable, as addresses of the process: their units may have the types.
    pub(super) functions: Vec<Address>,
    /// The start of `Core`.
    pub(super) core: u64,
    /// The end of what comes before the stage.
    pub(super) stage: u64,
    pub(super) trailer: u64,
}

impl StageLayout {
    /// The layout by the debug information, or else by computation.
    pub(super) fn learn(process: &Process<'_, '_>, parts: &Parts) -> Option<Self> {
        Self::described(process, parts).or_else(|| Self::computed(process, parts))
    }

    /// Where the stage may be.
    #[cfg(test)]
    pub(super) fn places(&self) -> &[StagePlace] {
        &self.places
    }

    /// Whether several places are possible.
    pub(super) fn is_guess(&self) -> bool {
        self.places.len() > 1
    }

    /// Whether the start of the future of the task at `header`, of type `of`, is a guess: several places are possible, and
    /// not exactly one of them has a future that is suspended.
    pub(super) fn is_doubtful(&self, process: &Process<'_, '_>, of: TypeId, header: Address) -> bool {
        let suspended = |ty: &Type| {
            let starts = self.places.iter().filter_map(|place| header.checked_add(place.start));
            starts.filter(|at| is_suspended(process, ty, *at)).count()
        };
        self.is_guess() && process.ty(of).is_none_or(|ty| suspended(&ty) != 1)
    }

    /// What the stage of the task at `header` holds, and where its future starts, whose type is `of`.
    pub(super) fn read(
        &self,
        process: &Process<'_, '_>,
        of: TypeId,
        header: Address,
    ) -> Option<(Stage, Address)> {
        let read = |place: &StagePlace| {
            let tag = process.memory.number(header.checked_add(place.tag)?, self.size)?;
            let (_, stage) = self.values.iter().find(|(value, _)| *value == tag)?;
            Some((*stage, header.checked_add(place.start)?))
        };
        let mut possible = self.places.iter().filter_map(read);
        if !self.is_guess() {
            return possible.next();
        }
        let ty = process.ty(of)?;
        possible.clone().find(|(_, at)| is_suspended(process, &ty, *at)).or_else(|| possible.next())
    }

    fn described(process: &Process<'_, '_>, parts: &Parts) -> Option<Self> {
        let (future, scheduler) = (process.ty(parts.future)?, process.ty(parts.scheduler)?);
        let core = "tokio::runtime::task::core::";
        let both = format!("{}, {}", future.name, scheduler.name);
        let named = |name: &str| process.types.named(name, &functions(process, parts));
        let within = |ty: Option<TypeId>, way: &str| {
            let way = Route::compile(process, ty?, way)?;
            Some((way.offset()?, way.end))
        };
        let to_stage = format!("stage ~{STAGE}");
        let in_cell = || within(named(&format!("{core}Cell<{both}>")), &format!("core {to_stage}"));
        let in_core = || {
            let ty = named(&format!("{core}Core<{both}>"));
            let (scheduler, _) = within(ty, "scheduler")?;
            let (stage, of) = within(ty, &to_stage)?;
            Some((parts.core.checked_sub(scheduler)?.checked_add(stage)?, of))
        };
        let alone = || {
            let of = named(&format!("{STAGE}<{}>", future.name))?;
            // `Core` is repr(C), and the stage its last field.
            Some((parts.stage.checked_next_multiple_of(process.ty(of)?.align)?, of))
        };
        [in_cell(), in_core(), alone()].into_iter().flatten().find_map(|(at, of)| Self::of(process, of, at))
    }

    /// The layout of a stage of type `of`, `at` bytes behind the header.
    fn of(program: &Program<'_>, of: TypeId, at: u64) -> Option<Self> {
        let ty = program.ty(of)?;
        let Shape::Variants(variants) = &ty.shape else { return None };
        let tag = variants.discriminant?;
        let variant = |name: &str| variants.list.iter().find(|variant| variant.member.name == name);
        let running = variant("Running")?;
        let payload = program.ty(running.member.of)?;
        let start = at.checked_add(running.member.offset)?.checked_add(payload.members.first()?.offset)?;
        Some(Self {
            size: tag.size,
            values: [
                (running.value?, Stage::Future),
                (variant("Finished")?.value?, Stage::Output),
                (variant("Consumed")?.value?, Stage::Consumed),
            ],
            places: [StagePlace { tag: at.checked_add(tag.offset)?, start }].into(),
        })
    }

    /// `Cell` and `Core` are repr(C): header, scheduler, id, spawn location, stage, trailer. `Stage` is repr(C), too: a
    /// u32 tag, then the payload at the largest alignment of its variants, which is never below that of the `JoinError`
    /// in `Finished`. The alignment of the output is not known here: what is stored around the stage excludes some.
    pub(super) fn computed(process: &Process<'_, '_>, parts: &Parts) -> Option<Self> {
        let future = process.ty(parts.future)?;
        let place = |align: &u64| {
            let tag = parts.stage.checked_next_multiple_of(*align)?;
            let start = tag.checked_add(*align)?;
            let fits = *align >= future.align
                && parts.core.is_multiple_of(*align)
                && parts.trailer.checked_sub(parts.core)?.is_multiple_of(*align)
                && start.checked_add(future.size)? <= parts.trailer;
            fits.then_some(StagePlace { tag, start })
        };
        let places: Box<[StagePlace]> = ALIGNMENTS.iter().filter_map(place).collect();
        (!places.is_empty()).then_some(Self {
            size: 4,
            values: [(0, Stage::Future), (1, Stage::Output), (2, Stage::Consumed)],
            places,
        })
    }
}

/// The functions of the vtable.
fn functions(program: &Program<'_>, parts: &Parts) -> Vec<FileAddress> {
    parts.functions.iter().map(|address| program.bias.file_address(*address)).collect()
}

/// Whether the value at `at` looks like an `async` function or block that is suspended: of other types, nothing can be
/// said. States 0 to 2 are those before the first await and after the end (rustc 1.88 to 1.97).
fn is_suspended(process: &Process<'_, '_>, ty: &Type, at: Address) -> bool {
    let Shape::Variants(variants) = &ty.shape else { return false };
    let Some(place) = variants.discriminant.filter(|_| variants.coroutine) else { return false };
    let state = process.memory.discriminant(place, at);
    state.is_some_and(|state| state > 2) && variants.list.iter().any(|variant| variant.value == state)
}
