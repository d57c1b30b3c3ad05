//! Whether delouse itself is compiled without optimisation, which makes answers take several times as long.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Whether it is: see `build.rs`.
pub(crate) const IS_UNOPTIMIZED: bool = cfg!(delouse_unoptimized);

/// What to do about it.
pub(crate) const REMEDY: &str =
    "add to the workspace's Cargo.toml: [profile.dev.package.delouse] opt-level = 3";

/// An answer that takes longer says what to do.
const LONG: Duration = Duration::from_secs(2);

/// Measures the processor time of the current thread: what others do on the machine is no reason for advice.
pub(crate) struct Stopwatch(Duration);

impl Stopwatch {
    pub(crate) fn start() -> Self {
        Self(thread_time())
    }

    /// The note of an answer that took long, if delouse is not optimised.
    pub(crate) fn note(self) -> Option<String> {
        note(thread_time().saturating_sub(self.0), IS_UNOPTIMIZED)
    }
}

fn note(took: Duration, is_unoptimized: bool) -> Option<String> {
    (is_unoptimized && took > LONG).then(|| {
        format!(
            "delouse took {:.1} s, because it is compiled without optimisation: {REMEDY}",
            took.as_secs_f64()
        )
    })
}

fn thread_time() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_long_answers_without_optimisation_say_so() {
        let note = |millis, is_unoptimized| note(Duration::from_millis(millis), is_unoptimized);
        assert_eq!(note(2000, true), None);
        assert_eq!(note(90_000, false), None);
        let expected = "delouse took 3.1 s, because it is compiled without optimisation: add to the workspace's \
                        Cargo.toml: [profile.dev.package.delouse] opt-level = 3";
        assert_eq!(note(3100, true).as_deref(), Some(expected));
    }

    #[test]
    fn processor_time_of_the_thread_is_measured() {
        let before = thread_time();
        while thread_time() == before {}
        let idle = Stopwatch::start();
        assert_eq!(idle.note(), None);
    }
}
