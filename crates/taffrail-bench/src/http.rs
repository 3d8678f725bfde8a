//! The least HTTP/1.1 that a load generator needs: one keep-alive connection, and the echo server that is the floor
//! of every HTTP figure.
//!
//! Written here because a general client's own cost would hide what is measured. It reads `Content-Length` and
//! chunked answers, no compression, no redirects.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Largest answer that is read, in bytes.
const ANSWER_LIMIT_BYTES: usize = 64 << 20;
/// Largest request the echo server takes, in bytes.
const ECHO_LIMIT_BYTES: usize = 64 << 20;
/// Longest head line, in bytes.
const LINE_LIMIT_BYTES: u64 = 64 << 10;

/// A request; `Host` and `Content-Length` are added.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request<'a> {
    pub(crate) method: &'a str,
    pub(crate) path: &'a str,
    pub(crate) headers: &'a [(&'a str, &'a str)],
    pub(crate) body: &'a [u8],
}

impl<'a> Request<'a> {
    pub(crate) const fn get(path: &'a str, headers: &'a [(&'a str, &'a str)]) -> Self {
        Self { method: "GET", path, headers, body: b"" }
    }

    pub(crate) const fn post(path: &'a str, headers: &'a [(&'a str, &'a str)], body: &'a [u8]) -> Self {
        Self { method: "POST", path, headers, body }
    }
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// One keep-alive connection.
#[derive(Debug)]
pub(crate) struct Connection {
    addr: SocketAddr,
    stream: BufReader<TcpStream>,
    out: Vec<u8>,
}

impl Connection {
    pub(crate) fn open(addr: SocketAddr, timeout: Duration) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&addr, timeout)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(timeout))?;
        stream.set_write_timeout(Some(timeout))?;
        Ok(Self { addr, stream: BufReader::with_capacity(64 << 10, stream), out: Vec::new() })
    }

    /// Sends one request and reads its answer. After an error the connection is of no more use.
    pub(crate) fn send(&mut self, request: &Request<'_>) -> io::Result<Answer> {
        self.out.clear();
        write!(self.out, "{} {} HTTP/1.1\r\nHost: {}\r\n", request.method, request.path, self.addr)?;
        for (name, value) in request.headers {
            write!(self.out, "{name}: {value}\r\n")?;
        }
        if request.method != "GET" {
            write!(self.out, "Content-Type: application/json\r\nContent-Length: {}\r\n", request.body.len())?;
        }
        self.out.extend_from_slice(b"\r\n");
        self.out.extend_from_slice(request.body);
        self.stream.get_mut().write_all(&self.out)?;
        self.read_answer()
    }

    fn read_answer(&mut self) -> io::Result<Answer> {
        let first = read_line(&mut self.stream)?;
        let status = first
            .split(' ')
            .nth(1)
            .and_then(|code| code.parse().ok())
            .ok_or_else(|| invalid(&format!("no status in {first:?}")))?;
        let head = read_head(&mut self.stream)?;
        let mut body = Vec::new();
        match head {
            Length::Bytes(n) => {
                if n > ANSWER_LIMIT_BYTES {
                    return Err(invalid("answer is too large"));
                }
                body.resize(n, 0);
                self.stream.read_exact(&mut body)?;
            }
            Length::Chunked => self.read_chunks(&mut body)?,
        }
        Ok(Answer { status, body })
    }

    fn read_chunks(&mut self, body: &mut Vec<u8>) -> io::Result<()> {
        loop {
            let line = read_line(&mut self.stream)?;
            let size = usize::from_str_radix(line.split(';').next().unwrap_or("").trim(), 16)
                .map_err(|_| invalid("bad chunk size"))?;
            if body.len() + size > ANSWER_LIMIT_BYTES {
                return Err(invalid("answer is too large"));
            }
            let at = body.len();
            body.resize(at + size, 0);
            self.stream.read_exact(&mut body[at..])?;
            read_line(&mut self.stream)?;
            if size == 0 {
                return Ok(());
            }
        }
    }
}

enum Length {
    Bytes(usize),
    Chunked,
}

fn read_head(stream: &mut impl BufRead) -> io::Result<Length> {
    let mut length = Length::Bytes(0);
    loop {
        let line = read_line(stream)?;
        if line.is_empty() {
            return Ok(length);
        }
        let Some((name, value)) = line.split_once(':') else { continue };
        if name.eq_ignore_ascii_case("content-length") {
            length = Length::Bytes(value.trim().parse().map_err(|_| invalid("bad content-length"))?);
        } else if name.eq_ignore_ascii_case("transfer-encoding")
            && value.trim().eq_ignore_ascii_case("chunked")
        {
            length = Length::Chunked;
        }
    }
}

fn read_line(stream: &mut impl BufRead) -> io::Result<String> {
    let mut line = Vec::new();
    stream.take(LINE_LIMIT_BYTES).read_until(b'\n', &mut line)?;
    if line.pop() != Some(b'\n') {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    if line.last() == Some(&b'\r') {
        line.pop();
    }
    Ok(String::from_utf8_lossy(&line).into_owned())
}

fn invalid(message: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message.to_owned())
}

/// A server that reads each request whole, answers `{}` and does nothing else: blocking std sockets, one thread a
/// connection. What remains is the cost of HTTP over loopback and of this client.
#[derive(Debug)]
pub(crate) struct EchoServer {
    addr: SocketAddr,
    stop: Arc<AtomicBool>,
}

impl EchoServer {
    pub(crate) fn start() -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let addr = listener.local_addr()?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if stopped.load(Ordering::Relaxed) {
                    break;
                }
                std::thread::spawn(move || echo(stream));
            }
        });
        Ok(Self { addr, stop })
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }
}

impl Drop for EchoServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Wakes the accept loop so that it sees the flag.
        let _ = TcpStream::connect(self.addr);
    }
}

fn echo(stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut stream = BufReader::with_capacity(64 << 10, stream);
    let mut body = Vec::new();
    loop {
        if stream.fill_buf()?.is_empty() {
            return Ok(());
        }
        read_line(&mut stream)?;
        let Length::Bytes(n) = read_head(&mut stream)? else { return Err(invalid("chunked request")) };
        body.resize(n.min(ECHO_LIMIT_BYTES), 0);
        stream.read_exact(&mut body)?;
        stream
            .get_mut()
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}")?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(5);

    #[test]
    fn echo_answers_every_request_of_a_connection() -> io::Result<()> {
        let server = EchoServer::start()?;
        let mut connection = Connection::open(server.addr(), TIMEOUT)?;
        for size in [0, 1, 100_000] {
            let body = vec![b'x'; size];
            let answer = connection.send(&Request::post("/events", &[("x-a", "b")], &body))?;
            assert_eq!((answer.status, answer.text().as_str()), (200, "{}"));
        }
        Ok(())
    }

    #[test]
    fn chunked_answers_are_joined() -> io::Result<()> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let addr = listener.local_addr()?;
        let server = std::thread::spawn(move || -> io::Result<()> {
            let (mut stream, _) = listener.accept()?;
            let mut head = [0; 4096];
            let _ = stream.read(&mut head)?;
            stream.write_all(
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n",
            )
        });
        let answer = Connection::open(addr, TIMEOUT)?.send(&Request::get("/", &[]))?;
        assert_eq!(answer.text(), "abcde");
        server.join().map_err(|_| invalid("server thread panicked"))?
    }
}
