//! Finds tasks by a scan of all memory: only this finds tasks of a `LocalSet`, `spawn_blocking` bodies, and completed
//! tasks that a `JoinHandle` keeps.

use std::ops::{Range, RangeInclusive};

use rustc_hash::FxHashSet;

use super::MemoryPlace;
use super::candidates::{Candidate, Candidates};
use super::facts::Notes;
use super::header::{Headers, Kind};
use super::memory::BLOCK;
use super::process::Process;
use crate::debuginfo::address::FileAddress;
use crate::debuginfo::types::Types;
use crate::host::scratch::Scratch;
use crate::snapshot::{Address, Hidden, Mapping, Snapshot, Thread};

/// The smallest unit of memory that a mapping begins or ends with.
const PAGE: u64 = 4096;
/// `.data.rel.ro` is at most some megabytes.
const MAX_CONSTANTS: u64 = 256 << 20;

/// The addresses of all `tokio::runtime::task::raw::poll::<T, S>`: word 0 of task vtables.
pub(super) fn polls(types: &Types<'_>) -> Vec<FileAddress> {
    let mut polls: Vec<FileAddress> =
        types.symbols_with("7runtime4task3raw4poll").iter().map(|symbol| symbol.address).collect();
    polls.sort_unstable();
    polls.dedup();
    polls
}

/// The task vtables among the program's constants: addresses in the process.
pub(super) fn vtables(process: &Process<'_, '_>, polls: &[FileAddress]) -> FxHashSet<Address> {
    let mut found = FxHashSet::default();
    for name in [".data.rel.ro", ".rodata"] {
        let Some(range) = process.types.image().section_range(name) else { continue };
        let Range { start, end } = process.bias.process_range(&range);
        let (Some(first), Some(last)) = (polls.first(), polls.last()) else { continue };
        let [first, last] = [first, last].map(|poll| process.bias.process_address(*poll));
        let is_poll = |word: Address| polls.binary_search(&process.bias.file_address(word)).is_ok();
        let range = start..end.min(start.saturating_add(MAX_CONSTANTS));
        each_word(process, range, first..=last, |address, word| {
            // The offsets of a task's parts are in words 7 to 9.
            let offset = |n: u64| process.memory.word(address.checked_add(n * 8)?);
            if is_poll(word) && (7..=9).all(|n| offset(n).is_some_and(|offset| offset < 1 << 30)) {
                found.insert(address);
            }
        });
    }
    found
}

/// Everything in writable memory that looks like the header of a task with one of `vtables`, up to `budget` bytes of
/// memory; about `expected` are expected. If memory does not change meanwhile, each one is passed to `read`, which
/// returns its number.
pub(super) fn headers(
    process: &Process<'_, '_>,
    headers: &Headers<'_, '_, '_>,
    vtables: &FxHashSet<Address>,
    budget: u64,
    notes: &mut Notes,
    expected: usize,
    mut read: impl FnMut(Address, &Kind) -> Option<usize>,
) -> Candidates {
    // Memory that may change is read only when it is needed.
    let frozen = process.memory.snapshot().capture().consistent;
    let mut found = Vec::new();
    let _as_it_goes = found.try_reserve(expected);
    let all = each_header(process, headers, vtables, budget, notes, |header, vtable| {
        if let Some(kind) = headers.kind(vtable) {
            let links = if frozen { headers.links(header, &kind) } else { None };
            let read = if frozen { read(header, &kind) } else { None };
            found.push(Candidate::new(header, kind, links, read));
        }
    });
    Candidates::new(found, all)
}

/// Calls `visit` with each of these, and its vtable. Returns whether all memory was scanned.
pub(super) fn each_header(
    process: &Process<'_, '_>,
    headers: &Headers<'_, '_, '_>,
    vtables: &FxHashSet<Address>,
    budget: u64,
    notes: &mut Notes,
    mut visit: impl FnMut(Address, Address),
) -> bool {
    let (Some(lowest), Some(highest)) = (vtables.iter().min().copied(), vtables.iter().max().copied()) else {
        return true;
    };
    let mut all = true;
    let snapshot = process.memory.snapshot();
    let left_overs = left_overs(snapshot);
    let mut left = budget;
    for mapping in snapshot.mappings().iter().filter(|mapping| may_hold_tasks(mapping)) {
        let Some(start) = behind_stacks(snapshot, &mapping.range).align_up(8) else { continue };
        let end = mapping.range.end.min(start.saturating_add(left));
        if end < mapping.range.end {
            all = false;
            notes.add("memory was too large to be scanned: tasks of LocalSets and of the blocking pool may be missing".to_owned());
        }
        left -= end.offset_from(start).unwrap_or(0);
        each_word(process, start..end, lowest..=highest, |address, word| {
            if vtables.contains(&word)
                && !is_among(&left_overs, address)
                && let Some(header) = address.checked_sub(headers.layout.vtable)
                && header.is_aligned(8)
                && headers.state(header).is_some_and(|state| state.is_plausible())
            {
                visit(header, word);
            }
        });
    }
    all
}

/// Ranges with stale data of captures, ordered: the capture's own copies of stacks, and alternate signal stacks, on
/// which its handler has left the registers of the interrupted code.
fn left_overs(snapshot: &dyn Snapshot) -> Vec<Range<Address>> {
    let copy = |thread: &Thread| {
        let copy = &thread.stack.as_ref().filter(|_| snapshot.is_this_process())?.bytes;
        let start = Address::new(copy.as_ptr().addr() as u64);
        Some(start..start.saturating_add(copy.len() as u64))
    };
    let alternate = |thread: &Thread| {
        let runs_there = |stack: &Range<Address>| thread.registers.is_ok_and(|of| stack.contains(&of.sp));
        thread.alternate_stack.clone().filter(|stack| !runs_there(stack))
    };
    let threads = snapshot.threads().iter();
    let mut left: Vec<_> = threads.flat_map(|thread| [copy(thread), alternate(thread)]).flatten().collect();
    left.sort_unstable_by_key(|range| range.start);
    left
}

/// Whether one of `ranges`, which are ordered and do not overlap, contains `address`.
fn is_among(ranges: &[Range<Address>], address: Address) -> bool {
    let after = ranges.partition_point(|range| range.start <= address);
    ranges[..after].last().is_some_and(|range| address < range.end)
}

/// Where a mapping that begins with stacks of threads begins to have other data. Stacks have no tasks except those that
/// are just being made. A thread's control block is at the upper end of its stack; the kernel may join other mappings
/// to that.
fn behind_stacks(snapshot: &dyn Snapshot, mapping: &Range<Address>) -> Address {
    let threads = snapshot.threads().iter().filter_map(|thread| thread.registers.ok());
    threads
        .filter(|registers| mapping.contains(&registers.sp))
        .map(|registers| match registers.tls {
            tls if tls > registers.sp && mapping.contains(&tls) => tls,
            _ => mapping.end,
        })
        .max()
        .unwrap_or(mapping.start)
}

/// Calls `visit` with every word in `wanted` that the program may still use, and its address, up to `budget` bytes of
/// memory: without the stacks of threads that have no `kind`, and without stale data of captures. Words in registers
/// are passed with the null address: with much inlining, a guard may be only there. Returns whether that was all.
pub(super) fn words_in_use(
    process: &Process<'_, '_>,
    kind: impl Fn(&Thread) -> Option<MemoryPlace>,
    wanted: RangeInclusive<Address>,
    budget: u64,
    mut visit: impl FnMut(Address, Address, MemoryPlace),
) -> bool {
    let snapshot = process.memory.snapshot();
    for thread in snapshot.threads() {
        if let Some(kind) = kind(thread) {
            registers(thread, &wanted).for_each(|word| visit(Address::NULL, word, kind));
        }
    }
    let left_overs = left_overs(snapshot);
    let stacks =
        snapshot.threads().iter().filter_map(|thread| Some((used_stack(process, thread)?, kind(thread))));
    let mut stacks: Vec<_> = stacks.collect();
    stacks.sort_unstable_by_key(|(used, _)| used.start);
    let statics: Vec<_> = [".data", ".bss"]
        .iter()
        .filter_map(|name| process.types.image().section_range(name))
        .map(|range| process.bias.process_range(&range))
        .collect();
    let mut left = budget;
    for mapping in snapshot.mappings().iter().filter(|mapping| mapping.read && mapping.write) {
        for (part, stack) in parts(&mapping.range, &stacks) {
            let Some(start) = part.start.align_up(8) else { continue };
            let Some(rest) = left.checked_sub(part.end.offset_from(start).unwrap_or(0)) else { return false };
            left = rest;
            each_word(process, start..part.end, wanted.clone(), |address, word| {
                if is_among(&left_overs, address) {
                    return;
                }
                let is_static = || statics.iter().any(|range| range.contains(&address));
                let place = match stack {
                    Some(place) => place,
                    None if is_static() => MemoryPlace::Static,
                    None => MemoryPlace::Heap,
                };
                visit(address, word, place);
            });
        }
    }
    true
}

/// Memory within this distance below a thread's stack pointer has stale data of calls that have returned: it is the
/// size of the stacks that std makes.
const UNUSED_STACK: u64 = 2 << 20;

/// The parts of a mapping without the stacks that are not to be scanned, and without the unused parts of all stacks.
/// The kernel may have joined several stacks (glibc 2.42 and later guard them by pages that are not separate mappings),
/// and what follows them. `stacks` are ordered.
fn parts(
    mapping: &Range<Address>,
    stacks: &[(Range<Address>, Option<MemoryPlace>)],
) -> Vec<(Range<Address>, Option<MemoryPlace>)> {
    let first = stacks.partition_point(|(used, _)| used.start < mapping.start);
    let within =
        stacks.get(first..).unwrap_or_default().iter().take_while(|(used, _)| used.start < mapping.end);
    let mut parts = Vec::new();
    let mut at = mapping.start;
    for (used, kind) in within {
        parts.push((at..used.start.saturating_sub(UNUSED_STACK), None));
        if kind.is_some() {
            parts.push((used.start.max(at)..used.end, *kind));
        }
        at = at.max(used.end);
    }
    parts.push((at..mapping.end, None));
    parts.retain(|(part, _)| !part.is_empty());
    parts
}

/// See [`super::Examination::stack_words`].
pub(super) fn stack_words(
    process: &Process<'_, '_>,
    thread: &Thread,
    wanted: RangeInclusive<Address>,
    left: &mut u64,
    mut visit: impl FnMut(Address),
) -> bool {
    const MOST: u64 = 1 << 20;
    registers(thread, &wanted).for_each(&mut visit);
    let Some(Range { start, end }) = used_stack(process, thread) else { return false };
    let Some(start) = start.align_up(8) else { return false };
    let size = end.offset_from(start).unwrap_or(0);
    let read = size.min(*left).min(MOST);
    *left -= read;
    each_word(process, start..start.saturating_add(read), wanted, |_, word| visit(word));
    read == size
}

/// See [`super::Examination::outer_words`].
pub(super) fn stack_words_from(
    process: &Process<'_, '_>,
    thread: &Thread,
    inner: Address,
    left: &mut u64,
    mut visit: impl FnMut(Address),
) -> bool {
    const MOST: u64 = 1 << 16;
    let Some(Range { start, end }) = used_stack(process, thread) else { return false };
    let Some(start) = start.max(inner).align_up(8) else { return false };
    let read = end.offset_from(start).unwrap_or(0).min(*left).min(MOST);
    *left -= read;
    let wanted = Address::new(PAGE)..=Address::new(u64::MAX);
    each_word(process, start..start.saturating_add(read), wanted, |_, word| visit(word));
    true
}

/// The words of a thread's general registers that are in `wanted`.
fn registers(thread: &Thread, wanted: &RangeInclusive<Address>) -> impl Iterator<Item = Address> {
    let registers = thread.registers.map(|registers| registers.general).unwrap_or_default();
    registers.into_iter().map(Hidden::address).filter(|word| wanted.contains(word))
}

/// The part of a thread's stack that is in use.
///
/// A thread's control block is at the upper end of its stack (glibc, musl); what follows there may be another mapping
/// that the kernel joined to it.
fn used_stack(process: &Process<'_, '_>, thread: &Thread) -> Option<Range<Address>> {
    let registers = thread.registers.ok()?;
    let mapping = process.memory.snapshot().mapping(registers.sp)?;
    let tls = Some(registers.tls).filter(|tls| *tls > registers.sp && mapping.range.contains(tls));
    // Functions that call no other may use 128 bytes below their stack pointer (x86_64's ABI).
    let start = registers.sp.saturating_sub(128).max(mapping.range.start);
    Some(start..tls.unwrap_or(mapping.range.end))
}

fn may_hold_tasks(mapping: &Mapping) -> bool {
    let named = mapping.path.as_ref().map(|path| path.to_string_lossy());
    let kernels = |path: &str| path.starts_with("[stack") || path.starts_with("[v");
    mapping.read && mapping.write && !mapping.shared && !named.is_some_and(|path| kernels(&path))
}

/// Calls `visit` with every aligned word that is in `wanted`, as an address. Skips what cannot be read.
fn each_word(
    process: &Process<'_, '_>,
    range: Range<Address>,
    wanted: RangeInclusive<Address>,
    mut visit: impl FnMut(Address, Address),
) {
    let wanted = wanted.start().get()..=wanted.end().get();
    let mut found = |address, word| visit(address, Address::new(word));
    for range in process.memory.snapshot().search(range, &wanted, &mut found) {
        read_each_word(process, Address::words(&range), &wanted, &mut found);
    }
}

/// The same, block by block: the cache then has the memory near each word. Addresses are plain words here, because this takes
/// most of the time in builds that are not optimised.
fn read_each_word(
    process: &Process<'_, '_>,
    range: Range<u64>,
    wanted: &RangeInclusive<u64>,
    visit: &mut impl FnMut(Address, u64),
) {
    let mut found = Vec::new();
    let mut rest = None;
    let mut at = range.start;
    while at < range.end {
        let block = at / BLOCK;
        let end = range.end.min((block + 1).saturating_mul(BLOCK));
        let first = block * BLOCK;
        let readable = process.memory.visit(block, |bytes| {
            words(bytes, first, wanted, &mut found);
            first + bytes.len() as u64
        });
        at = at.max(readable.min(end));
        // After a gap, such as at the start of a mapping that begins inside a block.
        while at < end {
            let rest = rest.get_or_insert_with(|| Scratch::new(BLOCK as usize));
            let Some(buffer) = rest.get_mut(..(end - at) as usize) else { return };
            let read = process.memory.snapshot().read(Address::new(at), buffer);
            words(buffer.get(..read).unwrap_or_default(), at, wanted, &mut found);
            at = if read == buffer.len() { end } else { (at + read as u64 + 1).next_multiple_of(PAGE) };
        }
        found
            .drain(..)
            .filter(|(at, _)| range.contains(at))
            .for_each(|(at, word)| visit(Address::new(at), !word));
    }
}

/// Adds the words of `bytes`, which are stored at `start`, that are in `wanted`: as complements, so that a scan does
/// not take stale copies of the list for pointers.
fn words(bytes: &[u8], start: u64, wanted: &RangeInclusive<u64>, found: &mut Vec<(u64, u64)>) {
    let (words, _) = bytes.as_chunks::<8>();
    // One comparison: most words are far away.
    let (lowest, span) = (*wanted.start(), wanted.end().saturating_sub(*wanted.start()));
    // Without `enumerate`, which takes most of the time in builds that are not optimised.
    let mut at = start;
    for word in words {
        let word = u64::from_le_bytes(*word);
        if word.wrapping_sub(lowest) <= span {
            found.push((at, !word));
        }
        at = at.wrapping_add(8);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stacks_are_told_from_what_lies_around_them() {
        const MB: u64 = 1 << 20;
        let range = |megabytes: Range<u64>| Address::range(megabytes.start * MB..megabytes.end * MB);
        let stack = Some(MemoryPlace::Stack);
        let stacks =
            [(range(3..4), stack), (range(13..14), None), (range(14..15), stack), (range(40..41), stack)];
        let parts = parts(&range(0..30), &stacks);
        assert_eq!(
            parts,
            [
                (range(0..1), None),
                (range(3..4), stack),
                (range(4..11), None),
                (range(14..15), stack),
                (range(15..30), None)
            ]
        );
        assert_eq!(super::parts(&range(0..1), &stacks), [(range(0..1), None)]);
    }
}
