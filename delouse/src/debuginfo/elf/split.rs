//! Split debug information: units whose types are in `<file>.dwp` or in one `.dwo` file each.
//!
//! Only units that carry the id of their skeleton count: types of another build are wrong types.

use std::path::{Path, PathBuf};

use gimli::{DebugCuIndex, IndexSectionId, RunTimeEndian, UnitIndex};

use super::image::Image;
use super::model::{DebugLevel, DebugLocation, SplitDebug};
use super::survey::{Skeleton, Survey};
use super::units::UnitReader;
use crate::debuginfo::separate::dwp_path;

/// The most `.dwo` files that are opened: each costs about ten system calls.
const MAX_FILES: usize = 2_000;
/// The index of a package has 40 bytes for each unit.
const MAX_INDEX: u64 = 4 << 20;
/// The most missing files that are named.
const MAX_NAMED: usize = 16;

/// Finds the split units of the survey, adds their levels to it, and returns where they are stored.
pub(crate) fn look(path: &Path, survey: &mut Survey) -> Option<(SplitDebug, DebugLocation)> {
    if survey.skeletons.is_empty() {
        return None;
    }
    let skeletons = std::mem::take(&mut survey.skeletons);
    let mut split = SplitDebug { units: skeletons.len() as u64, ..SplitDebug::default() };
    let mut location = DebugLocation::None;
    let package = dwp_path(path);
    let package_tried = match Image::open(&package) {
        Ok(image) => {
            split.package = Some(package.to_string_lossy().into_owned());
            match packed(&image, &skeletons, &mut split, survey) {
                Ok(()) if split.found > 0 => location = DebugLocation::Packed,
                Ok(()) => survey.problems.push(format!("{} is of another build", package.display())),
                Err(e) => survey.problems.push(format!("{}: {e}", package.display())),
            }
            true
        }
        Err(_) => false,
    };
    if split.found == 0 {
        unpacked(path, &skeletons, &mut split, survey);
        if split.found > 0 {
            location = DebugLocation::Unpacked;
        } else if !package_tried {
            split.missing.insert(0, package.to_string_lossy().into_owned());
            split.missing.truncate(MAX_NAMED);
        }
    }
    Some((split, location))
}

fn packed(
    image: &Image,
    skeletons: &[Skeleton],
    split: &mut SplitDebug,
    survey: &mut Survey,
) -> Result<(), String> {
    let endian = match image.endian {
        object::Endianness::Little => RunTimeEndian::Little,
        object::Endianness::Big => RunTimeEndian::Big,
    };
    let section = image.section(".debug_cu_index").ok_or("no index: not a package")?;
    let mut buf = Vec::new();
    let end = section.offset.saturating_add(section.size.min(MAX_INDEX));
    let bytes = image.file.window(section.offset..end, &mut buf).map_err(|e| e.to_string())?;
    let index = DebugCuIndex::new(bytes, endian).index().map_err(|e| format!("index: {e}"))?;
    let mut reader = match UnitReader::open(image, ".dwo") {
        Some(Ok(reader)) => reader,
        Some(Err(e)) => return Err(e.to_string()),
        None => return Err("no units".to_owned()),
    };
    for skeleton in skeletons {
        let place = places(&index, skeleton.id);
        let unit = place.and_then(|(info, abbreviations)| reader.unit(info, abbreviations).ok());
        match unit.and_then(|(unit, _)| unit.level) {
            Some(level) => {
                split.found += 1;
                survey.count(crate_name(skeleton), level);
            }
            None if split.missing.len() < MAX_NAMED => split.missing.push(skeleton.file.clone()),
            None => {}
        }
    }
    Ok(())
}

/// Where the unit `id` and its abbreviations start in the package.
fn places(index: &UnitIndex<gimli::EndianSlice<'_, RunTimeEndian>>, id: u64) -> Option<(u64, u64)> {
    let (mut info, mut abbreviations) = (None, 0);
    for section in index.sections(index.find(id)?).ok()? {
        match section.section {
            IndexSectionId::DebugInfo => info = Some(u64::from(section.offset)),
            IndexSectionId::DebugAbbrev => abbreviations = u64::from(section.offset),
            _ => {}
        }
    }
    Some((info?, abbreviations))
}

fn unpacked(path: &Path, skeletons: &[Skeleton], split: &mut SplitDebug, survey: &mut Survey) {
    split.missing.clear();
    for skeleton in skeletons.iter().take(MAX_FILES) {
        let level = dwo_paths(path, skeleton).iter().find_map(|file| level_of_file(file, skeleton.id));
        match level {
            Some(level) => {
                split.found += 1;
                survey.count(crate_name(skeleton), level);
            }
            None if split.missing.len() < MAX_NAMED => {
                let file = Path::new(&skeleton.directory).join(&skeleton.file);
                split.missing.push(file.to_string_lossy().into_owned());
            }
            None => {}
        }
    }
    if skeletons.len() > MAX_FILES {
        survey.sampled = true;
        survey.problems.push(format!("{} .dwo files, {MAX_FILES} looked at", skeletons.len()));
    }
}

/// Where the compiler wrote it, or next to the program.
fn dwo_paths(path: &Path, skeleton: &Skeleton) -> Vec<PathBuf> {
    let written = Path::new(&skeleton.directory).join(&skeleton.file);
    let beside = written.file_name().zip(path.parent()).map(|(name, directory)| directory.join(name));
    std::iter::once(written).chain(beside).collect()
}

fn level_of_file(file: &Path, id: u64) -> Option<DebugLevel> {
    let image = Image::open(file).ok()?;
    let mut reader = UnitReader::open(&image, ".dwo")?.ok()?;
    let (unit, _) = reader.unit(0, 0).ok()?;
    unit.level.filter(|_| unit.id == Some(id))
}

/// rustc calls the file `target.crate.hash-cgu.0.rcgu.dwo`; incremental builds leave the crate out.
fn crate_name(skeleton: &Skeleton) -> String {
    let file = Path::new(&skeleton.file).file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut parts = file.split('.');
    match (parts.next(), parts.next()) {
        (Some(_), Some(name)) if file.contains("-cgu.") => name.to_owned(),
        (Some(target), _) => target.rsplit_once('-').map_or(target, |(name, _)| name).to_owned(),
        (None, _) => file,
    }
}
