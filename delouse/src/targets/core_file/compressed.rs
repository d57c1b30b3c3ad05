//! Unpacks compressed core files: systemd-coredump writes them with zstd, some scripts with gzip.

use std::fs::File;
use std::io::{self, Read, Seek as _, SeekFrom, Write as _};
use std::path::Path;

use rustix::fs::{Mode, OFlags};

use crate::host::mapped_file::MappedFile;

/// Bytes that are written at a time. Zeroes are left out, as a core file has many.
const BLOCK: usize = 64 << 10;

/// How a core file is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compression {
    Zstd,
    Gzip,
    /// Formats that are not unpacked, with the command that does.
    Other(&'static str),
}

impl Compression {
    /// The format that begins with these bytes.
    pub(crate) fn of(start: &[u8]) -> Option<Self> {
        match start {
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Some(Self::Zstd),
            [0x1f, 0x8b, ..] => Some(Self::Gzip),
            [0x04, 0x22, 0x4d, 0x18, ..] => Some(Self::Other("lz4 -d")),
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Some(Self::Other("xz -d")),
            _ => None,
        }
    }
}

/// The contents of the file at `path`, unpacked into a file without a name, in the directory for temporary files.
///
/// # Errors
/// If it is damaged, or if there is no room for its contents.
pub(super) fn unpack(path: &Path, compression: Compression) -> io::Result<MappedFile> {
    let packed = File::open(path)?;
    let mut unpacked = unnamed()?;
    match compression {
        Compression::Zstd => copy(&mut zstd::stream::read::Decoder::new(packed)?, &mut unpacked)?,
        Compression::Gzip => copy(&mut flate2::read::MultiGzDecoder::new(packed), &mut unpacked)?,
        Compression::Other(command) => {
            return Err(io::Error::new(io::ErrorKind::Unsupported, format!("unpack it first: {command}")));
        }
    }
    use std::os::fd::AsRawFd as _;
    MappedFile::open(Path::new(&format!("/proc/self/fd/{}", unpacked.as_raw_fd())))
}

fn unnamed() -> io::Result<File> {
    let directory = std::env::temp_dir();
    let mode = Mode::RUSR | Mode::WUSR;
    let file = rustix::fs::open(&directory, OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC, mode);
    let named = |error: rustix::io::Errno| {
        io::Error::new(io::Error::from(error).kind(), format!("{}: {error}", directory.display()))
    };
    file.map(File::from).map_err(named)
}

fn copy(from: &mut impl Read, to: &mut File) -> io::Result<()> {
    let no_room = |error: io::Error| {
        let directory = std::env::temp_dir();
        io::Error::new(
            error.kind(),
            format!("{error}: set TMPDIR to a directory with room, not {}", directory.display()),
        )
    };
    let mut block = vec![0; BLOCK];
    loop {
        let mut filled = 0;
        while let Some(rest) = block.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match from.read(rest)? {
                0 => break,
                more => filled += more,
            }
        }
        let Some(bytes) = block.get(..filled).filter(|bytes| !bytes.is_empty()) else {
            let length = to.stream_position()?;
            return to.set_len(length);
        };
        if bytes.iter().all(|byte| *byte == 0) {
            to.seek(SeekFrom::Current(i64::try_from(filled).unwrap_or(i64::MAX)))?;
        } else {
            to.write_all(bytes).map_err(no_room)?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_formats_are_unpacked_to_the_same_bytes() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("core");
        // Zeroes between and at the end.
        let mut contents = vec![0; 5 * BLOCK + 7];
        contents.iter_mut().step_by(3 * BLOCK).for_each(|byte| *byte = 7);
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&contents).unwrap();
        let zstd = zstd::encode_all(contents.as_slice(), 1).unwrap();
        for packed in [gzip.finish().unwrap(), zstd] {
            std::fs::write(&path, &packed).unwrap();
            let compression = Compression::of(&packed).unwrap();
            assert!(*unpack(&path, compression).unwrap() == *contents, "{compression:?}");
            // Cut short.
            std::fs::write(&path, packed.get(..packed.len() / 2).unwrap()).unwrap();
            assert!(unpack(&path, compression).is_err(), "{compression:?}");
        }
        assert_eq!(Compression::of(b"\x7fELF"), None);
    }
}
