//! The units of a file: found by address or section offset, loaded when asked for.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock};

use gimli::{AttributeValue, Dwarf, EndianSlice, LittleEndian, SectionId, UnitHeader, UnitOffset, UnitRef};

use super::dwo::{Entry, Slice};
use super::index::Index;
use super::model::{Source, TypeId};
use super::split::Split;
use crate::debuginfo::address::FileAddress;
use crate::debuginfo::image::Image;
use crate::debuginfo::lock::lock;
use crate::debuginfo::symbols;
use crate::host::memory_budget;

/// More units than any binary has: a broken section must not make us allocate without end.
const MAX_UNITS: usize = 1 << 18;
/// More rows than the line table of any unit has.
const MAX_ROWS: usize = 1 << 24;

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
    pub(super) dwarf: Arc<Dwarf<Slice<'a>>>,
    pub(super) unit: gimli::Unit<Slice<'a>>,
    /// What the program itself has of a split unit.
    skeleton: Option<(Arc<Dwarf<Slice<'a>>>, gimli::Unit<Slice<'a>>)>,
    image: &'a Image,
    index: OnceLock<Index<'a>>,
    files: Mutex<HashMap<u64, Option<File>>>,
}

/// A source file.
#[derive(Clone)]
struct File {
    /// Absolute, where the unit has its directory.
    path: Arc<str>,
    /// As people know it.
    shown: Arc<str>,
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
                dwarf,
                unit,
                skeleton: skeleton.map(|skeleton| (self.dwarf.clone(), skeleton)),
                image: self.image,
                index: OnceLock::new(),
                files: Mutex::default(),
            }))
        })
        .clone()
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

    /// The units that claim `address`: one, or none.
    pub(super) fn candidates(&self, address: FileAddress) -> Vec<u32> {
        let after = self.ranges.partition_point(|range| range.start <= address);
        let near = self.ranges.iter().take(after).rev().take(4);
        near.filter(|range| address < range.end).map(|range| range.unit).collect()
    }

    /// What a reference in `unit` leads to.
    pub(super) fn resolve(&self, unit: u32, value: &AttributeValue<Slice<'a>>) -> Option<TypeId> {
        match value {
            AttributeValue::UnitRef(offset) => Some(TypeId { unit, offset: u32::try_from(offset.0).ok()? }),
            AttributeValue::DebugInfoRef(offset) => {
                let start = |header: &UnitHeader<Slice<'a>>| header.debug_info_offset().map_or(0, |o| o.0);
                let after = self.headers.partition_point(|header| start(header) <= offset.0);
                let number = after.checked_sub(1)?;
                let within = offset.0 - start(self.headers.get(number)?);
                Some(TypeId { unit: u32::try_from(number).ok()?, offset: u32::try_from(within).ok()? })
            }
            _ => None,
        }
    }

    /// The crates that lie in cargo's own directories. One that has only generic functions has no unit of its
    /// own, so the directories of all line tables are looked at.
    pub(super) fn dependencies(&self) -> HashSet<String> {
        let mut crates = HashSet::new();
        for header in &self.headers {
            // Not kept: most of these units are of no further interest.
            let Ok(unit) = self.dwarf.unit(*header) else { continue };
            let Some(program) = unit.line_program.as_ref() else { continue };
            for directory in program.header().include_directories() {
                if let Ok(path) = self.dwarf.attr_string(&unit, *directory) {
                    crates.extend(dependency(&String::from_utf8_lossy(path.slice())));
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
        let unit = self.dwarf.unit(*header).ok()?;
        let name = unit.name?.slice();
        let end = memchr::memmem::find(name, b"/@/")?;
        let directory = unit.comp_dir.map(|directory| directory.slice()).unwrap_or_default();
        Some([directory, b"/", name.get(..end)?].concat().into())
    }

    /// The units of the program's own crates, and of path dependencies.
    pub(super) fn own(&self) -> Vec<u32> {
        let is_own = |header: &UnitHeader<Slice<'a>>| {
            let unit = self.dwarf.unit(*header).ok()?;
            let name = String::from_utf8_lossy(unit.name?.slice());
            let directory = unit.comp_dir.map(|directory| String::from_utf8_lossy(directory.slice()));
            let path = match directory {
                Some(directory) if !name.starts_with('/') => format!("{directory}/{name}"),
                _ => name.into_owned(),
            };
            (symbols::shorten(&path, None).1 == symbols::Origin::Own).then_some(())
        };
        (0..).zip(&self.headers).filter(|(_, header)| is_own(header).is_some()).map(|(n, _)| n).collect()
    }

    /// From `.debug_aranges`; for units that it does not list, from the units' own ranges.
    fn address_ranges(&self) -> Vec<Range> {
        let mut ranges = Vec::new();
        let mut listed = vec![false; self.headers.len()];
        let aranges = self.dwarf.debug_aranges;
        let mut headers = aranges.headers();
        while let Ok(Some(header)) = headers.next() {
            let at = AttributeValue::DebugInfoRef(header.debug_info_offset());
            let Some(TypeId { unit, .. }) = self.resolve(0, &at) else { continue };
            if let Some(seen) = listed.get_mut(unit as usize) {
                *seen = true;
            }
            let mut entries = header.entries();
            while let Ok(Some(entry)) = entries.next() {
                let start = FileAddress::new(entry.address());
                ranges.push(Range { start, end: start.saturating_add(entry.length()), unit });
            }
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
        ranges.sort_unstable_by_key(|range| (range.start, range.end));
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

impl<'a> Unit<'a> {
    /// The index of this unit, made by one pass over it when first asked for; empty where that would take too much memory.
    pub(super) fn index(&self) -> &Index<'a> {
        self.index.get_or_init(|| match memory_budget::check_growth() {
            Ok(()) => Index::new(UnitRef::new(&self.dwarf, &self.unit)),
            Err(shortage) => {
                self.image.note(shortage);
                Index::default()
            }
        })
    }

    /// The entry at `offset`.
    pub(super) fn entry(&self, offset: u32) -> Option<Entry<'a>> {
        self.unit.entry(UnitOffset(offset as usize)).ok()
    }

    /// The bytes of a string attribute.
    pub(super) fn string(&self, value: AttributeValue<Slice<'a>>) -> Option<&'a [u8]> {
        Some(self.dwarf.attr_string(&self.unit, value).ok()?.slice())
    }

    /// A line of the file with that number.
    pub(super) fn source(&self, file: u64, line: u32) -> Option<Source> {
        let mut files = lock(&self.files);
        let File { path, shown } = files.entry(file).or_insert_with(|| self.file(file)).clone()?;
        Some(Source { file: path, shown, line })
    }

    /// The line of source that the code at `address` belongs to.
    pub(super) fn source_at(&self, address: FileAddress) -> Option<Source> {
        let unit = self.skeleton.as_ref().map_or(&self.unit, |(_, unit)| unit);
        let mut rows = unit.line_program.clone()?.rows();
        let mut before = None;
        for _ in 0..MAX_ROWS {
            let Ok(Some((_, row))) = rows.next_row() else { break };
            let starts_at = FileAddress::new(row.address());
            if starts_at > address
                && let Some((file, line)) = before
            {
                return self.source(file, line);
            }
            let line = row.line().and_then(|line| u32::try_from(line.get()).ok());
            let starts = starts_at <= address && !row.end_sequence();
            before = line.filter(|_| starts).map(|line| (row.file_index(), line));
        }
        None
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
        let shown = symbols::shorten(&path, Some(&directory)).0;
        Some(File { path: path.into(), shown: shown.into() })
    }
}

/// The crate that a path of cargo's belongs to: `…/registry/src/INDEX/NAME-VERSION/…` or
/// `…/git/checkouts/NAME-HASH/…`.
fn dependency(path: &str) -> Option<String> {
    let registry = path.split_once("/registry/src/").and_then(|(_, rest)| rest.split('/').nth(1));
    let git = path.split_once("/git/checkouts/").and_then(|(_, rest)| rest.split('/').next());
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
