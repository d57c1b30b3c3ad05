//! Why there is no image.

/// Why there is no image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Refusal {
    /// No thread waits in a futex or `epoll_wait`.
    NoWaiter = 1,
    /// Another process traces it.
    Traced,
    /// The thread has ended.
    Ended,
    /// It is stopped by a signal.
    Stopped,
    /// A signal was delivered meanwhile.
    Signal,
    /// It is not a 64-bit program, or its registers are of an unknown form.
    Foreign,
    /// The instructions are not there.
    NoGadgets,
    /// There is no room on its stack.
    NoStack,
    /// A system-call filter would see the call.
    Filter,
    /// The thread did not wait any more.
    Awake,
    /// The call failed.
    Clone,
    /// The image ended at once.
    Image,
    /// The helper has no timer.
    NoTimer,
    /// The helper ended.
    Helper,
}

impl Refusal {
    /// By its number.
    pub(super) fn of(number: u32) -> Option<Self> {
        const ALL: [Refusal; 14] = [
            Refusal::NoWaiter,
            Refusal::Traced,
            Refusal::Ended,
            Refusal::Stopped,
            Refusal::Signal,
            Refusal::Foreign,
            Refusal::NoGadgets,
            Refusal::NoStack,
            Refusal::Filter,
            Refusal::Awake,
            Refusal::Clone,
            Refusal::Image,
            Refusal::NoTimer,
            Refusal::Helper,
        ];
        ALL.into_iter().find(|refusal| *refusal as u32 == number)
    }

    /// The reason, for the capture's notes.
    pub(super) fn text(self, errno: i32) -> String {
        let error = || std::io::Error::from_raw_os_error(errno);
        match self {
            Self::NoWaiter => "none of its threads waits in a futex or in epoll_wait".to_owned(),
            Self::Traced => "another process traces it".to_owned(),
            Self::Ended => "it ended or replaced its program meanwhile".to_owned(),
            Self::Stopped => "it is stopped by a signal".to_owned(),
            Self::Signal => "a signal was delivered to it meanwhile: repeat the command".to_owned(),
            Self::Foreign => "it is not a 64-bit program, or its registers are of an unknown form".to_owned(),
            Self::NoGadgets => "its code has no known system-call instructions (or it replaced its program)".to_owned(),
            Self::NoStack => "its thread has less than 16 KB of stack left".to_owned(),
            Self::Filter => {
                "it has a system-call filter (seccomp), which may only be suspended with CAP_SYS_ADMIN: run the command as \
                 root outside of the container"
                    .to_owned()
            }
            Self::Awake => "its threads did not stay asleep: repeat the command".to_owned(),
            Self::Clone if errno == libc::EAGAIN => {
                "no more processes are allowed for it: raise pids.max of its cgroup, or RLIMIT_NPROC".to_owned()
            }
            Self::Clone => format!("it cannot fork: {}", error()),
            Self::Image => "the image ended at once: memory ran out?".to_owned(),
            Self::NoTimer => format!("no timer is available: {}", error()),
            Self::Helper => "the process that captures it was killed".to_owned(),
        }
    }
}
