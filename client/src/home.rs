//! A profile's folder: where it is, who holds it, and how its vault is opened.
//!
//! Invariant: one process holds a profile at a time; the lock goes with the process, however it ends.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use zeroize::Zeroizing;

use crate::error::Error;
use crate::vault::{self, Vault, private_folder};
use crate::{ask, keystore, out};

const LOCK_FILE: &str = "lock";
/// How long a second process waits for the first.
const LOCK_WAIT: Duration = Duration::from_secs(10);
const LOCK_POLL: Duration = Duration::from_millis(100);
const PASSPHRASE_MAX: u64 = 4096;
/// How often a passphrase may be typed wrongly.
const ATTEMPTS: usize = 5;

/// A profile's folder.
#[derive(Debug, Clone)]
pub struct Home {
    folder: PathBuf,
    passphrase_file: Option<PathBuf>,
}

/// Holds a profile against other processes.
#[derive(Debug)]
pub struct Held(#[expect(dead_code, reason = "held for its lock alone")] File);

impl Home {
    /// The folder asked for, or `$XDG_DATA_HOME/privity`, or `~/.local/share/privity`.
    ///
    /// # Errors
    /// [`Error::Usage`] where there is no home folder at all.
    pub fn new(asked: Option<PathBuf>, passphrase_file: Option<PathBuf>) -> Result<Self, Error> {
        let absolute = |path: PathBuf| path.is_absolute().then_some(path);
        let folder = asked
            .or_else(|| {
                std::env::var_os("XDG_DATA_HOME").map(PathBuf::from).and_then(absolute).map(|p| p.join("privity"))
            })
            .or_else(|| std::env::home_dir().and_then(absolute).map(|home| home.join(".local/share/privity")))
            .ok_or_else(|| Error::Usage("no home folder; say where with --home DIR".to_owned()))?;
        Ok(Self { folder, passphrase_file })
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Whether somebody has joined here.
    pub fn is_joined(&self) -> bool {
        self.folder.join(vault::FILE).exists()
    }

    /// What to do where nobody has joined.
    pub fn not_joined(&self) -> Error {
        Error::Usage(format!(
            "nobody has joined in {}; ask for an invite and run `privity join URL`",
            self.folder.display()
        ))
    }

    /// As [`Self::hold`], where somebody has joined; elsewhere nothing is made.
    ///
    /// # Errors
    /// [`Error::Usage`] if nobody has; else as [`Self::hold`].
    pub fn hold_joined(&self) -> Result<Held, Error> {
        if self.is_joined() { self.hold() } else { Err(self.not_joined()) }
    }

    /// Takes the profile for this process.
    ///
    /// # Errors
    /// [`Error::Machine`] naming the process that holds it, after ten seconds.
    pub fn hold(&self) -> Result<Held, Error> {
        private_folder(&self.folder)?;
        let path = self.folder.join(LOCK_FILE);
        let mut file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path)?;
        file.set_permissions(Permissions::from_mode(0o600))?;
        let until = Instant::now() + LOCK_WAIT;
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(std::fs::TryLockError::WouldBlock) if Instant::now() < until => std::thread::sleep(LOCK_POLL),
                Err(std::fs::TryLockError::WouldBlock) => {
                    let mut pid = String::new();
                    let _read = file.take(16).read_to_string(&mut pid);
                    return Err(Error::Machine(format!(
                        "another privity (process {}) is using {}; end it first, or do this in it if it is a chat",
                        pid.trim(),
                        self.folder.display()
                    )));
                }
                Err(std::fs::TryLockError::Error(error)) => return Err(error.into()),
            }
        }
        file.set_len(0)?;
        writeln!(file, "{}", std::process::id())?;
        Ok(Held(file))
    }

    /// Opens the vault: with the passphrase file, the unlocked key store, or by asking.
    ///
    /// # Errors
    /// [`Error::Usage`] if nobody has joined here, or there is no way to a passphrase.
    pub fn open_vault(&self) -> Result<Vault, Error> {
        if !self.is_joined() {
            return Err(self.not_joined());
        }
        if self.passphrase_file.is_none()
            && let Some(root) = keystore::get(&self.folder)
        {
            return Vault::open_unlocked(&self.folder, &root);
        }
        self.open_by_passphrase("Passphrase: ")
    }

    /// Opens the vault with its passphrase, from the file or asked for, a few times where it is typed.
    fn open_by_passphrase(&self, prompt: &str) -> Result<Vault, Error> {
        Vault::check(&self.folder)?;
        for _ in 1..ATTEMPTS {
            match Vault::open(&self.folder, &self.passphrase(prompt)?) {
                Err(Error::Usage(why)) if self.passphrase_file.is_none() => out::note(&why),
                opened => return opened,
            }
        }
        Vault::open(&self.folder, &self.passphrase(prompt)?).map_err(|error| match error {
            Error::Usage(_) => Error::Usage(format!("wrong passphrase {ATTEMPTS} times; nothing was changed")),
            other => other,
        })
    }

    /// Changes the passphrase: the old one is needed even where the profile is unlocked, the new one comes from a file or is asked for twice.
    ///
    /// # Errors
    /// [`Error::Usage`] for a wrong passphrase, or a new one that will not do; else as [`Vault::change_passphrase`].
    pub fn change_passphrase(&self, new_file: Option<PathBuf>) -> Result<(), Error> {
        if new_file.is_none() && !ask::is_possible() {
            return Err(Error::Usage(
                "--new-passphrase-file is missing; the old one is in --passphrase-file".to_owned(),
            ));
        }
        let mut vault = self.open_by_passphrase("The passphrase it has: ")?;
        let new = Self { folder: self.folder.clone(), passphrase_file: new_file };
        vault.change_passphrase(&self.folder, &new.new_passphrase()?)
    }

    /// The passphrase: from the file, or asked for without showing it.
    ///
    /// # Errors
    /// [`Error::Usage`] if there is neither a file nor a terminal.
    pub fn passphrase(&self, prompt: &str) -> Result<Zeroizing<Vec<u8>>, Error> {
        if let Some(path) = &self.passphrase_file {
            let mut bytes = Zeroizing::new(Vec::new());
            let read = File::open(path).and_then(|file| file.take(PASSPHRASE_MAX).read_to_end(&mut bytes));
            read.map_err(|error| Error::Usage(format!("the passphrase file {}: {error}", path.display())))?;
            if bytes.last() == Some(&b'\n') {
                bytes.pop();
            }
            return Ok(bytes);
        }
        if !ask::is_possible() {
            return Err(Error::Usage(
                "this profile is locked; use --passphrase-file FILE, or run `privity unlock` in a terminal first"
                    .to_owned(),
            ));
        }
        Ok(Zeroizing::new(ask::hidden(prompt)?.into_bytes()))
    }

    /// A new passphrase, asked for twice where it is typed, until the two are the same.
    ///
    /// # Errors
    /// As [`Self::passphrase`].
    pub fn new_passphrase(&self) -> Result<Zeroizing<Vec<u8>>, Error> {
        loop {
            let first = self.passphrase("Choose a passphrase for this device (several words): ")?;
            if self.passphrase_file.is_some() {
                return Ok(first);
            }
            if first.is_empty() {
                out::note("An empty passphrase protects nothing; choose one of several words.");
            } else if first == self.passphrase("The same once more: ")? {
                return Ok(first);
            } else {
                out::note("The two differ; once more from the beginning.");
            }
        }
    }
}
