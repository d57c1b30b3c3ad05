//! One entry and its attributes.

use gimli::{DwAt, DwForm, DwTag, constants as dw};

use super::abbreviations::{Abbreviation, Spec};
use super::bytes;
use super::forms::{self, Encoding};

/// An entry.
#[derive(Debug, Clone, Copy)]
pub(in crate::debuginfo) struct Entry<'e, 'a> {
    /// Where it is in its unit.
    pub(in crate::debuginfo) offset: u32,
    /// 0 for the entry that a walk began with, 1 for its children.
    pub(in crate::debuginfo) depth: i32,
    pub(super) abbreviation: &'e Abbreviation,
    pub(super) specs: &'e [Spec],
    /// Begins with its attributes.
    pub(super) data: &'a [u8],
    pub(super) encoding: Encoding,
}

/// The value of an attribute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::debuginfo) enum Value<'a> {
    Number(u64),
    Signed(i64),
    Address(u64),
    AddressIndex(u64),
    /// An offset in the unit.
    UnitRef(u64),
    /// An offset in `.debug_info`.
    InfoRef(u64),
    /// An offset in another section.
    Section(u64),
    /// An index of a list of locations.
    Locations(u64),
    /// An index of a list of ranges.
    Ranges(u64),
    /// An expression, or other bytes.
    Block(&'a [u8]),
    Text(&'a [u8]),
    /// An offset in `.debug_str`.
    Str(u64),
    /// An offset in `.debug_line_str`.
    LineStr(u64),
    /// An index in `.debug_str_offsets`.
    StrIndex(u64),
    /// In a form that is not needed here.
    Other,
}

impl<'e, 'a> Entry<'e, 'a> {
    pub(in crate::debuginfo) fn tag(&self) -> DwTag {
        self.abbreviation.tag
    }

    pub(in crate::debuginfo) fn has_children(&self) -> bool {
        self.abbreviation.has_children
    }

    /// Whether it has an attribute.
    pub(in crate::debuginfo) fn has(&self, name: DwAt) -> bool {
        let mut specs = self.specs;
        while let [spec, rest @ ..] = specs {
            specs = rest;
            if spec.name == name.0 {
                return true;
            }
        }
        false
    }

    /// The attribute of that name.
    pub(in crate::debuginfo) fn attr(&self, name: DwAt) -> Option<Value<'a>> {
        let (mut specs, mut data) = (self.specs, self.data);
        while let [spec, rest @ ..] = specs {
            specs = rest;
            if spec.name == name.0 {
                return value(spec.form, spec.implicit, &mut data, self.encoding);
            }
            if !forms::skip(spec.form, &mut data, self.encoding) {
                return None;
            }
        }
        None
    }

    /// The attribute of that name as a number. One with a sign is taken by its bits.
    pub(in crate::debuginfo) fn number(&self, name: DwAt) -> Option<u64> {
        match self.attr(name) {
            Some(Value::Number(number)) => Some(number),
            Some(Value::Signed(number)) => Some(number as u64),
            _ => None,
        }
    }

    /// The attributes that an index of a unit needs, in one pass: those of these names, in this order. The rest of `input`
    /// begins behind the last attribute. `None` where they cannot be read.
    #[expect(clippy::question_mark, reason = "it is two calls in a build without optimisation")]
    pub(in crate::debuginfo) fn read<const N: usize>(
        &self,
        names: [DwAt; N],
        input: &mut &'a [u8],
    ) -> Option<[Option<Value<'a>>; N]> {
        let mut values = [None; N];
        let mut specs = self.specs;
        while let [spec, rest @ ..] = specs {
            specs = rest;
            let (mut wanted, mut into) = (names.as_slice(), values.as_mut_slice());
            let mut found = false;
            while let ([name, names @ ..], [slot, slots @ ..]) = (wanted, into) {
                if name.0 == spec.name {
                    let Some(read) = value(spec.form, spec.implicit, input, self.encoding) else {
                        return None;
                    };
                    *slot = Some(read);
                    found = true;
                    break;
                }
                (wanted, into) = (names, slots);
            }
            if !found && !forms::skip(spec.form, input, self.encoding) {
                return None;
            }
        }
        Some(values)
    }
}

/// Reads an attribute of that form.
fn value<'a>(form: u16, implicit: i64, input: &mut &'a [u8], encoding: Encoding) -> Option<Value<'a>> {
    let offset = |input: &mut &'a [u8]| bytes::unsigned(input, encoding.offset_size);
    Some(match DwForm(form) {
        dw::DW_FORM_strp => Value::Str(offset(input)?),
        dw::DW_FORM_ref4 => Value::UnitRef(u64::from(bytes::u32(input)?)),
        dw::DW_FORM_data1 => Value::Number(u64::from(bytes::u8(input)?)),
        dw::DW_FORM_data2 => Value::Number(u64::from(bytes::u16(input)?)),
        dw::DW_FORM_data4 => Value::Number(u64::from(bytes::u32(input)?)),
        dw::DW_FORM_data8 => Value::Number(bytes::u64(input)?),
        dw::DW_FORM_udata => Value::Number(bytes::uleb(input)?),
        dw::DW_FORM_sdata => Value::Signed(bytes::sleb(input)?),
        dw::DW_FORM_implicit_const => Value::Signed(implicit),
        dw::DW_FORM_addr => Value::Address(bytes::unsigned(input, encoding.address_size)?),
        dw::DW_FORM_exprloc | dw::DW_FORM_block => {
            let length = usize::try_from(bytes::uleb(input)?).ok()?;
            Value::Block(take(input, length)?)
        }
        dw::DW_FORM_block1 => {
            let length = usize::from(bytes::u8(input)?);
            Value::Block(take(input, length)?)
        }
        dw::DW_FORM_block2 => {
            let length = usize::from(bytes::u16(input)?);
            Value::Block(take(input, length)?)
        }
        dw::DW_FORM_block4 => {
            let length = usize::try_from(bytes::u32(input)?).ok()?;
            Value::Block(take(input, length)?)
        }
        dw::DW_FORM_flag_present => Value::Number(1),
        dw::DW_FORM_flag => Value::Number(u64::from(bytes::u8(input)?)),
        dw::DW_FORM_sec_offset => Value::Section(offset(input)?),
        dw::DW_FORM_line_strp => Value::LineStr(offset(input)?),
        dw::DW_FORM_string => {
            let text = bytes::until_zero(input);
            bytes::skip(input, text.len() + 1).then_some(Value::Text(text))?
        }
        dw::DW_FORM_strx | dw::DW_FORM_GNU_str_index => Value::StrIndex(bytes::uleb(input)?),
        dw::DW_FORM_strx1 => Value::StrIndex(u64::from(bytes::u8(input)?)),
        dw::DW_FORM_strx2 => Value::StrIndex(u64::from(bytes::u16(input)?)),
        dw::DW_FORM_strx3 => Value::StrIndex(three(input)?),
        dw::DW_FORM_strx4 => Value::StrIndex(u64::from(bytes::u32(input)?)),
        dw::DW_FORM_addrx | dw::DW_FORM_GNU_addr_index => Value::AddressIndex(bytes::uleb(input)?),
        dw::DW_FORM_addrx1 => Value::AddressIndex(u64::from(bytes::u8(input)?)),
        dw::DW_FORM_addrx2 => Value::AddressIndex(u64::from(bytes::u16(input)?)),
        dw::DW_FORM_addrx3 => Value::AddressIndex(three(input)?),
        dw::DW_FORM_addrx4 => Value::AddressIndex(u64::from(bytes::u32(input)?)),
        dw::DW_FORM_loclistx => Value::Locations(bytes::uleb(input)?),
        dw::DW_FORM_rnglistx => Value::Ranges(bytes::uleb(input)?),
        dw::DW_FORM_ref1 => Value::UnitRef(u64::from(bytes::u8(input)?)),
        dw::DW_FORM_ref2 => Value::UnitRef(u64::from(bytes::u16(input)?)),
        dw::DW_FORM_ref8 => Value::UnitRef(bytes::u64(input)?),
        dw::DW_FORM_ref_udata => Value::UnitRef(bytes::uleb(input)?),
        dw::DW_FORM_ref_addr if encoding.version == 2 => {
            Value::InfoRef(bytes::unsigned(input, encoding.address_size)?)
        }
        dw::DW_FORM_ref_addr => Value::InfoRef(offset(input)?),
        dw::DW_FORM_indirect => {
            let form = u16::try_from(bytes::uleb(input)?).ok()?;
            // One that leads to another one would never end.
            (form != dw::DW_FORM_indirect.0).then(|| value(form, 0, input, encoding))??
        }
        _ => {
            if !forms::skip(form, input, encoding) {
                return None;
            }
            Value::Other
        }
    })
}

fn three(input: &mut &[u8]) -> Option<u64> {
    let (low, high) = (bytes::u16(input)?, bytes::u8(input)?);
    Some(u64::from(low) | u64::from(high) << 16)
}

fn take<'a>(input: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, rest) = input.split_at_checked(length)?;
    *input = rest;
    Some(taken)
}
