//! Where the programs under test are: `--bin-dir`, else `TAFFRAIL_BIN` and `TAFFRAIL_HOOK_BIN`, else beside this
//! program.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The shipped programs.
#[derive(Clone, Debug)]
pub(crate) struct Binaries {
    /// `taffrail`.
    pub(crate) taffrail: PathBuf,
    /// `taffrail-hook`.
    pub(crate) hook: PathBuf,
}

impl Binaries {
    /// Finds both, or says where it looked.
    pub(crate) fn find(bin_dir: Option<&Path>) -> Result<Self> {
        Ok(Self {
            taffrail: find("taffrail", "TAFFRAIL_BIN", bin_dir)?,
            hook: find("taffrail-hook", "TAFFRAIL_HOOK_BIN", bin_dir)?,
        })
    }
}

fn find(name: &str, variable: &str, bin_dir: Option<&Path>) -> Result<PathBuf> {
    let path = if let Some(dir) = bin_dir {
        dir.join(name)
    } else if let Some(path) = env::var_os(variable) {
        PathBuf::from(path)
    } else {
        env::current_exe()?.with_file_name(name)
    };
    path.canonicalize().with_context(|| {
        format!("no {name} at {}\nhint: run `cargo xtask bench`, or pass --bin-dir", path.display())
    })
}
