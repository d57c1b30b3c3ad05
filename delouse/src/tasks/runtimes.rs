//! The schedulers of a process, and the tasks on their lists.

use std::collections::BTreeMap;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::candidates::Candidates;
use super::facts::{self, Notes};
use super::header::{Flavor, Headers, Kind, Scheduler};
use super::identity::Identity;
use super::pools::{Counters, PoolRoutes};
use super::process::{Process, Program};
use super::route::Route;
use crate::debuginfo::types::{Shape, TypeId};
use crate::snapshot::Address;

/// More shards and more tasks than any runtime has.
const MAX_SHARDS: u64 = 1 << 16;
const MAX_TASKS: usize = 1 << 24;
/// More threads than those are rarely in the middle of adding or removing a task at one moment.
const MAX_CHANGES: u64 = 16;

/// One scheduler that owns tasks: a runtime, or a `LocalSet`.
#[derive(Debug, Clone)]
pub(super) struct Runtime {
    /// Its name, if any, its flavor, and tokio's number of its list of tasks, counted from 1 in a process.
    pub(super) name: Arc<str>,
    /// A `LocalRuntime`.
    pub(super) is_local: bool,
    /// Its pool for blocking calls, if it has one.
    pub(super) pool: Option<Counters>,
}

/// Everything that is known of the schedulers of one flavor.
struct Lists {
    shards: Option<Route>,
    head_in_shard: u64,
    shard_size: u64,
    head: Option<Route>,
    count: Option<Route>,
    number: Option<Route>,
    identity: Identity,
    pool: Option<PoolRoutes>,
}

/// Finds schedulers and walks their lists.
pub(super) struct Runtimes<'h, 'a, 'p, 'i> {
    process: &'a Process<'p, 'i>,
    headers: &'h Headers<'a, 'p, 'i>,
    shapes: BTreeMap<Flavor, Option<Lists>>,
    types: BTreeMap<Flavor, TypeId>,
    /// The schedulers that were found, by the address to which their `Arc` points.
    pub(super) found: BTreeMap<Address, Runtime>,
    candidates: &'h Candidates,
    /// Headers on a list that the scan did not find, with the scheduler's address.
    pub(super) others: FxHashMap<Address, Address>,
}

impl<'h, 'a, 'p, 'i> Runtimes<'h, 'a, 'p, 'i> {
    pub(super) fn new(
        process: &'a Process<'p, 'i>,
        headers: &'h Headers<'a, 'p, 'i>,
        candidates: &'h Candidates,
    ) -> Self {
        Self {
            process,
            headers,
            shapes: BTreeMap::new(),
            types: BTreeMap::new(),
            found: BTreeMap::new(),
            candidates,
            others: FxHashMap::default(),
        }
    }

    /// Learns the types of schedulers from tasks of that kind.
    pub(super) fn learn(&mut self, kind: &Kind) {
        if let Scheduler::Shared(of, flavor) = kind.scheduler {
            self.types.entry(flavor).or_insert(of);
        }
    }

    /// Adds the runtime of the `Handle` at `address`: `{ 0 CurrentThread | 1 MultiThread, Arc }`.
    pub(super) fn add_handle(&mut self, address: Address, notes: &mut Notes) {
        let flavor = match self.process.memory.word(address) {
            Some(0) => Flavor::CurrentThread,
            Some(1) => Flavor::MultiThread,
            _ => return,
        };
        if let Some(place) = address.checked_add(8) {
            self.add(flavor, place, notes);
        }
    }

    /// Adds the scheduler whose `Arc` is stored at `place`, with all tasks on its list.
    pub(super) fn add(&mut self, flavor: Flavor, place: Address, notes: &mut Notes) {
        let Some(shared) = self.process.memory.pointer(place) else { return };
        if self.found.contains_key(&shared) || !self.is_alive(shared) {
            return;
        }
        let Some(of) = self.types.get(&flavor).copied() else { return };
        let process = self.process;
        let Some(shape) = self.shapes.entry(flavor).or_insert_with(|| Lists::learn(process, of)) else {
            notes.missing(&facts::OWNED);
            return;
        };
        let number = |route: &Option<Route>| route.as_ref()?.word(process, place);
        let count = number(&shape.count);
        if count.is_some_and(|count| count > MAX_TASKS as u64) {
            // Freed memory that a stale header led to.
            return;
        }
        let heads = shape.heads(process, place);
        let number = number(&shape.number).unwrap_or(0);
        let name = shape.identity.name(process, place, flavor, number).into();
        let is_local = shape.identity.is_local(process, place);
        let pool = shape.pool.as_ref().and_then(|pool| pool.read(process, place));
        let mut found = 0;
        for head in heads {
            found += self.follow(head, shared, MAX_TASKS - found, notes);
        }
        // Each shard may be in the middle of a change, of itself or of the count.
        if let Some(count) = count
            && count.abs_diff(found as u64) > MAX_CHANGES
        {
            notes.add(format!("a list of {count} tasks had {found} when it was read"));
        }
        self.found.insert(shared, Runtime { name, is_local, pool });
    }

    /// Records the tasks of the list at `head` as tasks of the scheduler `shared`, and counts them.
    fn follow(&mut self, head: Address, shared: Address, most: usize, notes: &mut Notes) -> usize {
        let mut near = 0;
        let mut before_it = 0;
        let links = |candidate, task: Address| Candidates::links(candidate, self.headers, task);
        let mut header = self.process.memory.address(head).unwrap_or_default();
        let mut before = Address::NULL;
        let mut found = 0;
        while !header.is_null() && found < most {
            let candidate = self.candidates.get(header, &mut near);
            let Some((prev, next)) = links(candidate, header) else {
                notes.add("a list of tasks could not be read to its end".to_owned());
                break;
            };
            // In the middle of an insertion or a removal, `prev` is a task that is not on the list, or not any
            // more, but whose `next` leads here.
            let mut leads_here = || {
                let candidate = self.candidates.get(prev, &mut before_it);
                !prev.is_null() && links(candidate, prev).is_some_and(|(_, next)| next == header)
            };
            let sound = prev == before || leads_here();
            let mut is_new = || match candidate {
                Some(candidate) => candidate.put_on(shared),
                None => self.others.insert(header, shared).is_none(),
            };
            if !sound || !is_new() {
                notes.add("a list of tasks was being changed while it was read".to_owned());
                break;
            }
            found += 1;
            before = header;
            header = next;
        }
        found
    }

    /// Whether the counters of an `Arc` look valid and not zero.
    fn is_alive(&self, shared: Address) -> bool {
        let count = |offset: u64| self.process.memory.word(shared.checked_add(offset)?);
        let plausible = |count: u64| (1..1 << 32).contains(&count);
        shared.is_aligned(8) && count(0).is_some_and(plausible) && count(8).is_some_and(plausible)
    }
}

impl Lists {
    fn learn(program: &Program<'_>, of: TypeId) -> Option<Self> {
        let route = |way: &str| Route::compile(program, of, way);
        let mut shape = Self {
            shards: None,
            head_in_shard: 0,
            shard_size: 0,
            head: None,
            count: route("* owned count"),
            number: route("* owned id"),
            identity: Identity::learn(program, of),
            pool: PoolRoutes::learn(program, of),
        };
        if let Some(shards) = route("* owned lists") {
            let ty = program.ty(shards.end)?;
            let Shape::Pointer(Some(shard)) = program.ty(ty.member("data_ptr")?.of)?.shape else {
                return None;
            };
            shape.head_in_shard = Route::compile(program, shard, "head")?.offset()?;
            shape.shard_size = program.ty(shard)?.size;
            shape.shards = Some(shards);
        } else {
            // `LocalOwnedTasks` has one list.
            shape.head = Some(route("* owned head")?);
        }
        Some(shape)
    }

    /// The addresses of the heads of the lists of the scheduler whose `Arc` is stored at `place`.
    fn heads(&self, process: &Process<'_, '_>, place: Address) -> Vec<Address> {
        let mut heads = Vec::new();
        if let Some(shards) = self.shards.as_ref().and_then(|shards| shards.follow(process, place)) {
            // A boxed slice: pointer, length.
            let first = process.memory.address(shards);
            let count = shards.checked_add(8).and_then(|at| process.memory.word(at)).unwrap_or(0);
            for index in 0..count.min(MAX_SHARDS) {
                let shard = first.and_then(|first| first.checked_add(index.checked_mul(self.shard_size)?));
                heads.extend(shard.and_then(|shard| shard.checked_add(self.head_in_shard)));
            }
        }
        heads.extend(self.head.as_ref().and_then(|head| head.follow(process, place)));
        heads
    }
}
