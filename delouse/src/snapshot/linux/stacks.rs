//! The stacks of threads that go on after a fork.
//!
//! A fork leaves every page to be copied by the first who writes it. A thread that does so itself has the other
//! processors forget the old page, each time: some 10 µs on virtual machines, while all threads want to go on. Before
//! they do, no other processor runs this program, and copying is all that their pages cost.
//!
//! Rules of [`unshare`]: those of the window (`engine.rs`).

use super::slots::Content;
use super::sys;

/// What a thread soon writes below its stack pointer and below the handler's variables, in bytes.
const USED_SOON: u64 = 256;

/// What has to be asked for before the window.
#[derive(Clone, Copy)]
pub(super) struct Places {
    /// Bytes of a page.
    page: u64,
    /// Where libc has a thread's `struct rseq`, from its thread pointer on.
    rseq: u64,
}

impl Places {
    pub(super) fn find() -> Self {
        // SAFETY: asks for a variable of glibc's (2.35 and later), which is a `ptrdiff_t` that never changes.
        let rseq = unsafe {
            let offset = libc::dlsym(libc::RTLD_DEFAULT, c"__rseq_offset".as_ptr()).cast::<isize>();
            offset.as_ref().copied().unwrap_or(0)
        };
        Self { page: super::page_size() as u64, rseq: rseq as u64 }
    }
}

/// Gives each thread the pages of its stack that it writes as soon as it goes on.
pub(super) fn unshare<'c>(threads: impl Iterator<Item = &'c Content>, places: Places) {
    let within = places.page.wrapping_sub(1);
    for content in threads {
        let (handler, (sp, tls)) = (content.handler_at, content.context.stack());
        let rseq = tls.wrapping_add(places.rseq);
        // In the order of their addresses, where they are on one stack. The last is where the kernel writes which
        // processor a thread runs on (rseq(2)).
        let soon =
            [(handler.wrapping_sub(USED_SOON), handler), (sp.wrapping_sub(USED_SOON), sp), (rseq, rseq)];
        let mut done = 0..0;
        for (from, to) in soon {
            let (start, end) = (from & !within, (to | within).wrapping_add(1));
            let start = if done.contains(&start) { done.end } else { start };
            if start < end {
                sys::populate(start, end.wrapping_sub(start));
                done = start..end;
            }
        }
    }
}
