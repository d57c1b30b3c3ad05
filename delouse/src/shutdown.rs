//! The end of the program: when it has begun, and whether it takes so long that it is worth a report.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::host::lock::lock;
use crate::targets::SignalWakes;

static SHUTDOWN: Mutex<Shutdown> = Mutex::new(Shutdown::new());

/// What is known of the end of the program.
#[derive(Debug)]
struct Shutdown {
    /// How long it may take.
    limit: Option<Duration>,
    /// SIGTERMs that have arrived.
    signals: u32,
    /// When the first of them was seen.
    signalled: Option<Instant>,
    /// When the main future of a runtime had returned that is still being dropped.
    returned: Option<Instant>,
    is_reported: bool,
}

/// Why there is to be a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    /// SIGTERM has arrived again, for this time.
    Again(u32),
    /// It takes longer than the limit since SIGTERM.
    LongAfterSignal(Duration),
    /// It takes longer than the limit since the main future has returned.
    LongAfterMain(Duration),
}

impl Shutdown {
    const fn new() -> Self {
        Self { limit: None, signals: 0, signalled: None, returned: None, is_reported: false }
    }

    /// When the time is over.
    fn deadline(&self) -> Option<Instant> {
        let begun = self.signalled.into_iter().chain(self.returned).min()?;
        begun.checked_add(self.limit.filter(|_| !self.is_reported)?)
    }

    /// `signals`: how many SIGTERMs have arrived so far.
    fn check(&mut self, signals: u32, now: Instant) -> Option<Cause> {
        let is_again = signals > self.signals && signals >= 2;
        if signals > self.signals {
            self.signals = signals;
            self.signalled.get_or_insert(now);
        }
        if is_again {
            self.is_reported = true;
            return Some(Cause::Again(signals));
        }
        let limit = self.limit?;
        if self.deadline().is_none_or(|deadline| now < deadline) {
            return None;
        }
        self.is_reported = true;
        let is_since_signal =
            self.signalled.is_some_and(|at| self.returned.is_none_or(|returned| at <= returned));
        Some(if is_since_signal { Cause::LongAfterSignal(limit) } else { Cause::LongAfterMain(limit) })
    }
}

/// Sets how long the end of the program may take; the last one that is set counts.
pub(crate) fn limit(limit: Option<Duration>) {
    if limit.is_some() {
        lock(&SHUTDOWN).limit = limit;
    }
}

/// Whether a report is due. `signals`: how many SIGTERMs have arrived so far.
pub(crate) fn check(signals: u32) -> Option<Cause> {
    lock(&SHUTDOWN).check(signals, Instant::now())
}

/// The time until a report may be due; `None`: for ever.
pub(crate) fn until_due() -> Option<Duration> {
    lock(&SHUTDOWN).deadline().map(|deadline| deadline.saturating_duration_since(Instant::now()))
}

/// From the return of a main future until its runtime has been dropped.
#[derive(Debug, Default)]
pub(crate) struct RuntimeEnding {
    has_begun: bool,
}

impl RuntimeEnding {
    /// The main future has returned.
    pub(crate) fn begin(&mut self) {
        self.has_begun = true;
        let mut shutdown = lock(&SHUTDOWN);
        shutdown.returned = Some(Instant::now());
        if shutdown.limit.is_some() {
            drop(shutdown);
            SignalWakes::wake();
        }
    }
}

impl Drop for RuntimeEnding {
    fn drop(&mut self) {
        if self.has_begun {
            lock(&SHUTDOWN).returned = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(5);

    #[test]
    fn the_second_signal_and_later_ones_are_reported() {
        let (mut shutdown, now) = (Shutdown::new(), Instant::now());
        assert_eq!(shutdown.check(0, now), None);
        assert_eq!(shutdown.check(1, now), None);
        assert_eq!(shutdown.check(1, now + LIMIT * 100), None, "there is no limit");
        assert_eq!(shutdown.check(2, now), Some(Cause::Again(2)));
        assert_eq!(shutdown.check(2, now), None);
        assert_eq!(shutdown.check(4, now), Some(Cause::Again(4)));
    }

    #[test]
    fn a_long_shutdown_is_reported_once() {
        let now = Instant::now();
        let mut signalled = Shutdown { limit: Some(LIMIT), ..Shutdown::new() };
        assert_eq!((signalled.deadline(), signalled.check(0, now + LIMIT)), (None, None));
        assert_eq!(signalled.check(1, now), None);
        assert_eq!(signalled.deadline(), Some(now + LIMIT));
        assert_eq!(signalled.check(1, now + LIMIT), Some(Cause::LongAfterSignal(LIMIT)));
        assert_eq!((signalled.deadline(), signalled.check(1, now + LIMIT * 2)), (None, None));
        let mut returned = Shutdown { limit: Some(LIMIT), returned: Some(now), ..Shutdown::new() };
        assert_eq!(returned.check(1, now + LIMIT / 2), None);
        assert_eq!(returned.check(1, now + LIMIT), Some(Cause::LongAfterMain(LIMIT)));
    }
}
