//! File system images on loop devices, and what they hold at one instant.
//!
//! ```text
//! disk.img   ext4 without a journal, mounted at disk/; holds nothing but the inner image
//!   disk/data.img   ext4 with defaults, mounted at data/; holds the data directory
//! ```
//!
//! A cut freezes the outer file system, so that the loop device below `data/` can write nothing more, copies the inner
//! image and lets it go on. The copy is what a disk would hold at that instant: everything the inner file system had
//! written to its device, nothing of what lay in its page cache. The server is not stopped and notices only a slow disk.
//! What this does not model: a disk that loses or reorders writes it was not yet asked to flush.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::scratch::{Guard, Scratch, Undo, quiet, set_up};

/// Size of the inner image, in bytes.
const DATA_BYTES: u64 = 256 << 20;
/// Room for it and its file system's own needs.
const DISK_BYTES: u64 = 320 << 20;

/// A mounted pair of images.
#[derive(Debug)]
pub(crate) struct Disk {
    // Dropped in this order: the inner mount lies on the outer one.
    _data_mount: Guard,
    _disk_mount: Guard,
    disk: PathBuf,
    data: PathBuf,
}

/// A mounted copy of an inner image; removed when dropped.
#[derive(Debug)]
pub(crate) struct Copy {
    _mount: Guard,
    data: PathBuf,
    image: PathBuf,
}

/// Why images cannot be mounted here; none where they can.
pub(crate) fn unavailable() -> Option<String> {
    if !cfg!(target_os = "linux") {
        return Some("loop devices and ext4 are only on Linux".to_owned());
    }
    if !rustix::process::geteuid().is_root() {
        return Some("only root may mount an image; hint: run the campaign as root".to_owned());
    }
    for tool in ["mkfs.ext4", "mount", "umount", "fsfreeze"] {
        if quiet(Command::new("sh").args(["-c", &format!("command -v {tool}")])).is_err() {
            return Some(format!("{tool} is missing; hint: install e2fsprogs and util-linux"));
        }
    }
    None
}

impl Disk {
    pub(crate) fn new(scratch: &Scratch, name: &str) -> Result<Self> {
        let base = scratch.dir(name)?;
        let (disk, data) = (base.join("disk"), base.join("data"));
        let image = base.join("disk.img");
        make(&image, DISK_BYTES, &["-O", "^has_journal"])?;
        let disk_mount = mount(&image, &disk)?;
        let inner = disk.join("data.img");
        make(&inner, DATA_BYTES, &[])?;
        let data_mount = mount(&inner, &data)?;
        Ok(Self { _data_mount: data_mount, _disk_mount: disk_mount, disk, data })
    }

    /// Where the data directory may be.
    pub(crate) fn data(&self) -> &Path {
        &self.data
    }

    /// Cuts the power, as far as the copy is concerned, and mounts it; `at_the_cut` runs just before.
    pub(crate) fn cut<T>(
        &self,
        scratch: &Scratch,
        name: &str,
        at_the_cut: impl FnOnce() -> T,
    ) -> Result<(Copy, T)> {
        let base = scratch.dir(name)?;
        let image = base.join("copy.img");
        let before = at_the_cut();
        {
            let _frozen =
                set_up(Command::new("fsfreeze").arg("-f").arg(&self.disk), Undo::Thaw(self.disk.clone()))?;
            copy_sparse(&self.disk.join("data.img"), &image)?;
        }
        let data = base.join("data");
        let mount = mount(&image, &data)?;
        Ok((Copy { _mount: mount, data, image }, before))
    }
}

impl Copy {
    pub(crate) fn data(&self) -> &Path {
        &self.data
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        // The mount holds the file until it is gone; the name can go now.
        let _ = fs::remove_file(&self.image);
    }
}

/// A small file system of its own, to be filled up.
pub(crate) fn small(scratch: &Scratch, name: &str, bytes: u64) -> Result<(Guard, PathBuf)> {
    let base = scratch.dir(name)?;
    let image = base.join("small.img");
    let dir = base.join("small");
    make(&image, bytes, &[])?;
    Ok((mount(&image, &dir)?, dir))
}

fn make(image: &Path, bytes: u64, options: &[&str]) -> Result<()> {
    let file = File::create(image).with_context(|| format!("cannot create {}", image.display()))?;
    file.set_len(bytes)?;
    quiet(Command::new("mkfs.ext4").args(["-q", "-F"]).args(options).arg(image))
}

fn mount(image: &Path, dir: &Path) -> Result<Guard> {
    fs::create_dir_all(dir)?;
    let mut command = Command::new("mount");
    set_up(command.args(["-o", "loop,noatime"]).arg(image).arg(dir), Undo::Unmount(dir.to_owned()))
}

fn copy_sparse(from: &Path, to: &Path) -> Result<()> {
    quiet(Command::new("cp").arg("--sparse=always").arg(from).arg(to))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use std::io::Write;

    /// Shows that the harness can see a loss: what was synced is in the copy, what was not is not.
    #[test]
    fn a_cut_keeps_what_was_synced_and_nothing_else() {
        if let Some(why) = unavailable() {
            eprintln!("\n*** SKIPPED: the image of a cut was not tested: {why} ***\n");
            return;
        }
        let scratch = Scratch::new("image-test").unwrap();
        let disk = Disk::new(&scratch, "disk").unwrap();
        let mut synced = File::create(disk.data().join("synced")).unwrap();
        synced.write_all(b"kept").unwrap();
        synced.sync_all().unwrap();
        let mut written = File::create(disk.data().join("written")).unwrap();
        written.write_all(b"gone").unwrap();
        let (copy, ()) = disk.cut(&scratch, "copy", || ()).unwrap();
        assert_eq!(fs::read(copy.data().join("synced")).unwrap(), b"kept");
        let lost = fs::read(copy.data().join("written")).is_ok_and(|bytes| bytes == b"gone");
        assert!(!lost, "what was never synced survived the cut");
        written.sync_all().unwrap();
        assert_eq!(fs::read(disk.data().join("written")).unwrap(), b"gone", "the disk went on");
    }
}
