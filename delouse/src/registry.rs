//! The registered runtimes and main futures of the program.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard};
use std::task::{Context, Poll};

use tokio::runtime::Handle;

use crate::snapshot::Address;
use crate::tasks::Root;

/// The lock is only held for a push, a removal or a clone.
static ROOTS: Mutex<Roots> = Mutex::new(Roots::new());

/// Locks the registered roots, to change them.
pub(crate) fn lock() -> MutexGuard<'static, Roots> {
    crate::host::lock::lock(&ROOTS)
}

/// A copy of the registered roots.
pub(crate) fn roots() -> Roots {
    lock().clone()
}

/// Runtimes and main futures, in the order of their registration.
#[derive(Debug, Clone)]
pub(crate) struct Roots {
    runtimes: Vec<Registration>,
    mains: Vec<MainFuture>,
    /// The runtime of our own server.
    own: Option<Handle>,
}

/// One registered runtime, and how often it was registered: shown until each of these is taken back.
#[derive(Debug, Clone)]
struct Registration {
    handle: Handle,
    times: usize,
}

/// The future that `block_on` drives, by the address that it is pinned at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MainFuture {
    /// Where the future lies.
    pub(crate) address: usize,
    /// Address of `<F as Future>::poll`: leads to F in the debug information.
    pub(crate) poll: usize,
    /// The type's name, as `std::any::type_name` gives it.
    pub(crate) type_name: &'static str,
}

impl MainFuture {
    /// `future` must stay where it is until it is unregistered.
    pub(crate) fn new<F: Future>(future: &F) -> Self {
        let poll: fn(Pin<&mut F>, &mut Context<'_>) -> Poll<F::Output> = F::poll;
        Self {
            address: std::ptr::from_ref(future).addr(),
            poll: poll as usize,
            type_name: std::any::type_name::<F>(),
        }
    }
}

/// Registers a runtime and its main future until dropped.
pub(crate) struct Registered {
    runtime: Handle,
    main: MainFuture,
}

impl Registered {
    /// `future` must stay where it is until this is dropped.
    pub(crate) fn new<F: Future>(runtime: &Handle, future: &F) -> Self {
        let main = MainFuture::new(future);
        let mut roots = lock();
        roots.add_main(main);
        roots.add_runtime(runtime);
        Self { runtime: runtime.clone(), main }
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        let mut roots = lock();
        roots.remove_main(self.main);
        roots.remove_runtime(&self.runtime);
    }
}

impl Roots {
    pub(crate) const fn new() -> Self {
        Self { runtimes: Vec::new(), mains: Vec::new(), own: None }
    }

    /// A runtime that is known already is not listed twice, but counted.
    pub(crate) fn add_runtime(&mut self, handle: &Handle) {
        match self.runtimes.iter_mut().find(|r| r.handle.id() == handle.id()) {
            Some(known) => known.times += 1,
            None => self.runtimes.push(Registration { handle: handle.clone(), times: 1 }),
        }
    }

    /// Takes one registration back.
    pub(crate) fn remove_runtime(&mut self, handle: &Handle) {
        if let Some(known) = self.runtimes.iter_mut().find(|r| r.handle.id() == handle.id()) {
            known.times -= 1;
        }
        self.runtimes.retain(|r| r.times > 0);
    }

    pub(crate) fn add_main(&mut self, main: MainFuture) {
        self.mains.push(main);
    }

    /// Removes one registration of `main`.
    pub(crate) fn remove_main(&mut self, main: MainFuture) {
        if let Some(at) = self.mains.iter().rposition(|m| *m == main) {
            self.mains.remove(at);
        }
    }

    /// The same roots, for a list without the tasks of `own`.
    pub(crate) fn without(mut self, own: &Handle) -> Self {
        self.own = Some(own.clone());
        self
    }

    /// Each runtime once.
    pub(crate) fn runtimes(&self) -> impl Iterator<Item = &Handle> {
        self.runtimes.iter().map(|r| &r.handle)
    }

    /// The same as addresses, for a snapshot of ourselves that is taken while `self` stays where it is.
    pub(crate) fn addresses(&self) -> Vec<Root> {
        let address_of = |handle: &Handle| Address::new(std::ptr::from_ref(handle).addr() as u64);
        let handle = |handle: &Handle| Root::Handle { address: address_of(handle) };
        let main = |main: &MainFuture| Root::Future {
            address: Address::new(main.address as u64),
            poll: Address::new(main.poll as u64),
        };
        let own = |handle: &Handle| Root::Own { address: address_of(handle) };
        let runtimes = self.runtimes().map(handle);
        self.own.iter().map(own).chain(runtimes).chain(self.mains.iter().map(main)).collect()
    }

    #[allow(dead_code, reason = "asked for by the task dump, which not every build has")]
    pub(crate) fn mains(&self) -> &[MainFuture] {
        &self.mains
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().build().unwrap()
    }

    #[test]
    fn a_runtime_is_listed_once_until_all_have_taken_it_back() {
        let (one, other) = (runtime(), runtime());
        let mut roots = Roots::new();
        for handle in [one.handle(), other.handle(), one.handle()] {
            roots.add_runtime(handle);
        }
        let ids = |roots: &Roots| roots.runtimes().map(Handle::id).collect::<Vec<_>>();
        assert_eq!(ids(&roots), [one.handle().id(), other.handle().id()]);
        roots.remove_runtime(one.handle());
        assert_eq!(ids(&roots).len(), 2);
        roots.remove_runtime(one.handle());
        roots.remove_runtime(one.handle());
        assert_eq!(ids(&roots), [other.handle().id()]);
    }

    #[test]
    fn main_futures_of_one_place_are_taken_back_one_by_one() {
        let main = MainFuture::new(&std::future::pending::<()>());
        let mut roots = Roots::new();
        roots.add_main(main);
        roots.add_main(main);
        roots.remove_main(main);
        assert_eq!(roots.mains(), [main]);
    }
}
