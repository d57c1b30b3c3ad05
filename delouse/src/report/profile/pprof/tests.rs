//! The rules of Parca and Pyroscope for profiles, which neither has in a form that a test can run.

use std::collections::BTreeMap;
use std::io::Read as _;

use super::super::tests::profile as of_tasks;
use super::super::{MOST_SAMPLES, Sample};
use super::*;
use crate::waits::fixtures;

/// The fields of a message: numbers, and the bytes of the others.
#[derive(Default)]
struct Decoded {
    numbers: BTreeMap<u32, u64>,
    parts: BTreeMap<u32, Vec<Vec<u8>>>,
}

fn varint(bytes: &mut &[u8]) -> u64 {
    let mut value = 0;
    for shift in (0..).step_by(7) {
        let (byte, rest) = bytes.split_first().unwrap();
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return value;
        }
    }
    unreachable!()
}

fn decode(mut bytes: &[u8]) -> Decoded {
    let mut of = Decoded::default();
    while !bytes.is_empty() {
        let key = varint(&mut bytes);
        let field = (key >> 3) as u32;
        match key & 7 {
            0 => assert!(of.numbers.insert(field, varint(&mut bytes)).is_none()),
            2 => {
                let length = varint(&mut bytes) as usize;
                let (part, rest) = bytes.split_at(length);
                of.parts.entry(field).or_default().push(part.to_owned());
                bytes = rest;
            }
            other => panic!("wire type {other}"),
        }
    }
    of
}

fn list(mut bytes: &[u8]) -> Vec<u64> {
    let mut values = Vec::new();
    while !bytes.is_empty() {
        values.push(varint(&mut bytes));
    }
    values
}

impl Decoded {
    fn messages(&self, field: u32) -> Vec<Self> {
        self.parts.get(&field).into_iter().flatten().map(|bytes| decode(bytes)).collect()
    }

    fn number(&self, field: u32) -> u64 {
        self.numbers.get(&field).copied().unwrap_or(0)
    }
}

/// Unpacks a profile, and checks what Parca and Pyroscope check.
fn accepted(profile: &Profile) -> (Decoded, Vec<String>) {
    let zipped = pprof(profile, "goroutine", 1_700_000_000_000_000_000, 0).unwrap();
    assert_eq!(zipped[..2], [0x1f, 0x8b]);
    let mut bytes = Vec::new();
    flate2::read::GzDecoder::new(zipped.as_slice()).read_to_end(&mut bytes).unwrap();
    assert!(bytes.len() < 4 << 20, "Pyroscope's limit: {}", bytes.len());
    let decoded = decode(&bytes);
    let strings: Vec<String> =
        decoded.parts[&6].iter().map(|text| String::from_utf8(text.clone()).unwrap()).collect();
    assert_eq!(strings[0], "");
    let ids = |field| decoded.messages(field).iter().map(|one| one.number(1)).collect::<Vec<_>>();
    for field in [3, 4, 5] {
        let expected: Vec<u64> = (1..=ids(field).len() as u64).collect();
        assert_eq!(ids(field), expected, "ids of field {field} without gaps");
    }
    let functions = ids(5).len() as u64;
    let locations = decoded.messages(4);
    for location in &locations {
        assert_eq!((location.number(2), location.number(3)), (1, 0), "of the mapping, without an address");
        let [line] = location.messages(4).try_into().unwrap_or_else(|_| panic!("one line"));
        assert!((1..=functions).contains(&line.number(1)));
    }
    let samples = decoded.messages(2);
    assert!(samples.len() <= 16_000, "Pyroscope's limit");
    for sample in &samples {
        let stack = list(&sample.parts[&1][0]);
        assert!(stack.len() <= 1000 && !stack.is_empty(), "Pyroscope's limit");
        assert!(stack.iter().all(|id| (1..=locations.len() as u64).contains(id)));
        assert_eq!(list(&sample.parts[&2][0]).len(), decoded.messages(1).len(), "one value for each type");
        for label in sample.messages(3) {
            assert!(label.number(1) != 0 && label.number(2) != 0, "labels have a key and a value");
        }
    }
    (decoded, strings)
}

#[test]
fn a_profile_as_go_writes_it() {
    let (decoded, strings) = accepted(&of_tasks(1000));
    let value_type = &decoded.messages(1)[0];
    let name = |id: u64| strings[id as usize].as_str();
    assert_eq!((name(value_type.number(1)), name(value_type.number(2))), ("goroutine", "count"));
    let period = &decoded.messages(11)[0];
    assert_eq!(
        (name(period.number(1)), name(period.number(2)), decoded.number(12)),
        ("goroutine", "count", 1)
    );
    assert_eq!(decoded.number(9), 1_700_000_000_000_000_000);
    let mapping = &decoded.messages(3)[0];
    assert!((7..=10).all(|has| mapping.number(has) == 1), "nothing is left to symbolise");
    let samples = decoded.messages(2);
    let values: Vec<u64> = samples.iter().map(|sample| list(&sample.parts[&2][0])[0]).collect();
    assert_eq!(values, [750, 250]);
    let function = &decoded.messages(5)[0];
    assert_eq!((name(function.number(2)), name(function.number(4))), ("app::often", "src/main.rs"));
    let labels: Vec<(&str, &str)> =
        samples[0].messages(3).iter().map(|label| (name(label.number(1)), name(label.number(2)))).collect();
    assert_eq!(labels, [("kind", "task"), ("state", "idle"), ("runtime", "multi_thread 1")]);
}

#[test]
fn large_profiles_are_accepted() {
    let long = "of_a_name_that_is_rather_long::".repeat(10);
    let tasks: Vec<_> = (1..=30_000).map(|id| fixtures::task(id, &format!("app::{long}f{id}"), 10)).collect();
    let (decoded, strings) = accepted(&Profile::of_tasks(&tasks));
    assert!(decoded.messages(2).len() <= MOST_SAMPLES + 1);
    assert!(strings.iter().any(|text| text.ends_with(" more stacks")));
}

#[test]
fn negative_counts_of_a_difference() {
    let sample = Sample { frames: vec![Site::named("app::f".to_owned())], labels: Vec::new(), count: -3 };
    let (decoded, _) = accepted(&Profile { samples: vec![sample] });
    assert_eq!(list(&decoded.messages(2)[0].parts[&2][0]), [(-3_i64).cast_unsigned()]);
    accepted(&Profile::default());
}
