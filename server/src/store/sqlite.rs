//! The embedded store: one SQLite file in WAL mode with `synchronous=FULL`.
//!
//! Entries live in one table under `mailbox number << 32 | seq`, so that a mailbox is one contiguous range of the tree and a read is
//! one range scan. Everything identity-related is a CBOR row beside the few columns that are searched.
//!
//! Invariant: `commit` returns only after SQLite has synced its log; files are readable by their owner alone.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use privity_protocol::cbor;
use privity_protocol::frame::{Blob, Entry, EntryBody, Instance, Rights};
use privity_protocol::identity::handle_skeleton;
use privity_protocol::ids::{DeviceId, InviteId, MailboxId, PersonId, Position, Timestamp};
use privity_protocol::limits;
use privity_protocol::log::{Act, Event, Last, TreeHash};
use privity_protocol::suite::{self, Digest, PublicKey};
use rusqlite::{Connection, OpenFlags, OptionalExtension, Row, params};

use crate::config::private_folder;

use super::{
    DeviceRow, GrantRow, IdemRow, InviteRow, KeyPackageRow, LogRow, MailboxRow, OpenReader, PersonRow, Read, Reader,
    ReceivedRow, Store, StoreError, ToldRow, Waiting, Write,
};

mod backup;
mod log;

/// The database's file name inside the data folder.
pub const FILE: &str = "relay.db";

/// The schema's version.
const VERSION: i64 = 5;
/// Pages after which SQLite moves the log into the file.
const CHECKPOINT_PAGES: i64 = 4000;
/// The last seq that a place has bits for.
const SEQ_LAST: u64 = u32::MAX as u64;
/// The largest number that SQLite counts to.
const PLACE_LAST: u64 = i64::MAX as u64;
/// Statements kept compiled.
const STATEMENTS: usize = 64;

const SCHEMA: &str = "
CREATE TABLE meta (name TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT;
CREATE TABLE people (person BLOB PRIMARY KEY, skeleton TEXT NOT NULL UNIQUE, handle TEXT NOT NULL, row BLOB NOT NULL) STRICT;
CREATE TABLE devices (device BLOB PRIMARY KEY, person BLOB NOT NULL, row BLOB NOT NULL) STRICT;
CREATE INDEX devices_of ON devices (person);
CREATE TABLE instances (device BLOB PRIMARY KEY, row BLOB NOT NULL) STRICT;
CREATE TABLE invites (invite BLOB PRIMARY KEY, inviter BLOB, expires INTEGER NOT NULL, used INTEGER NOT NULL, row BLOB NOT NULL) STRICT;
CREATE INDEX invites_open ON invites (inviter) WHERE used = 0;
CREATE TABLE mailboxes (
    number INTEGER PRIMARY KEY, mailbox BLOB NOT NULL UNIQUE, inbox_of BLOB,
    head INTEGER NOT NULL, head_chain BLOB NOT NULL, fence INTEGER NOT NULL, fence_chain BLOB NOT NULL) STRICT;
CREATE TABLE entries (
    place INTEGER PRIMARY KEY, fence INTEGER NOT NULL, kept INTEGER NOT NULL, chain BLOB NOT NULL, digest BLOB NOT NULL,
    expires INTEGER NOT NULL, author BLOB NOT NULL, envelope BLOB) STRICT;
CREATE INDEX entries_expiring ON entries (expires) WHERE envelope IS NOT NULL;
CREATE TABLE grants (
    mailbox INTEGER NOT NULL, device BLOB NOT NULL, starts INTEGER NOT NULL, ends INTEGER, rights INTEGER NOT NULL,
    PRIMARY KEY (mailbox, device, starts)) STRICT, WITHOUT ROWID;
CREATE INDEX grants_open ON grants (device) WHERE ends IS NULL;
CREATE TABLE waiting (mailbox INTEGER NOT NULL, seq INTEGER NOT NULL, sender BLOB NOT NULL, reserved INTEGER NOT NULL,
    PRIMARY KEY (mailbox, seq)) STRICT, WITHOUT ROWID;
CREATE TABLE acks (mailbox INTEGER NOT NULL, device BLOB NOT NULL, upto INTEGER NOT NULL,
    PRIMARY KEY (mailbox, device)) STRICT, WITHOUT ROWID;
CREATE TABLE idems (device BLOB NOT NULL, idem INTEGER NOT NULL, row BLOB NOT NULL,
    PRIMARY KEY (device, idem)) STRICT, WITHOUT ROWID;
CREATE TABLE received (device BLOB PRIMARY KEY, row BLOB NOT NULL) STRICT;
CREATE TABLE key_packages (number INTEGER PRIMARY KEY, device BLOB NOT NULL, last_resort INTEGER NOT NULL,
    package BLOB NOT NULL) STRICT;
CREATE INDEX key_packages_of ON key_packages (device, last_resort, number);
";

/// What is told of people, as version 5 brought it.
const TOLD_SCHEMA: &str = "
CREATE TABLE told (number INTEGER PRIMARY KEY, person BLOB NOT NULL, row BLOB NOT NULL) STRICT;
CREATE INDEX told_of ON told (person, number);
";

/// The audit log, since version 4. `person` is empty where a leaf is about the relay itself; tiles are those of level 1 and above.
const LOG_SCHEMA: &str = "
CREATE TABLE log (
    place INTEGER PRIMARY KEY, person BLOB NOT NULL, number INTEGER NOT NULL, hash BLOB NOT NULL, leaf BLOB NOT NULL,
    opening BLOB NOT NULL) STRICT;
CREATE UNIQUE INDEX log_of ON log (person, number);
CREATE TABLE log_tiles (level INTEGER NOT NULL, number INTEGER NOT NULL, hash BLOB NOT NULL,
    PRIMARY KEY (level, number)) STRICT, WITHOUT ROWID;
";

/// How folding a database's log into it went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Folded {
    /// The file is all there is.
    Whole,
    /// Somebody else uses it.
    Busy,
    /// It can't be read.
    Damaged,
}

/// The store's one writing connection, or a reading one.
#[derive(Debug)]
pub struct Sqlite {
    connection: Connection,
    path: PathBuf,
    incarnation: [u8; 16],
}

impl Sqlite {
    /// Makes a new database in `folder`, which must not have one.
    ///
    /// # Errors
    /// [`StoreError`] if it exists or the disk fails.
    pub fn create(folder: &Path) -> Result<Self, StoreError> {
        private_folder(folder)?;
        let path = folder.join(FILE);
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        let connection = Self::connect(&path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        connection.execute_batch(&format!(
            "BEGIN; {SCHEMA} {TOLD_SCHEMA} {LOG_SCHEMA} PRAGMA user_version = {VERSION}; COMMIT;"
        ))?;
        let incarnation: [u8; 16] = suite::random();
        connection.execute("INSERT INTO meta VALUES ('incarnation', ?1)", params![incarnation])?;
        Ok(Self { connection, path, incarnation })
    }

    /// Opens the database in `folder`.
    ///
    /// # Errors
    /// [`StoreError`] if there is none, or it is damaged or of another version.
    pub fn open(folder: &Path) -> Result<Self, StoreError> {
        private_folder(folder)?;
        let path = folder.join(FILE);
        // SQLite gives its log and shared memory the mode of the database.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
        let connection = Self::connect(&path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        Self::with(connection, path)
    }

    /// Opens a database that was restored from a backup, and makes it a new incarnation, which the log says. Its key packages go: some
    /// have been taken since, and a second Welcome for one opens for nobody. Devices bring new ones when they come.
    ///
    /// # Errors
    /// [`StoreError`] if SQLite finds it damaged, or it is of another version.
    pub fn renew(path: &Path, now: Timestamp) -> Result<Self, StoreError> {
        let connection = Self::connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        let found: String = connection.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))?;
        if found != "ok" {
            return Err(StoreError::Damaged("a page or an index of it"));
        }
        Self::upgrade(path)?;
        let mut store = Self::with(connection, path.to_owned())?;
        let before = std::mem::replace(&mut store.incarnation, suite::random());
        store.begin()?;
        let restored = Event { at: now, act: Act::Restored { before, incarnation: store.incarnation } };
        store.log(None, &restored)?;
        store.run("UPDATE meta SET value = ?1 WHERE name = 'incarnation'", params![store.incarnation])?;
        store.run("DELETE FROM key_packages", [])?;
        store.commit()?;
        Ok(store)
    }

    /// Folds the log into the database, and closes it.
    ///
    /// # Errors
    /// [`StoreError`] if the disk fails.
    pub fn close(mut self) -> Result<(), StoreError> {
        self.checkpoint()?;
        self.connection.close().map_err(|(_, error)| error.into())
    }

    /// Folds the log of a database into it, whatever its version.
    pub fn fold(path: &Path) -> Folded {
        let busy = || {
            let connection = Self::connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
            let busy: bool = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))?;
            connection.close().map_err(|(_, error)| error)?;
            Ok::<_, StoreError>(busy)
        };
        match busy() {
            Ok(false) => Folded::Whole,
            Ok(true) => Folded::Busy,
            Err(StoreError::Sqlite(error)) if error.sqlite_error_code() == Some(rusqlite::ErrorCode::DatabaseBusy) => {
                Folded::Busy
            }
            Err(_) => Folded::Damaged,
        }
    }

    fn with(connection: Connection, path: PathBuf) -> Result<Self, StoreError> {
        let found: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
        if found != VERSION {
            return Err(StoreError::Version { found, known: VERSION });
        }
        let incarnation =
            connection.query_row("SELECT value FROM meta WHERE name = 'incarnation'", [], |row| row.get(0))?;
        Ok(Self { connection, path, incarnation })
    }

    fn connect(path: &Path, flags: OpenFlags) -> Result<Connection, StoreError> {
        let connection = Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
        connection.set_prepared_statement_cache_capacity(STATEMENTS);
        connection.busy_timeout(std::time::Duration::from_secs(10))?;
        if flags.contains(OpenFlags::SQLITE_OPEN_READ_WRITE) {
            connection.pragma_update(None, "journal_mode", "WAL")?;
            connection.pragma_update(None, "synchronous", "FULL")?;
            connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
        }
        connection.pragma_update(None, "foreign_keys", "OFF")?;
        Ok(connection)
    }

    /// Until when the newest first invite that nobody has used is good; none where there is none.
    ///
    /// # Errors
    /// [`StoreError`] if the database fails.
    pub fn first_invite_expires(&self) -> Result<Option<Timestamp>, StoreError> {
        let newest = "SELECT max(expires) FROM invites WHERE inviter IS NULL AND used = 0";
        let expires: Option<u64> = self.connection.query_row(newest, [], |row| row.get(0))?;
        Ok(expires.map(Timestamp))
    }

    fn number(&self, mailbox: MailboxId) -> Result<Option<u64>, StoreError> {
        let mut statement = self.connection.prepare_cached("SELECT number FROM mailboxes WHERE mailbox = ?1")?;
        Ok(statement.query_row([mailbox.as_bytes()], |row| row.get(0)).optional()?)
    }

    fn must_number(&self, mailbox: MailboxId) -> Result<u64, StoreError> {
        self.number(mailbox)?.ok_or(StoreError::Damaged("mailbox"))
    }

    fn run(&self, sql: &str, values: impl rusqlite::Params) -> Result<usize, StoreError> {
        Ok(self.connection.prepare_cached(sql)?.execute(values)?)
    }

    fn row<T: for<'b> minicbor::Decode<'b, ()>>(
        &self,
        sql: &str,
        values: impl rusqlite::Params,
        what: &'static str,
    ) -> Result<Option<T>, StoreError> {
        let bytes: Option<Vec<u8>> =
            self.connection.prepare_cached(sql)?.query_row(values, |row| row.get(0)).optional()?;
        bytes.map(|bytes| cbor::decode(&bytes, what).map_err(|_| StoreError::Damaged(what))).transpose()
    }

    fn rows<T: for<'b> minicbor::Decode<'b, ()>>(
        &self,
        sql: &str,
        values: impl rusqlite::Params,
        what: &'static str,
    ) -> Result<Vec<T>, StoreError> {
        let mut statement = self.connection.prepare_cached(sql)?;
        let mut found = statement.query(values)?;
        let mut rows = Vec::new();
        while let Some(row) = found.next()? {
            let bytes = row.get_ref(0)?.as_blob().map_err(|_| StoreError::Damaged(what))?;
            rows.push(cbor::decode(bytes, what).map_err(|_| StoreError::Damaged(what))?);
        }
        Ok(rows)
    }

    fn chain_at(&self, mailbox: MailboxId, seq: u64, sql: &str) -> Result<Option<Position>, StoreError> {
        if seq == 0 {
            return Ok(Some(Position::start(mailbox)));
        }
        if seq > SEQ_LAST {
            return Ok(None);
        }
        let Some(number) = self.number(mailbox)? else { return Ok(None) };
        let mut statement = self.connection.prepare_cached(sql)?;
        let chain = statement.query_row([place(number, seq)], |row| digest(row, 0)).optional()?;
        Ok(chain.map(|chain| Position { seq, chain }))
    }

    fn put_device(&self, row: &DeviceRow) -> Result<(), StoreError> {
        self.run(
            "INSERT INTO devices VALUES (?1, ?2, ?3) ON CONFLICT (device) DO UPDATE SET row = excluded.row",
            params![row.device.as_bytes(), row.person.as_bytes(), cbor::encode(row)],
        )?;
        Ok(())
    }

    fn meta(&self, name: &str) -> Result<Option<Digest>, StoreError> {
        let mut statement = self.connection.prepare_cached("SELECT value FROM meta WHERE name = ?1")?;
        Ok(statement.query_row([name], |row| digest(row, 0)).optional()?)
    }

    fn put_meta(&self, name: &str, value: &Digest) -> Result<(), StoreError> {
        self.run("INSERT OR REPLACE INTO meta VALUES (?1, ?2)", params![name, value.as_bytes()])?;
        Ok(())
    }

    fn apply_one(&self, write: &Write) -> Result<(), StoreError> {
        match write {
            Write::Organisation(key) => {
                self.run("INSERT INTO meta VALUES ('organisation', ?1)", params![key.as_bytes()])?;
            }
            Write::Person(row) => {
                let handle = &row.registration.handle;
                self.run(
                    "INSERT INTO people VALUES (?1, ?2, ?3, ?4) ON CONFLICT (person) DO UPDATE SET row = excluded.row",
                    params![row.registration.person.as_bytes(), handle_skeleton(handle), handle, cbor::encode(&**row)],
                )?;
            }
            Write::Device(row) => self.put_device(row)?,
            Write::Told(row) => {
                let values = params![row.number, row.person.as_bytes(), cbor::encode(&**row)];
                self.run("INSERT INTO told VALUES (?1, ?2, ?3)", values)?;
            }
            Write::Instance { device, instance } => {
                self.run(
                    "INSERT OR REPLACE INTO instances VALUES (?1, ?2)",
                    params![device.as_bytes(), cbor::encode(instance)],
                )?;
            }
            Write::Invite(row) => {
                self.run(
                    "INSERT OR REPLACE INTO invites VALUES (?1, ?2, ?3, ?4, ?5)",
                    params![
                        row.invite.as_bytes(),
                        row.inviter.as_ref().map(PersonId::as_bytes),
                        row.expires.0,
                        row.is_closed(),
                        cbor::encode(&**row)
                    ],
                )?;
            }
            Write::Idem { device, row, keep_from } => {
                self.run(
                    "INSERT INTO idems VALUES (?1, ?2, ?3)",
                    params![device.as_bytes(), row.idem, cbor::encode(row)],
                )?;
                self.run("DELETE FROM idems WHERE device = ?1 AND idem < ?2", params![device.as_bytes(), keep_from])?;
            }
            Write::Received { device, row } => {
                self.run(
                    "INSERT OR REPLACE INTO received VALUES (?1, ?2)",
                    params![device.as_bytes(), cbor::encode(row)],
                )?;
            }
            Write::KeyPackage { device, last_resort, package } => {
                if *last_resort {
                    self.run("DELETE FROM key_packages WHERE device = ?1 AND last_resort = 1", [device.as_bytes()])?;
                }
                self.run(
                    "INSERT INTO key_packages (device, last_resort, package) VALUES (?1, ?2, ?3)",
                    params![device.as_bytes(), last_resort, package],
                )?;
            }
            Write::DropKeyPackage { number, .. } => {
                self.run("DELETE FROM key_packages WHERE number = ?1", [number])?;
            }
            Write::DropKeyPackages { device } => {
                self.run("DELETE FROM key_packages WHERE device = ?1", [device.as_bytes()])?;
            }
            Write::Log { person, event } => self.log(*person, event)?,
            Write::Configuration(digest) => self.put_meta("configuration", digest)?,
            Write::Rotation(digest) => self.put_meta("rotation", digest)?,
            mailbox => self.apply_to_mailbox(mailbox)?,
        }
        Ok(())
    }

    fn move_head(&self, number: u64, position: Position, fence: bool) -> Result<(), StoreError> {
        let (seq, chain) = (position.seq, position.chain.as_bytes().as_slice());
        self.run("UPDATE mailboxes SET head = ?2, head_chain = ?3 WHERE number = ?1", params![number, seq, chain])?;
        if fence {
            let sql = "UPDATE mailboxes SET fence = ?2, fence_chain = ?3 WHERE number = ?1";
            self.run(sql, params![number, seq, chain])?;
        }
        Ok(())
    }

    fn apply_to_mailbox(&self, write: &Write) -> Result<(), StoreError> {
        match write {
            Write::Mailbox { mailbox, inbox_of } => {
                let start = Position::start(*mailbox);
                self.run(
                    "INSERT INTO mailboxes (mailbox, inbox_of, head, head_chain, fence, fence_chain)
                     VALUES (?1, ?2, 0, ?3, 0, ?3)",
                    params![
                        mailbox.as_bytes(),
                        inbox_of.as_ref().map(DeviceId::as_bytes),
                        start.chain.as_bytes().as_slice()
                    ],
                )?;
            }
            Write::Append { mailbox, position, fence, kept, digest, envelope, expires, by } => {
                let number = self.must_number(*mailbox)?;
                let entry = params![
                    place(number, position.seq),
                    fence,
                    kept,
                    position.chain.as_bytes().as_slice(),
                    digest.as_bytes().as_slice(),
                    expires.0,
                    by.as_bytes(),
                    &envelope[..]
                ];
                self.run("INSERT INTO entries VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)", entry)?;
                self.move_head(number, *position, *fence)?;
            }
            Write::Waiting { inbox, seq, sender, reserved } => {
                let number = self.must_number(*inbox)?;
                self.run(
                    "INSERT INTO waiting VALUES (?1, ?2, ?3, ?4)",
                    params![number, seq, sender.as_bytes(), reserved],
                )?;
            }
            Write::Grant { mailbox, grant } => {
                let number = self.must_number(*mailbox)?;
                self.run(
                    "INSERT OR REPLACE INTO grants VALUES (?1, ?2, ?3, NULL, ?4)",
                    params![number, grant.device.as_bytes(), grant.from, grant.rights.0],
                )?;
            }
            Write::EndGrant { mailbox, device, until } => {
                let number = self.must_number(*mailbox)?;
                self.run(
                    "UPDATE grants SET ends = ?3 WHERE mailbox = ?1 AND device = ?2 AND ends IS NULL",
                    params![number, device.as_bytes(), until],
                )?;
            }
            Write::Ack { mailbox, device, upto } => {
                let number = self.must_number(*mailbox)?;
                self.run(
                    "INSERT INTO acks VALUES (?1, ?2, ?3)
                     ON CONFLICT DO UPDATE SET upto = max(upto, excluded.upto)",
                    params![number, device.as_bytes(), upto],
                )?;
                self.run("DELETE FROM waiting WHERE mailbox = ?1 AND seq <= ?2", params![number, upto])?;
            }
            _ => return Err(StoreError::Damaged("write")),
        }
        Ok(())
    }
}

impl Read for Sqlite {
    fn organisation(&self) -> Result<Option<PublicKey>, StoreError> {
        let bytes: Option<Vec<u8>> = self
            .connection
            .prepare_cached("SELECT value FROM meta WHERE name = 'organisation'")?
            .query_row([], |row| row.get(0))
            .optional()?;
        bytes.map(|bytes| PublicKey::from_slice(&bytes).map_err(|_| StoreError::Damaged("organisation"))).transpose()
    }

    fn person(&self, person: PersonId) -> Result<Option<PersonRow>, StoreError> {
        self.row("SELECT row FROM people WHERE person = ?1", [person.as_bytes()], "person")
    }

    fn handle_owner(&self, skeleton: &str) -> Result<Option<PersonId>, StoreError> {
        let mut statement = self.connection.prepare_cached("SELECT person FROM people WHERE skeleton = ?1")?;
        let bytes: Option<[u8; 16]> = statement.query_row([skeleton], |row| row.get(0)).optional()?;
        Ok(bytes.map(PersonId::new))
    }

    fn people(&self) -> Result<Vec<PersonRow>, StoreError> {
        self.rows("SELECT row FROM people ORDER BY handle", [], "person")
    }

    fn device(&self, device: DeviceId) -> Result<Option<DeviceRow>, StoreError> {
        self.row("SELECT row FROM devices WHERE device = ?1", [device.as_bytes()], "device")
    }

    fn instance(&self, device: DeviceId) -> Result<Option<Instance>, StoreError> {
        self.row("SELECT row FROM instances WHERE device = ?1", [device.as_bytes()], "instance")
    }

    fn devices_of(&self, person: PersonId) -> Result<Vec<DeviceRow>, StoreError> {
        self.rows("SELECT row FROM devices WHERE person = ?1 ORDER BY device", [person.as_bytes()], "device")
    }

    fn told(&self, of: Option<PersonId>, after: u64, limit: usize) -> Result<Vec<ToldRow>, StoreError> {
        let after = after.min(PLACE_LAST);
        match of {
            None => {
                let sql = "SELECT row FROM told WHERE number > ?1 ORDER BY number LIMIT ?2";
                self.rows(sql, params![after, limit], "statement")
            }
            Some(person) => {
                let sql = "SELECT row FROM told WHERE person = ?1 AND number > ?2 ORDER BY number LIMIT ?3";
                self.rows(sql, params![person.as_bytes(), after, limit], "statement")
            }
        }
    }

    fn newest_told(&self) -> Result<u64, StoreError> {
        let mut statement = self.connection.prepare_cached("SELECT coalesce(max(number), 0) FROM told")?;
        Ok(statement.query_row([], |row| row.get(0))?)
    }

    fn invite(&self, invite: InviteId) -> Result<Option<InviteRow>, StoreError> {
        self.row("SELECT row FROM invites WHERE invite = ?1", [invite.as_bytes()], "invite")
    }

    fn invites_of(&self, inviter: PersonId, limit: usize) -> Result<Vec<InviteRow>, StoreError> {
        let sql = "SELECT row FROM invites WHERE inviter = ?1 ORDER BY expires DESC, invite LIMIT ?2";
        self.rows(sql, params![inviter.as_bytes(), limit], "invite")
    }

    fn open_invites(&self, inviter: PersonId, now: Timestamp) -> Result<usize, StoreError> {
        let mut statement = self
            .connection
            .prepare_cached("SELECT count(*) FROM invites WHERE inviter = ?1 AND used = 0 AND expires > ?2")?;
        Ok(statement.query_row(params![inviter.as_bytes(), now.0], |row| row.get(0))?)
    }

    fn mailbox(&self, mailbox: MailboxId) -> Result<Option<MailboxRow>, StoreError> {
        let mut statement = self.connection.prepare_cached(
            "SELECT inbox_of, head, head_chain, fence, fence_chain FROM mailboxes WHERE mailbox = ?1",
        )?;
        let row = statement
            .query_row([mailbox.as_bytes()], |row| {
                let inbox_of: Option<[u8; 16]> = row.get(0)?;
                Ok(MailboxRow {
                    mailbox,
                    inbox_of: inbox_of.map(DeviceId::new),
                    head: Position { seq: row.get(1)?, chain: digest(row, 2)? },
                    fence: Position { seq: row.get(3)?, chain: digest(row, 4)? },
                })
            })
            .optional()?;
        Ok(row)
    }

    fn position(&self, mailbox: MailboxId, seq: u64) -> Result<Option<Position>, StoreError> {
        self.chain_at(mailbox, seq, "SELECT chain FROM entries WHERE place = ?1")
    }

    fn fence(&self, mailbox: MailboxId, seq: u64) -> Result<Option<Position>, StoreError> {
        self.chain_at(mailbox, seq, "SELECT chain FROM entries WHERE place = ?1 AND fence = 1")
    }

    fn entries(&self, mailbox: MailboxId, after: u64, until: u64, bytes: usize) -> Result<Vec<Entry>, StoreError> {
        let Some(number) = self.number(mailbox)? else { return Ok(Vec::new()) };
        let mut statement = self.connection.prepare_cached(
            "SELECT place, fence, digest, envelope, author FROM entries WHERE place > ?1 AND place <= ?2 ORDER BY place
             LIMIT ?3",
        )?;
        let (after, until) = (after.min(SEQ_LAST), until.min(SEQ_LAST));
        let mut rows = statement.query(params![place(number, after), place(number, until), limits::ENTRIES_MAX])?;
        let (mut entries, mut total) = (Vec::new(), 0_usize);
        while let Some(row) = rows.next()? {
            let envelope: Option<Vec<u8>> = row.get(3)?;
            total = total.saturating_add(envelope.as_ref().map_or(64, Vec::len));
            if total > bytes && !entries.is_empty() {
                break;
            }
            let seq: u64 = row.get(0)?;
            let body = match envelope {
                Some(envelope) => EntryBody::Envelope(Blob(envelope)),
                None => EntryBody::Expired(digest(row, 2)?),
            };
            let by = Some(DeviceId::new(row.get(4)?));
            entries.push(Entry { seq: seq & u64::from(u32::MAX), fence: row.get(1)?, body, by });
        }
        Ok(entries)
    }

    fn grants(&self, mailbox: MailboxId, device: DeviceId) -> Result<Vec<GrantRow>, StoreError> {
        let Some(number) = self.number(mailbox)? else { return Ok(Vec::new()) };
        let mut statement = self.connection.prepare_cached(
            "SELECT rights, starts, ends FROM grants WHERE mailbox = ?1 AND device = ?2 ORDER BY starts",
        )?;
        let rows = statement.query_map(params![number, device.as_bytes()], |row| {
            Ok(GrantRow { device, rights: Rights(row.get(0)?), from: row.get(1)?, until: row.get(2)? })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    fn open_grants(&self, mailbox: MailboxId) -> Result<Vec<GrantRow>, StoreError> {
        let Some(number) = self.number(mailbox)? else { return Ok(Vec::new()) };
        let mut statement = self.connection.prepare_cached(
            "SELECT device, rights, starts FROM grants WHERE mailbox = ?1 AND ends IS NULL ORDER BY device",
        )?;
        let rows = statement.query_map([number], |row| {
            let device = DeviceId::new(row.get(0)?);
            Ok(GrantRow { device, rights: Rights(row.get(1)?), from: row.get(2)?, until: None })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    fn waiting(&self, inbox: MailboxId, sender: PersonId) -> Result<Waiting, StoreError> {
        let Some(number) = self.number(inbox)? else { return Ok(Waiting::default()) };
        let mut statement = self.connection.prepare_cached(
            "SELECT count(*) FILTER (WHERE sender = ?2), count(*) FILTER (WHERE reserved = 0), count(*)
             FROM waiting WHERE mailbox = ?1",
        )?;
        Ok(statement.query_row(params![number, sender.as_bytes()], |row| {
            Ok(Waiting { of_sender: row.get(0)?, unreserved: row.get(1)?, total: row.get(2)? })
        })?)
    }

    fn share_mailbox(&self, one: PersonId, other: PersonId) -> Result<bool, StoreError> {
        let mut statement = self.connection.prepare_cached(
            "SELECT EXISTS (
                SELECT 1 FROM grants a JOIN devices da ON da.device = a.device
                JOIN grants b ON b.mailbox = a.mailbox AND b.ends IS NULL JOIN devices db ON db.device = b.device
                WHERE da.person = ?1 AND a.ends IS NULL AND db.person = ?2)",
        )?;
        Ok(statement.query_row(params![one.as_bytes(), other.as_bytes()], |row| row.get(0))?)
    }

    fn acked(&self, mailbox: MailboxId, device: DeviceId) -> Result<u64, StoreError> {
        let Some(number) = self.number(mailbox)? else { return Ok(0) };
        let mut statement =
            self.connection.prepare_cached("SELECT upto FROM acks WHERE mailbox = ?1 AND device = ?2")?;
        Ok(statement.query_row(params![number, device.as_bytes()], |row| row.get(0)).optional()?.unwrap_or(0))
    }

    fn idem(&self, device: DeviceId, idem: u64) -> Result<Option<IdemRow>, StoreError> {
        self.row("SELECT row FROM idems WHERE device = ?1 AND idem = ?2", params![device.as_bytes(), idem], "idem")
    }

    fn newest_idem(&self, device: DeviceId) -> Result<Option<IdemRow>, StoreError> {
        self.row("SELECT row FROM idems WHERE device = ?1 ORDER BY idem DESC LIMIT 1", [device.as_bytes()], "idem")
    }

    fn received(&self, device: DeviceId) -> Result<Option<ReceivedRow>, StoreError> {
        self.row("SELECT row FROM received WHERE device = ?1", [device.as_bytes()], "received")
    }

    fn key_package(&self, device: DeviceId) -> Result<Option<KeyPackageRow>, StoreError> {
        let mut statement = self.connection.prepare_cached(
            "SELECT number, last_resort, package FROM key_packages WHERE device = ?1 ORDER BY last_resort, number LIMIT 1",
        )?;
        let found = statement
            .query_row([device.as_bytes()], |row| {
                let last_resort: bool = row.get(1)?;
                Ok(KeyPackageRow { number: (!last_resort).then_some(row.get(0)?), package: row.get(2)? })
            })
            .optional()?;
        Ok(found)
    }

    fn last_resort(&self, device: DeviceId) -> Result<Option<Vec<u8>>, StoreError> {
        let mut statement =
            self.connection.prepare_cached("SELECT package FROM key_packages WHERE device = ?1 AND last_resort = 1")?;
        Ok(statement.query_row([device.as_bytes()], |row| row.get(0)).optional()?)
    }

    fn key_packages_left(&self, device: DeviceId) -> Result<u32, StoreError> {
        let mut statement = self
            .connection
            .prepare_cached("SELECT count(*) FROM key_packages WHERE device = ?1 AND last_resort = 0")?;
        Ok(statement.query_row([device.as_bytes()], |row| row.get(0))?)
    }

    fn overdue_invites(&self, now: Timestamp, limit: usize) -> Result<Vec<InviteRow>, StoreError> {
        let sql = "SELECT row FROM invites WHERE used = 0 AND expires <= ?1 LIMIT ?2";
        self.rows(sql, params![now.0, limit], "invite")
    }

    fn configuration(&self) -> Result<Option<Digest>, StoreError> {
        self.meta("configuration")
    }

    fn rotation(&self) -> Result<Option<Digest>, StoreError> {
        self.meta("rotation")
    }

    fn log_size(&self) -> Result<u64, StoreError> {
        self.log_size_now()
    }

    fn log_last(&self, person: Option<PersonId>) -> Result<Option<Last>, StoreError> {
        self.log_last_of(person)
    }

    fn log_rows(&self, from: u64, until: u64) -> Result<Vec<LogRow>, StoreError> {
        let sql = "SELECT place, leaf, opening FROM log WHERE place >= ?1 AND place < ?2 ORDER BY place";
        self.log_read(sql, params![from, until.min(PLACE_LAST)])
    }

    fn log_of(&self, person: PersonId, after: u64, size: u64, limit: usize) -> Result<Vec<LogRow>, StoreError> {
        let sql = "SELECT place, leaf, opening FROM log WHERE person = ?1 AND number > ?2 AND place < ?3
                   ORDER BY number LIMIT ?4";
        self.log_read(sql, params![person.as_bytes(), after.min(PLACE_LAST), size.min(PLACE_LAST), limit])
    }

    fn log_hashes(&self, level: u8, from: u64, until: u64) -> Result<Vec<TreeHash>, StoreError> {
        self.log_hashes_of(level, from, until.min(PLACE_LAST))
    }
}

impl Store for Sqlite {
    fn begin(&mut self) -> Result<(), StoreError> {
        if self.connection.is_autocommit() {
            self.connection.execute_batch("BEGIN IMMEDIATE")?;
        }
        Ok(())
    }

    fn apply(&mut self, writes: &[Write]) -> Result<(), StoreError> {
        for write in writes {
            self.apply_one(write)?;
        }
        Ok(())
    }

    fn commit(&mut self) -> Result<(), StoreError> {
        if !self.connection.is_autocommit() {
            self.connection.execute_batch("COMMIT")?;
        }
        Ok(())
    }

    fn checkpoint(&mut self) -> Result<(), StoreError> {
        self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
        Ok(())
    }

    fn rollback(&mut self) -> Result<(), StoreError> {
        if !self.connection.is_autocommit() {
            self.connection.execute_batch("ROLLBACK")?;
        }
        Ok(())
    }

    fn as_read(&self) -> &dyn Read {
        self
    }

    fn readers(&self) -> OpenReader {
        let path = self.path.clone();
        Box::new(move || {
            let connection = Self::connect(&path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
            Ok(Box::new(Self::with(connection, path.clone())?))
        })
    }

    fn expire(&mut self, now: Timestamp, limit: usize) -> Result<usize, StoreError> {
        self.run(
            "UPDATE entries SET envelope = NULL WHERE place IN (
                SELECT e.place FROM entries e
                WHERE e.envelope IS NOT NULL AND e.expires <= ?1
                  AND (e.kept = 0 OR NOT EXISTS (
                    SELECT 1 FROM grants g LEFT JOIN acks a ON a.mailbox = g.mailbox AND a.device = g.device
                    WHERE g.mailbox = e.place >> 32 AND g.ends IS NULL AND g.starts < (e.place & 4294967295)
                      AND ifnull(a.upto, 0) < (e.place & 4294967295)
                    UNION ALL
                    SELECT 1 FROM mailboxes m LEFT JOIN acks a ON a.mailbox = m.number AND a.device = m.inbox_of
                    WHERE m.number = e.place >> 32 AND m.inbox_of IS NOT NULL
                      AND ifnull(a.upto, 0) < (e.place & 4294967295)))
                LIMIT ?2)",
            params![now.0, limit],
        )
    }

    fn incarnation(&self) -> [u8; 16] {
        self.incarnation
    }
}

impl Reader for Sqlite {
    fn hold(&mut self) -> Result<(), StoreError> {
        Ok(self.connection.execute_batch("BEGIN")?)
    }

    fn release(&mut self) -> Result<(), StoreError> {
        Ok(self.connection.execute_batch("COMMIT")?)
    }
}

/// Where an entry stands in the table; `seq` is at most [`SEQ_LAST`].
fn place(number: u64, seq: u64) -> u64 {
    (number << 32) | seq
}

fn digest(row: &Row<'_>, column: usize) -> rusqlite::Result<Digest> {
    let bytes = row.get_ref(column)?.as_blob().map_err(|_| rusqlite::Error::InvalidQuery)?;
    Digest::from_slice(bytes).map_err(|_| rusqlite::Error::InvalidQuery)
}

#[cfg(test)]
mod tests;
