//! Changes of a keys file, for `tandem keys`: under a lock, and atomic, so that a service never reads half a file.

use std::fs::File;
use std::io::{self, ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use tempfile::NamedTempFile;

use crate::key::{Key, KeySet};
use crate::keys_file::{check_name, parse, render};
use crate::scope::Scopes;

/// Why a keys file was not read or changed.
#[derive(Debug, thiserror::Error)]
pub enum EditError {
    /// The file or its folder cannot be read or written.
    #[error("{}: {error}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The cause.
        error: io::Error,
    },
    /// The file's content is malformed.
    #[error("{} {error}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The entry and what is wrong with it.
        error: String,
    },
    /// The name of the caller is invalid.
    #[error("{0}")]
    InvalidName(String),
    /// No entry has this id.
    #[error("no key has the id {0}")]
    UnknownId(String),
    /// The system has no random numbers.
    #[error("cannot make a key: {0}")]
    NoRandomNumbers(#[from] getrandom::Error),
}

/// Makes a key for the caller `name` and adds its entry to the file at `path`, which is created if it is missing. Returns the text of
/// the key, which is kept nowhere, and the entry.
pub fn create_key(
    path: &Path,
    name: &str,
    scopes: Scopes,
    expires: Option<Timestamp>,
) -> Result<(String, Key), EditError> {
    check_name(name).map_err(EditError::InvalidName)?;
    let name = name.trim();
    edit(path, true, |keys| {
        let (text, key) = Key::generate(name, scopes, expires)?;
        keys.push(key.clone());
        Ok((text, key))
    })
}

/// Returns the entries of the file at `path`, in its order.
pub fn list_keys(path: &Path) -> Result<Vec<Key>, EditError> {
    let content = std::fs::read(path).map_err(|error| EditError::Io { path: path.to_owned(), error })?;
    parse(&content).map_err(|error| EditError::Malformed { path: path.to_owned(), error })
}

/// Removes the entry `id` from the file at `path` and returns it.
pub fn revoke_key(path: &Path, id: &str) -> Result<Key, EditError> {
    edit(path, false, |keys| {
        let place = keys.iter().position(|key| key.id == id);
        let place = place.ok_or_else(|| EditError::UnknownId(id.escape_debug().to_string()))?;
        Ok(keys.remove(place))
    })
}

/// Replaces the file at `path` by one with the entries as `change` leaves them.
fn edit<T>(
    path: &Path,
    may_create: bool,
    change: impl FnOnce(&mut Vec<Key>) -> Result<T, EditError>,
) -> Result<T, EditError> {
    // A link stays, and the file behind it is replaced.
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let failed = |path: &Path, error| EditError::Io { path: path.to_owned(), error };
    let opened = File::open(folder).map_err(|error| failed(folder, error))?;
    // The lock is on the folder, because the file is another one after each change.
    opened.lock().map_err(|error| failed(folder, error))?;
    let mut keys = match list_keys(&path) {
        Err(EditError::Io { error, .. }) if may_create && error.kind() == ErrorKind::NotFound => Vec::new(),
        keys => keys?,
    };
    let changed = change(&mut keys)?;
    // The mode of a temporary file is 0600.
    let replace = || {
        let mut file = NamedTempFile::new_in(folder)?;
        file.write_all(render(&keys).as_bytes())?;
        file.as_file().sync_all()?;
        file.persist(&path)?;
        opened.sync_all()
    };
    replace().map_err(|error: io::Error| failed(&path, error))?;
    Ok(changed)
}

/// The keys that `content`, that of a keys file, allows. The error is one line that names the entry at fault.
pub(crate) fn key_set(content: &[u8]) -> Result<KeySet, String> {
    Ok(parse(content)?.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn keys_are_created_listed_and_revoked() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys.json");
        assert!(matches!(list_keys(&path), Err(EditError::Io { .. })));
        assert!(matches!(revoke_key(&path, "a"), Err(EditError::Io { .. })));
        let (text, shop) = create_key(&path, " shop ", "cards:write".parse().unwrap(), None).unwrap();
        let (_, bank) = create_key(&path, "bank", Scopes::default(), Some(Timestamp::now())).unwrap();
        assert_eq!(&*shop.name, "shop");
        assert_eq!(list_keys(&path).unwrap(), [shop.clone(), bank.clone()]);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let content = std::fs::read(&path).unwrap();
        assert!(!String::from_utf8_lossy(&content).contains(text.rsplit('_').next().unwrap()));
        assert!(key_set(&content).unwrap().find(&text, Timestamp::now()).is_some());
        assert_eq!(revoke_key(&path, &shop.id).unwrap(), shop);
        assert!(matches!(revoke_key(&path, &shop.id), Err(EditError::UnknownId(_))));
        assert_eq!(list_keys(&path).unwrap(), [bank]);
        // Nothing else is left in the folder.
        assert_eq!(folder.path().read_dir().unwrap().count(), 1);
    }

    #[test]
    fn a_malformed_file_stays_as_it_is_and_a_link_stays_a_link() {
        let folder = tempfile::tempdir().unwrap();
        let (path, link) = (folder.path().join("keys.json"), folder.path().join("link.json"));
        std::fs::write(&path, "{").unwrap();
        assert!(matches!(create_key(&path, "a", Scopes::default(), None), Err(EditError::Malformed { .. })));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "{");
        std::fs::write(&path, "{\"keys\": []}").unwrap();
        std::os::unix::fs::symlink(&path, &link).unwrap();
        create_key(&link, "a", Scopes::default(), None).unwrap();
        assert_eq!((std::fs::read_link(&link).unwrap(), list_keys(&path).unwrap().len()), (path, 1));
    }

    #[test]
    fn concurrent_creations_lose_no_key() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys.json");
        std::thread::scope(|scope| {
            for caller in 0..8 {
                let path = &path;
                scope.spawn(move || create_key(path, &format!("caller {caller}"), Scopes::default(), None).unwrap());
            }
        });
        assert_eq!(list_keys(&path).unwrap().len(), 8);
    }
}
