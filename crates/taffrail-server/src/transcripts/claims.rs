//! Who reads which file now: the tail and an import never read the same one at once.
//!
//! Nobody may wait for a claim while holding others that only its own next step would give back; see `pass`.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

/// Files that are being read.
#[derive(Clone, Default)]
pub(crate) struct Claims(Arc<Table>);

#[derive(Default)]
struct Table {
    held: Mutex<HashSet<PathBuf>>,
    freed: Condvar,
}

/// A file that is the holder's until this goes.
pub(crate) struct Claim {
    path: PathBuf,
    table: Arc<Table>,
}

impl Claims {
    /// The file, or none while another has it.
    pub(crate) fn take(&self, path: &Path) -> Option<Claim> {
        let mut held = self.0.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.insert(path.to_owned()).then(|| Claim { path: path.to_owned(), table: Arc::clone(&self.0) })
    }

    /// The file, once it is free.
    pub(crate) fn wait_for(&self, path: &Path) -> Claim {
        let mut held = self.0.held.lock().unwrap_or_else(PoisonError::into_inner);
        while !held.insert(path.to_owned()) {
            held = self.0.freed.wait(held).unwrap_or_else(PoisonError::into_inner);
        }
        Claim { path: path.to_owned(), table: Arc::clone(&self.0) }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.table.held.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.path);
        self.table.freed.notify_all();
    }
}
