//! The relay's folder: `relay.toml`, `relay.key` with those before it, `relay.db` and `relay.lock`, readable by their owner alone.
//!
//! Invariant: a configuration with a key that this program does not know is refused, not ignored; and whoever holds the lock is
//! alone.

use std::fs::{self, OpenOptions};
use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use privity_protocol::suite::{Digest, SecretKey};
use serde::{Deserialize, Serialize};

use crate::audit::files;
use crate::keys::{self, Keys};
use crate::store::sqlite;

/// The configuration's file name.
pub const FILE: &str = "relay.toml";
/// The key's file name.
pub const KEY_FILE: &str = "relay.key";

/// The lock's file name.
pub const LOCK_FILE: &str = "relay.lock";

/// The files that make a folder a relay's.
pub(crate) fn files() -> [&'static str; 5] {
    [FILE, KEY_FILE, keys::ROTATIONS_FILE, sqlite::FILE, files::FOLDER]
}

/// What IT may set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The firm's name, shown to its people.
    pub org: String,
    /// Where to listen, UDP.
    pub listen: SocketAddr,
    /// The address that invites carry: what devices reach from outside.
    pub public: String,
    /// Connections at once.
    #[serde(default = "connections_max")]
    pub connections_max: usize,
    /// What to log: error, warn, info, debug.
    #[serde(default = "log")]
    pub log: String,
}

/// Bytes of a firm's name.
const ORG_MAX: usize = 128;

fn connections_max() -> usize {
    20_000
}

fn log() -> String {
    "info".to_owned()
}

/// What is wrong with the folder or its configuration; each says what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// `init` on a used folder.
    #[error("{0} has a relay already; choose an empty folder, or run it with `privity-relay run --data {0}`")]
    Used(PathBuf),
    /// No relay there.
    #[error("{0} has no relay; make one with `privity-relay init --data {0} --listen ADDR:PORT --org NAME`")]
    Missing(PathBuf),
    /// No relay there to restore.
    #[error("{0} has no relay.toml and relay.key; put those of the backup there first")]
    Incomplete(PathBuf),
    /// The file does not parse.
    #[error("{path} is wrong: {reason}; mend that line and start again")]
    Wrong {
        /// Which file.
        path: PathBuf,
        /// What the parser says.
        reason: String,
    },
    /// An address that invites can't carry.
    #[error("{0}")]
    Address(String),
    /// Another process runs this relay.
    #[error("{folder} is in use: the process with the id {pid} runs this relay; stop that one first")]
    Running {
        /// Which folder.
        folder: PathBuf,
        /// Whose, as far as the lock file tells.
        pid: String,
    },
    /// The file system failed.
    #[error("{path}: {error}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// What the system says.
        error: std::io::Error,
    },
}

impl Config {
    /// The address for invites: `public`, or `listen` where that means one machine.
    ///
    /// # Errors
    /// [`ConfigError::Address`] where it means all of them, or `public` is not HOST:PORT.
    pub fn public_address(listen: SocketAddr, public: Option<&str>) -> Result<String, ConfigError> {
        match public {
            Some(public) => {
                let good = public.rsplit_once(':').is_some_and(|(host, port)| {
                    !host.is_empty()
                        && !host.contains(|c: char| c.is_whitespace() || c == '/')
                        && port.parse::<u16>().is_ok_and(|port| port > 0)
                });
                let wrong = || ConfigError::Address(format!("--public {public} is not HOST:PORT"));
                good.then(|| public.to_owned()).ok_or_else(wrong)
            }
            None if listen.ip().is_unspecified() => Err(ConfigError::Address(format!(
                "--listen {listen} means every address of this machine, which no invite can carry; add --public HOST:PORT with \
                 the name or address that your people's devices reach"
            ))),
            None => Ok(listen.to_string()),
        }
    }

    /// The configuration of a new relay.
    ///
    /// # Errors
    /// [`ConfigError`] if the name, or the address that invites would carry, is no good.
    pub fn new(org: &str, listen: SocketAddr, public: Option<&str>) -> Result<Self, ConfigError> {
        let org = org.trim().to_owned();
        if listen.port() == 0 {
            return Err(ConfigError::Address("--listen needs a port; 4433 is a good one".to_owned()));
        }
        let public = Self::public_address(listen, public)?;
        let config = Self { org, listen, public, connections_max: connections_max(), log: log() };
        config.checked().map_err(ConfigError::Address)
    }

    fn checked(self) -> Result<Self, String> {
        if self.org.trim().is_empty() || self.org.len() > ORG_MAX || self.org.contains(char::is_control) {
            return Err(format!("org needs a name of at most {ORG_MAX} bytes on one line"));
        }
        if self.connections_max == 0 {
            return Err("connections_max is 0, so nobody could connect".to_owned());
        }
        Ok(self)
    }

    /// The hash of what is set, as the audit log names it.
    pub(crate) fn digest(&self) -> Digest {
        let text = toml::to_string(self).unwrap_or_default();
        Digest::of(&[b"privity/1 configuration\0", text.as_bytes()])
    }

    /// Writes configuration and key into a new folder.
    pub(crate) fn write(&self, folder: &Path, key: &SecretKey) -> Result<(), ConfigError> {
        private_folder(folder).map_err(|error| ConfigError::Io { path: folder.to_owned(), error })?;
        let text = toml::to_string(self)
            .map_err(|error| ConfigError::Wrong { path: folder.join(FILE), reason: error.to_string() })?;
        let text = format!("# Privity relay. Every setting is described in docs/operations.md.\n{text}");
        write_private(&folder.join(KEY_FILE), key.as_bytes())?;
        write_private(&folder.join(FILE), text.as_bytes())
    }

    /// Reads a folder: configuration and keys.
    ///
    /// # Errors
    /// [`ConfigError`] if there is none, or it is wrong.
    pub fn load(folder: &Path) -> Result<(Self, Keys), ConfigError> {
        let path = folder.join(FILE);
        if !path.exists() {
            return Err(ConfigError::Missing(folder.to_owned()));
        }
        let text = fs::read_to_string(&path).map_err(|error| ConfigError::Io { path: path.clone(), error })?;
        let wrong = |error: toml::de::Error| ConfigError::Wrong { path: path.clone(), reason: first_lines(&error) };
        let config: Self = toml::from_str(&text).map_err(wrong)?;
        let config = config.checked().map_err(|reason| ConfigError::Wrong { path: path.clone(), reason })?;
        Ok((config, Keys::load(folder)?))
    }
}

/// The right to run on a folder: held by one process at a time, given back by the system when that ends.
#[derive(Debug)]
pub(crate) struct Lock(#[expect(dead_code, reason = "held, not read")] fs::File);

/// Whether a relay runs on this folder.
pub fn is_running(folder: &Path) -> bool {
    Lock::take(folder).is_err()
}

impl Lock {
    pub(crate) fn take(folder: &Path) -> Result<Self, ConfigError> {
        let path = folder.join(LOCK_FILE);
        let failed = |error| ConfigError::Io { path: path.clone(), error };
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let mut file = options.open(&path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => {
                let mut pid = String::new();
                let _read = file.take(16).read_to_string(&mut pid);
                return Err(ConfigError::Running { folder: folder.to_owned(), pid: pid.trim().to_owned() });
            }
            Err(fs::TryLockError::Error(error)) => return Err(failed(error)),
        }
        file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id())).map_err(failed)?;
        Ok(Self(file))
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

/// A parser's message on one line.
fn first_lines(error: &toml::de::Error) -> String {
    let line = error.to_string();
    line.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('|')).collect::<Vec<_>>().join(" ")
}

fn write_private(path: &Path, bytes: &[u8]) -> Result<(), ConfigError> {
    let write = || {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(|error| ConfigError::Io { path: path.to_owned(), error })
}
