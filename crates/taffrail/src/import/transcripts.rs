//! `taffrail import transcripts`: by the running server, so that it and the tail know of each other; where none runs, in
//! this process, which starts none for it.

use std::io::BufRead;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use taffrail_server::config::{Config, Flags};
use taffrail_server::transcripts::{self, ImportLine, ImportRequest, Totals};

use super::progress::{Progress, Unit};
use crate::cli::{Global, ImportTranscriptsArgs};
use crate::client::{Client, parse};
use crate::home::{self, Home};
use crate::print::{self, out};

const PATH: &str = "/api/v1/imports/transcripts";

pub(crate) fn run(global: &Global, args: &ImportTranscriptsArgs) -> Result<ExitCode> {
    let config = home::load(&Flags { data_dir: global.data_dir.clone(), ..Flags::default() })?;
    let home = Home::of(&config)?;
    let request = request(&config, args)?;
    let progress = Progress::new(0, Unit::Bytes);
    let totals = match Client::find(&home) {
        Some(client) => by_server(&client, &request, &progress),
        None => transcripts::import(&config, &request, &mut |now| progress.set(now.bytes_done, now.bytes)),
    };
    progress.finish();
    let totals = totals?;
    report(&totals, args)?;
    for failed in &totals.errors {
        eprintln!("warning: {}: {}", failed.path.display(), failed.error);
    }
    if totals.failed == 0 {
        return Ok(ExitCode::SUCCESS);
    }
    let failed = print::count(totals.failed, "file");
    eprintln!(
        "error: {failed} could not be imported\nhint: everything else was; import again once that is mended"
    );
    Ok(ExitCode::FAILURE)
}

fn request(config: &Config, args: &ImportTranscriptsArgs) -> Result<ImportRequest> {
    let absolute = |path: &PathBuf| {
        std::path::absolute(path).with_context(|| format!("cannot resolve {}", path.display()))
    };
    let roots = config.transcripts.roots.clone();
    if args.paths.is_empty() && !roots.iter().any(|root| root.is_dir()) {
        let looked: Vec<_> = roots.iter().map(|root| root.display().to_string()).collect();
        bail!(
            "there are no transcripts: looked in {}\nhint: name files or folders, or set CLAUDE_CONFIG_DIR",
            looked.join(", ")
        );
    }
    Ok(ImportRequest {
        paths: args.paths.iter().map(absolute).collect::<Result<_>>()?,
        roots,
        app: args.app.clone(),
        dry_run: args.dry_run,
        archive: args.archive,
    })
}

fn by_server(client: &Client, request: &ImportRequest, progress: &Progress) -> Result<Totals> {
    let lines = client.post_for_lines(PATH, &serde_json::to_vec(request)?)?;
    for line in lines.lines() {
        match parse(PATH, &line.context("the server's answer broke off")?)? {
            ImportLine::Progress(now) => progress.set(now.bytes_done, now.bytes),
            ImportLine::Totals(totals) => return Ok(totals),
            ImportLine::Error(error) => bail!("{error}"),
        }
    }
    bail!("the server's answer broke off\nhint: import again; what is stored already is not stored twice")
}

fn report(totals: &Totals, args: &ImportTranscriptsArgs) -> Result<()> {
    if args.json {
        return out(&serde_json::to_string(totals)?);
    }
    let Totals { unchanged, records, bad, unknown, requests, requests_new, requests_changed, .. } = totals;
    let files = print::count(totals.files, "file");
    let sessions = print::count(totals.sessions, "session");
    if totals.dry_run {
        return out(&format!(
            "{files}: {records} records ({bad} bad, {unknown} of an unknown type), {requests} API requests in {sessions}; \
             nothing was stored"
        ));
    }
    let archived = if args.archive { format!(", {} archived", totals.archived) } else { String::new() };
    out(&format!(
        "{files} ({unchanged} unchanged): {records} records ({bad} bad, {unknown} of an unknown type), \
         {requests_new} new API requests, {requests_changed} changed, in {sessions}{archived}"
    ))
}
