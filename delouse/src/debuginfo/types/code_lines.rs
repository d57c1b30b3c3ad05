//! The functions and lines at a code address, for the stacks of threads.

use std::sync::Arc;

use gimli::constants as dw;

use super::code_scopes::contains;
use super::model::TypeId;
use super::units::{Unit, Units};
use crate::debuginfo::address::FileAddress;
use crate::debuginfo::entries::{Entry, Value};
use crate::debuginfo::image::Image;
use crate::debuginfo::paths::Origin;

/// Inlined calls at one address; compilers stop long before.
const MAX_INLINED: usize = 128;
/// How many origins of a function are followed for its name.
const MAX_HOPS: usize = 16;

/// The lines and functions of one module.
pub(crate) struct CodeLines<'a> {
    units: Units<'a>,
}

/// One function at an address.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct CodeLine {
    /// As the compiler mangled it; `None` where debug information has lines only.
    pub(crate) symbol: Option<String>,
    /// As people know it, and whose it is: see [`crate::debuginfo::paths::shorten`].
    pub(crate) file: Option<(Arc<str>, Origin)>,
    /// Counted from 1.
    pub(crate) line: Option<u32>,
}

impl<'a> CodeLines<'a> {
    /// Reads the headers of units and their address ranges.
    pub(crate) fn open(image: &'a Image) -> Self {
        Self { units: Units::open(image) }
    }

    /// The functions at `address`, innermost first where some are inlined into others; empty where nothing is known. The
    /// first address of a unit has all of the unit read.
    pub(crate) fn find(&self, address: FileAddress) -> Vec<CodeLine> {
        let units = self.units.candidates(address).into_iter();
        units.filter_map(|number| self.in_unit(number, address)).next().unwrap_or_default()
    }

    /// How much of the debug information was read so far.
    #[cfg(test)]
    pub(crate) fn work(&self) -> super::Work {
        self.units.work()
    }

    fn in_unit(&self, number: u32, address: FileAddress) -> Option<Vec<CodeLine>> {
        let unit = self.units.unit(number)?;
        let mut lines = self.functions(&unit, number, address);
        let row = unit.row_at(address);
        if row.is_none() && lines.is_empty() {
            return None;
        }
        if lines.is_empty() {
            lines.push(CodeLine::default());
        }
        // Each call was at the place that is known of the function that it was inlined into.
        let mut place = row.map(|row| (unit.shown(row.file), u32::try_from(row.line).ok()));
        for line in &mut lines {
            let (file, number) = place.take().unwrap_or_default();
            place = Some((line.file.take(), line.line));
            (line.file, line.line) = (file, number.filter(|number| *number != 0));
        }
        Some(lines)
    }

    /// The names of the functions, innermost first, each with the file and line of its call, if it is inlined.
    fn functions(&self, unit: &Unit<'a>, number: u32, address: FileAddress) -> Vec<CodeLine> {
        let mut found = Vec::new();
        let mut add = || {
            let entries = unit.entries()?;
            let offset = unit.index().function_before(address)?;
            let mut walk = entries.walk(offset);
            let function = walk.next().filter(|function| contains(unit, function, address))?;
            found.push(CodeLine { symbol: self.name(number, unit, &function), ..CodeLine::default() });
            if !function.has_children() {
                return None;
            }
            // Inlined functions are in each other. What is in a function of its own is not called here.
            let mut hidden_below = i32::MAX;
            while found.len() < MAX_INLINED {
                let entry = walk.next_below()?;
                if entry.depth <= hidden_below {
                    hidden_below = i32::MAX;
                }
                match entry.tag() {
                    _ if hidden_below < i32::MAX => {}
                    dw::DW_TAG_subprogram => hidden_below = entry.depth,
                    dw::DW_TAG_inlined_subroutine if contains(unit, &entry, address) => {
                        found.push(self.inlined(number, unit, &entry));
                    }
                    _ => {}
                }
            }
            Some(())
        };
        let _all = add();
        found.reverse();
        found
    }

    fn inlined(&self, number: u32, unit: &Unit<'a>, entry: &Entry<'_, 'a>) -> CodeLine {
        // Before DWARF 5, files were counted from 1.
        let known = |file: &u64| *file > 0 || unit.unit.encoding().version >= 5;
        let file = entry.number(dw::DW_AT_call_file).filter(known);
        CodeLine {
            symbol: self.name(number, unit, entry),
            file: file.and_then(|file| unit.shown(file)),
            line: entry.number(dw::DW_AT_call_line).and_then(|line| u32::try_from(line).ok()),
        }
    }

    /// The linkage name of a function, or else its plain name: its own or that of its origin.
    fn name(&self, number: u32, unit: &Unit<'a>, entry: &Entry<'_, 'a>) -> Option<String> {
        let own = |unit: &Unit<'a>, entry: &Entry<'_, 'a>| {
            let names = [dw::DW_AT_linkage_name, dw::DW_AT_MIPS_linkage_name, dw::DW_AT_name];
            let name = names.into_iter().find_map(|name| unit.string(entry.attr(name)?))?;
            Some(String::from_utf8_lossy(name).into_owned())
        };
        let origin = |entry: &Entry<'_, 'a>| -> Option<Value<'a>> {
            [dw::DW_AT_abstract_origin, dw::DW_AT_specification].into_iter().find_map(|name| entry.attr(name))
        };
        if let Some(name) = own(unit, entry) {
            return Some(name);
        }
        let mut at: TypeId = self.units.resolve(number, origin(entry)?)?;
        for _ in 0..MAX_HOPS {
            let unit = self.units.unit(at.unit)?;
            let entry = unit.entry(at.offset)?;
            if let Some(name) = own(&unit, &entry) {
                return Some(name);
            }
            at = self.units.resolve(at.unit, origin(&entry)?)?;
        }
        None
    }
}
