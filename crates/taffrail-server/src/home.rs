//! The data directory: made private, held by one server at a time, and told about in `server.json`.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use serde::Serialize;

use crate::security::random_hex;

/// Largest token file that is read, in bytes.
const TOKEN_MAX_BYTES: u64 = 4096;
/// Shortest token that is taken for one, in characters.
const TOKEN_MIN_CHARS: usize = 16;

/// The files of a data directory.
#[derive(Clone, Debug)]
pub(crate) struct Home {
    dir: PathBuf,
}

impl Home {
    /// Makes the directory where it is missing; only its owner may look into it.
    pub(crate) fn prepare(dir: &Path) -> anyhow::Result<Self> {
        let dir = std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned());
        make_private_dir(&dir).with_context(|| {
            format!(
                "cannot use {} as data directory\nhint: check its owner and permissions, or choose another with --data-dir",
                dir.display()
            )
        })?;
        Ok(Self { dir })
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// The token, made on first use: 32 random bytes in hexadecimal, readable by the owner only.
    pub(crate) fn token(&self) -> anyhow::Result<String> {
        let path = self.path("token");
        let shown = path.display().to_string();
        match read_bounded(&path) {
            Ok(text) => {
                let token = text.trim().to_owned();
                if token.len() < TOKEN_MIN_CHARS {
                    bail!("{shown} holds no token\nhint: delete it, a new one is made at the next start");
                }
                restrict(&path).with_context(|| format!("cannot make {shown} private"))?;
                Ok(token)
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let token = random_hex::<32>().map_err(|e| anyhow::anyhow!("no randomness: {e}"))?;
                write_private(&path, format!("{token}\n").as_bytes())
                    .with_context(|| format!("cannot write {shown}"))?;
                Ok(token)
            }
            Err(e) => Err(e).with_context(|| format!("cannot read {shown}")),
        }
    }

    /// Holds the directory for this process until the lock is dropped.
    pub(crate) fn lock(&self) -> anyhow::Result<Lock> {
        let path = self.path("lock");
        let mut file = private_options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .with_context(|| format!("cannot open {}", path.display()))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => {
                let mut holder = String::new();
                let _ = Read::by_ref(&mut file).take(32).read_to_string(&mut holder);
                bail!(
                    "another server (pid {}) uses the data directory {}\nhint: stop it, or choose another with --data-dir",
                    holder.trim(),
                    self.dir.display()
                );
            }
            Err(fs::TryLockError::Error(e)) => {
                return Err(e).with_context(|| format!("cannot lock {}", path.display()));
            }
        }
        file.set_len(0)?;
        file.rewind()?;
        writeln!(file, "{}", std::process::id())?;
        Ok(Lock { _file: file })
    }

    /// Tells other programs where the server answers.
    pub(crate) fn announce(&self, listen: SocketAddr, started_ms: i64) -> anyhow::Result<Announcement> {
        let path = self.path("server.json");
        let notice =
            Notice { pid: std::process::id(), listen, version: env!("CARGO_PKG_VERSION"), started_ms };
        let temporary = self.path("server.json.tmp");
        write_private(&temporary, &serde_json::to_vec(&notice)?)
            .and_then(|()| fs::rename(&temporary, &path))
            .with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Announcement { path })
    }
}

/// What stands in `server.json`.
#[derive(Serialize)]
struct Notice {
    pid: u32,
    listen: SocketAddr,
    version: &'static str,
    started_ms: i64,
}

/// The directory belongs to this process while this lives.
pub(crate) struct Lock {
    _file: File,
}

/// `server.json`, removed when the server ends.
pub(crate) struct Announcement {
    path: PathBuf,
}

impl Drop for Announcement {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Makes a directory with its parents; only the owner may enter what is new.
pub(crate) fn make_private_dir(dir: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
        builder.mode(0o700).create(dir)?;
        let mode = fs::metadata(dir)?.permissions().mode();
        if mode & 0o077 != 0 {
            fs::set_permissions(dir, fs::Permissions::from_mode(mode & 0o700))?;
        }
    }
    #[cfg(not(unix))]
    builder.create(dir)?;
    Ok(())
}

fn read_bounded(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(TOKEN_MAX_BYTES).read_to_string(&mut text)?;
    Ok(text)
}

fn private_options() -> OpenOptions {
    #[allow(unused_mut, reason = "changed on Unix")]
    let mut options = OpenOptions::new();
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = private_options().write(true).create(true).truncate(true).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

#[cfg_attr(not(unix), allow(unused_variables, clippy::unnecessary_wraps, reason = "Unix permissions"))]
fn restrict(path: &Path) -> io::Result<()> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        if fs::metadata(path)?.permissions().mode() & 0o077 != 0 {
            fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
        }
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn the_token_is_made_once_and_private() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::prepare(&dir.path().join("a/b")).unwrap();
        let token = home.token().unwrap();
        assert_eq!(token.len(), 64);
        assert_eq!(home.token().unwrap(), token);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
            assert_eq!((mode(home.dir()), mode(&home.path("token"))), (0o700, 0o600));
        }
    }

    #[test]
    fn a_second_server_is_told_who_holds_the_directory() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::prepare(dir.path()).unwrap();
        let held = home.lock().unwrap();
        let message = home.lock().err().unwrap().to_string();
        assert!(
            message.contains(&format!("pid {}", std::process::id())) && message.contains("hint:"),
            "{message}"
        );
        drop(held);
        home.lock().unwrap();
    }
}
