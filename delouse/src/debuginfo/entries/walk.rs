//! A walk over the entries of a unit, in the order of the file.

use gimli::DwAt;

use super::abbreviations::{Abbreviation, Abbreviations};
use super::bytes;
use super::entry::{Entry, Value};
use super::forms::Encoding;

/// The bytes of a unit, with what it takes to read them.
#[derive(Debug)]
pub(in crate::debuginfo) struct Entries<'a> {
    /// All of the unit, its header included.
    pub(super) bytes: &'a [u8],
    /// Where the first entry is.
    pub(super) first: usize,
    pub(super) abbreviations: Abbreviations,
    pub(super) encoding: Encoding,
}

impl<'a> Entries<'a> {
    /// Those of the unit with that header; `None` where it is not in the section.
    pub(in crate::debuginfo) fn of<R>(
        header: &gimli::UnitHeader<R>,
        info: &'a [u8],
        abbreviations: &[u8],
    ) -> Option<Self>
    where
        R: gimli::Reader<Offset = usize>,
    {
        Self::with(header, info, abbreviations, usize::MAX)
    }

    /// The same of the first entry only.
    pub(in crate::debuginfo) fn head<R>(
        header: &gimli::UnitHeader<R>,
        info: &'a [u8],
        abbreviations: &[u8],
    ) -> Option<Self>
    where
        R: gimli::Reader<Offset = usize>,
    {
        Self::with(header, info, abbreviations, 1)
    }

    fn with<R>(
        header: &gimli::UnitHeader<R>,
        info: &'a [u8],
        abbreviations: &[u8],
        most: usize,
    ) -> Option<Self>
    where
        R: gimli::Reader<Offset = usize>,
    {
        let encoding = Encoding::of(header.encoding());
        let table = abbreviations.get(header.debug_abbrev_offset().0..).unwrap_or_default();
        let abbreviations = Abbreviations::parse(table, encoding, most);
        let bytes = info.get(header.offset().0..)?.get(..header.length_including_self())?;
        Some(Self { bytes, first: header.root_offset().0, abbreviations, encoding })
    }

    /// The entry at `offset`.
    pub(in crate::debuginfo) fn at(&self, offset: u32) -> Option<Entry<'_, 'a>> {
        let mut data = self.bytes.get(offset as usize..).filter(|_| offset as usize >= self.first)?;
        let code = bytes::uleb(&mut data)?;
        let abbreviation = self.abbreviations.get(code)?;
        let specs = self.abbreviations.specs(abbreviation);
        Some(Entry { offset, depth: 0, abbreviation, specs, data, encoding: self.encoding })
    }

    /// The first entry.
    pub(in crate::debuginfo) fn root(&self) -> Option<Entry<'_, 'a>> {
        self.at(self.first as u32)
    }

    /// A walk over all entries of the unit.
    pub(in crate::debuginfo) fn walk_all(&self) -> Walk<'_, 'a> {
        self.walk(self.first as u32)
    }

    /// A walk over the entry at `offset` and all that follow it.
    pub(in crate::debuginfo) fn walk(&self, offset: u32) -> Walk<'_, 'a> {
        let rest = self.bytes.get(offset as usize..).filter(|_| offset as usize >= self.first);
        Walk { entries: self, rest: rest.unwrap_or_default(), depth: 0 }
    }
}

/// See [`Entries::walk`].
#[derive(Debug)]
pub(in crate::debuginfo) struct Walk<'e, 'a> {
    entries: &'e Entries<'a>,
    rest: &'a [u8],
    /// Of the next entry: 0 for the first one, 1 for its children.
    depth: i32,
}

impl<'e, 'a> Walk<'e, 'a> {
    /// The next entry.
    pub(in crate::debuginfo) fn next(&mut self) -> Option<Entry<'e, 'a>> {
        let entry = self.next_of(|_, _| true)?;
        let skipped = self.entries.abbreviations.skip(entry.abbreviation, &mut self.rest, entry.encoding);
        skipped.then_some(entry)
    }

    /// The next entry that is below the first one.
    pub(in crate::debuginfo) fn next_below(&mut self) -> Option<Entry<'e, 'a>> {
        // Entries without children follow each other without an end between.
        self.next().filter(|entry| entry.depth > 0)
    }

    /// The next entry whose kind is one of those that `is_wanted`, at its depth. [`Self::read`] must follow.
    #[inline(always)]
    #[expect(clippy::question_mark, reason = "it is two calls in a build without optimisation")]
    pub(in crate::debuginfo) fn next_of(
        &mut self,
        is_wanted: impl Fn(&Abbreviation, i32) -> bool,
    ) -> Option<Entry<'e, 'a>> {
        let entries = self.entries;
        let (mut rest, mut depth) = (self.rest, self.depth);
        while let [byte, after @ ..] = rest {
            let at = rest;
            rest = after;
            let mut code = *byte as u64;
            if code == 0 {
                depth -= 1;
                continue;
            }
            if code >= 0x80 {
                rest = at;
                let Some(long) = bytes::uleb(&mut rest) else { return None };
                code = long;
            }
            let Some(abbreviation) = entries.abbreviations.get(code) else { return None };
            let own_depth = depth;
            if abbreviation.has_children {
                depth += 1;
            }
            if is_wanted(abbreviation, own_depth) {
                (self.rest, self.depth) = (rest, depth);
                return Some(Entry {
                    offset: (entries.bytes.len() - at.len()) as u32,
                    depth: own_depth,
                    abbreviation,
                    specs: entries.abbreviations.specs(abbreviation),
                    data: rest,
                    encoding: entries.encoding,
                });
            }
            if !entries.abbreviations.skip(abbreviation, &mut rest, entries.encoding) {
                return None;
            }
        }
        self.rest = &[];
        None
    }

    /// The attributes of these names of the entry that was returned last.
    pub(in crate::debuginfo) fn read<const N: usize>(
        &mut self,
        entry: &Entry<'e, 'a>,
        names: [DwAt; N],
    ) -> Option<[Option<Value<'a>>; N]> {
        entry.read(names, &mut self.rest)
    }
}
