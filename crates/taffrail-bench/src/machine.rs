//! What the figures were measured on.

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// The machine, as far as a reader needs it to judge a figure.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Machine {
    pub(crate) cpu: String,
    pub(crate) cores: usize,
    pub(crate) memory_mb: u64,
    pub(crate) kernel: String,
    /// Type of the file system the data directories lie on.
    pub(crate) filesystem: String,
    /// Load average of the last minute when the run began: a quiet machine is near 0.
    pub(crate) load: f64,
}

impl Machine {
    /// Reads it; a part that cannot be read says `unknown`.
    pub(crate) fn read(data: &Path) -> Self {
        let uname = rustix::system::uname();
        Self {
            cpu: field("/proc/cpuinfo", "model name").unwrap_or_else(unknown),
            cores: std::thread::available_parallelism().map_or(0, std::num::NonZero::get),
            memory_mb: field("/proc/meminfo", "MemTotal").and_then(|kb| first_number(&kb)).unwrap_or(0)
                / 1024,
            kernel: uname.release().to_string_lossy().into_owned(),
            filesystem: filesystem_of(data).unwrap_or_else(unknown),
            load: fs::read_to_string("/proc/loadavg")
                .ok()
                .and_then(|text| text.split(' ').next()?.parse().ok())
                .unwrap_or(0.0),
        }
    }
}

/// Resident memory of a running process, in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Resident {
    pub(crate) now_bytes: u64,
    pub(crate) peak_bytes: u64,
}

/// Reads `VmRSS` and `VmHWM` of a process; none once it is gone.
pub(crate) fn resident(pid: u32) -> Option<Resident> {
    let status = format!("/proc/{pid}/status");
    let bytes = |name| Some(first_number(&field(&status, name)?)? * 1024);
    Some(Resident { now_bytes: bytes("VmRSS")?, peak_bytes: bytes("VmHWM")? })
}

fn field(file: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(file).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

fn first_number(text: &str) -> Option<u64> {
    text.split_whitespace().next()?.parse().ok()
}

fn filesystem_of(path: &Path) -> Option<String> {
    let path = path.canonicalize().ok()?;
    let mounts = fs::read_to_string("/proc/mounts").ok()?;
    let mut best: Option<(usize, &str)> = None;
    for line in mounts.lines() {
        let mut parts = line.split(' ');
        let (Some(_), Some(at), Some(kind)) = (parts.next(), parts.next(), parts.next()) else { continue };
        if path.starts_with(at) && best.is_none_or(|(len, _)| at.len() >= len) {
            best = Some((at.len(), kind));
        }
    }
    best.map(|(_, kind)| kind.to_owned())
}

fn unknown() -> String {
    "unknown".to_owned()
}
