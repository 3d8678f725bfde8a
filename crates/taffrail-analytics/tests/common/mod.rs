//! The sets of ADBench (Han et al. 2022) as the tests read them, where they are.

#![allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "tests; each test file uses its own part"
)]

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

/// A labelled set.
pub struct Set {
    pub name: String,
    pub columns: usize,
    /// Row after row.
    pub values: Vec<f32>,
    pub is_anomaly: Vec<bool>,
}

impl Set {
    pub fn row(&self, row: usize) -> &[f32] {
        &self.values[row * self.columns..][..self.columns]
    }
}

/// The folder of anomaly data, which is not part of the repository: `TAFFRAIL_SHARED`, else `../shared` beside the checkout.
/// Says loudly when it is absent.
pub fn anomaly_dir() -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared");
    let dir = std::env::var_os("TAFFRAIL_SHARED").map_or(beside, PathBuf::from).join("data/anomaly");
    if dir.join("adbench").is_dir() {
        return Some(dir);
    }
    eprintln!("!!! NOT TESTED: no anomaly data in {}; set TAFFRAIL_SHARED", dir.display());
    None
}

/// Every set, by name.
pub fn sets() -> Option<Vec<Set>> {
    let dir = anomaly_dir()?.join("adbench");
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "npz"));
    paths.sort();
    assert_eq!(paths.len(), 15, "the sets are not all there");
    Some(paths.iter().map(|path| set(path)).collect())
}

fn set(path: &Path) -> Set {
    let files = unzip(&std::fs::read(path).unwrap());
    let (rows, columns, values) = npy(&files["X.npy"]);
    let (labels, _, label_values) = npy(&files["y.npy"]);
    assert_eq!(rows, labels);
    Set {
        name: path.file_name().unwrap().to_str().unwrap().to_owned(),
        columns,
        values: values.iter().map(|&value| value as f32).collect(),
        is_anomaly: label_values.iter().map(|&label| label == 1.0).collect(),
    }
}

/// The files of a zip archive whose entries are deflated or stored (APPNOTE 6.3, without its later formats).
fn unzip(bytes: &[u8]) -> BTreeMap<String, Vec<u8>> {
    let u16_at = |at: usize| usize::from(u16::from_le_bytes(bytes[at..at + 2].try_into().unwrap()));
    let u32_at = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
    let end = (0..=bytes.len() - 22).rev().find(|&at| u32_at(at) == 0x0605_4b50).unwrap();
    let mut entry = u32_at(end + 16);
    let mut files = BTreeMap::new();
    for _ in 0..u16_at(end + 10) {
        assert_eq!(u32_at(entry), 0x0201_4b50);
        let (method, packed, size) = (u16_at(entry + 10), u32_at(entry + 20), u32_at(entry + 24));
        let name = std::str::from_utf8(&bytes[entry + 46..][..u16_at(entry + 28)]).unwrap().to_owned();
        let local = u32_at(entry + 42);
        let content = &bytes[local + 30 + u16_at(local + 26) + u16_at(local + 28)..][..packed];
        let mut file = Vec::new();
        match method {
            0 => file.extend_from_slice(content),
            8 => {
                flate2::read::DeflateDecoder::new(content).take(1 << 30).read_to_end(&mut file).unwrap();
            }
            other => panic!("{name} is packed by method {other}"),
        }
        assert_eq!(file.len(), size, "{name}");
        files.insert(name, file);
        entry += 46 + u16_at(entry + 28) + u16_at(entry + 30) + u16_at(entry + 32);
    }
    files
}

/// Rows, columns and values, row after row, of an array in numpy's format 1.0.
fn npy(bytes: &[u8]) -> (usize, usize, Vec<f64>) {
    assert_eq!(&bytes[..8], b"\x93NUMPY\x01\x00");
    let header_bytes = usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    let header = std::str::from_utf8(&bytes[10..][..header_bytes]).unwrap();
    let data = &bytes[10 + header_bytes..];
    let values: Vec<f64> = match quoted(header, "'descr': '") {
        "<f8" => data.chunks_exact(8).map(|cell| f64::from_le_bytes(cell.try_into().unwrap())).collect(),
        "<i8" => {
            data.chunks_exact(8).map(|cell| i64::from_le_bytes(cell.try_into().unwrap()) as f64).collect()
        }
        "<i4" => {
            data.chunks_exact(4).map(|cell| i32::from_le_bytes(cell.try_into().unwrap()).into()).collect()
        }
        "|u1" => data.iter().map(|&cell| cell.into()).collect(),
        other => panic!("numbers of type {other}"),
    };
    let shape = header.split("'shape': (").nth(1).unwrap().split(')').next().unwrap();
    let shape: Vec<usize> = shape
        .split(',')
        .filter(|part| !part.trim().is_empty())
        .map(|part| part.trim().parse().unwrap())
        .collect();
    let (rows, columns) = (shape[0], shape.get(1).copied().unwrap_or(1));
    assert_eq!(values.len(), rows * columns);
    if header.contains("'fortran_order': True") {
        let turned = (0..rows).flat_map(|row| (0..columns).map(move |column| column * rows + row));
        return (rows, columns, turned.map(|at| values[at]).collect());
    }
    (rows, columns, values)
}

fn quoted<'a>(header: &'a str, before: &str) -> &'a str {
    header.split(before).nth(1).unwrap().split('\'').next().unwrap()
}

/// Area under the receiver's curve: how often an anomaly has a higher score than another row, ties for a half.
pub fn auc(scores: &[f64], is_anomaly: &[bool]) -> f64 {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&a, &b| scores[a].total_cmp(&scores[b]));
    let mut rank_sum = 0.0;
    let mut at = 0;
    for tied in order.chunk_by(|&a, &b| scores[a] == scores[b]) {
        let rank = at as f64 + (tied.len() as f64 + 1.0) / 2.0;
        rank_sum += rank * tied.iter().filter(|&&row| is_anomaly[row]).count() as f64;
        at += tied.len();
    }
    let anomalies = is_anomaly.iter().filter(|&&label| label).count() as f64;
    let others = scores.len() as f64 - anomalies;
    (rank_sum - anomalies * (anomalies + 1.0) / 2.0) / (anomalies * others)
}
