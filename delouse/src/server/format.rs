//! Which format an answer is written in, and headers of all answers.

use http::header::{ACCEPT, CACHE_CONTROL, HeaderMap, HeaderName, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use schemars::JsonSchema;
use schemars::r#gen::SchemaGenerator;
use schemars::schema::{InstanceType, Schema, SchemaObject};
use serde::de::{Deserialize, Deserializer, Error};

use dropshot::Body;
use http::Response;
use http::header::CONTENT_TYPE;

use crate::report::formats::{FORMATS, Format, JSON, Renderer, Renders, TEXT};

/// The parameter `format` of an endpoint whose answer is a `T`.
pub(crate) struct Requested<T: Renders>(&'static Renderer<T>);

impl<'de, T: Renders> Deserialize<'de> for Requested<T> {
    fn deserialize<D: Deserializer<'de>>(value: D) -> Result<Self, D::Error> {
        let name = String::deserialize(value)?;
        let named = T::RENDERERS.iter().find(|renderer| renderer.format.name == name);
        named.map(Self).ok_or_else(|| D::Error::custom(format_args!("the answer has no format `{name}`")))
    }
}

impl<T: Renders> JsonSchema for Requested<T> {
    fn schema_name() -> String {
        "Format".to_owned()
    }

    fn is_referenceable() -> bool {
        false
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let names = T::RENDERERS.iter().map(|renderer| renderer.format.name.into());
        Schema::Object(SchemaObject {
            instance_type: Some(InstanceType::String.into()),
            enum_values: Some(names.collect()),
            ..SchemaObject::default()
        })
    }
}

/// The format by `?format=`, or else the one that `Accept` prefers (RFC 9110, 12.5.1), or else the answer's first.
pub(crate) fn negotiate<T: Renders>(
    requested: Option<Requested<T>>,
    headers: &HeaderMap,
) -> &'static Renderer<T> {
    match requested {
        Some(Requested(renderer)) => renderer,
        None => {
            let all = T::RENDERERS.iter();
            let quality = |renderer: &Renderer<T>| quality(renderer.format, headers);
            all.reduce(|best, next| if quality(next) > quality(best) { next } else { best })
                .unwrap_or(&Renderer::JSON)
        }
    }
}

/// The format of an error: text for answers in text, else JSON. Also for requests whose parameters no endpoint has parsed, or
/// whose parameters are invalid.
pub(crate) fn of_error(uri: &http::Uri, headers: &HeaderMap) -> Format {
    let parameters = uri.query().unwrap_or_default().split('&');
    let name = parameters.filter_map(|parameter| parameter.strip_prefix("format=")).next();
    let requested = FORMATS.iter().find(|format| name == Some(format.name));
    let text = match requested {
        Some(format) => format.media_type.starts_with("text/"),
        None => quality(TEXT, headers) > quality(JSON, headers),
    };
    if text { TEXT } else { JSON }
}

/// Whether the client is a browser that shows a page to a person.
pub(super) fn prefers_html(headers: &HeaderMap) -> bool {
    let html = quality_of("text/html", headers);
    html > quality(JSON, headers) && html > quality(TEXT, headers)
}

/// How much the client prefers `format`, by `Accept`: 0 to 1.
fn quality(format: Format, headers: &HeaderMap) -> f32 {
    quality_of(format.media_type, headers)
}

fn quality_of(media_type: &str, headers: &HeaderMap) -> f32 {
    let exact = media_type.split(';').next().unwrap_or_default();
    let group = exact.split('/').next().unwrap_or_default();
    accepted_quality(headers, &ACCEPT, &[exact, &format!("{group}/*"), "*/*"]).unwrap_or(0.0)
}

/// The quality (0 to 1) of the first of `names` that a header such as `Accept` contains.
pub(crate) fn accepted_quality(headers: &HeaderMap, list: &HeaderName, names: &[&str]) -> Option<f32> {
    let values = headers.get_all(list).iter().filter_map(|v| v.to_str().ok());
    let entries: Vec<&str> = values.flat_map(|v| v.split(',')).collect();
    names.iter().find_map(|wanted| {
        entries.iter().find_map(|entry| {
            let mut parts = entry.split(';').map(str::trim);
            parts.next().filter(|name| name.eq_ignore_ascii_case(wanted))?;
            let q = parts.find_map(|p| p.strip_prefix("q=")).map(|q| q.parse().unwrap_or(0.0));
            Some(q.unwrap_or(1.0))
        })
    })
}

/// Sets headers of every answer: browsers must not guess its type, and caches must not store it.
pub(crate) fn harden(headers: &mut HeaderMap) {
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
}

/// A response of that media type.
pub(crate) fn response(body: Body, media_type: &'static str) -> Response<Body> {
    let mut response = Response::new(body);
    harden(response.headers_mut());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::formats::DOT;

    #[derive(serde::Serialize)]
    struct Graph;

    impl Renders for Graph {
        const RENDERERS: &'static [Renderer<Self>] = &[
            Renderer::JSON,
            Renderer::TEXT,
            Renderer { format: DOT, render: |graph| Ok(graph.text().into()) },
        ];

        fn text(&self) -> String {
            String::new()
        }
    }

    fn accept(value: &str) -> Format {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, value.parse().unwrap());
        negotiate::<Graph>(None, &headers).format
    }

    #[test]
    fn negotiation() {
        for json in
            ["*/*", "", "application/json", "text/html,*/*;q=0.8", "text/plain;q=0.5, application/json"]
        {
            assert_eq!(accept(json), JSON, "{json}");
        }
        for text in [
            "text/plain",
            "text/*",
            "text/plain, application/json;q=0.5",
            "TEXT/PLAIN",
            "text/plain, */*;q=0.1",
        ] {
            assert_eq!(accept(text), TEXT, "{text}");
        }
        for dot in ["text/vnd.graphviz", "text/plain;q=0.5, text/vnd.graphviz", "text/*, text/plain;q=0"] {
            assert_eq!(accept(dot), DOT, "{dot}");
        }
        let requested = |name: &str| serde_json::from_value::<Requested<Graph>>(name.into());
        assert_eq!(negotiate(requested("text").ok(), &HeaderMap::new()).format, TEXT);
        assert!(requested("xml").is_err());
    }

    #[test]
    fn errors_have_the_requested_format() {
        let mut text = HeaderMap::new();
        text.insert(ACCEPT, HeaderValue::from_static("text/plain"));
        let json = HeaderMap::new();
        for (uri, headers, format) in [
            ("/nothing", &json, JSON),
            ("/nothing", &text, TEXT),
            ("/nothing?format=json", &text, JSON),
            ("/nothing?full=true&format=text", &json, TEXT),
            ("/waits?format=dot", &json, TEXT),
            ("/waits?format=xml", &json, JSON),
        ] {
            assert_eq!(of_error(&uri.parse().unwrap(), headers), format, "{uri}");
        }
    }
}
