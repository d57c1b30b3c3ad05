//! The functions at a code address, with their generic parameters and those of their variables that are in memory.

use gimli::{Operation, constants as dw};

use super::model::{Source, TypeId};
use super::units::{Unit, Units};
use super::{Function, decode};
use crate::debuginfo::address::FileAddress;
use crate::debuginfo::entries::{Entry, Value};

/// Functions that are inlined into each other at one address.
const MAX_SCOPES: usize = 256;
/// Ranges of one inlined function.
const MAX_RANGES: usize = 1 << 12;
/// Locations of one variable that are read.
const MAX_LOCATIONS: usize = 256;
/// Pointers into the frame of one function that are read.
const MAX_POINTERS: usize = 1 << 10;

/// One function at a code address.
#[derive(Debug, Clone, Default)]
pub(crate) struct Scope {
    /// Its path with its generic arguments: `tokio::runtime::park::CachedParkThread::block_on<…>`.
    pub(crate) path: String,
    /// Mangled.
    pub(crate) linkage_name: Option<String>,
    /// Its generic arguments.
    pub(crate) parameters: Vec<TypeId>,
    /// The types of its first arguments.
    pub(crate) arguments: Vec<TypeId>,
    /// The variables that are in scope at the address and in memory, outermost block first.
    pub(crate) variables: Vec<FrameVariable>,
    /// The line of the call of the function that is inlined there; `None` for the innermost function, see
    /// [`super::Types::source_at`].
    pub(crate) call_site: Option<Source>,
}

/// A variable of a function that is being executed.
#[derive(Debug, Clone)]
pub(crate) struct FrameVariable {
    pub(crate) name: Option<String>,
    pub(crate) of: TypeId,
    pub(crate) base: FrameBase,
    /// From there to the variable.
    pub(crate) offset: i64,
    /// What is stored there is the address of the variable.
    pub(crate) indirect: bool,
}

/// Where in its function's frame the value is that a variable points to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FramePointer {
    /// The type of the variable, a pointer.
    pub(crate) of: TypeId,
    pub(crate) base: FrameBase,
    /// From there to the value.
    pub(crate) offset: i64,
}

/// What variables are found by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FrameBase {
    /// A register, by DWARF's number: see [`crate::snapshot::arch::Arch::dwarf_pointers`].
    Register(u16),
    /// The stack pointer of the caller, before its call.
    CallerStack,
}

/// The functions at `address` in that unit, innermost first; `None` where the unit has none there.
pub(super) fn scopes<'a>(units: &Units<'a>, number: u32, address: FileAddress) -> Option<Vec<Scope>> {
    let unit = units.unit(number)?;
    let (offset, function) = function_at(&unit, address)?;
    let base = function.attr(dw::DW_AT_frame_base).and_then(|value| frame_base(&unit, value));
    let mut scopes = vec![scope(units, TypeId { unit: number, offset })];
    decode::each_nested(&unit, offset, 0, |entry, within| match entry.tag() {
        dw::DW_TAG_lexical_block => Some(within).filter(|_| contains(&unit, entry, address)),
        dw::DW_TAG_inlined_subroutine if scopes.len() < MAX_SCOPES && contains(&unit, entry, address) => {
            if let Some(caller) = scopes.get_mut(within) {
                caller.call_site = call_site(&unit, entry);
            }
            let origin = entry.attr(dw::DW_AT_abstract_origin);
            let origin = origin.and_then(|origin| units.resolve(number, origin));
            scopes.push(origin.map(|origin| scope(units, origin)).unwrap_or_default());
            Some(scopes.len() - 1)
        }
        dw::DW_TAG_variable | dw::DW_TAG_formal_parameter => {
            if let Some(scope) = scopes.get_mut(within) {
                scope.variables.extend(variable(units, number, &unit, entry, base));
            }
            None
        }
        _ => None,
    });
    scopes.reverse();
    Some(scopes)
}

/// The pointers to values in the frame of the function at `address`, of all its variables and those of what is inlined in it,
/// also where they are not in scope: `None` where the unit has no function there.
///
/// The compiler does not store a pointer to a value in the same frame: it describes the pointer as a constant distance from
/// the stack pointer, and only for the instructions that use it. The stack pointer does not change between the prologue and
/// the epilogue of a function that rustc has compiled, so that the value is at that place for all its instructions.
pub(super) fn pointers<'a>(
    units: &Units<'a>,
    number: u32,
    address: FileAddress,
) -> Option<Vec<FramePointer>> {
    let unit = units.unit(number)?;
    let (offset, function) = function_at(&unit, address)?;
    let base = function.attr(dw::DW_AT_frame_base).and_then(|value| frame_base(&unit, value));
    let mut found = Vec::new();
    decode::each_nested(&unit, offset, (), |entry, ()| {
        if matches!(entry.tag(), dw::DW_TAG_variable | dw::DW_TAG_formal_parameter)
            && found.len() < MAX_POINTERS
            && let Some(places) = constant_distances(&unit, entry, base)
            && !places.is_empty()
            && let Some(of) = type_of(units, number, entry)
        {
            found.extend(places.into_iter().map(|(base, offset)| FramePointer { of, base, offset }));
        }
        Some(())
    });
    Some(found)
}

/// The function whose code includes that at `address`, and its offset in the unit.
fn function_at<'u, 'a>(unit: &'u Unit<'a>, address: FileAddress) -> Option<(u32, Entry<'u, 'a>)> {
    let offset = unit.index().function_before(address)?;
    let function = unit.entry(offset)?;
    contains(unit, &function, address).then_some((offset, function))
}

/// The different values that a variable has as a constant distance from the frame's base.
fn constant_distances<'a>(
    unit: &Unit<'a>,
    entry: &Entry<'_, 'a>,
    base: Option<FrameBase>,
) -> Option<Vec<(FrameBase, i64)>> {
    let location = entry.attr(dw::DW_AT_location)?;
    let mut found = Vec::new();
    let mut add = |expression: &'a [u8]| {
        let place = match decode::operations(unit, expression)?.as_slice() {
            [Operation::FrameOffset { offset }, Operation::StackValue] => (base?, *offset),
            [Operation::RegisterOffset { register, offset, .. }, Operation::StackValue] => {
                (FrameBase::Register(register.0), *offset)
            }
            _ => return None,
        };
        (!found.contains(&place)).then(|| found.push(place))
    };
    if let Value::Block(expression) = location {
        add(expression);
    } else {
        let mut list = unit.locations(location)?;
        for _ in 0..MAX_LOCATIONS {
            let Ok(Some(entry)) = list.next() else { break };
            add(entry.data.0.slice());
        }
    }
    Some(found)
}

/// The type of a variable.
fn type_of<'a>(units: &Units<'a>, number: u32, entry: &Entry<'_, 'a>) -> Option<TypeId> {
    decode::target(units, number, entry).or_else(|| {
        // An inlined function's variables have their types at their origins.
        let origin = units.resolve(number, entry.attr(dw::DW_AT_abstract_origin)?)?;
        decode::target(units, origin.unit, &units.unit(origin.unit)?.entry(origin.offset)?)
    })
}

/// A function without what depends on the place.
fn scope(units: &Units<'_>, id: TypeId) -> Scope {
    let read = || {
        let id = decode::named(units, id)?;
        let unit = units.unit(id.unit)?;
        let linkage_name = decode::text(&unit, &unit.entry(id.offset)?, dw::DW_AT_linkage_name);
        let Function { parameters, arguments, .. } = decode::function(units, id)?;
        let parameters = parameters.into_iter().map(|(_, of)| of).collect();
        Some(Scope {
            path: decode::name(units, id)?,
            linkage_name,
            parameters,
            arguments,
            ..Scope::default()
        })
    };
    read().unwrap_or_default()
}

/// The line of the call that was inlined.
fn call_site<'a>(unit: &Unit<'a>, entry: &Entry<'_, 'a>) -> Option<Source> {
    let line = u32::try_from(entry.number(dw::DW_AT_call_line)?).ok()?;
    unit.source(entry.number(dw::DW_AT_call_file)?, line)
}

/// A variable, where it is in memory at a fixed place of the frame.
fn variable<'a>(
    units: &Units<'a>,
    number: u32,
    unit: &Unit<'a>,
    entry: &Entry<'_, 'a>,
    base: Option<FrameBase>,
) -> Option<FrameVariable> {
    let location = entry.attr(dw::DW_AT_location)?;
    let Value::Block(location) = location else { return None };
    let operations = decode::operations(unit, location)?;
    let (place, indirect) = match operations.as_slice() {
        [place] => (place, false),
        [place, Operation::Deref { .. }] => (place, true),
        _ => return None,
    };
    let (base, offset) = match *place {
        Operation::FrameOffset { offset } => (base?, offset),
        Operation::RegisterOffset { register, offset, .. } => (FrameBase::Register(register.0), offset),
        _ => return None,
    };
    let of = type_of(units, number, entry)?;
    let name = decode::text(unit, entry, dw::DW_AT_name).or_else(|| {
        // An inlined function's variables have their names at their origins.
        let origin = units.resolve(number, entry.attr(dw::DW_AT_abstract_origin)?)?;
        let unit = units.unit(origin.unit)?;
        decode::text(&unit, &unit.entry(origin.offset)?, dw::DW_AT_name)
    });
    Some(FrameVariable { name, of, base, offset, indirect })
}

fn frame_base<'a>(unit: &Unit<'a>, value: Value<'a>) -> Option<FrameBase> {
    let Value::Block(expression) = value else { return None };
    match *decode::operations(unit, expression)?.first()? {
        Operation::Register { register } => Some(FrameBase::Register(register.0)),
        Operation::CallFrameCFA => Some(FrameBase::CallerStack),
        _ => None,
    }
}

/// Whether the code of an entry includes that at `address`.
pub(super) fn contains<'a>(unit: &Unit<'a>, entry: &Entry<'_, 'a>, address: FileAddress) -> bool {
    let address = address.get();
    if let Some(ranges) = entry.attr(dw::DW_AT_ranges) {
        let Some(mut ranges) = unit.ranges(ranges) else { return false };
        let ranges = std::iter::from_fn(|| ranges.next().ok().flatten()).take(MAX_RANGES);
        return ranges.into_iter().any(|range| (range.begin..range.end).contains(&address));
    }
    let start = entry.attr(dw::DW_AT_low_pc).and_then(|low| unit.address_at(low));
    let end = match (start, entry.attr(dw::DW_AT_high_pc)) {
        (Some(start), Some(Value::Number(size))) => start.checked_add(size),
        (Some(_), Some(high)) => unit.address_at(high),
        _ => None,
    };
    start.zip(end).is_some_and(|(start, end)| (start..end).contains(&address))
}
