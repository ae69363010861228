//! A keys file that changes while it is in use.

use std::path::Path;
use std::sync::Arc;

use access::{Authenticator, Refusal};
use test_harness::{KeysFile, wait_until};

fn refusal(authenticator: &Arc<Authenticator>, token: &str) -> Option<Refusal> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(authenticator.authenticate(Some(format!("Bearer {token}").as_bytes()))).err()
}

fn wait_for_warning(authenticator: &Authenticator, text: &str) {
    wait_until(text, || authenticator.warning().filter(|warning| warning.contains(text)));
}

#[test]
fn keys_are_valid_from_their_creation_to_their_revocation() {
    let folder = tempfile::tempdir().unwrap();
    let file = KeysFile::new(folder.path());
    let (shop, entry) = file.add("shop", "cards:write");
    let expired = file.add_expired("shop", "cards:write");
    let authenticator = Authenticator::of_keys_file(file.path().to_owned()).unwrap();
    assert_eq!(refusal(&authenticator, &shop), None);
    assert_eq!(refusal(&authenticator, &expired), Some(Refusal::Invalid));
    let (bank, _) = file.add("bank", "admin");
    wait_until("the new key is valid", || refusal(&authenticator, &bank).is_none().then_some(()));
    file.revoke(&entry.id);
    wait_until("the revoked key is refused", || refusal(&authenticator, &shop));
    assert_eq!(refusal(&authenticator, &bank), None);
    assert_eq!(authenticator.warning(), None);
}

#[test]
fn a_file_that_cannot_be_used_keeps_the_loaded_keys() {
    let folder = tempfile::tempdir().unwrap();
    let file = KeysFile::new(folder.path());
    let (shop, _) = file.add("shop", "cards:write");
    let authenticator = Authenticator::of_keys_file(file.path().to_owned()).unwrap();
    let content = std::fs::read(file.path()).unwrap();
    for (damaged, cause) in [(&content[..content.len() / 2], "is not JSON"), (b"", "API_KEYS_FILE is empty")] {
        std::fs::write(file.path(), damaged).unwrap();
        wait_for_warning(&authenticator, cause);
        assert_eq!(refusal(&authenticator, &shop), None);
    }
    std::fs::remove_file(file.path()).unwrap();
    wait_for_warning(&authenticator, "API_KEYS_FILE cannot be read: ");
    assert_eq!(refusal(&authenticator, &shop), None);
    std::fs::write(file.path(), &content).unwrap();
    wait_until("the warning is gone", || authenticator.warning().is_none().then_some(()));
    assert_eq!(refusal(&authenticator, &shop), None);
}

#[test]
fn a_start_names_the_file_and_the_entry() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys.json");
    let error = |path: &Path| Authenticator::of_keys_file(path.to_owned()).unwrap_err().to_string();
    assert!(error(&path).starts_with(&format!("API_KEYS_FILE: {} cannot be read: ", path.display())));
    assert!(error(folder.path()).contains("cannot be read"));
    std::fs::write(&path, "{\"keys\": [{\"id\": \"a\"}]}").unwrap();
    assert_eq!(
        error(&path),
        format!("API_KEYS_FILE: {} has an error in entry 1 (id a): `name` is missing or is not a text", path.display())
    );
}

/// Kubernetes mounts a secret as a link to a link to a folder, and swaps the middle one.
#[test]
fn a_swapped_link_is_followed() {
    use std::os::unix::fs::symlink;
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let files = ["1", "2"].map(|version| {
        std::fs::create_dir(at(version)).unwrap();
        KeysFile::new(&at(version))
    });
    let [(old, _), (new, _)] = files.each_ref().map(|file| file.add("shop", "cards:write"));
    symlink("1", at("data")).unwrap();
    symlink("data/keys.json", at("keys.json")).unwrap();
    let authenticator = Authenticator::of_keys_file(at("keys.json")).unwrap();
    assert_eq!((refusal(&authenticator, &old), refusal(&authenticator, &new)), (None, Some(Refusal::Invalid)));
    symlink("2", at("next")).unwrap();
    std::fs::rename(at("next"), at("data")).unwrap();
    wait_until("the other file is read", || refusal(&authenticator, &old));
    assert_eq!(refusal(&authenticator, &new), None);
}
