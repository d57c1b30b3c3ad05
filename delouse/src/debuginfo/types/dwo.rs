//! The names of `.dwo` files, which units have that are split off.

use std::path::PathBuf;

use gimli::{Dwarf, EndianSlice, LittleEndian, SectionId, constants as dw};

use crate::debuginfo::entries::Entries;

pub(super) type Slice<'a> = EndianSlice<'a, LittleEndian>;

/// The `.dwo` files that the units name whose sections `section` returns.
pub(in crate::debuginfo) fn object_files<'a>(section: impl Fn(SectionId) -> &'a [u8]) -> Vec<PathBuf> {
    let load = |id: SectionId| Ok::<_, gimli::Error>(slice(section(id)));
    let Ok(dwarf) = Dwarf::load(load) else { return Vec::new() };
    let mut files = Vec::new();
    let mut headers = dwarf.units();
    while let Ok(Some(header)) = headers.next() {
        let head = Entries::head(&header, section(SectionId::DebugInfo), section(SectionId::DebugAbbrev));
        let names = [dw::DW_AT_dwo_name, dw::DW_AT_GNU_dwo_name];
        let is_split =
            |head: Entries<'_>| head.root().is_some_and(|root| names.iter().any(|name| root.has(*name)));
        if !head.is_some_and(is_split) {
            continue;
        }
        let Ok(unit) = dwarf.unit(header) else { continue };
        // A program is split as a whole or not at all, but for the standard library, which comes first or
        // last and is a few hundred units.
        files.extend(unit.dwo_id.and_then(|_| object_file(&dwarf, &unit)));
    }
    files
}

/// The `.dwo` file that a unit names.
pub(super) fn object_file(dwarf: &Dwarf<Slice<'_>>, skeleton: &gimli::Unit<Slice<'_>>) -> Option<PathBuf> {
    let name = dwarf.attr_string(skeleton, skeleton.dwo_name().ok()??).ok()?;
    let name = String::from_utf8_lossy(name.slice()).into_owned();
    let directory = skeleton.comp_dir.map(|dir| String::from_utf8_lossy(dir.slice()).into_owned());
    Some(PathBuf::from(directory.unwrap_or_default()).join(name))
}

pub(super) fn slice(bytes: &[u8]) -> Slice<'_> {
    EndianSlice::new(bytes, LittleEndian)
}
