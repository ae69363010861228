//! File modes: only the user that runs the services can read what they store.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use parking_lot::Mutex;

/// Read and write for the owner.
const FILE_MODE: u32 = 0o600;

/// Read, write and search for the owner.
const FOLDER_MODE: u32 = 0o700;

/// The permission bits of all other users.
const OTHERS: u32 = 0o077;

/// Creates `folder` and its missing parents for the owner alone.
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
    let mut known = KNOWN.lock();
    let mut commands = Vec::new();
    for path in paths {
        let Ok(metadata) = fs::metadata(path) else { continue };
        if metadata.permissions().mode() & OTHERS == 0 || !known.insert(path.to_path_buf()) {
            continue;
        }
        // A folder may hold other applications' files.
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
