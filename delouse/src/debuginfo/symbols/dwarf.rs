//! Lines and inlined functions of an address, from DWARF, split DWARF included.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use addr2line::{LookupContinuation, LookupResult, SplitDwarfLoad};
use gimli::{AbbreviationsCacheStrategy, EndianReader, LittleEndian, SectionId};

use super::paths::{self, Origin};
use crate::debuginfo::address::FileAddress;
use crate::debuginfo::object_file::ObjectFile;
use crate::debuginfo::separate;
use crate::host::file_parts::Access;
use crate::host::memory_budget::{self, Amount};
use crate::host::shared_bytes::SharedBytes;

/// Inlined calls at one address; compilers stop long before.
const MAX_INLINED: usize = 128;
/// Split units that one address may ask for.
const MAX_LOADS: usize = 16;

type Reader = EndianReader<LittleEndian, SharedBytes>;

/// One function at an address, innermost first where several are inlined into each other.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Line {
    /// As the compiler mangled it; `None` where DWARF has lines only.
    pub(super) symbol: Option<String>,
    /// See [`paths::shorten`].
    pub(super) file: Option<(String, Origin)>,
    /// 1-based.
    pub(super) line: Option<u32>,
}

/// The debug information of one file.
pub(super) struct Dwarf {
    context: addr2line::Context<Reader>,
    split: Split,
}

impl Dwarf {
    /// Reads the list of units, less than 1 ms per MB of `.debug_info`; `None` where there is none.
    /// `file` is where the executable lies, with its `.dwp` beside it.
    pub(super) fn of(object: &ObjectFile, file: &Path) -> Option<Self> {
        object.section_addresses(".debug_line")?;
        let mut dwarf = gimli::Dwarf::load(|id| Ok::<_, gimli::Error>(section(object, id.name()))).ok()?;
        // The list of units takes about as much as `.debug_info`, in a dev build of many small units. Without all of its
        // sections it is of no use.
        let units = gimli::Reader::len(gimli::Section::reader(&dwarf.debug_info)) as u64;
        match (object.shortage(), memory_budget::check(Amount::filled(units))) {
            (None, Ok(())) => {}
            (None, Err(shortage)) => {
                object.note(shortage);
                return None;
            }
            (Some(_), _) => return None,
        }
        // The units of one object file share their abbreviations, which else each of them has again: three quarters of the
        // time and of the memory.
        dwarf.populate_abbreviations_cache(AbbreviationsCacheStrategy::Duplicates);
        let context = addr2line::Context::from_dwarf(dwarf).ok()?;
        Some(Self { context, split: Split { file: file.to_owned(), package: None } })
    }

    /// The functions at `address`, innermost first; empty where nothing is known.
    pub(super) fn find(&mut self, address: FileAddress) -> Vec<Line> {
        let address = address.get();
        let frames = self.split.complete(self.context.find_frames(address));
        let Some(Ok(mut frames)) = frames else { return Vec::new() };
        let unit = self.split.complete(self.context.find_dwarf_and_unit(address)).flatten();
        let directory = unit.and_then(|u| u.comp_dir.as_ref()).and_then(text);
        let mut lines = Vec::new();
        while let Ok(Some(frame)) = frames.next() {
            if lines.len() >= MAX_INLINED {
                break;
            }
            let location = frame.location.as_ref();
            lines.push(Line {
                symbol: frame.function.and_then(|f| f.raw_name().ok().map(std::borrow::Cow::into_owned)),
                file: location.and_then(|l| l.file).map(|f| paths::shorten(f, directory.as_deref())),
                line: location.and_then(|l| l.line).filter(|&line| line != 0),
            });
        }
        lines
    }
}

/// The DWARF that is not in the file itself: a `.dwp` beside it, or `.dwo` files where the compiler left
/// them.
struct Split {
    file: PathBuf,
    /// Outer `None`: not yet looked for.
    package: Option<Option<gimli::DwarfPackage<Reader>>>,
}

impl Split {
    fn complete<L: LookupContinuation<Buf = Reader>>(
        &mut self,
        mut lookup: LookupResult<L>,
    ) -> Option<L::Output> {
        for _ in 0..MAX_LOADS {
            match lookup {
                LookupResult::Output(output) => return Some(output),
                LookupResult::Load { load, continuation } => lookup = continuation.resume(self.load(&load)),
            }
        }
        None
    }

    fn load(&mut self, load: &SplitDwarfLoad<Reader>) -> Option<Arc<gimli::Dwarf<Reader>>> {
        let package = self.package.get_or_insert_with(|| {
            let path = separate::dwp_path(&self.file);
            let object = ObjectFile::open(&path, Access::Read)?;
            let load =
                |id: SectionId| Ok::<_, gimli::Error>(section(&object, id.dwo_name().unwrap_or_default()));
            gimli::DwarfPackage::load(load, reader(SharedBytes::default())).ok()
        });
        if let Some(dwarf) =
            package.as_ref().and_then(|p| p.find_cu(load.dwo_id, &load.parent).ok().flatten())
        {
            return Some(Arc::new(dwarf));
        }
        let path = PathBuf::from(load.comp_dir.as_ref().and_then(text).unwrap_or_default())
            .join(load.path.as_ref().and_then(text)?);
        let object = ObjectFile::open(&path, Access::Read)?;
        let load_section =
            |id: SectionId| Ok::<_, gimli::Error>(section(&object, id.dwo_name().unwrap_or_default()));
        let mut dwarf = gimli::Dwarf::load(load_section).ok()?;
        dwarf.make_dwo(&load.parent);
        // A later build may have written another file to the same place.
        let header = dwarf.units().next().ok().flatten()?;
        let unit = dwarf.unit(header).ok()?;
        (unit.dwo_id == Some(load.dwo_id)).then(|| Arc::new(dwarf))
    }
}

fn section(object: &ObjectFile, name: &str) -> Reader {
    reader(object.section_bytes(name).unwrap_or_default())
}

fn reader(bytes: SharedBytes) -> Reader {
    EndianReader::new(bytes, LittleEndian)
}

fn text(reader: &Reader) -> Option<String> {
    gimli::Reader::to_string_lossy(reader).ok().map(std::borrow::Cow::into_owned)
}
