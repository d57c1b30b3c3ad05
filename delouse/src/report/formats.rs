//! The formats of answers: names, media types, and how an answer says which of them it has.

use serde::Serialize;

use super::json::LongList;

/// A format as clients request it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Format {
    /// The value of `?format=`, and of the command's `--format`.
    pub(crate) name: &'static str,
    /// The value of the header `Content-Type`.
    pub(crate) media_type: &'static str,
    /// What it is for, in the command's help.
    pub(crate) about: &'static str,
}

pub(crate) const TEXT: Format =
    Format { name: "text", media_type: "text/plain; charset=utf-8", about: "For people" };
pub(crate) const JSON: Format = Format {
    name: "json",
    media_type: "application/json",
    about: "For programs: the answer of the server's endpoint",
};
pub(crate) const DOT: Format =
    Format { name: "dot", media_type: "text/vnd.graphviz; charset=utf-8", about: "For Graphviz (waits)" };
pub(crate) const FOLDED: Format = Format {
    name: "folded",
    media_type: "text/plain; charset=utf-8",
    about: "For flame graphs: a line for each stack (tasks, threads)",
};
pub(crate) const PPROF: Format = Format {
    name: "pprof",
    media_type: "application/octet-stream",
    about: "For pprof: a gzipped profile (tasks, threads)",
};

/// All formats.
pub(crate) const FORMATS: [Format; 5] = [TEXT, JSON, DOT, FOLDED, PPROF];

/// A rendered answer.
pub(crate) enum Document {
    Whole(Vec<u8>),
    /// A long list, of which only a part is in memory at a time.
    List(LongList),
}

impl From<String> for Document {
    fn from(text: String) -> Self {
        Self::Whole(text.into())
    }
}

/// Writes answers of type `T` in one format.
pub(crate) struct Renderer<T> {
    pub(crate) format: Format,
    /// May take parts out of the answer, which is not used afterwards.
    pub(crate) render: fn(&mut T) -> Result<Document, serde_json::Error>,
}

impl<T: Renders> Renderer<T> {
    pub(crate) const JSON: Self =
        Self { format: JSON, render: |answer| serde_json::to_vec(answer).map(Document::Whole) };
    pub(crate) const TEXT: Self = Self { format: TEXT, render: |answer| Ok(answer.text().into()) };
}

/// An answer, and the formats that it has.
pub(crate) trait Renders: Serialize + Sized + 'static {
    /// The first is the default.
    const RENDERERS: &'static [Renderer<Self>] = &[Renderer::JSON, Renderer::TEXT];

    /// The whole answer as text for people.
    fn text(&self) -> String;
}
