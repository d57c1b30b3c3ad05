//! The tasks of another program, and what is wrong with them: from a core file, or from another process.

use std::path::{Path, PathBuf};

use crate::debuginfo::address::LoadBias;
use crate::debuginfo::image::{Image, ImageError};
use crate::debuginfo::symbols::Symbols;
use crate::debuginfo::types::Types;
use crate::report::task_text::{self, TextOptions};
use crate::report::{DiagnosisAnswer, not_covered};
use crate::snapshot::Snapshot;
use crate::targets::core_file::{CoreError, CoreFile};
use crate::targets::other_process::OtherProcess;
use crate::tasks::other_objects::{self, OtherObjects};
use crate::tasks::{Examination, Listing, Options, examine};
use crate::threads::stacks;
use crate::waits::diagnosis::{Earlier, diagnose};
use crate::waits::sample::Sample;
use crate::waits::{self, Analysis};

/// At most this much memory is scanned for tasks, in bytes.
const SCAN: u64 = 4 << 30;

/// Why tasks cannot be listed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OfflineError {
    /// The process or a file cannot be read.
    #[error("cannot read the process: {0}")]
    Io(#[from] std::io::Error),
    /// The core file cannot be read.
    #[error("cannot read the core file: {0}")]
    Core(String),
    /// The executable cannot be read.
    #[error("cannot read the executable: {0}")]
    Executable(String),
    /// The executable is not mapped in the core file: it is of another program or another build.
    #[error(
        "this executable is not mapped in the core file: use the executable that ran, of the same build and with the same \
         file name"
    )]
    OtherProgram,
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

/// Lists the tasks of the program whose core file is `core`.
///
/// # Errors
/// If one of the files cannot be read, or if they do not belong together.
pub fn tasks_of_core(executable: &Path, core: &Path) -> Result<Listing, OfflineError> {
    tasks(&CoreFile::open(core)?, executable, None)
}

/// Lists the tasks of a running process that this process may trace, such as a child. The process is not stopped.
///
/// # Errors
/// If the process cannot be read, or if its executable was removed.
pub fn tasks_of_process(pid: u32) -> Result<Listing, OfflineError> {
    let process = OtherProcess::open(pid)?;
    tasks(&process, process.executable(), None)
}

/// Diagnoses the program whose core file is `core`. There is only one sample, so that findings that need several are
/// missing, such as blocked workers.
///
/// # Errors
/// If one of the files cannot be read, or if they do not belong together.
pub fn diagnosis_of_core(executable: &Path, core: &Path) -> Result<DiagnosisAnswer, OfflineError> {
    diagnosis(&CoreFile::open(core)?, executable)
}

/// Diagnoses a running process that this process may trace. The process is not stopped.
///
/// # Errors
/// If the process cannot be read, or if its executable was removed.
pub fn diagnosis_of_process(pid: u32) -> Result<DiagnosisAnswer, OfflineError> {
    let process = OtherProcess::open(pid)?;
    diagnosis(&process, process.executable())
}

fn diagnosis(snapshot: &dyn Snapshot, executable: &Path) -> Result<DiagnosisAnswer, OfflineError> {
    let mut sample = look_at(snapshot, &holding_tokio(executable, snapshot), None, |seen| {
        let Analysis { graph, findings, not_judged, not_covered, .. } = waits::analyse(&seen, false);
        Sample { listing: seen.listing, graph, findings, not_judged, not_covered, ..Sample::default() }
    })?;
    sample.threads = stacks::stacks(snapshot, &Symbols::new()).0;
    let found = diagnose(std::slice::from_ref(&sample), None, Earlier::default());
    let mut capture = snapshot.capture().clone();
    capture
        .notes
        .extend(sample.listing.notes.iter().cloned().chain(sample.not_covered.iter().map(not_covered)));
    Ok(DiagnosisAnswer::new(found, &sample, capture, None))
}

/// Renders a listing as text. `full` shows all frames of libraries.
pub fn text(listing: &Listing, full: bool) -> String {
    task_text::text(&listing.tasks, &listing.notes, &TextOptions { full, ..TextOptions::default() })
}

fn tasks(snapshot: &dyn Snapshot, executable: &Path, now: Option<u64>) -> Result<Listing, OfflineError> {
    let options =
        Options { bias: LoadBias::default(), scan: SCAN, now, history: None, places: false, entered: true };
    let main = holding_tokio(executable, snapshot);
    let mut listing = look_at(snapshot, &main, now, |examination| examination.listing)?;
    for path in libraries(executable, snapshot).iter().filter(|path| **path != main) {
        other_objects::add(path, snapshot, &options, &mut listing);
    }
    Ok(listing)
}

/// The executable, or the first library that contains tokio if the executable is not a Rust program.
fn holding_tokio(executable: &Path, snapshot: &dyn Snapshot) -> PathBuf {
    let library = || libraries(executable, snapshot).into_iter().next();
    let none = !other_objects::holds_tokio(executable);
    none.then(library).flatten().unwrap_or_else(|| executable.to_owned())
}

/// Mapped files with tokio, except the executable, whose path may differ from the path that it ran from.
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
    sample: impl FnOnce(Examination<'_, '_, '_>) -> R,
) -> Result<R, OfflineError> {
    let image = Image::open(executable)?;
    let bias = bias(&image, executable, snapshot).ok_or(OfflineError::OtherProgram)?;
    let types = Types::open(&image);
    Ok(examine(
        snapshot,
        &types,
        &[],
        &Options { bias, scan: SCAN, now, history: None, places: true, entered: true },
        sample,
    ))
}

/// The bias of the executable in the snapshot. Its path may differ from the path that it ran from.
fn bias(image: &Image, executable: &Path, snapshot: &dyn Snapshot) -> Option<LoadBias> {
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

#[cfg(all(test, feature = "dump", target_os = "linux", target_arch = "x86_64"))]
mod tests {
    use super::*;
    use crate::targets;
    use crate::targets::Limits;

    #[test]
    fn the_program_is_found_by_any_path() {
        let snapshot = targets::fork(Limits { force: true, ..Limits::default() }).unwrap();
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
        // Another build with the same file name.
        std::fs::remove_file(&copy).unwrap();
        std::fs::copy(&other, &copy).unwrap();
        assert_eq!(bias(&Image::open(&copy).unwrap(), &copy, &snapshot), None);
    }
}
