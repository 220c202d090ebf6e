//! The log's files in the relay's folder, in the layout of C2SP tlog-tiles: to be served, copied or looked at as they are.
//!
//! 1. Tiles and entries that are new are written and synced, each under another name first, then renamed.
//! 2. The checkpoint over them follows; whoever reads it finds all that it needs.
//! 3. Tiles that were not full go once the full one is there.
//!
//! Invariant: what the checkpoint on disk says is on disk. The files can be made again from the database at any time; not so the
//! checkpoint, which tells a database that was put back in time.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use privity_protocol::ids::Timestamp;
use privity_protocol::log::bundle::{self, Piece, pieces};
use privity_protocol::log::tree::{self, TILE_WIDTH};
use tracing::info;

use super::Signer;
use crate::config::{ConfigError, private_folder};
use crate::start::RelayError;
use crate::store::{LogTiles, Read, StoreError};

/// The folder's name inside the relay's.
pub const FOLDER: &str = "audit";

/// The folder, brought up to date by one process at a time.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    /// The size of the checkpoint that is there.
    size: Option<u64>,
    /// Whether a key signed it that is no more the relay's.
    outdated: bool,
}

impl Folder {
    /// Opens the folder of a relay, and holds what is there against the database. The log of an incarnation before is set aside.
    pub(crate) fn open(data: &Path, signer: &Signer, store: &dyn Read) -> Result<Self, RelayError> {
        let path = data.join(FOLDER);
        let note = match checkpoint(data)? {
            Some(note) if !signer.names(&note) => {
                set_aside(&path)?;
                None
            }
            note => note,
        };
        private_folder(&path).map_err(|error| failed(&path, error))?;
        let outdated = note.as_ref().is_some_and(|note| signer.signed_before(note).is_some());
        let size = note.map(|note| compare(data, &note, signer, store)).transpose()?;
        write(&path.join(bundle::KEYS), signer.keys_file()?.as_bytes())?;
        Ok(Self { path, size, outdated })
    }

    /// Writes what the log has more than the checkpoint that is there, and then its checkpoint.
    pub(crate) fn update(&mut self, signer: &Signer, store: &dyn Read, now: Timestamp) -> Result<(), RelayError> {
        let tiles = LogTiles::of(store)?;
        let size = tiles.size();
        if self.size == Some(size) && !self.outdated {
            return Ok(());
        }
        let mut folders = BTreeSet::new();
        for piece in pieces(self.size.unwrap_or(0), size) {
            let path = self.path.join(piece.path());
            if let Some(folder) = path.parent() {
                private_folder(folder).map_err(|error| failed(folder, error))?;
                folders.insert(folder.to_owned());
            }
            write(&path, &contents(store, &piece)?)?;
            if piece.width == TILE_WIDTH {
                remove_partial(&path)?;
            }
        }
        for folder in folders {
            sync(&folder)?;
        }
        let (signed, note) = signer.note((size, tree::root(&tiles, size)?), now)?;
        // A device was shown a later one already: the commit that made it so rings once more.
        if signed == size {
            write(&self.path.join(bundle::CHECKPOINT), note.as_bytes())?;
            sync(&self.path)?;
            (self.size, self.outdated) = (Some(size), false);
        }
        Ok(())
    }
}

/// What a file of the log has in it.
pub(crate) fn contents(store: &dyn Read, piece: &Piece) -> Result<Vec<u8>, StoreError> {
    let (first, end) = (piece.first(), piece.end());
    match piece.level {
        Some(level) => Ok(bundle::pack_hashes(&store.log_hashes(level, first, end)?)),
        None => Ok(bundle::pack(store.log_rows(first, end)?.iter().map(|row| row.leaf.as_slice()))?),
    }
}

/// The size of the log that the files have; none where they are yet to be made.
///
/// # Errors
/// [`RelayError::RolledBack`] if it is not the database's log.
pub(crate) fn size(data: &Path, signer: &Signer, store: &dyn Read) -> Result<Option<u64>, RelayError> {
    let note = checkpoint(data)?.filter(|note| signer.names(note));
    note.map(|note| compare(data, &note, signer, store)).transpose()
}

/// The checkpoint on disk, if there is one.
fn checkpoint(data: &Path) -> Result<Option<String>, RelayError> {
    let file = data.join(FOLDER).join(bundle::CHECKPOINT);
    match fs::read_to_string(&file) {
        Ok(note) => Ok(Some(note)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(&file, error)),
    }
}

/// The size of the checkpoint on disk, if the database has that log.
fn compare(data: &Path, note: &str, signer: &Signer, store: &dyn Read) -> Result<u64, RelayError> {
    let file = data.join(FOLDER).join(bundle::CHECKPOINT);
    let damaged = |_| RelayError::Log { path: file.clone(), reason: "it is damaged".to_owned() };
    let known = signer.open(note).map_err(damaged)?;
    let tiles = LogTiles::of(store)?;
    if known.size > tiles.size() || tree::root(&tiles, known.size)? != known.root {
        let (there, here) = (known.size, tiles.size());
        return Err(RelayError::RolledBack { there, here });
    }
    Ok(known.size)
}

/// Keeps the log of another incarnation: it says what the restored relay has forgotten.
fn set_aside(path: &Path) -> Result<(), RelayError> {
    let names = std::iter::once(String::new()).chain((2_u32..).map(|n| format!("-{n}")));
    let mut free = names.map(|number| path.with_file_name(format!("{FOLDER}.before-restore{number}")));
    let Some(kept) = free.find(|path| !path.exists()) else { return Ok(()) };
    fs::rename(path, &kept).map_err(|error| failed(path, error))?;
    info!(kept = %kept.display(), "the audit log of the incarnation before was set aside");
    Ok(())
}

fn remove_partial(full: &Path) -> Result<(), RelayError> {
    let mut partial = full.as_os_str().to_owned();
    partial.push(".p");
    match fs::remove_dir_all(&partial) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(failed(Path::new(&partial), error)),
        _ => Ok(()),
    }
}

/// Writes and syncs a file under another name, and puts it in its place.
fn write(path: &Path, bytes: &[u8]) -> Result<(), RelayError> {
    let mut unfinished = path.as_os_str().to_owned();
    unfinished.push(".tmp");
    let write = || {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&unfinished)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&unfinished, path)
    };
    write().map_err(|error| failed(path, error))
}

fn sync(folder: &Path) -> Result<(), RelayError> {
    fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(|error| failed(folder, error))
}

pub(crate) fn failed(path: &Path, error: std::io::Error) -> RelayError {
    if error.kind() == ErrorKind::StorageFull {
        return RelayError::DiskFull;
    }
    ConfigError::Io { path: path.to_owned(), error }.into()
}

#[cfg(test)]
mod tests;
