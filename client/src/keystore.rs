//! The system's key store: the root key of an unlocked profile, in the Linux kernel's keyring, for a while.
//!
//! Invariant: what is put here ends by itself at its time, never reaches the disk, and is this user's alone.

use std::path::Path;
use std::time::Duration;

use linux_keyutils::{Key, KeyError, KeyPermissionsBuilder, KeyRing, KeyRingIdentifier, Permission};
use privity_protocol::suite::Digest;
use zeroize::Zeroizing;

use crate::error::Error;

const ROOT_LEN: usize = 32;

/// Keeps the root key of the profile in `folder` for a while.
///
/// # Errors
/// [`Error::Machine`] where the system has no keyring.
pub fn put(folder: &Path, root: &[u8], lasts: Duration) -> Result<(), Error> {
    let limited = put_limited(folder, root, |key| {
        key.set_perms(KeyPermissionsBuilder::builder().posessor(Permission::ALL).user(Permission::ALL).build())?;
        key.set_timeout(usize::try_from(lasts.as_secs()).unwrap_or(usize::MAX))
    });
    limited.map_err(|error: KeyError| {
        Error::Machine(format!("this system's key store does not work ({error:?}); use --passphrase-file instead"))
    })
}

/// Keeps it, if it can be limited; one that would not end by itself does not stay.
fn put_limited(folder: &Path, root: &[u8], limit: impl FnOnce(&Key) -> Result<(), KeyError>) -> Result<(), KeyError> {
    let key = ring()?.add_key(&name(folder), root)?;
    limit(&key).inspect_err(|_| {
        let _gone = key.invalidate().or_else(|_| key.revoke());
    })
}

/// The root key of the profile in `folder`, if it is unlocked.
pub fn get(folder: &Path) -> Option<Zeroizing<Vec<u8>>> {
    let mut root = Zeroizing::new(vec![0; ROOT_LEN]);
    let read = ring().and_then(|ring| ring.search(&name(folder))).and_then(|key| key.read(&mut *root));
    matches!(read, Ok(ROOT_LEN)).then_some(root)
}

/// Forgets it. True if there was one.
pub fn remove(folder: &Path) -> bool {
    let found = ring().and_then(|ring| ring.search(&name(folder)));
    found.and_then(|key| key.invalidate()).is_ok()
}

fn ring() -> Result<KeyRing, KeyError> {
    KeyRing::from_special_id(KeyRingIdentifier::User, true)
}

fn name(folder: &Path) -> String {
    let folder = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    let digest = Digest::of(&[b"privity/1 keystore\0", folder.as_os_str().as_encoded_bytes()]);
    let hex: String = digest.as_bytes().iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    format!("privity:{hex}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_would_not_end_by_itself_does_not_stay() {
        let folder = tempfile::tempdir().unwrap();
        let kept = put_limited(folder.path(), &[7; ROOT_LEN], |_| Ok(()));
        if kept.is_err() {
            eprintln!("left out: this system has no key store");
            return;
        }
        assert!(remove(folder.path()), "it was there");
        let failed = put_limited(folder.path(), &[7; ROOT_LEN], |_| Err(KeyError::AccessDenied));
        assert!(matches!(failed, Err(KeyError::AccessDenied)));
        assert!(get(folder.path()).is_none());
        assert!(!remove(folder.path()), "nothing is left");
    }
}
