//! From the start of `taffrail serve` to the first 200 of `/ready`.

use std::process::Command;
use std::time::Instant;

use anyhow::Result;

use super::Bench;
use crate::process;
use crate::report::Section;
use crate::server::Server;
use crate::stats::{Samples, ms};

/// Ready on the large database within this.
const TARGET_MS: f64 = 200.0;

pub(super) fn measure(bench: &Bench) -> Result<Section> {
    let starts = bench.size.of(2, 5, 30);
    let large = bench.large_db()?;
    let log = bench.scratch.path().join("startup.log");
    let (mut on_large, mut on_empty, mut on_fresh, mut floor) =
        (Samples::default(), Samples::default(), Samples::default(), Samples::default());
    let (empty, _) = bench.data_dir("startup-empty")?;
    for n in 0..starts {
        floor.push_ms(process::run(Command::new(&bench.binaries.taffrail).arg("--version"), b"")?.took);
        let (fresh, _) = bench.data_dir("startup-fresh")?;
        for (dir, samples) in [(&large, &mut on_large), (&empty, &mut on_empty), (&fresh, &mut on_fresh)] {
            let begun = Instant::now();
            let mut server = Server::spawn(&bench.binaries.taffrail, dir, &log)?;
            server.wait_ready()?;
            let took = ms(begun.elapsed());
            server.stop()?;
            // The first start on the large database may be the first touch of its pages; it counts like the others.
            if !(n == 0 && std::ptr::eq(dir, &raw const empty)) {
                samples.push(took);
            }
        }
    }
    let mut section = Section::new(
        "",
        "How long does the server take from its start until it says that it is ready?",
        "From before the spawn to the first 200 of `/ready`, polled every 0.5 ms, each server stopped in order \
         afterwards, the kinds of database in turn. `fresh` has no database yet, `empty` has one without events. \
         Floor: the same binary saying its version.",
    );
    let events = crate::report::group(bench.db_events as f64);
    section.spread(format!("{events} events"), "ms", &on_large);
    section.spread("empty", "ms", &on_empty);
    section.spread("fresh", "ms", &on_fresh);
    section.spread("floor: `taffrail --version`", "ms", &floor);
    if let Some(spread) = on_large.spread() {
        section.at_most(format!("p99 on {events} events"), "ms", TARGET_MS, spread.p99);
    }
    Ok(section)
}
