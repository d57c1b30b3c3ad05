//! The signal handler.
//!
//! Rules of this file: the handler interrupts a thread at any point: inside malloc, the loader, a panic, with any lock held.
//! So **raw system calls only; no `errno`, no thread locals, no allocation, no lock, no formatting, no unwinding, no
//! panic** (no indexing, no arithmetic that may overflow), little stack. The handler writes nothing before it has claimed
//! its slot. After it has published the slot, it writes only the times.

use std::ffi::{c_int, c_void};
use std::sync::atomic::Ordering;

use super::arch::{STACK_NEEDED, SignalContext};
use super::forker::is_forker;
use super::memory::read_raw;
use super::slots::{AlternateStack, Content, MOST_VECTOR_BYTES, Slot, SlotState, TABLE, Table};
use super::sys;

/// A held thread resumes by itself after this time, in nanoseconds, so that the program does not hang if the capturing
/// thread fails.
const LONGEST_FREEZE: u64 = 1_500_000_000;

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
    if !slot.is(generation, SlotState::Sent) {
        return;
    }
    // SAFETY: the third argument of a handler installed with SA_SIGINFO.
    let alternate = unsafe { AlternateStack::from_ucontext(ucontext) };
    if alternate.bytes_left() < STACK_NEEDED {
        return;
    }
    let entered = sys::now();
    // The capturing thread and the thread that forks are not held.
    let is_exempt = tid == table.capturer.load(Ordering::Relaxed) || is_forker(tid);
    let written = slot.claim_and_write(generation, |content| {
        // SAFETY: the third argument of a handler installed with SA_SIGINFO.
        content.context = unsafe { SignalContext::capture(ucontext) };
        content.handler_at = (&raw const entered).addr() as u64;
        content.alternate = alternate;
        if is_exempt {
            save_vectors(table, tid, &mut content.context);
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
    if !is_exempt {
        wait_at_gate(table, slot, generation);
    }
    slot.left.store(sys::now(), Ordering::Release);
    table.left.fetch_add(1, Ordering::Release);
}

/// Copies the floating-point and vector registers of the capturing thread. Other threads need no copy: while they are held,
/// the registers that the kernel has saved stay on their stacks. Those of the thread that forks are discarded.
fn save_vectors(table: &Table, tid: i32, context: &mut SignalContext) {
    let length = (context.extended_len as usize).min(MOST_VECTOR_BYTES);
    let memory = table.memory.load(Ordering::Relaxed);
    // SAFETY: the buffer is large enough, and only the capturing thread uses it.
    let saved =
        !is_forker(tid) && unsafe { read_raw(memory, context.extended, table.vectors(), length) == length };
    (context.extended, context.extended_len) =
        if saved { (table.vectors().addr() as u64, length as u32) } else { (0, 0) };
}

/// Copies the live stack, from the stack pointer up. glibc and musl place the stack directly below the thread's control
/// block, for every thread but the first; the stack of the first thread ends below data that the kernel has put there. In
/// other cases the copy ends with the mapping or at the limit.
fn copy_stack(table: &Table, content: &mut Content) {
    let limit = table.stack_limit.load(Ordering::Relaxed);
    let (sp, tls) = content.context.stack();
    // If the end is below the stack pointer, the difference wraps and exceeds every limit.
    let below_control_block = tls.wrapping_sub(sp) as usize;
    let of_first_thread = table.first_stack_end.load(Ordering::Relaxed).wrapping_sub(sp) as usize;
    let length = below_control_block.min(of_first_thread);
    let known = length <= limit;
    let wanted = if known { length } else { limit };
    let (at, room) = table.reserve(wanted);
    // SAFETY: `reserve` gives this part of the arena to this call only.
    let copied = unsafe { read_raw(table.memory.load(Ordering::Relaxed), sp, table.arena_at(at), room) };
    content.stack_at = at;
    content.stack_len = copied;
    content.stack_cut = copied == room && (room < wanted || !known);
}

/// Waits until the capture opens the gate.
fn wait_at_gate(table: &Table, slot: &Slot, generation: u32) {
    let deadline = sys::now().wrapping_add(LONGEST_FREEZE);
    while table.gate.load(Ordering::Acquire) == generation {
        if sys::now() >= deadline {
            table.overslept.fetch_add(1, Ordering::Relaxed);
            return;
        }
        sys::futex_wait_among(&table.gate, generation, deadline, slot.group());
    }
}
