//! A quarter's transcripts: ccusage, our ledger, our compatible report, in turn, in one run.

mod grow;

use std::fs;
use std::io::Write as _;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use rustix::fs::{Advice, fadvise};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Bench, Size, reads};
use crate::process;
use crate::report::{Section, group};
use crate::scratch::spawn_short;
use crate::stats::{Samples, ms};
use crate::sys;
use grow::Grown;

const CCUSAGE: &str = "ccusage@20.0.24";
const SEED: u64 = 90;
/// How much faster than ccusage the compatible report must be.
const TIMES_FASTER: f64 = 2.0;
/// A run after one appended line.
const INCREMENTAL_TARGET_MS: f64 = 50.0;
/// Costs are equal when they are so near: both are sums of thousands of binary fractions.
const DOLLARS_NEAR: f64 = 1e-6;
/// What the transcripts are grown from where nothing else is said.
const SOURCES: [&str; 2] = ["../shared/data/claude-transcripts", "fixtures/ccusage/captures"];

const COMPAT: &str = "`taffrail report daily --compat ccusage`";
const LEDGER: &str = "`taffrail import transcripts` and `report daily`";
const FLOOR: &str = "floor: `ccusage daily --offline`";

pub(super) fn measure(bench: &Bench) -> Result<Section> {
    let place = Place::make(bench)?;
    let grown = &place.grown;
    let cold = if bench.drop_caches {
        "`/proc/sys/vm/drop_caches`"
    } else {
        "`posix_fadvise(DONTNEED)` on every file"
    };
    let mut section = Section::new(
        "",
        "How long does a quarter's usage take to report, beside ccusage?",
        &format!(
            "{} MB of transcripts in {} files with {} requests, grown from real ones by the seed {SEED}. Each program is \
             given the same directory, in turn, JSON to a file; time from before the spawn until it is reaped, CPU and \
             peak memory by `wait4`. The ledger's two commands are added up (memory: the larger); its first run begins \
             with an empty data directory. Cold: by {cold}. Then one line is appended, and all run again. Floor: \
             {CCUSAGE} from npm, the native program itself.",
            group(grown.bytes as f64 / 1e6),
            group(grown.files.len() as f64),
            group(grown.requests as f64),
        ),
    );
    let rounds = bench.size.of(1, 3, 5);
    let warm = place.rounds(rounds, Cache::Warm)?;
    warm.figures("warm", &mut section);
    let cold = place
        .rounds(bench.size.of(1, 1, 3), if bench.drop_caches { Cache::Dropped } else { Cache::Evicted })?;
    cold.figures("cold", &mut section);
    place.check(grown.requests)?;
    let appended = place.appended(bench.size.of(1, 3, 10))?;
    appended.figures("one line more", &mut section);
    targets(&warm, &appended, &mut section);
    Ok(section)
}

fn targets(warm: &Rounds, appended: &Rounds, section: &mut Section) {
    let median = |samples: &Samples| samples.spread().map(|spread| spread.p50);
    if let Some(floor) = median(&warm.ccusage.wall_ms) {
        for (name, ours) in [(COMPAT, &warm.compat), (LEDGER, &warm.ledger)] {
            if let Some(own) = median(&ours.wall_ms) {
                section.at_least(format!("{name}: times as fast as ccusage"), "x", TIMES_FASTER, floor / own);
            }
            section.at_most(format!("{name}: peak"), "MB", warm.ccusage.peak_mb(), ours.peak_mb());
        }
    }
    if let Some(own) = median(&appended.ledger.wall_ms) {
        section.at_most(format!("{LEDGER} after one line"), "ms", INCREMENTAL_TARGET_MS, own);
    }
}

/// What the disk cache holds before a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cache {
    Warm,
    /// The transcripts' pages were given back.
    Evicted,
    /// All of the system's were.
    Dropped,
}

/// Where everything lies.
struct Place {
    config_dir: PathBuf,
    data_dir: PathBuf,
    scratch: PathBuf,
    grown: Grown,
    taffrail: PathBuf,
    /// None at the smallest size where nothing was given: a test installs nothing.
    ccusage: Option<PathBuf>,
}

/// What was measured of each, round by round.
#[derive(Debug, Default)]
struct Rounds {
    ccusage: Runs,
    compat: Runs,
    ledger: Runs,
}

#[derive(Debug, Default)]
struct Runs {
    wall_ms: Samples,
    cpu_ms: Samples,
    rss_mb: Samples,
}

impl Runs {
    fn push(&mut self, took: &[Took]) {
        self.wall_ms.push(took.iter().map(|t| t.wall_ms).sum());
        self.cpu_ms.push(took.iter().map(|t| t.cpu_ms).sum());
        self.rss_mb.push(took.iter().map(|t| t.max_rss_bytes).max().unwrap_or(0) as f64 / f64::from(1 << 20));
    }

    fn peak_mb(&self) -> f64 {
        self.rss_mb.spread().map_or(0.0, |spread| spread.max)
    }
}

impl Rounds {
    fn figures(&self, when: &str, section: &mut Section) {
        for (name, runs) in [(FLOOR, &self.ccusage), (COMPAT, &self.compat), (LEDGER, &self.ledger)] {
            for (what, unit, samples) in
                [("wall", "ms", &runs.wall_ms), ("CPU", "ms", &runs.cpu_ms), ("peak", "MB", &runs.rss_mb)]
            {
                if samples.spread().is_some() {
                    section.spread(format!("{when}, {name}: {what}"), unit, samples);
                }
            }
        }
    }
}

impl Place {
    fn make(bench: &Bench) -> Result<Self> {
        let scratch = bench.scratch.dir("transcripts")?;
        let config_dir = scratch.join("config");
        let from = match &bench.transcripts {
            Some(dir) => dir.clone(),
            None => SOURCES
                .iter()
                .map(PathBuf::from)
                .find(|dir| dir.is_dir())
                .context("no transcripts to grow from\nhint: --transcripts DIR")?,
        };
        eprintln!("  growing from {}", from.display());
        let grown = grow::grow(&from, &config_dir, bench.transcripts_bytes, SEED)?;
        let ccusage = match &bench.ccusage {
            Some(path) => {
                Some(path.canonicalize().with_context(|| format!("no ccusage at {}", path.display()))?)
            }
            None if bench.size == Size::Tiny => {
                eprintln!("  ccusage is NOT measured at this size without --ccusage");
                None
            }
            None => Some(install(&scratch)?),
        };
        let data_dir = scratch.join("data");
        Ok(Self { config_dir, data_dir, scratch, grown, taffrail: bench.binaries.taffrail.clone(), ccusage })
    }

    fn rounds(&self, rounds: usize, cache: Cache) -> Result<Rounds> {
        let mut all = Rounds::default();
        // What is warm is warm for the first one, too.
        self.touch()?;
        for _ in 0..rounds {
            if self.data_dir.exists() {
                fs::remove_dir_all(&self.data_dir)?;
            }
            self.round(&mut all, cache)?;
        }
        Ok(all)
    }

    fn round(&self, all: &mut Rounds, cache: Cache) -> Result<()> {
        if let Some(took) = self.ccusage(cache)? {
            all.ccusage.push(&[took]);
        }
        all.compat.push(&[self.compat(cache)?]);
        all.ledger.push(&self.ledger(cache)?);
        Ok(())
    }

    /// Appends a line with a request of its own before each round; the ledger goes on from where it was.
    fn appended(&self, rounds: usize) -> Result<Rounds> {
        let mut all = Rounds::default();
        let path = self.grown.files.last().context("nothing was grown")?;
        for n in 1..=rounds as u64 {
            let mut file = fs::File::options().append(true).open(path)?;
            writeln!(file, "{}", line(n))?;
            drop(file);
            self.round(&mut all, Cache::Warm)?;
            self.check(self.grown.requests + n)?;
        }
        Ok(all)
    }

    fn ccusage(&self, cache: Cache) -> Result<Option<Took>> {
        let Some(ccusage) = &self.ccusage else { return Ok(None) };
        self.run(ccusage, &["daily", "--offline", "--json"], "ccusage.json", cache).map(Some)
    }

    fn compat(&self, cache: Cache) -> Result<Took> {
        let args = ["report", "daily", "--compat", "ccusage", "--json"];
        self.run(&self.taffrail, &args, "compat.json", cache)
    }

    fn ledger(&self, cache: Cache) -> Result<[Took; 2]> {
        let data_dir = self.data_dir.to_string_lossy();
        let import = ["--data-dir", &data_dir, "import", "transcripts", "--json"];
        let report = ["--data-dir", &data_dir, "report", "daily", "--json"];
        let imported = self.run(&self.taffrail, &import, "import.json", cache)?;
        Ok([imported, self.run(&self.taffrail, &report, "report.json", Cache::Warm)?])
    }

    /// Runs a program on the grown transcripts, its output to a file of that name.
    fn run(&self, program: &Path, args: &[&str], out: &str, cache: Cache) -> Result<Took> {
        match cache {
            Cache::Warm => {}
            Cache::Evicted => self.evict()?,
            Cache::Dropped => reads::drop_caches()?,
        }
        // A small process of its own starts it: Linux counts what the parent held to the child's peak.
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("took").arg(self.scratch.join(out)).arg(program).args(args);
        command.env_clear().env("HOME", &self.scratch).env("TZ", "UTC").env("PATH", "/usr/bin:/bin");
        command.env("CLAUDE_CONFIG_DIR", &self.config_dir);
        let ended = process::run(&mut command, b"")?;
        let said = || String::from_utf8_lossy(&ended.stderr).into_owned();
        ensure!(ended.code == Some(0), "{} {args:?} failed: {}", program.display(), said());
        serde_json::from_slice(&ended.stdout).with_context(said)
    }

    fn json(&self, name: &str) -> Result<Value> {
        let text = fs::read(self.scratch.join(name))?;
        serde_json::from_slice(&text).with_context(|| format!("{name} is no JSON"))
    }

    /// Whether the ledger has every request once, and the compatible report ccusage's figures.
    fn check(&self, requests: u64) -> Result<()> {
        let counted = self.json("report.json")?["totals"]["requests"].as_u64();
        ensure!(counted == Some(requests), "{requests} requests were written, the ledger has {counted:?}");
        if self.ccusage.is_none() {
            return Ok(());
        }
        let (theirs, ours) = (self.json("ccusage.json")?, self.json("compat.json")?);
        let (theirs, ours) = (&theirs["totals"], &ours["totals"]);
        for kind in ["inputTokens", "outputTokens", "cacheCreationTokens", "cacheReadTokens"] {
            ensure!(theirs[kind] == ours[kind], "{kind}: {} by ccusage, {} by us", theirs[kind], ours[kind]);
        }
        let cost = |totals: &Value| totals["totalCost"].as_f64().unwrap_or(f64::NAN);
        let apart = (cost(theirs) - cost(ours)).abs();
        ensure!(apart < DOLLARS_NEAR, "{} dollars by ccusage, {} by us", cost(theirs), cost(ours));
        Ok(())
    }

    /// Reads every file once.
    fn touch(&self) -> Result<()> {
        for path in &self.grown.files {
            std::io::copy(&mut fs::File::open(path)?, &mut std::io::sink())?;
        }
        Ok(())
    }

    /// Gives the files' pages back; they must be on disk for that.
    fn evict(&self) -> Result<()> {
        for path in &self.grown.files {
            let file = fs::File::open(path)?;
            file.sync_data()?;
            fadvise(file.as_fd(), 0, None, Advice::DontNeed)?;
        }
        Ok(())
    }
}

/// A line of a session, with a request of its own.
fn line(n: u64) -> String {
    serde_json::json!({
        "type": "assistant",
        "uuid": format!("00000000-0000-4000-8000-{n:012x}"),
        "timestamp": crate::clock::stamp(1_793_534_400_000 + i64::try_from(n).unwrap_or(0)),
        "sessionId": "00000000-0000-4000-8000-000000000000",
        "requestId": format!("req_appended{n:04}"),
        "message": {
            "id": format!("msg_appended{n:04}"),
            "role": "assistant",
            "model": "claude-opus-4-6",
            "stop_reason": "end_turn",
            "content": [{ "type": "text", "text": "Done." }],
            "usage": { "input_tokens": 3, "output_tokens": 5, "cache_read_input_tokens": 1_000 },
        },
    })
    .to_string()
}

/// Installs ccusage by npm into the scratch directory and finds the native program in it.
fn install(scratch: &Path) -> Result<PathBuf> {
    let dir = scratch.join("npm");
    fs::create_dir_all(&dir)?;
    fs::write(dir.join("package.json"), "{}")?;
    eprintln!("  installing {CCUSAGE} by npm");
    crate::scratch::quiet(
        Command::new("npm").args(["install", "--no-audit", "--no-fund", CCUSAGE]).current_dir(&dir),
    )
    .context("cannot install ccusage\nhint: --ccusage PATH names its native program")?;
    let packages =
        fs::read_dir(dir.join("node_modules/@ccusage")).context("npm brought no native program")?;
    for package in packages {
        let path = package?.path().join("bin/ccusage");
        if path.is_file() {
            make_executable(&path)?;
            return Ok(path);
        }
    }
    bail!("npm brought no native program of ccusage for this machine")
}

fn make_executable(path: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(0o755))?)
}

/// The command line of the hidden `took`.
#[derive(Args, Debug)]
pub(crate) struct TookArgs {
    /// Where its standard output goes.
    out: PathBuf,
    /// What to start.
    program: PathBuf,
    /// Its arguments.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

/// What a run took.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Took {
    wall_ms: f64,
    cpu_ms: f64,
    max_rss_bytes: u64,
}

/// Runs the program and prints what it took as JSON.
pub(crate) fn took(args: &TookArgs) -> Result<()> {
    let out = fs::File::create(&args.out)?;
    let begun = Instant::now();
    let child = spawn_short(Command::new(&args.program).args(&args.args).stdin(Stdio::null()).stdout(out))?;
    let usage = sys::wait_with_usage(&child)?;
    let wall: Duration = begun.elapsed();
    ensure!(usage.code == Some(0), "{} ended with {:?}", args.program.display(), usage.code);
    let took = Took { wall_ms: ms(wall), cpu_ms: ms(usage.cpu), max_rss_bytes: usage.max_rss_bytes };
    Ok(writeln!(std::io::stdout(), "{}", serde_json::to_string(&took)?)?)
}
