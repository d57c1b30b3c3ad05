//! Frames of code that no unwind table describes: a C library without tables (musl), assembly, code made at run time.

use super::tables::{Table, Tables};
use super::{Memory, StackEnd, StackPlace};
use crate::snapshot::Address;
use crate::snapshot::arch::{Call, CallerFp, CallerSp};

/// The longest function that is analysed, in bytes.
const MAX_FUNCTION: u64 = 64 << 10;
/// How far from the stack pointer a return address is searched, in bytes. Frames of libraries without tables are smaller.
const FARTHEST: usize = 16 << 10;
/// Bytes of code before a return address that may contain the call.
const BEFORE: usize = 8;
/// Bytes of code after a return address that may end the thread.
const AFTER: usize = 64;
/// A function whose size is not known is not longer, in bytes.
const MAX_UNKNOWN: u64 = 64 << 10;

/// Whether a return address may be searched for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Guesses {
    Allowed,
    None,
}

/// The caller of a frame.
#[derive(Debug)]
pub(super) enum Caller {
    /// At this address; the unwinder has its registers.
    ByTable { address: u64, is_guess: bool },
    /// With these registers; the program counter is the return address.
    Found { pc: Address, sp: Address, fp: Address, is_guess: bool, fp_is_known: bool },
}

/// The caller of the frame at `place`, whose code is not described by a table, or by one (`table`) that did not serve.
pub(super) fn caller(
    memory: &Memory<'_>,
    tables: &Tables,
    place: &StackPlace,
    table: Table,
    guesses: Guesses,
) -> Result<Caller, StackEnd> {
    if place.at.is_return && table == Table::None && is_outermost(memory, tables, place.at.pc) {
        return Err(StackEnd::Complete);
    }
    let exact = (table == Table::None).then(|| by_code(memory, tables, place)).flatten();
    let guess = || if guesses == Guesses::Allowed { by_search(memory, tables, place) } else { None };
    exact.or_else(guess).ok_or(StackEnd::NoUnwindInfo)
}

/// Whether a thread begins in the code at `address`.
fn is_outermost(memory: &Memory<'_>, tables: &Tables, address: Address) -> bool {
    let mut code = [0; AFTER];
    let read = memory.snapshot.read(address, &mut code);
    let ends = memory.snapshot.arch().never_returns(code.get(..read).unwrap_or_default());
    ends || tables.is_first_function(address.saturating_sub(1))
}

/// By what the function's instructions have done to the stack.
fn by_code(memory: &Memory<'_>, tables: &Tables, place: &StackPlace) -> Option<Caller> {
    let lookup = place.at.lookup();
    let function = tables.function(lookup)?;
    let size = function.end.offset_from(function.start).filter(|size| *size <= MAX_FUNCTION)?;
    let mut code = vec![0; usize::try_from(size).ok()?];
    let read = memory.snapshot.read(function.start, &mut code);
    let arch = memory.snapshot.arch();
    let layout = arch.frame_layout(code.get(..read)?, function.start.get(), lookup.get())?;
    let caller_sp = match layout.caller_sp {
        CallerSp::AboveSp(bytes) => place.sp.checked_add(bytes)?,
        CallerSp::AboveFp(bytes) => place.fp.checked_add(bytes)?,
    };
    let return_address = Address::new(memory.read_u64(caller_sp.checked_sub(8)?)?);
    // A signal handler returns to code that no call precedes.
    let is_return = call_before(memory, return_address).is_some() || is_trampoline(memory, return_address);
    if caller_sp <= place.sp || !is_return {
        return None;
    }
    let (fp, fp_is_known) = match layout.caller_fp {
        CallerFp::Unchanged => (place.fp, true),
        CallerFp::Stored(below) => (Address::new(memory.read_u64(caller_sp.checked_sub(below)?)?), true),
        CallerFp::Unknown => (place.fp, false),
    };
    Some(Caller::Found { pc: return_address, sp: caller_sp, fp, is_guess: false, fp_is_known })
}

/// By the first word on the stack that is a return address of a call; preferably of this function, because older calls have
/// left theirs below.
fn by_search(memory: &Memory<'_>, tables: &Tables, place: &StackPlace) -> Option<Caller> {
    let mut bytes = vec![0; FARTHEST];
    let read = memory.read_some(place.sp, &mut bytes);
    let (words, _) = bytes.get(..read)?.as_chunks::<8>();
    let lookup = place.at.lookup();
    let start = tables.function(lookup).map(|function| function.start);
    let is_ours = |call: Call| match (call, start) {
        (Call::Indirect, _) => true,
        (Call::Direct(target), Some(start)) => target == start.get(),
        (Call::Direct(target), None) => {
            lookup.get().checked_sub(target).is_some_and(|within| within < MAX_UNKNOWN)
        }
    };
    let mut other = None;
    for (index, word) in words.iter().enumerate() {
        let address = Address::new(u64::from_le_bytes(*word));
        let Some(call) = call_before(memory, address) else { continue };
        if is_ours(call) {
            return found(memory, place, index, address);
        }
        other = other.or(Some((index, address)));
    }
    other.and_then(|(index, address)| found(memory, place, index, address))
}

/// The caller whose return address is the word of this number on the stack.
fn found(memory: &Memory<'_>, place: &StackPlace, index: usize, address: Address) -> Option<Caller> {
    let sp = place.sp.checked_add(8 * (index as u64 + 1))?;
    // A function with a frame pointer has stored its caller's below the return address, and points there.
    let stored = sp.checked_sub(16).filter(|at| *at == place.fp).and_then(|at| memory.read_u64(at));
    let fp = stored.map_or(place.fp, Address::new);
    Some(Caller::Found { pc: address, sp, fp, is_guess: true, fp_is_known: stored.is_some() })
}

/// Whether the code at `address` ends the delivery of a signal.
fn is_trampoline(memory: &Memory<'_>, address: Address) -> bool {
    memory.is_code(address) && memory.is_trampoline(address)
}

/// The call that returns to `address`; `None` if that is not code behind a call of code.
fn call_before(memory: &Memory<'_>, address: Address) -> Option<Call> {
    let start = address.checked_sub(BEFORE as u64)?;
    if !memory.is_code(start) || !memory.is_code(address) {
        return None;
    }
    let mut code = [0; BEFORE];
    if memory.snapshot.read(start, &mut code) != code.len() {
        return None;
    }
    let call = memory.snapshot.arch().call_before(&code, address.get())?;
    match call {
        Call::Direct(target) if !memory.is_code(Address::new(target)) => None,
        call => Some(call),
    }
}
