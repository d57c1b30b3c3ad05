//! One type, function or variable from its entry.

use gimli::{Operation, constants as dw};

use super::Function;
use super::dwo::{Slice, slice};
use super::model::{Discriminant, Member, Shape, Source, Type, TypeId, Variant, Variants};
use super::units::{Unit, Units};
use crate::debuginfo::entries::{Entry, Value};

/// More entries below one type than any has.
const MAX_CHILDREN: usize = 1 << 20;
/// Operations of one location.
const MAX_OPERATIONS: usize = 8;
/// Entries of a function, itself included, among which its first parameter is searched for.
const MAX_BEFORE_PARAMETERS: usize = 64;
/// Arguments of a function that are told.
const MAX_ARGUMENTS: usize = 16;
/// How many typedefs, qualifiers and origins are followed.
const MAX_HOPS: usize = 16;

/// Decodes the type at `id`.
pub(super) fn decode<'a>(units: &Units<'a>, id: TypeId) -> Option<Type> {
    let unit = units.unit(id.unit)?;
    let entry = unit.entry(id.offset)?;
    let mut decoded = Type {
        name: full_name(&unit, &entry, id.offset),
        shape: Shape::Scalar,
        size: entry.number(dw::DW_AT_byte_size).unwrap_or(0),
        align: entry.number(dw::DW_AT_alignment).filter(|a| a.is_power_of_two()).unwrap_or(0),
        members: Vec::new(),
        parameters: Vec::new(),
    };
    match entry.tag() {
        dw::DW_TAG_structure_type | dw::DW_TAG_union_type => {
            decoded.shape = Shape::Struct;
            read_children(units, &unit, id, &mut decoded);
        }
        dw::DW_TAG_pointer_type | dw::DW_TAG_reference_type => {
            // rustc writes no size for pointers.
            decoded.size = u64::from(unit.unit.encoding().address_size);
            decoded.shape = Shape::Pointer(target(units, id.unit, &entry));
        }
        dw::DW_TAG_array_type => {
            let element = target(units, id.unit, &entry)?;
            decoded.shape = Shape::Array { element, count: 0 };
            read_children(units, &unit, id, &mut decoded);
            // Only elements have a size and an alignment in the debug information.
            if let Shape::Array { count, .. } = decoded.shape {
                let (size, align) = size_and_align(units, element, MAX_HOPS);
                decoded.size = count.saturating_mul(size);
                decoded.align = align;
            }
        }
        _ => {}
    }
    if decoded.align == 0 {
        decoded.align = natural_align(decoded.size);
    }
    Some(decoded)
}

/// The alignment of a number or pointer of that size: rustc writes none for those. That of a `u128` is 16 since Rust 1.77.
fn natural_align(size: u64) -> u64 {
    size.clamp(1, 16).next_power_of_two()
}

/// Of any type, without decoding it: arrays of arrays nest.
fn size_and_align<'a>(units: &Units<'a>, id: TypeId, depth: usize) -> (u64, u64) {
    let nothing = (0, 1);
    let Some(unit) = units.unit(id.unit) else { return nothing };
    let Some(entry) = unit.entry(id.offset) else { return nothing };
    match entry.tag() {
        dw::DW_TAG_pointer_type | dw::DW_TAG_reference_type => {
            let size = u64::from(unit.unit.encoding().address_size);
            (size, size)
        }
        dw::DW_TAG_array_type if depth > 0 => {
            let Some(element) = target(units, id.unit, &entry) else { return nothing };
            let (size, align) = size_and_align(units, element, depth - 1);
            let mut count = 0;
            each_child(&unit, id.offset, |_, child| {
                if child.tag() == dw::DW_TAG_subrange_type {
                    count = child.number(dw::DW_AT_count).unwrap_or(0);
                }
            });
            (size.saturating_mul(count), align)
        }
        _ => {
            let size = entry.number(dw::DW_AT_byte_size).unwrap_or(0);
            let align = entry.number(dw::DW_AT_alignment).filter(|align| align.is_power_of_two());
            (size, align.unwrap_or(natural_align(size)))
        }
    }
}

/// The entry that has the name of the function at `id`: itself, or its origin.
pub(super) fn named<'a>(units: &Units<'a>, id: TypeId) -> Option<TypeId> {
    let mut id = id;
    for _ in 0..MAX_HOPS {
        let unit = units.unit(id.unit)?;
        let entry = unit.entry(id.offset)?;
        if entry.has(dw::DW_AT_name) {
            return Some(id);
        }
        id = [dw::DW_AT_abstract_origin, dw::DW_AT_specification]
            .into_iter()
            .find_map(|name| units.resolve(id.unit, entry.attr(name)?))?;
    }
    None
}

/// The name of the function at `id`, or of its origin.
pub(super) fn function_name<'a>(units: &Units<'a>, id: TypeId) -> Option<String> {
    let mut id = id;
    for _ in 0..MAX_HOPS {
        let unit = units.unit(id.unit)?;
        let entry = unit.entry(id.offset)?;
        if let Some(name) = text(&unit, &entry, dw::DW_AT_name) {
            return Some(name);
        }
        id = [dw::DW_AT_abstract_origin, dw::DW_AT_specification]
            .into_iter()
            .find_map(|name| units.resolve(id.unit, entry.attr(name)?))?;
    }
    None
}

/// Decodes the function at `id`; what an out-of-line copy does not say stands at its origin.
pub(super) fn function<'a>(units: &Units<'a>, id: TypeId) -> Option<Function> {
    let mut id = id;
    for _ in 0..MAX_HOPS {
        let unit = units.unit(id.unit)?;
        let entry = unit.entry(id.offset)?;
        let origin = [dw::DW_AT_abstract_origin, dw::DW_AT_specification]
            .into_iter()
            .find_map(|name| units.resolve(id.unit, entry.attr(name)?));
        if !entry.has(dw::DW_AT_name) {
            id = origin?;
            continue;
        }
        let mut function = Function { parameters: Vec::new(), first_argument: None, arguments: Vec::new() };
        each_child(&unit, id.offset, |depth, child| {
            if depth != 1 {
                return;
            }
            match child.tag() {
                dw::DW_TAG_formal_parameter if function.arguments.len() < MAX_ARGUMENTS => {
                    function.arguments.extend(target(units, id.unit, child));
                }
                dw::DW_TAG_template_type_parameter => {
                    if let Some(of) = target(units, id.unit, child) {
                        let name = text(&unit, child, dw::DW_AT_name).unwrap_or_default();
                        function.parameters.push((name, of));
                    }
                }
                _ => {}
            }
        });
        function.first_argument = function.arguments.first().copied();
        if function.parameters.is_empty()
            && let Some(origin) = origin
        {
            id = origin;
            continue;
        }
        return Some(function);
    }
    None
}

/// The type of the first parameter of the function at `id`.
pub(super) fn receiver<'a>(units: &Units<'a>, id: TypeId) -> Option<TypeId> {
    let unit = units.unit(id.unit)?;
    let mut walk = unit.entries()?.walk(id.offset);
    // Parameters are in front of all else.
    for _ in 0..MAX_BEFORE_PARAMETERS {
        let entry = walk.next()?;
        if entry.tag() == dw::DW_TAG_formal_parameter && entry.depth == 1 {
            return target(units, id.unit, &entry);
        }
    }
    None
}

/// The type that a vtable's description belongs to.
pub(super) fn containing_type<'a>(units: &Units<'a>, id: TypeId) -> Option<TypeId> {
    let unit = units.unit(id.unit)?;
    let entry = unit.entry(id.offset)?;
    units.resolve(id.unit, entry.attr(dw::DW_AT_containing_type)?)
}

/// The full name of the type at `id`, without decoding the rest.
pub(super) fn name<'a>(units: &Units<'a>, id: TypeId) -> Option<String> {
    let unit = units.unit(id.unit)?;
    let entry = unit.entry(id.offset)?;
    Some(full_name(&unit, &entry, id.offset))
}

/// The entry's own name behind the names of the scopes that it stands in.
fn full_name<'a>(unit: &Unit<'a>, entry: &Entry<'_, 'a>, offset: u32) -> String {
    let name = text(unit, entry, dw::DW_AT_name).unwrap_or_default();
    let mut full = String::new();
    if matches!(
        entry.tag(),
        dw::DW_TAG_structure_type
            | dw::DW_TAG_union_type
            | dw::DW_TAG_enumeration_type
            | dw::DW_TAG_subprogram
    ) {
        for scope in unit.index().path(unit, offset) {
            full.push_str(&String::from_utf8_lossy(scope));
            full.push_str("::");
        }
    }
    full.push_str(&name);
    full
}

/// Members, variants, parameters and array bounds.
fn read_children<'a>(units: &Units<'a>, unit: &Unit<'a>, id: TypeId, decoded: &mut Type) {
    let mut variants: Option<(Option<u64>, Variants)> = None;
    let mut in_variants = false;
    let mut value = None;
    each_child(unit, id.offset, |depth, child| {
        if depth == 1 {
            in_variants = child.tag() == dw::DW_TAG_variant_part && variants.is_none();
        }
        match (depth, child.tag()) {
            (1, dw::DW_TAG_member) => decoded.members.extend(member(units, unit, id.unit, child)),
            (1, dw::DW_TAG_template_type_parameter) => {
                if let Some(of) = target(units, id.unit, child) {
                    decoded.parameters.push((text(unit, child, dw::DW_AT_name).unwrap_or_default(), of));
                }
            }
            (1, dw::DW_TAG_subrange_type) => {
                if let Shape::Array { count, .. } = &mut decoded.shape {
                    *count = child.number(dw::DW_AT_count).unwrap_or(0);
                }
            }
            (1, dw::DW_TAG_variant_part) if in_variants => {
                let discriminant = match child.attr(dw::DW_AT_discr) {
                    Some(Value::UnitRef(offset)) => Some(offset),
                    _ => None,
                };
                variants =
                    Some((discriminant, Variants { discriminant: None, coroutine: false, list: Vec::new() }));
            }
            (2, dw::DW_TAG_member) if in_variants => {
                if let Some((at, variants)) = &mut variants
                    && *at == Some(u64::from(child.offset))
                    && let Some(member) = member(units, unit, id.unit, child)
                {
                    let size = unit_size(units, member.of).unwrap_or(0);
                    variants.discriminant = Some(Discriminant { offset: member.offset, size });
                    variants.coroutine = member.name == "__state";
                }
            }
            (2, dw::DW_TAG_variant) if in_variants => value = child.number(dw::DW_AT_discr_value),
            (3, dw::DW_TAG_member) if in_variants => {
                if let Some((_, variants)) = &mut variants
                    && let Some(member) = member(units, unit, id.unit, child)
                {
                    variants.list.push(Variant { value, member, source: source(unit, child) });
                }
            }
            _ => {}
        }
    });
    if let Some((_, variants)) = variants {
        decoded.shape = Shape::Variants(variants);
    }
}

/// Calls `visit` with the depth of every entry below the one at `offset`: 1 for children.
pub(super) fn each_child<'a>(unit: &Unit<'a>, offset: u32, mut visit: impl FnMut(i32, &Entry<'_, 'a>)) {
    let Some(mut walk) = unit.entries().map(|entries| entries.walk(offset)) else { return };
    if walk.next().is_none_or(|entry| !entry.has_children()) {
        return;
    }
    for _ in 0..MAX_CHILDREN {
        let Some(entry) = walk.next_below() else { return };
        visit(entry.depth, &entry);
    }
}

/// The same for all entries below, each with what `visit` returned for the entry around it. Nothing below one for which it
/// returned `None` is visited.
pub(super) fn each_nested<'a, T: Copy>(
    unit: &Unit<'a>,
    offset: u32,
    outermost: T,
    mut visit: impl FnMut(&Entry<'_, 'a>, T) -> Option<T>,
) {
    let mut open: Vec<(i32, Option<T>)> = Vec::new();
    each_child(unit, offset, |depth, entry| {
        while open.pop_if(|(outer, _)| *outer >= depth).is_some() {}
        let around = open.last().map_or(Some(outermost), |(_, around)| *around);
        open.push((depth, around.and_then(|around| visit(entry, around))));
    });
}

/// The operations of a location; `None` where they are more than the locations of variables have.
pub(super) fn operations<'a>(unit: &Unit<'a>, expression: &'a [u8]) -> Option<Vec<Operation<Slice<'a>>>> {
    let expression = gimli::Expression(slice(expression));
    let mut operations = expression.operations(unit.unit.encoding());
    let mut read = Vec::new();
    while let Some(operation) = operations.next().ok()? {
        (read.len() < MAX_OPERATIONS).then(|| read.push(operation))?;
    }
    Some(read)
}

fn member<'a>(
    units: &Units<'a>,
    unit: &Unit<'a>,
    number_of_unit: u32,
    entry: &Entry<'_, 'a>,
) -> Option<Member> {
    Some(Member {
        name: text(unit, entry, dw::DW_AT_name).unwrap_or_default(),
        offset: entry.number(dw::DW_AT_data_member_location).unwrap_or(0),
        of: target(units, number_of_unit, entry)?,
    })
}

pub(super) fn source<'a>(unit: &Unit<'a>, entry: &Entry<'_, 'a>) -> Option<Source> {
    let line = entry.number(dw::DW_AT_decl_line)? as u32;
    unit.source(entry.number(dw::DW_AT_decl_file)?, line)
}

/// The size of a discriminant's type, which may be a pointer.
fn unit_size<'a>(units: &Units<'a>, id: TypeId) -> Option<u64> {
    let unit = units.unit(id.unit)?;
    let entry = unit.entry(id.offset)?;
    match entry.tag() {
        dw::DW_TAG_pointer_type => Some(u64::from(unit.unit.encoding().address_size)),
        _ => entry.number(dw::DW_AT_byte_size),
    }
}

pub(super) fn target<'a>(units: &Units<'a>, unit: u32, entry: &Entry<'_, 'a>) -> Option<TypeId> {
    units.resolve(unit, entry.attr(dw::DW_AT_type)?)
}

pub(super) fn text<'a>(unit: &Unit<'a>, entry: &Entry<'_, 'a>, name: gimli::DwAt) -> Option<String> {
    Some(String::from_utf8_lossy(unit.string(entry.attr(name)?)?).into_owned())
}
