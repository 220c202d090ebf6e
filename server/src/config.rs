//! The relay's folder: `relay.toml`, `relay.key` and `relay.db`, readable by their owner alone.
//!
//! Invariant: a configuration with a key that this program does not know is refused, not ignored.

use std::fs::{self, OpenOptions};
use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use privity_protocol::suite::{SECRET_KEY_LEN, SecretKey};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::store::sqlite::private_folder;

/// The configuration's file name.
pub const FILE: &str = "relay.toml";
/// The key's file name.
pub const KEY_FILE: &str = "relay.key";

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

    /// Writes a new folder: configuration and key.
    ///
    /// # Errors
    /// [`ConfigError`] if it is used or the file system fails.
    pub fn create(&self, folder: &Path, key: &SecretKey) -> Result<(), ConfigError> {
        if [FILE, KEY_FILE, crate::store::sqlite::FILE].iter().any(|name| folder.join(name).exists()) {
            return Err(ConfigError::Used(folder.to_owned()));
        }
        private_folder(folder).map_err(|error| ConfigError::Io { path: folder.to_owned(), error })?;
        let text = toml::to_string(self)
            .map_err(|error| ConfigError::Wrong { path: folder.join(FILE), reason: error.to_string() })?;
        let text = format!("# Privity relay. Every setting is described in docs/operations.md.\n{text}");
        write_private(&folder.join(KEY_FILE), key.as_bytes())?;
        write_private(&folder.join(FILE), text.as_bytes())
    }

    /// Reads a folder: configuration and key.
    ///
    /// # Errors
    /// [`ConfigError`] if there is none, or it is wrong.
    pub fn load(folder: &Path) -> Result<(Self, SecretKey), ConfigError> {
        let path = folder.join(FILE);
        if !path.exists() {
            return Err(ConfigError::Missing(folder.to_owned()));
        }
        let text = fs::read_to_string(&path).map_err(|error| ConfigError::Io { path: path.clone(), error })?;
        let wrong = |error: toml::de::Error| ConfigError::Wrong { path: path.clone(), reason: first_lines(&error) };
        let config: Self = toml::from_str(&text).map_err(wrong)?;
        let path = folder.join(KEY_FILE);
        let mut seeds = Zeroizing::new(Vec::with_capacity(SECRET_KEY_LEN + 1));
        fs::File::open(&path)
            .and_then(|file| file.take(SECRET_KEY_LEN as u64 + 1).read_to_end(&mut seeds))
            .map_err(|error| ConfigError::Io { path: path.clone(), error })?;
        let key = SecretKey::from_slice(&seeds)
            .map_err(|_| ConfigError::Wrong { path, reason: "it is not a key of 64 bytes".to_owned() })?;
        Ok((config, key))
    }
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
