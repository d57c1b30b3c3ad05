//! The signal handler.
//!
//! Rules of this file: the handler interrupts a thread anywhere: inside malloc, the loader, a panic, with
//! any lock held. So **raw system calls only; no `errno`, no thread locals, no allocation, no lock, no
//! formatting, no unwinding, no panic** (no indexing, no arithmetic that may overflow), little stack. It
//! writes nothing before it has claimed its slot, and touches nothing of the slot after publishing it
//! but the times.

use std::ffi::{c_int, c_void};
use std::sync::atomic::Ordering;

use super::arch::Context;
use super::forker::is_forker;
use super::memory::read_raw;
use super::slots::{AlternateStack, Content, MOST_VECTOR_BYTES, Slot, State, TABLE, Table};
use super::sys;

/// A frozen thread goes on by itself after this long, in nanoseconds: a capturing thread that died must
/// not take the program with it.
const LONGEST_FREEZE: u64 = 1_500_000_000;

/// What the handler takes at most of its stack, in bytes: some 1,850 in a build without optimisations.
pub(super) const STACK_NEEDED: u64 = 2048;

pub(super) extern "C" fn on_signal(_signal: c_int, _info: *mut libc::siginfo_t, ucontext: *mut c_void) {
    let table = TABLE.load(Ordering::Acquire);
    if table.is_null() {
        return;
    }
    // SAFETY: tables are never unmapped.
    let table = unsafe { &*table };
    let tid = sys::gettid();
    let generation = table.generation.load(Ordering::Acquire);
    let Some(slot) = table.find(tid) else { return };
    if !slot.is(generation, State::Sent) {
        return;
    }
    // SAFETY: the third argument of a handler installed with SA_SIGINFO.
    let alternate = unsafe { AlternateStack::of(ucontext) };
    if alternate.room() < STACK_NEEDED {
        return;
    }
    let entered = sys::now();
    // The capture itself, and the thread that forks for it.
    let goes_on = tid == table.capturer.load(Ordering::Relaxed) || is_forker(tid);
    let written = slot.claim_and_write(generation, |content| {
        // SAFETY: the third argument of a handler installed with SA_SIGINFO.
        content.context = unsafe { Context::capture(ucontext) };
        content.handler_at = (&raw const entered).addr() as u64;
        content.alternate = alternate;
        if goes_on {
            keep_vectors(table, tid, &mut content.context);
        }
        copy_stack(table, content);
    });
    if !written {
        return;
    }
    slot.entered.store(entered, Ordering::Relaxed);

    let arrived = table.arrived.fetch_add(1, Ordering::AcqRel).wrapping_add(1);
    if arrived >= table.target.load(Ordering::Acquire) {
        sys::futex_wake(&table.arrived);
    }
    if !goes_on {
        stand_still(table, slot, generation);
    }
    slot.left.store(sys::now(), Ordering::Release);
    table.left.fetch_add(1, Ordering::Release);
}

/// Floating-point and vector registers stay on the stack of a thread that stands still. Those of the capturing thread
/// are copied; those of the thread that forks are of no interest.
fn keep_vectors(table: &Table, tid: i32, context: &mut Context) {
    let length = (context.extended_len as usize).min(MOST_VECTOR_BYTES);
    let memory = table.memory.load(Ordering::Relaxed);
    // SAFETY: there is room, which belongs to the capturing thread.
    let kept =
        !is_forker(tid) && unsafe { read_raw(memory, context.extended, table.vectors(), length) == length };
    (context.extended, context.extended_len) =
        if kept { (table.vectors().addr() as u64, length as u32) } else { (0, 0) };
}

/// Copies the live stack, from the stack pointer up. It lies below the thread's control block where libc
/// put it there (glibc and musl do, for every thread but the first), and that of the first thread below what the kernel
/// put there; elsewhere the copy ends with the mapping or at the limit.
fn copy_stack(table: &Table, content: &mut Content) {
    let limit = table.stack_limit.load(Ordering::Relaxed);
    let (sp, tls) = content.context.stack();
    // From addresses below, these are lengths that no limit allows.
    let below_control_block = tls.wrapping_sub(sp) as usize;
    let of_first_thread = table.first_stack_end.load(Ordering::Relaxed).wrapping_sub(sp) as usize;
    let length = below_control_block.min(of_first_thread);
    let known = length <= limit;
    let wanted = if known { length } else { limit };
    let (at, room) = table.reserve(wanted);
    // SAFETY: `reserve` gave this part of the arena to us alone.
    let copied = unsafe { read_raw(table.memory.load(Ordering::Relaxed), sp, table.arena_at(at), room) };
    content.stack_at = at;
    content.stack_len = copied;
    content.stack_cut = copied == room && (room < wanted || !known);
}

/// Waits until the capture opens the gate.
fn stand_still(table: &Table, slot: &Slot, generation: u32) {
    let deadline = sys::now().wrapping_add(LONGEST_FREEZE);
    while table.gate.load(Ordering::Acquire) == generation {
        if sys::now() >= deadline {
            table.overslept.fetch_add(1, Ordering::Relaxed);
            return;
        }
        sys::futex_wait_among(&table.gate, generation, deadline, slot.turn());
    }
}
