//! Processor time that threads use only because delouse stopped them.
//!
//! A sleeping thread is stopped to read its registers, and sleeps again. Without this, a thread that does nothing would seem to
//! run between two captures.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::sample::{Known, Sample};
use super::task_files::{Sleep, Syscall, TaskFiles};
use crate::snapshot::StackCopy;

/// How long threads may take until they sleep again: they may have to wait for a processor.
const SETTLING: Duration = Duration::from_millis(20);
/// More processor time than a stop takes: about 40 µs.
const MOST: u64 = 1_000_000;
/// The time between two looks at a thread that does not sleep yet.
const STEP: Duration = Duration::from_micros(200);

/// By thread id, the processor time that captures have cost so far, in nanoseconds.
#[derive(Debug, Default)]
pub(super) struct StopCosts(Mutex<HashMap<i32, u64>>);

/// A thread that slept and was stopped.
pub(super) struct Stopped {
    tid: i32,
    /// Its processor time before, in nanoseconds.
    cpu: u64,
    sleep: Sleep,
}

impl StopCosts {
    /// Subtracts what earlier captures have cost from the processor times of these threads. Returns those that this capture has
    /// stopped, for [`StopCosts::add`].
    pub(super) fn subtract(&self, samples: &mut [(Sample, Option<StackCopy>)]) -> Vec<Stopped> {
        let mut costs = self.lock();
        // Threads that have ended are forgotten.
        let before = std::mem::take(&mut *costs);
        let mut stopped = Vec::new();
        for (sample, _) in samples {
            let (tid, cpu) = (sample.tid, sample.runs.cpu);
            if sample.known == Known::Registers && !sample.ran {
                stopped.push(Stopped { tid, cpu, sleep: sample.sleep });
            }
            if let Some(cost) = before.get(&tid) {
                costs.insert(tid, *cost);
                // Zero means that the time is not known.
                sample.runs.cpu = if cpu > 0 { cpu.saturating_sub(*cost).max(1) } else { 0 };
            }
        }
        stopped
    }

    /// Adds what a capture has cost the threads that it has stopped.
    ///
    /// The thread that forked the image will run once more, when the image ends. That is not known yet, and not counted.
    pub(super) fn add(&self, files: TaskFiles<'_>, stopped: &[Stopped]) {
        let deadline = Instant::now() + SETTLING;
        for thread in stopped {
            if let Some(after) = time_when_asleep(files, thread, deadline) {
                let cost = after.saturating_sub(thread.cpu);
                *self.lock().entry(thread.tid).or_default() += cost;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<i32, u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The processor time of a thread as soon as it sleeps where it slept; `None` if it does not, or if it does more than that.
fn time_when_asleep(files: TaskFiles<'_>, thread: &Stopped, deadline: Instant) -> Option<u64> {
    loop {
        let call = files.syscall(thread.tid)?;
        let cpu = files.runs(thread.tid)?.cpu;
        if cpu.saturating_sub(thread.cpu) > MOST {
            return None;
        }
        match call {
            Syscall::Asleep(sleep) => {
                return Some(cpu).filter(|_| sleep.pc == thread.sleep.pc && sleep.sp == thread.sleep.sp);
            }
            Syscall::Running if Instant::now() < deadline => thread::sleep(STEP),
            Syscall::Running => return None,
        }
    }
}
