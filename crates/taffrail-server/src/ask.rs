//! The hook client's two sockets in the data directory: questions, and pokes.
//!
//! A question is `u32 length | frame`, its answer `u32 length | JSON object`, little endian. It is answered from memory,
//! within the client's budget; the frame itself is stored through the spool, so nothing here touches the database.
//! The static guard has already spoken in the client; what the server adds are directives, of which this version has
//! none, so the answer is an empty object.
//!
//! Limits: [`QUESTIONS_MAX`] at once, [`QUESTION_TIMEOUT`] each, [`QUESTION_LIMIT_BYTES`] long. Unix only.

#![cfg(unix)]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use taffrail_event::frame::{self, Frame, HEADER_LIMIT_BYTES, PREFIX_BYTES};
use taffrail_hook::{ASK_PAYLOAD_LIMIT_BYTES, HOOK_SOCKET, POKE_SOCKET};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixDatagram, UnixListener, UnixStream};
use tokio::sync::{Notify, Semaphore, watch};

use crate::state::{App, stopped};

/// Questions answered at once; more wait in the socket's queue.
const QUESTIONS_MAX: usize = 64;
/// A client that takes longer to ask has given up.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(2);
/// Longest question, in bytes.
const QUESTION_LIMIT_BYTES: usize = PREFIX_BYTES + HEADER_LIMIT_BYTES + ASK_PAYLOAD_LIMIT_BYTES;
/// Longest path that fits a socket address everywhere.
const SOCKET_PATH_LIMIT_BYTES: usize = 103;
/// Pause after an accept that failed.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(50);

/// Both sockets, bound; their files go when this is dropped.
pub(crate) struct Sockets {
    questions: UnixListener,
    pokes: UnixDatagram,
    _files: SocketFiles,
}

struct SocketFiles([PathBuf; 2]);

impl Drop for SocketFiles {
    fn drop(&mut self) {
        for path in &self.0 {
            let _ = std::fs::remove_file(path);
        }
    }
}

impl Sockets {
    /// Binds both in the data directory, in place of what a server that was killed left there.
    pub(crate) fn bind(home: &Path) -> io::Result<Self> {
        let files = SocketFiles([home.join(HOOK_SOCKET), home.join(POKE_SOCKET)]);
        for path in &files.0 {
            match std::fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        let questions = with_address(home, HOOK_SOCKET, |path| UnixListener::bind(path))?;
        let pokes = with_address(home, POKE_SOCKET, |path| UnixDatagram::bind(path))?;
        for path in &files.0 {
            use std::os::unix::fs::PermissionsExt;
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        }
        Ok(Self { questions, pokes, _files: files })
    }
}

/// Gives a path that fits a socket address: a long one goes through the open directory, where the system allows it.
fn with_address<T>(home: &Path, name: &str, bind: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
    let path = home.join(name);
    if path.as_os_str().as_bytes().len() <= SOCKET_PATH_LIMIT_BYTES || !cfg!(target_os = "linux") {
        return bind(&path);
    }
    let directory = File::open(home)?;
    bind(Path::new(&format!("/proc/self/fd/{}/{name}", directory.as_raw_fd())))
}

/// Answers and listens until `stop`.
pub(crate) async fn run(app: App, sockets: Sockets, poke: Arc<Notify>, mut stop: watch::Receiver<bool>) {
    let slots = Arc::new(Semaphore::new(QUESTIONS_MAX));
    let mut datagram = [0u8; 16];
    loop {
        tokio::select! {
            accepted = accept(&sockets.questions, &slots) => {
                let Ok((stream, slot)) = accepted else {
                    tokio::time::sleep(ACCEPT_BACKOFF).await;
                    continue;
                };
                let (app, poke) = (app.clone(), Arc::clone(&poke));
                tokio::spawn(async move {
                    let answered = tokio::time::timeout(QUESTION_TIMEOUT, answer(&app, stream, &poke)).await;
                    if let Ok(Err(error)) = answered {
                        tracing::debug!(%error, "a question was not answered");
                    }
                    drop(slot);
                });
            }
            _ = sockets.pokes.recv(&mut datagram) => poke.notify_one(),
            () = stopped(&mut stop) => break,
        }
    }
}

async fn accept(
    questions: &UnixListener,
    slots: &Arc<Semaphore>,
) -> io::Result<(UnixStream, tokio::sync::OwnedSemaphorePermit)> {
    let slot = Arc::clone(slots).acquire_owned().await.map_err(io::Error::other)?;
    let (stream, _) = questions.accept().await?;
    Ok((stream, slot))
}

async fn answer(app: &App, mut stream: UnixStream, poke: &Notify) -> io::Result<()> {
    let length = stream.read_u32_le().await? as usize;
    if length > QUESTION_LIMIT_BYTES {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut question = vec![0; length];
    stream.read_exact(&mut question).await?;
    let question = frame::decode(&question).map_err(io::Error::other)?;
    let answer = decide(&question);
    let mut line = Vec::with_capacity(4 + answer.len());
    line.extend_from_slice(&u32::try_from(answer.len()).unwrap_or(0).to_le_bytes());
    line.extend_from_slice(answer.as_bytes());
    stream.write_all(&line).await?;
    app.metrics.answers.inc();
    // The frame is in the spool since before the question.
    poke.notify_one();
    Ok(())
}

/// What memory says about this event: nothing, until there are directives.
fn decide(_question: &Frame) -> &'static str {
    "{}"
}
