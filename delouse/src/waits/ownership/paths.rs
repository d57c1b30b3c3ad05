//! Paths to handles, as users read them: `hub.senders[…]` in `app::serve at app.rs:7`.

use rustc_hash::FxHashMap;

use crate::debuginfo::types::TypeId;
use crate::tasks::layout::{Label, Labels, Meaning};

/// The number of a path; by default, of the empty path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(in crate::waits) struct PathId(u32);

/// All paths, each once.
#[derive(Debug)]
pub(in crate::waits) struct Paths {
    paths: Vec<Box<[Label]>>,
    known: FxHashMap<Box<[Label]>, u32>,
}

impl Default for Paths {
    fn default() -> Self {
        Self { paths: vec![Box::default()], known: FxHashMap::from_iter([(Box::default(), 0)]) }
    }
}

impl Paths {
    /// The number of a path, outermost step first.
    pub(super) fn path(&mut self, steps: &[Label]) -> PathId {
        if let Some(known) = self.known.get(steps) {
            return PathId(*known);
        }
        let number = self.paths.len() as u32;
        self.paths.push(steps.into());
        self.known.insert(steps.into(), number);
        PathId(number)
    }

    /// The last coroutine of the path for which `is_shown` is true, or else the first, and the variable that follows it.
    pub(in crate::waits) fn text(
        &self,
        labels: &Labels,
        path: PathId,
        mut is_shown: impl FnMut(TypeId, u64) -> bool,
    ) -> (Option<(TypeId, u64)>, String) {
        let steps = self.paths.get(path.0 as usize).map(AsRef::as_ref).unwrap_or_default();
        let meaning = |label: &Label| labels.meaning(*label);
        let mut frame = None;
        let mut from = 0;
        for (index, label) in steps.iter().enumerate() {
            if let Some(Meaning::Frame(of, state)) = meaning(label)
                && (frame.is_none() || is_shown(*of, *state))
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
                // The variables of a library's function mean nothing to the user.
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
