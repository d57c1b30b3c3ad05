//! One pass over a unit: what stands where.

use std::collections::HashMap;
use std::sync::OnceLock;

use gimli::constants as dw;

use super::content::{Content, Name};
use super::names;

use crate::debuginfo::address::FileAddress;
use crate::debuginfo::entries::{Abbreviation, Value, bytes};

/// More entries than any unit has.
const MAX_ENTRIES: usize = 1 << 26;

/// Where things stand in a unit: all positions are offsets in it, and names are read when they are asked for. In plain
/// lists, which cost less to fill than maps would save: a unit is searched a few times, and has thousands of entries.
#[derive(Default)]
pub(super) struct Index {
    /// Namespaces, types and functions that have something with a name in them, in the order of their offsets.
    scopes: Vec<Scope>,
    /// Functions with the addresses that they begin at.
    functions: Vec<(FileAddress, u32)>,
    /// Vtable variables by their address: the offset of the type that describes them.
    vtables: Vec<(FileAddress, u32)>,
    /// Statics and thread locals by linkage name: the offset of their type.
    variables: Vec<(Name, u32)>,
    /// Types by the last segment of their name.
    types: Vec<(Name, u32)>,
    /// The functions that poll coroutines.
    bodies: Vec<RawBody>,
    /// Indices into `bodies` by path without parameters, made at the first question.
    bodies_by_path: OnceLock<HashMap<String, Vec<usize>>>,
    /// The functions called `poll` of impls.
    pub(super) polls: Vec<u32>,
    /// How many entries were read.
    pub(super) entries: usize,
}

struct Scope {
    start: u32,
    end: u32,
    parent: u32,
    name: Name,
}

/// No parent.
const NONE: u32 = u32::MAX;

/// A coroutine's poll function. What is in it is read when it is asked for: see `scopes`.
struct RawBody {
    offset: u32,
    name: Name,
}

/// An entry that is open while its children are read.
struct Open {
    depth: i32,
    start: u32,
    name: Name,
    /// Its number among the scopes, once it has something with a name in it.
    scope: Option<u32>,
    is_impl: bool,
    in_function: bool,
    /// It is the poll function of a coroutine, or in one.
    in_body: bool,
}

/// Whether the index has entries of that kind.
#[inline(always)]
fn is_wanted(abbreviation: &Abbreviation) -> bool {
    matches!(
        abbreviation.tag,
        dw::DW_TAG_namespace
            | dw::DW_TAG_structure_type
            | dw::DW_TAG_union_type
            | dw::DW_TAG_enumeration_type
            | dw::DW_TAG_subprogram
            | dw::DW_TAG_variable
    )
}

impl Index {
    /// Reads the whole unit once. What cannot be read ends the index early.
    pub(super) fn new(unit: &Content<'_>) -> Self {
        let mut index = Self::default();
        let Some(entries) = unit.entries() else { return index };
        let mut walk = entries.walk_all();
        let mut open: Vec<Open> = Vec::new();
        while let Some(entry) = walk.next_of(|abbreviation, _| is_wanted(abbreviation)) {
            index.entries += 1;
            if index.entries > MAX_ENTRIES {
                break;
            }
            let (depth, offset, tag) = (entry.depth, entry.offset, entry.tag());
            while let Some(last) = open.last()
                && last.depth >= depth
            {
                index.close(last.scope, offset);
                open.pop();
            }
            let (in_function, mut in_body) =
                open.last().map_or((false, false), |open| (open.in_function, open.in_body));
            if tag == dw::DW_TAG_variable {
                let names = [dw::DW_AT_name, dw::DW_AT_linkage_name, dw::DW_AT_type, dw::DW_AT_location];
                let Some([name, linkage_name, of, location]) = walk.read(&entry, names) else { break };
                // The variables of a body are read when that body is asked for.
                if !in_body && let Some(Value::UnitRef(of)) = of {
                    let of = of as u32;
                    if !in_function && name.is_some_and(|name| is_vtable(unit, name)) {
                        index.vtables.extend(unit.fixed_address(location).map(|address| (address, of)));
                    } else if let Some(linkage_name) = linkage_name {
                        index.variables.push((unit.name_at(linkage_name, offset), of));
                    }
                }
                continue;
            }
            let is_function = tag == dw::DW_TAG_subprogram;
            let Some([name, low]) = walk.read(&entry, [dw::DW_AT_name, dw::DW_AT_low_pc]) else { break };
            let text = name.map(|name| unit.text_at(name)).unwrap_or_default();
            let at = name.map_or(Name::Of(offset), |name| unit.name_at(name, offset));
            if is_function {
                index.enter(&mut open);
                if let Some(low) = low
                    && let Some(address) = unit.address_at(low)
                    && address != 0
                {
                    index.functions.push((FileAddress::new(address), offset));
                }
                if let [b'{', b'a', b's', b'y', b'n', b'c', b'_', ..] = text {
                    index.bodies.push(RawBody { offset, name: at });
                    in_body = true;
                } else {
                    in_body = false;
                    if let [b'p', b'o', b'l', b'l'] | [b'p', b'o', b'l', b'l', 0 | b'<', ..] = text
                        && open.last().is_some_and(|open| open.is_impl)
                    {
                        index.polls.push(offset);
                    }
                }
            } else if tag != dw::DW_TAG_namespace && name.is_some() {
                index.types.push((at, offset));
                index.enter(&mut open);
            }
            if entry.has_children() {
                let is_impl = matches!(text, [b'{', b'i', b'm', b'p', b'l', b'#', ..]);
                let in_function = in_function || is_function;
                open.push(Open {
                    depth,
                    start: offset,
                    name: at,
                    scope: None,
                    is_impl,
                    in_function,
                    in_body,
                });
            }
        }
        index
    }

    /// Makes scopes of the entries that are open: they have something with a name in them.
    fn enter(&mut self, open: &mut [Open]) {
        if open.last().is_none_or(|last| last.scope.is_some()) {
            return;
        }
        let mut parent = NONE;
        for open in open {
            parent = *open.scope.get_or_insert_with(|| {
                let scope = Scope { start: open.start, end: u32::MAX, parent, name: open.name };
                self.scopes.push(scope);
                (self.scopes.len() - 1) as u32
            });
        }
    }

    /// The names of the scopes around `offset`, outermost first.
    pub(super) fn path<'a>(&self, unit: &Content<'a>, offset: u32) -> Vec<&'a [u8]> {
        let mut names = Vec::new();
        let after = self.scopes.partition_point(|scope| scope.start < offset);
        let mut at = after.checked_sub(1).map(|n| n as u32);
        while let Some(scope) = at.and_then(|n| self.scopes.get(n as usize)) {
            if offset < scope.end {
                names.push(unit.name(scope.name));
            }
            at = Some(scope.parent).filter(|parent| *parent != NONE);
        }
        names.reverse();
        names
    }

    fn close(&mut self, scope: Option<u32>, end: u32) {
        if let Some(scope) = scope.and_then(|scope| self.scopes.get_mut(scope as usize)) {
            scope.end = end;
        }
    }

    /// The function that begins at `address`.
    pub(super) fn function_at(&self, address: FileAddress) -> Option<u32> {
        last(&self.functions, address)
    }

    /// The last function that begins at or before `address`.
    pub(super) fn function_before(&self, address: FileAddress) -> Option<u32> {
        let mut best: Option<(FileAddress, u32)> = None;
        let mut functions = self.functions.as_slice();
        while let [(start, offset), rest @ ..] = functions {
            functions = rest;
            if start.get() <= address.get() && best.is_none_or(|(nearest, _)| nearest.get() <= start.get()) {
                best = Some((*start, *offset));
            }
        }
        best.map(|(_, offset)| offset)
    }

    /// The type that describes the vtable at `address`.
    pub(super) fn vtable_at(&self, address: FileAddress) -> Option<u32> {
        last(&self.vtables, address)
    }

    /// The type of the variable with that linkage name.
    pub(super) fn variable(&self, unit: &Content<'_>, linkage_name: &[u8]) -> Option<u32> {
        let found = self
            .variables
            .iter()
            .rev()
            .find(|(name, _)| unit.is_text(*name, dw::DW_AT_linkage_name, linkage_name));
        found.map(|(_, of)| *of)
    }

    /// All variables with a linkage name, and the offsets of their types.
    pub(super) fn variables<'i, 'a: 'i>(
        &'i self,
        unit: &'i Content<'a>,
    ) -> impl Iterator<Item = (&'a [u8], u32)> {
        self.variables.iter().map(|(name, of)| (unit.linkage_name(*name), *of))
    }

    /// The first type whose last segment has that name.
    pub(super) fn type_named(&self, unit: &Content<'_>, name: &[u8]) -> Option<u32> {
        let mut types = self.types.as_slice();
        while let [(at, offset), rest @ ..] = types {
            types = rest;
            if unit.is_text(*at, dw::DW_AT_name, name) {
                return Some(*offset);
            }
        }
        None
    }

    /// The offsets of the poll functions at `path`, which has no parameters: several where they are generic.
    pub(super) fn bodies_at(&self, unit: &Content<'_>, path: &str) -> impl Iterator<Item = u32> {
        let by_path = self.bodies_by_path.get_or_init(|| {
            let mut by_path: HashMap<String, Vec<usize>> = HashMap::new();
            for (number, body) in self.bodies.iter().enumerate() {
                let mut path = String::new();
                for segment in self.path(unit, body.offset).into_iter().chain([unit.name(body.name)]) {
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
        numbers.iter().filter_map(|number| Some(self.bodies.get(*number)?.offset))
    }
}

/// Whether that is the name of a vtable: `<app::Pipe as core::future::future::Future>::{vtable}`.
fn is_vtable<'a>(unit: &Content<'a>, name: Value<'a>) -> bool {
    let text = unit.text_at(name);
    matches!(text, [b'<', ..]) && bytes::until_zero(text).ends_with(b"{vtable}")
}

/// What belongs to an address; of several, the last one.
fn last(list: &[(FileAddress, u32)], address: FileAddress) -> Option<u32> {
    let mut rest = list;
    while let [before @ .., (at, offset)] = rest {
        rest = before;
        if at.get() == address.get() {
            return Some(*offset);
        }
    }
    None
}
