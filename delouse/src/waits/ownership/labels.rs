//! The way to a handle, for people: `hub.senders[…]` in `app::serve at app.rs:7`.

use std::rc::Rc;

use rustc_hash::FxHashMap;

use crate::debuginfo::types::TypeId;

/// One step of a way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(super) struct Label(u32);

impl Label {
    /// A step that nobody wants to see.
    pub(super) const NONE: Self = Self(0);
    /// One of several.
    pub(super) const ELEMENT: Self = Self(1);
}

/// What a label stands for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Meaning {
    Nothing,
    Element,
    /// A variable or a field.
    Name(Rc<str>),
    /// A coroutine of that type in that state.
    Frame(TypeId, u64),
}

/// A whole way, by its number; by default, the one without a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(in crate::waits) struct PathId(u32);

/// All labels and all ways, each once.
#[derive(Debug)]
pub(in crate::waits) struct Labels {
    meanings: Vec<Meaning>,
    known: FxHashMap<Meaning, u32>,
    paths: Vec<Box<[Label]>>,
    known_paths: FxHashMap<Box<[Label]>, u32>,
}

impl Default for Labels {
    fn default() -> Self {
        Self {
            meanings: vec![Meaning::Nothing, Meaning::Element],
            known: FxHashMap::default(),
            paths: vec![Box::default()],
            known_paths: FxHashMap::from_iter([(Box::default(), 0)]),
        }
    }
}

impl Labels {
    pub(super) fn name(&mut self, name: &str) -> Label {
        self.label(Meaning::Name(name.into()))
    }

    pub(super) fn frame(&mut self, of: TypeId, state: u64) -> Label {
        self.label(Meaning::Frame(of, state))
    }

    fn label(&mut self, meaning: Meaning) -> Label {
        if let Some(known) = self.known.get(&meaning) {
            return Label(*known);
        }
        let number = self.meanings.len() as u32;
        self.meanings.push(meaning.clone());
        self.known.insert(meaning, number);
        Label(number)
    }

    /// The number of a way, outermost step first.
    pub(super) fn path(&mut self, steps: &[Label]) -> PathId {
        if let Some(known) = self.known_paths.get(steps) {
            return PathId(*known);
        }
        let number = self.paths.len() as u32;
        self.paths.push(steps.into());
        self.known_paths.insert(steps.into(), number);
        PathId(number)
    }

    /// The way as it is told: what follows the last coroutine for which `is_told` says yes.
    pub(in crate::waits) fn tell(
        &self,
        path: PathId,
        mut is_told: impl FnMut(TypeId, u64) -> bool,
    ) -> (Option<(TypeId, u64)>, String) {
        let steps = self.paths.get(path.0 as usize).map(AsRef::as_ref).unwrap_or_default();
        let meaning = |label: &Label| self.meanings.get(label.0 as usize);
        let mut frame = None;
        let mut from = 0;
        for (index, label) in steps.iter().enumerate() {
            if let Some(Meaning::Frame(of, state)) = meaning(label)
                && (frame.is_none() || is_told(*of, *state))
            {
                frame = Some((*of, *state));
                from = index + 1;
            }
        }
        let mut text = String::new();
        for label in steps.get(from..).unwrap_or_default() {
            match meaning(label) {
                Some(Meaning::Name(name)) if text.len() < 120 => push(&mut text, name),
                Some(Meaning::Element) if !text.ends_with("[…]") => text.push_str("[…]"),
                // The variables of a library's function say nothing to its caller.
                Some(Meaning::Frame(..)) => break,
                _ => {}
            }
        }
        (frame, text)
    }
}

fn push(text: &mut String, name: &str) {
    let name = match name {
        "__awaitee" => "(awaited)",
        name => {
            name.strip_prefix("__").filter(|rest| rest.bytes().all(|b| b.is_ascii_digit())).unwrap_or(name)
        }
    };
    if !text.is_empty() {
        text.push('.');
    }
    text.push_str(name);
}
