//! What the stacks of threads that wait show: in which channel they wait, and what they have of what others wait for.

use std::ops::RangeInclusive;

use rustc_hash::{FxHashMap, FxHashSet};

use super::holders::Holders;
use super::ownership::{Holding, Node, Ownership, Reference};
use super::resources::Waits;
use super::threads::ThreadNodes;
use super::wait::{ResourceKey, Waker, sleeping};
use crate::snapshot::{Address, Hidden};
use crate::tasks::layout::handles::{self, HandleFact, Roles};
use crate::tasks::{Examination, MemoryPlace, Primitive, ResourceKind, Task};

/// The most words of one thread's stack that are compared with channels.
const MAX_WORDS: usize = 1 << 12;
/// The most bytes of stacks that are searched in all.
const MAX_STACKS: u64 = 64 << 20;
/// The most memory that is searched for other places of an address.
const MAX_MEMORY: u64 = 4 << 30;
/// The closure of a thread is on the heap, and stays there while it runs: it is moved to the stack from there. The most bytes
/// of it that are taken for stale.
const MAX_CLOSURE: u64 = 512;

impl ThreadNodes {
    /// The words on the stacks of threads that wait in channels, from the top to the end of the frame of the program's own
    /// function: among these is the address of the channel. A later search of memory must not find them here.
    pub(super) fn words(&self, examination: &Examination<'_, '_, '_>) -> FxHashMap<u32, FxHashSet<Hidden>> {
        let in_channels = self
            .waits
            .iter()
            .filter(|(_, wait)| matches!(wait.primitive, Primitive::Receive | Primitive::Send));
        let memory = &examination.process.memory;
        in_channels
            .map(|(number, wait)| {
                let places = Address::word_places(&wait.frames).take(MAX_WORDS);
                let words = places.filter_map(|at| memory.word(at)).filter(|word| *word > 4096);
                (*number, words.map(Hidden::new).collect())
            })
            .collect()
    }

    /// Finds the channels that threads wait in: those of which something has handles, and whose address is the only such on the
    /// top of the thread's stack.
    pub(super) fn resolve(
        &self,
        words: &FxHashMap<u32, FxHashSet<Hidden>>,
        ownership: &Ownership,
        waits: &mut Waits,
        tasks: &[Task],
    ) {
        for (number, words) in words {
            let Some(wait) = self.waits.get(number) else { continue };
            let counted = |holding: &&Holding| {
                handles::at(holding.handle).is_some_and(HandleFact::is_counted)
                    && holding.resource.address().is_some_and(|at| words.contains(&at.into()))
            };
            let mut channels: Vec<ResourceKey> =
                ownership.holdings.iter().filter(counted).map(|holding| holding.resource).collect();
            channels.sort_unstable();
            channels.dedup();
            if let [channel] = channels.as_slice() {
                let roles = match wait.primitive {
                    Primitive::Send => Roles::RECEIVER,
                    _ => Roles::SENDER,
                };
                waits.resolve(*number, *channel, Waker::Handles(roles), tasks);
            }
        }
    }

    /// Adds what the threads have on their stacks: resources with waiters, and references to the shared objects that contain
    /// these, if more refers to such an object than what was found.
    pub(super) fn add_stacks(
        &self,
        examination: &Examination<'_, '_, '_>,
        waits: &Waits,
        ownership: &mut Ownership,
    ) {
        if self.waits.is_empty() {
            return;
        }
        let wanted = Wanted::of(waits, ownership);
        let mut left = MAX_STACKS;
        for thread in examination.process.memory.snapshot().threads() {
            let Some(number) = self.waiting(thread.tid) else {
                continue;
            };
            let own: FxHashSet<ResourceKey> =
                waits.of_task(number).iter().map(|wait| wait.resource).collect();
            // What it waits for is in these: it cannot make use of them meanwhile.
            let around: FxHashSet<Node> = ownership
                .holdings
                .iter()
                .filter(|holding| own.contains(&holding.resource))
                .map(|holding| holding.owner)
                .collect();
            let mut seen = FxHashSet::default();
            examination.stack_words(thread, wanted.range(), &mut left, |word| {
                let (object, resource) = wanted.at(word);
                if (object.is_none() && resource.is_none()) || !seen.insert(Hidden::from(word)) {
                    return;
                }
                let is_around = |object: &u32| resource.is_some() || around.contains(&Node::Object(*object));
                if let Some(object) = object.filter(is_around) {
                    ownership.references.push(reference(number, object, resource.is_some()));
                }
                if let Some(resource) = resource.filter(|resource| !own.contains(resource)) {
                    ownership.holdings.push(Holding::on_waiting_stack(number, resource));
                }
            });
        }
    }

    /// The resources whose addresses are on the stacks of other threads that are not known to wait for anything inside of the
    /// program: these will do something with them.
    pub(super) fn living(
        &self,
        examination: &Examination<'_, '_, '_>,
        waits: &Waits,
        ownership: &Ownership,
    ) -> FxHashSet<ResourceKey> {
        let wanted = Wanted::of(waits, ownership);
        let mut living = FxHashSet::default();
        let mut left = MAX_STACKS;
        let rests = |tid: i32| {
            let number = self.number(tid)?;
            let task = examination.listing.tasks.get(number as usize)?;
            (self.waits.contains_key(&number) || task.thread != Some(tid) || !task.drives.is_empty())
                .then_some(())
        };
        for thread in examination.process.memory.snapshot().threads() {
            let sleeps = thread.registers.is_ok_and(|registers| registers.futex.is_some_and(|of| !of.timed));
            let is_left_out = examination.is_idle(thread) || examination.is_runtime_thread(thread);
            if sleeps || is_left_out || rests(thread.tid).is_some() {
                continue;
            }
            examination.stack_words(thread, wanted.range(), &mut left, |word| {
                let (object, resource) = wanted.at(word);
                living.extend(resource);
                let object = object.and_then(|object| ownership.objects.get(object as usize));
                living.extend(object.map(|of| ResourceKey::Value(of.value)));
            });
        }
        living
    }

    /// Whether a thread that waits was found to have a reference to an object.
    pub(super) fn has(&self, tid: i32, object: u32, holders: &Holders) -> bool {
        let owner = self.number(tid).map(Node::Task);
        holders.references_to(object).any(|of| Some(of.owner) == owner && of.place.is_null())
    }

    /// Which of some resources have their addresses elsewhere in memory than in known handles and on the stacks of threads that
    /// wait: what has them there may be alive.
    pub(super) fn held_elsewhere(
        &self,
        examination: &Examination<'_, '_, '_>,
        resources: &FxHashSet<ResourceKey>,
        waits: &Waits,
        ownership: &mut Ownership,
    ) -> FxHashSet<ResourceKey> {
        ownership.order_values();
        let wanted = Wanted::only(resources, waits, ownership);
        let known: FxHashSet<Address> = ownership
            .holdings
            .iter()
            .map(|holding| holding.place)
            .chain(ownership.references.iter().map(|reference| reference.place))
            .collect();
        let sleeping = sleeping(examination);
        // A thread that runs a future until it is done does nothing meanwhile with what is on its stack: what the future has,
        // it has too, or a stale copy.
        let of_resources = ownership.holdings.iter().filter(|holding| resources.contains(&holding.resource));
        let of_tasks: FxHashSet<(ResourceKey, u32)> = of_resources
            .filter_map(|holding| Some((holding.resource, ownership.parts.task_of(holding.owner)?)))
            .collect();
        let is_its_own = |tid: i32, resource: ResourceKey| {
            let task = sleeping.get(&tid).copied().or_else(|| examination.main_on(tid));
            task.is_some_and(|task| of_tasks.contains(&(resource, task)))
        };
        let stale = self.closures(examination);
        let is_stale = |at: Address| {
            stale.iter().any(|start| at.offset_from(*start).is_some_and(|offset| offset < MAX_CLOSURE))
        };
        let mut held = FxHashSet::default();
        let all = examination.words_in_use_by(wanted.range(), MAX_MEMORY, |at, word, place, tid| {
            let (object, Some(resource)) = wanted.at(word) else { return };
            let is_known = known.contains(&at) && !at.is_null() || ownership.was_walked(at);
            let on_node = tid.is_some_and(|tid| self.waiting(tid).is_some());
            // The addresses of resources themselves are also in our own memory.
            let is_left_over = || {
                place == MemoryPlace::Heap
                    && (object.is_none() || is_stale(at) || is_ended_stack(examination, at))
            };
            let is_its_own = || tid.is_some_and(|tid| is_its_own(tid, resource));
            if !is_known && !on_node && !is_left_over() && !is_its_own() {
                held.insert(resource);
            }
        });
        if !all {
            held.extend(resources);
        }
        held
    }

    /// Addresses on the heap from which the closures of the threads were moved to their stacks: those that are on the outer part
    /// of each stack, and the tasks of blocking calls.
    fn closures(&self, examination: &Examination<'_, '_, '_>) -> FxHashSet<Address> {
        let mut found = FxHashSet::default();
        let mut left = MAX_STACKS;
        for thread in examination.process.memory.snapshot().threads() {
            let Some(number) = self.waiting(thread.tid) else {
                continue;
            };
            found.extend(examination.places.get(number as usize).and_then(|place| place.header));
            let own = examination.listing.own_frames.iter().find(|(tid, _)| *tid == thread.tid);
            if let Some((_, own)) = own {
                examination.outer_words(thread, own.range.end, &mut left, |word| found.extend([word]));
            }
        }
        found
    }
}

/// Whether an address is on the stack of a thread that has ended: glibc keeps its memory for the next one. A stack is mapped
/// behind its guard, which is small; what else is mapped behind something that cannot be read is behind a large part.
fn is_ended_stack(examination: &Examination<'_, '_, '_>, at: Address) -> bool {
    const MAX_GUARD: u64 = 64 << 10;
    let snapshot = examination.process.memory.snapshot();
    let mappings = snapshot.mappings();
    let Some(number) = mappings.iter().position(|of| of.range.contains(&at)) else {
        return false;
    };
    let (Some(stack), Some(guard)) =
        (mappings.get(number), number.checked_sub(1).and_then(|before| mappings.get(before)))
    else {
        return false;
    };
    let is_guard = !guard.read && !guard.write && guard.range.end == stack.range.start;

    let is_used = snapshot
        .threads()
        .iter()
        .any(|thread| thread.registers.map_or(true, |registers| stack.range.contains(&registers.sp)));
    is_guard && guard.size() <= MAX_GUARD && stack.path.is_none() && !is_used
}

/// `is_channel`: it is part of a handle, which does not own what is in the channel's queue.
fn reference(number: u32, object: u32, is_channel: bool) -> Reference {
    Reference {
        owner: Node::Task(number),
        object,
        weak: false,
        path: Default::default(),
        uncertain: true,
        unpolled: None,
        only_adds: is_channel,
        place: Address::NULL,
        solid: false,
        borrowed: false,
    }
}

/// Addresses to search stacks for.
struct Wanted {
    /// By address: the object whose counters are there, and the resource.
    at: FxHashMap<Hidden, (Option<u32>, Option<ResourceKey>)>,
}

impl Wanted {
    /// All channels with waiters, and all objects to which more refers than what was found.
    fn of(waits: &Waits, ownership: &Ownership) -> Self {
        Self::only(&resources(waits), waits, ownership)
    }

    fn only(resources: &FxHashSet<ResourceKey>, waits: &Waits, ownership: &Ownership) -> Self {
        let mut at: FxHashMap<Hidden, (Option<u32>, Option<ResourceKey>)> = FxHashMap::default();
        let whole = resources.iter().filter_map(|resource| Some((resource.address()?, *resource)));
        let parts = waits.parts().map(|(part, whole)| (part, ResourceKey::Value(whole)));
        for (address, resource) in whole.chain(parts.filter(|(_, whole)| resources.contains(whole))) {
            at.entry(address.into()).or_default().1 = Some(resource);
        }
        let mut found: FxHashMap<u32, u64> = FxHashMap::default();
        for reference in
            ownership.references.iter().filter(|of| !of.weak && !of.borrowed && !of.place.is_null())
        {
            *found.entry(reference.object).or_default() += 1;
        }
        for (number, object) in (0..).zip(&ownership.objects) {
            let resource = Some(ResourceKey::Value(object.value)).filter(|value| resources.contains(value));
            if object.strong > found.get(&number).copied().unwrap_or(0) {
                at.insert(object.counters, (Some(number), resource));
            }
        }
        Self { at }
    }

    fn range(&self) -> RangeInclusive<Address> {
        Hidden::range(self.at.keys())
    }

    fn at(&self, word: Address) -> (Option<u32>, Option<ResourceKey>) {
        self.at.get(&word.into()).copied().unwrap_or_default()
    }
}

/// The channels with waiters. A thread that has the address of anything else need not have a part in it.
fn resources(waits: &Waits) -> FxHashSet<ResourceKey> {
    let of_channels = |kind: ResourceKind, by: Waker| matches!(by, Waker::Handles(_)) && kind.is_channel();
    let all = waits
        .counting()
        .filter(|wait| of_channels(wait.kind, wait.by) && wait.resource != ResourceKey::Unknown);
    all.map(|wait| wait.resource).collect()
}
