//! As much HTTP/1.1 as the scripted model and its checks need, on the standard library.
//!
//! Loopback only. The server side gives the handler the bare stream, because a scripted model
//! has to stall, stream slowly and hang up in the middle; the client side makes one request
//! per connection. Bodies are capped.

use anyhow::{Context, Result, bail};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

/// The largest body either side reads.
const BODY_BYTES_MAX: u64 = 64 << 20;

/// The longest line of a head, and the most lines of it.
const HEAD_LINE_BYTES_MAX: u64 = 64 << 10;
const HEAD_LINES_MAX: usize = 200;

/// How long a read or write of the client side may take.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(10);

/// A request as it came in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Request {
    /// `GET`, `POST`, ...
    pub(crate) method: String,
    /// The target without its query.
    pub(crate) path: String,
    /// The whole body, decoded from chunks.
    pub(crate) body: Vec<u8>,
}

/// What a handler wants done with the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum After {
    /// Read the next request.
    KeepAlive,
    /// Hang up.
    Close,
}

/// Answers every connection on its own thread, for the life of the process.
pub(crate) fn serve<H>(listener: TcpListener, handler: H)
where
    H: Fn(Request, &mut TcpStream) -> io::Result<After> + Send + Sync + 'static,
{
    let handler = Arc::new(handler);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let handler = Arc::clone(&handler);
            // A connection that breaks off is the peer's affair; the next one is served.
            std::thread::spawn(move || drop(serve_connection(stream, handler.as_ref())));
        }
    });
}

fn serve_connection<H>(mut stream: TcpStream, handler: &H) -> io::Result<()>
where
    H: Fn(Request, &mut TcpStream) -> io::Result<After>,
{
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream.try_clone()?);
    while let Some(request) = read_request(&mut reader)? {
        if handler(request, &mut stream)? == After::Close {
            stream.shutdown(std::net::Shutdown::Both)?;
            return Ok(());
        }
    }
    Ok(())
}

/// Reads one request; `None` when the peer has hung up between two.
fn read_request(reader: &mut impl BufRead) -> io::Result<Option<Request>> {
    let Some((first, headers)) = read_head(reader)? else { return Ok(None) };
    let mut words = first.split(' ');
    let method = words.next().unwrap_or_default().to_owned();
    let target = words.next().unwrap_or_default();
    let path = target.split('?').next().unwrap_or_default().to_owned();
    let body = read_body(reader, &headers, Unsized::Empty)?;
    Ok(Some(Request { method, path, body }))
}

type Headers = Vec<(String, String)>;

fn read_head(reader: &mut impl BufRead) -> io::Result<Option<(String, Headers)>> {
    let first = read_line(reader)?;
    if first.is_empty() {
        return Ok(None);
    }
    let mut headers = Vec::new();
    loop {
        let line = read_line(reader)?;
        if line.is_empty() {
            return Ok(Some((first, headers)));
        }
        let (name, value) = line.split_once(':').ok_or_else(|| invalid("a header without a colon"))?;
        headers.push((name.trim().to_ascii_lowercase(), value.trim().to_owned()));
        if headers.len() > HEAD_LINES_MAX {
            return Err(invalid("too many headers"));
        }
    }
}

fn read_line(reader: &mut impl BufRead) -> io::Result<String> {
    let mut line = Vec::new();
    reader.by_ref().take(HEAD_LINE_BYTES_MAX).read_until(b'\n', &mut line)?;
    Ok(String::from_utf8_lossy(&line).trim_end().to_owned())
}

/// What a body without a length means: nothing in a request, all there is in a response.
#[derive(Clone, Copy)]
enum Unsized {
    Empty,
    ToTheEnd,
}

fn read_body(reader: &mut impl BufRead, headers: &Headers, or_else: Unsized) -> io::Result<Vec<u8>> {
    let header = |wanted: &str| headers.iter().find(|(name, _)| name == wanted).map(|(_, v)| v.as_str());
    let mut body = Vec::new();
    if header("transfer-encoding").is_some_and(|v| v.contains("chunked")) {
        return read_chunks(reader);
    }
    match (header("content-length"), or_else) {
        (Some(length), _) => {
            let length = length.parse().map_err(|_| invalid("a length that is no number"))?;
            if length > BODY_BYTES_MAX {
                return Err(invalid("a body that is too large"));
            }
            reader.take(length).read_to_end(&mut body)?;
            if body.len() as u64 != length {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        (None, Unsized::Empty) => {}
        (None, Unsized::ToTheEnd) => {
            reader.take(BODY_BYTES_MAX).read_to_end(&mut body)?;
        }
    }
    Ok(body)
}

fn read_chunks(reader: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let line = read_line(reader)?;
        let size = line.split(';').next().unwrap_or_default();
        let size = u64::from_str_radix(size, 16).map_err(|_| invalid("a chunk without a size"))?;
        if size + body.len() as u64 > BODY_BYTES_MAX {
            return Err(invalid("a body that is too large"));
        }
        reader.by_ref().take(size).read_to_end(&mut body)?;
        read_line(reader)?;
        if size == 0 {
            return Ok(body);
        }
    }
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// Writes a whole JSON answer.
pub(crate) fn respond_json(
    stream: &mut impl Write,
    status: u16,
    headers: &[(&str, &str)],
    body: &serde_json::Value,
) -> io::Result<()> {
    let body = body.to_string();
    let mut head = format!("HTTP/1.1 {status} Scripted\r\ncontent-type: application/json\r\n");
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    head += &format!("content-length: {}\r\n\r\n", body.len());
    stream.write_all(head.as_bytes())?;
    stream.write_all(body.as_bytes())?;
    stream.flush()
}

/// Writes the head of a stream of server-sent events.
pub(crate) fn start_events(stream: &mut impl Write, headers: &[(&str, &str)]) -> io::Result<()> {
    let mut head = String::from("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n");
    head += "cache-control: no-cache\r\ntransfer-encoding: chunked\r\n";
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    head += "\r\n";
    stream.write_all(head.as_bytes())
}

/// Writes one event as one chunk.
pub(crate) fn send_event(stream: &mut impl Write, name: &str, data: &serde_json::Value) -> io::Result<()> {
    let event = format!("event: {name}\ndata: {data}\n\n");
    stream.write_all(format!("{:x}\r\n{event}\r\n", event.len()).as_bytes())?;
    stream.flush()
}

/// Ends a stream of events.
pub(crate) fn end_events(stream: &mut impl Write) -> io::Result<()> {
    stream.write_all(b"0\r\n\r\n")?;
    stream.flush()
}

/// Makes one GET request, with the token when there is one; returns status and body.
pub(crate) fn get(address: SocketAddr, target: &str, token: Option<&str>) -> Result<(u16, Vec<u8>)> {
    let mut stream = TcpStream::connect_timeout(&address, CLIENT_TIMEOUT)?;
    stream.set_read_timeout(Some(CLIENT_TIMEOUT))?;
    stream.set_write_timeout(Some(CLIENT_TIMEOUT))?;
    let bearer = token.map(|t| format!("authorization: Bearer {t}\r\n")).unwrap_or_default();
    let head = format!("GET {target} HTTP/1.1\r\nhost: {address}\r\n{bearer}connection: close\r\n\r\n");
    stream.write_all(head.as_bytes())?;
    let mut reader = BufReader::new(stream);
    let Some((first, headers)) = read_head(&mut reader)? else { bail!("no answer to GET {target}") };
    let status = first.split(' ').nth(1).and_then(|s| s.parse().ok());
    let status = status.with_context(|| format!("not an HTTP answer: {first}"))?;
    Ok((status, read_body(&mut reader, &headers, Unsized::ToTheEnd)?))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_request_is_read_with_a_length_or_in_chunks() {
        let with_length = "POST /v1/x?beta=true HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}";
        let chunked =
            "POST /v1/x HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n1\r\n}\r\n0\r\n\r\n";
        for raw in [with_length, chunked] {
            let request = read_request(&mut raw.as_bytes()).unwrap().unwrap();
            assert_eq!(request.path, "/v1/x");
            assert_eq!(request.body, b"{}");
        }
    }

    #[test]
    fn a_body_that_is_too_large_or_cut_is_an_error() {
        let huge = format!("POST / HTTP/1.1\r\ncontent-length: {}\r\n\r\n", BODY_BYTES_MAX + 1);
        assert!(read_request(&mut huge.as_bytes()).is_err());
        assert!(read_request(&mut b"POST / HTTP/1.1\r\ncontent-length: 5\r\n\r\nab".as_slice()).is_err());
        assert_eq!(read_request(&mut b"".as_slice()).unwrap(), None);
    }

    #[test]
    fn both_sides_agree_on_answers_and_events() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        serve(listener, |request, stream| {
            if request.path == "/events" {
                start_events(stream, &[])?;
                send_event(stream, "a", &json!(1))?;
                end_events(stream)?;
            } else {
                respond_json(stream, 418, &[("x-a", "b")], &json!({"path": request.path}))?;
            }
            Ok(After::KeepAlive)
        });
        assert_eq!(get(address, "/tea?x=1", Some("t")).unwrap(), (418, br#"{"path":"/tea"}"#.to_vec()));
        assert_eq!(get(address, "/events", None).unwrap(), (200, b"event: a\ndata: 1\n\n".to_vec()));
    }
}
