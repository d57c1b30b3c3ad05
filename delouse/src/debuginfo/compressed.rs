//! Compressed sections (`SHF_COMPRESSED`), unpacked into memory that no capture copies or searches.

use object::LittleEndian;
use object::elf::{CompressionHeader64, ELFCOMPRESS_ZLIB, ELFCOMPRESS_ZSTD};
use object::pod::from_bytes;

use crate::host::file_parts::{Missing, filled};
use crate::host::shared_bytes::SharedBytes;

/// Deflate reaches 1,032 : 1; whatever claims more is damaged.
const MAX_RATIO: u64 = 1_100;
/// No section may unpack to more, whatever memory there is.
const MAX_UNPACKED: u64 = 4 << 30;

/// What a compressed section holds, `stored` being its header and its data.
pub(super) fn unpack(stored: &[u8]) -> Result<SharedBytes, Missing> {
    let header = || {
        let (header, data) = from_bytes::<CompressionHeader64<LittleEndian>>(stored).ok()?;
        let size = header.ch_size.get(LittleEndian);
        let is_sound = size <= MAX_UNPACKED && size <= (data.len() as u64).saturating_mul(MAX_RATIO);
        is_sound.then_some((header.ch_type.get(LittleEndian), usize::try_from(size).ok()?, data))
    };
    let (kind, size, data) = header().ok_or(Missing::Absent)?;
    filled(size, |into| {
        let written = match kind {
            ELFCOMPRESS_ZLIB => {
                let mut inflate = flate2::Decompress::new(true);
                inflate.decompress(data, into, flate2::FlushDecompress::Finish).ok()?;
                usize::try_from(inflate.total_out()).ok()?
            }
            ELFCOMPRESS_ZSTD => {
                zstd::bulk::Decompressor::new().ok()?.decompress_to_buffer(data, into).ok()?
            }
            _ => return None,
        };
        (written == into.len()).then_some(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    fn header(kind: u32, size: usize) -> Vec<u8> {
        let mut bytes = [kind.to_le_bytes(), [0; 4]].concat();
        bytes.extend_from_slice(&(size as u64).to_le_bytes());
        bytes.extend_from_slice(&1_u64.to_le_bytes());
        bytes
    }

    #[test]
    fn both_ways_are_unpacked_and_nothing_else() {
        let content: Vec<u8> = (0..300_000_u32).map(|n| (n / 11) as u8).collect();
        let mut zlib = flate2::write::ZlibEncoder::new(
            header(ELFCOMPRESS_ZLIB.0, content.len()),
            flate2::Compression::fast(),
        );
        zlib.write_all(&content).unwrap();
        let zlib = zlib.finish().unwrap();
        let mut zstd = header(ELFCOMPRESS_ZSTD.0, content.len());
        zstd.extend(zstd::bulk::compress(&content, 1).unwrap());
        for packed in [&zlib, &zstd] {
            assert_eq!(*unpack(packed).unwrap(), content);
            for cut in [0, 10, 24, packed.len() / 2] {
                assert_eq!(unpack(&packed[..cut]).unwrap_err(), Missing::Absent, "{cut}");
            }
        }
        for (kind, size) in [(9, 8), (ELFCOMPRESS_ZLIB.0, 1 << 40), (ELFCOMPRESS_ZSTD.0, usize::MAX)] {
            let damaged = [header(kind, size), zlib[24..].to_vec()].concat();
            assert_eq!(unpack(&damaged).unwrap_err(), Missing::Absent);
        }
    }
}
