//! Copies stack pages after a fork, before threads resume.
//!
//! After a fork, the first write to each page copies it. If a running thread does this, the kernel has to flush the page's
//! address from the caches (TLB) of the other processors: about 10 µs per page on virtual machines, and all threads do so
//! when they resume. While the threads are stopped, no other processor runs this program, and no flush is needed.
//!
//! [`unshare`] obeys the rules of the window (`capture_session.rs`).

use super::slots::Content;
use super::sys;

/// Bytes below the stack pointer, and below the handler's variables, that a resumed thread writes soon.
const USED_SOON: u64 = 256;

/// Properties of the process that are read before the window.
#[derive(Clone, Copy)]
pub(super) struct ThreadLayout {
    /// Size of a page in bytes.
    page: u64,
    /// Offset of libc's `struct rseq` from the thread pointer.
    rseq: u64,
}

impl ThreadLayout {
    pub(super) fn find() -> Self {
        // SAFETY: the variable of glibc (2.35 and later) is a constant `ptrdiff_t`.
        let rseq = unsafe {
            let offset = libc::dlsym(libc::RTLD_DEFAULT, c"__rseq_offset".as_ptr()).cast::<isize>();
            offset.as_ref().copied().unwrap_or(0)
        };
        Self { page: super::page_size() as u64, rseq: rseq as u64 }
    }
}

/// Copies the pages that each thread writes when it resumes.
pub(super) fn unshare<'c>(threads: impl Iterator<Item = &'c Content>, layout: ThreadLayout) {
    let within = layout.page.wrapping_sub(1);
    for content in threads {
        let (handler, (sp, tls)) = (content.handler_at, content.context.stack());
        let rseq = tls.wrapping_add(layout.rseq);
        // In the order of their addresses, if all are on the same stack. To the last, the kernel writes the number of the
        // processor that the thread runs on (rseq(2)).
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
