//! Predicts how long a capture stops the program, and limits it.

use std::time::Duration;

use super::SnapshotError;

/// Limits of a capture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    /// How long the program may be stopped.
    pub(crate) budget: Duration,
    /// Whether to capture even if the prediction exceeds the limits.
    pub(crate) force: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self { budget: Duration::from_millis(50), force: false }
    }
}

impl Limits {
    /// A note for the answer, if the program was stopped for longer than the budget.
    pub(crate) fn exceeded(self, pause: Duration) -> Option<String> {
        (pause > self.budget).then(|| {
            format!(
                "the program was stopped for {} ms, longer than the {} ms allowed (DELOUSE_PAUSE_BUDGET_MS)",
                pause.as_millis(),
                self.budget.as_millis()
            )
        })
    }
}

/// The predicted cost of a forked image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Prediction {
    /// How long the fork will stop the program.
    pub(crate) pause: Duration,
    /// Anonymous memory of the program in bytes. The image consists of it, and a core file is about as large.
    pub(crate) anonymous: u64,
    /// How much of it is in huge pages, whose page tables a fork copies in almost no time. 0 if this kernel copies them
    /// slowly or does not report their number.
    pub(crate) huge: u64,
    /// Bytes that the image may use while it exists: page tables, and copies of pages that the program writes.
    pub(crate) needed: u64,
    /// Bytes that the program may still use, and the limit that applies; `None` without a limit.
    pub(crate) headroom: Option<(u64, &'static str)>,
}

/// The result of joining memory into huge pages.
#[derive(Debug)]
pub(crate) struct Joined {
    /// Anonymous memory in huge pages, in bytes; `None` if the kernel does not report it.
    pub(crate) huge: Option<u64>,
    /// The cost of a core file taken now.
    pub(crate) prediction: Prediction,
    /// How long the joining took, in microseconds.
    pub(crate) total_us: u64,
    /// Why some memory was not joined.
    pub(crate) notes: Vec<String>,
}

impl Prediction {
    /// Checks the prediction against `limits`.
    pub(crate) fn allowed_by(&self, limits: Limits) -> Result<(), SnapshotError> {
        if limits.force {
            return Ok(());
        }
        if self.pause > limits.budget {
            return Err(SnapshotError::OverBudget {
                predicted: self.pause,
                budget: limits.budget,
                anonymous: self.anonymous,
            });
        }
        match self.headroom {
            Some((available, limit)) if available < self.needed => {
                Err(SnapshotError::NoHeadroom { needed: self.needed, available, limit })
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_above_the_budget_is_noted() {
        let limits = Limits::default();
        assert_eq!(limits.exceeded(Duration::from_millis(50)), None);
        let note =
            "the program was stopped for 91 ms, longer than the 50 ms allowed (DELOUSE_PAUSE_BUDGET_MS)";
        assert_eq!(limits.exceeded(Duration::from_millis(91)).as_deref(), Some(note));
        let forced = Limits { force: true, ..limits };
        assert_eq!(forced.exceeded(Duration::from_millis(91)).as_deref(), Some(note));
    }

    #[test]
    fn a_fork_above_the_limits_is_refused_with_figures() {
        let mut prediction = Prediction {
            pause: Duration::from_millis(80),
            anonymous: 2 << 30,
            huge: 0,
            needed: 300 << 20,
            headroom: Some((100 << 20, "the cgroup's memory limit")),
        };
        let limits = Limits::default();
        let refused = prediction.allowed_by(limits).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "a fork would stop the program for about 80 ms (2048 MB of memory), more than the 50 ms allowed: \
             join its memory into huge pages first (POST /huge-pages), or raise DELOUSE_PAUSE_BUDGET_MS"
        );
        prediction.pause = Duration::from_millis(5);
        let refused = prediction.allowed_by(limits).unwrap_err();
        assert!(matches!(refused, SnapshotError::NoHeadroom { .. }), "{refused}");
        assert_eq!(prediction.allowed_by(Limits { force: true, ..limits }), Ok(()));
    }
}
