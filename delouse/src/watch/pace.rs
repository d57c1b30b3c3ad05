//! When the next look begins.

use std::time::Duration;

/// The shortest time between looks.
pub(super) const SHORTEST: Duration = Duration::from_secs(1);
/// The longest time between looks, unless a longer one was asked for.
const LONGEST: Duration = Duration::from_secs(600);
/// Looks take at most this part of the time.
const BUSY: u32 = 2;
/// The program is stopped by looks for at most this part of the time.
const STOPPED: u32 = 100;

/// The time from the begin of a look to that of the next one. `took`: how long the look took; `paused`: for how long it
/// has stopped the program.
pub(crate) fn until_next(interval: Duration, took: Duration, paused: Duration) -> Duration {
    let interval = interval.max(SHORTEST);
    let wanted = took.saturating_mul(BUSY).max(paused.saturating_mul(STOPPED));
    wanted.min(LONGEST).max(interval)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slow_looks_are_fewer() {
        let ms = Duration::from_millis;
        assert_eq!(until_next(ms(30_000), ms(200), ms(2)), ms(30_000));
        assert_eq!(until_next(ms(1), ms(0), ms(0)), SHORTEST);
        assert_eq!(until_next(ms(1_000), ms(900), ms(2)), ms(1_800));
        assert_eq!(until_next(ms(1_000), ms(100), ms(50)), ms(5_000));
        assert_eq!(until_next(ms(1_000), ms(3_600_000), ms(50)), LONGEST);
        assert_eq!(until_next(ms(3_600_000), ms(100), ms(50)), ms(3_600_000));
    }
}
