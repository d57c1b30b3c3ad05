//! An answer in the format that the client requests.

use std::marker::PhantomData;

use bytes::Bytes;
use dropshot::{ApiEndpointResponse, Body, HttpError, HttpResponse, HttpResponseOk};
use http::header::{HeaderValue, VARY};
use http::{Response, StatusCode};
use schemars::JsonSchema;
use serde::Serialize;

use super::error::ApiError;
use super::format::response;
use super::json_stream::Pieces;
use super::readers;
use crate::report::formats::{Document, Format, Renderer, Renders};

/// A rendered answer. Cheap to clone, so that all clients that wait for the same capture share it.
pub(crate) struct Rendered<T> {
    format: Format,
    content: Content,
    schema: PhantomData<fn() -> T>,
}

#[derive(Clone)]
enum Content {
    Whole(Bytes),
    /// Rendered separately for each client, while the client reads it.
    Pieces(Pieces),
}

impl<T> Clone for Rendered<T> {
    fn clone(&self) -> Self {
        Self { format: self.format, content: self.content.clone(), schema: PhantomData }
    }
}

impl<T: Renders> Rendered<T> {
    /// May take parts out of `answer`, which must not be used afterwards.
    pub(crate) fn new(Renderer { format, render }: &Renderer<T>, answer: &mut T) -> Result<Self, ApiError> {
        let content = match render(answer).map_err(|error| ApiError::Failed(error.to_string()))? {
            Document::Whole(bytes) => Content::Whole(bytes.into()),
            Document::List(list) => Content::Pieces(Pieces::new(list)),
        };
        Ok(Self { format: *format, content, schema: PhantomData })
    }
}

/// A response that is documented in the OpenAPI description with the schema of `T`.
pub(crate) struct Answer<T> {
    response: Response<Body>,
    schema: PhantomData<fn() -> T>,
}

impl<T> From<Rendered<T>> for Answer<T> {
    fn from(rendered: Rendered<T>) -> Self {
        let body = match rendered.content {
            Content::Whole(bytes) => readers::whole(bytes),
            Content::Pieces(pieces) => readers::body(pieces.begin()),
        };
        let mut response = response(body, rendered.format.media_type);
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
    /// For endpoints whose responses have different types.
    pub(crate) fn into_response(self) -> Response<Body> {
        self.response
    }

    /// Drops `guard` when hyper has written the response's head, or the client has disconnected before.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::own_threads::spawn;
    use crate::snapshot::OwnThread;
    use crate::tasks::Frame;

    #[derive(Serialize)]
    struct Stack(Vec<Frame>);

    impl Renders for Stack {
        fn text(&self) -> String {
            String::new()
        }
    }

    #[test]
    fn deep_stacks_can_be_rendered() {
        let frame = |children| Frame {
            function: "down".to_owned(),
            file: None,
            line: None,
            children,
            ..Frame::default()
        };
        // Deeper than any listing.
        let (done, written) = std::sync::mpsc::channel();
        let write = move || {
            let mut deep = Stack((0..2000).fold(Vec::new(), |children, _| vec![frame(children)]));
            done.send(Rendered::new(&Renderer::JSON, &mut deep).map(drop)).unwrap();
        };
        spawn(OwnThread::Test, write).unwrap();
        assert_eq!(written.recv(), Ok(Ok(())));
    }
}
