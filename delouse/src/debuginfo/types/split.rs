//! Units whose entries are in another file: `split-debuginfo`.
//!
//! The program has a skeleton of each unit, with addresses, ranges and the line table; the rest is in a
//! `.dwo` file of its own, or in a package of all of them (`.dwp`).

use std::cell::OnceCell;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use gimli::{Dwarf, DwarfPackage, DwoId, EndianSlice, LittleEndian, SectionId};

use super::units::Slice;
use crate::debuginfo::image::Image;

/// Where the other parts of units are.
pub(super) struct Split<'a> {
    image: &'a Image,
    package: Option<DwarfPackage<Slice<'a>>>,
    /// The first file that a unit needs and that is not there, or is of another build.
    missing: OnceCell<PathBuf>,
}

impl<'a> Split<'a> {
    pub(super) fn open(image: &'a Image) -> Self {
        let package = image.package().and_then(|package| {
            let load = |id: SectionId| Ok::<_, gimli::Error>(slice(package.dwo_section(id)));
            DwarfPackage::load(load, slice(&[])).ok()
        });
        Self { image, package, missing: OnceCell::new() }
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
    ) -> Option<(Rc<Dwarf<Slice<'a>>>, gimli::Unit<Slice<'a>>)> {
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
    ) -> Option<(Rc<Dwarf<Slice<'a>>>, gimli::Unit<Slice<'a>>)> {
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
                return Some((Rc::new(dwarf), unit));
            }
        }
        None
    }
}

/// The `.dwo` files that the units of `image` name.
pub(in crate::debuginfo) fn object_files(image: &Image) -> Vec<PathBuf> {
    let load = |id: SectionId| Ok::<_, gimli::Error>(slice(image.section(id)));
    let Ok(dwarf) = Dwarf::load(load) else { return Vec::new() };
    let mut files = Vec::new();
    let mut headers = dwarf.units();
    while let Ok(Some(header)) = headers.next() {
        let Ok(unit) = dwarf.unit(header) else { continue };
        // A program is split as a whole or not at all, but for the standard library, which comes first or
        // last and is a few hundred units.
        files.extend(unit.dwo_id.and_then(|_| object_file(&dwarf, &unit)));
    }
    files
}

fn object_file(dwarf: &Dwarf<Slice<'_>>, skeleton: &gimli::Unit<Slice<'_>>) -> Option<PathBuf> {
    let name = dwarf.attr_string(skeleton, skeleton.dwo_name().ok()??).ok()?;
    let name = String::from_utf8_lossy(name.slice()).into_owned();
    let directory = skeleton.comp_dir.map(|dir| String::from_utf8_lossy(dir.slice()).into_owned());
    Some(PathBuf::from(directory.unwrap_or_default()).join(name))
}

fn slice(bytes: &[u8]) -> Slice<'_> {
    EndianSlice::new(bytes, LittleEndian)
}
