//! The variables that a coroutine has in one of its states.
//!
//! The struct of a state lists the variables that are kept across its `.await`, and after them the captures of the
//! coroutine. LLVM merges members with the same name: after `let a = a.lock().await` the place of the guard is listed
//! with the type and the offset of the first `a`. The poll function has both variables, with their types and, in builds
//! without optimisations, with their offsets. If it does not have the offset, the bytes that belong to no other
//! variable are searched.

use std::ops::Range;

use super::compile::Compiler;
use super::model::{Body, Coroutine, Field, Interest, State, Variables};
use super::store::Layouts;
use crate::debuginfo::types::{Member, Suspension, Type, TypeId, Variable};

/// The most places that are tried for one variable.
const MAX_PLACES: usize = 64;
/// The deepest nesting of structs and enums around a handle.
const MAX_NESTING: usize = 8;

/// The contents of the struct of a state.
struct Listed {
    /// Variables with offsets in the coroutine. One that is awaited is among them.
    known: Vec<Member>,
    flags: Vec<u64>,
    /// Names whose members are listed with the offset and type of another one, once for each such member.
    merged: Vec<String>,
}

impl Layouts<'_> {
    /// The variables of a coroutine of type `of` in `state`.
    pub(crate) fn variables<'s>(&self, of: TypeId, coroutine: &Coroutine, state: &'s State) -> &'s Variables {
        state.inside.get_or_init(|| self.compiler(Interest::Handles).variables(of, coroutine, state))
    }
}

impl Compiler<'_, '_> {
    fn variables(&self, of: TypeId, coroutine: &Coroutine, state: &State) -> Variables {
        let frame = self.layouts.labels.frame(of, state.value);
        let mut variables = Variables { frame, ..Variables::default() };
        let Some(ty) = self.program().ty(state.variables) else { return variables };
        let mut listed = self.listed(&ty, coroutine, state);
        variables.flags = std::mem::take(&mut listed.flags).into();
        if !listed.merged.is_empty() {
            self.recover(of, coroutine, state, &mut listed, &mut variables);
        }
        let mut fields = Vec::new();
        for member in &listed.known {
            let field = self.named(member, 0);
            match member.name.as_str() {
                "__awaitee" => variables.awaitee = field,
                _ => fields.extend(field),
            }
        }
        variables.fields = fields.into();
        variables
    }

    fn named(&self, member: &Member, base: u64) -> Option<Field> {
        self.field(member, base, || self.layouts.labels.name(&member.name))
    }

    /// Lists the contents of the struct of a state: variables first, then captures (`type_di_node` of rustc's
    /// `debuginfo/metadata/enums`). Captures have their own offsets before the first poll.
    fn listed(&self, ty: &Type, coroutine: &Coroutine, state: &State) -> Listed {
        let mut listed = Listed { known: Vec::new(), flags: Vec::new(), merged: Vec::new() };
        let shifted = |member: &Member, base: u64| {
            Some(Member { offset: base.checked_add(member.offset)?, ..member.clone() })
        };
        let captures = coroutine.captures.and_then(|(base, of)| Some((base, self.program().ty(of)?)));
        let captured = captures.as_ref().map(|(_, ty)| ty.members.as_slice()).unwrap_or_default();
        let own =
            match ty.members.len().checked_sub(captured.len()).and_then(|at| ty.members.split_at_checked(at))
            {
                Some((own, rest)) if rest.iter().map(|m| &m.name).eq(captured.iter().map(|m| &m.name)) => own,
                _ => &ty.members,
            };
        for member in own {
            let is_flag =
                has_no_name(&member.name) && self.program().ty(member.of).is_some_and(|of| of.name == "bool");
            if is_flag {
                listed.flags.extend(state.offset.checked_add(member.offset));
            } else if listed.known.iter().any(|known| known.name == member.name) {
                listed.merged.push(member.name.clone());
            } else {
                listed.known.extend(shifted(member, state.offset));
            }
        }
        // A suspended `async fn` has moved its arguments.
        if let Some((base, of)) = &captures
            && !(coroutine.is_function() && state.is_suspended())
        {
            listed.known.extend(of.members.iter().filter_map(|member| shifted(member, *base)));
        }
        listed
    }

    /// Finds the variables whose members were merged with others.
    fn recover(
        &self,
        of: TypeId,
        coroutine: &Coroutine,
        state: &State,
        listed: &mut Listed,
        variables: &mut Variables,
    ) {
        let suspension = self.program().types.suspension(of, state.value).unwrap_or_default();
        let mut names = std::mem::take(&mut listed.merged);
        names.sort_unstable();
        let (mut typed, mut doubtful, mut hidden) = (Vec::new(), Vec::new(), None);
        for merged in names.chunk_by(|one, other| one == other) {
            let Some(name) = merged.first() else { continue };
            let at = listed.known.iter().position(|known| known.name == *name);
            let first = at.and_then(|at| listed.known.get(at)).map(|first| first.offset);
            let (mut others, mut is_sure) = (merged_with(first, merged, &suspension, true), true);
            if others.len() < merged.len() {
                // A value pinned by `pin!` lives longer than the block of its variable.
                others = merged_with(first, merged, &suspension, false);
                let mut all = suspension.variables.iter().filter(|(of, _)| of.name == *name);
                is_sure = !suspension.has_offsets || all.all(|(of, _)| of.offset.is_some());
            }
            if others.len() < merged.len() {
                hidden = Some(name.clone());
            }
            is_sure &= others.len() == merged.len();
            for of in others {
                let member = |offset| Member { name: name.clone(), offset, of: of.of };
                match of.offset {
                    // It is inserted before references to it, such as the one that `pin!` returns.
                    Some(offset) if is_sure => listed.known.insert(at.map_or(0, |at| at + 1), member(offset)),
                    Some(offset) => doubtful.extend(self.named(&member(offset), 0)),
                    None => typed.push((member(0), is_sure)),
                }
            }
        }
        let gaps = self.gaps(of, coroutine, &listed.known);
        let mut guesses = Vec::new();
        for (member, is_sure) in typed {
            match self.places(&member, &gaps).as_slice() {
                [only] if is_sure => listed.known.push(Member { offset: *only, ..member }),
                // Most of these places contain something else: only handles, which can be distinguished from other
                // data, are searched for.
                places => {
                    let fields = places.iter().filter_map(|place| self.named(&member, *place));
                    guesses.extend(fields.filter(|field| self.is_plain(field, MAX_NESTING)));
                }
            }
        }
        if let Some(name) = hidden {
            variables.hidden = self.layouts.labels.name(&name);
            variables.gaps = gaps.into();
        }
        (variables.doubtful, variables.guesses) = (doubtful.into(), guesses.into());
    }

    /// The places at which a variable fits, of which only the type is known.
    fn places(&self, member: &Member, gaps: &[Range<u64>]) -> Vec<u64> {
        let Some(ty) = self.program().ty(member.of).filter(|ty| ty.size > 0) else { return Vec::new() };
        let align = ty.align.max(1);
        let places = |gap: &Range<u64>| {
            let first = gap.start.checked_next_multiple_of(align);
            let range = first.zip(gap.end.checked_sub(ty.size));
            range.into_iter().flat_map(move |(first, last)| (first..=last).step_by(align as usize))
        };
        gaps.iter().flat_map(places).take(MAX_PLACES).collect()
    }

    /// The bytes of a coroutine that belong to none of these variables and to no capture.
    fn gaps(&self, of: TypeId, coroutine: &Coroutine, known: &[Member]) -> Vec<Range<u64>> {
        let size = |of: TypeId| self.program().ty(of).map_or(0, |ty| ty.size);
        let captures = coroutine.captures.and_then(|(base, of)| Some((base, self.program().ty(of)?)));
        let captured = captures.iter().flat_map(|(base, of)| {
            of.members.iter().map(move |member| (base.saturating_add(member.offset), size(member.of)))
        });
        let discriminant = (coroutine.at.offset, coroutine.at.size);
        let mut taken: Vec<(u64, u64)> =
            known.iter().map(|member| (member.offset, size(member.of))).chain(captured).collect();
        taken.push(discriminant);
        taken.sort_unstable();
        let (mut gaps, mut at) = (Vec::new(), 0);
        for (start, size) in taken.into_iter().chain([(size(of), 0)]) {
            if start > at {
                gaps.push(at..start);
            }
            at = at.max(start.saturating_add(size));
        }
        gaps
    }

    /// Whether a value contains nothing of interest but handles, which can be distinguished from other data.
    fn is_plain(&self, field: &Field, depth: usize) -> bool {
        let all = |fields: &[Field]| fields.iter().all(|field| self.is_plain(field, depth - 1));
        let body = self.layouts.get(field.layout).map(|layout| &layout.body);
        depth > 0
            && match body {
                Some(Body::Handle { .. }) => true,
                Some(Body::Fields(fields)) => all(fields),
                Some(Body::Variants(variants)) => variants.cases.iter().all(|case| all(&case.fields)),
                _ => false,
            }
    }
}

/// `__7`: rustc gives numbers to what has no name in the source: drop flags and temporary values.
fn has_no_name(name: &str) -> bool {
    name.strip_prefix("__").is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_digit()))
}

/// The variables whose members were merged with the one at the offset `first`, as far as they are known.
fn merged_with<'s>(
    first: Option<u64>,
    merged: &[String],
    suspension: &'s Suspension,
    in_scope: bool,
) -> Vec<&'s Variable> {
    let all = suspension.variables.iter().filter(|(of, is_in_scope)| {
        merged.first() == Some(&of.name) && !of.is_outermost() && (*is_in_scope || !in_scope)
    });
    let mut others: Vec<&Variable> = all.map(|(of, _)| of).collect();
    if suspension.has_offsets {
        others.retain(|of| of.offset.is_some() && of.offset != first);
    } else if let Some(listed) = others.iter().position(|of| of.offset.is_some() && of.offset == first) {
        others.remove(listed);
    } else if others.len() == merged.len() + 1 {
        // All of them are kept, in this order.
        others.remove(0);
    }
    others
}
