//! The threads that delouse starts in the program.

/// A thread that delouse starts in the program. Answers tell such threads from the program's by their names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OwnThread {
    /// Serves requests.
    Server,
    /// Captures the program for a request.
    Capture,
    /// Asks tokio for its dump, or writes one to stderr.
    Dump,
    /// Frees memory.
    Free,
    /// Prints to stderr.
    Log,
    /// Reads types, and drops them if they are not used.
    Types,
    /// Forks images of the program.
    Fork,
    /// Ends the program with a core file.
    Abort,
    /// Waits for signals.
    Signals,
    /// Waits until a sample is due.
    Watch,
    /// Takes that sample.
    Look,
    /// Waits until a test is late, and makes its report.
    Test,
    /// Waits until tests are ended by SIGTERM.
    Term,
}

impl OwnThread {
    const ALL: [Self; Self::Term as usize + 1] = [
        Self::Server,
        Self::Capture,
        Self::Dump,
        Self::Free,
        Self::Log,
        Self::Types,
        Self::Fork,
        Self::Abort,
        Self::Signals,
        Self::Watch,
        Self::Look,
        Self::Test,
        Self::Term,
    ];

    /// Its name: at most 15 bytes, as the kernel keeps no more (prctl(2), PR_SET_NAME).
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Server => "delouse-server",
            Self::Capture => "delouse-capture",
            Self::Dump => "delouse-dump",
            Self::Free => "delouse-free",
            Self::Log => "delouse-log",
            Self::Types => "delouse-types",
            Self::Fork => "delouse-fork",
            Self::Abort => "delouse-abort",
            Self::Signals => "delouse-signals",
            Self::Watch => "delouse-watch",
            Self::Look => "delouse-look",
            Self::Test => "delouse-test",
            Self::Term => "delouse-term",
        }
    }

    /// Whether delouse gives one of its threads this name. The prefix is not enough: threads of a program called
    /// `delouse-…` have it too.
    pub(crate) fn is_name(name: &str) -> bool {
        Self::ALL.iter().any(|thread| thread.name() == name)
    }

    /// What starts it.
    #[cfg(feature = "dump")]
    pub(crate) fn builder(self) -> std::thread::Builder {
        std::thread::Builder::new().name(self.name().to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_thread_is_known_by_a_name_that_the_kernel_keeps_whole() {
        for (number, thread) in OwnThread::ALL.into_iter().enumerate() {
            assert_eq!(thread as usize, number);
            assert!(thread.name().len() <= 15, "{thread:?}");
            assert!(OwnThread::is_name(thread.name()));
        }
        assert!(!OwnThread::is_name("delouse-worker"));
    }
}
