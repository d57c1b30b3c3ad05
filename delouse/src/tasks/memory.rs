//! Reads of words, through a cache of blocks: one read of 16 KiB costs less than three of 8 bytes.

use std::cell::RefCell;
use std::collections::HashMap;

use crate::snapshot::Snapshot;

const BLOCK: u64 = 16 << 10;
/// Blocks kept at a time: 32 MiB.
const MAX_BLOCKS: usize = 2048;

/// A snapshot's memory, read word by word at small cost.
pub(crate) struct Memory<'s> {
    snapshot: &'s dyn Snapshot,
    cache: RefCell<Cache>,
}

#[derive(Default)]
struct Cache {
    blocks: HashMap<u64, Block>,
    /// The block of the last read: most reads hit it.
    last: u64,
    last_block: Block,
}

/// A block's readable bytes: from its start, up to where the first gap is.
#[derive(Default, Clone)]
struct Block(std::rc::Rc<[u8]>);

impl<'s> Memory<'s> {
    pub(crate) fn new(snapshot: &'s dyn Snapshot) -> Self {
        Self { snapshot, cache: RefCell::new(Cache { last: u64::MAX, ..Cache::default() }) }
    }

    pub(crate) fn snapshot(&self) -> &'s dyn Snapshot {
        self.snapshot
    }

    /// Fills `into`, or says that it cannot.
    pub(crate) fn read(&self, address: u64, into: &mut [u8]) -> Option<()> {
        let within = (address % BLOCK) as usize;
        let number = address / BLOCK;
        let end = within.checked_add(into.len())?;
        let mut cache = self.cache.borrow_mut();
        if cache.last != number {
            cache.last_block = cache.block(self.snapshot, number);
            cache.last = number;
        }
        if let Some(bytes) = cache.last_block.0.get(within..end) {
            into.copy_from_slice(bytes);
            return Some(());
        }
        // Across two blocks, or behind a gap.
        (self.snapshot.read(address, into) == into.len()).then_some(())
    }

    /// The little-endian unsigned number of `size` bytes, at most 8.
    pub(crate) fn number(&self, address: u64, size: u64) -> Option<u64> {
        let mut word = [0; 8];
        self.read(address, word.get_mut(..size as usize)?)?;
        Some(u64::from_le_bytes(word))
    }

    pub(crate) fn word(&self, address: u64) -> Option<u64> {
        self.number(address, 8)
    }

    pub(crate) fn half(&self, address: u64) -> Option<u32> {
        self.number(address, 4).map(|half| half as u32)
    }

    /// A string of at most 4096 bytes.
    pub(crate) fn text(&self, address: u64, length: u64) -> Option<String> {
        let mut bytes = vec![0; usize::try_from(length).ok().filter(|length| *length <= 4096)?];
        self.read(address, &mut bytes)?;
        String::from_utf8(bytes).ok()
    }
}

impl Cache {
    fn block(&mut self, snapshot: &dyn Snapshot, number: u64) -> Block {
        if let Some(block) = self.blocks.get(&number) {
            return block.clone();
        }
        let mut bytes = vec![0; BLOCK as usize];
        let read = snapshot.read(number.saturating_mul(BLOCK), &mut bytes);
        bytes.truncate(read);
        let block = Block(bytes.into());
        if self.blocks.len() >= MAX_BLOCKS {
            self.blocks.clear();
        }
        self.blocks.insert(number, block.clone());
        block
    }
}
