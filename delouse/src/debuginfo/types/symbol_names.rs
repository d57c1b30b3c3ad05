//! Symbols by a part of their mangled names.
//!
//! There may be a million symbols, and some dozens of parts are searched for. All names are in one section, in which each
//! part is searched for once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock};

use crate::debuginfo::image::Symbol;
use crate::debuginfo::lock::lock;
use crate::host::search;

/// What was found so far.
#[derive(Default)]
pub(super) struct SymbolNames<'a> {
    /// The places of symbols in their list, in the order of their names in the section.
    order: OnceLock<Vec<u32>>,
    by_part: Mutex<HashMap<&'static str, Arc<[Symbol<'a>]>>>,
}

impl<'a> SymbolNames<'a> {
    /// Those of `symbols` that have `part` in their names, which are in `section`.
    pub(super) fn with(
        &self,
        symbols: &[Symbol<'a>],
        section: &[u8],
        part: &'static str,
    ) -> Arc<[Symbol<'a>]> {
        if let Some(known) = lock(&self.by_part).get(part) {
            return Arc::clone(known);
        }
        let found: Arc<[_]> = self.find(symbols, section, part.as_bytes()).into();
        lock(&self.by_part).insert(part, Arc::clone(&found));
        found
    }

    /// The same for a part that is searched for once.
    pub(super) fn find(&self, symbols: &[Symbol<'a>], section: &[u8], part: &[u8]) -> Vec<Symbol<'a>> {
        let name = |place: &u32| symbols.get(*place as usize).map(|symbol| symbol.name).unwrap_or_default();
        let start = |place: &u32| name(place).as_ptr().addr();
        let order = self.order.get_or_init(|| {
            let mut order: Vec<u32> = (0..).take(symbols.len()).collect();
            // Stable, as that is quick where most are in order already, as linkers write them.
            order.sort_by_key(start);
            order
        });
        let mut found = Vec::new();
        for at in search::each(section, part) {
            let at = section.as_ptr().addr() + at;
            let after = order.partition_point(|place| start(place) <= at);
            let before = order.get(..after).unwrap_or_default().iter().rev();
            // Linkers let names that end alike share their bytes.
            let has = |place: &&u32| start(place) + name(place).len() >= at + part.len();
            found.extend(before.take_while(has).copied());
        }
        found.sort_unstable();
        found.dedup();
        found.into_iter().filter_map(|place| symbols.get(place as usize)).copied().collect()
    }
}
