//! Backing up a relay beside itself: its database, keys and configuration, as a folder that [`restore`](crate::restore) takes.
//!
//! 1. What the backup is called is written down, and the log says that it is made: durable, and so in the backup itself.
//! 2. Database, keys, their statements and the configuration are copied into a folder of another name, and synced.
//! 3. All of it is read back: SQLite's own check, the keys by what `relay.rotations` says of them, the configuration.
//! 4. One rename gives the folder its name.
//!
//! Invariant: a folder of that name is a whole backup that was read back; what failed leaves nothing behind.

use std::fs;
use std::path::Path;

use minicbor::{Decode, Encode};
use privity_protocol::cbor;
use privity_protocol::ids::Timestamp;
use privity_protocol::suite::{self, Digest, Fingerprint};
use zeroize::Zeroizing;

use crate::audit::files::failed;
use crate::clock;
use crate::config::{self, Config, ConfigError, KEY_FILE, Lock, private_folder};
use crate::keys::{self, Keys, ROTATIONS_FILE};
use crate::start::RelayError;
use crate::store::sqlite::{self, Sqlite};
use crate::store::{Read as _, Store as _, StoreError};

/// What a backup says of itself, CBOR; the log names it by its hash.
pub const NAME_FILE: &str = "backup";

#[derive(Debug, Encode, Decode)]
#[cbor(map)]
struct Name {
    #[n(0)]
    at: Timestamp,
    #[n(1)]
    relay: Fingerprint,
    #[cbor(n(2), with = "minicbor::bytes")]
    incarnation: [u8; 16],
    /// So that two of one moment have two names.
    #[cbor(n(3), with = "minicbor::bytes")]
    random: [u8; 16],
}

/// What was backed up.
#[derive(Debug)]
pub struct BackedUp {
    /// What the log calls it.
    pub name: Digest,
    /// How many people it knows.
    pub people: usize,
    /// How many leaves its log has.
    pub leaves: u64,
    /// Bytes of its database.
    pub bytes: u64,
}

/// Backs a relay up, which may run, into a folder that is not there yet. `progress` hears how many pages of the database are done, and of how many.
///
/// # Errors
/// [`RelayError::Exists`] if the folder is there; others if something can't be read, written or read back. Then nothing is left of it.
pub fn backup(data: &Path, out: &Path, progress: &mut dyn FnMut(u64, u64)) -> Result<BackedUp, RelayError> {
    if out.exists() {
        return Err(RelayError::Exists(out.to_owned()));
    }
    Config::load(data)?;
    // Held against a restore or a rotation; where a relay runs, its own keeps those away.
    let _lock = match Lock::take(data) {
        Err(ConfigError::Running { .. }) => None,
        taken => Some(taken?),
    };
    let unfinished = crate::unfinished::beside(out)?;
    let made = make(data, &unfinished, progress).and_then(|made| {
        fs::rename(&unfinished, out).map_err(|error| failed(out, error))?;
        sync(out.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or_else(|| Path::new(".")))?;
        Ok(made)
    });
    if made.is_err() {
        // What is left of it says nothing that the error does not say better.
        let _removed = fs::remove_dir_all(&unfinished);
    }
    made
}

fn make(data: &Path, to: &Path, progress: &mut dyn FnMut(u64, u64)) -> Result<BackedUp, RelayError> {
    let (_, keys) = Config::load(data)?;
    let mut store = Sqlite::open(data).map_err(not_made)?;
    private_folder(to).map_err(|error| failed(to, error))?;
    let newest = |keys: &Keys| Ok::<_, RelayError>(keys.view()?.first().map(|view| view.key));
    let relay = newest(&keys)?.ok_or_else(|| RelayError::System("the relay has no key".to_owned()))?;
    let name = Name { at: clock::now(), relay, incarnation: store.incarnation(), random: suite::random() };
    let (at, name) = (name.at, cbor::encode(&name));
    let digest = Digest::of(&[&name]);
    keys::put(&to.join(NAME_FILE), &name)?;
    store.log_backup(digest, at).map_err(not_made)?;
    let database = to.join(sqlite::FILE);
    store.copy_to(&database, progress).map_err(not_made)?;
    copy_files(data, to, false)?;
    let (read_back, copied) = (Config::load(to)?.1, Sqlite::open(to).map_err(not_made)?);
    if newest(&read_back)? != Some(relay) {
        return Err(RelayError::System("the relay's key was replaced meanwhile; back it up again".to_owned()));
    }
    let (people, leaves) = counts(copied).map_err(not_made)?;
    for suffix in ["-wal", "-shm"] {
        let _none = fs::remove_file(to.join(format!("{}{suffix}", sqlite::FILE)));
    }
    sync(to)?;
    let bytes = fs::metadata(&database).map_err(|error| failed(&database, error))?.len();
    Ok(BackedUp { name: digest, people, leaves, bytes })
}

/// The people and leaves that a copy has, which is closed then.
fn counts(copied: Sqlite) -> Result<(usize, u64), StoreError> {
    let counts = (copied.people()?.len(), copied.log_size()?);
    copied.close()?;
    Ok(counts)
}

fn not_made(error: StoreError) -> RelayError {
    if error.is_disk_full() { RelayError::DiskFull } else { RelayError::NotBackedUp(error) }
}

/// Copies configuration, keys and statements, the configuration last; only what is not there yet, if that is wished.
pub(crate) fn copy_files(from: &Path, to: &Path, missing_only: bool) -> Result<(), RelayError> {
    let names = keys::others(keys::count(from)?).chain([ROTATIONS_FILE, KEY_FILE, config::FILE].map(str::to_owned));
    for name in names {
        let (source, target) = (from.join(&name), to.join(&name));
        if !source.exists() || (missing_only && target.exists()) {
            continue;
        }
        let bytes = Zeroizing::new(fs::read(&source).map_err(|error| failed(&source, error))?);
        keys::put(&target, &bytes)?;
    }
    Ok(())
}

fn sync(folder: &Path) -> Result<(), RelayError> {
    fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(|error| failed(folder, error))
}

#[cfg(test)]
mod tests;
