//! What IT sees of the log, beside a relay that runs or not: its state, its newest leaves, and a copy of it for whoever audits.
//!
//! Invariant: everything that one call shows is of one moment, and nothing of the relay is changed.

use std::fs;
use std::path::Path;

use privity_protocol::cbor;
use privity_protocol::log::bundle::{self, pieces};
use privity_protocol::log::{Checkpoint, Event, Leaf, LogKeys};

use super::Signer;
use super::files::{self, contents, failed};
use crate::clock::now;
use crate::config::{Config, private_folder};
use crate::relay::history;
use crate::start::RelayError;
use crate::store::sqlite::Sqlite;
use crate::store::{LogRow, Reader, Store, StoreError};

/// One moment of a relay's log.
pub struct View {
    reader: Box<dyn Reader>,
    signer: Signer,
}

impl std::fmt::Debug for View {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "View({})", self.signer.origin())
    }
}

/// A leaf and what it commits to.
#[derive(Debug, Clone, PartialEq)]
pub struct Logged {
    /// Its index in the log.
    pub index: u64,
    /// The leaf.
    pub leaf: Leaf,
    /// The event.
    pub event: Event,
}

impl View {
    /// The log of the relay in this folder, as it is now.
    ///
    /// # Errors
    /// [`RelayError`] if there is none, or it can't be read.
    pub fn of(data: &Path) -> Result<Self, RelayError> {
        let (_, keys) = Config::load(data)?;
        let store = Sqlite::open(data)?;
        let mut reader = (store.readers())()?;
        reader.hold()?;
        Ok(Self { signer: Signer::new(&keys, &store.incarnation())?, reader })
    }

    /// Its checkpoint, signed now, and the keys that verify it.
    ///
    /// # Errors
    /// [`RelayError`] if it can't be read.
    pub fn checkpoint(&self) -> Result<(String, Checkpoint, &LogKeys), RelayError> {
        let (_, note) = self.signer.note(history::state(&*self.reader)?, now())?;
        let checkpoint = self.signer.open(&note)?;
        Ok((note, checkpoint, self.signer.keys()))
    }

    /// How many leaves it has, and how many of them the files of the relay in this folder; none where those are yet to be made.
    ///
    /// # Errors
    /// [`RelayError::RolledBack`] if the files are of a later or another log; others if either can't be read.
    pub fn sizes(&self, data: &Path) -> Result<(u64, Option<u64>), RelayError> {
        // The files first: what a running relay adds meanwhile, the database has before them.
        let in_files = files::size(data, &self.signer, &*self.reader)?;
        Ok((self.reader.log_size()?, in_files))
    }

    /// Its newest leaves, oldest first.
    ///
    /// # Errors
    /// [`RelayError`] if they can't be read.
    pub fn newest(&self, count: u64) -> Result<Vec<Logged>, RelayError> {
        let size = self.reader.log_size()?;
        let logged = |LogRow { index, leaf, opening }| {
            let (leaf, event) = (Leaf::decode(&leaf)?, cbor::decode(&opening.event, "event")?);
            Ok(Logged { index, leaf, event })
        };
        let rows = self.reader.log_rows(size.saturating_sub(count), size)?;
        Ok(rows.into_iter().map(logged).collect::<Result<_, StoreError>>()?)
    }

    /// Writes it as a bundle into a folder that is not there yet; how many leaves it has.
    ///
    /// # Errors
    /// [`RelayError::Exists`] if the folder is there; others if it can't be read or written. Then nothing is left of it.
    pub fn export(&self, out: &Path) -> Result<u64, RelayError> {
        if out.exists() {
            return Err(RelayError::Exists(out.to_owned()));
        }
        let unfinished = crate::unfinished::beside(out)?;
        let size = self.write(&unfinished).and_then(|size| {
            fs::rename(&unfinished, out).map_err(|error| failed(out, error))?;
            Ok(size)
        });
        if size.is_err() {
            // What is left of it says nothing that the error does not say better.
            let _removed = fs::remove_dir_all(&unfinished);
        }
        size
    }

    fn write(&self, folder: &Path) -> Result<u64, RelayError> {
        let (note, checkpoint, _) = self.checkpoint()?;
        put(folder, bundle::CHECKPOINT, note.as_bytes())?;
        put(folder, bundle::KEYS, self.signer.keys_file()?.as_bytes())?;
        for piece in pieces(0, checkpoint.size) {
            put(folder, &piece.path(), &contents(&*self.reader, &piece)?)?;
        }
        Ok(checkpoint.size)
    }
}

fn put(folder: &Path, name: &str, bytes: &[u8]) -> Result<(), RelayError> {
    let path = folder.join(name);
    let parent = path.parent().unwrap_or(folder);
    private_folder(parent).and_then(|()| fs::write(&path, bytes)).map_err(|error| failed(&path, error))
}
