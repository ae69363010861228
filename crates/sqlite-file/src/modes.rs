//! File modes: what the services store is for their own user alone.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// Nobody but the owner reads or writes.
const FILE_MODE: u32 = 0o600;

/// The same for a folder.
const FOLDER_MODE: u32 = 0o700;

/// The bits of everybody else.
const OTHERS: u32 = 0o077;

/// Creates `folder`, and those above it that are missing, for the owner alone.
pub fn create_folder(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(folder)
}

/// Options that open a file for writing, and create it for the owner alone if it is missing.
pub fn for_owner() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(FILE_MODE);
    options
}

/// Logs one warning that names those of `paths` which exist and are open to other users, with the command that closes
/// them. A process warns of a path once. The modes stay as they are: someone may have set them on purpose.
pub fn warn_of_exposed(paths: &[&Path]) {
    static KNOWN: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let mut commands = Vec::new();
    for path in paths {
        let Ok(metadata) = fs::metadata(path) else { continue };
        if metadata.permissions().mode() & OTHERS == 0 || !known.insert(path.to_path_buf()) {
            continue;
        }
        // Others may have their files in a folder, so its command has a condition.
        commands.push(match metadata.is_dir() {
            true => format!("chmod 700 {} (if it holds nothing else)", path.display()),
            false => format!("chmod 600 {}", path.display()),
        });
    }
    if !commands.is_empty() {
        let commands = commands.join("; ");
        tracing::warn!(commands, "other users of this machine may read what is stored: run {commands}");
    }
}
