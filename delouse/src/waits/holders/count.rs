//! Compares the handles of a resource that were found with the resource's own count.

use super::super::account::Account;
use super::super::wait::Wait;
use super::Holders;
use crate::tasks::ResourceKind;
use crate::tasks::layout::handles::{self, ON_STACK, Roles};

/// Permits of a `tokio::sync::RwLock`, unless it was made by `with_max_readers`: `MAX_READS` of `rwlock.rs`.
const MAX_READS: u64 = (u32::MAX >> 3) as u64;

impl Holders {
    /// How the handles that can end a wait compare with the resource's own count; `available` permits of it are free.
    pub(in crate::waits) fn account(&self, wait: &Wait, available: Option<u64>) -> Account {
        if wait.is_by_wakers() {
            // Only a task of which all wakers were found is judged by them.
            return Account::Exact;
        }
        let found = || self.kinds(wait.resource, self.roles_of(wait));
        let permits = || found().fold(0_u64, |sum, kind| sum.saturating_add(kind.permits));
        if wait.kind.is_channel()
            && let Some(counted) = self.counted(wait)
        {
            return Account::compare(counted, found().map(|kind| kind.holdings.len() as u64).sum());
        }
        let is_lock =
            matches!(wait.kind, ResourceKind::Mutex | ResourceKind::Rwlock | ResourceKind::OnceCell);
        let available = match available {
            None if is_lock && found().next().is_some() => return Account::Unknown,
            None if is_lock => return Account::Missing,
            available => available.unwrap_or(0),
        };
        match wait.kind {
            ResourceKind::Mutex | ResourceKind::OnceCell => {
                Account::compare(1_u64.saturating_sub(available), permits())
            }
            ResourceKind::Rwlock => Account::compare(MAX_READS.saturating_sub(available), permits()),
            ResourceKind::Semaphore => match found().next() {
                Some(_) => Account::Unknown,
                None => Account::Missing,
            },
            ResourceKind::Join | ResourceKind::Thread => Account::Exact,
            // A thread that holds it cannot be distinguished from one that only has its address.
            ResourceKind::Lock => {
                let outside = self.stacks_cut || !self.threads(wait).is_empty();
                match found().flat_map(|kind| &kind.holdings).next() {
                    None if !outside => Account::Missing,
                    Some(_) if !outside && self.of_wait(wait).all(|holding| holding.handle != ON_STACK) => {
                        Account::Exact
                    }
                    _ => Account::Unknown,
                }
            }
            ResourceKind::Notify
            | ResourceKind::Condvar
            | ResourceKind::Barrier
            | ResourceKind::SetOnce
            | ResourceKind::Cancellation => match found().next() {
                Some(_) => Account::Exact,
                None => Account::Missing,
            },
            // Everything that uses or drives an HTTP/2 connection refers to it.
            ResourceKind::Http2Stream | ResourceKind::Http2Connection => self
                .by_value
                .get(&wait.resource)
                .map_or(Account::Missing, |object| self.account_of_object(*object)),
            // A socket has one owner; a pipe in memory is shared by both ends.
            ResourceKind::Connection => match found().next() {
                Some(_) => self
                    .by_value
                    .get(&wait.resource)
                    .map_or(Account::Exact, |object| self.account_of_object(*object)),
                None => Account::Missing,
            },
            _ => self.channel_of(wait).map_or(Account::Missing, |object| self.account_of_object(object)),
        }
    }

    /// How many handles with the roles that can end a wait there are, by the count of a channel that has no counted pointers.
    fn counted(&self, wait: &Wait) -> Option<u64> {
        if self.by_value.contains_key(&wait.resource) && !wait.blocks_thread {
            return None;
        }
        let roles = self.roles_of(wait);
        let mut all = self.of_resource(wait.resource, Roles::SENDER.or(Roles::RECEIVER));
        all.find_map(|of| {
            let fact = handles::at(of.handle).filter(|fact| fact.is_counted())?;
            if fact.roles.has(roles) { Some(of.permits) } else { of.others }
        })
    }
}
