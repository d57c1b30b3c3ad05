//! Indexes many units, on two threads if that is worth a second one.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use super::units::Units;
use crate::host::memory_budget;
use crate::snapshot::OwnThread;

/// Bytes of units from which on a second thread is started: these take about 20 ms to index.
const MANY: usize = 32 << 20;
/// The stack size in bytes of that thread.
const STACK: usize = 1 << 20;

/// Indexes the units with these `numbers`. The second thread inherits which signals are blocked: delouse's own threads block
/// all that the program may wait for.
pub(super) fn index_all(units: &Units<'_>, numbers: &[u32]) {
    let next = AtomicUsize::new(0);
    let index = || {
        while let Some(number) = numbers.get(next.fetch_add(1, Ordering::Relaxed)) {
            if let Some(unit) = units.unit(*number) {
                unit.index();
            }
        }
    };
    let bytes = numbers.iter().map(|number| units.size(*number)).fold(0, usize::saturating_add);
    let has_processor = || thread::available_parallelism().is_ok_and(|count| count.get() > 1);
    let is_worth_it = bytes > MANY && has_processor() && memory_budget::has_room_for_thread(STACK as u64);
    thread::scope(|scope| {
        if is_worth_it {
            let thread = thread::Builder::new().name(OwnThread::Types.name().to_owned()).stack_size(STACK);
            // Without it, this thread indexes all.
            let _no_thread = thread.spawn_scoped(scope, index);
        }
        index();
    });
}
