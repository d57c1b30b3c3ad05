//! The abbreviations of a unit: of each kind of entry, which attributes it has in which forms, and how to skip it.

use gimli::{DwTag, constants as dw};

use super::bytes;
use super::forms::{self, Encoding, Size};

/// More than the tables of any unit have.
const MAX_ABBREVIATIONS: usize = 1 << 16;
/// Attributes of all abbreviations of a unit.
const MAX_SPECS: usize = 1 << 20;

/// The abbreviations of a unit, by their codes.
#[derive(Debug, Default)]
pub(in crate::debuginfo) struct Abbreviations {
    /// Code 1 is the first one. Compilers number them without gaps.
    in_order: Vec<Abbreviation>,
    /// Those with other codes.
    others: Vec<(u64, Abbreviation)>,
    specs: Vec<Spec>,
}

/// A kind of entry.
#[derive(Debug, Clone, Copy)]
pub(in crate::debuginfo) struct Abbreviation {
    pub(in crate::debuginfo) tag: DwTag,
    pub(in crate::debuginfo) has_children: bool,
    /// The size of all attributes together, where each has a fixed size.
    fixed: Option<usize>,
    /// Its attributes among those of all.
    first: usize,
    end: usize,
}

/// An attribute of a kind of entry.
#[derive(Debug, Clone, Copy)]
pub(super) struct Spec {
    pub(super) name: u16,
    pub(super) form: u16,
    /// Of `DW_FORM_implicit_const`.
    pub(super) implicit: i64,
}

impl Abbreviations {
    /// Reads the table that `input` begins with, `most` of its abbreviations. What cannot be read ends it early.
    pub(in crate::debuginfo) fn parse(mut input: &[u8], encoding: Encoding, most: usize) -> Self {
        let mut table = Self::default();
        for _ in 0..most.min(MAX_ABBREVIATIONS) {
            if table.add(&mut input, encoding).is_none() {
                break;
            }
        }
        table
    }

    fn add(&mut self, input: &mut &[u8], encoding: Encoding) -> Option<()> {
        let code = bytes::uleb(input).filter(|code| *code != 0)?;
        let tag = DwTag(u16::try_from(bytes::uleb(input)?).ok()?);
        let has_children = bytes::u8(input)? != 0;
        let first = self.specs.len();
        let mut fixed = Some(0);
        loop {
            let (Some(name), Some(form)) = (bytes::uleb(input), bytes::uleb(input)) else { return None };
            if name == 0 && form == 0 {
                break;
            }
            let (Ok(name), Ok(form)) = (u16::try_from(name), u16::try_from(form)) else { return None };
            let implicit = if form == dw::DW_FORM_implicit_const.0 { bytes::sleb(input)? } else { 0 };
            if self.specs.len() >= MAX_SPECS {
                return None;
            }
            fixed = match (fixed, forms::size(form, encoding)) {
                (Some(sum), Size::Fixed(size)) => Some(sum + size),
                _ => None,
            };
            self.specs.push(Spec { name, form, implicit });
        }
        let abbreviation = Abbreviation { tag, has_children, fixed, first, end: self.specs.len() };
        if code == self.in_order.len() as u64 + 1 {
            self.in_order.push(abbreviation);
        } else {
            self.others.push((code, abbreviation));
        }
        Some(())
    }

    /// The kind of entry with that code.
    #[inline(always)]
    pub(in crate::debuginfo) fn get(&self, code: u64) -> Option<&Abbreviation> {
        let in_order = self.in_order.as_slice().get((code as usize).wrapping_sub(1));
        if in_order.is_some() { in_order } else { self.other(code) }
    }

    fn other(&self, code: u64) -> Option<&Abbreviation> {
        self.others.iter().find(|(other, _)| *other == code).map(|(_, abbreviation)| abbreviation)
    }

    /// The attributes of entries of that kind.
    pub(super) fn specs(&self, of: &Abbreviation) -> &[Spec] {
        self.specs.get(of.first..of.end).unwrap_or_default()
    }

    /// Skips the attributes of an entry of that kind. Returns whether they could be read.
    #[inline(always)]
    pub(super) fn skip(&self, of: &Abbreviation, input: &mut &[u8], encoding: Encoding) -> bool {
        match of.fixed {
            Some(size) => bytes::skip(input, size),
            None => self.skip_each(of, input, encoding),
        }
    }

    fn skip_each(&self, of: &Abbreviation, input: &mut &[u8], encoding: Encoding) -> bool {
        let mut specs = self.specs(of);
        while let [spec, rest @ ..] = specs {
            specs = rest;
            if !forms::skip(spec.form, input, encoding) {
                return false;
            }
        }
        true
    }
}
