//! The format of pprof: a gzipped protocol buffer (`perftools.profiles.Profile`), as Go's `net/http/pprof` writes it.
//!
//! Parca and Pyroscope refuse profiles that break rules which the format does not have; the tests hold them.

use std::io::{self, Write as _};

use flate2::Compression;
use flate2::write::GzEncoder;
use rustc_hash::FxHashMap;

use super::{Profile, Site};

/// What the values count: a unit that Pyroscope and Parca know.
const UNIT: &str = "count";

/// The profile, whose values are counts of `what`, taken at `time_ns` since 1970.
pub(crate) fn pprof(profile: &Profile, what: &str, time_ns: i64, duration_ns: i64) -> io::Result<Vec<u8>> {
    let bytes = encode(profile, what, time_ns, duration_ns);
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(&bytes)?;
    encoder.finish()
}

fn encode(profile: &Profile, what: &str, time_ns: i64, duration_ns: i64) -> Vec<u8> {
    let mut tables = Tables::default();
    let mut out = Message::default();
    // `string_table[0]` is the empty string.
    tables.string("");
    let value_type = |tables: &mut Tables| {
        let mut value_type = Message::default();
        value_type.number(1, tables.string(what));
        value_type.number(2, tables.string(UNIT));
        value_type
    };
    out.message(field::SAMPLE_TYPE, &value_type(&mut tables));
    for sample in &profile.samples {
        let mut of = Message::default();
        let locations: Vec<u64> = sample.frames.iter().map(|site| tables.location(site)).collect();
        of.packed(1, &locations);
        of.packed(2, &[sample.count.cast_unsigned()]);
        for (key, value) in &sample.labels {
            let mut label = Message::default();
            label.number(1, tables.string(key));
            label.number(2, tables.string(value));
            of.message(3, &label);
        }
        out.message(field::SAMPLE, &of);
    }
    // Says that nothing is left to symbolise.
    let mut mapping = Message::default();
    mapping.number(1, 1);
    (7..=10).for_each(|has| mapping.number(has, 1));
    out.message(field::MAPPING, &mapping);
    out.bytes.extend_from_slice(&tables.locations.bytes);
    out.bytes.extend_from_slice(&tables.functions.bytes);
    out.number(field::TIME_NANOS, time_ns.cast_unsigned());
    out.number(field::DURATION_NANOS, duration_ns.cast_unsigned());
    out.message(field::PERIOD_TYPE, &value_type(&mut tables));
    out.number(field::PERIOD, 1);
    for text in &tables.strings {
        out.text(field::STRING_TABLE, text);
    }
    out.bytes
}

/// Fields of `Profile`.
mod field {
    pub(super) const SAMPLE_TYPE: u32 = 1;
    pub(super) const SAMPLE: u32 = 2;
    pub(super) const MAPPING: u32 = 3;
    pub(super) const LOCATION: u32 = 4;
    pub(super) const FUNCTION: u32 = 5;
    pub(super) const STRING_TABLE: u32 = 6;
    pub(super) const TIME_NANOS: u32 = 9;
    pub(super) const DURATION_NANOS: u32 = 10;
    pub(super) const PERIOD_TYPE: u32 = 11;
    pub(super) const PERIOD: u32 = 12;
}

/// Strings, functions and locations, each once. Ids count from 1, without gaps.
#[derive(Default)]
struct Tables {
    strings: Vec<String>,
    string_ids: FxHashMap<String, u64>,
    functions: Message,
    function_ids: FxHashMap<(u64, u64), u64>,
    locations: Message,
    location_ids: FxHashMap<(u64, u32), u64>,
}

impl Tables {
    fn string(&mut self, text: &str) -> u64 {
        if let Some(id) = self.string_ids.get(text) {
            return *id;
        }
        let id = self.strings.len() as u64;
        self.strings.push(text.to_owned());
        self.string_ids.insert(text.to_owned(), id);
        id
    }

    fn function(&mut self, site: &Site) -> u64 {
        let (name, file) = (self.string(&site.function), self.string(&site.file));
        let next = self.function_ids.len() as u64 + 1;
        let id = *self.function_ids.entry((name, file)).or_insert(next);
        if id == next {
            let mut function = Message::default();
            function.number(1, id);
            function.number(2, name);
            function.number(3, name);
            function.number(4, file);
            self.functions.message(field::FUNCTION, &function);
        }
        id
    }

    /// A location without an address and with one line.
    fn location(&mut self, site: &Site) -> u64 {
        let function = self.function(site);
        let next = self.location_ids.len() as u64 + 1;
        let id = *self.location_ids.entry((function, site.line)).or_insert(next);
        if id == next {
            let mut line = Message::default();
            line.number(1, function);
            line.number(2, site.line.into());
            let mut location = Message::default();
            location.number(1, id);
            location.number(2, 1);
            location.message(4, &line);
            self.locations.message(field::LOCATION, &location);
        }
        id
    }
}

/// A message of a protocol buffer.
#[derive(Default)]
struct Message {
    bytes: Vec<u8>,
}

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.bytes.push(0x80 | (value & 0x7f) as u8);
            value >>= 7;
        }
        self.bytes.push(value as u8);
    }

    /// A field of type `int64`, `uint64` or `bool`; the default is left out.
    fn number(&mut self, field: u32, value: u64) {
        if value != 0 {
            self.varint(u64::from(field << 3));
            self.varint(value);
        }
    }

    fn text(&mut self, field: u32, text: &str) {
        self.varint(u64::from(field << 3 | 2));
        self.varint(text.len() as u64);
        self.bytes.extend_from_slice(text.as_bytes());
    }

    fn message(&mut self, field: u32, of: &Self) {
        self.varint(u64::from(field << 3 | 2));
        self.varint(of.bytes.len() as u64);
        self.bytes.extend_from_slice(&of.bytes);
    }

    fn packed(&mut self, field: u32, values: &[u64]) {
        let mut list = Self::default();
        values.iter().for_each(|value| list.varint(*value));
        self.message(field, &list);
    }
}

#[cfg(test)]
mod tests;
