//! Which task a thread polls: where the program's threads keep it.

use std::sync::Once;

use crate::debuginfo::address::LoadBias;
use crate::debuginfo::image::Image;
use crate::debuginfo::types::Types;
use crate::host::descriptor_reserve::{self, DescriptorPermit};
use crate::host::memory_budget::{self, ActiveRequest};
use crate::snapshot::{OwnThread, arch};
use crate::targets;
use crate::tasks::learn_current_task;
use crate::tasks::process::Program;
use crate::threads::polled;

/// Starts a thread that finds the thread local in which threads keep the task that they poll, unless that is known. Does
/// not wait for it. What the thread reads is dropped at its end.
pub(super) fn learn() {
    static BEGUN: Once = Once::new();
    const STACK: usize = 2 << 20;
    let body = |files| {
        let _request = ActiveRequest::begin();
        if let Ok(own) = targets::own_object()
            && let Ok(image) = Image::open(&own.opened)
        {
            let program = Program { types: Types::open(&image), bias: LoadBias::default() };
            learn_current_task(&program, arch::host());
        }
        drop::<DescriptorPermit>(files);
    };
    if !polled::is_offset_set()
        && memory_budget::has_room_for_thread(STACK as u64)
        && let Ok(files) = descriptor_reserve::acquire()
    {
        BEGUN.call_once(|| {
            let thread = OwnThread::Types.builder().stack_size(STACK);
            // Without it, answers leave out which task a thread polls.
            drop(targets::with_signals_blocked(|| thread.spawn(move || body(files))));
        });
    }
}
