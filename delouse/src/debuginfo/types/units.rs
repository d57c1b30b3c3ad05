//! The units of a file: found by address or section offset, loaded when asked for.

use std::collections::{HashMap, HashSet};
use std::ops::Deref;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock};

use gimli::{
    AttributeValue, Dwarf, EndianSlice, LittleEndian, Section as _, SectionId, UnitHeader, constants as dw,
};

use super::content::Content;
use super::dwo::Slice;
use super::index::Index;
use super::model::{Source, TypeId};
use super::split::Split;
#[cfg(test)]
use super::work::Work;
use crate::debuginfo::address::FileAddress;
use crate::debuginfo::entries::{Entries, Lines, Program, Row, Value, aranges, bytes};
use crate::debuginfo::image::Image;
use crate::debuginfo::lock::lock;
use crate::debuginfo::paths::{self, Origin};
use crate::host::memory_budget;
use crate::host::search;

/// More units than any binary has: a broken section must not make us allocate without end.
const MAX_UNITS: usize = 1 << 18;

/// All units of one file.
pub(super) struct Units<'a> {
    image: &'a Image,
    dwarf: Arc<Dwarf<Slice<'a>>>,
    split: Split<'a>,
    headers: Vec<UnitHeader<Slice<'a>>>,
    loaded: Vec<OnceLock<Option<Arc<Unit<'a>>>>>,
    /// Address ranges, sorted by start.
    ranges: Vec<Range>,
    /// Of each unit, the file that its crate begins with.
    roots: OnceLock<Vec<Option<Box<[u8]>>>>,
}

struct Range {
    start: FileAddress,
    end: FileAddress,
    unit: u32,
}

/// One unit.
pub(super) struct Unit<'a> {
    content: Content<'a>,
    /// What the program itself has of a split unit.
    skeleton: Option<(Arc<Dwarf<Slice<'a>>>, gimli::Unit<Slice<'a>>)>,
    image: &'a Image,
    index: OnceLock<Index>,
    lines: OnceLock<Option<Lines<'a>>>,
    files: Mutex<HashMap<u64, Option<File>>>,
}

/// A source file.
#[derive(Clone)]
struct File {
    /// Absolute, where the unit has its directory.
    path: Arc<str>,
    /// As people know it.
    shown: Arc<str>,
    origin: Origin,
}

impl<'a> Units<'a> {
    pub(super) fn open(image: &'a Image) -> Self {
        let load = |id: SectionId| Ok::<_, gimli::Error>(EndianSlice::new(image.section(id), LittleEndian));
        let dwarf = Dwarf::load(load).unwrap_or_default();
        let mut headers = Vec::new();
        let mut iter = dwarf.units();
        while let Ok(Some(header)) = iter.next() {
            headers.push(header);
            if headers.len() == MAX_UNITS {
                break;
            }
        }
        let loaded = headers.iter().map(|_| OnceLock::new()).collect();
        let mut units = Self {
            image,
            dwarf: Arc::new(dwarf),
            split: Split::open(image),
            headers,
            loaded,
            ranges: Vec::new(),
            roots: OnceLock::new(),
        };
        units.ranges = units.address_ranges();
        units
    }

    /// The unit with that number.
    pub(super) fn unit(&self, number: u32) -> Option<Arc<Unit<'a>>> {
        let cell = self.loaded.get(number as usize)?;
        cell.get_or_init(|| {
            let header = *self.headers.get(number as usize)?;
            let skeleton = self.dwarf.unit(header).ok()?;
            let (dwarf, unit, skeleton) = match self.split.rest(&self.dwarf, &skeleton) {
                Some((dwarf, unit)) => (dwarf, unit, Some(skeleton)),
                None => (self.dwarf.clone(), skeleton, None),
            };
            Some(Arc::new(Unit {
                content: Content::new(dwarf, unit),
                skeleton: skeleton.map(|skeleton| (self.dwarf.clone(), skeleton)),
                image: self.image,
                index: OnceLock::new(),
                lines: OnceLock::new(),
                files: Mutex::default(),
            }))
        })
        .clone()
    }

    /// The size in bytes of a unit in `.debug_info`.
    pub(super) fn size(&self, number: u32) -> usize {
        self.headers.get(number as usize).map_or(0, |header| header.length_including_self())
    }

    /// The first type in a unit whose last segment has that name.
    pub(super) fn type_named(&self, number: u32, name: &[u8]) -> Option<u32> {
        let unit = self.unit(number)?;
        unit.index().type_named(&unit, name)
    }

    /// A file with types that a unit needs and that is not there.
    pub(super) fn missing(&self) -> Option<&Path> {
        self.split.missing()
    }

    /// The units that have an index by now.
    pub(super) fn indexed(&self) -> Vec<u32> {
        let has_index = |cell: &OnceLock<Option<Arc<Unit<'a>>>>| {
            cell.get().is_some_and(|unit| unit.as_ref().is_some_and(|unit| unit.index.get().is_some()))
        };
        (0..).zip(&self.loaded).filter(|(_, cell)| has_index(cell)).map(|(number, _)| number).collect()
    }

    /// What was read so far.
    #[cfg(test)]
    pub(super) fn work(&self) -> Work {
        let loaded = self.loaded.iter().filter_map(|cell| cell.get()?.as_ref());
        loaded.map(|unit| unit.work()).fold(Work::default(), |sum, work| sum + work)
    }

    /// The units that claim `address`: one, or none.
    pub(super) fn candidates(&self, address: FileAddress) -> Vec<u32> {
        let after = self.ranges.partition_point(|range| range.start <= address);
        let near = self.ranges.iter().take(after).rev().take(4);
        near.filter(|range| address < range.end).map(|range| range.unit).collect()
    }

    /// What a reference in `unit` leads to.
    pub(super) fn resolve(&self, unit: u32, value: Value<'_>) -> Option<TypeId> {
        match value {
            Value::UnitRef(offset) => Some(TypeId { unit, offset: u32::try_from(offset).ok()? }),
            Value::InfoRef(offset) => self.at(usize::try_from(offset).ok()?),
            _ => None,
        }
    }

    /// The unit that has what is at `offset` in `.debug_info`, and the offset in that unit.
    fn at(&self, offset: usize) -> Option<TypeId> {
        let start = |header: &UnitHeader<Slice<'a>>| header.debug_info_offset().map_or(0, |o| o.0);
        let after = self.headers.partition_point(|header| start(header) <= offset);
        let number = after.checked_sub(1)?;
        let within = offset - start(self.headers.get(number)?);
        Some(TypeId { unit: u32::try_from(number).ok()?, offset: u32::try_from(within).ok()? })
    }

    /// The crates that lie in cargo's own directories. One that has only generic functions has no unit of its
    /// own, so the directories of all line tables are looked at.
    pub(super) fn dependencies(&self) -> HashSet<String> {
        let lines = [self.dwarf.debug_line.reader().slice(), self.dwarf.debug_line_str.reader().slice()];
        let mut crates = HashSet::new();
        let mut last: &[u8] = &[];
        for (section, mark) in lines.into_iter().flat_map(|lines| MARKS.map(|mark| (lines, mark))) {
            for at in search::each(section, mark.as_bytes()) {
                let path = section.get(at..).map(bytes::until_zero).unwrap_or_default();
                // The directories of one crate follow each other in a table.
                let package =
                    path.splitn(6, |byte| *byte == b'/').take(5).map(<[u8]>::len).sum::<usize>() + 4;
                let start = path.get(..package.min(path.len())).unwrap_or_default();
                if start != last {
                    last = start;
                    crates.extend(dependency(&String::from_utf8_lossy(path)));
                }
            }
        }
        crates
    }

    /// The units of the same crate as that one, itself included. The first call reads the head of every unit.
    pub(super) fn alike(&self, number: u32) -> Vec<u32> {
        let roots = self.roots.get_or_init(|| self.headers.iter().map(|header| self.root(header)).collect());
        let Some(Some(root)) = roots.get(number as usize) else { return vec![number] };
        (0..).zip(roots).filter(|(_, of)| of.as_ref() == Some(root)).map(|(number, _)| number).collect()
    }

    /// rustc calls a unit `src/main.rs/@/app.0123456789abcdef-cgu.07`.
    fn root(&self, header: &UnitHeader<Slice<'a>>) -> Option<Box<[u8]>> {
        let (name, directory) = self.head(header)?;
        let end = search::find(name, b"/@/")?;
        Some([directory, b"/", name.get(..end)?].concat().into())
    }

    /// The name of a unit and the directory that it was compiled in.
    fn head(&self, header: &UnitHeader<Slice<'a>>) -> Option<(&'a [u8], &'a [u8])> {
        let [info, abbreviations] = [self.dwarf.debug_info.reader(), self.dwarf.debug_abbrev.reader()];
        let entries = Entries::head(header, info.slice(), abbreviations.slice())?;
        let root = entries.root()?;
        let text = |value| match value {
            Value::Text(text) => Some(text),
            Value::Str(at) => self.dwarf.debug_str.reader().slice().get(at as usize..).map(bytes::until_zero),
            Value::LineStr(at) => {
                self.dwarf.debug_line_str.reader().slice().get(at as usize..).map(bytes::until_zero)
            }
            _ => None,
        };
        match (root.attr(dw::DW_AT_name).map(text), root.attr(dw::DW_AT_comp_dir).map(text)) {
            (None, _) => None,
            (Some(Some(name)), None) => Some((name, &[])),
            (Some(Some(name)), Some(Some(directory))) => Some((name, directory)),
            _ => {
                // By index, as in DWARF 5.
                let unit = self.dwarf.unit(*header).ok()?;
                let directory = unit.comp_dir.map(|directory| directory.slice()).unwrap_or_default();
                Some((unit.name?.slice(), directory))
            }
        }
    }

    /// The units of the program's own crates, and of path dependencies.
    pub(super) fn own(&self) -> Vec<u32> {
        let is_own = |header: &UnitHeader<Slice<'a>>| {
            let (name, directory) = self.head(header)?;
            let name = String::from_utf8_lossy(name);
            let path = match String::from_utf8_lossy(directory) {
                directory if !directory.is_empty() && !name.starts_with('/') => format!("{directory}/{name}"),
                _ => name.into_owned(),
            };
            (paths::shorten(&path, None).1 == Origin::Own).then_some(())
        };
        (0..).zip(&self.headers).filter(|(_, header)| is_own(header).is_some()).map(|(n, _)| n).collect()
    }

    /// From `.debug_aranges`; for units that it does not list, from the units' own ranges.
    fn address_ranges(&self) -> Vec<Range> {
        let mut ranges = Vec::new();
        let mut listed = vec![false; self.headers.len()];
        let mut sets = self.dwarf.debug_aranges.reader().slice();
        while let Some(set) = aranges::Set::next(&mut sets) {
            let Some(TypeId { unit, .. }) = self.at(set.unit) else { continue };
            if let Some(seen) = listed.get_mut(unit as usize) {
                *seen = true;
            }
            set.each(|start, end| {
                let [start, end] = [start, end].map(FileAddress::new);
                ranges.push(Range { start, end, unit });
            });
        }
        for (number, _) in listed.iter().enumerate().filter(|(_, listed)| !**listed) {
            let Some(unit) = self.headers.get(number).and_then(|header| self.dwarf.unit(*header).ok()) else {
                continue;
            };
            let Some(mut own) = self.own_ranges(&unit) else { continue };
            while let Ok(Some(range)) = own.next() {
                if range.begin != 0 && range.begin < range.end {
                    let [start, end] = [range.begin, range.end].map(FileAddress::new);
                    ranges.push(Range { start, end, unit: number as u32 });
                }
            }
        }
        // Stable, as that is quick where most are in order already.
        ranges.sort_by_key(|range| (range.start, range.end));
        ranges
    }

    /// What a unit says of its addresses. gimli adds its size to its first address without a look at whether that can be
    /// (0.34, `Dwarf::die_ranges`).
    fn own_ranges(&self, unit: &gimli::Unit<Slice<'a>>) -> Option<gimli::RangeIter<Slice<'a>>> {
        let mut entries = unit.entries();
        let root = entries.next_dfs().ok()??;
        let (mut first, mut size) = (0, 0);
        for attribute in root.attrs() {
            match (attribute.name(), attribute.value()) {
                (gimli::DW_AT_low_pc, value) => {
                    first = first.max(self.dwarf.attr_address(unit, value).ok()??);
                }
                (gimli::DW_AT_high_pc, AttributeValue::Udata(value)) => size = size.max(value),
                _ => {}
            }
        }
        first.checked_add(size)?;
        self.dwarf.die_ranges(unit, root).ok()
    }
}

impl<'a> Deref for Unit<'a> {
    type Target = Content<'a>;

    fn deref(&self) -> &Content<'a> {
        &self.content
    }
}

impl<'a> Unit<'a> {
    /// The index of this unit, made by one pass over it when first asked for; empty where that would take too much memory.
    pub(super) fn index(&self) -> &Index {
        self.index.get_or_init(|| match memory_budget::check_growth() {
            Ok(()) => Index::new(self),
            Err(shortage) => {
                self.image.note(shortage);
                Index::default()
            }
        })
    }

    #[cfg(test)]
    fn work(&self) -> Work {
        let lines = self.lines.get().and_then(|lines| lines.as_ref()).map_or(0, Lines::size);
        match self.index.get() {
            Some(index) => {
                let bytes = self.unit.header.length_including_self();
                Work { units: 1, bytes, entries: index.entries, lines }
            }
            None => Work { lines, ..Work::default() },
        }
    }

    /// A line of the file with that number.
    pub(super) fn source(&self, file: u64, line: u32) -> Option<Source> {
        let File { path, shown, .. } = self.known_file(file)?;
        Some(Source { file: path, shown, line })
    }

    /// The file with that number as people know it, and whose it is.
    pub(super) fn shown(&self, file: u64) -> Option<(Arc<str>, Origin)> {
        self.known_file(file).map(|file| (file.shown, file.origin))
    }

    fn known_file(&self, file: u64) -> Option<File> {
        lock(&self.files).entry(file).or_insert_with(|| self.file(file)).clone()
    }

    /// The row of the line table that the code at `address` belongs to.
    pub(super) fn row_at(&self, address: FileAddress) -> Option<Row> {
        let read = || {
            let unit = self.skeleton.as_ref().map_or(&self.unit, |(_, unit)| unit);
            let header = unit.line_program.as_ref()?.header();
            let program = Program {
                instructions: header.raw_program_buf().slice(),
                address_size: usize::from(header.address_size()),
                minimum_length: u64::from(header.minimum_instruction_length()),
                line_base: i64::from(header.line_base()),
                line_range: u64::from(header.line_range()),
                opcode_base: header.opcode_base(),
                arguments: header.standard_opcode_lengths().slice(),
            };
            Some(Lines::read(program))
        };
        self.lines.get_or_init(read).as_ref()?.find(address.get())
    }

    /// The line of source that the code at `address` belongs to.
    pub(super) fn source_at(&self, address: FileAddress) -> Option<Source> {
        let row = self.row_at(address).filter(|row| row.line != 0)?;
        self.source(row.file, u32::try_from(row.line).ok()?)
    }

    fn file(&self, number: u64) -> Option<File> {
        // The numbers of files are those of the program's own line table.
        let whole = (&self.dwarf, &self.unit);
        let (dwarf, unit) = self.skeleton.as_ref().map_or(whole, |(dwarf, unit)| (dwarf, unit));
        let text = |value| Some(dwarf.attr_string(unit, value).ok()?.slice());
        let header = unit.line_program.as_ref()?.header();
        let file = header.file(number)?;
        let mut path = String::new();
        if let Some(dir) = unit.comp_dir {
            append(&mut path, dir.slice());
        }
        let directory = path.clone();
        if let Some(dir) = file.directory(header).filter(|_| file.directory_index() != 0) {
            append(&mut path, text(dir)?);
        }
        append(&mut path, text(file.path_name())?);
        let (shown, origin) = paths::shorten(&path, Some(&directory));
        Some(File { path: path.into(), shown: shown.into(), origin })
    }
}

/// What is in the paths of cargo's own directories.
const MARKS: [&str; 2] = ["/registry/src/", "/git/checkouts/"];

/// The crate that a path of cargo's belongs to: `…/registry/src/INDEX/NAME-VERSION/…` or
/// `…/git/checkouts/NAME-HASH/…`.
fn dependency(path: &str) -> Option<String> {
    let [registry, git] = MARKS.map(|mark| path.split_once(mark));
    let registry = registry.and_then(|(_, rest)| rest.split('/').nth(1));
    let git = git.and_then(|(_, rest)| rest.split('/').next());
    let (package, _) = registry.or(git)?.rsplit_once('-')?;
    Some(package.replace('-', "_"))
}

/// Appends a path as a shell would `cd`: an absolute one replaces what stands before.
fn append(path: &mut String, part: &[u8]) {
    if part.starts_with(b"/") {
        path.clear();
    } else if !path.is_empty() && !path.ends_with('/') {
        path.push('/');
    }
    path.push_str(&String::from_utf8_lossy(part));
}
