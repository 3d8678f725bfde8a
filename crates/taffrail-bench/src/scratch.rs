//! Temporary places and how they are taken back: on the normal way out, on a panic and on Ctrl-C.
//!
//! Everything that must be undone (a process, a mount, a frozen file system, a directory) is an [`Undo`] in one
//! registry. A [`Guard`] undoes its entry when dropped; [`watch_for_interrupts`] undoes what is left, newest first.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};

use crate::sys;

/// What the shell shows for "ended by SIGINT".
const EXIT_INTERRUPTED: i32 = 130;
const POLL: Duration = Duration::from_millis(50);
const REMOVE_ATTEMPTS: u32 = 20;
/// How often a busy mount is tried again before it is detached lazily.
const UNMOUNT_ATTEMPTS: u32 = 40;

/// Held for reading while something is set up or run, for writing while everything is taken back: so nothing new begins
/// then, and nothing is half done.
static GATE: RwLock<()> = RwLock::new(());
static REGISTRY: Mutex<Registry> = Mutex::new(Registry { next: 0, entries: Vec::new() });

struct Registry {
    next: u64,
    entries: Vec<(u64, Undo)>,
}

/// One thing to take back.
#[derive(Clone, Debug)]
pub(crate) enum Undo {
    /// Ends a process of ours that has not been waited for.
    Kill(u32),
    /// Lets a frozen file system write again.
    Thaw(PathBuf),
    /// Unmounts.
    Unmount(PathBuf),
    /// Removes a directory and all in it.
    Remove(PathBuf),
}

impl Undo {
    fn run(&self) {
        match self {
            Self::Kill(id) => {
                if let Some(pid) = i32::try_from(*id).ok().and_then(Pid::from_raw) {
                    let _ = kill_process(pid, Signal::KILL);
                }
            }
            Self::Thaw(dir) => {
                let _ = output(Command::new("fsfreeze").arg("-u").arg(dir));
            }
            Self::Unmount(dir) => unmount(dir),
            Self::Remove(dir) => {
                // A process that was just killed may still be adding a file.
                for _ in 0..REMOVE_ATTEMPTS {
                    if fs::remove_dir_all(dir).is_ok() {
                        return;
                    }
                    std::thread::sleep(POLL);
                }
            }
        }
    }
}

/// Undoes its entry when dropped.
#[derive(Debug)]
pub(crate) struct Guard(u64);

impl Guard {
    pub(crate) fn new(undo: Undo) -> Self {
        let _gate = enter();
        Self::register(undo)
    }

    fn register(undo: Undo) -> Self {
        let mut registry = lock();
        let id = registry.next;
        registry.next += 1;
        registry.entries.push((id, undo));
        Self(id)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        // Once a signal came, one thread takes everything back in order.
        if sys::interrupted() {
            return;
        }
        let found = {
            let mut registry = lock();
            registry.entries.iter().position(|(id, _)| *id == self.0).map(|at| registry.entries.remove(at).1)
        };
        if let Some(undo) = found {
            undo.run();
        }
    }
}

/// A directory under the system's temporary one, removed with everything in it.
#[derive(Debug)]
pub(crate) struct Scratch {
    path: PathBuf,
    _guard: Guard,
}

impl Scratch {
    pub(crate) fn new(what: &str) -> Result<Self> {
        let base = std::env::temp_dir().join("taffrail-bench");
        fs::create_dir_all(&base).with_context(|| format!("cannot create {}", base.display()))?;
        let path = tempfile::Builder::new().prefix(&format!("{what}-")).tempdir_in(&base)?.keep();
        let guard = Guard::new(Undo::Remove(path.clone()));
        Ok(Self { path, _guard: guard })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// A new, empty directory inside.
    pub(crate) fn dir(&self, name: &str) -> Result<PathBuf> {
        let path = self.path.join(name);
        fs::create_dir_all(&path).with_context(|| format!("cannot create {}", path.display()))?;
        Ok(path)
    }
}

/// Undoes everything and leaves as soon as a signal asks for it.
pub(crate) fn watch_for_interrupts() {
    sys::catch_interrupts();
    std::thread::spawn(|| {
        while !sys::interrupted() {
            std::thread::sleep(POLL);
        }
        let _gate = GATE.write().unwrap_or_else(PoisonError::into_inner);
        eprintln!("interrupted: taking back mounts, processes and temporary files");
        loop {
            let Some((_, undo)) = lock().entries.pop() else { break };
            undo.run();
        }
        std::process::exit(EXIT_INTERRUPTED);
    });
}

/// Starts a process that is killed unless its guard is dropped before.
pub(crate) fn spawn(command: &mut Command) -> io::Result<(Child, Guard)> {
    let _gate = enter();
    let child = command.spawn()?;
    let guard = Guard::register(Undo::Kill(child.id()));
    Ok((child, guard))
}

/// Starts a short process that nobody needs to take back.
pub(crate) fn spawn_short(command: &mut Command) -> io::Result<Child> {
    let _gate = enter();
    command.spawn()
}

/// Runs a command with nothing on the terminal; its stderr is part of the error.
pub(crate) fn quiet(command: &mut Command) -> Result<()> {
    let _gate = enter();
    output(command)
}

/// Runs a command that must be undone; no signal comes in between.
pub(crate) fn set_up(command: &mut Command, undo: Undo) -> Result<Guard> {
    let _gate = enter();
    output(command)?;
    Ok(Guard::register(undo))
}

/// The same while everything is taken back.
fn output(command: &mut Command) -> Result<()> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("cannot run {command:?}"))?;
    if output.status.success() {
        return Ok(());
    }
    anyhow::bail!(
        "{command:?} ended with {}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr).trim()
    )
}

/// Nobody begins anything once a signal came.
fn enter() -> RwLockReadGuard<'static, ()> {
    let gate = GATE.read().unwrap_or_else(PoisonError::into_inner);
    if sys::interrupted() {
        drop(gate);
        wait_if_interrupted();
        return enter();
    }
    gate
}

/// Waits for the thread that takes everything back, if a signal came: ending before it would leave mounts behind.
pub(crate) fn wait_if_interrupted() {
    while sys::interrupted() {
        std::thread::sleep(POLL);
    }
}

fn unmount(dir: &Path) {
    for _ in 0..UNMOUNT_ATTEMPTS {
        if output(Command::new("umount").arg(dir)).is_ok() {
            return;
        }
        std::thread::sleep(POLL);
    }
    if let Err(error) = output(Command::new("umount").arg("--lazy").arg(dir)) {
        eprintln!("cannot unmount {}: {error:#}", dir.display());
    }
}

fn lock() -> std::sync::MutexGuard<'static, Registry> {
    REGISTRY.lock().unwrap_or_else(PoisonError::into_inner)
}
