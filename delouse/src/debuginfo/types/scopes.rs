//! The variables of a coroutine's poll function: which are in scope at which `.await`, and where they are.
//!
//! The coroutine's type lists its variables too, but without those whose names are used twice (LLVM merges the members
//! of one name), and it has the line of a macro where an `.await` is in one. The poll function has each variable in a
//! lexical block of its own. An `.await` is a variable `__awaitee`, with the line of the call where it is in a macro of
//! another crate. Where the code is optimised, names, types and blocks remain, but few locations.

use std::ops::Range;

use gimli::{Operation, Register, constants as dw};

use super::decode;
use super::dwo::Slice;
use super::model::{Source, TypeId};
use super::units::{Unit, Units};
use crate::debuginfo::entries::{Entry, Value};

/// Locations of one variable that are read.
const MAX_LOCATIONS: usize = 256;

/// The lexical blocks of a poll function, and the variables in them.
#[derive(Debug, Default)]
pub(super) struct Scopes {
    /// Of each block, the block around it. The first is the function itself.
    parents: Vec<Option<u32>>,
    pub(super) variables: Vec<Variable>,
    /// Each variable that is kept across an `.await` has its offset: the code is not optimised.
    pub(super) has_offsets: bool,
    /// The type of the first parameter, `Pin<&mut Coroutine>`.
    pub(super) receiver: Option<TypeId>,
}

/// A variable of a poll function.
#[derive(Debug, Clone)]
pub(crate) struct Variable {
    pub(crate) name: String,
    pub(crate) of: TypeId,
    /// Where it is declared.
    pub(crate) source: Option<Source>,
    /// Its offset in the coroutine, where the debug information has it.
    pub(crate) offset: Option<u64>,
    block: u32,
}

/// Where an expression finds the value, relative to what the function has the coroutine's address in.
enum Location {
    /// The coroutine's address is in a slot of the stack frame.
    Frame { slot: i64, offset: u64 },
    /// The value is in memory at an offset from a register, while the program counter is in that range.
    Memory(Vec<(Range<u64>, Register, i64)>),
}

impl Scopes {
    /// Reads the function at `id`.
    pub(super) fn read<'a>(units: &Units<'a>, id: TypeId) -> Option<Self> {
        let unit = units.unit(id.unit)?;
        let mut scopes = Self { parents: vec![None], ..Self::default() };
        let mut locations = Vec::new();
        let mut coroutine = Vec::new();
        decode::each_nested(&unit, id.offset, 0, |entry, block| match entry.tag() {
            dw::DW_TAG_lexical_block => {
                scopes.parents.push(Some(block));
                Some((scopes.parents.len() - 1) as u32)
            }
            dw::DW_TAG_formal_parameter if block == 0 && scopes.receiver.is_none() => {
                scopes.receiver = decode::target(units, id.unit, entry);
                coroutine = address_in_registers(&unit, entry);
                None
            }
            dw::DW_TAG_variable => {
                if let Some(variable) = variable(units, &unit, id.unit, entry, block) {
                    locations.push(location(&unit, entry));
                    scopes.variables.push(variable);
                }
                None
            }
            _ => None,
        });
        scopes.place(&locations, &coroutine);
        Some(scopes)
    }

    /// Turns locations into offsets. Only what is relative to the coroutine's own address counts: in code without
    /// optimisations, this is what the awaited futures, which are always in the coroutine, are relative to.
    fn place(&mut self, locations: &[Option<Location>], coroutine: &[(Range<u64>, Register, i64)]) {
        let slot = self.variables.iter().zip(locations).find_map(|(variable, location)| match location {
            Some(Location::Frame { slot, .. }) if variable.is_awaitee() => Some(*slot),
            _ => None,
        });
        self.has_offsets = slot.is_some();
        for (variable, location) in self.variables.iter_mut().zip(locations) {
            variable.offset = match location {
                Some(Location::Frame { slot: own, offset }) if Some(*own) == slot => Some(*offset),
                Some(Location::Memory(places)) => offset_in(places, coroutine),
                _ => None,
            };
        }
    }

    /// The `.await`s, in the order of their lines.
    pub(super) fn awaits(&self) -> Vec<&Variable> {
        let mut awaits: Vec<&Variable> = self.variables.iter().filter(|of| of.is_awaitee()).collect();
        awaits.sort_by_key(|of| of.source.as_ref().map(|source| source.line));
        awaits
    }

    /// The named variables, outermost first, each with whether it is in scope at an `.await`. The blocks of the function
    /// itself and of what a coroutine has captured are one, so its captures come first.
    pub(super) fn by_scope(&self, site: &Variable) -> Vec<(Variable, bool)> {
        let named = self.variables.iter().filter(|of| !of.is_awaitee() && of.name != "_task_context");
        let encloses = |block| self.around(site.block).any(|around| around == block);
        named.map(|variable| (variable.clone(), encloses(variable.block))).collect()
    }

    /// A block and those around it.
    fn around(&self, block: u32) -> impl Iterator<Item = u32> {
        let parent = |block: &u32| self.parents.get(*block as usize).copied().flatten();
        // A parent is always before its children, so this ends.
        std::iter::successors(Some(block), parent)
    }
}

impl Variable {
    fn is_awaitee(&self) -> bool {
        self.name == "__awaitee"
    }

    /// Whether it is one of the captures of its coroutine, or something else that the function itself begins with.
    pub(crate) fn is_outermost(&self) -> bool {
        self.block == 0
    }
}

fn variable<'a>(
    units: &Units<'a>,
    unit: &Unit<'a>,
    number: u32,
    entry: &Entry<'_, 'a>,
    block: u32,
) -> Option<Variable> {
    let name = decode::text(unit, entry, dw::DW_AT_name)?;
    let of = decode::target(units, number, entry)?;
    Some(Variable { name, of, source: decode::source(unit, entry), offset: None, block })
}

/// Where a variable is stored.
fn location<'a>(unit: &Unit<'a>, entry: &Entry<'_, 'a>) -> Option<Location> {
    let value = entry.attr(dw::DW_AT_location)?;
    if let Value::Block(expression) = value {
        match decode::operations(unit, expression)?.as_slice() {
            [Operation::FrameOffset { offset: slot }, Operation::Deref { space: false, .. }] => {
                return Some(Location::Frame { slot: *slot, offset: 0 });
            }
            [
                Operation::FrameOffset { offset: slot },
                Operation::Deref { space: false, .. },
                Operation::PlusConstant { value: offset },
            ] => return Some(Location::Frame { slot: *slot, offset: *offset }),
            [Operation::FrameOffset { .. }, ..] => return None,
            _ => {}
        }
    }
    Some(Location::Memory(ranges(unit, value, |operations| match operations {
        [Operation::RegisterOffset { register, offset, .. }] => Some((*register, *offset)),
        _ => None,
    })))
}

/// The registers that have the coroutine's address: the value of the first parameter.
fn address_in_registers<'a>(unit: &Unit<'a>, entry: &Entry<'_, 'a>) -> Vec<(Range<u64>, Register, i64)> {
    let Some(value) = entry.attr(dw::DW_AT_location) else { return Vec::new() };
    ranges(unit, value, |operations| match operations {
        [Operation::Register { register }] => Some((*register, 0)),
        [Operation::RegisterOffset { register, offset, .. }, Operation::StackValue] => {
            Some((*register, *offset))
        }
        _ => None,
    })
}

/// The ranges of a location, with what `read` makes of its operations.
fn ranges<'a>(
    unit: &Unit<'a>,
    value: Value<'a>,
    read: impl Fn(&[Operation<Slice<'a>>]) -> Option<(Register, i64)>,
) -> Vec<(Range<u64>, Register, i64)> {
    let mut found = Vec::new();
    let mut add = |range: Range<u64>, expression: &'a [u8]| {
        let (register, offset) = read(&decode::operations(unit, expression)?)?;
        found.push((range, register, offset));
        Some(())
    };
    if let Value::Block(expression) = value {
        add(0..u64::MAX, expression);
    } else if let Some(mut list) = unit.locations(value) {
        for _ in 0..MAX_LOCATIONS {
            let Ok(Some(entry)) = list.next() else { break };
            add(entry.range.begin..entry.range.end, entry.data.0.slice());
        }
    }
    found
}

/// The offset of a value in the coroutine: where both are relative to one register at one time.
fn offset_in(
    places: &[(Range<u64>, Register, i64)],
    coroutine: &[(Range<u64>, Register, i64)],
) -> Option<u64> {
    places.iter().find_map(|(range, register, offset)| {
        let base = coroutine.iter().find_map(|(known, base_register, base)| {
            let overlap = range.start < known.end && known.start < range.end;
            (overlap && base_register == register).then_some(*base)
        })?;
        u64::try_from(offset.checked_sub(base)?).ok()
    })
}
