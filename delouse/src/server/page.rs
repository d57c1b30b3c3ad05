//! The page for browsers, at `/`.
//!
//! Its sources are in `delouse/page`; `npm run build` there writes the files that are included here. The page itself has no
//! data: it asks the endpoints as any client does. It is therefore sent without a token, and asks its user for that.

use bytes::Bytes;
use dropshot::Body;
use http::header::{CONTENT_SECURITY_POLICY, HeaderName, HeaderValue, REFERRER_POLICY, VARY};
use http::{Method, Request, Response};

use super::format::{self, prefers_html};

/// The page, with its styles and its script.
const PAGE: &[u8] = include_bytes!("../../page/dist/page.html");
/// The policy: no request to anywhere else, and no style or script but those of the page, by their hashes.
const POLICY: &str = include_str!("../../page/dist/policy.txt");

/// Whether the client is a browser that a person has pointed at `/`.
pub(super) fn is_requested<B>(request: &Request<B>) -> bool {
    let format = |query: &str| query.split('&').any(|parameter| parameter.starts_with("format="));
    request.method() == Method::GET
        && request.uri().path() == "/"
        && !request.uri().query().is_some_and(format)
        && prefers_html(request.headers())
}

/// The page.
pub(super) fn response() -> Response<Body> {
    let mut response = format::response(Body::from(Bytes::from_static(PAGE)), "text/html; charset=utf-8");
    let headers = response.headers_mut();
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(
        HeaderName::from_static("cross-origin-opener-policy"),
        HeaderValue::from_static("same-origin"),
    );
    headers.insert(
        HeaderName::from_static("cross-origin-resource-policy"),
        HeaderValue::from_static("same-origin"),
    );
    headers.insert(VARY, HeaderValue::from_static("accept"));
    response
}

#[cfg(test)]
mod tests {
    use http::header::ACCEPT;

    use super::*;

    /// What Firefox and Chromium send when a person types an address.
    const NAVIGATION: &str =
        "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8";

    fn asks(uri: &str, accept: &str) -> bool {
        is_requested(&Request::get(uri).header(ACCEPT, accept).body(()).unwrap())
    }

    #[test]
    fn browsers_get_the_page_and_programs_get_the_document() {
        assert!(asks("/", NAVIGATION) && asks("/?x=1", NAVIGATION) && asks("/", "text/html"));
        for (uri, accept) in [
            ("/", "*/*"),
            ("/", "application/json"),
            ("/", "text/plain"),
            ("/", "text/*"),
            ("/", "application/json, text/html;q=0.5"),
            ("/?format=json", NAVIGATION),
            ("/?format=text", NAVIGATION),
            ("/diagnosis", NAVIGATION),
        ] {
            assert!(!asks(uri, accept), "{uri} {accept}");
        }
        assert!(!is_requested(&Request::post("/").header(ACCEPT, NAVIGATION).body(()).unwrap()));
        assert!(!is_requested(&Request::get("/").body(()).unwrap()));
    }

    #[test]
    fn the_page_loads_nothing_from_elsewhere() {
        let response = response();
        let policy = response.headers().get(CONTENT_SECURITY_POLICY).unwrap().to_str().unwrap();
        for rule in [
            "default-src 'none'",
            "connect-src 'self'",
            "frame-ancestors 'none'",
            "require-trusted-types-for 'script'",
        ] {
            assert!(policy.contains(rule), "{policy}");
        }
        assert!(!policy.contains("unsafe") && !policy.contains('*') && !policy.contains("http"), "{policy}");
        let page = std::str::from_utf8(PAGE).unwrap();
        assert!(!page.contains("src=\"") && !page.contains("href=\"http"), "the page refers to other files");
    }

    #[test]
    fn the_page_is_small() {
        let mut zipped = Vec::new();
        let mut encoder = flate2::read::GzEncoder::new(PAGE, flate2::Compression::best());
        std::io::Read::read_to_end(&mut encoder, &mut zipped).unwrap();
        assert!(zipped.len() < 120_000, "{}", zipped.len());
    }
}
