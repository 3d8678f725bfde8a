//! Lists the built page for embedding: each file of `web/dist` with its `.br` and `.gz` where they lie beside it.
//!
//! No Node here. Where the page is not built, a placeholder that says how stands in its place, so that tests need none.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

const PLACEHOLDER: &str = "src/viewer/placeholder.html";

fn main() -> io::Result<()> {
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default());
    let dist = root.join("../../web/dist");
    // The ignored folder must exist to be watched: a missing path would make every build start anew.
    let _ = fs::create_dir_all(&dist);
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed={PLACEHOLDER}");
    println!("cargo::rerun-if-changed={}", dist.display());

    let mut files = Vec::new();
    if dist.join("index.html").is_file() {
        collect(&dist, &dist, &mut files)?;
    } else {
        println!(
            "cargo::warning=the page is not built (web/dist); a placeholder is embedded. `cargo xtask run` builds it"
        );
        files.push(("index.html".to_owned(), root.join(PLACEHOLDER)));
    }
    files.sort();
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default()).join("assets.rs");
    fs::write(out, table(&files))
}

fn collect(root: &Path, dir: &Path, files: &mut Vec<(String, PathBuf)>) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(root, &path, files)?;
        } else if let Ok(name) = path.strip_prefix(root) {
            files.push((name.to_string_lossy().replace('\\', "/"), path.canonicalize()?));
        }
    }
    Ok(())
}

/// `FILES`: name, bytes, and the same compressed.
fn table(files: &[(String, PathBuf)]) -> String {
    let include = |path: &Path| format!("include_bytes!({:?})", path.display().to_string());
    let variant = |name: &str, ending: &str| {
        let found = files.iter().find(|(n, _)| *n == format!("{name}.{ending}"));
        found.map_or("None".to_owned(), |(_, path)| format!("Some({})", include(path)))
    };
    let mut text = String::from("static FILES: &[File] = &[\n");
    for (name, path) in files {
        let compressed = name.ends_with(".br") || name.ends_with(".gz");
        if compressed || name.ends_with(".map") {
            continue;
        }
        let (br, gz) = (variant(name, "br"), variant(name, "gz"));
        // Writing into a string cannot fail.
        let _ =
            writeln!(text, "    File {{ name: {name:?}, bytes: {}, br: {br}, gz: {gz} }},", include(path));
    }
    text.push_str("];\n");
    text
}
