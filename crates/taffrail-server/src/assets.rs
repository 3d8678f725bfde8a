//! The page and the API's viewer, served from the binary. Everything that is no other route ends here.
//!
//! Hashed files never change and are cached for good; everything else is asked for again each time. A navigation to an
//! unknown path gets the page (its router knows the path); anything else unknown is a 404.

use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};

use crate::problem::Problem;

struct File {
    name: &'static str,
    bytes: &'static [u8],
    br: Option<&'static [u8]>,
    gz: Option<&'static [u8]>,
}

include!(concat!(env!("OUT_DIR"), "/assets.rs"));

/// The API's viewer: no CDN, no inline script.
static VIEWER: &[File] = &[
    File { name: "docs/index.html", bytes: include_bytes!("viewer/docs.html"), br: None, gz: None },
    File { name: "docs/docs.js", bytes: include_bytes!("viewer/docs.js"), br: None, gz: None },
    File { name: "docs/docs.css", bytes: include_bytes!("viewer/docs.css"), br: None, gz: None },
];

/// Everything from this server, nothing inline, nothing framed.
const PAGE_CSP: &str = "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; \
    form-action 'self'; frame-ancestors 'none'";
const FOR_GOOD: &str = "public, max-age=31536000, immutable";
const ASK_AGAIN: &str = "no-cache";
/// Paths under which there is no page.
const NO_PAGE: [&str; 4] = ["api/", "v1/", "events/", "assets/"];

/// Answers from the embedded files.
pub(crate) async fn serve(request: Request) -> Response {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        return Problem::NotFound("route").into_response();
    }
    let path = request.uri().path().trim_start_matches('/');
    match find(path) {
        Some(file) => answer(file, request.headers()),
        None if is_navigation(request.headers())
            && !NO_PAGE.iter().any(|prefix| path.starts_with(prefix)) =>
        {
            find("").map_or_else(
                || Problem::NotFound("page").into_response(),
                |page| answer(page, request.headers()),
            )
        }
        None => Problem::NotFound("route").into_response(),
    }
}

fn find(path: &str) -> Option<&'static File> {
    let name = match path {
        "" => "index.html",
        "docs" | "docs/" => "docs/index.html",
        other => other,
    };
    VIEWER.iter().chain(FILES).find(|file| file.name == name)
}

/// A browser that goes to a page says so; a script, an image or a program does not.
fn is_navigation(headers: &HeaderMap) -> bool {
    let says = |name: &str| headers.get(name).and_then(|v| v.to_str().ok());
    match says("sec-fetch-mode") {
        Some(mode) => mode == "navigate",
        None => says(header::ACCEPT.as_str()).is_some_and(|accept| accept.contains("text/html")),
    }
}

fn answer(file: &'static File, headers: &HeaderMap) -> Response {
    let accepted = headers.get(header::ACCEPT_ENCODING).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let (bytes, encoding) = match (file.br, file.gz) {
        (Some(br), _) if takes(accepted, "br") => (br, Some("br")),
        (_, Some(gz)) if takes(accepted, "gzip") => (gz, Some("gzip")),
        _ => (file.bytes, None),
    };
    let hashed = file.name.starts_with("assets/");
    let mut out = HeaderMap::new();
    out.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type(file.name)));
    out.insert(header::CACHE_CONTROL, HeaderValue::from_static(if hashed { FOR_GOOD } else { ASK_AGAIN }));
    out.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(PAGE_CSP));
    out.insert(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    if let Some(encoding) = encoding {
        out.insert(header::CONTENT_ENCODING, HeaderValue::from_static(encoding));
    }
    if !hashed && let Ok(tag) = HeaderValue::from_str(&entity_tag(bytes)) {
        if headers.get(header::IF_NONE_MATCH) == Some(&tag) {
            return (StatusCode::NOT_MODIFIED, out).into_response();
        }
        out.insert(header::ETAG, tag);
    }
    (out, bytes).into_response()
}

fn takes(accepted: &str, encoding: &str) -> bool {
    accepted.split(',').any(|one| {
        let (name, weight) = one.split_once(';').unwrap_or((one, ""));
        name.trim().eq_ignore_ascii_case(encoding)
            && !matches!(weight.trim(), "q=0" | "q=0.0" | "q=0.00" | "q=0.000")
    })
}

fn entity_tag(bytes: &[u8]) -> String {
    let hash = Sha256::digest(bytes);
    let hex: String = hash[..8].iter().map(|b| format!("{b:02x}")).collect();
    format!("\"{hex}\"")
}

fn media_type(name: &str) -> &'static str {
    match name.rsplit('.').next().unwrap_or_default() {
        "html" => "text/html; charset=utf-8",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "json" | "webmanifest" => "application/json",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "webp" => "image/webp",
        "ico" => "image/x-icon",
        "woff2" => "font/woff2",
        "woff" => "font/woff",
        "wasm" => "application/wasm",
        "txt" => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_and_the_viewer_are_there() {
        for path in ["", "index.html", "docs", "docs/", "docs/docs.js"] {
            assert!(find(path).is_some(), "{path}");
        }
        assert!(find("../Cargo.toml").is_none());
    }

    #[test]
    fn encodings_are_taken_as_the_browser_weighs_them() {
        assert!(takes("gzip, br;q=0.9", "br"));
        assert!(!takes("gzip;q=1, br;q=0", "br"));
        assert!(!takes("broken", "br"));
    }
}
