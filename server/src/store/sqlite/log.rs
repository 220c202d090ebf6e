//! The audit log's tables, and how a database of version 3, which had none, gets them; how one of version 4 tells of more than devices.
//!
//! Invariant: a database has the log of all its people: those who were there before the log begin it.

use std::path::Path;

use privity_protocol::cbor;
use privity_protocol::identity::Endorsement;
use privity_protocol::ids::{PersonId, Timestamp};
use privity_protocol::log::{Act, Event, Last, Opening, TreeHash};
use privity_protocol::suite::note::SHA256_LEN;
use rusqlite::{OpenFlags, OptionalExtension, Params, Row, params};

use super::super::log::{NewLeaf, filled};
use super::{LOG_SCHEMA, LogRow, Read, Sqlite, Store, StoreError, TOLD_SCHEMA, VERSION, Write};
use crate::store::{DeviceRow, Told, ToldRow};

/// The version before the log.
const BEFORE_LOG: i64 = 3;
/// The version that told of revoked devices alone.
const BEFORE_TOLD: i64 = 4;

impl Sqlite {
    pub(super) fn log(&self, person: Option<PersonId>, event: &Event) -> Result<(), StoreError> {
        let NewLeaf { row, last } = NewLeaf::next(self, person, event)?;
        self.run(
            "INSERT INTO log VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            params![
                row.index,
                about(person.as_ref()),
                last.number,
                last.hash.as_bytes(),
                row.leaf,
                cbor::encode(&row.opening)
            ],
        )?;
        for level in 1.. {
            let Some((number, hash)) = filled(self, level, row.index + 1)? else { break };
            self.run("INSERT INTO log_tiles VALUES (?1, ?2, ?3)", params![level, number, hash.as_bytes()])?;
        }
        Ok(())
    }

    pub(super) fn log_size_now(&self) -> Result<u64, StoreError> {
        let newest: Option<u64> =
            self.connection.prepare_cached("SELECT max(place) FROM log")?.query_row([], |row| row.get(0))?;
        Ok(newest.map_or(0, |newest| newest + 1))
    }

    pub(super) fn log_last_of(&self, person: Option<PersonId>) -> Result<Option<Last>, StoreError> {
        let mut statement = self
            .connection
            .prepare_cached("SELECT number, hash FROM log WHERE person = ?1 ORDER BY number DESC LIMIT 1")?;
        let last = |row: &Row<'_>| Ok(Last { number: row.get(0)?, hash: hash(row, 1)? });
        Ok(statement.query_row([about(person.as_ref())], last).optional()?)
    }

    pub(super) fn log_read(&self, sql: &str, values: impl Params) -> Result<Vec<LogRow>, StoreError> {
        let mut statement = self.connection.prepare_cached(sql)?;
        let mut found = statement.query(values)?;
        let mut rows = Vec::new();
        while let Some(row) = found.next()? {
            let opening: Vec<u8> = row.get(2)?;
            let opening: Opening = cbor::decode(&opening, "opening")?;
            rows.push(LogRow { index: row.get(0)?, leaf: row.get(1)?, opening });
        }
        Ok(rows)
    }

    pub(super) fn log_hashes_of(&self, level: u8, from: u64, until: u64) -> Result<Vec<TreeHash>, StoreError> {
        let sql = if level == 0 {
            "SELECT hash FROM log WHERE place >= ?1 AND place < ?2 AND ?3 = 0 ORDER BY place"
        } else {
            "SELECT hash FROM log_tiles WHERE number >= ?1 AND number < ?2 AND level = ?3 ORDER BY number"
        };
        let mut statement = self.connection.prepare_cached(sql)?;
        let hashes = statement.query_map(params![from, until, level], |row| hash(row, 0))?;
        Ok(hashes.collect::<Result<_, _>>()?)
    }

    /// Brings a database of version 3 or 4 up to date, in one transaction; one of any other version is left as it is. Nobody else may use it.
    ///
    /// # Errors
    /// [`StoreError`] if there is no database, or the disk fails.
    pub fn upgrade(path: &Path) -> Result<(), StoreError> {
        let connection = Self::connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        let found: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
        if ![BEFORE_LOG, BEFORE_TOLD].contains(&found) {
            return Ok(());
        }
        let mut store = Self { connection, path: path.to_owned(), incarnation: [0; 16] };
        store.begin()?;
        store.connection.execute_batch(TOLD_SCHEMA)?;
        if found == BEFORE_LOG {
            store.connection.execute_batch(LOG_SCHEMA)?;
            store.log_the_past()?;
        } else {
            store.tell_of_the_revoked()?;
        }
        store.connection.execute_batch(&format!("PRAGMA user_version = {VERSION};"))?;
        store.commit()
    }

    /// What was told of revoked devices keeps its numbers.
    fn tell_of_the_revoked(&self) -> Result<(), StoreError> {
        let sql = "SELECT devices.row FROM revoked JOIN devices USING (device) ORDER BY number";
        let rows: Vec<DeviceRow> = self.rows(sql, [], "device")?;
        for row in rows {
            let revoked = row.revoked.ok_or(StoreError::Damaged("device"))?;
            let what = Told::Revoked(revoked.statement);
            self.apply_one(&Write::Told(Box::new(ToldRow { number: revoked.number, person: row.person, what })))?;
        }
        self.connection.execute_batch("DROP TABLE revoked;")?;
        Ok(())
    }

    /// What the log would have said of the people who are there, had there been one.
    fn log_the_past(&self) -> Result<(), StoreError> {
        let leaf = |person, at, act| self.apply_one(&Write::Log { person, event: Event { at, act } });
        let people = self.people()?;
        if let Some(organisation) = self.organisation()? {
            let at = people.iter().map(|row| row.registered).min().unwrap_or(Timestamp(0));
            leaf(None, at, Act::Founded { organisation: organisation.digest() })?;
        }
        for row in people {
            let (asked, at) = (row.registration, row.registered);
            let (person, person_key) = (Some(asked.person), asked.person_key.digest());
            leaf(
                person,
                at,
                Act::Registered { person_key, handle: asked.handle, role: row.role, invite: asked.invite },
            )?;
            for device in self.devices_of(asked.person)? {
                leaf(person, at, Act::DeviceAdded { device: device.device, certificate: device.certificate.digest() })?;
            }
            if let Some(endorsement) = row.endorsement {
                let said: Endorsement =
                    endorsement.unverified("endorsement").map_err(|_| StoreError::Damaged("endorsement"))?;
                let by = said.issuer.map(|issuer| issuer.person);
                leaf(person, at, Act::Endorsed { endorsement: endorsement.digest(), by })?;
            }
        }
        Ok(())
    }
}

/// How the table says whom a leaf is about.
fn about(person: Option<&PersonId>) -> &[u8] {
    person.map_or(&[], |person| person.as_bytes())
}

fn hash(row: &Row<'_>, column: usize) -> rusqlite::Result<TreeHash> {
    let bytes: [u8; SHA256_LEN] = row.get(column)?;
    Ok(TreeHash::new(bytes))
}
