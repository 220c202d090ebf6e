//! Making a relay's folder, and the first invite.
//!
//! 1. Everything is made in a folder of its own inside the relay's, and synced.
//! 2. Then it is moved into place, the configuration last.
//!
//! Invariant: an `init` that failed leaves nothing behind that a second one would trip over.

use std::fs;
use std::path::Path;

use privity_protocol::ids::Timestamp;
use privity_protocol::invite::{Invite, InviteSecret};
use privity_protocol::limits;
use privity_protocol::suite::SecretKey;

use crate::clock;
use crate::config::{self, Config, ConfigError, private_folder};
use crate::relay::first_invite;
use crate::start::RelayError;
use crate::store::sqlite::{self, Sqlite};
use crate::store::{Read, Store, StoreError};

/// Where a new relay is put together.
const UNFINISHED: &str = ".unfinished";

/// The invite of whoever founds the organisation.
#[derive(Debug)]
pub struct FirstInvite {
    /// The URL: a secret.
    pub url: String,
    /// Until when it is good.
    pub expires: Timestamp,
}

/// Makes a relay in `folder` and its first invite.
///
/// # Errors
/// [`RelayError`] if the folder has a relay, or the disk fails.
pub fn init(folder: &Path, config: &Config) -> Result<FirstInvite, RelayError> {
    if config::files().iter().any(|name| folder.join(name).exists()) {
        return Err(ConfigError::Used(folder.to_owned()).into());
    }
    let there_before = folder.exists();
    private_folder(folder).map_err(|error| ConfigError::Io { path: folder.to_owned(), error })?;
    let unfinished = folder.join(UNFINISHED);
    let made = remove(&unfinished).and_then(|()| make(folder, &unfinished, config));
    if made.is_err() {
        // What is left of it says nothing that the error does not say better.
        let _removed = remove(&unfinished);
        if !there_before {
            let _removed = fs::remove_dir(folder);
        }
    }
    made
}

fn make(folder: &Path, unfinished: &Path, config: &Config) -> Result<FirstInvite, RelayError> {
    let key = SecretKey::generate();
    config.write(unfinished, &key)?;
    let mut store = Sqlite::create(unfinished)?;
    let invite = file_invite(&mut store, config, &key)?;
    store.checkpoint()?;
    drop(store);
    for name in [sqlite::FILE, config::KEY_FILE, config::FILE] {
        let path = folder.join(name);
        fs::rename(unfinished.join(name), &path).map_err(|error| ConfigError::Io { path, error })?;
    }
    let synced = fs::File::open(folder).and_then(|folder| folder.sync_all());
    synced.map_err(|error| ConfigError::Io { path: folder.to_owned(), error })?;
    remove(unfinished)?;
    Ok(invite)
}

/// Files another first invite, as long as there is no organisation.
///
/// # Errors
/// [`RelayError::Founded`] once there is one; others if the folder or its disk is at fault.
pub fn another_first_invite(folder: &Path) -> Result<FirstInvite, RelayError> {
    let (config, keys) = Config::load(folder)?;
    let mut store = Sqlite::open(folder)?;
    if store.organisation()?.is_some() {
        return Err(RelayError::Founded);
    }
    file_invite(&mut store, &config, keys.newest())
}

fn file_invite(store: &mut Sqlite, config: &Config, key: &SecretKey) -> Result<FirstInvite, RelayError> {
    let secret = InviteSecret::random();
    let now = clock::now();
    store.begin()?;
    store.apply(&first_invite(secret.token_hash(), secret.id(), now))?;
    store.commit()?;
    let relay = key.public().map_err(|_| StoreError::Damaged("relay.key"))?.fingerprint();
    let url = Invite { address: config.public.clone(), relay, organisation: None, secret }.url();
    Ok(FirstInvite { url, expires: now.plus_ms(limits::INVITE_LIFETIME_MS) })
}

fn remove(unfinished: &Path) -> Result<(), RelayError> {
    match fs::remove_dir_all(unfinished) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(ConfigError::Io { path: unfinished.to_owned(), error }.into())
        }
        _ => Ok(()),
    }
}
