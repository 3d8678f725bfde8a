//! The page: npm ci, build and precompression, each only when its inputs changed.
//!
//! What was done is remembered as a hash of the inputs' contents, so a checkout with new
//! file times builds nothing and an edit of one byte does.

use crate::{process, tools, workspace};
use anyhow::{Context, Result, bail};
use std::collections::VecDeque;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// Folders of `web/` that are results or do not reach the built page.
const NOT_SOURCES: [&str; 8] =
    ["node_modules", "dist", "e2e", "tests", "coverage", "test-results", ".vite", "playwright-report"];

/// Endings of files that compress well.
const COMPRESSIBLE: [&str; 9] = ["html", "js", "mjs", "css", "svg", "json", "map", "txt", "wasm"];

/// Below this a compressed copy saves no packet.
const COMPRESS_MIN_BYTES: u64 = 1024;

/// Brotli's best quality: paid once per build, saved on every request.
const BROTLI_QUALITY: i32 = 11;
const BROTLI_WINDOW_BITS: i32 = 22;

/// Fails clearly where there is no page to build.
fn require_package() -> Result<()> {
    for name in ["package.json", "package-lock.json"] {
        if !workspace::web().join(name).is_file() {
            bail!("web/{name} is missing\nhint: the page's sources belong in web/; check the checkout");
        }
    }
    Ok(())
}

/// `npm ci`, unless `node_modules` was made from this very lock file.
pub(crate) fn install() -> Result<String> {
    require_package()?;
    let web = workspace::web();
    let stamp = web.join("node_modules/.taffrail-stamp");
    let wanted = hash_files(&web, &[web.join("package.json"), web.join("package-lock.json")])?;
    if is_stamped(&stamp, &wanted) {
        return Ok("unchanged".into());
    }
    process::run(tools::npm().arg("ci"))?;
    fs::write(&stamp, wanted).context("could not write the stamp of node_modules")?;
    Ok("installed".into())
}

/// Builds and precompresses `web/dist`, unless it was built from these very sources.
pub(crate) fn build(target_dir: &Path) -> Result<String> {
    require_package()?;
    let web = workspace::web();
    let stamp = target_dir.join("xtask/web.stamp");
    let wanted = hash_files(&web, &sources(&web)?)?;
    if web.join("dist/index.html").is_file() && is_stamped(&stamp, &wanted) {
        return Ok("unchanged".into());
    }
    process::run(tools::npm().args(["run", "build"]))?;
    let squeezed = precompress(&web.join("dist"))?;
    fs::create_dir_all(target_dir.join("xtask"))?;
    fs::write(&stamp, wanted).context("could not write the stamp of the page")?;
    Ok(squeezed.to_string())
}

fn is_stamped(stamp: &Path, wanted: &str) -> bool {
    fs::read_to_string(stamp).is_ok_and(|found| found == wanted)
}

/// Every file of the page's sources, sorted.
fn sources(web: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut open = VecDeque::from([web.to_owned()]);
    while let Some(dir) = open.pop_front() {
        for entry in fs::read_dir(&dir).with_context(|| format!("could not list {}", dir.display()))? {
            let entry = entry?;
            let name = entry.file_name();
            if entry.file_type()?.is_dir() {
                if !NOT_SOURCES.iter().any(|skip| name == *skip) {
                    open.push_back(entry.path());
                }
            } else {
                files.push(entry.path());
            }
        }
    }
    files.sort();
    Ok(files)
}

/// Hashes names and contents. A new toolchain may hash differently: then it builds once more.
fn hash_files(root: &Path, files: &[PathBuf]) -> Result<String> {
    let mut hasher = DefaultHasher::new();
    for file in files {
        let content = fs::read(file).with_context(|| format!("could not read {}", file.display()))?;
        file.strip_prefix(root).unwrap_or(file).hash(&mut hasher);
        content.hash(&mut hasher);
    }
    Ok(format!("{:016x}", hasher.finish()))
}

/// What precompression did.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Squeezed {
    files: usize,
    bytes_before: u64,
    bytes_after: u64,
}

impl std::fmt::Display for Squeezed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (before, after) = (self.bytes_before / 1024, self.bytes_after / 1024);
        write!(f, "{} files compressed, {before} KiB to {after} KiB (br)", self.files)
    }
}

/// Puts a `.br` and a `.gz` beside every file that gains by it, on all cores.
fn precompress(dist: &Path) -> Result<Squeezed> {
    let queue = Mutex::new(sources_to_compress(dist)?);
    let total = Mutex::new(Squeezed::default());
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(|| compress_from(&queue, &total))).collect();
        workers.into_iter().try_for_each(|worker| worker.join().expect("a worker returns its errors"))
    })?;
    Ok(total.into_inner().expect("every worker has ended"))
}

fn sources_to_compress(dist: &Path) -> Result<Vec<PathBuf>> {
    let mut files = sources(dist)?;
    files.retain(|file| {
        let known = file.extension().is_some_and(|e| COMPRESSIBLE.iter().any(|known| e == *known));
        known && file.metadata().is_ok_and(|meta| meta.len() >= COMPRESS_MIN_BYTES)
    });
    Ok(files)
}

fn compress_from(queue: &Mutex<Vec<PathBuf>>, total: &Mutex<Squeezed>) -> Result<()> {
    loop {
        let next = queue.lock().expect("no holder panics").pop();
        let Some(file) = next else { return Ok(()) };
        let plain = fs::read(&file)?;
        let br = brotli(&plain)?;
        keep_if_smaller(&file, "gz", &plain, &gzip(&plain)?)?;
        keep_if_smaller(&file, "br", &plain, &br)?;
        let mut total = total.lock().expect("no holder panics");
        total.files += 1;
        total.bytes_before += plain.len() as u64;
        total.bytes_after += br.len().min(plain.len()) as u64;
    }
}

fn keep_if_smaller(file: &Path, ending: &str, plain: &[u8], packed: &[u8]) -> Result<()> {
    if packed.len() >= plain.len() {
        return Ok(());
    }
    let mut name = file.as_os_str().to_owned();
    name.push(".");
    name.push(ending);
    fs::write(&name, packed).with_context(|| format!("could not write {}", Path::new(&name).display()))
}

fn brotli(plain: &[u8]) -> Result<Vec<u8>> {
    let mut packed = Vec::new();
    let params = brotli::enc::BrotliEncoderParams {
        quality: BROTLI_QUALITY,
        lgwin: BROTLI_WINDOW_BITS,
        size_hint: plain.len(),
        ..Default::default()
    };
    brotli::BrotliCompress(&mut &*plain, &mut packed, &params)?;
    Ok(packed)
}

fn gzip(plain: &[u8]) -> Result<Vec<u8>> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(plain)?;
    Ok(encoder.finish()?)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use std::io::Read as _;

    fn scratch(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("xtask-web-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).unwrap();
        dir
    }

    #[test]
    fn the_hash_follows_names_and_contents_but_not_results() {
        let web = scratch("hash");
        let hash = || hash_files(&web, &sources(&web).unwrap()).unwrap();
        fs::write(web.join("a.ts"), "a").unwrap();
        let first = hash();
        fs::create_dir_all(web.join("node_modules")).unwrap();
        fs::write(web.join("node_modules/x.js"), "x").unwrap();
        assert_eq!(hash(), first, "node_modules is no source");
        fs::write(web.join("a.ts"), "b").unwrap();
        let second = hash();
        assert_ne!(second, first);
        fs::rename(web.join("a.ts"), web.join("b.ts")).unwrap();
        assert_ne!(hash(), second);
        fs::remove_dir_all(web).unwrap();
    }

    #[test]
    fn compressed_copies_unpack_to_the_original_and_small_files_get_none() {
        let dist = scratch("squeeze");
        let script = "const answer = 42;\n".repeat(500);
        fs::write(dist.join("app.js"), &script).unwrap();
        fs::write(dist.join("tiny.js"), "1").unwrap();
        fs::write(dist.join("photo.png"), vec![7; 4096]).unwrap();
        assert_eq!(precompress(&dist).unwrap().files, 1);
        let mut unpacked = String::new();
        brotli::Decompressor::new(fs::File::open(dist.join("app.js.br")).unwrap(), 4096)
            .read_to_string(&mut unpacked)
            .unwrap();
        assert_eq!(unpacked, script);
        unpacked.clear();
        flate2::read::GzDecoder::new(fs::File::open(dist.join("app.js.gz")).unwrap())
            .read_to_string(&mut unpacked)
            .unwrap();
        assert_eq!(unpacked, script);
        assert!(!dist.join("tiny.js.br").exists() && !dist.join("photo.png.gz").exists());
        fs::remove_dir_all(dist).unwrap();
    }
}
