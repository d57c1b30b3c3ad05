//! Futures that poll only one of their parts while that is there: the body of a `for_each`.

use super::model::{Body, Layout};
use super::store::Layouts;
use crate::snapshot::Address;
use crate::tasks::memory::Memory;

/// An optional future that is polled alone as long as it is there.
pub(crate) struct Alone<'l> {
    pub(crate) layout: &'l Layout,
    pub(crate) at: Address,
    /// Its offset in the future that polls it.
    pub(crate) offset: u64,
}

impl Layouts<'_> {
    /// The optional future in the value at `base` that is polled alone as long as it is there.
    pub(crate) fn option_alone(&self, layout: &Layout, base: Address) -> Option<Alone<'_>> {
        let (offset, option) = layout.alone?;
        Some(Alone { layout: self.get(option)?, at: base.checked_add(offset)?, offset })
    }
}

impl Alone<'_> {
    /// The number of the variant, and whether the future is there.
    pub(crate) fn read(&self, memory: &Memory<'_>) -> Option<(usize, bool)> {
        let Body::Variants(variants) = &self.layout.body else { return None };
        let (number, case) = variants.case(memory, self.at)?;
        Some((number, !case.fields.is_empty()))
    }
}
