//! One pass over a unit: what stands where.

use std::collections::HashMap;

use gimli::{Attribute, AttributeValue, Operation, constants as dw};

use super::units::{Slice, Unit};

type Attributes<'e, 'a> = &'e [Attribute<Slice<'a>>];

/// More entries than any unit has.
const MAX_ENTRIES: usize = 1 << 26;

/// Where things stand in a unit. Names borrow from the file.
#[derive(Default)]
pub(super) struct Index<'a> {
    /// Namespaces, types and functions, in the order of their offsets.
    scopes: Vec<Scope<'a>>,
    /// Functions by their first address.
    pub(super) functions: HashMap<u64, u32>,
    /// Vtable variables by their address: the offset of the type that describes them.
    pub(super) vtables: HashMap<u64, u32>,
    /// Statics and thread locals by linkage name: the offset of their type.
    pub(super) variables: HashMap<&'a [u8], u32>,
    /// Types by the last segment of their name.
    pub(super) types: HashMap<&'a [u8], u32>,
    /// The functions that poll coroutines.
    pub(super) bodies: Vec<RawBody<'a>>,
}

struct Scope<'a> {
    start: u32,
    end: u32,
    parent: Option<u32>,
    name: &'a [u8],
}

/// A coroutine's poll function.
pub(super) struct RawBody<'a> {
    /// Its offset; its path is that of the scope it stands in.
    pub(super) offset: u32,
    pub(super) linkage_name: Option<&'a [u8]>,
    /// `__awaitee` variables: type, file number, line.
    pub(super) awaits: Vec<(u32, u64, u32)>,
}

/// An entry that is open while its children are read.
struct Open {
    depth: isize,
    scope: u32,
    body: Option<usize>,
}

impl<'a> Index<'a> {
    /// Reads the whole unit once. What cannot be read ends the index early.
    pub(super) fn new(unit: &Unit<'a>) -> Self {
        let mut index = Self::default();
        let Ok(mut raw) = unit.unit.entries_raw(None) else { return index };
        let mut open: Vec<Open> = Vec::new();
        let mut read = Vec::new();
        for _ in 0..MAX_ENTRIES {
            if raw.is_empty() {
                break;
            }
            let depth = raw.next_depth();
            let offset = raw.next_offset().0 as u32;
            let Ok(abbreviation) = raw.read_abbreviation() else { break };
            while let Some(last) = open.last().filter(|last| last.depth >= depth) {
                index.close(last.scope, offset);
                open.pop();
            }
            let Some(abbreviation) = abbreviation else { continue };
            let attributes = abbreviation.attributes();
            let wanted = matches!(
                abbreviation.tag(),
                dw::DW_TAG_namespace
                    | dw::DW_TAG_structure_type
                    | dw::DW_TAG_union_type
                    | dw::DW_TAG_enumeration_type
                    | dw::DW_TAG_subprogram
                    | dw::DW_TAG_variable
            );
            if !wanted {
                if raw.skip_attributes(attributes).is_err() {
                    break;
                }
                continue;
            }
            if raw.read_attributes(attributes, &mut read).is_err() {
                break;
            }
            let name = text(unit, &read, dw::DW_AT_name);
            let parent = open.last().map(|open| open.scope);
            let mut body = open.last().and_then(|open| open.body);
            match abbreviation.tag() {
                dw::DW_TAG_variable => {
                    index.variable(unit, &read, name, body);
                    continue;
                }
                dw::DW_TAG_subprogram => body = index.function(unit, &read, name, offset),
                dw::DW_TAG_namespace => {}
                _ => {
                    if let Some(name) = name {
                        index.types.entry(name).or_insert(offset);
                    }
                }
            }
            if abbreviation.has_children() {
                let scope = index.scopes.len() as u32;
                let name = name.unwrap_or_default();
                index.scopes.push(Scope { start: offset, end: u32::MAX, parent, name });
                open.push(Open { depth, scope, body });
            }
        }
        index
    }

    /// The names of the scopes around `offset`, outermost first.
    pub(super) fn path(&self, offset: u32) -> Vec<&'a [u8]> {
        let mut names = Vec::new();
        let after = self.scopes.partition_point(|scope| scope.start < offset);
        let mut at = after.checked_sub(1).map(|n| n as u32);
        while let Some(scope) = at.and_then(|n| self.scopes.get(n as usize)) {
            if offset < scope.end {
                names.push(scope.name);
            }
            at = scope.parent;
        }
        names.reverse();
        names
    }

    fn close(&mut self, scope: u32, end: u32) {
        if let Some(scope) = self.scopes.get_mut(scope as usize) {
            scope.end = end;
        }
    }

    fn function(
        &mut self,
        unit: &Unit<'a>,
        attributes: Attributes<'_, 'a>,
        name: Option<&'a [u8]>,
        offset: u32,
    ) -> Option<usize> {
        if let Some(low) = attribute(attributes, dw::DW_AT_low_pc)
            && let Ok(Some(address)) = unit.dwarf.attr_address(&unit.unit, low.value())
            && address != 0
        {
            self.functions.insert(address, offset);
        }
        name.filter(|name| name.starts_with(b"{async_"))?;
        let linkage_name = text(unit, attributes, dw::DW_AT_linkage_name);
        self.bodies.push(RawBody { offset, linkage_name, awaits: Vec::new() });
        Some(self.bodies.len() - 1)
    }

    fn variable(
        &mut self,
        unit: &Unit<'a>,
        attributes: Attributes<'_, 'a>,
        name: Option<&'a [u8]>,
        body: Option<usize>,
    ) -> Option<()> {
        let AttributeValue::UnitRef(of) = attribute(attributes, dw::DW_AT_type)?.value() else { return None };
        let of = of.0 as u32;
        if let Some(body) = body.and_then(|body| self.bodies.get_mut(body)) {
            if name == Some(b"__awaitee") {
                let file = attribute(attributes, dw::DW_AT_decl_file)?.udata_value()?;
                let line = attribute(attributes, dw::DW_AT_decl_line)?.udata_value()?;
                body.awaits.push((of, file, line as u32));
            }
            return None;
        }
        if name?.ends_with(b"{vtable}") {
            self.vtables.insert(address(unit, attributes)?, of);
        } else if let Some(linkage_name) = text(unit, attributes, dw::DW_AT_linkage_name) {
            self.variables.insert(linkage_name, of);
        }
        None
    }
}

fn attribute<'e, 'a>(attributes: Attributes<'e, 'a>, name: gimli::DwAt) -> Option<&'e Attribute<Slice<'a>>> {
    attributes.iter().find(|attribute| attribute.name() == name)
}

fn text<'a>(unit: &Unit<'a>, attributes: Attributes<'_, 'a>, name: gimli::DwAt) -> Option<&'a [u8]> {
    unit.string(attribute(attributes, name)?.value())
}

/// The address of a variable that lies at a fixed one.
fn address(unit: &Unit<'_>, attributes: Attributes<'_, '_>) -> Option<u64> {
    let expression = attribute(attributes, dw::DW_AT_location)?.exprloc_value()?;
    let mut operations = expression.operations(unit.unit.encoding());
    match operations.next().ok()?? {
        Operation::Address { address } => Some(address),
        Operation::AddressIndex { index } => unit.dwarf.address(&unit.unit, index).ok(),
        _ => None,
    }
}
