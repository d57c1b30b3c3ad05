//! All units of a file together: what the program's crates tell, and which units are split off.

use std::collections::{BTreeMap, BTreeSet};

use super::image::Image;
use super::model::{CrateDebug, DebugLevel};
use super::units::{Unit, UnitError, UnitReader};

/// Units that are looked at; a program of 1,000 crates has a few thousand. Bounds the time to some 100 ms.
const MAX_UNITS: u64 = 20_000;
const MAX_CRATES: usize = 2_000;

/// A unit whose contents are in another file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Skeleton {
    /// The file's name as the compiler wrote it, relative to `directory`.
    pub(crate) file: String,
    /// The directory of the compilation.
    pub(crate) directory: String,
    /// What the split unit must carry to be of this build.
    pub(crate) id: u64,
}

/// The outcome of looking at every unit.
#[derive(Debug)]
pub(crate) struct Survey {
    pub(crate) level: DebugLevel,
    pub(crate) standard_library: DebugLevel,
    pub(crate) versions: BTreeSet<u16>,
    pub(crate) units: u64,
    crates: BTreeMap<String, (DebugLevel, u64)>,
    pub(crate) skeletons: Vec<Skeleton>,
    pub(crate) sampled: bool,
    pub(crate) problems: Vec<String>,
}

impl Survey {
    /// Looks at the beginning of every unit of `.debug_info`.
    pub(crate) fn of(image: &Image) -> Survey {
        let mut survey = Survey {
            level: DebugLevel::None,
            standard_library: DebugLevel::None,
            versions: BTreeSet::new(),
            units: 0,
            crates: BTreeMap::new(),
            skeletons: Vec::new(),
            sampled: false,
            problems: Vec::new(),
        };
        match UnitReader::open(image, "") {
            Some(Ok(mut reader)) => survey.walk(&mut reader, image),
            Some(Err(e)) => survey.problems.push(format!(".debug_info: {e}")),
            None => {}
        }
        survey
    }

    fn walk(&mut self, reader: &mut UnitReader<'_>, image: &Image) {
        self.sampled = reader.is_cut();
        let mut offset = 0;
        let mut count = 0;
        while offset < reader.len() {
            if count == MAX_UNITS || image.file.is_exhausted() {
                self.sampled = true;
                return;
            }
            count += 1;
            match reader.unit(offset, 0) {
                Ok((unit, next)) => {
                    self.add(unit);
                    offset = next;
                }
                Err(UnitError::Skip(next, problem)) => {
                    if !reader.is_cut() && self.problems.len() < 8 {
                        self.problems.push(format!(".debug_info: unit at {offset:#x}: {problem}"));
                    }
                    offset = next;
                }
                Err(UnitError::End(problem)) => {
                    if !reader.is_cut() {
                        self.problems.push(format!(".debug_info: {problem}"));
                    }
                    return;
                }
            }
        }
    }

    fn add(&mut self, unit: Unit) {
        self.versions.insert(unit.version);
        if let Some((file, id)) = unit.split {
            self.units += 1;
            self.skeletons.push(Skeleton { file, directory: unit.directory, id });
            return;
        }
        let Some(level) = unit.level.filter(|_| unit.rust) else { return };
        if unit.is_std() {
            self.standard_library = self.standard_library.max(level);
            return;
        }
        self.units += 1;
        self.count(unit.crate_name(), level);
    }

    /// Counts one unit of the crate `name`.
    pub(crate) fn count(&mut self, name: String, level: DebugLevel) {
        self.level = self.level.max(level);
        if self.crates.len() < MAX_CRATES || self.crates.contains_key(&name) {
            let entry = self.crates.entry(name).or_insert((level, 0));
            *entry = (entry.0.max(level), entry.1 + 1);
        }
    }

    /// The crates, least informed first.
    pub(crate) fn crates(&self) -> Vec<CrateDebug> {
        let mut crates: Vec<_> = self
            .crates
            .iter()
            .map(|(name, (level, units))| CrateDebug { name: name.clone(), level: *level, units: *units })
            .collect();
        crates.sort_by(|a, b| a.level.cmp(&b.level).then_with(|| a.name.cmp(&b.name)));
        crates
    }
}
