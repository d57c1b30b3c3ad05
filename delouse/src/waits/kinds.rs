//! What is known of each kind of resource: how it is named, and what can end a wait for it.

use crate::tasks::ResourceKind;

impl ResourceKind {
    /// Whether only something outside of the program's tasks ends a wait for it: the clock, the kernel, another machine,
    /// the scheduler.
    pub(crate) fn is_outside(self) -> bool {
        matches!(self, Self::Timer | Self::Io | Self::Signal | Self::Process | Self::Yield)
    }

    /// Whether it is held until its holder releases it.
    pub(crate) fn is_lock(self) -> bool {
        matches!(self, Self::Mutex | Self::Rwlock | Self::Semaphore | Self::OnceCell | Self::Lock)
    }

    /// Whether it is a channel, or an end of one.
    pub(super) fn is_channel(self) -> bool {
        matches!(
            self,
            Self::ChannelRecv
                | Self::ChannelSend
                | Self::Oneshot
                | Self::Watch
                | Self::Broadcast
                | Self::Closed
        )
    }

    /// Whether a wait for it ends by a release or an end, rather than by a message or a signal.
    pub(super) fn is_release(self) -> bool {
        self.is_lock() || matches!(self, Self::Join | Self::ChannelSend | Self::Thread | Self::Connection)
    }

    /// Whether a main future that may be being polled still waits for it: the future cannot have passed such a wait
    /// while the other tasks are in their present states.
    pub(super) fn holds_main(self) -> bool {
        self == Self::Join || self.is_lock()
    }

    /// The name as in JSON.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Timer => "timer",
            Self::Mutex => "mutex",
            Self::Rwlock => "rwlock",
            Self::Semaphore => "semaphore",
            Self::ChannelRecv => "channel_recv",
            Self::ChannelSend => "channel_send",
            Self::Oneshot => "oneshot",
            Self::Watch => "watch",
            Self::Broadcast => "broadcast",
            Self::Notify => "notify",
            Self::Condvar => "condvar",
            Self::Closed => "closed",
            Self::Barrier => "barrier",
            Self::OnceCell => "once_cell",
            Self::SetOnce => "set_once",
            Self::Cancellation => "cancellation",
            Self::Signal => "signal",
            Self::Process => "process",
            Self::Http2Stream => "http2_stream",
            Self::Http2Connection => "http2_connection",
            Self::Yield => "yield",
            Self::Never => "never",
            Self::Join => "join",
            Self::Lock => "lock",
            Self::Thread => "thread",
            Self::Io => "io",
            Self::Connection => "connection",
            Self::Unknown => "unknown",
        }
    }

    /// The noun in the name of a resource, before its number. Both ends of a channel are one resource.
    pub(crate) fn noun(self) -> &'static str {
        match self {
            Self::ChannelRecv | Self::ChannelSend | Self::Closed => "channel",
            Self::OnceCell => "once-cell",
            Self::SetOnce => "set-once",
            Self::Http2Stream | Self::Http2Connection => "http2-connection",
            Self::Join => "task",
            kind => kind.name(),
        }
    }
}
