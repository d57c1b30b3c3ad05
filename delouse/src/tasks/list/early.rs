//! Tasks that are read before it is known whether they are on a list.

use super::super::header::{Kind, Scheduler, Stage};
use super::super::runtimes::Runtime;
use super::{Early, Lister, runs_in};
use crate::snapshot::Address;

impl Lister<'_, '_, '_> {
    /// Reads what looks like a task on a list, before that is certain, and returns its number.
    ///
    /// Lists are walked when the scan is over. Reading the tasks then would read all of them a second time; and now
    /// another process scans meanwhile.
    pub(super) fn read_early(&mut self, header: Address, kind: &Kind) -> Option<usize> {
        let is_listed = matches!(kind.scheduler, Scheduler::Shared(..))
            && self.headers.owner(header).is_some_and(|owner| owner != 0)
            && self.headers.stage(header, kind) == Some(Stage::Future);
        let (task, place, cut) = if is_listed && !self.is_short() { self.read(header, kind) } else { None }?;
        let at = self.tasks.len();
        self.early.stay.push(false);
        self.early.cut.extend(cut.map(|cut| (at, cut)));
        self.add(task, place);
        Some(at)
    }

    /// Keeps a task that was read early: it is on the list of `runtime`.
    pub(super) fn keep(&mut self, at: usize, runtime: Option<&Runtime>) {
        if let (Some(task), Some(stays)) = (self.tasks.get_mut(at), self.early.stay.get_mut(at)) {
            runs_in(task, runtime);
            *stays = true;
        }
    }

    /// Drops what was read early and is no task.
    pub(super) fn drop_stale(&mut self) {
        let Early { stay, cut } = std::mem::take(&mut self.early);
        let stays = |at: usize| stay.get(at).copied().unwrap_or(true);
        for (_, cut) in cut.into_iter().filter(|(at, _)| stays(*at)) {
            self.note_cut(cut);
        }
        let mut of_task = 0..;
        self.tasks.retain(|_| of_task.next().is_none_or(stays));
        let mut of_place = 0..;
        self.places.retain(|_| of_place.next().is_none_or(stays));
    }
}
