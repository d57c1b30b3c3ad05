//! `delouse core PID`: writes a core file of another process to disk, with holes for blocks of zeroes.

use std::fmt;
use std::fs::File;
use std::io::{self, BufWriter, Seek as _, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::error::CliError;
use super::progress::Progress;
use super::whole_file::WholeFile;
use crate::report::format::size;
use crate::snapshot::Capture;
use crate::targets::core_dump::{self, CoreImage, Stats};

/// The block size of most file systems, which store no aligned block that was never written.
const BLOCK: usize = 4096;

/// A core file that was written.
pub(super) struct Written {
    pub(super) path: PathBuf,
    pub(super) stats: Stats,
    /// Bytes that the file takes on disk, without its holes.
    pub(super) stored: u64,
    pub(super) capture: Capture,
}

impl fmt::Display for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, stats, stored, capture } = self;
        write!(
            f,
            "delouse: wrote {}: {}, of which {} are on disk; {} threads; the process was stopped for {}.{:03} ms",
            path.display(),
            size(stats.bytes),
            size(*stored),
            stats.threads,
            capture.pause_us / 1000,
            capture.pause_us % 1000
        )?;
        let left_out = (stats.left_out > 0).then(|| {
            format!(
                "{} mappings are left out: at most a terabyte of address space is scanned",
                stats.left_out
            )
        });
        capture.notes.iter().chain(&left_out).try_for_each(|note| write!(f, "\ndelouse: note: {note}"))
    }
}

/// Writes `image` to `output`, or to `core.PID` in the current directory.
///
/// # Errors
/// If the file exists already, or cannot be written, or if the image becomes unreadable.
pub(super) fn write(image: &dyn CoreImage, output: Option<&Path>) -> Result<Written, CliError> {
    let path = output.map_or_else(|| format!("core.{}", image.ids().pid).into(), Path::to_owned);
    let failed = |error| CliError::File { path: path.clone(), error };
    let whole = WholeFile::create(&path).map_err(failed)?;
    let _progress = Progress::start(format!("writing {}", path.display()));
    let stats = write_to(image, &whole.file)?;
    let metadata = whole.file.metadata().map_err(failed)?;
    whole.finish().map_err(failed)?;
    let stored = std::os::unix::fs::MetadataExt::blocks(&metadata).saturating_mul(512);
    Ok(Written { path, stats, stored, capture: image.capture().clone() })
}

fn write_to(image: &dyn CoreImage, file: &File) -> Result<Stats, CliError> {
    let failed = |error: core_dump::CoreError| CliError::Usage(error.to_string());
    // Collects small writes: each write of `SparseFile` is a system call.
    let mut out = BufWriter::with_capacity(64 * BLOCK, SparseFile { file, end: 0 });
    let stats = core_dump::write(image, &mut out).map_err(failed)?;
    let end = out.into_inner().map_err(|error| failed(error.into_error().into()))?.end;
    // A hole at the end was only skipped: it does not extend the file.
    file.set_len(end).map_err(|error| failed(error.into()))?;
    Ok(stats)
}

/// Writes a file from its start, and skips blocks of zeroes, which become holes.
struct SparseFile<'f> {
    file: &'f File,
    /// The position in the file: bytes written or skipped so far.
    end: u64,
}

impl Write for SparseFile<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // Up to the next block boundary, then block by block.
        let within = usize::try_from(self.end % BLOCK as u64).unwrap_or(0);
        let first = bytes.len().min(BLOCK - within);
        let is_zero = |part: &[u8]| part.iter().all(|byte| *byte == 0);
        let length = match bytes.get(..first) {
            Some(part) if is_zero(part) => {
                self.file.seek(SeekFrom::Current(i64::try_from(first).unwrap_or(0)))?;
                first
            }
            _ => {
                // Everything before the next block of zeroes is one write.
                let rest = bytes.get(first..).unwrap_or_default().chunks(BLOCK);
                let more: usize = rest.take_while(|part| !is_zero(part)).map(<[u8]>::len).sum();
                self.file.write(bytes.get(..first + more).unwrap_or(bytes))?
            }
        };
        self.end = self.end.saturating_add(length as u64);
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_sparse_file_has_the_same_contents_and_takes_less_space() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("sparse");
        let mut bytes = vec![0_u8; 1 << 20];
        for at in [0, 5000, 300_000, 300_001] {
            bytes[at] = 7;
        }
        for step in [1, 1000, BLOCK, 100_000, bytes.len()] {
            let file = File::create(&path).unwrap();
            let mut sparse = SparseFile { file: &file, end: 0 };
            bytes.chunks(step).for_each(|part| sparse.write_all(part).unwrap());
            file.set_len(sparse.end).unwrap();
            assert_eq!(fs::read(&path).unwrap(), bytes, "{step}");
        }
        let metadata = fs::metadata(&path).unwrap();
        let stored = std::os::unix::fs::MetadataExt::blocks(&metadata) * 512;
        assert!(stored < 200_000, "{stored}");
    }
}
