//! What a scan of memory came by, for the lists that lead to it.
//!
//! A list leads to and fro in memory, of which little fits into the cache at a time: what it will be asked for
//! is read when the scan passes.

use std::cell::Cell;
use std::rc::Rc;

use super::header::{Headers, Kind};

/// Something that looks like a task's header.
pub(super) struct Candidate {
    pub(super) header: u64,
    pub(super) kind: Rc<Kind>,
    /// Its neighbours in a list; `None` where memory may change between the scan and the list.
    links: Option<(u64, u64)>,
    /// The scheduler on whose list it is; 0 while it is on none.
    list: Cell<u64>,
}

impl Candidate {
    pub(super) fn new(header: u64, kind: Rc<Kind>, links: Option<(u64, u64)>) -> Self {
        Self { header, kind, links, list: Cell::new(0) }
    }

    /// The scheduler on whose list it is.
    pub(super) fn list(&self) -> Option<u64> {
        Some(self.list.get()).filter(|list| *list != 0)
    }

    /// Says on whose list it is; `false` where it is on one already.
    pub(super) fn put_on(&self, list: u64) -> bool {
        self.list.replace(list) == 0
    }
}

/// All of them, in the order of their addresses.
#[derive(Default)]
pub(super) struct Candidates(Vec<Candidate>);

impl Candidates {
    pub(super) fn new(mut candidates: Vec<Candidate>) -> Self {
        candidates.sort_by_key(|candidate| candidate.header);
        candidates.dedup_by_key(|candidate| candidate.header);
        Self(candidates)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Candidate> {
        self.0.iter()
    }

    /// How many are on lists.
    pub(super) fn listed(&self) -> usize {
        self.iter().filter(|candidate| candidate.list().is_some()).count()
    }

    pub(super) fn get(&self, header: u64) -> Option<&Candidate> {
        let at = self.0.binary_search_by_key(&header, |candidate| candidate.header).ok()?;
        self.0.get(at)
    }

    /// The neighbours of a task in its list, 0 at the list's ends.
    pub(super) fn links(&self, headers: &Headers<'_, '_, '_>, header: u64) -> Option<(u64, u64)> {
        match self.get(header) {
            Some(candidate) => candidate.links.or_else(|| headers.links(header, &candidate.kind)),
            None => headers.links(header, headers.kind_of(header)?.as_ref()),
        }
    }
}
