//! Restoring a backup: another database takes the place of the one there, as a new incarnation of the relay.
//!
//! 1. A folder that has no relay gets configuration and keys of the backup, where it is a whole one ([`backup`]).
//! 2. Its database is copied beside the database, held against SQLite's own check, and given its incarnation.
//! 3. What was there before is folded into one file and kept.
//! 4. One rename puts the copy in its place.
//!
//! Invariant: until that rename the relay is what it was, and after it what was restored; whoever has to do it again after a crash
//! loses nothing of either.

use std::fs::{self, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use crate::backup;
use crate::clock;
use crate::config::{self, Config, ConfigError, Lock, private_folder};
use crate::start::RelayError;
use crate::store::sqlite::{self, Folded, Sqlite};
use crate::store::{Read, StoreError};

/// What a restore has done.
#[derive(Debug)]
pub struct Restored {
    /// Where the database is kept that was there before; none where there was none, or it stays in place.
    pub kept: Option<PathBuf>,
    /// How many people the restored relay knows.
    pub people: usize,
}

/// Puts a backup, a database or a whole folder, in place of a relay's database; without one, declares that the database in place is a restored one.
///
/// # Errors
/// [`RelayError`] if a relay runs on the folder, the backup is no good, or the disk fails; before the last step nothing has changed.
pub fn restore(folder: &Path, from: Option<&Path>) -> Result<Restored, RelayError> {
    let whole = from.filter(|from| from.is_dir());
    let from = whole.map(|backup| backup.join(sqlite::FILE)).or_else(|| from.map(Path::to_owned));
    let (_lock, files) = match whole {
        Some(backup) => meet_files(folder, backup)?,
        None if !folder.join(config::FILE).exists() || !folder.join(config::KEY_FILE).exists() => {
            return Err(ConfigError::Incomplete(folder.to_owned()).into());
        }
        None => (Lock::take(folder)?, None),
    };
    if files.is_none() {
        Config::load(folder)?;
    }
    let database = folder.join(sqlite::FILE);
    let Some(from) = from.as_deref() else {
        let people = renew(&database, &database)?;
        return Ok(Restored { kept: None, people });
    };
    if same_file(from, &database) {
        let reason = "it is the database in place; leave out --from to say that it was restored already".to_owned();
        return Err(RelayError::Backup { path: from.to_owned(), reason });
    }
    let copied = with(&database, ".restoring");
    let done = copy(from, &copied).and_then(|()| {
        let people = renew(&copied, from)?;
        if let Some(files) = files {
            backup::copy_files(files, folder, true)?;
        }
        Ok(Restored { kept: swap(folder, &database, &copied)?, people })
    });
    if done.is_err() {
        // What is left of it says nothing that the error does not say better.
        let _removed = remove(&copied);
    }
    done
}

/// What a whole backup has beside its database goes into a folder that has no relay: then it is what is given back. One that has a relay keeps
/// its own, which must be the same relay's.
fn meet_files<'a>(folder: &Path, from: &'a Path) -> Result<(Lock, Option<&'a Path>), RelayError> {
    let no_good = |reason: &str| RelayError::Backup { path: from.to_owned(), reason: reason.to_owned() };
    let (_, backed_up) = Config::load(from).map_err(|error| no_good(&error.to_string()))?;
    private_folder(folder).map_err(|error| failed(folder, error))?;
    let lock = Lock::take(folder)?;
    if folder.join(config::KEY_FILE).exists() && folder.join(config::FILE).exists() {
        match Config::load(folder)?.1.have(&backed_up)? {
            (true, _) => {}
            (false, true) => {
                return Err(no_good(
                    "it has a newer key of this relay's; put its relay.key, relay.key.1 and so on, and relay.rotations in place first",
                ));
            }
            (false, false) => return Err(no_good("it is another relay's")),
        }
        return Ok((lock, None));
    }
    Ok((lock, Some(from)))
}

/// A copy for its owner alone, with SQLite's log where the backup has one beside it.
fn copy(from: &Path, to: &Path) -> Result<(), RelayError> {
    let unreadable = |error: std::io::Error| RelayError::Backup { path: from.to_owned(), reason: error.to_string() };
    if !fs::metadata(from).map_err(unreadable)?.is_file() {
        return Err(unreadable(ErrorKind::InvalidInput.into()));
    }
    remove(to)?;
    for suffix in ["", "-wal"] {
        let mut source = match fs::File::open(with(from, suffix)) {
            Err(error) if error.kind() == ErrorKind::NotFound && !suffix.is_empty() => continue,
            opened => opened.map_err(unreadable)?,
        };
        let path = with(to, suffix);
        let written = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).and_then(|mut file| {
            std::io::copy(&mut source, &mut file)?;
            file.sync_all()
        });
        written.map_err(|error| failed(&path, error))?;
    }
    Ok(())
}

/// Checks a database and makes it a new incarnation; how many people it knows. `told` is what the operator knows it as.
fn renew(database: &Path, told: &Path) -> Result<usize, RelayError> {
    let no_good = |error: StoreError| match error {
        full if full.is_disk_full() => RelayError::DiskFull,
        error => RelayError::Backup { path: told.to_owned(), reason: error.to_string() },
    };
    let people = || {
        let store = Sqlite::renew(database, clock::now())?;
        let people = store.people()?.len();
        store.close()?;
        Ok(people)
    };
    people().map_err(no_good)
}

/// The copy takes the database's place, which is kept beside it.
fn swap(folder: &Path, database: &Path, copied: &Path) -> Result<Option<PathBuf>, RelayError> {
    let mut kept = None;
    if database.exists() {
        let whole = match Sqlite::fold(database) {
            Folded::Whole => true,
            Folded::Busy => {
                return Err(RelayError::System(format!("{} is open in another program", database.display())));
            }
            // Too damaged to be folded: it is kept as it is, with its log.
            Folded::Damaged => false,
        };
        let free = free_name(database);
        if !free.exists() {
            fs::hard_link(database, &free).map_err(|error| failed(&free, error))?;
        }
        let log = with(database, "-wal");
        if !whole && log.exists() {
            let kept_log = with(&free, "-wal");
            fs::rename(&log, &kept_log).map_err(|error| failed(&kept_log, error))?;
        }
        kept = Some(free);
    }
    // A log that stayed would be taken for the restored database's own.
    for suffix in ["-wal", "-shm"] {
        remove_file(&with(database, suffix))?;
    }
    sync(folder)?;
    fs::rename(copied, database).map_err(|error| failed(database, error))?;
    sync(folder)?;
    Ok(kept)
}

/// Where the database is kept: never in place of another that was kept before, but again where a run that crashed kept this one.
fn free_name(database: &Path) -> PathBuf {
    let names = std::iter::once(".before-restore".to_owned()).chain((2_u32..).map(|n| format!(".before-restore-{n}")));
    let mut paths = names.map(|name| with(database, &name));
    paths.find(|path| !path.exists() || same_file(path, database)).unwrap_or_else(|| with(database, ".before-restore"))
}

fn same_file(one: &Path, other: &Path) -> bool {
    match (fs::metadata(one), fs::metadata(other)) {
        (Ok(one), Ok(other)) => (one.dev(), one.ino()) == (other.dev(), other.ino()),
        _ => false,
    }
}

fn with(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Removes a database with what SQLite keeps beside it.
fn remove(database: &Path) -> Result<(), RelayError> {
    ["", "-wal", "-shm", "-journal"].iter().try_for_each(|suffix| remove_file(&with(database, suffix)))
}

fn remove_file(path: &Path) -> Result<(), RelayError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(failed(path, error)),
        _ => Ok(()),
    }
}

fn sync(folder: &Path) -> Result<(), RelayError> {
    fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(|error| failed(folder, error))
}

fn failed(path: &Path, error: std::io::Error) -> RelayError {
    if error.kind() == ErrorKind::StorageFull {
        return RelayError::DiskFull;
    }
    ConfigError::Io { path: path.to_owned(), error }.into()
}
