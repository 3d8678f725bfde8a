//! The import's progress bar: how much is read of how much there is, on stderr, and only where that is a terminal.

use std::io::{self, Read};
use std::path::Path;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// What is counted.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Unit {
    Bytes,
    Rows,
    /// Quarters of an hour of a simulated fleet.
    Slots,
}

/// Draws a few times a second; silent where stderr is no terminal.
pub(crate) struct Progress {
    bar: ProgressBar,
}

impl Progress {
    pub(crate) fn new(total: u64, unit: Unit) -> Self {
        let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
        let style = match unit {
            Unit::Bytes => "{bar:32} {bytes}/{total_bytes} {bytes_per_sec} {eta} {wide_msg}",
            Unit::Slots => "{bar:32} {percent}% of the history {eta}",
            Unit::Rows => "{bar:32} {human_pos}/{human_len} rows {per_sec} {eta} {wide_msg}",
        };
        if let Ok(style) = ProgressStyle::with_template(style) {
            bar.set_style(style);
        }
        Self { bar }
    }

    pub(crate) fn name(&self, path: &Path) {
        let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
        self.bar.set_message(name);
    }

    /// Where the whole way and the way gone are told together.
    pub(crate) fn set(&self, done: u64, total: u64) {
        self.bar.set_length(total);
        self.bar.set_position(done);
    }

    pub(crate) fn advance(&self, by: u64) {
        self.bar.inc(by);
    }

    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

/// A reader that moves the bar.
pub(crate) struct Counting<'a, R> {
    reader: R,
    progress: &'a Progress,
}

impl<'a, R> Counting<'a, R> {
    pub(crate) fn new(reader: R, progress: &'a Progress) -> Self {
        Self { reader, progress }
    }
}

impl<R: Read> Read for Counting<'_, R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.reader.read(into)?;
        self.progress.advance(read as u64);
        Ok(read)
    }
}
