//! Task counts of earlier captures, with which a diagnosis measures growth.

use std::collections::VecDeque;
use std::sync::Mutex;

use super::error::ApiError;
use crate::host::lock::lock;
use crate::waits::growing::Counts;

/// Number of captures whose counts are kept for `?since=`.
const KEPT: usize = 16;

/// The counts of the last captures, by id.
#[derive(Default)]
pub(crate) struct Marks {
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    last: u64,
    counts: VecDeque<(u64, Counts)>,
}

impl Marks {
    /// Keeps counts, and drops the oldest. Returns their id.
    pub(crate) fn keep(&self, counts: Counts) -> String {
        let mut kept = lock(&self.kept);
        kept.last += 1;
        let name = kept.last;
        kept.counts.push_back((name, counts));
        while kept.counts.len() > KEPT {
            kept.counts.pop_front();
        }
        name.to_string()
    }

    /// The oldest counts that are kept.
    pub(crate) fn oldest(&self) -> Option<Counts> {
        lock(&self.kept).counts.front().map(|(_, counts)| counts.clone())
    }

    /// The counts with the id `name`.
    pub(crate) fn get(&self, name: &str) -> Result<Counts, ApiError> {
        let unknown = || ApiError::UnknownCapture(name.to_owned());
        let wanted: u64 = name.parse().map_err(|_| unknown())?;
        let kept = lock(&self.kept);
        kept.counts.iter().find(|(id, _)| *id == wanted).map(|(_, counts)| counts.clone()).ok_or_else(unknown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_few_are_kept() {
        let marks = Marks::default();
        let names: Vec<String> = (0..=KEPT).map(|_| marks.keep(Counts::default())).collect();
        assert!(marks.get(&names[KEPT]).is_ok() && marks.get(&names[1]).is_ok());
        for gone in [names[0].as_str(), "", "-1", "nonsense", "99999999999999999999999"] {
            assert_eq!(marks.get(gone).err(), Some(ApiError::UnknownCapture(gone.to_owned())));
        }
    }
}
