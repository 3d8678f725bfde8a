//! `taffrail serve`: the server in the foreground, its logs on stderr.

use std::io::{self, IsTerminal};

use anyhow::{Context, Result};
use taffrail_server::config::Flags;
use tracing_subscriber::EnvFilter;

use crate::cli::{Global, ServeArgs, ServeOptions};
use crate::home;

pub(crate) fn run(global: &Global, args: &ServeArgs) -> Result<()> {
    let mut flags = flags(global, &args.options);
    flags.log.clone_from(&args.log);
    let config = home::load(&flags)?;
    if args.detached {
        leave_terminal()?;
    }
    log_to_stderr(&config.log)?;
    taffrail_server::run(config, |_| {})
}

/// What the command line says, as the server takes it.
pub(crate) fn flags(global: &Global, options: &ServeOptions) -> Flags {
    Flags {
        data_dir: global.data_dir.clone(),
        config: options.config.clone(),
        listen: options.listen.clone(),
        durability: options.durability.clone(),
        legacy_origins: options.legacy_origin.clone(),
        allowed_hosts: options.allowed_host.clone(),
        log: None,
    }
}

/// A session of its own, so that the end of the terminal is not the end of the server.
fn leave_terminal() -> Result<()> {
    #[cfg(unix)]
    rustix::process::setsid().context("cannot leave the terminal's session")?;
    Ok(())
}

fn log_to_stderr(filter: &str) -> Result<()> {
    let filter = EnvFilter::try_new(filter)
        .with_context(|| format!("`{filter}` is no log filter\nhint: error, warn, info, debug or trace"))?;
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .finish();
    tracing::subscriber::set_global_default(subscriber).context("logging is set up twice")
}
