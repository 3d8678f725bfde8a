//! The data directory as the command line sees it: where it is, who serves it, and with which token.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use taffrail_server::config::{Config, Flags};

use crate::cli::Global;

/// Largest `server.json` or token file that is read, in bytes.
const SMALL_FILE_MAX_BYTES: u64 = 64 << 10;

/// A data directory; it may not exist yet.
#[derive(Clone, Debug)]
pub(crate) struct Home {
    dir: PathBuf,
}

/// What a server says of itself in `server.json`.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Notice {
    pub(crate) pid: u32,
    pub(crate) listen: SocketAddr,
}

/// The configuration; a data directory that cannot be one is told apart from a bad configuration file.
pub(crate) fn load(flags: &Flags) -> Result<Config> {
    if let Some(dir) = flags.data_dir.as_deref().filter(|dir| dir.exists() && !dir.is_dir()) {
        bail!(
            "cannot use {} as data directory: it is no directory\nhint: choose another with --data-dir",
            dir.display()
        );
    }
    Ok(Config::load(flags)?)
}

impl Home {
    pub(crate) fn new(global: &Global) -> Result<Self> {
        let flags = Flags { data_dir: global.data_dir.clone(), ..Flags::default() };
        Self::of(&load(&flags)?)
    }

    pub(crate) fn of(config: &Config) -> Result<Self> {
        Self::at(&config.data_dir)
    }

    pub(crate) fn at(dir: &Path) -> Result<Self> {
        let dir = std::path::absolute(dir).with_context(|| format!("cannot resolve {}", dir.display()))?;
        Ok(Self { dir })
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn database(&self) -> PathBuf {
        self.dir.join("taffrail.db")
    }

    pub(crate) fn log_file(&self) -> PathBuf {
        self.dir.join("log").join("server.log")
    }

    /// What the newest server wrote; none where there never was one, or it left properly.
    pub(crate) fn notice(&self) -> Option<Notice> {
        serde_json::from_str(&read_small(&self.dir.join("server.json")).ok()?).ok()
    }

    pub(crate) fn token(&self) -> Result<String> {
        let path = self.dir.join("token");
        match read_small(&path) {
            Ok(text) if !text.trim().is_empty() => Ok(text.trim().to_owned()),
            Ok(_) => bail!("{} holds no token\nhint: delete it and run `taffrail up`", path.display()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => bail!(
                "{} has no token yet\nhint: the first `taffrail up` makes it; choose another data directory with --data-dir",
                self.dir.display()
            ),
            Err(e) => Err(e).with_context(|| {
                format!("cannot read {}\nhint: it belongs to whoever runs the server", path.display())
            }),
        }
    }

    /// Makes the directory, for its owner only.
    pub(crate) fn make(&self) -> Result<()> {
        make_private_dir(&self.dir).with_context(|| {
            format!(
                "cannot use {} as data directory\nhint: check its owner and permissions, or choose another with --data-dir",
                self.dir.display()
            )
        })
    }
}

/// Makes a directory and those above it, each new one for its owner only.
pub(crate) fn make_private_dir(dir: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(dir)
}

fn read_small(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    io::Read::read_to_string(&mut io::Read::take(fs::File::open(path)?, SMALL_FILE_MAX_BYTES), &mut text)?;
    Ok(text)
}
