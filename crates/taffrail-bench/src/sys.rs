//! The two system calls that neither std nor rustix offers safely: `wait4` with resource usage, and a signal handler
//! that sets a flag. Nothing else in this crate is unsafe.
#![allow(unsafe_code, reason = "wait4 and sigaction have no safe wrapper among our dependencies")]

use std::io;
use std::process::Child;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// What a finished process used.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Usage {
    /// Largest resident set, in bytes.
    pub(crate) max_rss_bytes: u64,
    /// Time on a processor, of its own and in the kernel on its behalf.
    pub(crate) cpu: Duration,
    /// Exit code; none where a signal ended it.
    pub(crate) code: Option<i32>,
}

/// Waits for `child` and tells what it used. `Child::wait` must not be called afterwards.
pub(crate) fn wait_with_usage(child: &Child) -> io::Result<Usage> {
    let pid = libc::pid_t::try_from(child.id()).map_err(io::Error::other)?;
    let mut status = 0;
    // SAFETY: an all-zero rusage is a valid value of that plain C struct.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    loop {
        // SAFETY: both pointers are to live, properly typed locals; `pid` is our own unreaped child.
        let got = unsafe { libc::wait4(pid, &raw mut status, 0, &raw mut usage) };
        if got == pid {
            break;
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
    let code = libc::WIFEXITED(status).then(|| libc::WEXITSTATUS(status));
    // Linux counts ru_maxrss in kilobytes.
    let max_rss_bytes = u64::try_from(usage.ru_maxrss).unwrap_or(0) * 1024;
    let cpu = span(usage.ru_utime) + span(usage.ru_stime);
    Ok(Usage { max_rss_bytes, cpu, code })
}

fn span(time: libc::timeval) -> Duration {
    let micros = u64::try_from(time.tv_usec).unwrap_or(0);
    Duration::from_secs(u64::try_from(time.tv_sec).unwrap_or(0)) + Duration::from_micros(micros)
}

extern "C" fn note_interrupt(_signal: libc::c_int) {
    INTERRUPTED.store(true, Ordering::SeqCst);
}

/// From now on Ctrl-C, SIGTERM and SIGHUP only set a flag.
pub(crate) fn catch_interrupts() {
    let handler = note_interrupt as extern "C" fn(libc::c_int) as libc::sighandler_t;
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        // SAFETY: the handler only stores to an atomic, which is async-signal-safe.
        unsafe { libc::signal(signal, handler) };
    }
}

/// Whether one of them came.
pub(crate) fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::SeqCst)
}
