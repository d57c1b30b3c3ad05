//! Our own reader against gimli's.

use gimli::{Dwarf, EndianSlice, LittleEndian, constants as dw};

use super::{Entries, Value, aranges, bytes};
use crate::debuginfo::image::Image;

type Slice<'a> = EndianSlice<'a, LittleEndian>;

fn own() -> Image {
    Image::open(&std::env::current_exe().unwrap()).unwrap()
}

fn dwarf(image: &Image) -> Dwarf<Slice<'_>> {
    Dwarf::load(|id| Ok::<_, gimli::Error>(EndianSlice::new(image.section(id), LittleEndian))).unwrap()
}

/// What both readers say of one entry: where it is, how deep, its tag, and attributes in several forms.
#[derive(Debug, PartialEq)]
struct Seen {
    offset: usize,
    depth: isize,
    tag: gimli::DwTag,
    numbers: [Option<u64>; 3],
    name: Option<Vec<u8>>,
    reference: Option<u64>,
    low: Option<u64>,
    location: Option<Vec<u8>>,
}

const NUMBERS: [gimli::DwAt; 3] = [dw::DW_AT_byte_size, dw::DW_AT_decl_line, dw::DW_AT_discr_value];

fn by_gimli(dwarf: &Dwarf<Slice<'_>>, unit: &gimli::Unit<Slice<'_>>) -> Vec<Seen> {
    let mut entries = unit.entries_raw(None).unwrap();
    let (mut entry, mut seen) = (gimli::DebuggingInformationEntry::null(), Vec::new());
    while !entries.is_empty() {
        if !entries.read_entry(&mut entry).unwrap() {
            continue;
        }
        let number = |name| {
            let attribute = entry.attr(name)?;
            attribute.udata_value().or_else(|| attribute.sdata_value().map(|value| value as u64))
        };
        seen.push(Seen {
            offset: entry.offset().0,
            depth: entry.depth(),
            tag: entry.tag(),
            numbers: NUMBERS.map(number),
            name: entry
                .attr_value(dw::DW_AT_name)
                .map(|name| dwarf.attr_string(unit, name).unwrap().to_vec()),
            reference: match entry.attr_value(dw::DW_AT_type) {
                Some(gimli::AttributeValue::UnitRef(offset)) => Some(offset.0 as u64),
                _ => None,
            },
            low: entry.attr_value(dw::DW_AT_low_pc).and_then(|low| dwarf.attr_address(unit, low).unwrap()),
            location: entry
                .attr_value(dw::DW_AT_location)
                .and_then(|value| Some(value.exprloc_value()?.0.slice().to_vec())),
        });
    }
    seen
}

fn by_us(dwarf: &Dwarf<Slice<'_>>, unit: &gimli::Unit<Slice<'_>>, image: &Image) -> Vec<Seen> {
    let section = |id| image.section(id);
    let entries = Entries::of(
        &unit.header,
        section(gimli::SectionId::DebugInfo),
        section(gimli::SectionId::DebugAbbrev),
    )
    .unwrap();
    let mut walk = entries.walk_all();
    let mut seen = Vec::new();
    while let Some(entry) = walk.next() {
        let again = entries.at(entry.offset).unwrap();
        assert_eq!((again.tag(), again.attr(dw::DW_AT_name)), (entry.tag(), entry.attr(dw::DW_AT_name)));
        seen.push(Seen {
            offset: entry.offset as usize,
            depth: entry.depth as isize,
            tag: entry.tag(),
            numbers: NUMBERS.map(|name| entry.number(name)),
            name: entry.attr(dw::DW_AT_name).map(|name| match name {
                Value::Str(at) => {
                    bytes::until_zero(&section(gimli::SectionId::DebugStr)[at as usize..]).to_vec()
                }
                Value::LineStr(at) => {
                    bytes::until_zero(&section(gimli::SectionId::DebugLineStr)[at as usize..]).to_vec()
                }
                Value::StrIndex(at) => {
                    let index = gimli::DebugStrOffsetsIndex(at as usize);
                    let value = gimli::AttributeValue::DebugStrOffsetsIndex(index);
                    dwarf.attr_string(unit, value).unwrap().to_vec()
                }
                Value::Text(text) => text.to_vec(),
                other => panic!("{other:?}"),
            }),
            reference: match entry.attr(dw::DW_AT_type) {
                Some(Value::UnitRef(offset)) => Some(offset),
                _ => None,
            },
            low: entry.attr(dw::DW_AT_low_pc).map(|low| match low {
                Value::Address(address) => address,
                Value::AddressIndex(at) => dwarf.address(unit, gimli::DebugAddrIndex(at as usize)).unwrap(),
                other => panic!("{other:?}"),
            }),
            location: match entry.attr(dw::DW_AT_location) {
                Some(Value::Block(block)) => Some(block.to_vec()),
                _ => None,
            },
        });
    }
    seen
}

#[test]
fn entries_are_those_of_gimli() {
    let image = own();
    let dwarf = dwarf(&image);
    let mut headers = Vec::new();
    let mut units = dwarf.units();
    while let Some(header) = units.next().unwrap() {
        headers.push(header);
    }
    // Small ones, of which there are enough of each compiler: our own are read in a second each.
    headers.retain(|header| header.length_including_self() < 200_000);
    let mut compared = 0;
    for header in headers.iter().step_by(headers.len() / 40 + 1) {
        let unit = dwarf.unit(*header).unwrap();
        let (expected, found) = (by_gimli(&dwarf, &unit), by_us(&dwarf, &unit, &image));
        for (expected, found) in expected.iter().zip(&found) {
            assert_eq!(expected, found, "unit at {:?}", header.offset());
        }
        assert_eq!(expected.len(), found.len());
        compared += found.len();
    }
    assert!(compared > 10_000, "{compared}");
}

#[test]
fn address_ranges_are_those_of_gimli() {
    let image = own();
    let dwarf = dwarf(&image);
    let mut rest = image.section(gimli::SectionId::DebugAranges);
    let mut headers = dwarf.debug_aranges.headers();
    let mut sets = 0;
    while let Some(header) = headers.next().unwrap() {
        let set = aranges::Set::next(&mut rest).unwrap();
        assert_eq!(set.unit, header.debug_info_offset().0);
        let mut merged = Vec::new();
        set.each(|start, end| merged.push(start..end));
        let mut entries = header.entries();
        while let Ok(Some(entry)) = entries.next() {
            let (start, length) = (entry.address(), entry.length());
            let is_covered = merged.iter().any(|range| range.start <= start && start + length <= range.end);
            assert_eq!(is_covered, start > 0 && length > 0, "{start:#x}+{length:#x}");
        }
        sets += 1;
    }
    assert!(sets > 10 && aranges::Set::next(&mut rest).is_none());
}

#[test]
fn numbers_are_read_up_to_the_end() {
    let mut input = &[0x80, 0x01, 0x7f, 0x80][..];
    assert_eq!(bytes::uleb(&mut input), Some(128));
    assert_eq!(bytes::sleb(&mut input), Some(-1));
    assert_eq!((bytes::uleb(&mut input), input.len()), (None, 1), "it does not end");
    assert_eq!(bytes::uleb(&mut &[0xff; 64][..]), None, "nor does this");
    let most = [[0xff; 9].as_slice(), &[0x01]].concat();
    assert_eq!(bytes::uleb(&mut &*most), Some(u64::MAX));
    let least = [[0x80; 9].as_slice(), &[0x7f]].concat();
    assert_eq!(bytes::sleb(&mut &*least), Some(i64::MIN));
    assert_eq!(bytes::u64(&mut &[1, 0, 0, 0, 0, 0, 0, 2][..]), Some(0x0200_0000_0000_0001));
    assert_eq!(bytes::unsigned(&mut &[1, 2, 3][..], 4), None);
    assert_eq!(bytes::until_zero(b"ab\0c"), b"ab");
    assert_eq!(bytes::until_zero(b"ab"), b"ab");
}
