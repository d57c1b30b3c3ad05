//! Numbers at the start of a slice, which then begins after them.

/// The next byte.
#[inline(always)]
pub(in crate::debuginfo) fn u8(input: &mut &[u8]) -> Option<u8> {
    let [byte, rest @ ..] = *input else { return None };
    *input = rest;
    Some(*byte)
}

/// The next two bytes, little endian.
#[inline(always)]
pub(in crate::debuginfo) fn u16(input: &mut &[u8]) -> Option<u16> {
    let [a, b, rest @ ..] = *input else { return None };
    *input = rest;
    Some(*a as u16 | (*b as u16) << 8)
}

/// The next four bytes, little endian.
#[inline(always)]
pub(in crate::debuginfo) fn u32(input: &mut &[u8]) -> Option<u32> {
    let [a, b, c, d, rest @ ..] = *input else { return None };
    *input = rest;
    Some(*a as u32 | (*b as u32) << 8 | (*c as u32) << 16 | (*d as u32) << 24)
}

/// The next eight bytes, little endian.
#[inline(always)]
pub(in crate::debuginfo) fn u64(input: &mut &[u8]) -> Option<u64> {
    let (Some(low), Some(high)) = (u32(input), u32(input)) else { return None };
    Some(low as u64 | (high as u64) << 32)
}

/// The next number of up to eight bytes, little endian.
pub(in crate::debuginfo) fn unsigned(input: &mut &[u8], size: usize) -> Option<u64> {
    match size {
        1 => u8(input).map(u64::from),
        2 => u16(input).map(u64::from),
        4 => u32(input).map(u64::from),
        8 => u64(input),
        _ => None,
    }
}

/// The next LEB128 number without a sign. Bits beyond 64 are lost, as in no number that is meant seriously.
#[inline(always)]
pub(in crate::debuginfo) fn uleb(input: &mut &[u8]) -> Option<u64> {
    let mut rest = *input;
    let (mut value, mut shift) = (0_u64, 0_u32);
    while let [byte, after @ ..] = rest {
        rest = after;
        if shift < 64 {
            value |= ((*byte & 0x7f) as u64) << shift;
        }
        if *byte < 0x80 {
            *input = rest;
            return Some(value);
        }
        shift += 7;
        if shift > MAX_SHIFT {
            return None;
        }
    }
    None
}

/// The next LEB128 number with a sign.
pub(in crate::debuginfo) fn sleb(input: &mut &[u8]) -> Option<i64> {
    let mut rest = *input;
    let (mut value, mut shift) = (0_i64, 0_u32);
    while let [byte, after @ ..] = rest {
        rest = after;
        if shift < 64 {
            value |= ((*byte & 0x7f) as i64) << shift;
        }
        shift += 7;
        if *byte < 0x80 {
            *input = rest;
            let is_negative = *byte & 0x40 != 0 && shift < 64;
            return Some(if is_negative { value | -1 << shift } else { value });
        }
        if shift > MAX_SHIFT {
            return None;
        }
    }
    None
}

/// A number may be padded, but not without end.
const MAX_SHIFT: u32 = 7 * 32;

/// Skips as many bytes. Returns whether there were as many.
#[inline(always)]
pub(in crate::debuginfo) fn skip(input: &mut &[u8], length: usize) -> bool {
    let Some(rest) = input.get(length..) else { return false };
    *input = rest;
    true
}

/// The bytes in front of the first zero; all where there is none.
pub(in crate::debuginfo) fn until_zero(bytes: &[u8]) -> &[u8] {
    // Of the standard library, which is optimised in any build.
    std::ffi::CStr::from_bytes_until_nul(bytes).map_or(bytes, std::ffi::CStr::to_bytes)
}
