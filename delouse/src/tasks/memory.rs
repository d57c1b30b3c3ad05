//! Reads of words, through a cache of blocks: one read of 16 KiB costs less than three of 8 bytes.

use std::cell::RefCell;
use std::ops::Range;

use crate::debuginfo::types::Discriminant;
use crate::host::scratch::Scratch;
use crate::snapshot::{Address, Snapshot};

/// In bytes, as is everything here. Larger blocks cost more if reads are far apart.
pub(crate) const BLOCK: u64 = 16 << 10;
/// Blocks kept at a time: 4 MiB, which fit into a processor's own cache. A read is mostly near an earlier one, or far
/// from all.
const SLOTS: u64 = 256;

/// A snapshot's memory, read word by word at small cost.
pub(crate) struct Memory<'s> {
    snapshot: &'s dyn Snapshot,
    cache: RefCell<Cache>,
}

/// Each block has one slot that it can be in, by its number: finding it costs no search.
struct Cache {
    slots: Box<[Slot]>,
    bytes: Scratch,
}

/// What is in a slot.
#[derive(Clone, Copy)]
struct Slot {
    block: u64,
    /// The number of readable bytes, up to the first gap.
    length: usize,
}

impl<'s> Memory<'s> {
    pub(crate) fn new(snapshot: &'s dyn Snapshot) -> Self {
        let nothing = Slot { block: u64::MAX, length: 0 };
        let slots = vec![nothing; SLOTS as usize].into();
        let bytes = Scratch::new((SLOTS * BLOCK) as usize);
        Self { snapshot, cache: RefCell::new(Cache { slots, bytes }) }
    }

    pub(crate) fn snapshot(&self) -> &'s dyn Snapshot {
        self.snapshot
    }

    /// Fills `into`; `None` if it cannot.
    pub(crate) fn read(&self, address: Address, into: &mut [u8]) -> Option<()> {
        let (block, within) = place(address);
        let end = within.checked_add(into.len())?;
        let mut cache = self.cache.borrow_mut();
        if let Some(bytes) = cache.block(self.snapshot, block).get(within..end) {
            into.copy_from_slice(bytes);
            return Some(());
        }
        // Across two blocks, or after a gap.
        (self.snapshot.read(address, into) == into.len()).then_some(())
    }

    /// The little-endian unsigned number of `size` bytes, at most 8.
    pub(crate) fn number(&self, address: Address, size: u64) -> Option<u64> {
        match size {
            8 => self.array(address).map(u64::from_le_bytes),
            4 => self.array(address).map(|bytes| u32::from_le_bytes(bytes).into()),
            1 => self.array(address).map(|[byte]| byte.into()),
            _ => {
                let mut word = [0; 8];
                self.read(address, word.get_mut(..size as usize)?)?;
                Some(u64::from_le_bytes(word))
            }
        }
    }

    /// The discriminant of the value at `base`.
    pub(crate) fn discriminant(&self, of: Discriminant, base: Address) -> Option<u64> {
        self.number(base.checked_add(of.offset)?, of.size)
    }

    pub(crate) fn word(&self, address: Address) -> Option<u64> {
        self.array(address).map(u64::from_le_bytes)
    }

    /// The word at `at` as an address, which may be null.
    pub(crate) fn address(&self, at: Address) -> Option<Address> {
        self.word(at).map(Address::new)
    }

    /// The target of the pointer at `at`; `None` if it is null.
    pub(crate) fn pointer(&self, at: Address) -> Option<Address> {
        self.address(at).filter(|target| !target.is_null())
    }

    pub(crate) fn half(&self, address: Address) -> Option<u32> {
        self.array(address).map(u32::from_le_bytes)
    }

    /// A string of at most 4096 bytes.
    pub(crate) fn text(&self, address: Address, length: u64) -> Option<String> {
        let mut bytes = vec![0; usize::try_from(length).ok().filter(|length| *length <= 4096)?];
        self.read(address, &mut bytes)?;
        String::from_utf8(bytes).ok()
    }

    /// Passes the readable bytes of a block, from its start up to the first gap, to `visit`, which must not read
    /// itself. The block stays in the cache for the next reads.
    pub(crate) fn visit<T>(&self, block: u64, visit: impl FnOnce(&[u8]) -> T) -> T {
        visit(self.cache.borrow_mut().block(self.snapshot, block))
    }

    /// Passes `length` bytes from `address`, up to the first gap, to `visit`, in parts that follow one another. They are
    /// not copied: a copy of the program's memory on a stack or on the heap would look like the program's own.
    pub(crate) fn visit_range(&self, address: Address, length: u64, mut visit: impl FnMut(&[u8])) {
        let Range { start: mut at, end } = Address::words(&(address..address.saturating_add(length)));
        while at < end {
            let (block, within) = (at / BLOCK, at % BLOCK);
            let wanted = (end - at).min(BLOCK - within);
            let seen = self.visit(block, |bytes| {
                let from = bytes.get(within as usize..).unwrap_or_default();
                let part = from.get(..from.len().min(wanted as usize)).unwrap_or_default();
                visit(part);
                part.len() as u64
            });
            if seen < wanted {
                break;
            }
            at += seen;
        }
    }

    #[inline]
    fn array<const N: usize>(&self, address: Address) -> Option<[u8; N]> {
        let (block, within) = place(address);
        let mut cache = self.cache.borrow_mut();
        if let Some(bytes) = cache.block(self.snapshot, block).get(within..within + N) {
            return bytes.try_into().ok();
        }
        drop(cache);
        self.array_across(address)
    }

    /// Across two blocks, or after a gap.
    #[cold]
    fn array_across<const N: usize>(&self, address: Address) -> Option<[u8; N]> {
        let mut bytes = [0; N];
        (self.snapshot.read(address, &mut bytes) == N).then_some(bytes)
    }
}

/// The block that contains `address`, and the position in it.
#[inline]
fn place(address: Address) -> (u64, usize) {
    (address.get() / BLOCK, (address.get() % BLOCK) as usize)
}

impl Cache {
    /// The readable bytes of a block.
    #[inline]
    fn block(&mut self, snapshot: &dyn Snapshot, block: u64) -> &[u8] {
        let index = (block % SLOTS) as usize;
        let start = index * BLOCK as usize;
        let Some(slot) = self.slots.get_mut(index) else { return &[] };
        if slot.block != block {
            let Some(bytes) = self.bytes.get_mut(start..start + BLOCK as usize) else { return &[] };
            *slot = Slot { block, length: snapshot.read(Address::new(block.saturating_mul(BLOCK)), bytes) };
        }
        let length = slot.length;
        self.bytes.get(start..start + length).unwrap_or_default()
    }
}
