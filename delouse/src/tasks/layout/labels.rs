//! Names of fields and variables, as the steps of a path to a handle.

use std::sync::{Arc, Mutex};

use rustc_hash::FxHashMap;

use super::arena::Arena;
use crate::debuginfo::types::TypeId;
use crate::host::lock::lock;

/// One step of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct Label(u32);

impl Label {
    /// A step that is not shown.
    pub(crate) const NONE: Self = Self(0);
    /// One of several.
    pub(crate) const ELEMENT: Self = Self(1);
}

/// The meaning of a label.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Meaning {
    Nothing,
    Element,
    /// A variable or a field.
    Name(Arc<str>),
    /// A coroutine of that type in that state.
    Frame(TypeId, u64),
}

/// All labels, each once.
#[derive(Debug)]
pub(crate) struct Labels {
    meanings: Arena<Meaning>,
    known: Mutex<FxHashMap<Meaning, Label>>,
}

impl Default for Labels {
    fn default() -> Self {
        let labels = Self { meanings: Arena::default(), known: Mutex::default() };
        labels.label(Meaning::Nothing);
        labels.label(Meaning::Element);
        labels
    }
}

impl Labels {
    pub(crate) fn name(&self, name: &str) -> Label {
        self.label(Meaning::Name(name.into()))
    }

    pub(crate) fn frame(&self, of: TypeId, state: u64) -> Label {
        self.label(Meaning::Frame(of, state))
    }

    pub(crate) fn meaning(&self, label: Label) -> Option<&Meaning> {
        self.meanings.get(label.0)
    }

    fn label(&self, meaning: Meaning) -> Label {
        let mut known = lock(&self.known);
        if let Some(label) = known.get(&meaning) {
            return *label;
        }
        let mut label = Label::NONE;
        let added = self.meanings.push(|number| {
            label = Label(number);
            meaning.clone()
        });
        if added.is_some() {
            known.insert(meaning, label);
        }
        label
    }
}
