//! A server in this process on a free port and its own directory, and a plain HTTP client that can say anything.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;
use taffrail_server::{Config, run_until};
use tokio::sync::oneshot;

/// How long a test waits for something that must come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Server {
    pub(crate) addr: SocketAddr,
    pub(crate) token: String,
    dir: PathBuf,
    _own: Option<tempfile::TempDir>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<Result<(), String>>>,
}

impl Server {
    pub(crate) fn start() -> Self {
        Self::start_with(|_| {})
    }

    /// A fresh directory, and a configuration that the test changes.
    pub(crate) fn start_with(change: impl FnOnce(&mut Config)) -> Self {
        let own = tempfile::tempdir().unwrap();
        let mut config = Config::for_dir(own.path());
        change(&mut config);
        let mut server = Self::try_start(config).unwrap();
        server._own = Some(own);
        server
    }

    pub(crate) fn start_in(dir: &Path) -> Self {
        Self::try_start(Config::for_dir(dir)).unwrap()
    }

    pub(crate) fn try_start(config: Config) -> Result<Self, String> {
        let dir = config.data_dir.clone();
        let (ready, is_ready) = mpsc::channel();
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = std::thread::spawn(move || {
            run_until(config, move |addr| ready.send(addr).unwrap(), async {
                let _ = stopped.await;
            })
            .map_err(|e| format!("{e:#}"))
        });
        match is_ready.recv_timeout(PATIENCE) {
            Ok(addr) => {
                let token = std::fs::read_to_string(dir.join("token")).unwrap().trim().to_owned();
                Ok(Self { addr, token, dir, _own: None, stop: Some(stop), thread: Some(thread) })
            }
            Err(_) => Err(thread.join().unwrap().expect_err("a server that is not ready has failed")),
        }
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Stops it and waits until everything is written.
    pub(crate) fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap().unwrap();
        }
    }

    pub(crate) fn request(&self, method: &str, path: &str) -> Request<'_> {
        Request {
            server: self,
            method: method.into(),
            path: path.into(),
            headers: Vec::new(),
            body: Vec::new(),
            host: None,
        }
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        self.request("GET", path).token().send()
    }

    pub(crate) fn post(&self, path: &str, body: impl Into<Vec<u8>>) -> Answer {
        self.request("POST", path).body(body).send()
    }

    pub(crate) fn hook(&self, payload: impl Into<Vec<u8>>) -> Answer {
        self.post("/v1/hooks/claude-code", payload)
    }

    /// How many events are stored.
    pub(crate) fn stored(&self) -> u64 {
        let health = self.get("/api/v1/health").json();
        health["storage"]["evidence"]["events"].as_u64().unwrap()
    }

    /// A figure of `/metrics`, by the beginning of its line.
    pub(crate) fn figure(&self, line: &str) -> f64 {
        let text = self.get("/metrics").text();
        let found = text.lines().find_map(|l| l.strip_prefix(line)?.split(' ').next_back()?.parse().ok());
        found.unwrap_or(0.0)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.end();
        }
    }
}

pub(crate) struct Request<'a> {
    server: &'a Server,
    method: String,
    path: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    host: Option<String>,
}

impl Request<'_> {
    pub(crate) fn token(self) -> Self {
        let value = format!("Bearer {}", self.server.token);
        self.header("authorization", &value)
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    pub(crate) fn host(mut self, host: &str) -> Self {
        self.host = Some(host.into());
        self
    }

    pub(crate) fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    pub(crate) fn send(self) -> Answer {
        let mut stream = TcpStream::connect(self.server.addr).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let host = self.host.unwrap_or_else(|| self.server.addr.to_string());
        let mut head =
            format!("{} {} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n", self.method, self.path);
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if !self.body.is_empty() || self.method != "GET" {
            head.push_str(&format!("content-length: {}\r\n", self.body.len()));
        }
        head.push_str("\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        // A server that refuses early may close before all was sent; its answer is what counts.
        let _ = stream.write_all(&self.body);
        Answer::read(&mut stream)
    }
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// Reads to the end of the connection.
    pub(crate) fn read(stream: &mut TcpStream) -> Self {
        let mut bytes = Vec::new();
        let mut chunk = [0; 64 * 1024];
        loop {
            match stream.read(&mut chunk) {
                Ok(0) => break,
                Ok(n) => bytes.extend_from_slice(&chunk[..n]),
                // A reset after the answer, because the server did not read all of the body.
                Err(_) if bytes.windows(4).any(|w| w == b"\r\n\r\n") => break,
                Err(error) => panic!("no answer: {error}"),
            }
        }
        let end = bytes.windows(4).position(|w| w == b"\r\n\r\n").expect("an answer has a head");
        let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
        let mut lines = head.split("\r\n");
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers =
            lines.filter_map(|l| l.split_once(": ")).map(|(n, v)| (n.to_lowercase(), v.to_owned())).collect();
        Self { status, headers, body: bytes[end + 4..].to_vec() }
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| {
            panic!("{} is no JSON: {e}: {}", self.status, String::from_utf8_lossy(&self.body))
        })
    }

    /// The code of a problem answer, checked for its form.
    #[track_caller]
    pub(crate) fn problem(&self) -> String {
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{self:?}");
        let body = self.json();
        assert_eq!(body["status"], self.status);
        assert!(body["detail"].as_str().is_some_and(|d| !d.is_empty()));
        body["code"].as_str().unwrap().to_owned()
    }
}

/// Waits until something holds.
#[track_caller]
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < PATIENCE, "{what} did not come true");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A hook payload of one session.
pub(crate) fn prompt(session: &str, text: &str) -> String {
    serde_json::json!({
        "session_id": session, "hook_event_name": "UserPromptSubmit", "cwd": "/nonexistent/demo", "prompt": text,
    })
    .to_string()
}

/// The shared data beside the checkout, if this machine has it; says so loudly where it is absent.
pub(crate) fn shared() -> Option<PathBuf> {
    let told = std::env::var_os("TAFFRAIL_SHARED").map(PathBuf::from);
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared");
    let found = told.unwrap_or(beside);
    if found.join("data").is_dir() {
        return Some(found);
    }
    eprintln!("SKIPPED: the shared data is absent; set TAFFRAIL_SHARED to its directory");
    None
}
