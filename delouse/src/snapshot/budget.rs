//! What a capture costs, and what it may cost.

use std::time::Duration;

use super::SnapshotError;

/// What a capture may cost the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    /// The longest stop.
    pub(crate) budget: Duration,
    /// Go on whatever was predicted.
    pub(crate) force: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self { budget: Duration::from_millis(50), force: false }
    }
}

impl Limits {
    /// Says that the program stood still for longer than it should have.
    pub(crate) fn exceeded(self, pause: Duration) -> Option<String> {
        (pause > self.budget).then(|| {
            format!(
                "the program stood still for {} ms, longer than the {} ms allowed (DELOUSE_PAUSE_BUDGET_MS)",
                pause.as_millis(),
                self.budget.as_millis()
            )
        })
    }
}

/// What a forked image will cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Prediction {
    /// How long the program will stand still.
    pub(crate) pause: Duration,
    /// Anonymous memory of the program in bytes: what the image consists of, and about what a core file
    /// will hold.
    pub(crate) anonymous: u64,
    /// How much of it is in huge pages, which cost a fork next to nothing; 0 where that makes no difference, or the
    /// kernel does not tell.
    pub(crate) huge: u64,
    /// Bytes that the image may take while it lives: page tables, and pages that the program writes.
    pub(crate) needed: u64,
    /// Bytes that are left to the program, and who says so; `None` where nothing sets a limit.
    pub(crate) headroom: Option<(u64, &'static str)>,
}

/// What joining memory into huge pages has come to.
#[derive(Debug)]
pub(crate) struct Joined {
    /// Anonymous memory in huge pages, in bytes; `None` where the kernel does not tell.
    pub(crate) huge: Option<u64>,
    /// What a core file of now would cost.
    pub(crate) prediction: Prediction,
    /// How long it took, in microseconds.
    pub(crate) total_us: u64,
    /// Why there is not more in huge pages.
    pub(crate) notes: Vec<String>,
}

impl Prediction {
    /// Whether `limits` allow it.
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
    fn a_pause_above_the_budget_is_told() {
        let limits = Limits::default();
        assert_eq!(limits.exceeded(Duration::from_millis(50)), None);
        let told =
            "the program stood still for 91 ms, longer than the 50 ms allowed (DELOUSE_PAUSE_BUDGET_MS)";
        assert_eq!(limits.exceeded(Duration::from_millis(91)).as_deref(), Some(told));
        let forced = Limits { force: true, ..limits };
        assert_eq!(forced.exceeded(Duration::from_millis(91)).as_deref(), Some(told));
    }

    #[test]
    fn what_is_too_long_or_too_large_is_refused_with_figures() {
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
