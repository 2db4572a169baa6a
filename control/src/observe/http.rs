//! As much of HTTP/1.0 as a scrape needs: one request, one response, end (RFC 1945).

/// The longest request head that is waited for, in bytes; more of it is refused.
pub const LONGEST_REQUEST: usize = 8 << 10;

const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Whether [`respond`] may be called: the head has ended, or is longer than anyone may send.
#[must_use]
pub fn is_complete(request: &[u8]) -> bool {
    request.len() > LONGEST_REQUEST || head_ends(request)
}

fn head_ends(request: &[u8]) -> bool {
    request.windows(4).any(|w| w == b"\r\n\r\n") || request.windows(2).any(|w| w == b"\n\n")
}

/// The whole response to a request; the connection is to be closed after it. `body` is called for `GET` and `HEAD` of
/// `/metrics` or `/` only.
#[must_use]
pub fn respond(request: &[u8], body: impl FnOnce() -> String) -> Vec<u8> {
    let refused = |status, extra, words: &str| response(status, extra, "text/plain", words, true);
    if !head_ends(request) {
        return match request.len() > LONGEST_REQUEST {
            true => refused("431 Request Header Fields Too Large", "", "The request is too long.\n"),
            false => refused("400 Bad Request", "", "The request has no end.\n"),
        };
    }
    let line = request.split(|b| *b == b'\n').next().unwrap_or_default();
    let mut words = std::str::from_utf8(line).unwrap_or_default().split_ascii_whitespace();
    let (method, target, version) = (words.next(), words.next(), words.next());
    let (Some(method), Some(target), Some(version), None) = (method, target, version, words.next()) else {
        return refused("400 Bad Request", "", "This is no HTTP request.\n");
    };
    if !version.starts_with("HTTP/1.") {
        return refused("505 HTTP Version Not Supported", "", "HTTP/1.0 or 1.1 only.\n");
    }
    if !matches!(method, "GET" | "HEAD") {
        return refused("405 Method Not Allowed", "Allow: GET, HEAD\r\n", "GET or HEAD only.\n");
    }
    let path = target.split('?').next().unwrap_or_default();
    if !matches!(path, "/metrics" | "/") {
        return refused("404 Not Found", "", "The counters are at /metrics.\n");
    }
    response("200 OK", "", OPENMETRICS, &body(), method == "GET")
}

fn response(status: &str, extra: &str, kind: &str, body: &str, with_body: bool) -> Vec<u8> {
    let length = body.len();
    let mut text = format!(
        "HTTP/1.0 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n{extra}Connection: close\r\n\r\n"
    );
    if with_body {
        text.push_str(body);
    }
    text.into_bytes()
}
