//! What is known of a task without regard to other tasks.

use super::super::account::Account;
use super::super::unjudged::Unjudged;
use super::super::wait::{Wait, Waker, sleeps_in_call};
use super::super::wakers::{has_all_wakers, wakers};
use super::{Own, Search, Timeouts};
use crate::tasks::layout::handles::{self, Roles};
use crate::tasks::{ResourceKind, Task, TaskKind, TaskPlace, TaskState};

impl Search<'_> {
    /// What is known of a task, or of a part of it, that waits for `waits`.
    pub(super) fn own(&self, number: u32, task: &Task, place: &TaskPlace, waits: &[Wait]) -> Own {
        if self.liveness.is_unwakeable(number) {
            return Own::Waits;
        }
        if let [wait] = waits
            && wait.blocks_thread
        {
            return self.blocked(task, place, wait);
        }
        if self.waits.is_unread(number) {
            return Own::Unjudged(Unjudged::NoFuture, None);
        }
        let idle = match task.kind {
            // Its thread sleeps until a future is done that the task drives.
            _ if sleeps_in_call(task) => true,
            TaskKind::Blocking => false,
            // The stack that it was found on shows that its thread waits for it.
            TaskKind::Main if task.state == Some(TaskState::Idle) => true,
            // Its thread's stack shows that it is being polled.
            TaskKind::Main if task.state == Some(TaskState::Running) => false,
            // Memory does not show whether a main future is being polled and so has passed these waits.
            TaskKind::Main => self.waits.mains_rest || waits.iter().all(|wait| wait.kind.holds_main()),
            _ => task.state == Some(TaskState::Idle),
        };
        // A branch of a `select!` that never completes does not matter. A task that waits for nothing else is meant to
        // wait forever.
        let is_ignored = |wait: &Wait| {
            let may_end = || self.waits.is_timeout(wait) || self.waits.is_interruption(wait);
            self.timeouts == Timeouts::Ignored && may_end() || self.waits.is_overdue(wait)
        };
        let ending = waits.iter().filter(|wait| wait.kind != ResourceKind::Never && !is_ignored(wait));
        let mut own: Vec<Own> = ending.map(|wait| self.by_itself(task, place, wait)).collect();
        if own.is_empty() && !waits.is_empty() {
            return Own::Alive;
        }
        if !idle || own.iter().any(|own| matches!(own, Own::Alive)) {
            return Own::Alive;
        }
        let first = own.iter().position(|own| matches!(own, Own::Unjudged(..)));
        if let Some(first) = first {
            return own.swap_remove(first);
        }
        if waits.is_empty() {
            return Own::Unjudged(Unjudged::NoFuture, None);
        }
        if self.holders.ownership.complete.get(number as usize) != Some(&true) {
            return Own::Unjudged(Unjudged::Unread, None);
        }
        // All wakers of a task that is judged by them were found.
        if waits.iter().any(Wait::is_by_wakers) {
            return Own::Waits;
        }
        // There are more wakers than its waits account for: something that was not found may wake it.
        let slots = self.holders.ownership.slots.get(number as usize).copied().unwrap_or(0);
        let handles = place.header.map_or(0, |of| self.holders.of_task(of, Roles::ABORT).count() as u64);
        let explained = self.waits.of_task(number).len() as u64 + slots + handles;
        match wakers(place).filter(|_| !sleeps_in_call(task)) {
            Some(wakers) if wakers > explained => Own::Unjudged(Unjudged::MoreWakers, None),
            _ => Own::Waits,
        }
    }

    /// What is known of a task whose thread is blocked in `wait`.
    fn blocked(&self, task: &Task, place: &TaskPlace, wait: &Wait) -> Own {
        if wait.kind != ResourceKind::Lock {
            self.by_itself(task, place, wait)
        } else if !self.holders.threads(wait).is_empty() {
            // A thread that polls no task may release the lock: it is not known what it waits for.
            Own::Unjudged(Unjudged::MoreHandles, Some(wait.leaf))
        } else if self.holders.of_wait(wait).next().is_none() {
            Own::Unjudged(Unjudged::NoHandles, Some(wait.leaf))
        } else {
            Own::Waits
        }
    }

    /// Whether a wait ends without any other task.
    fn by_itself(&self, task: &Task, place: &TaskPlace, wait: &Wait) -> Own {
        let leaf = place.leaves.get(wait.leaf).copied().unwrap_or_default();
        let why = match wait.by {
            Waker::Outside if wait.kind.is_outside() => return Own::Alive,
            Waker::Outside if wait.kind == ResourceKind::Unknown => Unjudged::UnknownFuture,
            Waker::Outside if leaf.address.is_none() => Unjudged::UnknownResource,
            Waker::Outside => Unjudged::UnknownHandles,
            Waker::Wakers(_) if has_all_wakers(self.holders, self.waits, place, wait) => return Own::Waits,
            Waker::Wakers(_) if wait.kind == ResourceKind::Unknown => Unjudged::UnknownFuture,
            Waker::Wakers(_) if leaf.address.is_none() => Unjudged::UnknownResource,
            Waker::Wakers(_) => Unjudged::UnknownHandles,
            Waker::Task(None) => Unjudged::UnknownTask,
            Waker::Task(Some(_)) => return Own::Waits,
            // The holder of a lock without a known holder was not found.
            Waker::Handles(roles) => {
                let available = task.waits_on.get(wait.leaf).and_then(|on| on.available);
                let missing = self.holders.account(wait, available) == Account::Missing
                    && !self.accounted.contains(&self.waits.index(wait));
                let none = self.holders.of_wait(wait).next().is_none();
                // A thread that runs has something of it, or something that was not found has.
                if (missing || none) && !wait.kind.is_lock() && self.holders.living.contains(&wait.resource) {
                    return Own::Alive;
                }
                if self.holders.elsewhere.contains(&wait.resource) {
                    return Own::Unjudged(Unjudged::MoreHandles, Some(wait.leaf));
                }
                // What has the other end was not found.
                match wait.kind {
                    ResourceKind::Connection if missing || none => return Own::Alive,
                    ResourceKind::Http2Stream | ResourceKind::Http2Connection if missing => {
                        return Own::Alive;
                    }
                    ResourceKind::Http2Stream if none => return Own::Alive,
                    ResourceKind::Http2Connection => return Own::Waits,
                    _ => {}
                }
                let known = wait.kind == ResourceKind::Lock || handles::are_known(leaf.path, roles);
                match (missing, none) {
                    (_, true) if !known && (missing || !wait.kind.is_lock()) => Unjudged::UnknownHandles,
                    (true, true) => Unjudged::NoHandles,
                    (true, false) => Unjudged::MoreHandles,
                    (false, true) if !wait.kind.is_lock() => Unjudged::NoHandles,
                    _ => return Own::Waits,
                }
            }
        };
        Own::Unjudged(why, Some(wait.leaf))
    }
}
