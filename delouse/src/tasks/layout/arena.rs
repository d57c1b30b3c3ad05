//! A list whose values are never moved, so that references to them are valid as long as the arena.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// The number of chunks. Chunk `n` has `2^n` places, so that all together have `2^CHUNKS - 1`.
const CHUNKS: usize = 24;

type Chunk<T> = Box<[OnceLock<T>]>;

/// A list that grows behind a shared reference.
#[derive(Debug)]
pub(super) struct Arena<T> {
    chunks: [OnceLock<Chunk<T>>; CHUNKS],
    length: AtomicU32,
}

impl<T> Default for Arena<T> {
    fn default() -> Self {
        Self { chunks: [const { OnceLock::new() }; CHUNKS], length: AtomicU32::new(0) }
    }
}

impl<T> Arena<T> {
    /// The value with the index `number`.
    pub(super) fn get(&self, number: u32) -> Option<&T> {
        let (chunk, place) = locate(number);
        self.chunks.get(chunk)?.get()?.get(place)?.get()
    }

    /// Adds the value that `make` returns for its number. `None` where the arena is full.
    pub(super) fn push(&self, make: impl FnOnce(u32) -> T) -> Option<&T> {
        let number = self.length.fetch_add(1, Ordering::Relaxed);
        let (chunk, place) = locate(number);
        let places =
            self.chunks.get(chunk)?.get_or_init(|| (0..1_usize << chunk).map(|_| OnceLock::new()).collect());
        Some(places.get(place)?.get_or_init(|| make(number)))
    }
}

/// The chunk that a number is in, and its place there.
fn locate(number: u32) -> (usize, usize) {
    let from_one = u64::from(number) + 1;
    let chunk = from_one.ilog2();
    (chunk as usize, (from_one - (1 << chunk)) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_lead_to_what_was_pushed() {
        let arena = Arena::default();
        let first = arena.push(|number| number.to_string()).unwrap();
        for number in 1..1000 {
            assert_eq!(arena.push(|number| number.to_string()), Some(&number.to_string()));
        }
        assert_eq!(first, "0");
        for number in 0..1000 {
            assert_eq!(arena.get(number), Some(&number.to_string()));
        }
        assert_eq!(arena.get(1000), None);
        assert_eq!(arena.get(u32::MAX), None);
    }
}
