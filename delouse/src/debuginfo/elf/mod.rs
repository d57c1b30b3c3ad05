//! The facts about one ELF file: what it is, how it was linked, and which debug information it has.
//!
//! The file is read through bounded windows: a binary of 1 GB costs milliseconds, and a damaged one costs an
//! entry in [`ElfInfo::problems`]. Only a file whose ELF header itself is unusable is an error.

mod answers;
mod audit;
mod contents;
#[cfg(test)]
mod fuzz;
mod image;
mod linkage;
mod model;
mod split;
mod survey;
#[cfg(test)]
#[cfg(feature = "dump")]
mod tests;
mod units;
mod unwinding;

use std::path::Path;

use object::elf;

pub(crate) use image::{ElfError, Image};
pub(crate) use model::*;

use crate::debuginfo::separate::{self, Identity, hex};
use contents::Contents;
use image::Section;
use survey::Survey;

/// `.comment` holds one line for each compiler; a damaged one could hold anything.
const MAX_COMMENTS: u64 = 64 << 10;

/// Reads the facts about the file at `path`.
///
/// Takes milliseconds; blocking file access, a few system calls
/// for each compilation unit.
///
/// # Errors
/// Where the file cannot be read or is not ELF.
#[cfg(test)]
pub(crate) fn inspect(path: &Path) -> Result<ElfInfo, ElfError> {
    Ok(read(Image::open(path)?, path, path))
}

/// The same of a file that is opened by another path than its name, and that may have been `replaced` by another one
/// of that name since the program started.
///
/// # Errors
/// Those of [`inspect`].
pub(crate) fn inspect_as(opened: &Path, name: &Path, replaced: bool) -> Result<ElfInfo, ElfError> {
    let mut info = read(Image::open(opened)?, opened, name);
    if replaced {
        info.problems.insert(0, "the file was replaced or removed since the program started".to_owned());
    }
    Ok(info)
}

fn read(mut image: Image, opened: &Path, path: &Path) -> ElfInfo {
    let mut problems = std::mem::take(&mut image.problems);
    let debug = debug_information(path, &image, &mut problems);
    let linkage = linkage::read(&image, &mut problems);
    let stripped = image.section(".symtab").is_none();
    let dependencies = image.section(".dep-v0").and_then(|section| {
        audit::dependencies(&image, section).map_err(|problem| problems.push(problem)).ok()
    });
    let comments = comments(&image, &mut problems);
    let unwind_tables = unwinding::read(opened);
    ElfInfo {
        path: path.to_owned(),
        file_size: image.file.size(),
        file_type: linkage.file_type,
        machine: machine(image.machine),
        class: if image.is_64 { 64 } else { 32 },
        endianness: match image.endian {
            object::Endianness::Little => Endianness::Little,
            object::Endianness::Big => Endianness::Big,
        },
        entry: image.entry,
        build_id: image.build_id.as_deref().map(hex),
        interpreter: image.interpreter.clone(),
        needed: linkage.needed,
        rpath: linkage.rpath,
        runpath: linkage.runpath,
        pie: linkage.pie,
        relro: linkage.relro,
        nx: linkage.nx,
        stripped,
        comments,
        answers: answers::answers(&debug, unwind_tables.as_ref(), stripped),
        debug,
        unwind_tables,
        dependencies,
        sections: image.sections.iter().map(section_info).collect(),
        problems,
    }
}

fn debug_information(path: &Path, image: &Image, problems: &mut Vec<String>) -> DebugInformation {
    let mut survey = Survey::of(image);
    let own = survey.level > DebugLevel::None || !survey.skeletons.is_empty();
    let mut location = if own { DebugLocation::Embedded } else { DebugLocation::None };
    let mut compressed = compression(image);
    let mut size = debug_size(image);
    let mut separate = None;
    if !own {
        let search = separate::find(path, &Identity::of_image(image));
        if let Some(found) = &search.found
            && let Ok(image) = Image::open(found)
        {
            problems.append(&mut survey.problems);
            survey = Survey::of(&image);
            location = DebugLocation::SeparateFile;
            compressed = compression(&image);
            size = debug_size(&image);
        }
        separate = Some(search);
    }
    let split = split::look(path, &mut survey).map(|(split, place)| {
        location = place;
        split
    });
    problems.append(&mut survey.problems);
    let crates = survey.crates();
    DebugInformation {
        level: survey.level,
        mixed: crates.iter().any(|c| c.level < survey.level),
        location,
        standard_library: survey.standard_library,
        dwarf_versions: survey.versions.iter().copied().collect(),
        compressed,
        size,
        units: survey.units,
        crates,
        sampled: survey.sampled,
        split,
        separate,
    }
}

fn compression(image: &Image) -> Option<String> {
    let compression = image.section(".debug_info")?.compression?;
    Some(match compression.kind {
        elf::ELFCOMPRESS_ZLIB => "zlib".to_owned(),
        elf::ELFCOMPRESS_ZSTD => "zstd".to_owned(),
        other => format!("unknown ({})", other.0),
    })
}

fn debug_size(image: &Image) -> u64 {
    let debug = image.sections.iter().filter(|s| s.name.starts_with(".debug_") && s.kind != elf::SHT_NOBITS);
    debug.fold(0, |sum, s| sum.saturating_add(s.size))
}

fn comments(image: &Image, problems: &mut Vec<String>) -> Vec<String> {
    let Some(section) = image.section(".comment") else { return Vec::new() };
    let mut buf = Vec::new();
    let bytes = Contents::open(image, section)
        .and_then(|contents| contents.window(0..MAX_COMMENTS, &mut buf).map(<[u8]>::to_vec));
    match bytes {
        Ok(bytes) => bytes
            .split(|&b| b == 0)
            .filter(|text| !text.is_empty())
            .map(|text| String::from_utf8_lossy(text).into_owned())
            .collect(),
        Err(e) => {
            problems.push(format!(".comment: {e}"));
            Vec::new()
        }
    }
}

fn section_info(section: &Section) -> SectionInfo {
    // readelf's order of letters.
    let letters = [
        (elf::SHF_WRITE, 'W'),
        (elf::SHF_ALLOC, 'A'),
        (elf::SHF_EXECINSTR, 'X'),
        (elf::SHF_MERGE, 'M'),
        (elf::SHF_STRINGS, 'S'),
        (elf::SHF_TLS, 'T'),
        (elf::SHF_COMPRESSED, 'C'),
    ];
    let flags = letters.iter().filter(|(flag, _)| section.flags & flag.0 != 0);
    SectionInfo {
        name: section.name.clone(),
        address: section.address,
        size: section.size,
        flags: flags.map(|(_, letter)| *letter).collect(),
    }
}

/// The name as Rust targets spell it.
fn machine(machine: elf::Machine) -> String {
    match machine {
        elf::EM_X86_64 => "x86_64",
        elf::EM_AARCH64 => "aarch64",
        elf::EM_386 => "i686",
        elf::EM_ARM => "arm",
        elf::EM_RISCV => "riscv",
        elf::EM_PPC => "powerpc",
        elf::EM_PPC64 => "powerpc64",
        elf::EM_S390 => "s390x",
        elf::EM_MIPS => "mips",
        elf::EM_LOONGARCH => "loongarch64",
        elf::EM_SPARCV9 => "sparc64",
        other => return format!("unknown ({})", other.0),
    }
    .to_owned()
}
