//! How much each compilation unit tells, from its first entries.
//!
//! What rustc writes at each level (rustc 1.95 and before, read from its output): `line-tables-only` gives
//! functions without namespaces; `limited` adds namespaces and linkage names; `full` adds types, parameters and
//! variables. The prebuilt std is `limited` whatever the profile says, so its units are told apart by their
//! path. With LTO all units share one table of abbreviations, so the table is an upper bound only and the
//! entries themselves decide.

use std::io;
use std::rc::Rc;

use gimli::{
    Abbreviations, AttributeValue, DebugAbbrev, DebugInfo, EndianSlice, Reader as _, RunTimeEndian, UnitType,
    constants as dw,
};

use super::contents::Contents;
use super::image::Image;
use super::model::DebugLevel;

type Slice<'b> = EndianSlice<'b, RunTimeEndian>;
/// What is wrong with a unit.
type Problem = Box<dyn std::error::Error>;

/// Windows into a unit: most are decided within the first.
const WINDOWS: [u64; 2] = [4 << 10, 64 << 10];
/// Windows into a table of abbreviations, whose size is nowhere written.
const ABBREVIATION_WINDOWS: [u64; 3] = [4 << 10, 64 << 10, 1 << 20];
/// The longest name that is read.
const MAX_NAME: u64 = 1024;

/// What one compilation unit says about itself.
#[derive(Debug, Default)]
pub(crate) struct Unit {
    pub(crate) level: Option<DebugLevel>,
    pub(crate) version: u16,
    pub(crate) rust: bool,
    pub(crate) name: String,
    pub(crate) directory: String,
    /// File name and id of the split unit that this skeleton stands for.
    pub(crate) split: Option<(String, u64)>,
    /// Id of a split unit.
    pub(crate) id: Option<u64>,
}

impl Unit {
    /// Whether it belongs to std or to a crate that std was built with, not to the program.
    pub(crate) fn is_std(&self) -> bool {
        let place = |path: &str| {
            path.starts_with("/rustc/") || path.starts_with("/rust/deps/") || path.contains("/rustc-")
        };
        let library = self.name.rsplit_once("/library/").is_some_and(|(_, rest)| {
            ["std/", "core/", "alloc/", "test/", "proc_macro/", "panic_", "compiler-builtins/", "unwind/"]
                .iter()
                .any(|name| rest.starts_with(name))
        });
        place(&self.name) || place(&self.directory) || library
    }

    /// The crate: rustc names a unit `path/lib.rs/@/crate.hash-cgu.0`; incremental builds leave the crate out.
    pub(crate) fn crate_name(&self) -> String {
        match self.name.rsplit_once("/@/") {
            Some((_, unit)) if unit.contains("-cgu.") => {
                unit.split('.').next().unwrap_or_default().to_owned()
            }
            Some((path, _)) => path.to_owned(),
            None => self.name.clone(),
        }
    }
}

/// Reads units of `.debug_info` or `.debug_info.dwo`, in any order.
pub(crate) struct UnitReader<'f> {
    info: Contents<'f>,
    abbreviations: Contents<'f>,
    strings: Option<Contents<'f>>,
    line_strings: Option<Contents<'f>>,
    string_offsets: Option<Contents<'f>>,
    /// Whether these are split units: they repeat the attributes of their skeleton.
    split: bool,
    endian: RunTimeEndian,
    /// The last table of abbreviations, by its offset, with the most it can express.
    table: Option<(u64, Rc<Abbreviations>, DebugLevel)>,
    buf: Vec<u8>,
}

/// Why a unit could not be read.
#[derive(Debug)]
pub(crate) enum UnitError {
    /// Nothing after it can be found either.
    End(String),
    /// Only this unit is damaged; the next starts at the offset.
    Skip(u64, String),
}

impl<'f> UnitReader<'f> {
    /// Opens the sections whose names end with `suffix` (nothing, or `.dwo`); `None` where there are none.
    pub(crate) fn open(image: &'f Image, suffix: &str) -> Option<io::Result<UnitReader<'f>>> {
        let open = |name: &str| Some(Contents::open(image, image.section(&format!("{name}{suffix}"))?));
        let info = open(".debug_info")?;
        let abbreviations = open(".debug_abbrev").unwrap_or_else(|| {
            Err(io::Error::new(io::ErrorKind::InvalidData, "the table of abbreviations is missing"))
        });
        let optional = |name| open(name).and_then(Result::ok);
        Some(info.and_then(|info| {
            Ok(UnitReader {
                info,
                abbreviations: abbreviations?,
                strings: optional(".debug_str"),
                line_strings: optional(".debug_line_str"),
                string_offsets: optional(".debug_str_offsets"),
                split: suffix == ".dwo",
                endian: match image.endian {
                    object::Endianness::Little => RunTimeEndian::Little,
                    object::Endianness::Big => RunTimeEndian::Big,
                },
                table: None,
                buf: Vec::new(),
            })
        }))
    }

    /// Bytes of units that can be had.
    pub(crate) fn len(&self) -> u64 {
        self.info.len()
    }

    /// Whether there are more units than can be had.
    pub(crate) fn is_cut(&self) -> bool {
        self.info.is_cut()
    }

    /// Reads the unit at `offset`, whose abbreviations count from `abbreviations` on, and tells where the
    /// next one starts.
    pub(crate) fn unit(&mut self, offset: u64, abbreviations: u64) -> Result<(Unit, u64), UnitError> {
        let mut unit = Unit::default();
        let mut next = u64::MAX;
        for window in WINDOWS {
            let mut buf = std::mem::take(&mut self.buf);
            let bytes = self.info.window(offset..offset.saturating_add(window), &mut buf);
            let mut bytes = bytes.map_err(|e| UnitError::End(e.to_string()))?.to_vec();
            self.buf = buf;
            let whole;
            (next, whole) = clip(&mut bytes, offset, self.endian)?;
            let decided = self
                .first_entries(&bytes, abbreviations, &mut unit)
                .map_err(|problem| UnitError::Skip(next, problem.to_string()))?;
            if decided || whole {
                break;
            }
        }
        Ok((unit, next))
    }

    /// Reads what the window holds; tells whether a larger one could not change the level.
    fn first_entries(&mut self, bytes: &[u8], base: u64, unit: &mut Unit) -> Result<bool, Problem> {
        let header = DebugInfo::new(bytes, self.endian).units().next()?.ok_or("no unit")?;
        unit.version = header.version();
        match header.type_() {
            UnitType::Compilation | UnitType::Partial => {}
            UnitType::Skeleton(id) => unit.split = Some((String::new(), id.0)),
            UnitType::SplitCompilation(id) => unit.id = Some(id.0),
            UnitType::Type { .. } | UnitType::SplitType { .. } => return Ok(true),
        }
        let (abbreviations, most) = self.table(base.saturating_add(header.debug_abbrev_offset().0 as u64))?;
        let mut entries = header.entries_raw(&abbreviations, None)?;
        let root = entries.read_abbreviation()?.ok_or("no root entry")?;
        let mut texts = Texts::default();
        for spec in root.attributes() {
            let attribute = entries.read_attribute(*spec)?;
            match (attribute.name(), attribute.value()) {
                (dw::DW_AT_name, value) => texts.name = Some(value),
                (dw::DW_AT_comp_dir, value) => texts.directory = Some(value),
                (dw::DW_AT_dwo_name | dw::DW_AT_GNU_dwo_name, value) => texts.split = Some(value),
                (dw::DW_AT_language, AttributeValue::Language(language)) => {
                    unit.rust = language == dw::DW_LANG_Rust;
                }
                (_, AttributeValue::DwoId(id)) => unit.id = Some(id.0),
                (_, AttributeValue::DebugStrOffsetsBase(base)) => texts.base = Some(base.0 as u64),
                _ => {}
            }
        }
        let wide = header.format() == gimli::Format::Dwarf64;
        unit.name = self.text(texts.name, texts.base, wide);
        unit.directory = self.text(texts.directory, texts.base, wide);
        if let Some(name) = texts.split.filter(|_| !self.split) {
            let id = unit.split.as_ref().map(|(_, id)| *id).or(unit.id.take()).unwrap_or(0);
            unit.split = Some((self.text(Some(name), texts.base, wide), id));
        }
        let mut level = DebugLevel::LineTables;
        while level < most {
            // The window may end within an entry: what was seen until then counts.
            let Ok(abbreviation) = entries.read_abbreviation() else { break };
            let Some(abbreviation) = abbreviation else { continue };
            level = level.max(level_of(abbreviation.tag()));
            if entries.skip_attributes(abbreviation.attributes()).is_err() {
                break;
            }
        }
        unit.level = Some(level);
        Ok(level >= most || unit.split.is_some())
    }

    /// The table at `offset` and the most that it can express.
    fn table(&mut self, offset: u64) -> Result<(Rc<Abbreviations>, DebugLevel), Problem> {
        if self.table.as_ref().is_none_or(|(at, ..)| *at != offset) {
            let mut parsed = Err("no abbreviations".to_owned());
            for window in ABBREVIATION_WINDOWS {
                let mut buf = std::mem::take(&mut self.buf);
                let range = offset..offset.saturating_add(window);
                let bytes = self.abbreviations.window(range, &mut buf)?;
                let section = DebugAbbrev::new(bytes, self.endian);
                let table = section.abbreviations(gimli::DebugAbbrevOffset(0_usize));
                let all = (bytes.len() as u64) < window;
                parsed = table.map_err(|e| format!("abbreviations: {e}"));
                self.buf = buf;
                if parsed.is_ok() || all {
                    break;
                }
            }
            let table = parsed?;
            // Compilers number them from 1 without gaps.
            let tags = (1..).map_while(|code| table.get(code)).map(|a| level_of(a.tag()));
            let most = tags.max().unwrap_or(DebugLevel::Full);
            self.table = Some((offset, Rc::new(table), most));
        }
        match &self.table {
            Some((_, table, most)) => Ok((Rc::clone(table), *most)),
            None => Err("no abbreviations".into()),
        }
    }

    fn text(&self, value: Option<AttributeValue<Slice<'_>>>, base: Option<u64>, wide: bool) -> String {
        let (section, offset) = match value {
            Some(AttributeValue::String(text)) => {
                return String::from_utf8_lossy(text.slice().get(..1024).unwrap_or(text.slice()))
                    .into_owned();
            }
            Some(AttributeValue::DebugStrRef(at)) => (&self.strings, Some(at.0 as u64)),
            Some(AttributeValue::DebugLineStrRef(at)) => (&self.line_strings, Some(at.0 as u64)),
            Some(AttributeValue::DebugStrOffsetsIndex(index)) => {
                (&self.strings, self.string_offset(index.0 as u64, base, wide))
            }
            _ => return String::new(),
        };
        let (Some(section), Some(offset)) = (section, offset) else { return String::new() };
        let mut buf = Vec::new();
        let bytes = section.window(offset..offset.saturating_add(MAX_NAME), &mut buf).unwrap_or_default();
        let text = bytes.split(|&b| b == 0).next().unwrap_or_default();
        String::from_utf8_lossy(text).into_owned()
    }

    fn string_offset(&self, index: u64, base: Option<u64>, wide: bool) -> Option<u64> {
        let size = if wide { 8 } else { 4 };
        // Without a base the table starts after its header, which is as long as two entries.
        let at = base.unwrap_or(2 * size).checked_add(index.checked_mul(size)?)?;
        let mut buf = Vec::new();
        let bytes = self.string_offsets.as_ref()?.window(at..at.checked_add(size)?, &mut buf).ok()?;
        EndianSlice::new(bytes, self.endian).read_uint(usize::try_from(size).ok()?).ok()
    }
}

/// Attributes of the root entry that name something, to be looked up when all are read.
#[derive(Default)]
struct Texts<'b> {
    name: Option<AttributeValue<Slice<'b>>>,
    directory: Option<AttributeValue<Slice<'b>>>,
    split: Option<AttributeValue<Slice<'b>>>,
    base: Option<u64>,
}

/// Cuts `bytes` at the unit's end, or writes into its header that it ends with the window, so that a parser
/// takes the beginning for the whole. Returns the offset of the next unit, and whether this one is complete.
fn clip(bytes: &mut Vec<u8>, offset: u64, endian: RunTimeEndian) -> Result<(u64, bool), UnitError> {
    let damaged = || UnitError::End(format!("unit at {offset:#x}: its header is damaged or cut short"));
    let mut head = EndianSlice::new(bytes.as_slice(), endian);
    let (length, header) = match head.read_u32().map_err(|_| damaged())? {
        0xffff_ffff => (head.read_u64().map_err(|_| damaged())?, 12_usize),
        0xffff_fff0.. => return Err(damaged()),
        length => (u64::from(length), 4),
    };
    let size = length.checked_add(header as u64).ok_or_else(damaged)?;
    let next = offset.checked_add(size).ok_or_else(damaged)?;
    let held = usize::try_from(size).unwrap_or(usize::MAX).min(bytes.len());
    bytes.truncate(held);
    let clipped = held.saturating_sub(header) as u64;
    let field = match (header, endian) {
        (4, RunTimeEndian::Little) => (clipped as u32).to_le_bytes().to_vec(),
        (4, RunTimeEndian::Big) => (clipped as u32).to_be_bytes().to_vec(),
        (_, RunTimeEndian::Little) => clipped.to_le_bytes().to_vec(),
        (_, RunTimeEndian::Big) => clipped.to_be_bytes().to_vec(),
    };
    if let Some(place) = bytes.get_mut(header - field.len()..header) {
        place.copy_from_slice(&field);
    }
    Ok((next, held as u64 == size))
}

/// The level below which rustc does not write such an entry.
fn level_of(tag: gimli::DwTag) -> DebugLevel {
    match tag {
        dw::DW_TAG_structure_type
        | dw::DW_TAG_union_type
        | dw::DW_TAG_enumeration_type
        | dw::DW_TAG_base_type
        | dw::DW_TAG_pointer_type
        | dw::DW_TAG_array_type
        | dw::DW_TAG_subroutine_type
        | dw::DW_TAG_template_type_parameter
        | dw::DW_TAG_formal_parameter
        | dw::DW_TAG_variable => DebugLevel::Full,
        dw::DW_TAG_namespace => DebugLevel::Limited,
        _ => DebugLevel::LineTables,
    }
}
