//! Symbols by address.

use super::Types;
use crate::debuginfo::address::FileAddress;
use crate::debuginfo::image::Symbol;

impl<'a> Types<'a> {
    /// The names of the symbols at `address`, in the order of the file: functions that are alike may share their code.
    pub(crate) fn symbols_at(&self, address: FileAddress) -> impl Iterator<Item = &'a [u8]> {
        let first = self.count_while(|at| at < address);
        let from = self.by_address().get(first..).unwrap_or_default().iter();
        let at = from.map_while(move |place| self.at(*place).filter(|symbol| symbol.address == address));
        at.map(|symbol| symbol.name)
    }

    /// The name of the last symbol that is not behind `address`.
    pub(crate) fn symbol_before(&self, address: FileAddress) -> Option<&'a [u8]> {
        let last = self.count_while(|at| at <= address).checked_sub(1)?;
        Some(self.at(*self.by_address().get(last)?)?.name)
    }

    /// The address of the first symbol behind `address`.
    pub(crate) fn next_symbol(&self, address: FileAddress) -> Option<FileAddress> {
        let next = self.count_while(|at| at <= address);
        Some(self.at(*self.by_address().get(next)?)?.address)
    }

    /// The number of symbols at the start of [`Self::by_address`] for which `is_before` is true.
    fn count_while(&self, is_before: impl Fn(FileAddress) -> bool) -> usize {
        self.by_address().partition_point(|place| self.at(*place).is_some_and(|of| is_before(of.address)))
    }

    fn at(&self, place: u32) -> Option<&Symbol<'a>> {
        self.symbols.get(place as usize)
    }

    /// The places of symbols in their list, in the order of their addresses.
    fn by_address(&self) -> &[u32] {
        self.by_address.get_or_init(|| {
            let mut places: Vec<u32> = (0..).take(self.symbols.len()).collect();
            // Stable, as that is quick where most are in order already, as linkers write them.
            places.sort_by_key(|place| self.at(*place).map(|symbol| symbol.address));
            places
        })
    }
}
