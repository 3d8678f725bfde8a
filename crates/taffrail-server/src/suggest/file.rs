//! Files that a suggestion may change: below a directory of the user's own, read, replaced, put back.
//!
//! A directory is told by the sessions that ran there, so it is checked: it exists, it is not the root, it belongs to the user
//! who runs the server. A file in it may be a symbolic link, but not to a place outside. What has changed since it was looked at
//! is not replaced.

use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::security::random_hex;

/// The largest file that is changed, in bytes.
pub(crate) const FILE_MAX_BYTES: u64 = 1024 * 1024;

/// Why a file is not changed; for a person.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Refusal(pub(crate) String);

fn refusal<T>(why: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal(why.into()))
}

fn failed(what: &str, path: &Path, error: &io::Error) -> Refusal {
    Refusal(format!("cannot {what} {}: {error}", path.display()))
}

/// The real path of a directory whose files may be changed.
pub(crate) fn root(directory: &Path) -> Result<PathBuf, Refusal> {
    if !directory.is_absolute() {
        return refusal(format!("{} is not an absolute path", directory.display()));
    }
    let real = fs::canonicalize(directory).map_err(|e| failed("find", directory, &e))?;
    let about = fs::metadata(&real).map_err(|e| failed("look at", &real, &e))?;
    if !about.is_dir() || real.parent().is_none() {
        return refusal(format!("{} is no project directory", real.display()));
    }
    need_own(&real, &about)?;
    Ok(real)
}

/// A file below a root, by its real path; it may be missing.
pub(crate) fn file(root: &Path, relative: &str) -> Result<PathBuf, Refusal> {
    let path = root.join(relative);
    let is_below =
        Path::new(relative).components().all(|part| matches!(part, std::path::Component::Normal(_)));
    if !is_below {
        return refusal(format!("{relative} is not below the directory"));
    }
    let mut known = path.as_path();
    // The nearest thing that is there: what is made below it is made inside it.
    while matches!(fs::symlink_metadata(known), Err(e) if e.kind() == io::ErrorKind::NotFound) {
        known = known.parent().unwrap_or(root);
    }
    let real = fs::canonicalize(known).map_err(|e| failed("follow", known, &e))?;
    if !real.starts_with(root) {
        return refusal(format!("{} leads out of {}", path.display(), root.display()));
    }
    match path.strip_prefix(known) {
        Ok(rest) if !rest.as_os_str().is_empty() => match real.is_dir() {
            true => Ok(real.join(rest)),
            false => refusal(format!("{} is no directory", real.display())),
        },
        _ => Ok(real),
    }
}

/// The text of a file; none where there is none.
pub(crate) fn read(path: &Path) -> Result<Option<String>, Refusal> {
    let about = match fs::symlink_metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(|e| failed("look at", path, &e))?,
    };
    if !about.is_file() {
        return refusal(format!("{} is no regular file", path.display()));
    }
    need_own(path, &about)?;
    if about.permissions().readonly() {
        return refusal(format!("{} is read-only", path.display()));
    }
    let mut bytes = Vec::new();
    let opened = fs::File::open(path).map_err(|e| failed("read", path, &e))?;
    opened.take(FILE_MAX_BYTES + 1).read_to_end(&mut bytes).map_err(|e| failed("read", path, &e))?;
    if bytes.len() as u64 > FILE_MAX_BYTES {
        return refusal(format!("{} is larger than {FILE_MAX_BYTES} bytes", path.display()));
    }
    match String::from_utf8(bytes) {
        Ok(text) => Ok(Some(text)),
        Err(_) => refusal(format!("{} is no UTF-8 text", path.display())),
    }
}

/// Replaces `before` by `after` in one step, unless the file is not `before` any more; none is a file that is not there.
pub(crate) fn replace(path: &Path, before: Option<&str>, after: Option<&str>) -> Result<(), Refusal> {
    if read(path)?.as_deref() != before {
        return refusal(format!("{} changed meanwhile", path.display()));
    }
    let Some(after) = after else {
        return fs::remove_file(path).map_err(|e| failed("remove", path, &e));
    };
    let Some(directory) = path.parent() else { return refusal("a file needs a directory") };
    fs::create_dir_all(directory).map_err(|e| failed("make", directory, &e))?;
    let name = random_hex::<8>().map_err(|e| Refusal(format!("no randomness: {e}")))?;
    let temporary = directory.join(format!(".taffrail-{name}.tmp"));
    let written = write_new(&temporary, after, false).and_then(|()| {
        if before.is_some() {
            fs::set_permissions(&temporary, fs::metadata(path)?.permissions())?;
        }
        fs::rename(&temporary, path)?;
        fs::File::open(directory)?.sync_all()
    });
    if written.is_err() {
        // It may not even be there.
        let _ = fs::remove_file(&temporary);
    }
    written.map_err(|e| failed("write", path, &e))
}

/// Writes a new file that only its owner can read, in a directory that is made.
pub(crate) fn keep(path: &Path, text: &str) -> Result<(), Refusal> {
    let Some(directory) = path.parent() else { return refusal("a file needs a directory") };
    make_private(directory).map_err(|e| failed("make", directory, &e))?;
    write_new(path, text, true).map_err(|e| failed("write", path, &e))
}

/// The hash of what a file holds, of a file that is not there too: 64 hex digits.
pub(crate) fn hash(parts: &[Option<&str>]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update([u8::from(part.is_some())]);
        hash.update(part.map_or(0, str::len).to_le_bytes());
        hash.update(part.unwrap_or_default());
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn write_new(path: &Path, text: &str, private: bool) -> io::Result<()> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    if private {
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    }
    let mut file = options.open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

fn make_private(directory: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(directory)
}

#[cfg(unix)]
fn need_own(path: &Path, about: &fs::Metadata) -> Result<(), Refusal> {
    let owner = std::os::unix::fs::MetadataExt::uid(about);
    match owner == rustix::process::geteuid().as_raw() {
        true => Ok(()),
        false => refusal(format!("{} belongs to somebody else", path.display())),
    }
}

#[cfg(not(unix))]
fn need_own(_path: &Path, _about: &fs::Metadata) -> Result<(), Refusal> {
    Ok(())
}
