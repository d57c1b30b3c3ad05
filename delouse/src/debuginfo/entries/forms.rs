//! The sizes of the forms of attributes (DWARF 5, 7.5.5).

use gimli::{DwForm, Format, constants as dw};

use super::bytes;

/// What sizes depend on.
#[derive(Debug, Clone, Copy)]
pub(in crate::debuginfo) struct Encoding {
    pub(in crate::debuginfo) address_size: usize,
    /// Of offsets into sections.
    pub(in crate::debuginfo) offset_size: usize,
    pub(in crate::debuginfo) version: u16,
}

impl Encoding {
    pub(in crate::debuginfo) fn of(encoding: gimli::Encoding) -> Self {
        Self {
            address_size: usize::from(encoding.address_size),
            offset_size: if encoding.format == Format::Dwarf64 { 8 } else { 4 },
            version: encoding.version,
        }
    }
}

/// How long an attribute is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Size {
    /// In bytes.
    Fixed(usize),
    /// A LEB128 number.
    Leb,
    /// A LEB128 number, and as many bytes.
    Block,
    /// A number of that many bytes, and as many bytes as it says.
    Counted(usize),
    /// Up to a zero.
    Text,
    /// The form, and the attribute in that form.
    Indirect,
    Unknown,
}

/// The size of attributes of a form.
pub(super) fn size(form: u16, encoding: Encoding) -> Size {
    match DwForm(form) {
        dw::DW_FORM_implicit_const | dw::DW_FORM_flag_present => Size::Fixed(0),
        dw::DW_FORM_data1 | dw::DW_FORM_flag | dw::DW_FORM_strx1 | dw::DW_FORM_ref1 | dw::DW_FORM_addrx1 => {
            Size::Fixed(1)
        }
        dw::DW_FORM_data2 | dw::DW_FORM_ref2 | dw::DW_FORM_addrx2 | dw::DW_FORM_strx2 => Size::Fixed(2),
        dw::DW_FORM_addrx3 | dw::DW_FORM_strx3 => Size::Fixed(3),
        dw::DW_FORM_data4
        | dw::DW_FORM_ref_sup4
        | dw::DW_FORM_ref4
        | dw::DW_FORM_strx4
        | dw::DW_FORM_addrx4 => Size::Fixed(4),
        dw::DW_FORM_data8 | dw::DW_FORM_ref8 | dw::DW_FORM_ref_sig8 | dw::DW_FORM_ref_sup8 => Size::Fixed(8),
        dw::DW_FORM_data16 => Size::Fixed(16),
        dw::DW_FORM_addr => Size::Fixed(encoding.address_size),
        dw::DW_FORM_sec_offset
        | dw::DW_FORM_GNU_ref_alt
        | dw::DW_FORM_strp
        | dw::DW_FORM_strp_sup
        | dw::DW_FORM_GNU_strp_alt
        | dw::DW_FORM_line_strp => Size::Fixed(encoding.offset_size),
        dw::DW_FORM_ref_addr if encoding.version == 2 => Size::Fixed(encoding.address_size),
        dw::DW_FORM_ref_addr => Size::Fixed(encoding.offset_size),
        dw::DW_FORM_udata
        | dw::DW_FORM_sdata
        | dw::DW_FORM_ref_udata
        | dw::DW_FORM_strx
        | dw::DW_FORM_GNU_str_index
        | dw::DW_FORM_addrx
        | dw::DW_FORM_GNU_addr_index
        | dw::DW_FORM_loclistx
        | dw::DW_FORM_rnglistx => Size::Leb,
        dw::DW_FORM_block | dw::DW_FORM_exprloc => Size::Block,
        dw::DW_FORM_block1 => Size::Counted(1),
        dw::DW_FORM_block2 => Size::Counted(2),
        dw::DW_FORM_block4 => Size::Counted(4),
        dw::DW_FORM_string => Size::Text,
        dw::DW_FORM_indirect => Size::Indirect,
        _ => Size::Unknown,
    }
}

/// Skips an attribute of that form. Returns whether it could be read.
pub(super) fn skip(form: u16, input: &mut &[u8], encoding: Encoding) -> bool {
    match size(form, encoding) {
        Size::Fixed(size) => bytes::skip(input, size),
        Size::Leb => {
            while let [byte, rest @ ..] = *input {
                *input = rest;
                if *byte < 0x80 {
                    return true;
                }
            }
            false
        }
        Size::Block => match bytes::uleb(input) {
            Some(length) => bytes::skip(input, length as usize),
            None => false,
        },
        Size::Counted(size) => match bytes::unsigned(input, size) {
            Some(length) => bytes::skip(input, length as usize),
            None => false,
        },
        Size::Text => {
            let length = bytes::until_zero(input).len();
            length < input.len() && bytes::skip(input, length + 1)
        }
        Size::Indirect => match bytes::uleb(input) {
            // One that leads to another one would never end.
            Some(form) if form != u64::from(dw::DW_FORM_indirect.0) => match u16::try_from(form) {
                Ok(form) => skip(form, input, encoding),
                Err(_) => false,
            },
            _ => false,
        },
        Size::Unknown => false,
    }
}
