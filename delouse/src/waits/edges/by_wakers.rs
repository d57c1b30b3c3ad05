//! Edges of waits that are judged by where the wakers of their tasks are.

use super::super::Edge;
use super::super::account::Account;
use super::super::ownership::{Holding, PathId};
use super::super::wait::Wait;
use super::{Edges, MAX_HOLDERS};

impl Edges<'_, '_, '_, '_> {
    /// The edge of a wait for a finding: for a wait that is judged by wakers, with what can reach these, except the task itself if
    /// there are others.
    pub(in crate::waits) fn edge_in_finding(&mut self, wait: &Wait) -> Edge {
        let mut edge = self.edge(wait);
        if !wait.is_by_wakers() {
            return edge;
        }
        edge.outside = None;
        let mut listed = Vec::new();
        for holding in self.holders.of_wait(wait).take(4 * MAX_HOLDERS) {
            // Of interest is the variable that leads there, not where in it the waker is.
            let holding = &Holding { path: PathId::default(), ..holding.clone() };
            self.holder(holding, Account::Exact, &mut listed, &mut edge.held_elsewhere);
        }
        if listed.iter().any(|holder| holder.task != edge.waiter) {
            listed.retain(|holder| holder.task != edge.waiter);
        }
        listed.iter_mut().for_each(|holder| holder.handle.clear());
        edge.holders = listed.into();
        edge
    }
}
