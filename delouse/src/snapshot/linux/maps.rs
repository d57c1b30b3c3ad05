//! `/proc/PID/maps`.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use super::proc::{decimal, hexadecimal};
use crate::snapshot::{Mapping, SnapshotError};

/// `vm.max_map_count` is 65,530 by default, and some programs raise it: more than this is not parsed.
const MOST_MAPPINGS: usize = 1 << 20;
/// Longer than any path that the kernel prints there.
const LONGEST_LINE: u64 = 16 << 10;

/// The mappings of this process.
pub(super) fn own() -> Result<Vec<Mapping>, SnapshotError> {
    let file = std::fs::File::open("/proc/self/maps").map_err(failed)?;
    read(file)
}

/// The mappings that an open `maps` file tells, in its order: by address.
pub(super) fn read(file: impl Read) -> Result<Vec<Mapping>, SnapshotError> {
    let mut reader = BufReader::with_capacity(64 << 10, file);
    let mut mappings: Vec<Mapping> = Vec::with_capacity(256);
    let mut line = Vec::with_capacity(256);
    while mappings.len() < MOST_MAPPINGS {
        line.clear();
        if reader.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut line).map_err(failed)? == 0 {
            break;
        }
        let Some(mapping) = parse_line(line.trim_ascii_end()) else { continue };
        // The file is read in pieces, between which the program may have changed it.
        if mappings.last().is_none_or(|last| last.range.end <= mapping.range.start) {
            mappings.push(mapping);
        }
    }
    Ok(mappings)
}

fn failed(error: std::io::Error) -> SnapshotError {
    SnapshotError::Proc("/proc/self/maps", error.raw_os_error().unwrap_or(libc::EIO))
}

/// One line (proc(5)): `start-end rwxp offset major:minor inode path`.
fn parse_line(line: &[u8]) -> Option<Mapping> {
    let mut fields = line.splitn(6, |&b| b == b' ');
    let mut range = fields.next()?.split(|&b| b == b'-');
    let start = hexadecimal(range.next()?)?;
    let end = hexadecimal(range.next()?)?;
    let [read, write, execute, shared] = *fields.next()? else { return None };
    let offset = hexadecimal(fields.next()?)?;
    let mut device = fields.next()?.split(|&b| b == b':');
    let major = u32::try_from(hexadecimal(device.next()?)?).ok()?;
    let minor = u32::try_from(hexadecimal(device.next()?)?).ok()?;
    let inode = decimal(fields.next()?)?;
    let path = fields.next().map(<[u8]>::trim_ascii_start).filter(|path| !path.is_empty());
    (start < end).then(|| Mapping {
        range: start..end,
        read: read == b'r',
        write: write == b'w',
        execute: execute == b'x',
        shared: shared == b's',
        offset,
        device: libc::makedev(major, minor),
        inode,
        path: path.map(|path| PathBuf::from(std::ffi::OsStr::from_bytes(&unescape(path)))),
    })
}

/// The kernel writes a newline in a path as `\012`, and nothing else in octal.
fn unescape(path: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some((&byte, after)) = rest.split_first() {
        match after.strip_prefix(b"012") {
            Some(after) if byte == b'\\' => {
                plain.push(b'\n');
                rest = after;
            }
            _ => {
                plain.push(byte);
                rest = after;
            }
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_field_is_read() {
        let text = b"7f00-8f00 rw-p 00001000 fe:01 1234   /a path/with\\012newline (deleted)\n\
                     9000-a000 r-xs 00000000 00:00 0 \n\
                     b000-c000 ---p 00000000 00:00 0     [stack]";
        let mappings = read(&text[..]).unwrap();
        assert_eq!(mappings.len(), 3);
        let first = &mappings[0];
        assert_eq!(first.range, 0x7f00..0x8f00);
        assert!(first.read && first.write && !first.execute && !first.shared);
        assert_eq!((first.offset, first.inode), (0x1000, 1234));
        assert_eq!(first.device, libc::makedev(0xfe, 1));
        assert_eq!(first.path, Some(PathBuf::from("/a path/with\nnewline (deleted)")));
        assert!(mappings[1].shared && mappings[1].execute && mappings[1].path.is_none());
        assert_eq!(mappings[2].path, Some(PathBuf::from("[stack]")));
    }

    #[test]
    fn our_own_mappings_hold_this_function_and_this_stack() {
        let mappings = own().unwrap();
        let here = our_own_mappings_hold_this_function_and_this_stack as *const () as u64;
        let local = 0_u8;
        let of = |address: u64| mappings.iter().find(|m| m.range.contains(&address)).unwrap();
        assert!(of(here).execute && of(here).path.is_some());
        assert!(of((&raw const local) as u64).write);
        assert!(mappings.is_sorted_by(|a, b| a.range.end <= b.range.start));
    }

    #[test]
    fn whatever_stands_there_nothing_panics() {
        let good = std::fs::read("/proc/self/maps").unwrap();
        let mut random = super::super::tests::Random::new(3);
        for _ in 0..2_000 {
            let mut text = good.clone();
            for _ in 0..random.below(40) {
                let at = random.below(text.len());
                text[at] = random.next() as u8;
            }
            text.truncate(random.below(text.len() + 1));
            let mappings = read(&text[..]).unwrap();
            assert!(mappings.is_sorted_by(|a, b| a.range.end <= b.range.start));
        }
    }
}
