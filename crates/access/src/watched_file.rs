//! A file of credentials that is read again while the process runs.

use std::fs::{File, Metadata};
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use tracing::warn;

/// The largest file that is read: about 40,000 keys.
const MAX_FILE_BYTES: u64 = 8 * 1024 * 1024;

/// A file that a setting names. Its content is compared, not its times: a link may have been swapped for one to an older file.
#[derive(Debug)]
pub(crate) struct WatchedFile {
    /// The setting that names the file.
    pub(crate) setting: &'static str,
    pub(crate) path: PathBuf,
    /// The content that was read last, and the outcome of loading it.
    last: Option<(Vec<u8>, Result<(), String>)>,
}

impl WatchedFile {
    pub(crate) fn new(setting: &'static str, path: PathBuf) -> Self {
        WatchedFile { setting, path, last: None }
    }

    /// Passes the content to `load` if it has changed. Returns the outcome of loading the present content.
    pub(crate) fn reload(&mut self, load: impl FnOnce(&[u8]) -> Result<(), String>) -> Result<(), String> {
        let before = self.last.take();
        let read = || {
            let file = File::open(&self.path)?;
            let metadata = file.metadata()?;
            let mut content = Vec::new();
            file.take(MAX_FILE_BYTES + 1).read_to_end(&mut content)?;
            Ok((content, metadata))
        };
        let (content, metadata) = read().map_err(|error: std::io::Error| format!("cannot be read: {error}"))?;
        if content.len() as u64 > MAX_FILE_BYTES {
            return Err(format!("has more than {MAX_FILE_BYTES} bytes"));
        }
        let outcome = match before {
            Some((last, outcome)) if last == content => outcome,
            _ => {
                self.warn_if_others_can_write(&metadata);
                load(&content)
            }
        };
        self.last = Some((content, outcome.clone()));
        outcome
    }

    /// Whoever can write the file can let themselves in. Whoever can read it finds hashes of secrets that cannot be guessed.
    fn warn_if_others_can_write(&self, metadata: &Metadata) {
        if metadata.mode() & 0o022 != 0 {
            let (setting, path) = (self.setting, self.path.display());
            warn!("{setting}: others can write {path}, and so let themselves in: chmod go-w {path}");
        }
    }
}
