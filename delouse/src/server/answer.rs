//! One answer, in the format that the client asks for.

use std::marker::PhantomData;
use std::sync::Arc;

use bytes::Bytes;
use dropshot::{ApiEndpointResponse, Body, HttpError, HttpResponse, HttpResponseOk};
use http::header::{
    ACCEPT, CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, VARY, X_CONTENT_TYPE_OPTIONS,
};
use http::{Response, StatusCode};
use schemars::JsonSchema;
use serde::Serialize;

use super::error::ApiError;
use super::pieces::Pieces;
use super::readers;
use super::thread::Material;

/// What a client can ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Json,
    Text,
    /// Graphs only: an endpoint that has one asks for it itself.
    Dot,
}

impl Format {
    /// `?format=` first, then `Accept`, then JSON.
    pub(crate) fn negotiate(asked: Option<&str>, headers: &HeaderMap) -> Result<Self, ApiError> {
        match asked {
            Some("json") => Ok(Self::Json),
            Some("text") => Ok(Self::Text),
            Some(other) => Err(ApiError::UnknownFormat(other.to_owned())),
            None => Ok(Self::accepted(headers)),
        }
    }

    /// For the header `Content-Type`.
    pub(crate) fn media_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; charset=utf-8",
            Self::Dot => "text/vnd.graphviz; charset=utf-8",
            Self::Json => "application/json",
        }
    }

    /// Of an error, where no endpoint has read its parameters, or what they say is the error.
    pub(crate) fn of_error(uri: &http::Uri, headers: &HeaderMap) -> Self {
        let parameters = uri.query().unwrap_or_default().split('&');
        match parameters.filter_map(|parameter| parameter.strip_prefix("format=")).next() {
            Some("text" | "dot") => Self::Text,
            Some("json") => Self::Json,
            _ => Self::accepted(headers),
        }
    }

    /// The better of the two by `Accept` (RFC 9110, 12.5.1); JSON where they are equal.
    fn accepted(headers: &HeaderMap) -> Self {
        let quality =
            |exact, group| accepted_quality(headers, &ACCEPT, &[exact, group, "*/*"]).unwrap_or(0.0);
        let text = quality("text/plain", "text/*");
        let json = quality("application/json", "application/*");
        if text > json { Self::Text } else { Self::Json }
    }
}

/// The quality (0 to 1) that a list such as `Accept` gives to the first of `names` that it mentions.
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

/// An answer that is written out: made once, cheap to clone, so that all who wait for one capture share it.
pub(crate) struct Rendered<T> {
    format: Format,
    content: Content,
    schema: PhantomData<fn() -> T>,
}

#[derive(Clone)]
enum Content {
    Whole(Bytes),
    /// Written out for each client while it reads.
    Pieces(Arc<dyn Fn() -> Body + Send + Sync>),
}

impl<T> Clone for Rendered<T> {
    fn clone(&self) -> Self {
        Self { format: self.format, content: self.content.clone(), schema: PhantomData }
    }
}

impl<T: Serialize> Rendered<T> {
    /// `text` is called only where text of some kind is wanted.
    pub(crate) fn new(format: Format, value: &T, text: impl FnOnce() -> String) -> Result<Self, ApiError> {
        let body = match format {
            Format::Text | Format::Dot => text().into_bytes(),
            Format::Json => serde_json::to_vec(value).map_err(|e| ApiError::Failed(e.to_string()))?,
        };
        Ok(Self { format, content: Content::Whole(body.into()), schema: PhantomData })
    }

    /// The same as JSON, for an answer whose last field is a long list: `items`, empty in `value`, where it has that name.
    pub(crate) fn long<I: Serialize + Send + Sync + 'static>(
        value: &T,
        field: &str,
        items: Material<Vec<I>>,
    ) -> Result<Self, ApiError> {
        let pieces = Pieces::new(value, field, items).map_err(|e| ApiError::Failed(e.to_string()))?;
        let content = Content::Pieces(Arc::new(move || readers::body(pieces.begin())));
        Ok(Self { format: Format::Json, content, schema: PhantomData })
    }
}

/// An answer that was written out already: the schema of `T` in the API's description, its bytes here.
pub(crate) struct Answer<T> {
    response: Response<Body>,
    schema: PhantomData<fn() -> T>,
}

impl<T> From<Rendered<T>> for Answer<T> {
    fn from(rendered: Rendered<T>) -> Self {
        let mut response = Response::new(match rendered.content {
            Content::Whole(bytes) => readers::whole(bytes),
            Content::Pieces(body) => body(),
        });
        harden(response.headers_mut());
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(rendered.format.media_type()));
        response.headers_mut().insert(VARY, HeaderValue::from_static("accept"));
        Self { response, schema: PhantomData }
    }
}

impl<T> From<Response<Body>> for Answer<T> {
    fn from(response: Response<Body>) -> Self {
        Self { response, schema: PhantomData }
    }
}

impl<T> Answer<T> {
    /// For an endpoint that answers in more than one shape.
    pub(crate) fn into_response(self) -> Response<Body> {
        self.response
    }

    /// Drops `guard` when hyper has written the answer's head, or the client is gone before.
    pub(crate) fn when_written<G: Clone + Send + Sync + 'static>(mut self, guard: G) -> Self {
        self.response.extensions_mut().insert(guard);
        self
    }
}

impl<T: Serialize + JsonSchema + Send + Sync + 'static> HttpResponse for Answer<T> {
    fn to_result(self) -> Result<Response<Body>, HttpError> {
        Ok(self.response)
    }

    fn response_metadata() -> ApiEndpointResponse {
        HttpResponseOk::<T>::response_metadata()
    }

    fn status_code(&self) -> StatusCode {
        self.response.status()
    }
}

/// Headers of every answer: no browser may take it for something else, nobody may keep it.
pub(crate) fn harden(headers: &mut HeaderMap) {
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accept(value: &str) -> Format {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, value.parse().unwrap());
        Format::negotiate(None, &headers).unwrap()
    }

    #[test]
    fn negotiation() {
        for json in
            ["*/*", "", "application/json", "text/html,*/*;q=0.8", "text/plain;q=0.5, application/json"]
        {
            assert_eq!(accept(json), Format::Json, "{json}");
        }
        for text in [
            "text/plain",
            "text/*",
            "text/plain, application/json;q=0.5",
            "TEXT/PLAIN",
            "text/plain, */*;q=0.1",
        ] {
            assert_eq!(accept(text), Format::Text, "{text}");
        }
        assert_eq!(Format::negotiate(Some("text"), &HeaderMap::new()), Ok(Format::Text));
        assert!(Format::negotiate(Some("xml"), &HeaderMap::new()).is_err());
    }

    #[test]
    fn errors_have_the_format_that_was_asked_for() {
        let mut text = HeaderMap::new();
        text.insert(ACCEPT, HeaderValue::from_static("text/plain"));
        let json = HeaderMap::new();
        for (uri, headers, format) in [
            ("/nothing", &json, Format::Json),
            ("/nothing", &text, Format::Text),
            ("/nothing?format=json", &text, Format::Json),
            ("/nothing?full=true&format=text", &json, Format::Text),
            ("/waits?format=dot", &json, Format::Text),
            ("/waits?format=xml", &json, Format::Json),
        ] {
            assert_eq!(Format::of_error(&uri.parse().unwrap(), headers), format, "{uri}");
        }
    }
}
