//! Measures how much of the program's memory is in huge pages.

use std::fs::File;
use std::ops::Range;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::FileExt as _;

use super::page_size;
use super::pagemap::{FILE, PRESENT};
use crate::snapshot::{Address, Mapping};

/// Address space that one call scans: the kernel holds its locks during the call.
const PART: u64 = 1 << 30;
/// The smallest size of a huge page, and its alignment.
const HUGE: u64 = 2 << 20;
/// An `ioctl` of pagemap files, and its categories of pages (linux/fs.h, since Linux 6.7).
const PAGEMAP_SCAN: u32 = 0xc060_6610;
const PAGE_IS_FILE: u64 = 1 << 2;
/// The shared page of zeroes, which the kernel maps for reads of memory that was never written.
const PAGE_IS_PFNZERO: u64 = 1 << 5;
const PAGE_IS_HUGE: u64 = 1 << 6;

/// `struct pm_scan_arg`.
#[repr(C)]
#[derive(Default)]
struct ScanArguments {
    size: u64,
    flags: u64,
    start: u64,
    end: u64,
    walk_end: u64,
    regions: u64,
    regions_len: u64,
    max_pages: u64,
    category_inverted: u64,
    category_mask: u64,
    category_anyof_mask: u64,
    return_mask: u64,
}

/// `struct page_region`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Region {
    start: u64,
    end: u64,
    categories: u64,
}

/// Anonymous memory of `mappings` in huge pages, in bytes. `None` if the kernel does not report it.
///
/// Scans page tables: 2 ms per gigabyte in 4K pages.
pub(super) fn bytes(mappings: &[Mapping]) -> Option<u64> {
    let pagemap = File::open("/proc/self/pagemap").ok()?;
    mappings
        .iter()
        .filter(|mapping| is_joinable(mapping))
        .map(|m| huge_in(&pagemap, Address::words(&m.range)))
        .sum()
}

/// Whether it is writable private memory without a file, and large enough for a huge page.
pub(super) fn is_joinable(mapping: &Mapping) -> bool {
    mapping.write && !mapping.shared && mapping.inode == 0 && mapping.size() >= HUGE
}

/// Anonymous memory of `range` in huge pages, in bytes; `None` if the kernel does not report it.
pub(super) fn huge_in(pagemap: &File, range: Range<u64>) -> Option<u64> {
    let mut regions = [Region::default(); 64];
    let (mut huge, mut at) = (0_u64, range.start);
    while at < range.end {
        let mut arguments = ScanArguments {
            size: size_of::<ScanArguments>() as u64,
            start: at,
            // Parts end at boundaries of huge pages.
            end: range.end.min(at.saturating_add(PART) / HUGE * HUGE),
            regions: regions.as_mut_ptr().expose_provenance() as u64,
            regions_len: regions.len() as u64,
            category_inverted: PAGE_IS_FILE | PAGE_IS_PFNZERO,
            category_mask: PAGE_IS_HUGE | PAGE_IS_FILE | PAGE_IS_PFNZERO,
            return_mask: PAGE_IS_HUGE,
            ..ScanArguments::default()
        };
        // SAFETY: the kernel writes to `arguments` and to at most `regions_len` elements of `regions`.
        let filled = unsafe { libc::ioctl(pagemap.as_raw_fd(), PAGEMAP_SCAN as _, &raw mut arguments) };
        let filled = regions.get(..usize::try_from(filled).ok()?)?;
        for region in filled {
            // Before Linux 6.16, the result includes huge pages of zeroes, which their entries mark as file pages.
            let blocks = (region.start..region.end).step_by(HUGE as usize);
            huge += HUGE * blocks.filter(|block| is_anonymous(pagemap, *block)).count() as u64;
        }
        at = Some(arguments.walk_end).filter(|end| *end > at)?;
    }
    Some(huge)
}

/// Whether a page is present at `address` that is not a file page.
fn is_anonymous(pagemap: &File, address: u64) -> bool {
    let mut entry = [0; 8];
    let read = pagemap.read_exact_at(&mut entry, address / page_size() as u64 * 8);
    read.is_ok() && u64::from_ne_bytes(entry) & (PRESENT | FILE) == PRESENT
}
