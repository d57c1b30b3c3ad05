//! Numbers by key, in one allocation: a hundred thousand small lists take longer to free than to make.

use std::hash::Hash;
use std::ops::Range;

use rustc_hash::FxHashMap;

/// The numbers of each key, in ascending order.
#[derive(Debug)]
pub(super) struct Index<K> {
    ranges: FxHashMap<K, Range<usize>>,
    numbers: Vec<u32>,
}

impl<K: Copy + Ord + Hash> Index<K> {
    pub(super) fn of(pairs: impl Iterator<Item = (K, u32)>) -> Self {
        let mut pairs: Vec<(K, u32)> = pairs.collect();
        pairs.sort_unstable();
        let mut ranges = FxHashMap::default();
        let mut start = 0;
        for alike in pairs.chunk_by(|(one, _), (other, _)| one == other) {
            let end = start + alike.len();
            if let Some((key, _)) = alike.first() {
                ranges.insert(*key, start..end);
            }
            start = end;
        }
        Self { ranges, numbers: pairs.into_iter().map(|(_, number)| number).collect() }
    }

    pub(super) fn get(&self, key: &K) -> &[u32] {
        let range = self.ranges.get(key).cloned();
        range.and_then(|range| self.numbers.get(range)).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_has_its_own() {
        let index = Index::of([(7, 1), (3, 2), (7, 0), (9, 4)].into_iter());
        assert_eq!([3, 7, 8, 9].map(|key| index.get(&key)), [&[2][..], &[0, 1], &[], &[4]]);
        assert_eq!(Index::<u64>::of(std::iter::empty()).get(&1), &[0_u32; 0]);
    }
}
