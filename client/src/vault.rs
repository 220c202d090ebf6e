//! The vault: a device's encrypted store, one SQLite file.
//!
//! ```text
//! passphrase ─Argon2id─▶ wrapping key ─AES-256-GCM─▶ root key ─AES-256-GCM─▶ a key for each matter ─AES-256-GCM─▶ rows
//! ```
//!
//! Rows that belong to no matter are sealed under a key derived from the root key. Every value is bound to its table, matter and key, so
//! none can be moved. What is readable without the passphrase: random ids, how many rows there are, and their sizes.
//!
//! Invariant: nothing that a person wrote reaches the disk unsealed, and a [`Batch`] is on disk whole before [`Vault::apply`] returns.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use argon2::{Algorithm, Argon2, Params, Version};
use privity_protocol::device::state::{Batch, Receiving, Record, Rows, Snapshot, TRANSFER_LEN, Table};
use privity_protocol::error::Misuse;
use privity_protocol::ids::MatterId;
use privity_protocol::{cbor, suite};
use rusqlite::{Connection, OpenFlags, OptionalExtension, params};
use zeroize::Zeroizing;

use crate::error::Error;
use crate::keystore;

/// The vault's file name inside the profile's folder.
pub const FILE: &str = "vault.db";
/// Argon2id memory in MiB, unless the user chooses.
pub const KDF_MEMORY_MIB: u32 = 256;
/// The least that is accepted, when made and when opened.
pub const KDF_MEMORY_MIB_MIN: u32 = 64;
/// The most: a vault must open on a small laptop.
pub const KDF_MEMORY_MIB_MAX: u32 = 4096;

/// The version of the vault's format.
pub const VERSION: i64 = 1;
const KDF_PASSES: u32 = 3;
/// The most that a header may ask for.
const KDF_PASSES_MAX: u32 = 64;
const KDF_LANES: u32 = 1;
const STATEMENTS: usize = 32;

const SCHEMA: &str = "
CREATE TABLE header (memory_mib INTEGER NOT NULL, passes INTEGER NOT NULL, lanes INTEGER NOT NULL, salt BLOB NOT NULL,
    root BLOB NOT NULL) STRICT;
CREATE TABLE matter_keys (matter BLOB PRIMARY KEY, sealed BLOB NOT NULL) STRICT;
CREATE TABLE rows (tbl INTEGER NOT NULL, matter BLOB NOT NULL, key BLOB NOT NULL, value BLOB NOT NULL,
    PRIMARY KEY (tbl, matter, key)) STRICT;
CREATE INDEX rows_by_key ON rows (tbl, key);
";

type Key = Zeroizing<[u8; 32]>;

/// What guessing the passphrase costs, as the vault's header says: Argon2id's parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Protection {
    /// Memory, in MiB.
    pub memory_mib: u32,
    /// Passes over it.
    pub passes: u32,
    /// Lanes.
    pub lanes: u32,
}

/// The header: how the root key is wrapped.
struct Header {
    protection: Protection,
    salt: Vec<u8>,
    sealed: Vec<u8>,
}

/// An open vault.
pub struct Vault {
    connection: Connection,
    root: Key,
    own: Key,
    matters: RefCell<HashMap<MatterId, Key>>,
    path: PathBuf,
}

impl std::fmt::Debug for Vault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Vault").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Vault {
    /// Makes a new vault in `folder`, which is made private to its owner.
    ///
    /// # Errors
    /// [`Error::Usage`] if there is one, or the memory is out of bounds; [`Error::Machine`] if the disk fails.
    pub fn create(folder: &Path, passphrase: &[u8], memory_mib: u32) -> Result<Self, Error> {
        if !(KDF_MEMORY_MIB_MIN..=KDF_MEMORY_MIB_MAX).contains(&memory_mib) {
            return Err(Error::Usage(format!(
                "--kdf-memory takes {KDF_MEMORY_MIB_MIN} to {KDF_MEMORY_MIB_MAX} MiB; {KDF_MEMORY_MIB} is a good choice"
            )));
        }
        is_chosen(passphrase)?;
        private_folder(folder)?;
        let path = folder.join(FILE);
        let root: Key = Zeroizing::new(suite::random());
        let protection = Protection { memory_mib, passes: KDF_PASSES, lanes: KDF_LANES };
        let header = Header::new(passphrase, protection, &root)?;
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        file.set_permissions(fs::Permissions::from_mode(0o600))?;
        // What is unlocked under this folder's name belonged to another vault.
        keystore::remove(folder);
        let connection = connect(&path)?;
        connection.execute_batch(&format!("BEGIN; {SCHEMA} PRAGMA user_version = {VERSION}; COMMIT;"))?;
        connection.execute(
            "INSERT INTO header VALUES (?1, ?2, ?3, ?4, ?5)",
            params![memory_mib, KDF_PASSES, KDF_LANES, header.salt, header.sealed],
        )?;
        Ok(Self::with(connection, root, path))
    }

    /// Opens a vault with its passphrase.
    ///
    /// # Errors
    /// [`Error::Usage`] for a wrong passphrase; [`Error::Machine`] for a damaged or newer vault.
    pub fn open(folder: &Path, passphrase: &[u8]) -> Result<Self, Error> {
        let path = folder.join(FILE);
        let connection = connect(&path)?;
        check_version(&connection)?;
        let root = Header::read(&connection)?.open(passphrase)?;
        Self::open_root(connection, &root, path)
    }

    /// Whether the vault in `folder` could be opened with its passphrase, before anybody is asked for it.
    ///
    /// # Errors
    /// [`Error::Machine`] for a damaged or newer vault; [`Error::Untrusted`] for a weakened one.
    pub fn check(folder: &Path) -> Result<(), Error> {
        let connection = connect(&folder.join(FILE))?;
        check_version(&connection)?;
        Header::read(&connection).map(|_header| ())
    }

    /// What guessing its passphrase costs.
    ///
    /// # Errors
    /// As [`Self::check`].
    pub fn protection(&self) -> Result<Protection, Error> {
        Ok(Header::read(&self.connection)?.protection)
    }

    /// Wraps the root key with another passphrase, in one step: when this returns, that one opens the vault and the one before does not; after
    /// a crash one of the two does. What was unlocked is locked.
    ///
    /// # Errors
    /// [`Error::Usage`] for an empty passphrase, or the one that it has; [`Error::Machine`] if the disk fails, with nothing changed.
    pub fn change_passphrase(&mut self, folder: &Path, passphrase: &[u8]) -> Result<(), Error> {
        is_chosen(passphrase)?;
        let old = Header::read(&self.connection)?;
        if old.open(passphrase).is_ok() {
            return Err(Error::Usage("that is the passphrase it has; nothing was changed".to_owned()));
        }
        let new = Header::new(passphrase, old.protection, &self.root)?;
        // Locked before, so that nothing stays unlocked by the passphrase that is going.
        keystore::remove(folder);
        self.connection.execute("UPDATE header SET salt = ?1, root = ?2", params![new.salt, new.sealed])?;
        // The log still has the old header in it.
        self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_row| Ok(()))?;
        Ok(())
    }

    /// Opens a vault with the root key that an unlocked key store holds.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_unlocked(folder: &Path, root: &[u8]) -> Result<Self, Error> {
        let path = folder.join(FILE);
        let connection = connect(&path)?;
        check_version(&connection)?;
        Self::open_root(connection, root, path)
    }

    fn open_root(connection: Connection, root: &[u8], path: PathBuf) -> Result<Self, Error> {
        let root: [u8; 32] = root.try_into().map_err(|_| Error::Machine("the root key is damaged".to_owned()))?;
        Ok(Self::with(connection, Zeroizing::new(root), path))
    }

    fn with(connection: Connection, root: Key, path: PathBuf) -> Self {
        let own = suite::derive(&*root, b"privity/1 vault own rows");
        Self { connection, root, own, matters: RefCell::default(), path }
    }

    /// The root key, for the system's key store: a secret.
    pub fn root(&self) -> &[u8] {
        &*self.root
    }

    /// Applies a batch in one transaction; it is durable when this returns.
    ///
    /// # Errors
    /// [`Error::Machine`] if the disk is full or fails: nothing of the batch is applied then.
    pub fn apply(&mut self, batch: Batch) -> Result<(), Error> {
        self.connection.execute_batch("BEGIN IMMEDIATE")?;
        let applied = self.apply_rows(batch);
        match applied.and_then(|()| Ok(self.connection.execute_batch("COMMIT")?)) {
            Ok(()) => Ok(()),
            Err(error) => {
                self.matters.borrow_mut().clear();
                if !self.connection.is_autocommit() {
                    self.connection.execute_batch("ROLLBACK")?;
                }
                Err(error)
            }
        }
    }

    fn apply_rows(&self, batch: Batch) -> Result<(), Error> {
        for ((table, matter, key), value) in batch.into_rows() {
            let place = place(matter);
            match value {
                Some(value) => {
                    let under = self.key_for(matter)?;
                    let sealed = suite::seal(&under, &row_aad(table, &place, &key), &value)?;
                    self.connection
                        .prepare_cached("INSERT OR REPLACE INTO rows VALUES (?1, ?2, ?3, ?4)")?
                        .execute(params![table as u8, place, key, sealed])?;
                }
                None => {
                    self.connection
                        .prepare_cached("DELETE FROM rows WHERE tbl = ?1 AND matter = ?2 AND key = ?3")?
                        .execute(params![table as u8, place, key])?;
                }
            }
        }
        Ok(())
    }

    /// One row.
    ///
    /// # Errors
    /// [`Error::Machine`] if it was altered, or the disk fails.
    pub fn get(&self, table: Table, matter: Option<MatterId>, key: &[u8]) -> Result<Option<Zeroizing<Vec<u8>>>, Error> {
        let place = place(matter);
        let sealed: Option<Vec<u8>> = self
            .connection
            .prepare_cached("SELECT value FROM rows WHERE tbl = ?1 AND matter = ?2 AND key = ?3")?
            .query_row(params![table as u8, place, key], |row| row.get(0))
            .optional()?;
        sealed.map(|sealed| self.unseal(table, matter, key, &sealed)).transpose()
    }

    /// Records after a cursor, over all matters or of one, in order, at most `limit`.
    ///
    /// # Errors
    /// [`Error::Machine`] if one was altered, or the disk fails.
    pub fn records(&self, matter: Option<MatterId>, after: u64, limit: usize) -> Result<Vec<Record>, Error> {
        let (table, after) = (Table::Record as u8, after.to_be_bytes());
        match matter {
            // By the primary key: reads no other matter's rows.
            Some(matter) => self.read_records(
                "SELECT matter, key, value FROM rows WHERE tbl = ?1 AND matter = ?2 AND key > ?3 ORDER BY key LIMIT ?4",
                params![table, matter.as_bytes(), after, limit],
            ),
            None => self.read_records(
                "SELECT matter, key, value FROM rows WHERE tbl = ?1 AND key > ?2 ORDER BY key LIMIT ?3",
                params![table, after, limit],
            ),
        }
    }

    /// The last records of a matter up to a cursor, in order, at most `limit`.
    ///
    /// # Errors
    /// As [`Self::records`].
    pub fn last_records(&self, matter: MatterId, upto: u64, limit: usize) -> Result<Vec<Record>, Error> {
        let mut records = self.read_records(
            "SELECT matter, key, value FROM rows WHERE tbl = ?1 AND matter = ?2 AND key <= ?3 ORDER BY key DESC LIMIT ?4",
            params![Table::Record as u8, matter.as_bytes(), upto.to_be_bytes(), limit],
        )?;
        records.reverse();
        Ok(records)
    }

    /// Records of a matter that another device of the same person has sent, behind a key, in order, at most `limit`; each with its key. Of
    /// several transfers those of the largest.
    ///
    /// # Errors
    /// As [`Self::records`].
    pub fn past(&self, matter: MatterId, after: &[u8], limit: usize) -> Result<Vec<(Vec<u8>, Record)>, Error> {
        let Some(transfer) = self.largest_transfer(matter)? else { return Ok(Vec::new()) };
        let after = after.max(transfer.as_slice());
        self.read_past(
            "SELECT key, value FROM rows WHERE tbl = ?1 AND matter = ?2 AND key > ?3 AND substr(key, 1, ?4) = ?5 ORDER BY key LIMIT ?6",
            matter,
            params![Table::Past as u8, matter.as_bytes(), after, TRANSFER_LEN, transfer, limit],
        )
    }

    /// The last of them, in order, at most `limit`.
    ///
    /// # Errors
    /// As [`Self::records`].
    pub fn last_past(&self, matter: MatterId, limit: usize) -> Result<Vec<Record>, Error> {
        let Some(transfer) = self.largest_transfer(matter)? else { return Ok(Vec::new()) };
        let mut rows = self.read_past(
            "SELECT key, value FROM rows WHERE tbl = ?1 AND matter = ?2 AND substr(key, 1, ?3) = ?4 ORDER BY key DESC LIMIT ?5",
            matter,
            params![Table::Past as u8, matter.as_bytes(), TRANSFER_LEN, transfer, limit],
        )?;
        rows.reverse();
        Ok(rows.into_iter().map(|(_, record)| record).collect())
    }

    /// The transfer with which most records of a matter came; one of a device that was revoked since where there is no other.
    fn largest_transfer(&self, matter: MatterId) -> Result<Option<Vec<u8>>, Error> {
        let query = "SELECT substr(key, 1, ?1) FROM rows WHERE tbl = ?2 AND matter = ?3 GROUP BY 1 ORDER BY count(*) DESC, 1 DESC";
        let values = params![TRANSFER_LEN, Table::Past as u8, matter.as_bytes()];
        let mut statement = self.connection.prepare_cached(query)?;
        let transfers: Vec<Vec<u8>> = statement.query_map(values, |row| row.get(0))?.collect::<Result<_, _>>()?;
        let revoked = Receiving::of_the_revoked(&self.rows(Table::Receiving, None).map_err(|_| damaged())?);
        Ok(transfers.iter().find(|transfer| !revoked.contains(transfer)).or_else(|| transfers.first()).cloned())
    }

    fn read_past(
        &self,
        query: &str,
        matter: MatterId,
        values: &[&dyn rusqlite::ToSql],
    ) -> Result<Vec<(Vec<u8>, Record)>, Error> {
        let mut statement = self.connection.prepare_cached(query)?;
        let mut rows = statement.query(values)?;
        let mut records = Vec::new();
        while let Some(row) = rows.next()? {
            let (key, sealed): (Vec<u8>, Vec<u8>) = (row.get(0)?, row.get(1)?);
            let bytes = self.unseal(Table::Past, Some(matter), &key, &sealed)?;
            // What no version can read is not taken any more (`Device`), and must not hide the rest where it was.
            if let Ok(record) = Record::kept(&bytes, matter) {
                records.push((key, record));
            }
        }
        Ok(records)
    }

    fn read_records(&self, query: &str, values: &[&dyn rusqlite::ToSql]) -> Result<Vec<Record>, Error> {
        let mut statement = self.connection.prepare_cached(query)?;
        let mut rows = statement.query(values)?;
        let mut records = Vec::new();
        while let Some(row) = rows.next()? {
            let (matter, key, sealed): (Vec<u8>, Vec<u8>, Vec<u8>) = (row.get(0)?, row.get(1)?, row.get(2)?);
            let matter = MatterId::from_slice(&matter).map_err(|_| damaged())?;
            let bytes = self.unseal(Table::Record, Some(matter), &key, &sealed)?;
            records.push(cbor::decode(&bytes, "record").map_err(|_| damaged())?);
        }
        Ok(records)
    }

    fn read_rows(
        &self,
        query: &str,
        (table, matter): (Table, Option<MatterId>),
        values: &[&dyn rusqlite::ToSql],
    ) -> Result<Rows, Error> {
        let mut statement = self.connection.prepare_cached(query)?;
        let mut found = statement.query(values)?;
        let mut rows = Vec::new();
        while let Some(row) = found.next()? {
            let (key, sealed): (Vec<u8>, Vec<u8>) = (row.get(0)?, row.get(1)?);
            let value = self.unseal(table, matter, &key, &sealed)?;
            rows.push((key, value));
        }
        Ok(rows)
    }

    fn unseal(
        &self,
        table: Table,
        matter: Option<MatterId>,
        key: &[u8],
        sealed: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, Error> {
        let under = self.key_for(matter)?;
        suite::open(&under, &row_aad(table, &place(matter), key), sealed).map_err(|_| damaged())
    }

    /// The key of a matter, made when its first row is written.
    fn key_for(&self, matter: Option<MatterId>) -> Result<Key, Error> {
        let Some(matter) = matter else { return Ok(self.own.clone()) };
        if let Some(key) = self.matters.borrow().get(&matter) {
            return Ok(key.clone());
        }
        let aad = [b"matter key", &matter.as_bytes()[..]].concat();
        let sealed: Option<Vec<u8>> = self
            .connection
            .prepare_cached("SELECT sealed FROM matter_keys WHERE matter = ?1")?
            .query_row([matter.as_bytes()], |row| row.get(0))
            .optional()?;
        let key: Key = match sealed {
            Some(sealed) => {
                let bytes = suite::open(&self.root, &aad, &sealed).map_err(|_| damaged())?;
                Zeroizing::new(bytes.as_slice().try_into().map_err(|_| damaged())?)
            }
            None => {
                let key: Key = Zeroizing::new(suite::random());
                self.connection
                    .prepare_cached("INSERT INTO matter_keys VALUES (?1, ?2)")?
                    .execute(params![matter.as_bytes(), suite::seal(&self.root, &aad, &*key)?])?;
                key
            }
        };
        self.matters.borrow_mut().insert(matter, key.clone());
        Ok(key)
    }
}

impl Snapshot for Vault {
    fn rows(&self, table: Table, matter: Option<MatterId>) -> Result<Rows, Misuse> {
        let query = "SELECT key, value FROM rows WHERE tbl = ?1 AND matter = ?2 ORDER BY key";
        self.read_rows(query, (table, matter), params![table as u8, place(matter)]).map_err(|_| Misuse::State("vault"))
    }

    fn rows_after(&self, table: Table, matter: Option<MatterId>, after: &[u8], limit: usize) -> Result<Rows, Misuse> {
        let query = "SELECT key, value FROM rows WHERE tbl = ?1 AND matter = ?2 AND key > ?3 ORDER BY key LIMIT ?4";
        self.read_rows(query, (table, matter), params![table as u8, place(matter), after, limit])
            .map_err(|_| Misuse::State("vault"))
    }
}

impl Header {
    /// A root key, wrapped with a passphrase.
    fn new(passphrase: &[u8], protection: Protection, root: &Key) -> Result<Self, Error> {
        let salt: [u8; 16] = suite::random();
        let wrapping = stretch(passphrase, &salt, protection)?;
        let sealed = suite::seal(&wrapping, &protection.aad(), &**root)?;
        Ok(Self { protection, salt: salt.to_vec(), sealed })
    }

    /// The header of a vault, unless it was weakened.
    fn read(connection: &Connection) -> Result<Self, Error> {
        let query = "SELECT memory_mib, passes, lanes, salt, root FROM header";
        let header = connection.query_row(query, [], |row| {
            let protection = Protection { memory_mib: row.get(0)?, passes: row.get(1)?, lanes: row.get(2)? };
            Ok(Self { protection, salt: row.get(3)?, sealed: row.get(4)? })
        })?;
        let Protection { memory_mib, passes, lanes } = header.protection;
        let weak = !(KDF_MEMORY_MIB_MIN..=KDF_MEMORY_MIB_MAX).contains(&memory_mib)
            || !(KDF_PASSES..=KDF_PASSES_MAX).contains(&passes);
        if weak || lanes != KDF_LANES {
            return Err(Error::Untrusted(
                "the vault's header was weakened: somebody changed this file. Restore it from a backup".to_owned(),
            ));
        }
        Ok(header)
    }

    /// The root key.
    fn open(&self, passphrase: &[u8]) -> Result<Zeroizing<Vec<u8>>, Error> {
        let wrapping = stretch(passphrase, &self.salt, self.protection)?;
        suite::open(&wrapping, &self.protection.aad(), &self.sealed)
            .map_err(|_| Error::Usage("wrong passphrase; try again".to_owned()))
    }
}

impl Protection {
    /// What the wrapped root key is bound to.
    fn aad(self) -> Vec<u8> {
        [self.memory_mib, self.passes, self.lanes].map(u32::to_be_bytes).concat()
    }
}

/// Characters that a passphrase has at least.
pub const PASSPHRASE_MIN: usize = 12;
/// Different characters among them, at least.
const PASSPHRASE_DIFFERENT: usize = 5;

/// Whether a passphrase may be chosen. What a vault has already is not judged.
///
/// # Errors
/// [`Error::Usage`] for one that is too easy to guess, whatever a guess costs.
pub fn is_chosen(passphrase: &[u8]) -> Result<(), Error> {
    let shown = String::from_utf8_lossy(passphrase);
    let different: std::collections::BTreeSet<char> = shown.chars().collect();
    if passphrase.is_empty() {
        return Err(Error::Usage("an empty passphrase protects nothing; choose one of several words".to_owned()));
    }
    if shown.chars().count() < PASSPHRASE_MIN || different.len() < PASSPHRASE_DIFFERENT {
        return Err(Error::Usage(format!(
            "that passphrase is too easy to guess: it takes at least {PASSPHRASE_MIN} characters, such as four or five words that have \
             nothing to do with each other"
        )));
    }
    Ok(())
}

fn place(matter: Option<MatterId>) -> Vec<u8> {
    matter.map(|matter| matter.as_bytes().to_vec()).unwrap_or_default()
}

fn row_aad(table: Table, place: &[u8], key: &[u8]) -> Vec<u8> {
    let place_len = u8::try_from(place.len()).unwrap_or(u8::MAX);
    [&[table as u8, place_len], place, key].concat()
}

fn damaged() -> Error {
    Error::Machine("the vault is damaged or was altered; restore it from a backup".to_owned())
}

fn connect(path: &Path) -> Result<Connection, Error> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "secure_delete", "ON")?;
    Ok(connection)
}

fn check_version(connection: &Connection) -> Result<(), Error> {
    let found: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    match found {
        VERSION => Ok(()),
        newer if newer > VERSION => Err(Error::Machine(
            "this vault belongs to a newer version of privity: update privity. Nothing was changed".to_owned(),
        )),
        _ => Err(damaged()),
    }
}

/// Argon2id (RFC 9106).
fn stretch(passphrase: &[u8], salt: &[u8], protection: Protection) -> Result<Key, Error> {
    let Protection { memory_mib, passes, lanes } = protection;
    let params = Params::new(memory_mib.saturating_mul(1024), passes, lanes, Some(32)).map_err(|_| damaged())?;
    let mut key = Zeroizing::new([0; 32]);
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into(passphrase, salt, &mut *key)
        .map_err(|_| Error::Machine("the passphrase could not be stretched: not enough memory?".to_owned()))?;
    Ok(key)
}

/// Whether the vault in `folder` was begun and never used: joining was cut off before anything was in it.
pub fn is_leftover(folder: &Path) -> bool {
    let path = folder.join(FILE);
    let count = || -> Result<i64, rusqlite::Error> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(&path, flags)?;
        let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
        if tables == 0 { Ok(0) } else { connection.query_row("SELECT count(*) FROM rows", [], |row| row.get(0)) }
    };
    path.exists() && count().is_ok_and(|rows| rows == 0)
}

/// Removes the vault in `folder`.
pub fn remove(folder: &Path) {
    for suffix in ["", "-wal", "-shm"] {
        let _gone = fs::remove_file(folder.join(format!("{FILE}{suffix}")));
    }
}

/// A folder for its owner alone, whatever the umask.
///
/// # Errors
/// Whatever the file system says.
pub fn private_folder(folder: &Path) -> std::io::Result<()> {
    if !folder.exists() {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    fs::set_permissions(folder, fs::Permissions::from_mode(0o700))
}

#[cfg(test)]
mod tests {
    use privity_protocol::device::state::RecordBody;
    use privity_protocol::ids::Timestamp;

    use super::*;

    const PASSPHRASE: &[u8] = b"correct horse";

    fn made() -> (tempfile::TempDir, Vault) {
        let folder = tempfile::tempdir().unwrap();
        let vault = Vault::create(folder.path(), PASSPHRASE, KDF_MEMORY_MIB_MIN).unwrap();
        (folder, vault)
    }

    fn record(cursor: u64, matter: MatterId) -> Batch {
        let what = RecordBody::Gap;
        let record = Record { cursor, matter, seq: cursor, from: None, device: None, at: Timestamp(0), what };
        let mut batch = Batch::default();
        batch.put(Table::Record, Some(matter), &cursor.to_be_bytes(), &record);
        batch
    }

    fn raw(folder: &Path, change: &str) {
        Connection::open(folder.join(FILE)).unwrap().execute_batch(change).unwrap();
    }

    #[test]
    fn every_file_is_its_owners_alone() {
        let (folder, mut vault) = made();
        vault.apply(record(1, MatterId::random())).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(folder.path()), 0o700);
        let files: Vec<PathBuf> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert!(files.len() >= 3, "the write-ahead log is among them: {files:?}");
        for file in files {
            assert_eq!(mode(&file), 0o600, "{}", file.display());
        }
    }

    #[test]
    fn a_new_vault_is_not_opened_with_what_was_unlocked_before() {
        let folder = tempfile::tempdir().unwrap();
        // Some systems have no key store.
        if keystore::put(folder.path(), &[7; 32], std::time::Duration::from_secs(60)).is_ok() {
            assert!(keystore::get(folder.path()).is_some());
            Vault::create(folder.path(), PASSPHRASE, KDF_MEMORY_MIB_MIN).unwrap();
            assert!(keystore::get(folder.path()).is_none());
        }
    }

    #[test]
    fn a_wrong_passphrase_opens_nothing() {
        let (folder, vault) = made();
        drop(vault);
        assert!(matches!(Vault::open(folder.path(), b"wrong horse").unwrap_err(), Error::Usage(_)));
        Vault::open(folder.path(), PASSPHRASE).unwrap();
    }

    #[test]
    fn another_passphrase_opens_the_same_vault_and_the_one_before_does_not() {
        let (folder, mut vault) = made();
        let matter = MatterId::random();
        vault.apply(record(1, matter)).unwrap();
        let sealed: Vec<u8> = vault.connection.query_row("SELECT root FROM header", [], |row| row.get(0)).unwrap();
        for bad in [&b""[..], PASSPHRASE] {
            assert!(matches!(vault.change_passphrase(folder.path(), bad), Err(Error::Usage(_))));
        }
        vault.change_passphrase(folder.path(), b"another horse").unwrap();
        // Nothing of the old header is left in the folder while it is open still.
        for entry in fs::read_dir(folder.path()).unwrap() {
            let bytes = fs::read(entry.unwrap().path()).unwrap();
            assert!(!bytes.windows(sealed.len()).any(|window| window == sealed));
        }
        drop(vault);
        assert!(matches!(Vault::open(folder.path(), PASSPHRASE).unwrap_err(), Error::Usage(_)));
        let vault = Vault::open(folder.path(), b"another horse").unwrap();
        assert_eq!(vault.records(Some(matter), 0, 10).unwrap().len(), 1);
        assert_eq!(vault.protection().unwrap().memory_mib, KDF_MEMORY_MIB_MIN);
    }

    #[test]
    fn what_was_unlocked_by_the_passphrase_before_is_locked() {
        let (folder, mut vault) = made();
        if keystore::put(folder.path(), vault.root(), std::time::Duration::from_secs(60)).is_ok() {
            vault.change_passphrase(folder.path(), b"another horse").unwrap();
            assert!(keystore::get(folder.path()).is_none());
        }
    }

    #[test]
    fn a_weakened_header_is_refused() {
        for change in ["memory_mib = 8", "passes = 1", "lanes = 4"] {
            let (folder, vault) = made();
            drop(vault);
            raw(folder.path(), &format!("UPDATE header SET {change}"));
            let error = Vault::open(folder.path(), PASSPHRASE).unwrap_err();
            assert!(matches!(error, Error::Untrusted(_)), "{change}: {error}");
            assert!(matches!(Vault::check(folder.path()), Err(Error::Untrusted(_))), "{change}: nobody is asked");
        }
    }

    #[test]
    fn a_newer_vault_is_left_alone() {
        let (folder, vault) = made();
        drop(vault);
        raw(folder.path(), "PRAGMA user_version = 2");
        let error = Vault::open(folder.path(), PASSPHRASE).unwrap_err();
        assert!(error.to_string().contains("newer version"), "{error}");
    }

    #[test]
    fn an_altered_or_moved_row_is_found() {
        let matter = MatterId::random();
        for change in [
            "UPDATE rows SET value = zeroblob(length(value))",
            "UPDATE rows SET key = x'0000000000000009'",
            "UPDATE rows SET tbl = 7, matter = matter, key = x'0000000000000003'",
        ] {
            let (folder, mut vault) = made();
            vault.apply(record(1, matter)).unwrap();
            raw(folder.path(), change);
            assert!(vault.records(Some(matter), 0, 10).is_err(), "{change}");
        }
    }

    #[test]
    fn one_matters_records_are_read_without_the_others() {
        let (_folder, mut vault) = made();
        let (one, other) = (MatterId::new([1; 16]), MatterId::new([2; 16]));
        for cursor in 1..=6 {
            vault.apply(record(cursor, if cursor % 2 == 0 { one } else { other })).unwrap();
        }
        let cursors = |records: Vec<Record>| records.iter().map(|record| record.cursor).collect::<Vec<_>>();
        assert_eq!(cursors(vault.records(Some(one), 2, 10).unwrap()), [4, 6]);
        assert_eq!(cursors(vault.records(None, 4, 10).unwrap()), [5, 6]);
        assert_eq!(cursors(vault.last_records(one, 6, 2).unwrap()), [4, 6]);
        let plan: String = vault
            .connection
            .query_row(
                "EXPLAIN QUERY PLAN SELECT matter, key, value FROM rows WHERE tbl = 7 AND matter = x'01' AND key > x'00' ORDER BY key",
                [],
                |row| row.get(3),
            )
            .unwrap();
        assert!(plan.contains("tbl=? AND matter=? AND key>?"), "{plan}");
    }

    #[test]
    fn what_was_received_is_read_page_by_page_of_the_largest_transfer() {
        let (_folder, mut vault) = made();
        let (one, other) = (MatterId::random(), MatterId::random());
        let mut put = |matter, transfer: u8, number: u8| {
            let record = Record {
                cursor: u64::from(number),
                matter: MatterId::new([9; 16]),
                seq: 1,
                from: None,
                device: None,
                at: Timestamp(0),
                what: RecordBody::Gap,
            };
            let mut batch = Batch::default();
            batch.put(Table::Past, Some(matter), &[&[transfer; TRANSFER_LEN][..], &[number]].concat(), &record);
            vault.apply(batch).unwrap();
        };
        (0..5).for_each(|number| put(one, 2, number));
        (5..8).for_each(|number| put(one, 1, number));
        (6..9).for_each(|number| put(one, 3, number));
        put(other, 4, 9);
        let cursors = |rows: &[(Vec<u8>, Record)]| rows.iter().map(|(_, record)| record.cursor).collect::<Vec<_>>();
        let first = vault.past(one, &[], 3).unwrap();
        assert_eq!(cursors(&first), [0, 1, 2]);
        assert!(first.iter().all(|(_, record)| record.matter == one), "it is called as it is here");
        let rest = vault.past(one, &first[2].0, 3).unwrap();
        assert_eq!(cursors(&rest), [3, 4]);
        assert!(vault.past(one, &rest[1].0, 3).unwrap().is_empty());
        let last: Vec<u64> = vault.last_past(one, 2).unwrap().iter().map(|record| record.cursor).collect();
        assert_eq!(last, [3, 4]);
        assert!(vault.past(MatterId::random(), &[], 3).unwrap().is_empty());
        let rows = |after: u64| vault.rows_after(Table::Past, Some(other), &after.to_be_bytes(), 9).unwrap().len();
        assert_eq!((rows(0), rows(u64::MAX)), (1, 0));
    }

    #[test]
    fn what_was_begun_and_never_used_is_known() {
        let (folder, mut vault) = made();
        assert!(is_leftover(folder.path()));
        vault.apply(record(1, MatterId::random())).unwrap();
        assert!(!is_leftover(folder.path()));
    }
}
