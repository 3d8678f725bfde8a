//! Talks to the server of the same data directory, when there is one.
//!
//! Two sockets, both in the data directory (0700), so whoever can reach them may read the data anyway:
//!
//! - [`HOOK_SOCKET`], a unix stream: the client sends `u32 length | frame` and reads `u32 length | answer`, little
//!   endian. The answer is a JSON object for the agent, printed as it is; length 0 or `{}` is no opinion. A frame with
//!   `truncated` and no payload means: the payload is over [`ASK_PAYLOAD_LIMIT_BYTES`], read it from the spool.
//! - [`POKE_SOCKET`], a unix datagram: one byte says "there is something in the spool".
//!
//! The frame is in the spool before the question is asked, and the server deletes it there: an answer is a verdict, not
//! a receipt. Every wait counts against one budget; no server costs one failed system call. Elsewhere than on Unix the
//! client only writes the spool, which the server scans by itself.

use std::path::Path;
use std::time::Duration;

/// Socket for verdict questions, in the data directory.
pub const HOOK_SOCKET: &str = "hook.sock";
/// Socket for "drain now", in the data directory.
pub const POKE_SOCKET: &str = "poke.sock";
/// Largest payload that is sent with a question.
pub const ASK_PAYLOAD_LIMIT_BYTES: usize = 256 * 1024;
/// Largest answer that is taken.
pub const ANSWER_LIMIT_BYTES: usize = 256 * 1024;

/// Asks for a verdict; `None` is no server, no answer in time, or no opinion.
pub(crate) fn ask(home: &Path, head: &[u8], payload: &[&[u8]], budget: Duration) -> Option<String> {
    let answer = platform::ask(home, head, payload, budget)?;
    opinion(answer)
}

/// Tells the server that the spool has something, without waiting.
pub(crate) fn poke(home: &Path) {
    platform::poke(home);
}

/// An answer that is a JSON object and says something.
fn opinion(answer: Vec<u8>) -> Option<String> {
    let text = String::from_utf8(answer).ok()?;
    let object = text.trim();
    let says_something = object.strip_prefix('{')?.strip_suffix('}')?.trim() != "";
    let is_valid = says_something && serde_json::from_str::<serde::de::IgnoredAny>(object).is_ok();
    is_valid.then(|| object.to_owned())
}

#[cfg(unix)]
mod platform {
    use std::fs::File;
    use std::io::{self, Read, Write};
    use std::os::fd::{AsRawFd, OwnedFd};
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::net::{UnixDatagram, UnixStream};
    use std::path::{Path, PathBuf};
    use std::time::{Duration, Instant};

    use rustix::event::{PollFd, PollFlags, Timespec};
    use rustix::io::Errno;
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketType};

    use super::{ANSWER_LIMIT_BYTES, HOOK_SOCKET, POKE_SOCKET};

    /// Longest path that fits a socket address everywhere (104 bytes with its end on macOS, 108 on Linux).
    const SOCKET_PATH_LIMIT_BYTES: usize = 103;
    /// Pause before the next try when the server's queue of connections is full.
    const BUSY_PAUSE: Duration = Duration::from_millis(1);

    pub(super) fn ask(home: &Path, head: &[u8], payload: &[&[u8]], budget: Duration) -> Option<Vec<u8>> {
        let deadline = Instant::now() + budget;
        let mut stream = connect(home, deadline)?;
        let length: usize = head.len() + payload.iter().map(|part| part.len()).sum::<usize>();
        let length = u32::try_from(length).ok()?.to_le_bytes();
        for part in [&length, head].into_iter().chain(payload.iter().copied()) {
            write_all(&mut stream, part, deadline)?;
        }
        let mut length = [0; 4];
        read_exact(&mut stream, &mut length, deadline)?;
        let length =
            usize::try_from(u32::from_le_bytes(length)).ok().filter(|len| *len <= ANSWER_LIMIT_BYTES)?;
        let mut answer = vec![0; length];
        read_exact(&mut stream, &mut answer, deadline)?;
        Some(answer)
    }

    pub(super) fn poke(home: &Path) {
        let Some(address) = Address::of(home, POKE_SOCKET) else { return };
        let Ok(socket) = UnixDatagram::unbound() else { return };
        if socket.set_nonblocking(true).is_ok() {
            let _ = socket.send_to(&[1], &address.path);
        }
    }

    /// Connects without ever blocking: a hung server's full queue must not hold the agent.
    fn connect(home: &Path, deadline: Instant) -> Option<UnixStream> {
        let address = Address::of(home, HOOK_SOCKET)?;
        let name = SocketAddrUnix::new(&address.path).ok()?;
        let socket: OwnedFd = rustix::net::socket(AddressFamily::UNIX, SocketType::STREAM, None).ok()?;
        rustix::io::ioctl_fionbio(&socket, true).ok()?;
        loop {
            match rustix::net::connect(&socket, &name) {
                Ok(()) => break,
                Err(Errno::AGAIN) if Instant::now() + BUSY_PAUSE < deadline => std::thread::sleep(BUSY_PAUSE),
                Err(Errno::INTR) => {}
                Err(_) => return None,
            }
        }
        Some(UnixStream::from(socket))
    }

    fn write_all(stream: &mut UnixStream, mut bytes: &[u8], deadline: Instant) -> Option<()> {
        while !bytes.is_empty() {
            match stream.write(bytes) {
                Ok(0) => return None,
                Ok(count) => bytes = &bytes[count..],
                Err(error) => wait(stream, PollFlags::OUT, deadline, &error)?,
            }
        }
        Some(())
    }

    fn read_exact(stream: &mut UnixStream, mut into: &mut [u8], deadline: Instant) -> Option<()> {
        while !into.is_empty() {
            match stream.read(into) {
                Ok(0) => return None,
                Ok(count) => into = &mut into[count..],
                Err(error) => wait(stream, PollFlags::IN, deadline, &error)?,
            }
        }
        Some(())
    }

    /// Waits until the socket is ready; `None` for an error that is no reason to wait, or when the budget is spent.
    ///
    /// `poll` and not a socket time-out, which the kernel rounds up to its tick: 4 ms too many of 50.
    fn wait(stream: &UnixStream, ready: PollFlags, deadline: Instant, error: &io::Error) -> Option<()> {
        match error.kind() {
            io::ErrorKind::Interrupted => return Some(()),
            io::ErrorKind::WouldBlock => {}
            _ => return None,
        }
        let left = deadline.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())?;
        let left = Timespec::try_from(left).ok()?;
        match rustix::event::poll(&mut [PollFd::new(stream, ready)], Some(&left)) {
            Ok(0) => None,
            Ok(_) | Err(Errno::INTR) => Some(()),
            Err(_) => None,
        }
    }

    /// A socket's path that fits a socket address.
    struct Address {
        path: PathBuf,
        /// Keeps the directory open that `path` goes through.
        _directory: Option<File>,
    }

    impl Address {
        fn of(home: &Path, name: &str) -> Option<Self> {
            let path = home.join(name);
            if path.as_os_str().as_bytes().len() <= SOCKET_PATH_LIMIT_BYTES {
                return Some(Self { path, _directory: None });
            }
            if cfg!(not(target_os = "linux")) {
                return None;
            }
            let directory = File::open(home).ok()?;
            let path = PathBuf::from(format!("/proc/self/fd/{}/{name}", directory.as_raw_fd()));
            Some(Self { path, _directory: Some(directory) })
        }
    }
}

#[cfg(not(unix))]
mod platform {
    use std::path::Path;
    use std::time::Duration;

    pub(super) fn ask(_home: &Path, _head: &[u8], _payload: &[&[u8]], _budget: Duration) -> Option<Vec<u8>> {
        None
    }

    pub(super) fn poke(_home: &Path) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_json_object_with_something_in_it_is_an_opinion() {
        for nothing in ["", "{}", " { } ", "null", "[1]", "{\"a\":", "hello", "{a}", "{}{}"] {
            assert_eq!(opinion(nothing.as_bytes().to_vec()), None, "{nothing:?}");
        }
        assert_eq!(opinion(vec![0xff, b'{', b'}']), None);
        assert_eq!(opinion(b" {\"a\": 1}\n".to_vec()), Some("{\"a\": 1}".to_owned()));
    }
}
