//! A forked image of the other process, from the helper's side. The rules of `sys.rs` apply.

use std::ffi::CStr;
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use rustix::fs::{CWD, Mode, OFlags, openat};

use super::refusal::Refusal;
use super::sys::{self, Stop};
use crate::targets::other_process::task_files::{join, number};

/// How long a new process takes to stop at its first instruction.
const FIRST_STOP: Duration = Duration::from_secs(5);
/// How long a process takes to end that has gigabytes of memory.
const END: Duration = Duration::from_secs(5);

/// A process that never runs, and whose memory is a copy of another one's.
pub(super) struct Image {
    pid: i32,
    /// Its id in its own pid namespace; 0 if not known.
    own_id: i32,
}

impl Image {
    /// `own_id` is the result of the call that made the process.
    pub(super) fn new(pid: i32, own_id: i64) -> Self {
        Self { pid, own_id: i32::try_from(own_id).ok().filter(|id| *id > 0).unwrap_or(0) }
    }

    /// Has the kernel kill the image before the process, if memory runs out. Later captures recognise it by this.
    pub(super) fn mark(&self) {
        self.write(b"/oom_score_adj\0", 0, b"1000");
    }

    /// Waits until the new process has stopped. `stack` is what belongs at an address of its stack.
    ///
    /// If the helper ends before, the process ends by its first instruction. `meanwhile` is called again and again.
    pub(super) fn adopt(
        &self,
        stack: (u64, &[u8]),
        step: &mut dyn FnMut(),
        meanwhile: &mut dyn FnMut(),
    ) -> Result<(), Refusal> {
        let until = Instant::now() + FIRST_STOP;
        let stop = loop {
            meanwhile();
            let stop = sys::wait_for_stop(self.pid, Instant::now() + Duration::from_millis(1));
            if stop.is_some() || Instant::now() >= until {
                break stop;
            }
        };
        step();
        // From here on, it ends with the helper.
        if stop != Some(Stop::Interrupted) || sys::set_options(self.pid, libc::PTRACE_O_EXITKILL).is_err() {
            return Err(Refusal::Image);
        }
        step();
        let (address, bytes) = stack;
        self.write(b"/mem\0", address, bytes);
        Ok(())
    }

    pub(super) fn pid(&self) -> i32 {
        self.pid
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
