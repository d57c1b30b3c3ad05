//! Paths that open the files of another process from here, whatever was deleted, replaced or mounted since.

use std::collections::HashMap;
use std::fs::metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::handle::{FileIdentity, Process};
use crate::snapshot::{Address, Mapping};

/// The executable: a path that opens the file that runs.
///
/// That is its usual path, if it opens the same file; otherwise `/proc/PID/exe`, which opens the file even if it was
/// deleted, was replaced by another build, or is in a container.
pub(super) fn executable(process: &Process) -> PathBuf {
    let usual = process.executable_name().filter(|path| identity(path) == Some(process.executable()));
    usual.unwrap_or_else(|| process.absolute("exe"))
}

/// Replaces the path of each mapping by one that opens the mapped file, if the present one does not.
pub(super) fn resolve(process: &Process, executable: &Path, mappings: &mut [Mapping]) {
    let mut known: HashMap<(PathBuf, u64), PathBuf> = HashMap::new();
    for mapping in mappings.iter_mut().filter(|mapping| mapping.inode != 0) {
        let Some(path) = &mapping.path else { continue };
        let key = (path.clone(), mapping.inode);
        let resolved = known.entry(key).or_insert_with(|| resolve_one(process, executable, mapping, path));
        mapping.path = Some(resolved.clone());
    }
}

fn resolve_one(process: &Process, executable: &Path, mapping: &Mapping, path: &Path) -> PathBuf {
    let wanted = FileIdentity { device: mapping.device, inode: mapping.inode };
    if is_mapped(path, wanted) {
        return path.to_owned();
    }
    if wanted.inode == process.executable().inode {
        return executable.to_owned();
    }
    let relative = path.strip_prefix("/").unwrap_or(path);
    let in_its_root = process.absolute("root").join(relative);
    if is_mapped(&in_its_root, wanted) {
        return in_its_root;
    }
    let range = Address::words(&mapping.range);
    // Opening it needs CAP_SYS_ADMIN or CAP_CHECKPOINT_RESTORE.
    let by_range = process.absolute(&format!("map_files/{:x}-{:x}", range.start, range.end));
    if std::fs::File::open(&by_range).is_ok() {
        return by_range;
    }
    path.to_owned()
}

/// Whether `path` opens the file with this identity.
fn is_mapped(path: &Path, wanted: FileIdentity) -> bool {
    // btrfs and overlayfs have devices without a major number, and report others for mappings than for files.
    let same_device = |found: u64| found == wanted.device || libc::major(wanted.device) == 0;
    identity(path).is_some_and(|found| found.inode == wanted.inode && same_device(found.device))
}

fn identity(path: &Path) -> Option<FileIdentity> {
    let found = metadata(path).ok()?;
    Some(FileIdentity { device: found.dev(), inode: found.ino() })
}
