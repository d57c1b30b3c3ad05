//! Futures that threads drive by calls that block, and main futures that were not registered.

use std::ops::Range;
use std::sync::Arc;

use rustc_hash::{FxHashMap, FxHashSet};

use super::Lister;
use super::async_stack::Polled;
use crate::debuginfo::symbols::shorten;
use crate::debuginfo::types::{Shape, TypeId};
use crate::debuginfo::unwind::Unwinder;
use crate::snapshot::{Address, Thread};
use crate::tasks::blocking_calls::{self, Call, Driver, Inside, Runner};
use crate::tasks::facts::Notes;
use crate::tasks::knowledge::Knowledge;
use crate::tasks::layout::{Body, Interest, Layout, StateKind};
use crate::tasks::process::Process;
use crate::tasks::thread_waits;
use crate::tasks::{BlockingCall, Driven, Frame, LeafPlace, ResourceKind, TaskState, WaitsOn};

/// The most threads whose stacks are searched.
const MAX_THREADS: usize = 1024;
/// The most places on the stack of one call that are tried if debug information does not have the place of the future.
const MAX_PLACES: u64 = 1 << 14;
/// The most bytes of a stack that are compared with the copy that was made with the thread's registers.
const MAX_COMPARED: u64 = 64 << 10;
/// The most pointers and wrappers around a future.
const MAX_WRAPPERS: usize = 8;

/// A future that was found on a stack.
struct Found {
    of: TypeId,
    address: Address,
    /// Its place was guessed: it looks like that future.
    guess: bool,
}

impl Lister<'_, '_, '_> {
    /// Searches the stacks of all threads. `mains` has the registered main futures: their numbers among the tasks, and
    /// their addresses; `running` has the task that each thread polls.
    pub(super) fn driven(&mut self, mains: &[(usize, Address)], running: &[(i32, u64)]) {
        let snapshot = self.process.memory.snapshot();
        let asks = |thread: &&Thread| thread.registers.is_ok() && !thread.is_ours();
        let mut threads = snapshot.threads().iter().filter(asks).peekable();
        if threads.peek().is_none() {
            return;
        }
        let modules = self.knowledge.modules(snapshot);
        let mut unwinder = Unwinder::new(&modules, snapshot.arch());
        let tasks: FxHashMap<u64, usize> =
            self.tasks.iter().map(|task| task.id).zip(0..).filter(|(id, _)| *id != 0).collect();
        let mut in_calls = Vec::new();
        for thread in threads.take(MAX_THREADS) {
            let places = unwinder.places(snapshot, thread);
            let calls = blocking_calls::calls_on_stack(self.process, &modules, &places);
            in_calls.extend(calls.first().filter(|call| call.inside == Inside::Waits).map(|_| thread.tid));
            // A call that waits sleeps in a primitive, too, but waits for its future.
            if calls.first().is_none_or(|call| call.inside != Inside::Waits) {
                let wait = thread_waits::of_thread(self.process, &modules, &places, thread);
                let wait = wait.filter(|wait| self.is_unchanged(thread, &wait.frames));
                self.thread_waits.extend(wait);
            }
            if calls.is_empty() {
                continue;
            }
            let task = running.iter().find(|(tid, _)| *tid == thread.tid);
            let task = task.and_then(|(_, id)| tasks.get(id).copied());
            self.calls_of(thread, calls, task, mains);
        }
        let polls = |thread: &&Thread| {
            let task = running.iter().find(|(tid, _)| *tid == thread.tid);
            task.is_some_and(|(_, id)| tasks.contains_key(id))
                || mains.iter().any(|(main, _)| {
                    self.tasks.get(*main).is_some_and(|main| main.thread == Some(thread.tid))
                })
        };
        let sleeps = |thread: &&Thread| thread.registers.is_ok_and(|registers| registers.futex.is_some());
        let waits: FxHashSet<i32> = self.thread_waits.iter().map(|wait| wait.tid).chain(in_calls).collect();
        let wanted = |thread: &&Thread| polls(thread) || waits.contains(&thread.tid);
        let threads = snapshot.threads().iter().filter(asks).filter(sleeps).filter(wanted);
        self.own_frames = threads
            .take(MAX_THREADS)
            .filter_map(|thread| {
                let places = unwinder.places(snapshot, thread);
                let own = blocking_calls::own_frames(self.process, &modules, &places)?;
                Some((thread.tid, own))
            })
            .collect();
    }

    /// The calls of one thread, which polls `task`.
    fn calls_of(
        &mut self,
        thread: &Thread,
        mut calls: Vec<Call>,
        task: Option<usize>,
        mains: &[(usize, Address)],
    ) {
        let innermost = calls.first().map(|call| (call.inside, call.is_shutdown));
        let still = self.stood_still(thread, calls.first());
        let outermost = calls.pop_if(|call| call.runner == Runner::Nothing);
        let main = outermost.and_then(|call| self.main_of(thread, &call, still, mains));
        if !still || calls.is_empty() {
            return;
        }
        let in_task = calls.iter().any(|call| call.runner == Runner::Task);
        let Some(of) = (if in_task { task } else { main }) else { return };
        // The task is running, so it has passed what it awaited last.
        self.waits_for_nothing(of);
        let waits = innermost == Some((Inside::Waits, false));
        // Outermost first: each drives the next.
        for (number, call) in calls.iter().enumerate().rev() {
            if !call.is_shutdown {
                self.drive(of, thread, call, waits && number == 0);
            }
        }
    }

    /// Adds a future that a task, or a main future, drives. `waits`: it is the one that its thread waits for.
    fn drive(&mut self, of: usize, thread: &Thread, call: &Call, waits: bool) {
        let found = self.future_of(call);
        let Some(found) = found else {
            self.without_future.extend(Some(thread.tid).filter(|_| waits));
            return self.note_missing(thread, call);
        };
        let stack = self.future(found.of, found.address, None, Polled::Maybe).unwrap_or_default();
        stack.cut.into_iter().for_each(|cut| self.note_cut(cut));
        let Some(task) = self.tasks.get_mut(of) else { return };
        let call = blocking_call(thread, call, found.guess);
        if waits {
            task.waits_on = stack.waits_on;
            task.drives.push(Driven { call, stack: stack.stack });
        } else {
            task.drives.push(Driven { call, stack: without_waits(&stack.stack).into() });
        }
        if let Some(place) = self.places.get_mut(of) {
            place.leaves = if waits { stack.leaves } else { Vec::new() };
            place.driven.push((found.of, found.address));
        }
    }

    /// Removes what a task waits for, because it is being polled.
    pub(super) fn waits_for_nothing(&mut self, of: usize) {
        if let Some(task) = self.tasks.get_mut(of).filter(|task| !task.waits_on.is_empty()) {
            task.waits_on = Vec::new();
            task.stack = without_waits(&task.stack).into();
        }
        if let Some(place) = self.places.get_mut(of) {
            place.leaves = Vec::new();
        }
    }

    /// The main future that the outermost call of a thread drives, by its number: a registered one, or else the one on
    /// the stack, which is added.
    fn main_of(
        &mut self,
        thread: &Thread,
        call: &Call,
        still: bool,
        mains: &[(usize, Address)],
    ) -> Option<usize> {
        if call.is_shutdown {
            return None;
        }
        let found = self.future_of(call);
        let number = match (self.registered(call, found.as_ref(), mains), found) {
            (Some(number), _) => number,
            // The call of a program whose server has stopped or is stopping.
            (None, _) if call.is_registered && !mains.is_empty() => return None,
            (None, Some(found)) => {
                let found_in = blocking_call(thread, call, found.guess);
                let number = self.add_main(found.of, found.address, Some(found_in));
                if still
                    && call.inside != Inside::Polls
                    && let Some(task) = self.tasks.get_mut(number)
                {
                    task.state = Some(TaskState::Idle);
                }
                number
            }
            (None, None) => {
                self.note_missing(thread, call);
                return None;
            }
        };
        if still
            && call.inside == Inside::Polls
            && let Some(task) = self.tasks.get_mut(number)
        {
            task.thread = Some(thread.tid);
            task.state = Some(TaskState::Running);
            self.waits_for_nothing(number);
        }
        Some(number)
    }

    /// The registered main future that a call drives, by its number: the future that was found, or one whose address is
    /// among the variables of the call.
    fn registered(&self, call: &Call, found: Option<&Found>, mains: &[(usize, Address)]) -> Option<usize> {
        let at = |address: Address| mains.iter().find(|(_, of)| *of == address).map(|(number, _)| *number);
        found.and_then(|found| at(found.address)).or_else(|| {
            let drivers = call.drivers.iter().filter(|_| call.is_registered);
            let mut words = drivers.flat_map(|driver| Address::word_places(&driver.frame));
            words.find_map(|word| at(self.process.memory.address(word)?))
        })
    }

    fn note_missing(&mut self, thread: &Thread, call: &Call) {
        self.notes.add(missing(thread, call, "it was not found on the stack"));
    }

    /// Whether a thread is still in its innermost call as it was when its registers were read, some milliseconds before
    /// memory.
    fn stood_still(&self, thread: &Thread, call: Option<&Call>) -> bool {
        let Ok(registers) = thread.registers else { return true };
        let frames = call.into_iter().flat_map(|call| &call.drivers);
        let end = frames.map(|driver| driver.frame.end).max().unwrap_or(registers.sp);
        self.is_unchanged(thread, &(registers.sp..end))
    }

    /// Whether a part of the stack of a thread is as it was when the thread's registers were read.
    fn is_unchanged(&self, thread: &Thread, part: &Range<Address>) -> bool {
        let Some(copy) = &thread.stack else { return true };
        let compared = part.start..part.end.min(part.start.saturating_add(MAX_COMPARED));
        Address::word_places(&compared)
            .all(|at| copy.word(at).is_none_or(|then| self.process.memory.word(at) == Some(then)))
    }

    /// The future that a call drives.
    fn future_of(&mut self, call: &Call) -> Option<Found> {
        let drivers = &call.drivers;
        // In its first poll, it is not at an `.await` yet.
        let polled = call.inside == Inside::Polls;
        let placed = drivers.iter().find_map(|driver| self.placed(driver, polled));
        let placed = placed.or_else(|| drivers.iter().find_map(|driver| self.in_frame(driver, polled)));
        let moved = placed.or_else(|| drivers.iter().find_map(|driver| self.moved(driver)));
        moved.or_else(|| drivers.iter().find_map(|driver| self.guessed(driver)))
    }

    /// The future that a pointer points to, by the variable that debug information has for the pointer.
    fn placed(&mut self, driver: &Driver, polled: bool) -> Option<Found> {
        // Of several variables of the type, the innermost is the last that was set.
        let pointers: Vec<(TypeId, Address)> = self.pointers_to(driver, &driver.variables)?;
        pointers.iter().rev().find_map(|(of, at)| {
            let (of, address) = self.within(*of, *at)?;
            let is_it = self.looks_suspended(of, address, true).is_some()
                || polled && self.is_in_first_poll(of, address);
            is_it.then_some(Found { of, address, guess: false })
        })
    }

    /// The future in the frame of the function that drives it, by what debug information has about pointers to it elsewhere
    /// in the function's code. Where there are several, what each contains decides.
    fn in_frame(&mut self, driver: &Driver, polled: bool) -> Option<Found> {
        let pointers = self.pointers_to(driver, &driver.pointed_to)?;
        let mut places: Vec<(TypeId, Address)> = Vec::new();
        for place in pointers.iter().filter_map(|(of, at)| self.within(self.pointee(*of)?, *at)) {
            if !places.contains(&place) {
                places.push(place);
            }
        }
        let scores: Vec<Option<usize>> =
            places.iter().map(|(of, at)| self.looks_suspended(*of, *at, false)).collect();
        let best = (0..places.len()).filter(|number| scores.get(*number).is_some_and(Option::is_some));
        let best = best.max_by_key(|number| scores.get(*number));
        let (of, address) = match (best.and_then(|number| places.get(number)), places.as_slice()) {
            (Some(best), _) => *best,
            // It may wait for something unknown.
            (None, [only]) if self.looks_suspended(only.0, only.1, true).is_some() => *only,
            (None, [only]) if polled && self.is_in_first_poll(only.0, only.1) => *only,
            (None, _) => return None,
        };
        Some(Found { of, address, guess: false })
    }

    /// The future in a variable: a guess, because it may have been moved from there before it was polled.
    fn moved(&mut self, driver: &Driver) -> Option<Found> {
        let wanted = self.process.ty(driver.future)?.name.clone();
        driver.variables.iter().rev().find_map(|(of, at)| {
            self.process.ty(*of).filter(|ty| ty.name == wanted)?;
            let (of, address) = self.within(*of, *at)?;
            self.looks_suspended(of, address, true).map(|_| Found { of, address, guess: true })
        })
    }

    /// Those of `variables` that are pointers to what is driven.
    fn pointers_to(
        &self,
        driver: &Driver,
        variables: &[(TypeId, Address)],
    ) -> Option<Vec<(TypeId, Address)>> {
        let wanted = self.process.ty(driver.future)?.name.clone();
        let pointers = [format!("core::pin::Pin<&mut {wanted}>"), format!("&mut {wanted}")];
        let is_one = |of: TypeId| self.process.ty(of).is_some_and(|ty| pointers.contains(&ty.name));
        Some(variables.iter().filter(|(of, _)| is_one(*of)).copied().collect())
    }

    /// What a pointer, pinned or not, points to.
    fn pointee(&self, of: TypeId) -> Option<TypeId> {
        let ty = self.process.ty(of)?;
        match (&ty.shape, ty.path()) {
            (Shape::Pointer(target), _) => *target,
            (_, "core::pin::Pin") => match self.process.ty(ty.members.first()?.of)?.shape {
                Shape::Pointer(target) => target,
                _ => None,
            },
            _ => None,
        }
    }

    /// The future by its contents: a value of its type somewhere in the frame that waits for something valid.
    fn guessed(&mut self, driver: &Driver) -> Option<Found> {
        let ty = self.process.ty(driver.future)?;
        if ty.size == 0 {
            // All values of the type are the same, wherever they are: `pending()`.
            let (of, address) = (driver.future, driver.frame.start);
            return self.looks_suspended(of, address, true).map(|_| Found { of, address, guess: false });
        }
        let align = ty.align.max(1);
        let last = driver.frame.end.checked_sub(ty.size)?;
        let first = driver.frame.start.align_up(align)?;
        let mut best: Option<(usize, Found)> = None;
        for number in 0..MAX_PLACES {
            let Some(at) = number.checked_mul(align).and_then(|offset| first.checked_add(offset)) else {
                break;
            };
            if at > last {
                break;
            }
            let Some((of, address)) = self.within(driver.future, at) else { continue };
            if let Some(score) = self.looks_suspended(of, address, false)
                && best.as_ref().is_none_or(|(known, _)| score > *known)
            {
                best = Some((score, Found { of, address, guess: true }));
            }
        }
        best.map(|(_, found)| found)
    }

    /// The future itself, without pointers and what tokio wraps around it.
    fn within(&self, mut of: TypeId, mut at: Address) -> Option<(TypeId, Address)> {
        for _ in 0..MAX_WRAPPERS {
            let ty = self.process.ty(of)?;
            let member = match (&ty.shape, ty.path()) {
                (Shape::Pointer(target), _) => {
                    at = self.process.memory.pointer(at)?;
                    of = (*target)?;
                    continue;
                }
                (Shape::Struct, "core::pin::Pin") => ty.members.first(),
                (Shape::Struct, "tokio::runtime::task::trace::Root") => ty.member("future"),
                _ => None,
            };
            let Some(member) = member else { break };
            at = at.checked_add(member.offset)?;
            of = member.of;
        }
        Some((of, at))
    }

    /// Whether what is at `address` is a future of that type that waits for something: returns how much of it was
    /// recognised. `placed`: it is known to be such a future, and may wait for anything.
    fn looks_suspended(&mut self, of: TypeId, address: Address, placed: bool) -> Option<usize> {
        let layout = self.knowledge.layouts.of(Interest::Futures, of)?;
        if !self.is_at_an_await(layout, address)? {
            return None;
        }
        if layout.is_nothing() {
            return placed.then_some(0);
        }
        // The future is not a task's own: the header and state of the task of an earlier walk must not count.
        self.walker.set_task(None, false);
        let walked = self.walker.walk(layout, address, false);
        let frames = walked.nodes.len() + walked.stack.as_ref().map_or(0, |stack| stack.len());
        let leaves: Vec<(WaitsOn, LeafPlace)> =
            walked.waits.iter().cloned().zip(walked.leaves.iter().copied()).collect();
        let (is_cut, joins) = (walked.cut.is_some(), walked.joins.clone());
        let mut sane = leaves.iter().enumerate().map(|(number, (waits, leaf))| {
            let joined = joins.iter().find(|(of, _)| *of == number);
            self.is_sane(waits, leaf) && joined.is_none_or(|(_, header)| self.headers.id(*header).is_some())
        });
        let all_sane = !leaves.is_empty() && sane.all(|sane| sane);
        drop(sane);
        (placed || (all_sane && !is_cut)).then_some(frames + leaves.len())
    }

    /// Whether what is at `address` is a coroutine that has not come to its first `.await`.
    fn is_in_first_poll(&mut self, of: TypeId, address: Address) -> bool {
        let Some(layout) = self.knowledge.layouts.of(Interest::Futures, of) else { return false };
        let Body::Coroutine(coroutine) = &layout.body else { return false };
        let state = coroutine.state(&self.process.memory, address);
        state.is_some_and(|(_, state)| state.kind == StateKind::Unresumed)
    }

    /// Whether a coroutine is suspended; other futures may be.
    fn is_at_an_await(&self, layout: &Layout, address: Address) -> Option<bool> {
        let Body::Coroutine(coroutine) = &layout.body else { return Some(true) };
        let memory = &self.process.memory;
        memory.discriminant(coroutine.at, address)?;
        Some(coroutine.state(memory, address).is_some_and(|(_, state)| state.is_suspended()))
    }

    /// Whether what a leaf waits for is plausible.
    fn is_sane(&self, waits: &WaitsOn, leaf: &LeafPlace) -> bool {
        let is_there =
            |address: Address| address.is_aligned(4) && self.process.memory.word(address).is_some();
        let resource = leaf.resource.or(leaf.address);
        waits.kind != ResourceKind::Unknown && resource.is_some_and(is_there)
    }
}

/// The same frames, none of which waits: see [`Frame::waits`]. The walk has bounded their depth.
fn without_waits(frames: &[Frame]) -> Vec<Frame> {
    let quiet = |frame: &Frame| Frame { waits: 0, children: without_waits(&frame.children), ..frame.clone() };
    frames.iter().map(quiet).collect()
}

fn blocking_call(thread: &Thread, call: &Call, guess: bool) -> BlockingCall {
    BlockingCall {
        thread: thread.tid,
        function: call.function.clone(),
        caller: call.caller.clone().map(Arc::new),
        guess,
    }
}

/// The note that a future is not shown.
fn missing(thread: &Thread, call: &Call, why: &str) -> String {
    let name = if thread.name.is_empty() { String::new() } else { format!(" ({})", thread.name) };
    let caller = call.caller.as_ref().map(|caller| {
        let line = caller.line.map(|line| format!(":{line}")).unwrap_or_default();
        let file = caller.file.as_ref().map(|file| format!(" at {}{line}", shorten(file, None).0));
        let file = file.unwrap_or_default();
        format!(", called by {}{file}", caller.function)
    });
    let caller = caller.unwrap_or_default();
    format!(
        "the future that thread {}{name} drives in {}{caller} is not shown: {why}",
        thread.tid, call.function
    )
}

/// Adds notes for a program without types about the driven futures that are not shown.
pub(super) fn note_all(process: &Process<'_, '_>, knowledge: &Knowledge<'_>, notes: &mut Notes) {
    let snapshot = process.memory.snapshot();
    let modules = knowledge.modules(snapshot);
    let mut unwinder = Unwinder::new(&modules, snapshot.arch());
    let asks = |thread: &&Thread| thread.registers.is_ok() && !thread.is_ours();
    for thread in snapshot.threads().iter().filter(asks).take(MAX_THREADS) {
        let places = unwinder.places(snapshot, thread);
        for call in blocking_calls::calls_on_stack(process, &modules, &places) {
            if !call.is_shutdown && !call.is_registered {
                notes.add(missing(thread, &call, "the debug information has no types"));
            }
        }
    }
}
