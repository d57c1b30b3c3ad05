//! The tasks of a program that is not this one, and what is wrong with them: of a core file from yesterday, or of
//! another process.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::debuginfo::image::{Image, ImageError};
use crate::debuginfo::symbols::Symbols;
use crate::debuginfo::types::Types;
use crate::report::DiagnosisAnswer;
use crate::report::task_text::{self, TextOptions};
use crate::snapshot::Snapshot;
use crate::snapshot::core_file::{CoreError, CoreFile};
use crate::snapshot::other_process::OtherProcess;
use crate::tasks::other_objects::{self, OtherObjects};
use crate::tasks::{Examination, Listing, Options, examine};
use crate::threads::stacks;
use crate::waits::diagnosis::diagnose;
use crate::waits::look::Look;
use crate::waits::{self, Analysis};

/// Memory that is scanned for tasks at most, in bytes.
const SCAN: u64 = 4 << 30;

/// Why there is no list of tasks.
#[derive(Debug)]
#[non_exhaustive]
pub enum OfflineError {
    /// The process or a file cannot be read.
    Io(std::io::Error),
    /// The core file cannot be read.
    Core(String),
    /// The executable cannot be read.
    Executable(String),
    /// The executable is not mapped in the core file: it is another program's, or another build.
    OtherProgram,
}

impl fmt::Display for OfflineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => write!(f, "cannot read the process: {error}"),
            Self::Core(error) => write!(f, "cannot read the core file: {error}"),
            Self::Executable(error) => write!(f, "cannot read the executable: {error}"),
            Self::OtherProgram => f.write_str(
                "this executable is not in the core file: give the one that ran, of the same build, by its own name",
            ),
        }
    }
}

impl std::error::Error for OfflineError {}

impl From<std::io::Error> for OfflineError {
    fn from(error: std::io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<CoreError> for OfflineError {
    fn from(error: CoreError) -> Self {
        Self::Core(error.to_string())
    }
}

impl From<ImageError> for OfflineError {
    fn from(error: ImageError) -> Self {
        Self::Executable(error.to_string())
    }
}

/// Every task of the program whose core file is `core`.
///
/// # Errors
/// Where one of the files cannot be read, or they do not belong together.
pub fn tasks_of_core(executable: &Path, core: &Path) -> Result<Listing, OfflineError> {
    tasks(&CoreFile::open(core)?, executable, None)
}

/// Every task of a running process that we may trace: a child of ours, as a rule. It is not stopped.
///
/// # Errors
/// Where the process cannot be read, or its executable is gone.
pub fn tasks_of_process(pid: u32) -> Result<Listing, OfflineError> {
    let process = OtherProcess::open(pid)?;
    tasks(&process, process.executable(), None)
}

/// What is wrong with the program whose core file is `core`: by one look, so nothing that takes two, such as
/// workers that do not come back.
///
/// # Errors
/// Where one of the files cannot be read, or they do not belong together.
pub fn diagnosis_of_core(executable: &Path, core: &Path) -> Result<DiagnosisAnswer, OfflineError> {
    diagnosis(&CoreFile::open(core)?, executable)
}

/// The same of a running process that we may trace. It is not stopped.
///
/// # Errors
/// Where the process cannot be read, or its executable is gone.
pub fn diagnosis_of_process(pid: u32) -> Result<DiagnosisAnswer, OfflineError> {
    let process = OtherProcess::open(pid)?;
    diagnosis(&process, process.executable())
}

fn diagnosis(snapshot: &dyn Snapshot, executable: &Path) -> Result<DiagnosisAnswer, OfflineError> {
    let mut look = look_at(snapshot, &holding_tokio(executable, snapshot), None, |seen| {
        let Analysis { graph, findings, not_judged, notes: doubts } = waits::analyse(&seen, false);
        Look { listing: seen.listing, graph, findings, not_judged, doubts, ..Look::default() }
    })?;
    look.threads = stacks::stacks(snapshot, &Symbols::new()).0;
    let found = diagnose(std::slice::from_ref(&look), None, None);
    let mut capture = snapshot.capture().clone();
    capture.notes.extend(look.listing.notes.iter().chain(&look.doubts).cloned());
    Ok(DiagnosisAnswer::new(found, &look, capture, None))
}

/// A listing as text for people; `full` shows every frame of every library.
pub fn text(listing: &Listing, full: bool) -> String {
    task_text::text(&listing.tasks, &listing.notes, &TextOptions { full, ..TextOptions::default() })
}

fn tasks(snapshot: &dyn Snapshot, executable: &Path, now: Option<u64>) -> Result<Listing, OfflineError> {
    let options = Options { bias: 0, scan: SCAN, now, places: false, entered: true };
    let main = holding_tokio(executable, snapshot);
    let mut listing = look_at(snapshot, &main, now, |examination| examination.listing)?;
    for path in libraries(executable, snapshot).iter().filter(|path| **path != main) {
        other_objects::add(path, snapshot, &options, &mut listing);
    }
    Ok(listing)
}

/// The executable, or, where that is no Rust program, the first library in it that holds a tokio.
fn holding_tokio(executable: &Path, snapshot: &dyn Snapshot) -> PathBuf {
    let library = || libraries(executable, snapshot).into_iter().next();
    let none = !other_objects::holds_tokio(executable);
    none.then(library).flatten().unwrap_or_else(|| executable.to_owned())
}

/// The files with a tokio that are not the executable, which may be given by another path than the one it ran from.
fn libraries(executable: &Path, snapshot: &dyn Snapshot) -> Vec<PathBuf> {
    let whole = executable.canonicalize().unwrap_or_else(|_| executable.to_owned());
    let mut others = OtherObjects::default();
    let found = others.find(&whole, snapshot).iter();
    found.filter(|path| path.file_name() != executable.file_name()).cloned().collect()
}

fn look_at<R>(
    snapshot: &dyn Snapshot,
    executable: &Path,
    now: Option<u64>,
    look: impl FnOnce(Examination<'_, '_, '_>) -> R,
) -> Result<R, OfflineError> {
    let image = Image::open(executable)?;
    let bias = bias(&image, executable, snapshot).ok_or(OfflineError::OtherProgram)?;
    let types = Types::open(&image);
    Ok(examine(snapshot, &types, &[], &Options { bias, scan: SCAN, now, places: true, entered: true }, look))
}

/// Where the program lay in memory: it may be given by another path than the one that it ran from.
fn bias(image: &Image, executable: &Path, snapshot: &dyn Snapshot) -> Option<u64> {
    let mappings = snapshot.mappings();
    let whole = executable.canonicalize().unwrap_or_else(|_| executable.to_owned());
    let known = [&whole, executable].into_iter().find_map(|path| image.bias(path, mappings));
    let namesake = || {
        let paths = mappings.iter().filter_map(|mapping| mapping.path.as_deref());
        let mut paths = paths.filter(|path| path.file_name() == executable.file_name());
        paths.find_map(|path| {
            image.bias(path, mappings).filter(|bias| image.is_at(*bias, snapshot) == Some(true))
        })
    };
    known.filter(|bias| image.is_at(*bias, snapshot) != Some(false)).or_else(namesake)
}

#[cfg(all(test, target_os = "linux", target_arch = "x86_64"))]
mod tests {
    use super::*;
    use crate::snapshot::{self, Limits};

    #[test]
    fn the_program_is_known_by_any_path() {
        let snapshot = snapshot::fork(Limits { force: true, ..Limits::default() }).unwrap();
        let ran = std::env::current_exe().unwrap();
        let expected = bias(&Image::open(&ran).unwrap(), &ran, &snapshot).unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        let name = ran.file_name().unwrap();
        let (copy, link) = (elsewhere.path().join(name), elsewhere.path().join("link"));
        std::fs::copy(&ran, &copy).unwrap();
        std::os::unix::fs::symlink(&ran, &link).unwrap();
        for path in [&copy, &link] {
            assert_eq!(
                bias(&Image::open(path).unwrap(), path, &snapshot),
                Some(expected),
                "{}",
                path.display()
            );
        }
        let other = Path::new("/bin/sh").canonicalize().unwrap();
        assert_eq!(bias(&Image::open(&other).unwrap(), &other, &snapshot), None);
        // Another build by the same name.
        std::fs::remove_file(&copy).unwrap();
        std::fs::copy(&other, &copy).unwrap();
        assert_eq!(bias(&Image::open(&copy).unwrap(), &copy, &snapshot), None);
    }
}
