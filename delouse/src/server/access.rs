//! Access control: accepts requests of programs on this machine and of clients with the token, but not of web pages.
//!
//! A page in a browser on this machine can send requests to loopback addresses. Three checks refuse them:
//! - `Host` must be a loopback name. With another name, an attacker may have pointed that name at a loopback address (DNS
//!   rebinding).
//! - `Origin` must be absent or this server's own.
//! - `Sec-Fetch-Site`, which pages cannot forge, must be absent, `same-origin`, or `none` (an address typed by the user).

use std::net::{IpAddr, SocketAddr};

use http::Uri;
use http::header::{AUTHORIZATION, HOST, HeaderMap, HeaderName, ORIGIN, USER_AGENT};
use subtle::ConstantTimeEq;

use super::error::ApiError;
use super::settings::ServerSettings;

/// Refuses requests that are not allowed.
pub(crate) fn check(settings: &ServerSettings, uri: &Uri, headers: &HeaderMap) -> Result<(), ApiError> {
    // With a token, any name is allowed: a page that rebinds a name does not know the token.
    let any_host = settings.token.is_some() && !settings.bind.ip().is_loopback();
    let host = requested_host(uri, headers).unwrap_or_default();
    if !any_host && !names_loopback(host) {
        return Err(ApiError::ForeignHost(host.to_owned()));
    }
    if headers.contains_key(ORIGIN) {
        let origin = text(headers, &ORIGIN).unwrap_or_default();
        let authority = origin.strip_prefix("http://").unwrap_or_default();
        if !authority.eq_ignore_ascii_case(host) {
            return Err(ApiError::ForeignOrigin(origin.to_owned()));
        }
    }
    let site = HeaderName::from_static("sec-fetch-site");
    if headers.contains_key(&site) && !matches!(text(headers, &site), Some("same-origin" | "none")) {
        return Err(ApiError::CrossSite);
    }
    match &settings.token {
        Some(token) if !bears(headers, token) => Err(ApiError::WrongToken),
        _ => Ok(()),
    }
}

/// Whether the client is a browser. Following a link must not end the program.
pub(crate) fn is_browser(headers: &HeaderMap) -> bool {
    headers.contains_key(ORIGIN)
        || headers.keys().any(|name| name.as_str().starts_with("sec-fetch-"))
        || text(headers, &USER_AGENT).is_some_and(|agent| agent.starts_with("Mozilla/"))
}

/// The host that the client requested: the header `Host`, or in HTTP/2 `:authority`, which hyper puts into the URI. `None`
/// if both are present and differ.
fn requested_host<'r>(uri: &'r Uri, headers: &'r HeaderMap) -> Option<&'r str> {
    let authority = uri.authority().map(http::uri::Authority::as_str);
    if !headers.contains_key(HOST) {
        return authority;
    }
    text(headers, &HOST).filter(|host| authority.is_none_or(|authority| authority.eq_ignore_ascii_case(host)))
}

/// The value of a header; `None` if there are several, or if it is not ASCII.
fn text<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?;
    if values.next().is_some() { None } else { value.to_str().ok() }
}

/// Whether it is `localhost` or a numeric loopback address, with or without a port.
fn names_loopback(host: &str) -> bool {
    let loopback = |ip: IpAddr| ip.is_loopback();
    if let Ok(address) = host.parse::<SocketAddr>() {
        return loopback(address.ip());
    }
    if let Some(ip) = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
        return ip.parse::<IpAddr>().is_ok_and(loopback);
    }
    let name = match host.split_once(':') {
        Some((name, port)) if port.parse::<u16>().is_ok() => name,
        Some(_) => return false,
        None => host,
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok_and(loopback)
}

/// Whether the request has the token. Compares in constant time, which does not hide the length of the token.
fn bears(headers: &HeaderMap, token: &str) -> bool {
    let Some((scheme, given)) = text(headers, &AUTHORIZATION).and_then(|value| value.split_once(' ')) else {
        return false;
    };
    scheme.eq_ignore_ascii_case("bearer") && bool::from(given.trim().as_bytes().ct_eq(token.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(token: Option<&str>, bind: &str, pairs: &[(&'static str, &str)]) -> Result<(), ApiError> {
        let settings = ServerSettings {
            bind: bind.parse().unwrap(),
            token: token.map(str::to_owned),
            log: slog::FilterLevel::Off,
            limits: Default::default(),
            ignored: Vec::new(),
        };
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().unwrap());
        }
        check(&settings, &Uri::from_static("/"), &headers)
    }

    #[test]
    fn authorities() {
        let ask = |uri: &'static str, hosts: &[&str]| {
            let mut headers = HeaderMap::new();
            for host in hosts {
                headers.append(HOST, host.parse().unwrap());
            }
            requested_host(&Uri::from_static(uri), &headers).unwrap_or_default().to_owned()
        };
        assert_eq!(ask("http://localhost:7132/", &[]), "localhost:7132");
        assert_eq!(ask("http://localhost:7132/", &["LOCALHOST:7132"]), "LOCALHOST:7132");
        assert_eq!(ask("/", &["localhost"]), "localhost");
        for (uri, hosts) in [
            ("http://evil/", &["localhost"][..]),
            ("http://localhost/", &["evil"]),
            ("http://localhost/", &["localhost", "localhost"]),
            ("http://user@localhost/", &["localhost"]),
            ("/", &[]),
        ] {
            assert_eq!(ask(uri, hosts), "", "{uri} {hosts:?}");
        }
    }

    #[test]
    fn hosts() {
        for host in [
            "localhost",
            "LOCALHOST:7132",
            "localhost:1",
            "127.0.0.1",
            "127.0.0.1:7132",
            "127.9.9.9",
            "[::1]",
            "[::1]:7132",
        ] {
            assert_eq!(ask(None, "127.0.0.1:7132", &[("host", host)]), Ok(()), "{host}");
        }
        for host in [
            "",
            "example.com",
            "localhost.example.com",
            "127.0.0.1.example.com",
            "10.0.0.1:7132",
            "0.0.0.0",
            "localhost:x",
            "localhost:1:2",
            "::1",
            "[::2]",
            "2130706433",
            "0x7f.1",
        ] {
            let answer = ask(None, "127.0.0.1:7132", &[("host", host)]);
            assert_eq!(answer, Err(ApiError::ForeignHost(host.to_owned())), "{host}");
        }
        assert!(ask(None, "127.0.0.1:7132", &[]).is_err(), "no Host");
        assert!(ask(None, "127.0.0.1:7132", &[("host", "localhost"), ("host", "evil")]).is_err(), "two");
    }

    #[test]
    fn origins_and_sites() {
        let with = |name, value| ask(None, "127.0.0.1:7132", &[("host", "localhost:7132"), (name, value)]);
        assert_eq!(with("origin", "http://localhost:7132"), Ok(()));
        for origin in
            ["null", "http://localhost:3000", "https://localhost:7132", "http://evil", "http://localhost"]
        {
            assert_eq!(with("origin", origin), Err(ApiError::ForeignOrigin(origin.to_owned())));
        }
        for site in ["same-origin", "none"] {
            assert_eq!(with("sec-fetch-site", site), Ok(()));
        }
        for site in ["cross-site", "same-site", "", "nonsense"] {
            assert_eq!(with("sec-fetch-site", site), Err(ApiError::CrossSite));
        }
    }

    #[test]
    fn tokens() {
        let with =
            |value| ask(Some("s3cret"), "127.0.0.1:1", &[("host", "localhost"), ("authorization", value)]);
        assert_eq!(with("Bearer s3cret"), Ok(()));
        assert_eq!(with("bearer s3cret"), Ok(()));
        for wrong in
            ["Bearer", "Bearer ", "Bearer s", "Bearer s3cre", "Bearer s3cret1", "Basic s3cret", "s3cret"]
        {
            assert_eq!(with(wrong), Err(ApiError::WrongToken), "{wrong}");
        }
        assert_eq!(ask(Some("t"), "127.0.0.1:1", &[("host", "localhost")]), Err(ApiError::WrongToken));
        let remote = [("host", "build-host:7132"), ("authorization", "Bearer t")];
        assert_eq!(ask(Some("t"), "0.0.0.0:7132", &remote), Ok(()));
        assert_eq!(ask(Some("t"), "0.0.0.0:7132", &remote[..1]), Err(ApiError::WrongToken));
    }

    #[test]
    fn browsers() {
        let browser = |name: &'static str, value: &str| {
            let mut headers = HeaderMap::new();
            headers.append(name, value.parse().unwrap());
            is_browser(&headers)
        };
        assert!(browser("sec-fetch-mode", "navigate"));
        assert!(browser("user-agent", "Mozilla/5.0 (X11; Linux x86_64)"));
        assert!(!browser("user-agent", "curl/8.5.0"));
    }
}
