//! What a question may take of the memory that is left to the program.
//!
//! Most allocations end the process where they fail: under `RLIMIT_AS`, `RLIMIT_DATA` or strict overcommit, and in a full
//! cgroup. It must not be the program that meets that end because of a question. So there is one budget for everything
//! that answers read and make: when a question begins, at least half of what is left is set aside for the program. What
//! is about to be mapped, read or unpacked is asked for before, by [`take`]; what grows bit by bit asks [`check`] now and
//! then. A refusal says what is missing and how to get it, and the answer is made without.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::limits::{self, MemoryLimit};
use super::memory_left;

/// Address space that is left to the program in any case, in bytes: twice what glibc maps for a thread that begins to
/// allocate.
const RESERVED_SPACE: u64 = 128 << 20;
/// Memory that is left to it in any case.
const RESERVED_MEMORY: u64 = 16 << 20;
/// How old a measurement may be. One takes some 20 µs, in a cgroup 100.
const FRESH: Duration = Duration::from_millis(10);
/// What a new thread takes for a moment: glibc maps so much address space for what it will allocate, and unmaps half of it.
const PER_THREAD: u64 = 128 << 20;
/// Where less than that may be taken, types are not kept on a thread of their own.
const NARROW: u64 = 512 << 20;

static BUDGET: Mutex<Budget> =
    Mutex::new(Budget { questions: 0, begun: None, held: Amount::NOTHING, measured: None });

/// An amount of memory, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Amount {
    /// Addresses that are mapped, whether there is anything behind them or not.
    space: u64,
    /// Memory that is written to, so that the kernel cannot drop it.
    memory: u64,
}

impl Amount {
    const NOTHING: Self = Self { space: 0, memory: 0 };

    /// A file that is mapped.
    pub(crate) fn mapped(bytes: u64) -> Self {
        Self { space: bytes, memory: 0 }
    }

    /// Memory of our own.
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

/// What sets a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Limit {
    /// `RLIMIT_AS`.
    Space,
    /// `RLIMIT_DATA`.
    Data,
    /// Strict overcommit, the cgroup, or the machine, in words.
    Other(&'static str),
}

/// Why something was not read: it would have taken too much of what is left to the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shortage {
    limit: Limit,
    wanted: u64,
    left: u64,
    kept: u64,
}

impl fmt::Display for Shortage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { limit, wanted, left, kept } = *self;
        let pid = std::process::id();
        let mb = |bytes: u64| bytes >> 20;
        let (what, whose) = match limit {
            Limit::Space => ("address space", "the program's limit (RLIMIT_AS)"),
            Limit::Data => ("memory", "the program's limit (RLIMIT_DATA)"),
            Limit::Other(whose) => ("memory", whose),
        };
        write!(
            f,
            "{} MB of {what} were wanted; {whose} leaves {} MB, of which {} stay the program's. ",
            mb(wanted).max(1),
            mb(left),
            mb(kept)
        )?;
        match limit {
            Limit::Space => {
                write!(f, "To raise it while it runs: prlimit --pid {pid} --as={}", self.enough())
            }
            Limit::Data => {
                write!(f, "To raise it while it runs: prlimit --pid {pid} --data={}", self.enough())
            }
            Limit::Other(_) => f.write_str("Give the program more memory, and ask again"),
        }
    }
}

impl Shortage {
    /// A limit under which there is room for this and some more.
    fn enough(&self) -> u64 {
        let of = if self.limit == Limit::Space { MemoryLimit::AddressSpace } else { MemoryLimit::Data };
        let now = limits::memory_limit(of).unwrap_or(0);
        let missing = self.wanted.saturating_mul(2).max(RESERVED_SPACE * 4);
        now.saturating_add(missing).next_multiple_of(64 << 20)
    }
}

/// Something that was taken, until it is dropped.
#[derive(Debug)]
pub(crate) struct Grant(Amount);

impl Drop for Grant {
    fn drop(&mut self) {
        let mut budget = budget();
        budget.held = budget.held.minus(self.0);
        budget.measured = None;
    }
}

/// A question that is being answered: what is left when the first of several begins is what they share.
#[derive(Debug)]
pub(crate) struct Question(());

impl Question {
    pub(crate) fn begin() -> Self {
        let mut budget = budget();
        if budget.questions == 0 {
            let left = budget.measure(true);
            budget.begun = Some(left.plus(budget.held));
        }
        budget.questions += 1;
        Self(())
    }

    /// Whether what this process holds now is so much beside what is left that it should not be kept for the next
    /// question: a quarter.
    pub(crate) fn should_give_back(&self) -> bool {
        let mut budget = budget();
        let now = budget.measure(true);
        budget.begun.is_some_and(|begun| begun.shrunk(now))
    }
}

impl Drop for Question {
    fn drop(&mut self) {
        let mut budget = budget();
        budget.questions = budget.questions.saturating_sub(1);
        if budget.questions == 0 {
            budget.begun = None;
        }
    }
}

/// Takes `amount`, if enough is left to the program.
pub(crate) fn take(amount: Amount) -> Result<Grant, Shortage> {
    let mut budget = budget();
    budget.allows(amount)?;
    budget.held = budget.held.plus(amount);
    budget.measured = budget.measured.map(|(when, left)| (when, left.less(amount)));
    Ok(Grant(amount))
}

/// Whether `amount` could be taken, of what is not returned all at once or whose size is a guess.
pub(crate) fn expect(amount: Amount) -> Result<(), Shortage> {
    budget().allows(amount)
}

/// Whether there is room to go on. Costs next to nothing when it is asked again soon.
pub(crate) fn check() -> Result<(), Shortage> {
    expect(Amount::filled(1 << 20))
}

/// Whether a thread may be started, with that much of a stack.
pub(crate) fn thread(stack: u64) -> Result<(), Shortage> {
    expect(Amount { space: stack.saturating_add(PER_THREAD), memory: 0 })
}

/// Whether a backtrace may be resolved by a crate that maps the whole executable, and keeps what it reads.
pub(crate) fn symbolizer() -> Result<(), Shortage> {
    let executable = std::fs::metadata("/proc/self/exe").map_or(0, |file| file.len());
    expect(Amount { space: executable.saturating_mul(2), memory: executable / 4 })
}

/// Whether address space is limited, and so little of it left that no thread should be kept.
pub(crate) fn is_narrow() -> bool {
    expect(Amount::mapped(NARROW)).is_err()
}

struct Budget {
    questions: usize,
    /// What was left, with what was held, when the first of these questions began.
    begun: Option<Left>,
    held: Amount,
    measured: Option<(Instant, Left)>,
}

fn budget() -> MutexGuard<'static, Budget> {
    BUDGET.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Budget {
    fn measure(&mut self, anew: bool) -> Left {
        match self.measured {
            Some((when, left)) if !anew && when.elapsed() < FRESH => left,
            _ => {
                let left = Left::now();
                self.measured = Some((Instant::now(), left));
                left
            }
        }
    }

    fn allows(&mut self, amount: Amount) -> Result<(), Shortage> {
        let large = amount.space >= RESERVED_MEMORY;
        let left = self.measure(large);
        let begun = self.begun.unwrap_or_else(|| left.plus(self.held));
        left.allows(begun, amount)
    }
}

/// What is left to this process, and what limits it; `None` where nothing does.
#[derive(Debug, Clone, Copy)]
struct Left {
    space: Option<u64>,
    memory: Option<(u64, Limit)>,
}

impl Left {
    fn now() -> Self {
        let (size, data) = limits::sizes().unwrap_or_default();
        let of = |limit, used| limits::memory_limit(limit).map(|most| most.saturating_sub(used));
        let data = of(MemoryLimit::Data, data).map(|left| (left, Limit::Data));
        let others = memory_left().map(|(left, whose)| (left, Limit::Other(whose)));
        let memory = [data, others].into_iter().flatten().min_by_key(|(left, _)| *left);
        Self { space: of(MemoryLimit::AddressSpace, size), memory }
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

    /// Whether `amount` may be taken of this, where `begun` was left at first.
    fn allows(self, begun: Self, amount: Amount) -> Result<(), Shortage> {
        let check = |limit, wanted: u64, left: u64, begun: Option<u64>, reserved: u64| {
            // A limit may have been set meanwhile.
            let kept = (begun.unwrap_or(left) / 2).max(reserved);
            match left.checked_sub(wanted) {
                Some(rest) if rest >= kept => Ok(()),
                _ => Err(Shortage { limit, wanted, left, kept: kept.min(left) }),
            }
        };
        if let Some(left) = self.space.filter(|_| amount.space > 0) {
            check(Limit::Space, amount.space, left, begun.space, RESERVED_SPACE)?;
        }
        if let Some((left, limit)) = self.memory.filter(|_| amount.memory > 0) {
            check(limit, amount.memory, left, begun.memory.map(|(left, _)| left), RESERVED_MEMORY)?;
        }
        Ok(())
    }

    fn shrunk(self, now: Self) -> bool {
        let much = |begun: Option<u64>, now: Option<u64>| begun.zip(now).is_some_and(|(b, n)| n < b / 4 * 3);
        much(self.space, now.space) || much(self.memory.map(|(l, _)| l), now.memory.map(|(l, _)| l))
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
    fn half_of_what_is_left_stays_the_programs() {
        let begun = space(400);
        assert_eq!(begun.allows(begun, Amount::mapped(200 * MB)), Ok(()));
        let refused = begun.allows(begun, Amount::mapped(201 * MB)).unwrap_err();
        assert_eq!((refused.left, refused.kept), (400 * MB, 200 * MB));
        // Not half of the rest again.
        assert!(space(250).allows(begun, Amount::mapped(100 * MB)).is_err());
        assert_eq!(space(250).allows(begun, Amount::mapped(50 * MB)), Ok(()));
    }

    #[test]
    fn near_the_limit_nothing_is_taken() {
        assert!(space(140).allows(space(140), Amount::mapped(20 * MB)).is_err());
        let refused = space(90).allows(space(90), Amount::filled(1)).unwrap_err();
        let text = refused.to_string();
        let pid = std::process::id();
        assert!(text.starts_with(
            "1 MB of address space were wanted; the program's limit (RLIMIT_AS) leaves 90 MB, "
        ));
        assert!(text.contains(&format!("prlimit --pid {pid} --as=")), "{text}");
    }

    #[test]
    fn memory_and_address_space_are_two_things() {
        let cgroup = Limit::Other("the cgroup's memory limit");
        let left = Left { space: None, memory: Some((40 * MB, cgroup)) };
        assert_eq!(left.allows(left, Amount::mapped(1000 * MB)), Ok(()), "a file can be dropped");
        assert_eq!(left.allows(left, Amount::filled(20 * MB)), Ok(()));
        assert_eq!(left.allows(left, Amount::filled(21 * MB)).unwrap_err().limit, cgroup);
        let unlimited = Left { space: None, memory: None };
        assert_eq!(unlimited.allows(unlimited, Amount::filled(u64::MAX)), Ok(()));
    }

    #[test]
    fn what_is_held_is_no_loss() {
        // What earlier questions left mapped is ours to use again, and does not make the next one's share smaller.
        assert_eq!(space(300).plus(Amount::mapped(100 * MB)).space, Some(400 * MB));
        assert!(space(400).shrunk(space(299)) && !space(400).shrunk(space(301)));
    }
}
