//! Joining of memory into huge pages.

use super::forked::FORCED;
use super::{isolated, test_name};
use crate::snapshot::{Address, Snapshot};
use crate::targets::this_process::{fork_cost, own_mappings};
use crate::targets::{fork, join_huge_pages};

const HUGE: usize = 2 << 20;

/// Memory of the size of `count` huge pages, of which every small page is written. They may be joined if `allowed`.
fn small_pages(count: usize, allowed: bool) -> &'static mut [u64] {
    let access = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: a fresh mapping, which stays; room to align it.
    unsafe {
        let base = libc::mmap(std::ptr::null_mut(), (count + 1) * HUGE, access, flags, -1, 0);
        assert_ne!(base, libc::MAP_FAILED);
        let base = base.byte_add(base.align_offset(HUGE));
        assert_eq!(libc::madvise(base, count * HUGE, libc::MADV_NOHUGEPAGE), 0);
        let words = std::slice::from_raw_parts_mut(base.cast::<u64>(), count * HUGE / 8);
        (0_u64..).zip(&mut *words).for_each(|(number, word)| *word = number);
        if allowed {
            assert_eq!(libc::madvise(base, count * HUGE, libc::MADV_HUGEPAGE), 0);
        }
        words
    }
}

fn anonymous_kb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Pages that were read and never written take no memory unless they are joined.
#[test]
fn pages_of_zeroes_are_not_joined() {
    isolated(test_name!(pages_of_zeroes_are_not_joined), || {
        let block = small_pages(20, true);
        // SAFETY: our own memory, which reads as zeroes from then on.
        unsafe { assert_eq!(libc::madvise(block.as_mut_ptr().cast(), 20 * HUGE, libc::MADV_DONTNEED), 0) };
        // SAFETY: as above; small pages, please.
        unsafe { assert_eq!(libc::madvise(block.as_mut_ptr().cast(), 20 * HUGE, libc::MADV_NOHUGEPAGE), 0) };
        for blocks in block.chunks_mut(HUGE / 8) {
            assert!(blocks.iter().step_by(512).all(|word| std::hint::black_box(*word) == 0));
            blocks[5000] = 1;
        }
        // SAFETY: as above.
        unsafe { assert_eq!(libc::madvise(block.as_mut_ptr().cast(), 20 * HUGE, libc::MADV_HUGEPAGE), 0) };
        let before = anonymous_kb();
        match join_huge_pages() {
            Ok(_) => assert!(anonymous_kb() < before + 4096, "{before} kB, then {} kB", anonymous_kb()),
            Err(why) => skipped!("{why}"),
        }
    });
}

#[test]
fn blocks_of_present_pages_are_joined() {
    isolated(test_name!(blocks_of_present_pages_are_joined), || {
        let block = small_pages(60, true);
        let kept = small_pages(8, false);
        // A page in the middle of the third block is not present.
        // SAFETY: one page of our own memory, which reads as zeroes from then on.
        unsafe {
            let hole = block.as_mut_ptr().byte_add(2 * HUGE + HUGE / 2);
            assert_eq!(libc::madvise(hole.cast(), 4096, libc::MADV_DONTNEED), 0);
        }
        let before = (fork_cost::predict(1).unwrap(), anonymous_kb());
        let joined = match join_huge_pages() {
            Ok(joined) => joined,
            Err(why) => return skipped!("{why}"),
        };
        let Some(huge) = joined.huge else { return skipped!("{:?}", joined.notes) };
        assert!((59 << 21..65 << 21).contains(&huge), "{huge}");
        assert!(joined.notes.iter().any(|note| note == "the kernel did not join 16 MB"), "{joined:?}");
        assert!(anonymous_kb() < before.1 + 1024, "{} kB, then {} kB", before.1, anonymous_kb());
        let after = fork_cost::predict(1).unwrap();
        assert!(after.huge >= 59 << 21, "{after:?}");
        // khugepaged may have joined some before.
        assert!(after.huge > before.0.huge * 2 && after.pause < before.0.pause, "{before:?} {after:?}");

        let image = fork(FORCED).unwrap();
        let hole = (2 * HUGE + HUGE / 2) / 8..(2 * HUGE + HUGE / 2 + 4096) / 8;
        for (number, word) in block.iter().enumerate().chain(kept.iter().enumerate()) {
            let is_hole =
                hole.contains(&number) && (&raw const *word).addr() < block.as_ptr_range().end.addr();
            assert!(*word == number as u64 || is_hole && *word == 0);
        }
        block.fill(0);
        let place = block.as_ptr().addr() as u64 + 5 * HUGE as u64;
        assert_eq!(image.read_u64(Address::new(place)), Some(5 * HUGE as u64 / 8));
        let mut found = Vec::new();
        let range = place..place + HUGE as u64;
        let rest = image.search(Address::range(range), &(700_000..=700_001), &mut |_, word| found.push(word));
        assert_eq!((rest, found), (Vec::new(), Vec::new()));
        assert!(!own_mappings().unwrap().is_empty());
        image.intact().unwrap();
    });
}
