//! Processor time that threads use only because delouse stopped them.
//!
//! A sleeping thread is stopped to read its registers, and sleeps again. Without this, a thread that does nothing would seem to
//! run between two captures.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::sample::{Known, Sample};
use super::task_files::{Syscall, TaskFiles};
use crate::snapshot::StackCopy;

/// How long threads may take until they sleep again: they may have to wait for a processor.
const SETTLING: Duration = Duration::from_millis(50);
/// The time between two looks at a thread that does not sleep yet.
const STEP: Duration = Duration::from_micros(200);

/// By thread id, the processor time that captures have cost so far, in nanoseconds.
#[derive(Debug, Default)]
pub(super) struct StopCosts(Mutex<HashMap<i32, u64>>);

impl StopCosts {
    /// Subtracts what earlier captures have cost from the processor times of these threads, and adds what this one has.
    ///
    /// The thread that forked the image will run once more, when the image ends. That is not known yet, and not subtracted.
    pub(super) fn apply(&self, files: TaskFiles<'_>, samples: &mut [(Sample, Option<StackCopy>)]) {
        let mut costs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let deadline = Instant::now() + SETTLING;
        let mut sums = HashMap::new();
        for (sample, _) in samples {
            let before = costs.remove(&sample.tid).unwrap_or(0);
            let was_stopped = sample.known == Known::Registers && !sample.ran;
            let after = if was_stopped { time_when_asleep(files, sample, deadline) } else { None };
            let cost = after.map_or(0, |after| after.saturating_sub(sample.runs.cpu));
            sums.insert(sample.tid, before.saturating_add(cost));
            // Zero means that the time is not known.
            if sample.runs.cpu > 0 {
                sample.runs.cpu = sample.runs.cpu.saturating_sub(before).max(1);
            }
        }
        *costs = sums;
    }
}

/// The processor time of a thread as soon as it sleeps where it slept; `None` if it does not.
fn time_when_asleep(files: TaskFiles<'_>, sample: &Sample, deadline: Instant) -> Option<u64> {
    loop {
        match files.syscall(sample.tid)? {
            Syscall::Asleep(sleep) => {
                let is_same = sleep.pc == sample.sleep.pc && sleep.sp == sample.sleep.sp;
                return files.runs(sample.tid).filter(|_| is_same).map(|runs| runs.cpu);
            }
            Syscall::Running if Instant::now() < deadline => thread::sleep(STEP),
            Syscall::Running => return None,
        }
    }
}
