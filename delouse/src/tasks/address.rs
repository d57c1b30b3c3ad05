//! Addresses as they stand in answers.

use std::fmt;

use schemars::JsonSchema;
use schemars::r#gen::SchemaGenerator;
use schemars::schema::Schema;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// An address in the program's memory: a number here, and `"0x7f…"` in text and JSON, which has no numbers of
/// 64 bits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address(pub u64);

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Address {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let digits = text.strip_prefix("0x").ok_or_else(|| de::Error::custom("an address begins with 0x"))?;
        u64::from_str_radix(digits, 16).map(Self).map_err(de::Error::custom)
    }
}

impl JsonSchema for Address {
    fn schema_name() -> String {
        String::schema_name()
    }

    fn is_referenceable() -> bool {
        false
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        String::json_schema(generator)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by it")]
    use super::*;

    #[test]
    fn hexadecimal_there_and_back() {
        let address = Address(0x7f00_dead_beef_0008);
        let json = serde_json::to_string(&address).unwrap();
        assert_eq!(json, "\"0x7f00deadbeef0008\"");
        assert_eq!(serde_json::from_str::<Address>(&json).unwrap(), address);
        for no_address in ["\"7f00\"", "\"0x\"", "12", "\"0x1_0000\"", "\"0xfffffffffffffffff\""] {
            assert!(serde_json::from_str::<Address>(no_address).is_err(), "{no_address}");
        }
    }
}
