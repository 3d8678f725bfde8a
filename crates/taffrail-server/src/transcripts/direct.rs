//! An import into a data directory that no server serves: the same way as in the server, without starting one.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::Instant;

use anyhow::Context;

use super::archive::Haste;
use super::pass::{Pace, Pass, PassError};
use super::walk::Found;
use super::{ImportRequest, Progress, Totals, Transcripts, find, roots};
use crate::config::Config;
use crate::home::Home;
use crate::ingest::app::AppResolver;

/// Imports into the data directory of `config`, which belongs to this call meanwhile.
///
/// # Errors
/// The directory is in use or the database refuses. A transcript that cannot be read is no error: the totals name it.
pub fn import(
    config: &Config,
    request: &ImportRequest,
    on_progress: &mut dyn FnMut(Progress),
) -> anyhow::Result<Totals> {
    let home = Home::prepare(&config.data_dir)?;
    let _lock = home.lock()?;
    let prices = crate::prices::load(home.dir())?.table;
    let began = Instant::now();
    // Where one line is new, the look at all files takes as long as everything else.
    let (found, opened) = thread::scope(|scope| {
        let found = scope.spawn(|| Sought::of(request, &config.transcripts.roots));
        let opened = crate::run::open_store_now(config, &home, prices, None).and_then(|store| {
            let opened = Transcripts::open(store.clone(), Arc::new(AppResolver::default()), home.dir());
            Ok((store, opened.context("the database cannot be read")?))
        });
        (found.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)), opened)
    });
    let (store, transcripts) = opened?;
    let cancel = AtomicBool::new(false);
    let result = transcripts.import_found(request, found, began, &cancel, on_progress);
    store.close();
    Ok(result?)
}

/// What an import is to look through.
struct Sought<'a> {
    client_roots: &'a [PathBuf],
    files: Vec<Found>,
    totals: Totals,
}

impl<'a> Sought<'a> {
    fn of(request: &'a ImportRequest, client_roots: &'a [PathBuf]) -> Self {
        let mut totals = Totals { dry_run: request.dry_run, ..Totals::default() };
        let client_roots = if request.roots.is_empty() { client_roots } else { &request.roots };
        let files = find(&request.paths, client_roots, &mut totals);
        Self { client_roots, files, totals }
    }
}

impl Transcripts {
    /// One import; who may be one of several holds `importing`.
    pub(crate) fn import(
        &self,
        request: &ImportRequest,
        client_roots: &[PathBuf],
        cancel: &AtomicBool,
        on_progress: &mut dyn FnMut(Progress),
    ) -> Result<Totals, PassError> {
        let began = Instant::now();
        self.import_found(request, Sought::of(request, client_roots), began, cancel, on_progress)
    }

    fn import_found(
        &self,
        request: &ImportRequest,
        sought: Sought<'_>,
        began: Instant,
        cancel: &AtomicBool,
        on_progress: &mut dyn FnMut(Progress),
    ) -> Result<Totals, PassError> {
        let Sought { client_roots, files, mut totals } = sought;
        let app = request.app.as_deref().filter(|app| !app.is_empty());
        let pass = Pass { app, dry_run: request.dry_run, pace: Pace::Full, cancel };
        let to_archive = if request.archive && !request.dry_run { files.clone() } else { Vec::new() };
        self.pass(files, &pass, &mut totals, on_progress)?;
        let folders: Vec<PathBuf> = client_roots.iter().map(|root| roots::folder_of(root)).collect();
        for found in to_archive.iter().filter(|found| found.size_bytes > 0) {
            let folder = folders.iter().find(|folder| found.path.starts_with(folder));
            match self.archive(found, folder.map_or(&found.path, |f| f), Haste::Now, cancel) {
                Ok(written) => totals.archived += u64::from(written.is_some()),
                Err(error) => totals.fail(&found.path, format!("it cannot be archived: {error}")),
            }
        }
        totals.duration_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        Ok(totals)
    }
}
