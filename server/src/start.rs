//! A relay that runs: started, asked where it listens, stopped.
//!
//! 1. The folder is read and locked; the database opened, and held against the audit log's files; the port bound. Whatever is wrong so
//!    far, [`Relay::start`] says.
//! 2. From then on a thread of its own serves, until it is stopped or the database fails.
//! 3. On the way out: links end, the group being committed is finished, the database's log is folded into its file.
//!
//! Invariant: one process runs on a folder at a time, and a relay that has stopped without an error has lost nothing it acknowledged.

use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use privity_protocol::log::{Act, Event};
use privity_protocol::suite::Digest;
use tokio::sync::{oneshot, watch};
use tracing::info;

use crate::audit::{self, Signer};
use crate::clock;
use crate::config::{Config, ConfigError, Lock};
use crate::keys::{self, Keys};
use crate::quic::{Shared, listen, serve};
use crate::store::sqlite::{self, Sqlite};
use crate::store::{Read as _, Store as _, StoreError, Write};
use crate::writer::WriterThread;

/// Why a relay does not start, or stopped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RelayError {
    /// The folder or its configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The database.
    #[error("{0}; the relay stopped rather than go on with it: look at the disk, then start the relay again")]
    Store(StoreError),
    /// What was to be restored is no backup of this relay.
    #[error("{path} is no good database of a relay: {reason}; nothing was changed")]
    Backup {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A backup was not made.
    #[error("the relay could not be backed up: {0}; nothing of it was kept")]
    NotBackedUp(StoreError),
    /// The disk has no room.
    #[error("the disk is full; make room and try again")]
    DiskFull,
    /// The database was put back in time by hand.
    #[error(
        "the audit log on disk has {there} entries, and the database, which has {here}, is not the one that wrote them: it is an older \
         copy. If you have restored it, say so with `privity-relay restore --data DIR`; devices then mend what they can"
    )]
    RolledBack {
        /// How many leaves the checkpoint on disk has.
        there: u64,
        /// How many the database has.
        here: u64,
    },
    /// A file of the audit log is no good.
    #[error("{path}: {reason}; move the folder `audit` away, and the relay makes it anew from the database")]
    Log {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// What was to be made is there.
    #[error("{0} is there already; choose another name")]
    Exists(PathBuf),
    /// There is an organisation, so there are registrars who invite.
    #[error("the organisation has its key already; a registrar invites others with `privity invite new`")]
    Founded,
    /// The port can't be had.
    #[error(
        "can't listen on UDP {listen}: {error}; is another relay running? Stop it, or change `listen` in relay.toml"
    )]
    Listen {
        /// Where.
        listen: SocketAddr,
        /// What the system says.
        error: std::io::Error,
    },
    /// The system refused something else.
    #[error("the system refused: {0}")]
    System(String),
}

impl RelayError {
    /// Whether the operator asked for what can't be: exit code 1, not 2.
    pub fn is_wrong_use(&self) -> bool {
        match self {
            Self::Config(error) => !matches!(error, ConfigError::Io { .. } | ConfigError::Running { .. }),
            Self::Founded | Self::Backup { .. } | Self::RolledBack { .. } | Self::Log { .. } | Self::Exists(_) => true,
            _ => false,
        }
    }
}

impl From<StoreError> for RelayError {
    fn from(error: StoreError) -> Self {
        if error.is_disk_full() { Self::DiskFull } else { Self::Store(error) }
    }
}

/// A running relay. Dropping it stops it.
#[derive(Debug)]
pub struct Relay {
    address: SocketAddr,
    stop: watch::Sender<bool>,
    ended: oneshot::Receiver<()>,
    thread: Option<JoinHandle<Result<(), RelayError>>>,
}

impl Relay {
    /// Starts the relay of a folder that [`crate::setup::init`] made.
    ///
    /// ```
    /// use std::net::UdpSocket;
    ///
    /// use privity_server::{Relay, config::Config, setup};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let folder = tempfile::tempdir()?;
    /// let free = UdpSocket::bind("127.0.0.1:0")?.local_addr()?;
    /// let first = setup::init(folder.path(), &Config::new("Smith & Partners", free, None)?)?;
    ///
    /// let relay = Relay::start(folder.path())?;
    /// assert_eq!(relay.address(), free);
    /// assert!(first.url.starts_with(&format!("privity://{free}/")));
    /// relay.stop()?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`RelayError`] if the folder, its configuration, its database or the port is not to be had.
    pub fn start(folder: &Path) -> Result<Self, RelayError> {
        let (config, _) = Config::load(folder)?;
        let lock = Lock::take(folder)?;
        Sqlite::upgrade(&folder.join(sqlite::FILE))?;
        let mut store = Sqlite::open(folder)?;
        // Nothing is added to a database that is not the one it should be.
        audit::files::size(folder, &Signer::new(&Keys::load(folder)?, &store.incarnation())?, &store)?;
        let keys = keys::settle(folder, &mut store)?;
        let signer = Arc::new(Signer::new(&keys, &store.incarnation())?);
        log_configuration(&mut store, &config)?;
        let listen = config.listen;
        let socket = UdpSocket::bind(listen).map_err(|error| RelayError::Listen { listen, error })?;
        let address = socket.local_addr().map_err(system)?;
        let (bell, publisher) = audit::publish(folder, Arc::clone(&signer), &store.readers())?;
        let (shared, writer) = Shared::start(keys, &config, Box::new(store), signer, bell).map_err(system)?;
        let (stop, stopping) = watch::channel(false);
        let (ending, ended) = oneshot::channel();
        let stop_also = stop.clone();
        // The runtime lives and dies on its own thread: whoever starts a relay may be inside another one.
        let thread = std::thread::Builder::new().name("relay".to_owned()).spawn(move || {
            let done = run(socket, shared, writer, &stop_also, stopping);
            // The writer has ended, and with it the last who could ring for it.
            let _published = publisher.join();
            drop((lock, ending));
            done
        });
        Ok(Self { address, stop, ended, thread: Some(thread.map_err(system)?) })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits until it ends by itself, which only an error makes it do; [`Self::stop`] tells which.
    pub async fn ended(&mut self) {
        // The sender is dropped when the thread ends.
        let _dropped = (&mut self.ended).await;
    }

    /// Stops it, and waits until everything is on disk.
    ///
    /// # Errors
    /// [`RelayError`] if the database failed, now or before.
    pub fn stop(mut self) -> Result<(), RelayError> {
        self.join()
    }

    fn join(&mut self) -> Result<(), RelayError> {
        self.stop.send_replace(true);
        match self.thread.take() {
            Some(thread) => thread.join().unwrap_or_else(|_| Err(RelayError::System("the relay panicked".to_owned()))),
            None => Ok(()),
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        // Whoever wants to know calls `stop`.
        let _ended = self.join();
    }
}

/// The log says with what the relay runs, where that is not what it has said last.
fn log_configuration(store: &mut Sqlite, config: &Config) -> Result<(), RelayError> {
    let version = env!("CARGO_PKG_VERSION").to_owned();
    let configuration = config.digest();
    let named = Digest::of(&[configuration.as_bytes(), version.as_bytes()]);
    if store.configuration()? == Some(named) {
        return Ok(());
    }
    let event = Event { at: clock::now(), act: Act::Configured { configuration, version } };
    store.begin()?;
    store.apply(&[Write::Log { person: None, event }, Write::Configuration(named)])?;
    Ok(store.commit()?)
}

fn run(
    socket: UdpSocket,
    shared: Shared,
    writer: WriterThread,
    stop: &watch::Sender<bool>,
    stopping: watch::Receiver<bool>,
) -> Result<(), RelayError> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(system)?;
    runtime.block_on(async {
        let endpoint = listen(socket, &shared).map_err(system)?;
        let mut serving = tokio::spawn(serve(endpoint, Arc::new(shared), stopping));
        let mut watching = tokio::task::spawn_blocking(move || writer.join());
        let (served, written) = tokio::select! {
            served = &mut serving => (served, None),
            // The store failed: nobody else is to be answered.
            written = &mut watching => {
                stop.send_replace(true);
                (serving.await, Some(written))
            }
        };
        served.map_err(system)?;
        let written = match written {
            Some(written) => written,
            None => watching.await,
        };
        written.map_err(system)?.map_err(|_| RelayError::System("the writer panicked".to_owned()))??;
        info!("stopped");
        Ok(())
    })
}

fn system(error: impl std::fmt::Display) -> RelayError {
    RelayError::System(error.to_string())
}
