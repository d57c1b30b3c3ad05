//! How much of a file's code its unwind tables describe.

use super::coverage::Coverage;
use super::sections::Sections;
use crate::debuginfo::object_file::ObjectFile;
use crate::debuginfo::symbols::SymbolTable;

/// Functions that are looked up in the tables. Bounds the time to some milliseconds.
const MAX_CHECKED: usize = 20_000;
/// Functions without a table that are named.
const MAX_NAMED: usize = 5;

/// The functions of a file, by its symbol table, and which of them no table describes.
#[derive(Debug, Default, PartialEq, Eq)]
pub(in crate::debuginfo) struct TableSurvey {
    /// The sections with tables.
    pub(in crate::debuginfo) tables: Vec<&'static str>,
    /// How many functions were looked up. Of a large file, every n-th.
    pub(in crate::debuginfo) checked: usize,
    /// How many of them have no table.
    pub(in crate::debuginfo) missing: usize,
    /// Names of some of these.
    pub(in crate::debuginfo) examples: Vec<String>,
}

impl TableSurvey {
    pub(in crate::debuginfo) fn of(object: &ObjectFile) -> Self {
        let tables = Sections::sound_tables(object);
        let debug_frame = object.section_bytes(".debug_frame");
        let mut survey = Self::default();
        survey.tables.extend(tables.eh_frame.as_ref().map(|_| ".eh_frame"));
        survey.tables.extend(debug_frame.as_ref().map(|_| ".debug_frame"));
        let coverages: Vec<_> = [
            Some(Coverage::of_eh_frame(&tables)),
            debug_frame.as_ref().map(|bytes| Coverage::of_debug_frame(bytes)),
        ]
        .into_iter()
        .flatten()
        .collect();
        let symbols = SymbolTable::of_object(object);
        let step = symbols.len().div_ceil(MAX_CHECKED).max(1);
        for address in symbols.starts().step_by(step) {
            survey.checked += 1;
            if coverages.iter().any(|coverage| coverage.contains(address)) {
                continue;
            }
            survey.missing += 1;
            if survey.examples.len() < MAX_NAMED {
                survey.examples.extend(symbols.find(address).map(str::to_owned));
            }
        }
        survey
    }
}
