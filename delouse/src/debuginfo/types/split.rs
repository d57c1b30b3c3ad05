//! Units whose entries are in another file: `split-debuginfo`.
//!
//! The program has a skeleton of each unit, with addresses, ranges and the line table; the rest is in a
//! `.dwo` file of its own, or in a package of all of them (`.dwp`).

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use gimli::{Dwarf, DwarfPackage, DwoId, SectionId};

use super::dwo::{Slice, object_file, slice};
use crate::debuginfo::image::Image;

/// Where the other parts of units are.
pub(super) struct Split<'a> {
    image: &'a Image,
    package: Option<DwarfPackage<Slice<'a>>>,
    /// The first file that a unit needs and that is not there, or is of another build.
    missing: OnceLock<PathBuf>,
}

impl<'a> Split<'a> {
    pub(super) fn open(image: &'a Image) -> Self {
        let package = image.package().and_then(|package| {
            let load = |id: SectionId| Ok::<_, gimli::Error>(slice(package.dwo_section(id)));
            DwarfPackage::load(load, slice(&[])).ok()
        });
        Self { image, package, missing: OnceLock::new() }
    }

    /// The first file that was needed so far and is not there.
    pub(super) fn missing(&self) -> Option<&Path> {
        self.missing.get().map(PathBuf::as_path)
    }

    /// The part of `skeleton` that is elsewhere; `None` for a whole unit, and where the file is missing.
    pub(super) fn rest(
        &self,
        parent: &Dwarf<Slice<'a>>,
        skeleton: &gimli::Unit<Slice<'a>>,
    ) -> Option<(Arc<Dwarf<Slice<'a>>>, gimli::Unit<Slice<'a>>)> {
        let id = skeleton.dwo_id?;
        let found = self.find(id, parent, skeleton);
        if found.is_none() {
            self.missing.get_or_init(|| object_file(parent, skeleton).unwrap_or_default());
        }
        found
    }

    fn find(
        &self,
        id: DwoId,
        parent: &Dwarf<Slice<'a>>,
        skeleton: &gimli::Unit<Slice<'a>>,
    ) -> Option<(Arc<Dwarf<Slice<'a>>>, gimli::Unit<Slice<'a>>)> {
        let packed = self.package.as_ref().and_then(|package| package.find_cu(id, parent).ok()?);
        let dwarf = packed.or_else(|| {
            let object = self.image.object(&object_file(parent, skeleton)?)?;
            let load = |id: SectionId| Ok::<_, gimli::Error>(slice(object.dwo_section(id)));
            let mut dwarf = Dwarf::load(load).ok()?;
            dwarf.make_dwo(parent);
            Some(dwarf)
        })?;
        let mut headers = dwarf.units();
        while let Ok(Some(header)) = headers.next() {
            let Ok(mut unit) = dwarf.unit(header) else { continue };
            if unit.dwo_id == Some(id) {
                unit.copy_relocated_attributes(skeleton);
                return Some((Arc::new(dwarf), unit));
            }
        }
        None
    }
}
