//! The bytes of a section, whether plain or compressed, through windows of bounded size.

use std::io::{self, Read};
use std::ops::Range;

use object::elf;

use super::image::{Image, Section};
use crate::debuginfo::bounded_file::BoundedFile;

/// How far a compressed section is read. Its end cannot be reached without all before it.
const MAX_INFLATED: u64 = 4 << 20;
/// The largest window that zstd may use, as a power of two: linkers use up to 8 MB.
const MAX_WINDOW_LOG: u32 = 24;
/// Compressed bytes that are read for that.
const MAX_DEFLATED: u64 = 2 << 20;

/// A section's bytes.
pub(crate) enum Contents<'f> {
    /// In the file as they are.
    Plain { file: &'f BoundedFile, offset: u64, size: u64 },
    /// Decompressed as far as the limit allows.
    Inflated { bytes: Vec<u8>, cut: bool },
}

impl<'f> Contents<'f> {
    /// Opens a section; decompresses the first few MiB of a compressed one.
    ///
    /// # Errors
    /// Those of reading the file; `InvalidData` where the compression is unknown or the stream is damaged.
    pub(crate) fn open(image: &'f Image, section: &Section) -> io::Result<Contents<'f>> {
        let file = &image.file;
        if section.kind == elf::SHT_NOBITS {
            return Ok(Contents::Inflated { bytes: Vec::new(), cut: false });
        }
        let Some(compression) = section.compression else {
            return Ok(Contents::Plain { file, offset: section.offset, size: section.size });
        };
        let start = section.offset.saturating_add(compression.header);
        let end = section.offset.saturating_add(section.size).min(start.saturating_add(MAX_DEFLATED));
        let mut deflated = Vec::new();
        let deflated = file.window(start..end, &mut deflated)?;
        let complete = end == section.offset.saturating_add(section.size);
        let (bytes, cut) = match compression.kind {
            elf::ELFCOMPRESS_ZLIB => inflate(deflated, MAX_INFLATED),
            elf::ELFCOMPRESS_ZSTD => match zstd_decoder(deflated) {
                Ok(decoder) => drain(decoder, MAX_INFLATED),
                Err(_) => (Vec::new(), true),
            },
            _ => return Err(io::Error::new(io::ErrorKind::InvalidData, "unknown compression")),
        };
        if bytes.is_empty() && !deflated.is_empty() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "damaged compressed data"));
        }
        Ok(Contents::Inflated { bytes, cut: cut || !complete })
    }

    /// Whether its end is out of reach.
    pub(crate) fn is_cut(&self) -> bool {
        matches!(self, Contents::Inflated { cut: true, .. })
    }

    /// The bytes that can be had, which for a cut section is not all.
    pub(crate) fn len(&self) -> u64 {
        match self {
            Contents::Plain { size, .. } => *size,
            Contents::Inflated { bytes, .. } => bytes.len() as u64,
        }
    }

    /// The bytes of `range`, fewer where the section ends or the file's budget is used up.
    pub(crate) fn window<'b>(&'b self, range: Range<u64>, buf: &'b mut Vec<u8>) -> io::Result<&'b [u8]> {
        match self {
            Contents::Plain { file, offset, size } => {
                let end = range.end.min(*size);
                let start = range.start.min(end);
                file.window(offset.saturating_add(start)..offset.saturating_add(end), buf)
            }
            Contents::Inflated { bytes, .. } => {
                let end = usize::try_from(range.end).unwrap_or(usize::MAX).min(bytes.len());
                let start = usize::try_from(range.start).unwrap_or(usize::MAX).min(end);
                Ok(bytes.get(start..end).unwrap_or_default())
            }
        }
    }
}

fn zstd_decoder(deflated: &[u8]) -> io::Result<impl Read> {
    let mut decoder = zstd::stream::read::Decoder::with_buffer(deflated)?;
    decoder.window_log_max(MAX_WINDOW_LOG)?;
    Ok(decoder)
}

/// Decompresses a zlib stream up to `limit` bytes. Tells whether that was not all, or the stream broke off.
pub(crate) fn inflate(deflated: &[u8], limit: u64) -> (Vec<u8>, bool) {
    drain(flate2::read::ZlibDecoder::new(deflated), limit)
}

fn drain(mut decoder: impl Read, limit: u64) -> (Vec<u8>, bool) {
    let mut bytes = Vec::new();
    let mut chunk = [0; 8192];
    loop {
        match decoder.read(&mut chunk) {
            Ok(0) => return (bytes, false),
            Ok(n) => {
                bytes.extend_from_slice(chunk.get(..n).unwrap_or_default());
                if bytes.len() as u64 > limit {
                    bytes.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
                    return (bytes, true);
                }
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return (bytes, true),
        }
    }
}
