//! A program's types, and what was learned of the program from its captures.

use std::path::PathBuf;
use std::sync::Arc;

use crate::debuginfo::types::Types;
use crate::snapshot::Snapshot;
use crate::tasks::{Examination, Knowledge, Options, Root, examine_with, other_objects};

/// What the captures of one program share.
pub(super) struct Learned<'i> {
    types: Arc<Types<'i>>,
    knowledge: Option<Knowledge<'i>>,
}

impl<'i> Learned<'i> {
    pub(super) fn new(types: Arc<Types<'i>>) -> Self {
        Self { types, knowledge: None }
    }

    /// The types of the program.
    pub(super) fn types(&self) -> &Arc<Types<'i>> {
        &self.types
    }

    /// Forgets what was learned from captures.
    pub(super) fn forget(&mut self) {
        self.knowledge = None;
    }

    /// Lists the tasks in `snapshot`, and calls `look` with them. Where no places are wanted, adds the tasks of `others`:
    /// further files of the process that contain a tokio.
    pub(super) fn examine<R>(
        &mut self,
        snapshot: &dyn Snapshot,
        others: &[PathBuf],
        roots: &[Root],
        options: &Options,
        look: impl FnOnce(Examination<'_, '_, '_>) -> R,
    ) -> R {
        let known = self.knowledge.take().filter(|known| known.bias() == options.bias);
        let new = || Knowledge::new(Arc::clone(&self.types), options.bias);
        let knowledge = self.knowledge.insert(known.unwrap_or_else(new));
        examine_with(snapshot, knowledge, roots, options, |mut seen| {
            let read = others.iter().filter(|_| !options.places);
            read.for_each(|path| other_objects::add(path, snapshot, options, &mut seen.listing));
            look(seen)
        })
    }
}
