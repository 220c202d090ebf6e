//! The relay's keys: the one that it has, and those that it had, under which devices that still pin one of them are served.
//!
//! A rotation, each step durable before the next:
//! 1. the new private key is in `relay.key.next`;
//! 2. `relay.rotations` has one statement more: from here on the new key is the relay's, whatever the files are called;
//! 3. the audit log says so;
//! 4. `relay.key` becomes `relay.key.1` (the first key there was, or 2, the second, …), and `relay.key.next` becomes `relay.key`.
//!
//! What a crash has cut off behind step 2 the next start, or the next rotation, does (`settle`); before it nothing has happened.
//!
//! Invariant: which key is the relay's, `relay.rotations` alone decides; each private key is found by its public half, under any of the names.

use std::fs::{self, OpenOptions, Permissions};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use minicbor::{Decode, Encode};
use privity_protocol::identity::Signed;
use privity_protocol::ids::Timestamp;
use privity_protocol::link::server_name;
use privity_protocol::log::bundle::PastKey;
use privity_protocol::log::{Act, Event, LogKeys, note};
use privity_protocol::rotation::RelayRotation;
use privity_protocol::suite::{Fingerprint, PublicKey, SECRET_KEY_LEN, SecretKey};
use privity_protocol::{cbor, limits};
use zeroize::Zeroizing;

use crate::audit::{Signer, files};
use crate::clock;
use crate::config::{Config, ConfigError, KEY_FILE, Lock};
use crate::start::RelayError;
use crate::store::sqlite::{self, Sqlite};
use crate::store::{Read, Store, Write};

/// The file of the statements by which the relay's keys followed each other.
pub const ROTATIONS_FILE: &str = "relay.rotations";
/// Where a new key waits until it is the relay's.
const NEXT_FILE: &str = "relay.key.next";

/// A key that was the relay's, as `relay.rotations` has it.
#[derive(Debug, Clone, Encode, Decode)]
#[cbor(map)]
struct Row {
    #[n(0)]
    key: PublicKey,
    /// The keys of the log as this one last signed for them.
    #[n(1)]
    log: LogKeys,
    /// Its word for the key that took its place.
    #[n(2)]
    statement: Signed,
}

/// A key that was the relay's.
#[derive(Debug, Clone)]
struct Past {
    row: Row,
    until: Timestamp,
    /// None once somebody has taken it away.
    secret: Option<SecretKey>,
}

/// The relay's key, and those before it.
#[derive(Debug, Clone)]
pub struct Keys {
    newest: SecretKey,
    /// Oldest first.
    past: Vec<Past>,
}

/// A key of the relay's, as IT sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyView {
    /// Which.
    pub key: Fingerprint,
    /// Since when it is the relay's; none for the first.
    pub since: Option<Timestamp>,
    /// Until when it was; none for the newest.
    pub until: Option<Timestamp>,
    /// Whether devices that pin it are served.
    pub served: bool,
}

impl From<SecretKey> for Keys {
    fn from(newest: SecretKey) -> Self {
        Self { newest, past: Vec::new() }
    }
}

impl Keys {
    /// The keys in a relay's folder.
    ///
    /// # Errors
    /// [`ConfigError`] if the newest is not there, or a file is damaged.
    pub fn load(folder: &Path) -> Result<Self, ConfigError> {
        let (path, rows) = (folder.join(ROTATIONS_FILE), rows(folder)?);
        let wrong = |reason: &str| ConfigError::Wrong { path: path.clone(), reason: reason.to_owned() };
        let mut found = Vec::new();
        for name in std::iter::once(KEY_FILE.to_owned()).chain(others(rows.len())) {
            if let Some(key) = private(&folder.join(&name), name == KEY_FILE && rows.is_empty())? {
                let public = key.public().map_err(|_| wrong("a key beside it does not load"))?;
                found.push((public, key));
            }
        }
        let secret = |public: &PublicKey| found.iter().find(|(known, _)| known == public).map(|(_, key)| key.clone());
        let mut past = Vec::new();
        let mut newest = found.first().map(|(public, _)| public.clone());
        for (at, row) in rows.iter().enumerate() {
            let said = RelayRotation::verify(&row.statement, &row.key).map_err(|error| wrong(&error.to_string()))?;
            if rows.get(at + 1).is_some_and(|next| next.key != said.to) {
                return Err(wrong("its statements do not follow each other"));
            }
            past.push(Past { row: row.clone(), until: said.at, secret: secret(&row.key) });
            newest = Some(said.to);
        }
        let newest = newest.and_then(|newest| secret(&newest));
        let newest = newest.ok_or_else(|| {
            wrong("none of the files relay.key, relay.key.next and relay.key.1, … has the key that it names last")
        })?;
        Ok(Self { newest, past })
    }

    /// The key that the relay has.
    pub fn newest(&self) -> &SecretKey {
        &self.newest
    }

    /// Whether the newest of `other` is one of these, and the other way round.
    pub(crate) fn have(&self, other: &Self) -> Result<(bool, bool), RelayError> {
        let (own, others) = (self.view()?, other.view()?);
        let has = |all: &[KeyView], one: &[KeyView]| {
            one.first().is_some_and(|newest| all.iter().any(|view| view.key == newest.key))
        };
        Ok((has(&own, &others), has(&others, &own)))
    }

    /// All of them, the newest first.
    ///
    /// # Errors
    /// [`RelayError::System`] if the key does not load.
    pub fn view(&self) -> Result<Vec<KeyView>, RelayError> {
        let newest = public(&self.newest)?.fingerprint();
        let since = |at: usize| at.checked_sub(1).and_then(|before| self.past.get(before)).map(|before| before.until);
        let mut view = vec![KeyView { key: newest, since: since(self.past.len()), until: None, served: true }];
        view.extend(self.past.iter().enumerate().rev().map(|(at, past)| KeyView {
            key: past.row.key.fingerprint(),
            since: since(at),
            until: Some(past.until),
            served: past.secret.is_some(),
        }));
        Ok(view)
    }

    /// Those under which devices are served, the newest first.
    pub(crate) fn served(&self) -> Vec<SecretKey> {
        std::iter::once(&self.newest)
            .chain(self.past.iter().rev().filter_map(|past| past.secret.as_ref()))
            .cloned()
            .collect()
    }

    /// The key that was shown to a device that asked for this name, and the relay's statements from there on.
    pub(crate) fn shown(&self, asked: Option<&str>) -> (&SecretKey, Vec<Signed>) {
        let named = |past: &Past| asked == Some(server_name(&past.row.key.fingerprint()).as_str());
        let found = self.past.iter().position(named).and_then(|at| Some((at, self.past.get(at)?.secret.as_ref()?)));
        let Some((at, secret)) = found else { return (&self.newest, Vec::new()) };
        let statements = self.past.iter().skip(at).take(limits::ROTATIONS_MAX).map(|past| past.row.statement.clone());
        (secret, statements.collect())
    }

    /// The keys before, as the file of the log's keys has them.
    pub(crate) fn in_log(&self) -> Vec<PastKey> {
        let past = |Row { key, log, statement }: Row| PastKey { relay: key, keys: log, rotation: statement };
        self.past.iter().map(|before| past(before.row.clone())).collect()
    }

    fn rows(&self) -> Vec<Row> {
        self.past.iter().map(|past| past.row.clone()).collect()
    }
}

/// Gives the relay of a folder a new key; what it has then.
///
/// # Errors
/// [`RelayError`] if a relay runs on the folder, its files are not what they should be, or the disk fails. Whatever it was, starting the
/// relay, or rotating again, goes on from there.
pub fn rotate(folder: &Path) -> Result<Keys, RelayError> {
    Config::load(folder)?;
    let _lock = Lock::take(folder)?;
    Sqlite::upgrade(&folder.join(sqlite::FILE))?;
    let mut store = Sqlite::open(folder)?;
    let mut keys = settle(folder, &mut store)?;
    files::size(folder, &Signer::new(&keys, &store.incarnation())?, &store)?;
    let (next, before) = (SecretKey::generate(), public(&keys.newest)?);
    let failed = |_| RelayError::System("the relay's key does not sign".to_owned());
    let at = clock::now();
    let statement = RelayRotation::sign(&keys.newest, &public(&next)?, at).map_err(failed)?;
    let origin = note::origin(&before.fingerprint(), &store.incarnation());
    let log = LogKeys::make(&origin, &keys.newest).map_err(failed)?;
    put(&folder.join(NEXT_FILE), next.as_bytes())?;
    let secret = Some(std::mem::replace(&mut keys.newest, next));
    keys.past.push(Past { row: Row { key: before, log, statement }, until: at, secret });
    put(&folder.join(ROTATIONS_FILE), &cbor::encode(&keys.rows()))?;
    let keys = settle(folder, &mut store)?;
    // The log's files are signed anew, after they were verified under the key before.
    let signer = Signer::new(&keys, &store.incarnation())?;
    files::Folder::open(folder, &signer, &store)?.update(&signer, &store, clock::now())?;
    Ok(keys)
}

/// Does what a rotation still has to do, and gives the keys: the log says of each statement, and `relay.key` is the newest. Whoever calls it
/// holds the folder's lock.
pub(crate) fn settle(folder: &Path, store: &mut Sqlite) -> Result<Keys, RelayError> {
    let keys = Keys::load(folder)?;
    log_rotations(store, &keys)?;
    let (newest, next) = (folder.join(KEY_FILE), folder.join(NEXT_FILE));
    if private(&newest, false)?.is_none_or(|key| key.as_bytes() != keys.newest.as_bytes()) {
        let kept = folder.join(numbered(keys.past.len()));
        if newest.exists() && !kept.exists() {
            fs::hard_link(&newest, &kept).map_err(|error| io(&kept, error))?;
            sync(folder)?;
        }
        if private(&next, false)?.is_some_and(|key| key.as_bytes() == keys.newest.as_bytes()) {
            fs::rename(&next, &newest).map_err(|error| io(&newest, error))?;
        } else {
            put(&newest, keys.newest.as_bytes())?;
        }
        sync(folder)?;
    }
    Ok(keys)
}

/// The log says of the statements that it has not named yet: of all, where the database is a restored one from before them.
fn log_rotations(store: &mut Sqlite, keys: &Keys) -> Result<(), RelayError> {
    let logged = store.rotation()?;
    let known = keys.past.iter().position(|past| Some(past.row.statement.digest()) == logged);
    let missing = keys.past.get(known.map_or(0, |known| known + 1)..).unwrap_or_default();
    let Some(newest) = missing.last() else { return Ok(()) };
    let mut writes = Vec::new();
    for past in missing {
        let said = RelayRotation::verify(&past.row.statement, &past.row.key);
        let key = said.map_err(|error| RelayError::System(error.to_string()))?.to.digest();
        let act = Act::KeyRotated { key, statement: past.row.statement.digest() };
        writes.push(Write::Log { person: None, event: Event { at: clock::now(), act } });
    }
    writes.push(Write::Rotation(newest.row.statement.digest()));
    store.begin()?;
    store.apply(&writes)?;
    Ok(store.commit()?)
}

/// How many keys a relay had before the one it has.
pub(crate) fn count(folder: &Path) -> Result<usize, ConfigError> {
    Ok(rows(folder)?.len())
}

/// The names under which private keys beside the newest may be.
pub(crate) fn others(past: usize) -> impl Iterator<Item = String> {
    std::iter::once(NEXT_FILE.to_owned()).chain((1..=past).map(numbered))
}

/// Where the key is kept that was the relay's so manieth.
fn numbered(number: usize) -> String {
    format!("{KEY_FILE}.{number}")
}

fn rows(folder: &Path) -> Result<Vec<Row>, ConfigError> {
    let path = folder.join(ROTATIONS_FILE);
    match fs::read(&path) {
        Ok(bytes) => cbor::decode(&bytes, "rotations")
            .map_err(|_| ConfigError::Wrong { path, reason: "it is damaged; put it back from a backup".to_owned() }),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(ConfigError::Io { path, error }),
    }
}

/// A private key in a file, which is its owner's alone; none where there is no such file, unless it must be.
fn private(path: &Path, must_be: bool) -> Result<Option<SecretKey>, ConfigError> {
    let io = |error| ConfigError::Io { path: path.to_owned(), error };
    match fs::set_permissions(path, Permissions::from_mode(0o600)) {
        Err(error) if error.kind() == ErrorKind::NotFound && !must_be => return Ok(None),
        done => done.map_err(io)?,
    }
    let mut seeds = Zeroizing::new(Vec::with_capacity(SECRET_KEY_LEN + 1));
    let file = fs::File::open(path).map_err(io)?;
    file.take(SECRET_KEY_LEN as u64 + 1).read_to_end(&mut seeds).map_err(io)?;
    let wrong = |_| ConfigError::Wrong { path: path.to_owned(), reason: "it is not a key of 64 bytes".to_owned() };
    SecretKey::from_slice(&seeds).map(Some).map_err(wrong)
}

fn public(key: &SecretKey) -> Result<PublicKey, RelayError> {
    key.public().map_err(|_| RelayError::System("the relay's key does not load".to_owned()))
}

/// Writes a file for its owner alone and syncs it under another name, and puts it in its place, durably.
pub(crate) fn put(path: &Path, bytes: &[u8]) -> Result<(), RelayError> {
    let mut unfinished = path.as_os_str().to_owned();
    unfinished.push(".tmp");
    let unfinished = PathBuf::from(unfinished);
    let write = || {
        match fs::remove_file(&unfinished) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&unfinished)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&unfinished, path)
    };
    write().map_err(|error| io(path, error))?;
    sync(path.parent().unwrap_or(path))
}

fn sync(folder: &Path) -> Result<(), RelayError> {
    fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(|error| io(folder, error))
}

fn io(path: &Path, error: std::io::Error) -> RelayError {
    files::failed(path, error)
}

#[cfg(test)]
mod tests;
