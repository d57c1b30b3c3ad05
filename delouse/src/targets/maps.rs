//! Parses `/proc/PID/maps`.

use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use crate::host::proc_text::{decimal, hexadecimal};
use crate::snapshot::{Address, FileOffset, Mapping};

/// The most mappings that are parsed. `vm.max_map_count` is 65,530 by default, and may be raised.
const MOST_MAPPINGS: usize = 1 << 20;
/// Longer than any line that the kernel writes.
const LONGEST_LINE: u64 = 16 << 10;

/// The mappings of this process.
#[cfg(any(feature = "dump", test))]
pub(crate) fn own_mappings() -> io::Result<Vec<Mapping>> {
    std::fs::File::open("/proc/self/maps").and_then(read)
}

/// Parses an open `maps` file. Returns the mappings ordered by address.
pub(super) fn read(file: impl Read) -> io::Result<Vec<Mapping>> {
    let mut reader = BufReader::with_capacity(64 << 10, file);
    let mut mappings: Vec<Mapping> = Vec::with_capacity(256);
    let mut line = Vec::with_capacity(256);
    while mappings.len() < MOST_MAPPINGS {
        line.clear();
        if reader.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut line)? == 0 {
            break;
        }
        let Some(mapping) = parse_line(line.trim_ascii_end()) else { continue };
        // The file is read in several calls, between which the program may have changed its mappings: skip overlaps.
        if mappings.last().is_none_or(|last| last.range.end <= mapping.range.start) {
            mappings.push(mapping);
        }
    }
    Ok(mappings)
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
        range: Address::range(start..end),
        read: read == b'r',
        write: write == b'w',
        execute: execute == b'x',
        shared: shared == b's',
        offset: FileOffset::new(offset),
        device: libc::makedev(major, minor),
        inode,
        path: path.map(|path| PathBuf::from(std::ffi::OsStr::from_bytes(&unescape(path)))),
    })
}

/// Replaces `\012` by a newline: the only character that the kernel escapes in paths.
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
        assert_eq!(Address::words(&first.range), 0x7f00..0x8f00);
        assert!(first.read && first.write && !first.execute && !first.shared);
        assert_eq!((first.offset.get(), first.inode), (0x1000, 1234));
        assert_eq!(first.device, libc::makedev(0xfe, 1));
        assert_eq!(first.path, Some(PathBuf::from("/a path/with\nnewline (deleted)")));
        assert!(mappings[1].shared && mappings[1].execute && mappings[1].path.is_none());
        assert_eq!(mappings[2].path, Some(PathBuf::from("[stack]")));
    }

    #[test]
    fn own_mappings_include_this_function_and_this_stack() {
        let mappings = own_mappings().unwrap();
        let here = own_mappings_include_this_function_and_this_stack as *const () as u64;
        let local = 0_u8;
        let mapping =
            |address: u64| mappings.iter().find(|m| m.range.contains(&Address::new(address))).unwrap();
        assert!(mapping(here).execute && mapping(here).path.is_some());
        assert!(mapping((&raw const local) as u64).write);
        assert!(mappings.is_sorted_by(|a, b| a.range.end <= b.range.start));
    }

    #[test]
    fn malformed_input_never_panics() {
        let good = std::fs::read("/proc/self/maps").unwrap();
        let mut random = crate::host::random::Random::new(3);
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
