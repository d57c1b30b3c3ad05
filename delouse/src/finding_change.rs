//! What changes about a finding from one look to the next. Compiled in every build, as is the event that has it.

/// What has changed about a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(
    feature = "engine",
    derive(serde::Serialize, serde::Deserialize, schemars::JsonSchema),
    serde(rename_all = "lowercase"),
    schemars(rename = "Change")
)]
#[non_exhaustive]
pub enum FindingChange {
    /// Two looks in succession have seen it.
    New,
    /// It is certain now, or about at least twice as many tasks.
    Changed,
    /// Two looks in succession have not seen it.
    Gone,
}
