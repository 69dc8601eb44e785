//! Who may ask what. Looking is free for whoever reaches the address; what changes something needs the admin token, or
//! the permission to write to the Unix socket. Pages of other origins get nothing: neither by a name that they have
//! resolve to this machine, nor by sending a browser here.

use std::net::IpAddr;

use axum::response::Response;
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Method, StatusCode};

use super::routes::text;
use crate::config::AdminToken;

/// By which way a request came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Entrance {
    /// A Unix socket: whoever could connect may do everything.
    Socket,
    /// TCP on a loopback address: every program and every user of this machine.
    Loopback,
}

/// Whether a request may be answered; else the refusal.
#[expect(clippy::result_large_err, reason = "it is the answer")]
pub(super) fn check(
    method: &Method,
    headers: &HeaderMap,
    entrance: Entrance,
    token: Option<&AdminToken>,
) -> Result<(), Response> {
    let length = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if length.is_some_and(|length| length > BODY_BYTES_MAX) || headers.contains_key(header::TRANSFER_ENCODING) {
        return Err(text(StatusCode::PAYLOAD_TOO_LARGE, "no request here has a body of that size\n"));
    }
    if entrance == Entrance::Socket {
        return Ok(());
    }
    if !headers.get(header::HOST).is_some_and(is_own_host) {
        return Err(text(StatusCode::MISDIRECTED_REQUEST, "ask for localhost, or for a loopback address\n"));
    }
    let is_foreign = headers.get("sec-fetch-site").is_some_and(|site| site != "same-origin" && site != "none");
    if is_foreign {
        return Err(text(StatusCode::FORBIDDEN, "pages of other origins get nothing\n"));
    }
    if matches!(*method, Method::GET | Method::HEAD) {
        return Ok(());
    }
    let Some(token) = token else {
        return Err(text(StatusCode::FORBIDDEN, "without [admin] token_file only Unix sockets take changes\n"));
    };
    let presented = headers.get(header::AUTHORIZATION).and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
    if presented.is_some_and(|presented| token.is(presented)) {
        return Ok(());
    }
    let mut refusal = text(StatusCode::UNAUTHORIZED, "changes need the admin token: Authorization: Bearer TOKEN\n");
    refusal.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    Err(refusal)
}

/// A name that belongs to somebody else may lead to this machine, too.
fn is_own_host(host: &HeaderValue) -> bool {
    let Ok(host) = host.to_str() else { return false };
    let is_port = |port: &str| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    let name = match host.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((address, "")) => address,
            Some((address, port)) if port.strip_prefix(':').is_some_and(is_port) => address,
            _ => return false,
        },
        None => match host.split_once(':') {
            Some((name, port)) if is_port(port) => name,
            Some(_) => return false,
            None => host,
        },
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// What every answer says: nothing is kept, framed, or loaded from elsewhere.
pub(super) fn add_headers(headers: &mut HeaderMap) {
    let fixed = [
        (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    for (name, value) in fixed {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.insert("cross-origin-resource-policy", HeaderValue::from_static("same-origin"));
}

const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
    connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Nothing that is asked has a body; some clients send an empty object.
const BODY_BYTES_MAX: u64 = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_own_names_are_answered() {
        let is_own = |host: &str| is_own_host(&HeaderValue::from_str(host).unwrap());
        for good in ["localhost", "LOCALHOST:1", "127.0.0.1", "127.9.9.9:80", "[::1]", "[::1]:7445"] {
            assert!(is_own(good), "{good}");
        }
        for bad in [
            "",
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example:80",
            "10.0.0.1",
            "[::1",
            "[::1]x",
            "[fd00::1]:1",
            "localhost:x",
            "127.0.0.1:80:80",
        ] {
            assert!(!is_own(bad), "{bad}");
        }
    }

    #[test]
    fn changes_need_the_token_or_the_socket() {
        let token = AdminToken::parse(&[b'x'; 32]).unwrap();
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, HeaderValue::from_static("localhost"));
        let status = |method, headers: &HeaderMap, entrance, token: Option<&AdminToken>| {
            check(&method, headers, entrance, token).map_err(|refusal| refusal.status().as_u16())
        };
        assert_eq!(status(Method::GET, &headers, Entrance::Loopback, None), Ok(()));
        assert_eq!(status(Method::POST, &headers, Entrance::Socket, None), Ok(()));
        assert_eq!(status(Method::POST, &headers, Entrance::Loopback, None), Err(403));
        assert_eq!(status(Method::POST, &headers, Entrance::Loopback, Some(&token)), Err(401));
        headers.insert(header::AUTHORIZATION, HeaderValue::from_static("Bearer wrong"));
        assert_eq!(status(Method::POST, &headers, Entrance::Loopback, Some(&token)), Err(401));
        let right = format!("Bearer {}", "x".repeat(32));
        headers.insert(header::AUTHORIZATION, HeaderValue::from_str(&right).unwrap());
        assert_eq!(status(Method::POST, &headers, Entrance::Loopback, Some(&token)), Ok(()));
        headers.insert("sec-fetch-site", HeaderValue::from_static("cross-site"));
        assert_eq!(status(Method::GET, &headers, Entrance::Loopback, Some(&token)), Err(403));
        headers.insert(header::HOST, HeaderValue::from_static("evil.example"));
        assert_eq!(status(Method::GET, &headers, Entrance::Loopback, Some(&token)), Err(421));
    }
}
