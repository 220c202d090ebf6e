//! The audit log outside the database: who signs its checkpoints, and who keeps its files.
//!
//! 1. A leaf is durable in the database with its action. Nothing here is needed for that.
//! 2. The [`Signer`] signs the state of the log when a device asks for it, and for the files.
//! 3. A thread is rung after commits. At most once a second it writes the tiles that are new, and last the checkpoint over them ([`files`]).
//!
//! Invariant: only what is committed is signed, a lesser log never after a greater one; and a database that is older than the checkpoint
//! on disk is not served before somebody has said that it was restored.

use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use privity_protocol::ids::Timestamp;
use privity_protocol::log::bundle::PastKey;
use privity_protocol::log::{Checkpoint, LogKeys, TreeHash, bundle, note};
use privity_protocol::suite::{PublicKey, SecretKey};
use tracing::warn;

use crate::clock::now;
use crate::keys::Keys;
use crate::start::RelayError;
use crate::store::{OpenReader, Reader, StoreError};

pub mod export;
pub mod files;

use files::Folder;

/// How often the files are brought up to date at most.
const PUBLISH_EVERY: Duration = Duration::from_secs(1);
/// After how long the same log is signed again, with a newer time: a minute.
const SIGN_AGAIN_MS: u64 = 60_000;

/// Signs the checkpoints of one log.
#[derive(Debug)]
pub struct Signer {
    key: SecretKey,
    origin: String,
    keys: LogKeys,
    /// The relay's keys before, oldest first; under those of this incarnation the same log was called otherwise.
    past: Vec<PastKey>,
    incarnation: [u8; 16],
    newest: Mutex<Option<Signed>>,
}

#[derive(Debug)]
struct Signed {
    size: u64,
    at: Timestamp,
    note: String,
}

impl Signer {
    /// For the log of a relay with these keys, in this incarnation.
    ///
    /// # Errors
    /// [`RelayError`] if the library fails.
    pub fn new(keys: &Keys, incarnation: &[u8; 16]) -> Result<Self, RelayError> {
        let (key, past) = (keys.newest().clone(), keys.in_log());
        let failed = |_| RelayError::System("the relay's key does not sign".to_owned());
        let origin = note::origin(&key.public().map_err(failed)?.fingerprint(), incarnation);
        let keys = LogKeys::make(&origin, &key).map_err(failed)?;
        Ok(Self { key, origin, keys, past, incarnation: *incarnation, newest: Mutex::default() })
    }

    /// Which log.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// The keys that verify its checkpoints, signed by the relay's.
    pub fn keys(&self) -> &LogKeys {
        &self.keys
    }

    /// What the file `keys` says.
    pub(crate) fn keys_file(&self) -> Result<String, RelayError> {
        Ok(bundle::keys_file_after(&self.past, &self.public()?, &self.keys))
    }

    fn public(&self) -> Result<PublicKey, RelayError> {
        self.key.public().map_err(|_| RelayError::System("the relay's key does not load".to_owned()))
    }

    /// Reads a checkpoint of this log, signed by this key or, of this incarnation, one before.
    pub(crate) fn open(&self, note: &str) -> Result<Checkpoint, RelayError> {
        let verifier = match self.signed_before(note) {
            Some(past) => past.keys.verifier(&past.relay),
            None => self.keys.verifier(&self.public()?),
        };
        let opened = verifier.and_then(|verifier| verifier.open(note));
        opened.map(|(checkpoint, _)| checkpoint).map_err(|error| RelayError::System(error.to_string()))
    }

    /// Whether a checkpoint says to be of this log.
    pub(crate) fn names(&self, note: &str) -> bool {
        note.lines().next() == Some(self.origin()) || self.signed_before(note).is_some()
    }

    /// The key of the relay's before which a checkpoint of this incarnation names.
    pub(crate) fn signed_before(&self, note: &str) -> Option<&PastKey> {
        let named = note.lines().next()?;
        self.past.iter().find(|past| note::origin(&past.relay.fingerprint(), &self.incarnation) == named)
    }

    /// A checkpoint of the log in this state, which has been committed, or of a later one that was signed before; with its size.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] if the library fails.
    pub fn note(&self, (size, root): (u64, TreeHash), now: Timestamp) -> Result<(u64, String), StoreError> {
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        let known = newest
            .as_ref()
            .filter(|known| known.size > size || (known.size == size && now.0.abs_diff(known.at.0) < SIGN_AGAIN_MS));
        if let Some(known) = known {
            return Ok((known.size, known.note.clone()));
        }
        let checkpoint = Checkpoint { origin: self.origin.clone(), size, root };
        let note = checkpoint.sign(&self.key, now).map_err(|_| StoreError::Damaged("relay.key"))?;
        *newest = Some(Signed { size, at: now, note: note.clone() });
        Ok((size, note))
    }
}

/// Tells the publisher that something was committed. Without one it tells nobody.
#[derive(Debug, Clone, Default)]
pub(crate) struct Bell(Option<SyncSender<()>>);

impl Bell {
    pub(crate) fn ring(&self) {
        if let Some(bell) = &self.0 {
            // One that is rung already says all there is to say; one that nobody hears any more says nothing.
            let _heard = bell.try_send(());
        }
    }
}

/// Brings the log's files up to date, and keeps them so in a thread of its own, until every [`Bell`] is gone.
///
/// # Errors
/// [`RelayError::RolledBack`] if the files know a later or another log than the database; others if either fails.
pub(crate) fn publish(
    folder: &Path,
    signer: Arc<Signer>,
    open: &OpenReader,
) -> Result<(Bell, JoinHandle<()>), RelayError> {
    let mut reader = open()?;
    let mut folder = Folder::open(folder, &signer, reader.as_ref())?;
    update(&mut folder, &signer, reader.as_mut())?;
    let (bell, rung) = sync_channel(1);
    let run = move || keep(&mut folder, &signer, reader.as_mut(), &rung);
    let thread = std::thread::Builder::new().name("audit".to_owned()).spawn(run);
    let thread = thread.map_err(|error| RelayError::System(error.to_string()))?;
    Ok((Bell(Some(bell)), thread))
}

fn keep(folder: &mut Folder, signer: &Signer, reader: &mut dyn Reader, rung: &Receiver<()>) {
    let mut bring_up_to_date = || {
        if let Err(failure) = update(folder, signer, reader) {
            // The next ring tries again; the log itself is in the database.
            warn!(%failure, "the files of the audit log could not be brought up to date");
        }
    };
    let (mut open, mut rung_again) = (true, false);
    while open {
        if !rung_again {
            open = rung.recv().is_ok();
        }
        bring_up_to_date();
        rung_again = false;
        let since = Instant::now();
        while open && let Some(rest) = PUBLISH_EVERY.checked_sub(since.elapsed()) {
            match rung.recv_timeout(rest) {
                Ok(()) => rung_again = true,
                Err(RecvTimeoutError::Timeout) => break,
                Err(RecvTimeoutError::Disconnected) => open = false,
            }
        }
    }
    if rung_again {
        bring_up_to_date();
    }
}

fn update(folder: &mut Folder, signer: &Signer, reader: &mut dyn Reader) -> Result<(), RelayError> {
    reader.hold()?;
    let done = folder.update(signer, &*reader, now());
    reader.release()?;
    done
}
