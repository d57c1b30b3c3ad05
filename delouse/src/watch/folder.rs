//! The directory with the reports of findings: whole files only, a bounded number of them, each of bounded size.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::report::history::unix_ms;

/// The reports that are kept, of all processes that write to the directory.
const KEPT: usize = 64;
/// The size of one file in bytes.
pub(super) const MOST: usize = 1 << 20;
/// A file that is older, and was not renamed, is of a process that has ended.
const STALE: Duration = Duration::from_secs(600);

/// The start of the names of files that are ours.
const PREFIX: &str = "delouse-";
/// The end of the name of a file that is not whole.
const PARTIAL: &str = ".partial";

/// Writes reports to a directory.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    written: usize,
}

impl Folder {
    /// The directory is created when there is something to write.
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, written: 0 }
    }

    /// Writes a report as text and as JSON; returns the path of the text. Drops the oldest reports if there are too many.
    pub(super) fn write(&mut self, kind: &str, text: &str, json: &[u8]) -> io::Result<PathBuf> {
        fs::create_dir_all(&self.path)?;
        self.written += 1;
        let seconds = unix_ms(SystemTime::now()) / 1_000;
        let name = format!("{PREFIX}{seconds}-{}-{}-{kind}", std::process::id(), self.written);
        self.put(&format!("{name}.json"), json)?;
        let path = self.put(&format!("{name}.txt"), cut(text).as_bytes())?;
        // The names are part of the directory's data.
        File::open(&self.path)?.sync_all()?;
        // That an old report is still there is no reason to fail.
        let _left = self.prune();
        Ok(path)
    }

    /// Writes a file under a temporary name, and renames it when its data is on the disk.
    fn put(&self, name: &str, data: &[u8]) -> io::Result<PathBuf> {
        let partial = self.path.join(format!("{name}{PARTIAL}"));
        let written = (|| {
            // A report may show values of variables.
            let mut file =
                File::options().write(true).create(true).truncate(true).mode(0o600).open(&partial)?;
            file.write_all(data)?;
            file.sync_all()?;
            let path = self.path.join(name);
            fs::rename(&partial, &path)?;
            Ok(path)
        })();
        if written.is_err() {
            let _absent = fs::remove_file(&partial);
        }
        written
    }

    fn prune(&self) -> io::Result<()> {
        let mut reports: BTreeMap<(u64, String), Vec<PathBuf>> = BTreeMap::new();
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let Some((seconds, stem)) = report_of(&name) else { continue };
            if !name.ends_with(PARTIAL) {
                reports.entry((seconds, stem)).or_default().push(entry.path());
            } else if is_stale(&entry.path()) {
                fs::remove_file(entry.path())?;
            }
        }
        let surplus = reports.len().saturating_sub(KEPT);
        reports.into_values().take(surplus).flatten().try_for_each(fs::remove_file)
    }
}

/// The time of a report, and its name without its extension, by the name of one of its files. `None` for a file that
/// delouse has not written.
fn report_of(name: &str) -> Option<(u64, String)> {
    let whole = name.strip_suffix(PARTIAL).unwrap_or(name);
    let stem = whole.strip_suffix(".txt").or_else(|| whole.strip_suffix(".json"))?;
    let mut parts = stem.strip_prefix(PREFIX)?.splitn(4, '-');
    let mut number = || parts.next()?.parse::<u64>().ok();
    let (seconds, _pid, _count) = (number()?, number()?, number()?);
    parts.next()?;
    Some((seconds, stem.to_owned()))
}

fn is_stale(path: &Path) -> bool {
    let written = fs::metadata(path).and_then(|of| of.modified()).ok();
    written.and_then(|at| at.elapsed().ok()).is_some_and(|age| age > STALE)
}

/// A text of at most [`MOST`] bytes.
fn cut(text: &str) -> &str {
    let end = (0..=MOST.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    text.get(..end.unwrap_or_default()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(path: &Path) -> Vec<String> {
        let entries = fs::read_dir(path).unwrap().flatten();
        let mut names: Vec<String> = entries.map(|entry| entry.file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn reports_are_bounded_and_other_files_are_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("new");
        let mut folder = Folder::new(path.clone());
        for number in 0..KEPT + 3 {
            // Only the first is too long.
            let text = "é".repeat(if number == 0 { MOST } else { 1 });
            let written = folder.write("deadlock", &text, b"{}").unwrap();
            let size = fs::metadata(&written).unwrap().len();
            assert!(if number == 0 { size == MOST as u64 } else { size == 2 }, "{size}");
            assert_eq!(fs::read(written.with_extension("json")).unwrap(), b"{}");
            if number == 0 {
                for other in
                    ["delouse-notes.txt", "delouse-1-2.txt", "core.7", "delouse-1-2-3-leak.txt.partial"]
                {
                    fs::write(path.join(other), "x").unwrap();
                }
            }
        }
        let names = names(&path);
        assert_eq!(names.iter().filter(|name| report_of(name).is_some()).count(), 2 * KEPT + 1);
        assert_eq!(names.len(), 2 * KEPT + 4, "{names:?}");
    }

    #[test]
    fn a_directory_that_cannot_be_written_is_an_error_and_leaves_nothing() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("file"), "x").unwrap();
        let mut folder = Folder::new(directory.path().join("file"));
        assert!(folder.write("deadlock", "text", b"{}").is_err());
        assert_eq!(names(directory.path()), ["file"]);
    }
}
