//! A budget for the memory that requests use.
//!
//! Under `RLIMIT_AS`, `RLIMIT_DATA`, strict overcommit or a full cgroup, most failed allocations end the process. A request
//! must not cause that. When a request begins, at least half of the memory that is left is therefore reserved for the
//! program, and all requests share the rest. Code that maps, reads or decompresses a large block calls [`acquire`] before.
//! Code whose memory grows step by step calls [`check_growth`] repeatedly. If the budget is exceeded, the answer leaves
//! that part out and reports the [`Shortage`]: how much is missing, and how to raise the limit.

use std::fmt;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use rustix::process::Resource;

use super::limits;
use super::lock::lock;
use super::memory_left::memory_left;

/// Address space that is always reserved for the program, in bytes: twice what glibc maps for the arena of a new thread.
const RESERVED_SPACE: u64 = 128 << 20;
/// Memory that is always reserved for the program, in bytes.
const RESERVED_MEMORY: u64 = 16 << 20;
/// A measurement is reused for this long. It takes about 20 µs, in a cgroup 100.
const FRESH: Duration = Duration::from_millis(10);
/// Address space that glibc maps for the arena of a new thread. It unmaps half of it at once.
const PER_THREAD: u64 = 128 << 20;
/// With less address space than this, no thread is started that answers could do without.
const SCARCE: u64 = 512 << 20;

static BUDGET: Mutex<Budget> =
    Mutex::new(Budget { requests: 0, at_start: None, held: Amount::NOTHING, measured: None });

/// An amount of memory, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Amount {
    /// Mapped address space.
    space: u64,
    /// Written memory, which the kernel cannot drop.
    memory: u64,
}

impl Amount {
    const NOTHING: Self = Self { space: 0, memory: 0 };

    /// For a mapped file.
    pub(crate) fn mapped(bytes: u64) -> Self {
        Self { space: bytes, memory: 0 }
    }

    /// For memory that delouse allocates and writes.
    pub(crate) fn filled(bytes: u64) -> Self {
        Self { space: bytes, memory: bytes }
    }

    fn plus(self, other: Self) -> Self {
        Self {
            space: self.space.saturating_add(other.space),
            memory: self.memory.saturating_add(other.memory),
        }
    }

    fn minus(self, other: Self) -> Self {
        Self {
            space: self.space.saturating_sub(other.space),
            memory: self.memory.saturating_sub(other.memory),
        }
    }
}

/// The limit that is exceeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Limit {
    /// `RLIMIT_AS`.
    Space,
    /// `RLIMIT_DATA`.
    Data,
    /// Strict overcommit, the cgroup or the machine, as a phrase for messages.
    Other(&'static str),
}

/// Why something was not loaded: it would have exceeded the budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shortage {
    limit: Limit,
    needed: u64,
    left: u64,
    reserved: u64,
}

impl fmt::Display for Shortage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { limit, needed, left, reserved } = *self;
        let pid = std::process::id();
        let mb = |bytes: u64| bytes >> 20;
        let (what, whose) = match limit {
            Limit::Space => ("address space", "the program's limit (RLIMIT_AS)"),
            Limit::Data => ("memory", "the program's limit (RLIMIT_DATA)"),
            Limit::Other(whose) => ("memory", whose),
        };
        write!(
            f,
            "{} MB of {what} were needed; {whose} leaves {} MB, of which {} MB are reserved for the program. ",
            mb(needed).max(1),
            mb(left),
            mb(reserved)
        )?;
        match limit {
            Limit::Space => {
                write!(f, "To raise it while it runs: prlimit --pid {pid} --as={}", self.enough())
            }
            Limit::Data => {
                write!(f, "To raise it while it runs: prlimit --pid {pid} --data={}", self.enough())
            }
            Limit::Other(_) => f.write_str("Give the program more memory and repeat the request"),
        }
    }
}

impl std::error::Error for Shortage {}

/// In bytes; `None` is unlimited.
fn soft_limit(resource: Resource) -> Option<u64> {
    limits::limit(resource).ok()?.current
}

impl Shortage {
    /// A limit, in bytes, that is high enough for this and some more.
    fn enough(&self) -> u64 {
        let resource = if self.limit == Limit::Space { Resource::As } else { Resource::Data };
        let now = soft_limit(resource).unwrap_or(0);
        let missing = self.needed.saturating_mul(2).max(RESERVED_SPACE * 4);
        now.saturating_add(missing).next_multiple_of(64 << 20)
    }
}

/// An amount that counts as used until the grant is dropped.
#[derive(Debug)]
pub(crate) struct Grant(Amount);

impl Drop for Grant {
    fn drop(&mut self) {
        let mut budget = lock(&BUDGET);
        budget.held = budget.held.minus(self.0);
        budget.measured = None;
    }
}

/// A request in progress. Concurrent requests share the memory that is left when the first of them begins.
#[derive(Debug)]
pub(crate) struct ActiveRequest(());

impl ActiveRequest {
    pub(crate) fn begin() -> Self {
        let mut budget = lock(&BUDGET);
        if budget.requests == 0 {
            let left = budget.measure(true);
            budget.at_start = Some(left.plus(budget.held));
        }
        budget.requests += 1;
        Self(())
    }

    /// Whether the requests have used more than a quarter of the memory that was left, so that caches should be dropped
    /// instead of kept for the next request.
    pub(crate) fn should_release(&self) -> bool {
        let mut budget = lock(&BUDGET);
        let now = budget.measure(true);
        budget.at_start.is_some_and(|at_start| at_start.shrunk(now))
    }
}

impl Drop for ActiveRequest {
    fn drop(&mut self) {
        let mut budget = lock(&BUDGET);
        budget.requests = budget.requests.saturating_sub(1);
        if budget.requests == 0 {
            budget.at_start = None;
        }
    }
}

/// Counts `amount` as used, if the budget allows it.
pub(crate) fn acquire(amount: Amount) -> Result<Grant, Shortage> {
    let mut budget = lock(&BUDGET);
    budget.allows(amount)?;
    budget.held = budget.held.plus(amount);
    budget.measured = budget.measured.map(|(when, left)| (when, left.less(amount)));
    Ok(Grant(amount))
}

/// Checks that the budget allows `amount`, without counting it as used. For estimates, and for memory that is freed in
/// parts.
pub(crate) fn check(amount: Amount) -> Result<(), Shortage> {
    lock(&BUDGET).allows(amount)
}

/// Checks that the budget is not used up. Nearly free if repeated within [`FRESH`].
pub(crate) fn check_growth() -> Result<(), Shortage> {
    check(Amount::filled(1 << 20))
}

/// Checks that a thread with a stack of `stack` bytes may be started.
pub(crate) fn check_thread(stack: u64) -> Result<(), Shortage> {
    check(Amount { space: stack.saturating_add(PER_THREAD), memory: 0 })
}

/// Checks that the crate `backtrace` may resolve symbols: it maps the whole executable and caches what it reads.
pub(crate) fn check_symbolizer() -> Result<(), Shortage> {
    let executable = std::fs::metadata("/proc/self/exe").map_or(0, |file| file.len());
    check(Amount { space: executable.saturating_mul(2), memory: executable / 4 })
}

/// Whether a thread with a stack of `stack` bytes may be started that answers could do without: not if little address space is
/// left.
pub(crate) fn has_room_for_thread(stack: u64) -> bool {
    check(Amount::mapped(SCARCE)).is_ok() && check_thread(stack).is_ok()
}

struct Budget {
    /// Number of requests in progress.
    requests: usize,
    /// What was left when the first of these requests began, including what delouse held then.
    at_start: Option<Left>,
    /// The sum of all grants.
    held: Amount,
    measured: Option<(Instant, Left)>,
}

impl Budget {
    fn measure(&mut self, ignore_cache: bool) -> Left {
        match self.measured {
            Some((when, left)) if !ignore_cache && when.elapsed() < FRESH => left,
            _ => {
                let left = Left::now();
                self.measured = Some((Instant::now(), left));
                left
            }
        }
    }

    fn allows(&mut self, amount: Amount) -> Result<(), Shortage> {
        let is_large = amount.space >= RESERVED_MEMORY;
        let left = self.measure(is_large);
        let at_start = self.at_start.unwrap_or_else(|| left.plus(self.held));
        left.allows(at_start, amount)
    }
}

/// What the limits leave to this process; `None` without a limit.
#[derive(Debug, Clone, Copy)]
struct Left {
    space: Option<u64>,
    memory: Option<(u64, Limit)>,
}

impl Left {
    fn now() -> Self {
        let (size, data) = limits::sizes().unwrap_or_default();
        let left = |resource, used| soft_limit(resource).map(|most| most.saturating_sub(used));
        let data = left(Resource::Data, data).map(|left| (left, Limit::Data));
        let others = memory_left().map(|(left, whose)| (left, Limit::Other(whose)));
        let memory = [data, others].into_iter().flatten().min_by_key(|(left, _)| *left);
        Self { space: left(Resource::As, size), memory }
    }

    fn plus(self, amount: Amount) -> Self {
        Self {
            space: self.space.map(|left| left.saturating_add(amount.space)),
            memory: self.memory.map(|(left, limit)| (left.saturating_add(amount.memory), limit)),
        }
    }

    fn less(self, amount: Amount) -> Self {
        Self {
            space: self.space.map(|left| left.saturating_sub(amount.space)),
            memory: self.memory.map(|(left, limit)| (left.saturating_sub(amount.memory), limit)),
        }
    }

    /// Checks that at least half of `at_start` remains, and at least the minimum, once `amount` is used.
    fn allows(self, at_start: Self, amount: Amount) -> Result<(), Shortage> {
        let check = |limit, needed: u64, left: u64, at_start: Option<u64>, minimum: u64| {
            // `at_start` is `None` if the limit was set after the request began.
            let reserved = (at_start.unwrap_or(left) / 2).max(minimum);
            match left.checked_sub(needed) {
                Some(rest) if rest >= reserved => Ok(()),
                _ => Err(Shortage { limit, needed, left, reserved: reserved.min(left) }),
            }
        };
        if let Some(left) = self.space.filter(|_| amount.space > 0) {
            check(Limit::Space, amount.space, left, at_start.space, RESERVED_SPACE)?;
        }
        if let Some((left, limit)) = self.memory.filter(|_| amount.memory > 0) {
            check(limit, amount.memory, left, at_start.memory.map(|(left, _)| left), RESERVED_MEMORY)?;
        }
        Ok(())
    }

    /// Whether `now` is less than three quarters of this.
    fn shrunk(self, now: Self) -> bool {
        let shrunk =
            |before: Option<u64>, now: Option<u64>| before.zip(now).is_some_and(|(b, n)| n < b / 4 * 3);
        shrunk(self.space, now.space) || shrunk(self.memory.map(|(l, _)| l), now.memory.map(|(l, _)| l))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MB: u64 = 1 << 20;

    fn space(megabytes: u64) -> Left {
        Left { space: Some(megabytes * MB), memory: None }
    }

    #[test]
    fn half_of_the_memory_at_the_start_is_reserved() {
        let at_start = space(400);
        assert_eq!(at_start.allows(at_start, Amount::mapped(200 * MB)), Ok(()));
        let refused = at_start.allows(at_start, Amount::mapped(201 * MB)).unwrap_err();
        assert_eq!((refused.left, refused.reserved), (400 * MB, 200 * MB));
        // Half of 400 MB remains reserved, not half of 250 MB.
        assert!(space(250).allows(at_start, Amount::mapped(100 * MB)).is_err());
        assert_eq!(space(250).allows(at_start, Amount::mapped(50 * MB)), Ok(()));
    }

    #[test]
    fn near_the_limit_every_amount_is_refused() {
        assert!(space(140).allows(space(140), Amount::mapped(20 * MB)).is_err());
        let refused = space(90).allows(space(90), Amount::filled(1)).unwrap_err();
        let text = refused.to_string();
        let pid = std::process::id();
        assert!(text.starts_with(
            "1 MB of address space were needed; the program's limit (RLIMIT_AS) leaves 90 MB, "
        ));
        assert!(text.contains(&format!("prlimit --pid {pid} --as=")), "{text}");
    }

    #[test]
    fn mapped_files_count_as_address_space_only() {
        let cgroup = Limit::Other("the cgroup's memory limit");
        let left = Left { space: None, memory: Some((40 * MB, cgroup)) };
        assert_eq!(left.allows(left, Amount::mapped(1000 * MB)), Ok(()), "a file can be dropped");
        assert_eq!(left.allows(left, Amount::filled(20 * MB)), Ok(()));
        assert_eq!(left.allows(left, Amount::filled(21 * MB)).unwrap_err().limit, cgroup);
        let unlimited = Left { space: None, memory: None };
        assert_eq!(unlimited.allows(unlimited, Amount::filled(u64::MAX)), Ok(()));
    }

    #[test]
    fn memory_that_delouse_holds_counts_as_left() {
        // Caches of earlier requests do not reduce the share of the next request.
        assert_eq!(space(300).plus(Amount::mapped(100 * MB)).space, Some(400 * MB));
        assert!(space(400).shrunk(space(299)) && !space(400).shrunk(space(301)));
    }
}
