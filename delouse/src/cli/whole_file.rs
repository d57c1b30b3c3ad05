//! Files that appear under their name once they are whole: a command that is ended while it writes leaves nothing behind.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, linkat, open};
use rustix::io::Errno;

/// For its owner only: it has memory of a program.
const MODE: u32 = 0o600;

/// A file that is being written.
pub(super) struct WholeFile {
    pub(super) file: File,
    path: PathBuf,
    /// Whether the file has its name already, because the file system does not know files without a name.
    is_named: bool,
}

impl WholeFile {
    /// Creates the file. A file that exists is not overwritten.
    pub(super) fn create(path: &Path) -> io::Result<Self> {
        if path.symlink_metadata().is_ok() {
            return Err(Errno::EXIST.into());
        }
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        // O_TMPFILE, see open(2): some file systems do not know it, and ones before Linux 3.11 answer EISDIR.
        let unnamed = open(
            directory.unwrap_or(Path::new(".")),
            OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC,
            Mode::from(MODE),
        );
        let (file, is_named) = match unnamed {
            Ok(file) => (file.into(), false),
            Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL) => {
                (File::options().write(true).create_new(true).mode(MODE).open(path)?, true)
            }
            Err(errno) => return Err(errno.into()),
        };
        Ok(Self { file, path: path.to_owned(), is_named })
    }

    /// Gives the file its name.
    pub(super) fn finish(mut self) -> io::Result<()> {
        if !self.is_named {
            let unnamed = format!("/proc/self/fd/{}", self.file.as_raw_fd());
            linkat(CWD, unnamed, CWD, &self.path, AtFlags::SYMLINK_FOLLOW)?;
        }
        self.is_named = false;
        Ok(())
    }
}

impl Drop for WholeFile {
    fn drop(&mut self) {
        if self.is_named {
            let _gone = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn a_file_appears_when_it_is_whole() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        let names = || fs::read_dir(directory.path()).unwrap().count();
        for is_named in [false, true] {
            let create = || match is_named {
                false => WholeFile::create(&path).unwrap(),
                true => {
                    let file = File::create_new(&path).unwrap();
                    WholeFile { file, path: path.clone(), is_named }
                }
            };
            drop(create());
            assert_eq!(names(), 0, "a file that is not whole is left behind");
            let mut whole = create();
            whole.file.write_all(b"whole").unwrap();
            whole.finish().unwrap();
            assert_eq!(fs::read(&path).unwrap(), b"whole");
            let error = WholeFile::create(&path).err().unwrap();
            assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
            fs::remove_file(&path).unwrap();
        }
        assert_eq!(
            WholeFile::create(&directory.path().join("no/file")).err().unwrap().kind(),
            io::ErrorKind::NotFound
        );
    }
}
