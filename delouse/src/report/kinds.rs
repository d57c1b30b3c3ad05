//! What each kind of resource is called, and what its holders have to do with it: one row for each kind.

use crate::tasks::ResourceKind;
use crate::waits::Party;

/// The words for one kind of resource.
pub(super) struct Words {
    /// What a task waits for: `a message of a channel`.
    pub(super) wanted: &'static str,
    /// What comes before the resource's name: `a message of ` channel-1.
    pub(super) part: &'static str,
    /// What has to be known to judge such a wait: `what can send to it`.
    pub(super) ended_by: &'static str,
    /// What its holders have to do with it.
    relation: Relation,
}

/// What a holder has to do with a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Relation {
    /// It holds the resource, or a part of it: `of which ` task 7 holds ` permits`.
    Holds(&'static str, &'static str),
    /// It can end the wait: `at which ` task 7 can ` arrive`.
    Can(&'static str, &'static str),
    /// It is about to end the wait: `whose value ` task 7 is `making`.
    Is(&'static str, &'static str),
}
use Relation::{Can, Holds, Is};

/// The table.
pub(super) fn words(kind: ResourceKind) -> Words {
    const HOLDS: Relation = Holds("which ", "");
    const SENDS: Relation = Can("to which ", "send");
    let row = |wanted, part, ended_by, relation| Words { wanted, part, ended_by, relation };
    let outside = |wanted| row(wanted, "", "what ends it", HOLDS);
    match kind {
        ResourceKind::Mutex => row("a mutex", "", "what holds it", HOLDS),
        ResourceKind::Rwlock => row("a read-write lock", "", "what holds it", HOLDS),
        ResourceKind::Lock => row("a lock that blocks its thread", "", "what holds it", HOLDS),
        ResourceKind::OnceCell => {
            row("the value of a OnceCell", "the value of ", "what makes it", Is("whose value ", "making"))
        }
        ResourceKind::Semaphore => {
            row("a semaphore", "", "what has its permits", Holds("of which ", " permits"))
        }
        ResourceKind::ChannelRecv => {
            row("a message of a channel", "a message of ", "what can send to it", SENDS)
        }
        ResourceKind::Oneshot => {
            row("the message of a oneshot", "the message of ", "what can send to it", SENDS)
        }
        ResourceKind::Watch => row("a change of a watch", "a change of ", "what can send to it", SENDS),
        ResourceKind::Broadcast => {
            row("a message of a broadcast", "a message of ", "what can send to it", SENDS)
        }
        ResourceKind::ChannelSend => {
            row("room in a channel", "room in ", "what receives from it", Holds("whose receiver ", ""))
        }
        ResourceKind::Closed => row(
            "the end of all receivers of a channel",
            "the end of all receivers of ",
            "what has its receivers",
            Holds("of which ", " a receiver"),
        ),
        ResourceKind::Notify => {
            row("a notification", "a notification of ", "what can notify it", Can("which ", "notify"))
        }
        ResourceKind::Condvar => {
            row("a condition variable", "a notification of ", "what can notify it", Can("which ", "notify"))
        }
        ResourceKind::Barrier => row("a barrier", "", "what can arrive at it", Can("at which ", "arrive")),
        ResourceKind::SetOnce => {
            row("the value of a SetOnce", "the value of ", "what can set it", Can("which ", "set"))
        }
        ResourceKind::Cancellation => {
            row("a cancellation", "", "what can cancel it", Can("which ", "cancel"))
        }
        ResourceKind::Join => row("the end of a task", "the end of ", "which task it is", HOLDS),
        ResourceKind::Thread => row("its thread", "", "what blocks that thread", HOLDS),
        ResourceKind::Timer => outside("a timer"),
        ResourceKind::Io => outside("input or output"),
        ResourceKind::Connection => row(
            "the other end of a connection",
            "the other end of ",
            "what has the other end",
            Holds("whose other end ", ""),
        ),
        ResourceKind::Signal => outside("a signal"),
        ResourceKind::Process => outside("the end of a child process"),
        ResourceKind::Http2Stream => row(
            "a stream of an HTTP/2 connection",
            "a stream of ",
            "what drives the connection",
            Is("which ", "driving"),
        ),
        ResourceKind::Http2Connection => row(
            "what the program does with an HTTP/2 connection",
            "what the program does with ",
            "what uses the connection",
            Can("which ", "use"),
        ),
        ResourceKind::Yield => outside("its next turn: it has yielded"),
        ResourceKind::Never => outside("nothing: the future never ends"),
        ResourceKind::Unknown => outside("something that delouse does not know"),
    }
}

/// `a message of channel-1`.
pub(super) fn named(kind: ResourceKind, id: &str) -> String {
    format!("{}{id}", words(kind).part)
}

/// What a task has to do with a wait that is judged by where the wakers are.
pub(super) const REACHES_WAKER: Relation = Can("whose waker ", "reach");

/// What a holder with such a handle has to do with a resource.
pub(super) fn relation(kind: ResourceKind, by: &Party) -> Relation {
    match (kind, words(kind).relation) {
        (ResourceKind::Semaphore, _) if by.is_access() => Can("to which ", "add permits"),
        (ResourceKind::Semaphore, _) if by.is_pooled() => {
            Holds("the semaphore of a pool, of which ", " an object")
        }
        (_, Holds("which " | "whose receiver ", _)) if by.handle.ends_with("Sender") => {
            Can("to which ", "send")
        }
        (_, relation) => relation,
    }
}

impl Relation {
    /// `which task 7 holds`, `at which task 7 may be able to arrive`.
    pub(super) fn of(self, holder: &str, certain: bool) -> String {
        match (self, certain) {
            (Holds(which, what), true) => format!("{which}{holder} holds{what}"),
            (Holds(which, what), false) => format!("{which}{holder} may hold{what}"),
            (Can(which, verb), true) => format!("{which}{holder} can {verb}"),
            (Can(which, verb), false) => format!("{which}{holder} may be able to {verb}"),
            (Is(which, what), true) => format!("{which}{holder} is {what}"),
            (Is(which, what), false) => format!("{which}{holder} may be {what}"),
        }
    }

    /// The same of a task that waits itself: `which it holds itself`. `alone`: no other task waits in the same circle.
    pub(super) fn of_itself(self, certain: bool, alone: bool) -> String {
        let only = if alone { "only it itself" } else { "only tasks that wait, too," };
        match (self, certain) {
            (Holds(which, what), true) => format!("{which}it holds{what} itself"),
            (Holds(which, what), false) => format!("{which}it may hold{what} itself"),
            (Can(which, verb), _) => format!("{which}{only} could {verb}"),
            (Is(which, what), true) => format!("{which}it is {what} itself"),
            (Is(which, what), false) => format!("{which}it may be {what} itself"),
        }
    }
}
