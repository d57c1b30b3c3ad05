//! Why a process cannot be read, with the rule that forbids it and what to do about it.

use std::fs::read_to_string;

use rustix::io::Errno;

use super::task_files::Status;

/// Number of CAP_SYS_PTRACE (linux/capability.h).
const CAP_SYS_PTRACE: u64 = 19;

/// Why a process cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AttachError {
    /// No process has this id, or it ended meanwhile.
    #[error(
        "there is no process {pid}: it has ended, or it is in another pid namespace; `ps -e` lists the processes"
    )]
    Gone { pid: u32 },
    /// It has ended, and its parent has not waited for it.
    #[error(
        "process {pid} has ended (it is a zombie until its parent waits for it): there is nothing to read"
    )]
    Zombie { pid: u32 },
    /// The id is that of a thread that is not the first one.
    #[error("{pid} is a thread of process {process}: use {process}")]
    Thread { pid: u32, process: u64 },
    /// It has no memory of its own.
    #[error("process {pid} is a thread of the kernel: it has no program")]
    Kernel { pid: u32 },
    /// It is the calling process.
    #[error("process {pid} is this process: it cannot stop itself from outside")]
    ThisProcess { pid: u32 },
    /// The pid was reused, or the process replaced its program, while it was being opened.
    #[error("process {pid} was replaced by another program during the capture: repeat the command")]
    Replaced { pid: u32 },
    /// It has ended since an earlier capture.
    #[error("process {pid} has ended since it was read first")]
    Ended { pid: u32 },
    /// It has executed another program since an earlier capture.
    #[error(
        "process {pid} has ended the program that was read before, and executes another one (or the same one again): \
         repeat the command for that one"
    )]
    Executed { pid: u32 },
    /// It runs as another user.
    #[error(
        "process {pid} runs as user {owner}, this command as user {own}: a process may be read by its own user and by \
         root; use `sudo`, or `sudo -u '#{owner}'`"
    )]
    OtherUser { pid: u32, owner: u64, own: u64 },
    /// It is not dumpable.
    #[error(
        "process {pid} is not dumpable, so that only root may read it: it called prctl(PR_SET_DUMPABLE, 0), it changed \
         its user, or its executable has file capabilities or cannot be read by its user; use `sudo`"
    )]
    NotDumpable { pid: u32 },
    /// yama forbids it.
    #[error(
        "the kernel's setting kernel.yama.ptrace_scope is {level}, {}",
        yama_rule(*level)
    )]
    Yama { level: u64 },
    /// Root without the capability, as in a container.
    #[error(
        "this process has no CAP_SYS_PTRACE, although it runs as root: it is probably in a container; start the \
         container with `docker run --cap-add=SYS_PTRACE`, or join it with \
         `kubectl debug --profile=sysadmin --target=CONTAINER POD`, or run the command on the host"
    )]
    MissingCapability,
    /// Permission is refused by another rule.
    #[error(
        "permission to read process {pid} is refused ({error}): a security module (SELinux, AppArmor), a system-call \
         filter or another user namespace forbids it; run the command as root outside of the container"
    )]
    Refused { pid: u32, error: Errno },
    /// The image ended before it could be read.
    #[error(
        "the image of process {pid} ended ({error}): memory ran out? Give the machine more memory, or use --no-pause"
    )]
    ImageEnded { pid: u32, error: std::io::Error },
    /// A file of `/proc` cannot be read.
    #[error("cannot read /proc/{pid}/{file}: {error}; is /proc mounted, and are files free to be opened?")]
    Proc { pid: u32, file: &'static str, error: Errno },
}

fn yama_rule(level: u64) -> &'static str {
    match level {
        1 => {
            "so that a process may be read only by its ancestors and with CAP_SYS_PTRACE: use `sudo`, start the program \
             with `delouse run -- CMD`, have it call prctl(PR_SET_PTRACER), or lower the setting with \
             `sudo sysctl kernel.yama.ptrace_scope=0`"
        }
        2 => {
            "so that processes may be read only with CAP_SYS_PTRACE: use `sudo`, or lower the setting with \
             `sudo sysctl kernel.yama.ptrace_scope=0`"
        }
        _ => {
            "so that no process may be read, not even by root, until the system is restarted with a lower setting: use \
             the program's own server (`#[delouse::main]`), or a core file"
        }
    }
}

impl AttachError {
    /// Whether the process has ended, or has executed another program.
    pub(crate) fn has_ended(&self) -> bool {
        matches!(
            self,
            Self::Gone { .. }
                | Self::Ended { .. }
                | Self::Zombie { .. }
                | Self::Replaced { .. }
                | Self::Executed { .. }
        )
    }

    /// For a file of the process `pid` that could not be opened. `status` describes it, and `owner` is the user that owns its
    /// files in `/proc`.
    pub(super) fn of_file(
        pid: u32,
        file: &'static str,
        error: Errno,
        status: Option<&Status>,
        owner: Option<u32>,
    ) -> Self {
        match error {
            Errno::ACCESS | Errno::PERM => {
                status.map_or(Self::Gone { pid }, |status| Self::of_refusal(pid, error, status, owner))
            }
            Errno::SRCH | Errno::NOENT => Self::Gone { pid },
            error => Self::Proc { pid, file, error },
        }
    }

    /// Finds the rule by which the kernel refused to let this process trace another (ptrace(2), "Ptrace access mode
    /// checking").
    fn of_refusal(pid: u32, error: Errno, status: &Status, owner: Option<u32>) -> Self {
        let own = Status::of_this_process();
        let may_trace = own.capabilities.is_some_and(|set| set >> CAP_SYS_PTRACE & 1 == 1);
        let level = read_to_string("/proc/sys/kernel/yama/ptrace_scope");
        let yama = level.ok().and_then(|level| level.trim().parse().ok()).unwrap_or(0);
        if yama >= 3 {
            return Self::Yama { level: yama };
        }
        let (Some(user), Some(target)) = (own.user, status.users) else {
            return Self::Refused { pid, error };
        };
        match () {
            () if may_trace => Self::Refused { pid, error },
            () if user == 0 => Self::MissingCapability,
            () if target != [user; 3] => {
                let owner = target.into_iter().find(|owner| *owner != user).unwrap_or(user);
                Self::OtherUser { pid, owner, own: user }
            }
            // The kernel gives the files of a process that is not dumpable to root.
            () if owner == Some(0) => Self::NotDumpable { pid },
            () if yama > 0 => Self::Yama { level: yama },
            () => Self::Refused { pid, error },
        }
    }

    /// For an id that no pidfd can be opened for.
    pub(super) fn of_pid(pid: u32, error: Errno) -> Self {
        // The directory of a thread exists, although `/proc` does not list it.
        let leader = || {
            let text = std::fs::read(format!("/proc/{pid}/status")).ok()?;
            Status::parse(&text).process.filter(|process| *process != u64::from(pid))
        };
        match leader() {
            Some(process) => Self::Thread { pid, process },
            None if matches!(error, Errno::SRCH | Errno::INVAL | Errno::NOENT) => Self::Gone { pid },
            None => Self::Proc { pid, file: "", error },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_refusal_names_the_rule_and_a_remedy() {
        let cases = [
            (AttachError::Gone { pid: 7 }, "no process 7", "ps -e"),
            (AttachError::OtherUser { pid: 7, owner: 33, own: 1000 }, "runs as user 33", "sudo"),
            (AttachError::NotDumpable { pid: 7 }, "not dumpable", "sudo"),
            (AttachError::Yama { level: 1 }, "ptrace_scope is 1", "delouse run -- CMD"),
            (AttachError::Yama { level: 2 }, "CAP_SYS_PTRACE", "sudo sysctl"),
            (AttachError::Yama { level: 3 }, "not even by root", "core file"),
            (AttachError::MissingCapability, "CAP_SYS_PTRACE", "docker run --cap-add=SYS_PTRACE"),
            (AttachError::Thread { pid: 8, process: 7 }, "thread of process 7", "use 7"),
        ];
        for (error, rule, remedy) in cases {
            let text = error.to_string();
            assert!(text.contains(rule) && text.contains(remedy), "{text}");
        }
    }
}
