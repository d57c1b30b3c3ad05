//! Whether the code has the tables that stacks of threads are followed by.

use std::path::Path;

use super::model::UnwindTables;
use crate::debuginfo::object_file::ObjectFile;
use crate::debuginfo::unwind::TableSurvey;
use crate::host::file_parts::Access;

/// Programs have a few functions without tables that no thread sleeps in, by the compiler's start files. A C library
/// without tables has hundreds.
const USUAL: u64 = 32;

/// Reads the tables of the file at `path`; `None` if it cannot be read as the program's own code.
pub(super) fn read(path: &Path) -> Option<UnwindTables> {
    let survey = TableSurvey::of(&ObjectFile::open(path, Access::Read)?);
    let number = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
    Some(UnwindTables {
        sections: survey.tables.iter().map(|name| (*name).to_owned()).collect(),
        functions: number(survey.checked),
        missing: number(survey.missing),
        examples: survey.examples,
    })
}

impl UnwindTables {
    /// Whether stacks may lead through code without tables.
    pub(crate) fn is_incomplete(&self) -> bool {
        self.missing > USUAL || (self.sections.is_empty() && self.functions > 0)
    }
}
