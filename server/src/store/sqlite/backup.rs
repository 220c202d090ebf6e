//! A copy of the database as it is at one moment, beside whoever uses it (SQLite's online backup).
//!
//! Invariant: a copy that is given out was read back whole, and stands alone in its one file.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use privity_protocol::ids::Timestamp;
use privity_protocol::log::{Act, Event};
use privity_protocol::suite::Digest;
use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags};

use super::{Sqlite, Store, StoreError, Write};

/// Pages in one step, some 4 MiB: how often whoever watches is told.
const STEP_PAGES: i32 = 1000;

impl Sqlite {
    /// The log says that a backup of this name is made; durable when this returns.
    ///
    /// # Errors
    /// [`StoreError`] if the disk fails.
    pub fn log_backup(&mut self, backup: Digest, at: Timestamp) -> Result<(), StoreError> {
        self.begin()?;
        self.apply(&[Write::Log { person: None, event: Event { at, act: Act::BackedUp { backup } } }])?;
        self.commit()
    }

    /// Copies the database as it is now into a file that is not there yet. `progress` hears how many pages are done, and of how many.
    ///
    /// # Errors
    /// [`StoreError`] if the file is there, the disk fails, or what was written does not read back whole.
    pub fn copy_to(&self, path: &Path, progress: &mut dyn FnMut(u64, u64)) -> Result<(), StoreError> {
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        let mut copy = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        // Held open, the moment that is read stays the same, whatever is committed meanwhile, and the copy never begins again.
        self.connection.execute_batch("BEGIN")?;
        let copied = self.moment().and_then(|()| steps(&self.connection, &mut copy, progress));
        self.connection.execute_batch("COMMIT")?;
        copied?;
        // No log beside it any more: the one file is all there is.
        let mode: String = copy.query_row("PRAGMA journal_mode = DELETE", [], |row| row.get(0))?;
        let found: String = copy.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))?;
        copy.close().map_err(|(_, error)| error)?;
        if found != "ok" || mode != "delete" {
            return Err(StoreError::Damaged("the copy"));
        }
        Ok(std::fs::File::open(path)?.sync_all()?)
    }

    /// Reads something, which is what fixes a transaction's moment.
    fn moment(&self) -> Result<(), StoreError> {
        let _version: i64 = self.connection.query_row("SELECT count(*) FROM meta", [], |row| row.get(0))?;
        Ok(())
    }
}

fn steps(from: &Connection, to: &mut Connection, progress: &mut dyn FnMut(u64, u64)) -> Result<(), StoreError> {
    let backup = Backup::new(from, to)?;
    loop {
        let step = backup.step(STEP_PAGES)?;
        let now = backup.progress();
        let (of, rest) = (u64::try_from(now.pagecount).unwrap_or(0), u64::try_from(now.remaining).unwrap_or(0));
        progress(of.saturating_sub(rest), of);
        match step {
            StepResult::Done => return Ok(()),
            StepResult::More => {}
            // Nobody else has the copy, and readers of the original wait for nobody: it does not happen.
            _ => return Err(StoreError::Damaged("the lock of the copy")),
        }
    }
}
