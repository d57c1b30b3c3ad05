//! Where the debug information of a stripped file may lie, and whether it is of the same build.
//!
//! The places are gdb's ("Debugging Information in Separate Files" of its manual). Nothing is fetched from
//! the network: a debuginfod server is named as a hint only.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use schemars::JsonSchema;
use serde::Serialize;

use crate::debuginfo::bounded_file::BoundedFile;
use crate::debuginfo::elf::Image;

/// A debug file larger than this is not checked by CRC, which needs all of it. Build-ids need no such limit.
const MAX_CRC: u64 = 128_000_000;

/// Where the system keeps debug files.
const DEBUG_ROOT: &str = "/usr/lib/debug";

/// A debug file that the user has named, which is searched before all other places.
static NAMED: OnceLock<PathBuf> = OnceLock::new();

/// Has every later search consider the debug file at `path`, which must be that of the file at `program`.
///
/// # Errors
/// The reason, if it is not.
pub(crate) fn add(path: &Path, program: &Path) -> Result<(), String> {
    let identity = Image::open(program).map_err(|error| error.to_string())?;
    match matches(path, program, &Identity::of_image(&identity)) {
        Ok(_) => {
            let _already_named = NAMED.set(path.to_owned());
            Ok(())
        }
        Err(Mismatch::Absent) if path.exists() => Ok(()),
        Err(Mismatch::Absent) => Err("there is no such file".to_owned()),
        Err(Mismatch::Reason(reason)) => Err(reason),
    }
}

/// What a debug file must match.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Identity {
    /// The linker's fingerprint of the build.
    pub(crate) build_id: Option<Vec<u8>>,
    /// `.gnu_debuglink`: the debug file's name and CRC-32.
    pub(crate) debuglink: Option<(Vec<u8>, u32)>,
}

impl Identity {
    /// Of the headers of a file.
    pub(crate) fn of_image(image: &Image) -> Identity {
        Identity { build_id: image.build_id.clone(), debuglink: image.debuglink() }
    }
}

/// The outcome of a search.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub(crate) struct SeparateDebug {
    /// Where it was looked for, in this order.
    #[serde(serialize_with = "lossy::paths")]
    #[schemars(with = "Vec<String>")]
    pub(crate) searched: Vec<PathBuf>,
    /// The file that matches.
    #[serde(serialize_with = "lossy::some_path")]
    #[schemars(with = "Option<String>")]
    pub(crate) found: Option<PathBuf>,
    /// How it was matched.
    pub(crate) matched_by: Option<MatchedBy>,
    /// Files that are there but do not match, with the reason.
    pub(crate) rejected: Vec<Rejected>,
    /// What else could be done, where nothing was found.
    pub(crate) hint: Option<String>,
}

/// How a debug file was matched with its program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum MatchedBy {
    /// The build-ids are the same.
    BuildId,
    /// The CRC-32 of `.gnu_debuglink` is right.
    Crc,
}

/// A file that is there but is of no use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub(crate) struct Rejected {
    /// The file.
    #[serde(serialize_with = "lossy::path")]
    #[schemars(with = "String")]
    pub(crate) path: PathBuf,
    /// Why it was not taken.
    pub(crate) reason: String,
}

/// Looks for the separate debug file of the program or library at `path`.
///
/// Costs a few `open` calls, and a reading of the whole candidate (up to 128 MB) where only a CRC can tell.
/// A missing file is no error: see [`SeparateDebug::found`].
pub(crate) fn find(path: &Path, identity: &Identity) -> SeparateDebug {
    find_under(path, identity, Path::new(DEBUG_ROOT))
}

/// The package of split units of the program at `path`: `<path>.dwp`, whether it exists or not.
pub(crate) fn dwp_path(path: &Path) -> PathBuf {
    with_suffix(path, ".dwp")
}

fn find_under(path: &Path, identity: &Identity, root: &Path) -> SeparateDebug {
    let mut search = SeparateDebug::default();
    for candidate in candidates(path, identity, root) {
        if search.searched.contains(&candidate) {
            continue;
        }
        search.searched.push(candidate.clone());
        match matches(&candidate, path, identity) {
            Ok(matched_by) => {
                search.found = Some(candidate);
                search.matched_by = Some(matched_by);
                return search;
            }
            Err(Mismatch::Absent) => {}
            Err(Mismatch::Reason(reason)) => search.rejected.push(Rejected { path: candidate, reason }),
        }
    }
    search.hint = Some(hint(identity));
    search
}

/// Every place, most specific first.
fn candidates(path: &Path, identity: &Identity, root: &Path) -> Vec<PathBuf> {
    let mut places: Vec<PathBuf> = NAMED.get().into_iter().cloned().collect();
    if let Some((first, rest)) = identity.build_id.as_deref().and_then(<[u8]>::split_first) {
        places.push(root.join(".build-id").join(format!("{first:02x}")).join(format!("{}.debug", hex(rest))));
    }
    let directory = path.parent().unwrap_or(Path::new("/"));
    if let Some((name, _)) = &identity.debuglink {
        // A link is a plain file name; anything with a slash would lead elsewhere.
        if !name.contains(&b'/') {
            let name = std::ffi::OsStr::from_bytes(name);
            places.push(directory.join(name));
            places.push(directory.join(".debug").join(name));
            places.push(root.join(directory.strip_prefix("/").unwrap_or(directory)).join(name));
        }
    }
    // No convention of gdb's, but what many people call the file that objcopy makes.
    places.push(with_suffix(path, ".debug"));
    places
}

enum Mismatch {
    Absent,
    Reason(String),
}

fn matches(candidate: &Path, program: &Path, identity: &Identity) -> Result<MatchedBy, Mismatch> {
    let reason = |text: String| Err(Mismatch::Reason(text));
    let metadata = match fs::metadata(candidate) {
        Ok(metadata) => metadata,
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Err(Mismatch::Absent);
        }
        Err(e) => return reason(format!("cannot be read: {e}")),
    };
    let same = fs::metadata(program)
        .is_ok_and(|program| (program.dev(), program.ino()) == (metadata.dev(), metadata.ino()));
    if same {
        return Err(Mismatch::Absent);
    }
    let image = match Image::open(candidate) {
        Ok(image) => image,
        Err(e) => return reason(e.to_string()),
    };
    if image.section(".debug_info").is_none() {
        return reason("it has no debug information".to_owned());
    }
    match (&identity.build_id, &image.build_id) {
        (Some(ours), Some(theirs)) if ours == theirs => return Ok(MatchedBy::BuildId),
        (Some(_), Some(theirs)) => return reason(format!("of another build: build-id {}", hex(theirs))),
        _ => {}
    }
    let Some((_, expected)) = identity.debuglink else {
        return reason("it has no build-id to tell whether it is of this build".to_owned());
    };
    match crc32(&image.file) {
        Ok(Some(crc)) if crc == expected => Ok(MatchedBy::Crc),
        Ok(Some(crc)) => reason(format!("of another build: CRC {crc:08x}, expected {expected:08x}")),
        Ok(None) => {
            reason(format!("without build-id and too large to check by CRC ({} MB)", MAX_CRC / 1_000_000))
        }
        Err(e) => reason(format!("cannot be read: {e}")),
    }
}

/// The CRC-32 of a whole file, as `.gnu_debuglink` has it (that of zlib); `None` above the limit.
fn crc32(file: &BoundedFile) -> io::Result<Option<u32>> {
    if file.size() > MAX_CRC {
        return Ok(None);
    }
    let mut crc = flate2::Crc::new();
    let mut buf = Vec::new();
    let mut offset = 0;
    while offset < file.size() {
        let bytes = file.window(offset..offset + (256 << 10), &mut buf)?;
        if bytes.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        crc.update(bytes);
        offset += bytes.len() as u64;
    }
    Ok(Some(crc.sum()))
}

fn hint(identity: &Identity) -> String {
    let Some(id) = identity.build_id.as_deref().map(hex) else {
        return "without a build-id a debug file cannot be matched: link with `-Wl,--build-id`".to_owned();
    };
    format!("where there is a debuginfod server: `debuginfod-find debuginfo {id}`")
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Paths in answers: serde refuses those that are not UTF-8, and one odd path must not cost the answer.
pub(crate) mod lossy {
    use std::path::{Path, PathBuf};

    use serde::{Serialize as _, Serializer};

    pub(crate) fn path<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
        path.to_string_lossy().serialize(serializer)
    }

    pub(crate) fn some_path<S: Serializer>(path: &Option<PathBuf>, serializer: S) -> Result<S::Ok, S::Error> {
        path.as_ref().map(|p| p.to_string_lossy()).serialize(serializer)
    }

    pub(crate) fn paths<S: Serializer>(paths: &[PathBuf], serializer: S) -> Result<S::Ok, S::Error> {
        paths.iter().map(|p| p.to_string_lossy()).collect::<Vec<_>>().serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::debuginfo::object_file::ObjectFile;
    use crate::host::file_parts::Access;

    /// Our own test program serves as its debug file: it has a build-id and debug information.
    fn own() -> (PathBuf, Identity) {
        let path = std::env::current_exe().unwrap();
        let identity = Identity::of_image(&Image::open(&path).unwrap());
        (path, identity)
    }

    #[test]
    fn both_ways_to_the_identity_agree() {
        let (path, identity) = own();
        assert_eq!(ObjectFile::open(&path, Access::Read).unwrap().identity(), identity);
    }

    #[test]
    fn the_systems_directories_are_searched() {
        let (own, identity) = own();
        let Some(id) = identity.build_id.as_deref().map(hex) else {
            return skipped!("the linker writes no build-id");
        };
        let root = tempfile::tempdir().unwrap();
        let program = Path::new("/opt/service/bin/service");
        let by_id = root.path().join(".build-id").join(&id[..2]).join(format!("{}.debug", &id[2..]));
        let by_link = root.path().join("opt/service/bin/service.dbg");
        let linked = Identity { debuglink: Some((b"service.dbg".to_vec(), 0)), ..identity.clone() };

        let search = find_under(program, &linked, root.path());
        let beside = Path::new("/opt/service/bin");
        let places = [
            by_id.clone(),
            beside.join("service.dbg"),
            beside.join(".debug/service.dbg"),
            by_link.clone(),
            beside.join("service.debug"),
        ];
        assert_eq!(search.searched, places);
        assert!(search.found.is_none() && search.hint.is_some_and(|hint| hint.contains(&id)));

        for place in [&by_link, &by_id] {
            fs::create_dir_all(place.parent().unwrap()).unwrap();
            fs::hard_link(&own, place).or_else(|_| fs::copy(&own, place).map(drop)).unwrap();
            let search = find_under(program, &linked, root.path());
            assert_eq!(search.found.as_ref(), Some(place));
            assert_eq!(search.matched_by, Some(MatchedBy::BuildId));
        }
    }

    #[test]
    fn a_link_does_not_lead_out_of_its_directory() {
        let link = Identity { build_id: None, debuglink: Some((b"../../etc/passwd".to_vec(), 0)) };
        let search = find_under(Path::new("/opt/service"), &link, Path::new("/nowhere"));
        assert_eq!(search.searched, [Path::new("/opt/service.debug")]);
    }
}
