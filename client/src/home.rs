//! A profile's folder: where it is, who holds it, and how its vault is opened.
//!
//! Invariant: one process holds a profile at a time; the lock goes with the process, however it ends.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use privity_protocol::suite;
use zeroize::Zeroizing;

use crate::error::Error;
use crate::vault::{self, PASSPHRASE_MIN, Vault, private_folder};
use crate::{ask, keystore, out};

const LOCK_FILE: &str = "lock";
/// How long a second process waits for the first.
const LOCK_WAIT: Duration = Duration::from_secs(10);
const LOCK_POLL: Duration = Duration::from_millis(100);
const PASSPHRASE_MAX: u64 = 4096;
/// How often a passphrase may be typed wrongly.
const ATTEMPTS: usize = 5;

/// After how many it is said what to do about a forgotten one.
const HINT_AFTER: usize = 3;

/// What to do about a forgotten passphrase.
fn forgotten() -> String {
    "It is the one that you chose for this device when you joined; capitals count. If you have forgotten it, nobody can open this profile: \
     begin again in another folder with your recovery sheet (`privity --home DIR recovery restore`), or have somebody who invites people at \
     your firm run `privity invite new --for` your handle"
        .to_owned()
}

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
        for attempt in 1..ATTEMPTS {
            match Vault::open(&self.folder, &self.passphrase(prompt)?) {
                Err(Error::Usage(why)) if self.passphrase_file.is_none() => {
                    out::note(&why);
                    if attempt == HINT_AFTER {
                        out::note(&forgotten());
                    }
                }
                opened => return opened,
            }
        }
        Vault::open(&self.folder, &self.passphrase(prompt)?).map_err(|error| match error {
            Error::Usage(_) => {
                Error::Usage(format!("wrong passphrase {ATTEMPTS} times; nothing was changed. {}", forgotten()))
            }
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
        if self.passphrase_file.is_none() && ask::is_possible() {
            out::note(&format!(
                "This device's passphrase: at least {PASSPHRASE_MIN} characters, such as four or five words that have nothing to do with \
                 each other. It is needed whenever Privity starts, and nobody can look it up for you. Enter alone makes one."
            ));
        }
        loop {
            let mut first = self.passphrase("Choose a passphrase for this device: ")?;
            if self.passphrase_file.is_some() {
                vault::is_chosen(&first)?;
                return Ok(first);
            }
            if first.is_empty() {
                first = made();
                out::note(&format!(
                    "Write this down and keep it apart from this device:  {}",
                    String::from_utf8_lossy(&first)
                ));
            }
            if let Err(why) = vault::is_chosen(&first) {
                out::note(&why.to_string());
            } else if first == self.passphrase("The same once more: ")? {
                return Ok(first);
            } else {
                out::note("The two differ; once more from the beginning.");
            }
        }
    }
}

/// A passphrase of 80 random bits, in groups that are easy to copy.
fn made() -> Zeroizing<Vec<u8>> {
    let bytes = Zeroizing::new(suite::random::<MADE>());
    let mut made = Zeroizing::new(Vec::with_capacity(MADE + MADE / GROUP));
    for (index, byte) in bytes.iter().enumerate() {
        if index > 0 && index.is_multiple_of(GROUP) {
            made.push(b'-');
        }
        made.push(LETTERS.get(usize::from(byte & 31)).copied().unwrap_or(b'a'));
    }
    made
}

/// Letters and digits that nobody takes for each other: 32, so that each is worth five bits.
const LETTERS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
/// Characters of a passphrase that is made, and of each group in it.
const MADE: usize = 16;
const GROUP: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_passphrase_that_is_made_may_be_chosen_and_is_another_each_time() {
        let (one, other) = (made(), made());
        assert_eq!(one.len(), 19);
        assert_ne!(*one, *other);
        vault::is_chosen(&one).unwrap();
        assert_eq!(LETTERS.iter().collect::<std::collections::BTreeSet<_>>().len(), 32);
    }

    #[test]
    fn a_passphrase_that_is_guessed_at_once_is_not_taken() {
        for poor in ["", "horse", "one thing", "elevenchars", "aaaaaaaaaaaaaaaa", "121212121212"] {
            assert_eq!(vault::is_chosen(poor.as_bytes()).unwrap_err().exit_code(), 1, "{poor}");
        }
        for good in ["correct horse battery", "twelve chars", "Größe über alles"] {
            vault::is_chosen(good.as_bytes()).unwrap();
        }
    }
}
