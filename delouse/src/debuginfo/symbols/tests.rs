//! Our own reader of lines against addr2line.

use addr2line::LookupResult;
use gimli::{EndianSlice, LittleEndian};

use super::dwarf::Dwarf;
use super::table::SymbolTable;
use crate::debuginfo::address::FileAddress;
use crate::debuginfo::image::Image;
use crate::debuginfo::object_file::ObjectFile;
use crate::debuginfo::paths::shorten;
use crate::host::file_parts::Access;

/// A function, its file as people know it, and the line.
type Frame = (Option<String>, Option<String>, Option<u32>);

#[test]
fn functions_and_lines_are_those_of_addr2line() {
    let path = std::env::current_exe().unwrap();
    let object = ObjectFile::open(&path, Access::Map).unwrap();
    let image = Image::open(&path).unwrap();
    let load = |id| Ok::<_, gimli::Error>(EndianSlice::new(image.section(id), LittleEndian));
    let expected = addr2line::Context::from_dwarf(gimli::Dwarf::load(load).unwrap()).unwrap();
    let dwarf = Dwarf::of(&object, &path).unwrap();

    let functions = SymbolTable::of(&object, ".symtab");
    let (mut compared, mut inlined, mut searched) = (0, 0, 0);
    // From all parts of the program, but few units, as each one is read twice.
    for (start, size) in functions.ranges().step_by(functions.ranges().count() / 30) {
        searched += 1;
        for offset in [0, 1, size / 3, size / 2, size - 1] {
            let address = start.get() + offset;
            let expected = frames(&expected, address);
            let found: Vec<Frame> = dwarf
                .find(FileAddress::new(address))
                .into_iter()
                .map(|line| (line.symbol, line.file.map(|(file, _)| file.to_string()), line.line))
                .collect();
            assert_eq!(found, expected, "{address:#x}");
            compared += expected.len();
            inlined += expected.len().saturating_sub(1);
        }
    }
    // Counted, as times depend on the machine: no unit is read but those of the functions.
    let work = dwarf.work();
    assert!((1..=searched).contains(&work.units), "{work:?} for {searched} functions");
    assert!(compared > 100, "{compared} functions, {inlined} of them inlined");
}

fn frames(context: &addr2line::Context<EndianSlice<'_, LittleEndian>>, address: u64) -> Vec<Frame> {
    let LookupResult::Output(Ok(mut frames)) = context.find_frames(address) else { panic!("split units") };
    let LookupResult::Output(unit) = context.find_dwarf_and_unit(address) else { panic!("split units") };
    let directory = unit.and_then(|unit| unit.comp_dir).map(|dir| dir.to_string_lossy().into_owned());
    let mut found = Vec::new();
    while let Some(frame) = frames.next().unwrap() {
        let place = frame.location;
        let file = place.as_ref().and_then(|place| place.file);
        found.push((
            frame.function.and_then(|name| Some(name.raw_name().ok()?.into_owned())),
            file.map(|file| shorten(file, directory.as_deref()).0),
            place.and_then(|place| place.line).filter(|line| *line != 0),
        ));
    }
    found
}
