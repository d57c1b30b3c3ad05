//! A forked image of the other process, from the helper's side. The rules of `sys.rs` apply.

use std::ffi::CStr;
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use rustix::fs::{CWD, Mode, OFlags, openat};

use super::Refusal;
use super::sys::{self, Stop};
use crate::targets::other_process::task_files::{join, number};

/// How long a new process takes to stop at its first instruction.
const FIRST_STOP: Duration = Duration::from_secs(1);
/// How long a process takes to end that has gigabytes of memory.
const END: Duration = Duration::from_secs(5);

/// A process that never runs, and whose memory is a copy of another one's.
pub(super) struct Image {
    pid: i32,
    /// Its id in its own pid namespace; 0 if not known.
    own_id: i32,
}

impl Image {
    /// Waits until the new process has stopped. `stack` is what belongs at an address of its stack.
    pub(super) fn adopt(pid: i32, stack: (u64, &[u8]), step: &mut dyn FnMut()) -> Result<Self, Refusal> {
        let image = Self { pid, own_id: 0 };
        if sys::wait_for_stop(pid, Instant::now() + FIRST_STOP) != Some(Stop::Interrupted) {
            image.kill();
            return Err(Refusal::Image);
        }
        step();
        // From here on, it ends with the helper. Until then, it would end by its first instruction.
        if sys::set_options(pid, libc::PTRACE_O_EXITKILL).is_err() {
            image.kill();
            return Err(Refusal::Image);
        }
        step();
        // If memory runs out, the kernel kills the image before the process.
        image.write(b"/oom_score_adj\0", 0, b"1000");
        let (address, bytes) = stack;
        image.write(b"/mem\0", address, bytes);
        Ok(image)
    }

    pub(super) fn pid(&self) -> i32 {
        self.pid
    }

    /// `id` is the result of the call that made it.
    pub(super) fn set_its_own_id(&mut self, id: i64) {
        self.own_id = i32::try_from(id).ok().filter(|id| *id > 0).unwrap_or(0);
    }

    fn kill(&self) {
        sys::kill(self.pid, libc::SIGKILL);
    }

    /// Writes to one of its files in `/proc`. `file` begins with a slash, and ends with a NUL.
    fn write(&self, file: &[u8], offset: u64, bytes: &[u8]) {
        let (mut path, mut digits) = ([0; 64], [0; 10]);
        let path: Option<&CStr> = join(&mut path, &[b"/proc/", number(&mut digits, self.pid), file]);
        let opened =
            path.and_then(|path| openat(CWD, path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()).ok());
        if let Some(opened) = opened {
            let _written = sys::write_memory(opened.as_fd(), offset, bytes);
        }
    }

    /// Ends it. Returns its id in its own pid namespace, if its parent has to reap it.
    pub(super) fn end(self) -> Option<i32> {
        self.kill();
        let deadline = Instant::now() + END;
        loop {
            match sys::wait_for_stop(self.pid, deadline) {
                Some(Stop::Ended) | None => break,
                Some(_) => {}
            }
        }
        Some(self.own_id).filter(|id| *id > 0)
    }
}
