//! The variables that a coroutine has in one of its states.
//!
//! The struct of a state lists the variables that are kept across its `.await`, and behind them what the coroutine has
//! captured. LLVM merges members of one name: after `let a = a.lock().await` the place of the guard is listed with the
//! type and the offset of the first `a`. The poll function has both variables, with their types and, in builds without
//! optimisations, with their offsets. Where it does not have the offset, the bytes that belong to no other variable
//! are searched.

use std::ops::Range;

use super::labels::Label;
use super::plan::{Body, Coroutine, Field, Plan, Plans, State, StateKind};
use crate::debuginfo::types::{Member, Type, TypeId, Variable};

/// Places of one variable that are tried.
const MAX_PLACES: usize = 64;
/// Structs and enums around a handle.
const MAX_NESTING: usize = 8;

/// What a coroutine has in one state; compiled when one is found in it.
#[derive(Debug, Default)]
pub(super) struct Variables {
    /// The coroutine in this state.
    pub(super) frame: Label,
    /// The future that it awaits.
    pub(super) awaitee: Option<Field>,
    /// Its size.
    pub(super) size: u64,
    pub(super) fields: Box<[Field]>,
    /// Variables that may have been moved away: more of them are in scope than are kept.
    pub(super) doubtful: Box<[Field]>,
    /// Places where a variable may be whose place is not known.
    pub(super) guesses: Box<[Field]>,
    /// The bytes that belong to no variable that is known, where there is a variable of which nothing is known.
    pub(super) gaps: Box<[Range<u64>]>,
    /// What such a variable is called.
    pub(super) hidden: Label,
    /// Offsets of drop flags: bytes that are 1 while a variable that may be moved away has not been. They
    /// do not say which variable is meant.
    pub(super) flags: Box<[u64]>,
}

/// The struct of a state, taken apart.
struct Listed {
    /// Variables with offsets in the coroutine. One that is awaited is among them.
    known: Vec<Member>,
    flags: Vec<u64>,
    /// Names whose members are listed with the offset and type of another one, once for each such member.
    merged: Vec<String>,
}

impl Plans<'_, '_, '_> {
    /// What a coroutine of type `of` has in `state`.
    pub(super) fn variables<'s>(&self, of: TypeId, coroutine: &Coroutine, state: &'s State) -> &'s Variables {
        state.inside.get_or_init(|| {
            let frame = self.labels.borrow_mut().frame(of, state.value);
            let mut variables = Variables { frame, ..Variables::default() };
            let Some(ty) = self.process.ty(state.variables) else { return variables };
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
            if let Some(awaitee) = &variables.awaitee {
                variables.size = awaitee.plan.size;
            }
            variables.fields = fields.into();
            variables
        })
    }

    fn named(&self, member: &Member, base: u64) -> Option<Field> {
        let label = self.labels.borrow_mut().name(&member.name);
        self.field(member, base, label)
    }

    /// Takes the struct of a state apart: variables first, then captures (`type_di_node` of rustc's
    /// `debuginfo/metadata/enums`). Captures have their own offsets before the first poll.
    fn listed(&self, ty: &Type, coroutine: &Coroutine, state: &State) -> Listed {
        let mut listed = Listed { known: Vec::new(), flags: Vec::new(), merged: Vec::new() };
        let shifted = |member: &Member, base: u64| {
            Some(Member { offset: base.checked_add(member.offset)?, ..member.clone() })
        };
        let captures = coroutine.captures.and_then(|(base, of)| Some((base, self.process.ty(of)?)));
        let captured = captures.as_ref().map(|(_, ty)| ty.members.as_slice()).unwrap_or_default();
        let own =
            match ty.members.len().checked_sub(captured.len()).and_then(|at| ty.members.split_at_checked(at))
            {
                Some((own, rest)) if rest.iter().map(|m| &m.name).eq(captured.iter().map(|m| &m.name)) => own,
                _ => &ty.members,
            };
        for member in own {
            let is_flag =
                has_no_name(&member.name) && self.process.ty(member.of).is_some_and(|of| of.name == "bool");
            if is_flag {
                listed.flags.extend(state.offset.checked_add(member.offset));
            } else if listed.known.iter().any(|known| known.name == member.name) {
                listed.merged.push(member.name.clone());
            } else {
                listed.known.extend(shifted(member, state.offset));
            }
        }
        // Where an `async fn` is suspended, it has moved its arguments.
        if let Some((base, of)) = &captures
            && !(coroutine.of_function && state.kind == StateKind::Suspended)
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
        let suspension = self.process.types.suspension(of, state.value).unwrap_or_default();
        let mut names = std::mem::take(&mut listed.merged);
        names.sort_unstable();
        let (mut typed, mut doubtful, mut hidden) = (Vec::new(), Vec::new(), None);
        for merged in names.chunk_by(|one, other| one == other) {
            let Some(name) = merged.first() else { continue };
            let first = listed.known.iter().find(|known| known.name == *name).map(|first| first.offset);
            let all = suspension.in_scope.iter().flatten();
            let mut others: Vec<&Variable> =
                all.filter(|of| of.name == *name && !of.is_outermost()).collect();
            if suspension.has_offsets {
                others.retain(|of| of.offset.is_some() && of.offset != first);
            } else if let Some(listed) =
                others.iter().position(|of| of.offset.is_some() && of.offset == first)
            {
                others.remove(listed);
            } else if others.len() == merged.len() + 1 {
                // All of them are kept, in this order.
                others.remove(0);
            }
            if others.len() < merged.len() {
                hidden = Some(name.clone());
            }
            let is_sure = others.len() == merged.len();
            for of in others {
                let member = |offset| Member { name: name.clone(), offset, of: of.of };
                match of.offset {
                    Some(offset) if is_sure => listed.known.push(member(offset)),
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
                // Most of these hold something else: only what can be told from that is looked for.
                places => {
                    let fields = places.iter().filter_map(|place| self.named(&member, *place));
                    guesses.extend(fields.filter(|field| is_plain(&field.plan, MAX_NESTING)));
                }
            }
        }
        if let Some(name) = hidden {
            variables.hidden = self.labels.borrow_mut().name(&name);
            variables.gaps = gaps.into();
        }
        (variables.doubtful, variables.guesses) = (doubtful.into(), guesses.into());
    }

    /// Where a variable fits of which only the type is known.
    fn places(&self, member: &Member, gaps: &[Range<u64>]) -> Vec<u64> {
        let Some(ty) = self.process.ty(member.of).filter(|ty| ty.size > 0) else { return Vec::new() };
        let align = ty.align.max(1);
        let places = |gap: &Range<u64>| {
            let first = gap.start.checked_next_multiple_of(align);
            let range = first.zip(gap.end.checked_sub(ty.size));
            range.into_iter().flat_map(move |(first, last)| (first..=last).step_by(align as usize))
        };
        gaps.iter().flat_map(places).take(MAX_PLACES).collect()
    }

    /// The bytes of a coroutine that belong to none of these variables, nor to what it has captured.
    fn gaps(&self, of: TypeId, coroutine: &Coroutine, known: &[Member]) -> Vec<Range<u64>> {
        let size = |of: TypeId| self.process.ty(of).map_or(0, |ty| ty.size);
        let captures = coroutine.captures.and_then(|(base, of)| Some((base, self.process.ty(of)?)));
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
}

/// Whether all that is of interest in a type is handles, which can be told from other values.
fn is_plain(plan: &Plan, depth: usize) -> bool {
    let all = |fields: &[Field]| fields.iter().all(|field| is_plain(&field.plan, depth - 1));
    depth > 0
        && match &plan.body {
            Body::Handle { .. } => true,
            Body::Fields(fields) => all(fields),
            Body::Variants { cases, .. } => cases.iter().all(|case| all(&case.fields)),
            _ => false,
        }
}

/// `__7`: rustc gives numbers to what has no name in the source: drop flags and temporary values.
fn has_no_name(name: &str) -> bool {
    name.strip_prefix("__").is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_digit()))
}
