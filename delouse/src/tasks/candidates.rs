//! Scan hits, indexed by address, for walking linked lists.
//!
//! A list jumps to and fro in memory, most of which is not in the cache. So the links, and the tasks themselves, are
//! read when the scan passes them.

use std::cell::Cell;
use std::sync::Arc;

use super::header::{Headers, Kind};
use crate::snapshot::Address;

/// Something that looks like a task's header.
pub(super) struct Candidate {
    pub(super) header: Address,
    pub(super) kind: Arc<Kind>,
    /// Its neighbours in a list; `None` where memory may change between the scan and the list.
    links: Option<(Address, Address)>,
    /// Its index among the tasks that were read when the scan passed.
    pub(super) read: Option<usize>,
    /// The scheduler on whose list it is.
    list: Cell<Option<Address>>,
}

impl Candidate {
    pub(super) fn new(
        header: Address,
        kind: Arc<Kind>,
        links: Option<(Address, Address)>,
        read: Option<usize>,
    ) -> Self {
        Self { header, kind, links, read, list: Cell::default() }
    }

    /// The scheduler on whose list it is.
    pub(super) fn list(&self) -> Option<Address> {
        self.list.get()
    }

    /// Records the scheduler on whose list it is; `false` if it is on a list already.
    pub(super) fn put_on(&self, list: Address) -> bool {
        self.list.replace(Some(list)).is_none()
    }
}

/// The hits of a scan, in the order of their addresses.
#[derive(Default)]
pub(super) struct Candidates {
    list: Vec<Candidate>,
    all: bool,
}

impl Candidates {
    /// `all`: no memory was left out.
    pub(super) fn new(mut list: Vec<Candidate>, all: bool) -> Self {
        list.sort_by_key(|candidate| candidate.header);
        list.dedup_by_key(|candidate| candidate.header);
        Self { list, all }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Candidate> {
        self.list.iter()
    }

    /// Whether no memory was left out.
    pub(super) fn are_all(&self) -> bool {
        self.all
    }

    /// The candidate with that header. The search starts at `near`, which is set to its index: neighbours in a list are
    /// mostly near each other in memory, too.
    pub(super) fn get(&self, header: Address, near: &mut usize) -> Option<&Candidate> {
        *near = find_near(&self.list, |candidate| candidate.header, header, *near)?;
        self.list.get(*near)
    }

    /// The neighbours of a task in its list, null at the list's ends. `candidate` is its hit, if there is one.
    pub(super) fn links(
        candidate: Option<&Candidate>,
        headers: &Headers<'_, '_, '_>,
        header: Address,
    ) -> Option<(Address, Address)> {
        match candidate {
            Some(candidate) => candidate.links.or_else(|| headers.links(header, &candidate.kind)),
            None => headers.links(header, headers.kind_of(header)?.as_ref()),
        }
    }
}

/// The index of the element with that key in a sorted slice. The search starts at `near` and widens.
fn find_near<T, K: Ord>(sorted: &[T], key: impl Fn(&T) -> K, wanted: K, near: usize) -> Option<usize> {
    let (mut low, mut high) = (near.min(sorted.len()), near.min(sorted.len()));
    let mut step = 1;
    while low.checked_sub(1).and_then(|at| sorted.get(at)).is_some_and(|before| key(before) >= wanted) {
        low = low.saturating_sub(step);
        step *= 2;
    }
    step = 1;
    while sorted.get(high).is_some_and(|after| key(after) <= wanted) {
        high = sorted.len().min(high + step);
        step *= 2;
    }
    sorted.get(low..high)?.binary_search_by_key(&wanted, key).ok().map(|at| low + at)
}

#[cfg(test)]
mod tests {
    use super::find_near;

    #[test]
    fn an_element_is_found_from_wherever_the_search_begins() {
        let sorted: Vec<u64> = (0..40).map(|n| 64 + n * n * 8).collect();
        for near in 0..45 {
            let find = |wanted| find_near(&sorted, |key| *key, wanted, near);
            for (at, key) in sorted.iter().enumerate() {
                assert_eq!((find(*key), find(key + 1)), (Some(at), None));
            }
            assert_eq!((find(0), find(u64::MAX)), (None, None));
            assert_eq!(find_near(&[], |key: &u64| *key, 64, near), None);
        }
    }
}
