//! One pass over a unit: what stands where.

use std::collections::HashMap;
use std::sync::OnceLock;

use gimli::{Attribute, AttributeValue, Operation, UnitRef, constants as dw};

use super::dwo::Slice;
use super::names;
use crate::debuginfo::address::FileAddress;

type Attributes<'e, 'a> = &'e [Attribute<Slice<'a>>];

/// More entries than any unit has.
const MAX_ENTRIES: usize = 1 << 26;

/// Where things stand in a unit. Names borrow from the file.
#[derive(Default)]
pub(super) struct Index<'a> {
    /// Namespaces, types and functions, in the order of their offsets.
    scopes: Vec<Scope<'a>>,
    /// Functions by their first address.
    pub(super) functions: HashMap<FileAddress, u32>,
    /// Vtable variables by their address: the offset of the type that describes them.
    pub(super) vtables: HashMap<FileAddress, u32>,
    /// Statics and thread locals by linkage name: the offset of their type.
    pub(super) variables: HashMap<&'a [u8], u32>,
    /// Types by the last segment of their name.
    pub(super) types: HashMap<&'a [u8], u32>,
    /// The functions that poll coroutines.
    bodies: Vec<RawBody<'a>>,
    /// Indices into `bodies` by path without parameters, made at the first question.
    bodies_by_path: OnceLock<HashMap<String, Vec<usize>>>,
    /// The functions called `poll` of impls.
    pub(super) polls: Vec<u32>,
}

struct Scope<'a> {
    start: u32,
    end: u32,
    parent: Option<u32>,
    name: &'a [u8],
}

/// A coroutine's poll function. What is in it is read when it is asked for: see `scopes`.
pub(super) struct RawBody<'a> {
    pub(super) offset: u32,
    name: &'a [u8],
    pub(super) linkage_name: Option<&'a [u8]>,
}

/// An entry that is open while its children are read.
struct Open {
    depth: isize,
    scope: u32,
    /// It is the poll function of a coroutine, or in one.
    in_body: bool,
}

impl<'a> Index<'a> {
    /// Reads the whole unit once. What cannot be read ends the index early.
    pub(super) fn new(unit: UnitRef<'_, Slice<'a>>) -> Self {
        let mut index = Self::default();
        let Ok(mut raw) = unit.entries_raw(None) else { return index };
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
            let mut in_body = open.last().is_some_and(|open| open.in_body);
            match abbreviation.tag() {
                dw::DW_TAG_variable => {
                    // Those of a body are read when that body is asked for.
                    if !in_body {
                        index.variable(unit, &read, name);
                    }
                    continue;
                }
                dw::DW_TAG_subprogram => {
                    in_body = index.function(unit, &read, name, offset);
                    if name.is_some_and(|name| name == b"poll" || name.starts_with(b"poll<"))
                        && parent.is_some_and(|parent| index.is_impl(parent))
                    {
                        index.polls.push(offset);
                    }
                }
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
                open.push(Open { depth, scope, in_body });
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

    /// Whether a scope is that of an impl.
    fn is_impl(&self, scope: u32) -> bool {
        self.scopes.get(scope as usize).is_some_and(|scope| scope.name.starts_with(b"{impl#"))
    }

    fn close(&mut self, scope: u32, end: u32) {
        if let Some(scope) = self.scopes.get_mut(scope as usize) {
            scope.end = end;
        }
    }

    fn function(
        &mut self,
        unit: UnitRef<'_, Slice<'a>>,
        attributes: Attributes<'_, 'a>,
        name: Option<&'a [u8]>,
        offset: u32,
    ) -> bool {
        if let Some(low) = attribute(attributes, dw::DW_AT_low_pc)
            && let Ok(Some(address)) = unit.attr_address(low.value())
            && address != 0
        {
            self.functions.insert(FileAddress::new(address), offset);
        }
        let Some(name) = name.filter(|name| name.starts_with(b"{async_")) else { return false };
        let linkage_name = text(unit, attributes, dw::DW_AT_linkage_name);
        self.bodies.push(RawBody { offset, name, linkage_name });
        true
    }

    /// The poll functions at `path`, which has no parameters: several where they are generic.
    pub(super) fn bodies_at(&self, path: &str) -> impl Iterator<Item = &RawBody<'a>> {
        let by_path = self.bodies_by_path.get_or_init(|| {
            let mut by_path: HashMap<String, Vec<usize>> = HashMap::new();
            for (number, body) in self.bodies.iter().enumerate() {
                let mut path = String::new();
                for segment in self.path(body.offset).iter().chain([&body.name]) {
                    let separator = if path.is_empty() { "" } else { "::" };
                    path.push_str(separator);
                    path.push_str(&String::from_utf8_lossy(segment));
                }
                path.truncate(names::without_parameters(&path).len());
                by_path.entry(path).or_default().push(number);
            }
            by_path
        });
        let numbers = by_path.get(path).map(Vec::as_slice).unwrap_or_default();
        numbers.iter().filter_map(|number| self.bodies.get(*number))
    }

    fn variable(
        &mut self,
        unit: UnitRef<'_, Slice<'a>>,
        attributes: Attributes<'_, 'a>,
        name: Option<&'a [u8]>,
    ) -> Option<()> {
        let AttributeValue::UnitRef(of) = attribute(attributes, dw::DW_AT_type)?.value() else { return None };
        let of = of.0 as u32;
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

fn text<'a>(
    unit: UnitRef<'_, Slice<'a>>,
    attributes: Attributes<'_, 'a>,
    name: gimli::DwAt,
) -> Option<&'a [u8]> {
    Some(unit.attr_string(attribute(attributes, name)?.value()).ok()?.slice())
}

/// The address of a variable that lies at a fixed one.
fn address<'a>(unit: UnitRef<'_, Slice<'a>>, attributes: Attributes<'_, 'a>) -> Option<FileAddress> {
    let expression = attribute(attributes, dw::DW_AT_location)?.exprloc_value()?;
    let mut operations = expression.operations(unit.encoding());
    let address = match operations.next().ok()?? {
        Operation::Address { address } => Some(address),
        Operation::AddressIndex { index } => unit.address(index).ok(),
        _ => None,
    };
    address.map(FileAddress::new)
}
