//! The relay's doors: accepting connections, opening links, and seeing them to their end.
//!
//! 1. An unvalidated address gets a Retry (RFC 9000, section 8.1); nothing is kept for it.
//! 2. Within [`limits::ADMISSION_MS`] the peer has shown a good hello and is admitted, or is gone.
//! 3. A device's link takes the place of the one before, and is shown the newest idem only when everything asked there is decided.
//! 4. A newcomer's link ends within [`limits::NEWCOMER_MS`]; a device's is [`link`].
//!
//! Invariant: what a peer can make the relay hold is bounded before and after admission, and every task ends with [`serve`].

use std::net::UdpSocket;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use privity_protocol::error::Refused;
use privity_protocol::frame::{AcceptedIdem, AdmittedBody, FromRelay, Hello, HelloBody, Reply, Request, ToRelay};
use privity_protocol::limits;
use privity_protocol::link::Claimed;
use privity_protocol::suite::PublicKey;
use privity_transport::{self as transport, TransportError};
use quinn::{Connection, Endpoint, Incoming, RecvStream, SendStream, TokioRuntime};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::{debug, info, warn};

use crate::audit::{Bell, Signer};
use crate::clock::now;
use crate::config::Config;
use crate::hub::{Hub, Seat};
use crate::keys::Keys;
use crate::policy::{Caller, No, refusal};
use crate::relay::admission::{self, Judged};
use crate::relay::{self, From, history};
use crate::store::{OpenReader, Read, Reader, Store, StoreError};
use crate::writer::{Writer, WriterThread};

use doors::{Doors, Place, Shut};
use link::End;

mod doors;
mod link;

/// Reading connections to the store at once.
const READERS_MAX: usize = 8;
/// The largest frame of a newcomer: a registration has five keys and signatures of 2 to 3.4 KB.
const NEWCOMER_FRAME_MAX: usize = 64 * 1024;
/// How long links get to end when the relay shuts down, and then their last packets to leave.
const GOING: Duration = Duration::from_secs(3);
const LEAVING: Duration = Duration::from_secs(2);
/// How often the log says that somebody was turned away.
const COMPLAIN_EVERY: Duration = Duration::from_secs(60);

/// Views of the store for links, opened when needed.
pub(crate) struct Readers {
    idle: Mutex<Vec<Box<dyn Reader>>>,
    open: OpenReader,
    turns: Semaphore,
}

impl std::fmt::Debug for Readers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Readers")
    }
}

impl Readers {
    fn new(open: OpenReader) -> Self {
        Self { idle: Mutex::default(), open, turns: Semaphore::new(READERS_MAX) }
    }

    /// Asks a question; whatever it reads is of one moment.
    async fn read<T: Send + 'static>(
        self: &Arc<Self>,
        question: impl FnOnce(&dyn Read) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let _turn = self.turns.acquire().await.map_err(|_| StoreError::Damaged("reader"))?;
        let readers = Arc::clone(self);
        let task = tokio::task::spawn_blocking(move || {
            let idle = readers.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let mut reader = match idle {
                Some(reader) => reader,
                None => (readers.open)()?,
            };
            reader.hold()?;
            let answer = question(reader.as_ref());
            reader.release()?;
            readers.idle.lock().unwrap_or_else(PoisonError::into_inner).push(reader);
            answer
        });
        task.await.map_err(|_| StoreError::Damaged("reader"))?
    }
}

/// Everything a link needs.
#[derive(Debug)]
pub(crate) struct Shared {
    keys: Keys,
    firm: String,
    incarnation: [u8; 16],
    writer: Writer,
    readers: Arc<Readers>,
    hub: Arc<Hub>,
    doors: Arc<Doors>,
    signer: Arc<Signer>,
}

impl Shared {
    /// Puts the pieces around an opened store together, and starts its writer.
    ///
    /// # Errors
    /// [`std::io::Error`] if the system gives no thread.
    pub(crate) fn start(
        keys: Keys,
        config: &Config,
        store: Box<dyn Store>,
        signer: Arc<Signer>,
        bell: Bell,
    ) -> std::io::Result<(Self, WriterThread)> {
        let hub = Arc::new(Hub::default());
        let incarnation = store.incarnation();
        let readers = Arc::new(Readers::new(store.readers()));
        let (writer, thread) = Writer::start(store, Arc::clone(&hub), bell)?;
        let doors = Arc::new(Doors::new(config.connections_max));
        let firm = config.org.clone();
        Ok((Self { keys, firm, incarnation, writer, readers, hub, doors, signer }, thread))
    }

    /// Answers a request that [`relay::only_reads`], from what has been committed.
    async fn answer(&self, from: From, request: Request) -> Reply {
        let signer = Arc::clone(&self.signer);
        let (asked, by) = (request.clone(), from.clone());
        let read = self.readers.read(move |store| {
            let reply = match &asked {
                Request::Checkpoint => refusal(checkpoint(store, &by, &signer))?,
                _ => refusal(relay::answer(store, &by, &asked, now()))?,
            };
            let news = reply.is_err() && refusal(relay::refusal_is_news(store, &asked))?.unwrap_or(false);
            Ok((reply, news))
        });
        match read.await {
            // The writer decides it once more, and logs what it decides.
            Ok((_, true)) => self.writer.ask(from, request).await,
            Ok((reply, false)) => reply.unwrap_or_else(Reply::Refused),
            Err(failure) => {
                warn!(%failure, "the store could not be read");
                Reply::Refused(Refused::Storage)
            }
        }
    }
}

/// A checkpoint of the log as it is committed, to an admitted device.
fn checkpoint(store: &dyn Read, from: &From, signer: &Signer) -> Result<Reply, No> {
    let From::Device(caller) = from else { return Err(Refused::not_allowed("register first").into()) };
    admission::still(store, *caller)?;
    let (_, note) = signer.note(history::state(store)?, now())?;
    Ok(Reply::Checkpoint { note, keys: signer.keys().clone() })
}

/// Puts QUIC on a bound socket; inside the runtime that serves it.
///
/// # Errors
/// [`std::io::Error`] if the key does not load or the system refuses.
pub(crate) fn listen(socket: UdpSocket, shared: &Shared) -> std::io::Result<Endpoint> {
    let server = transport::server_config_of(&shared.keys.served()).map_err(std::io::Error::other)?;
    Endpoint::new(transport::endpoint_config(shared.keys.newest()), Some(server), socket, Arc::new(TokioRuntime))
}

/// Takes connections until `stop` is true. Returns once every link has ended.
pub(crate) async fn serve(endpoint: Endpoint, shared: Arc<Shared>, mut stop: watch::Receiver<bool>) {
    let mut links = JoinSet::new();
    let mut complained: Option<Instant> = None;
    loop {
        let incoming = tokio::select! {
            incoming = endpoint.accept() => incoming,
            Some(_ended) = links.join_next() => continue,
            _ = stop.wait_for(|stop| *stop) => break,
        };
        let Some(incoming) = incoming else { break };
        if !incoming.remote_address_validated() {
            if incoming.may_retry() {
                let _sent = incoming.retry();
            }
            continue;
        }
        match shared.doors.enter(incoming.remote_address().ip()) {
            Ok(place) => {
                let (shared, stop) = (Arc::clone(&shared), stop.clone());
                links.spawn(async move {
                    if let Err(reason) = link(incoming, place, &shared, stop).await {
                        debug!(%reason, "link ended");
                    }
                });
            }
            Err(shut) => {
                incoming.refuse();
                if complained.is_none_or(|at| at.elapsed() > COMPLAIN_EVERY) {
                    complained = Some(Instant::now());
                    complain(shut);
                }
            }
        }
    }
    info!("stopping: no new connections");
    let _in_time = timeout(GOING, async { while links.join_next().await.is_some() {} }).await;
    endpoint.close(transport::CLOSE_GOING, b"the relay is shutting down");
    links.shutdown().await;
    let _in_time = timeout(LEAVING, endpoint.wait_idle()).await;
}

fn complain(shut: Shut) {
    match shut {
        Shut::Connections => warn!("connections_max reached; raise it in relay.toml if these are your own people"),
        Shut::Strangers => warn!("too many connections that are not admitted yet; turning new ones away"),
    }
}

/// One connection, from its first packet to its end.
async fn link(
    incoming: Incoming,
    mut place: Place,
    shared: &Arc<Shared>,
    mut stop: watch::Receiver<bool>,
) -> Result<(), End> {
    let peer = incoming.remote_address();
    let opened = tokio::select! {
        opened = timeout(Duration::from_millis(limits::ADMISSION_MS), open(incoming, shared)) => opened,
        _ = stop.wait_for(|stop| *stop) => return Ok(()),
    };
    let Ok(opened) = opened else {
        debug!(%peer, "not admitted in time");
        return Ok(());
    };
    let (connection, send, receive, admission) = opened?;
    match admission {
        Err(reason) => {
            info!(%peer, %reason, "refused");
            Ok(())
        }
        Ok(Guest::Newcomer(key)) => tokio::select! {
            ended = newcomer(&connection, send, receive, From::Newcomer(key), shared) => ended,
            _ = stop.wait_for(|stop| *stop) => {
                connection.close(transport::CLOSE_GOING, b"the relay is shutting down");
                Ok(())
            }
        },
        Ok(Guest::Device(caller, seat)) => {
            place.admitted();
            link::run(connection, send, receive, (caller, seat), shared, stop).await
        }
    }
}

/// Who was let in.
enum Guest {
    Newcomer(PublicKey),
    Device(Caller, Seat),
}

type Opened = (Connection, SendStream, RecvStream, Result<Guest, Refused>);

/// The handshake and the hello.
async fn open(incoming: Incoming, shared: &Arc<Shared>) -> Result<Opened, TransportError> {
    let connection = incoming.accept()?.await?;
    let (mut send, mut receive) = connection.accept_bi().await?;
    let hello: Hello = transport::read(&mut receive, limits::HELLO_MAX).await?;
    let admission = match admit(&connection, &hello, shared).await? {
        Ok((guest, answer)) => {
            transport::write(&mut send, &answer).await?;
            Ok(guest)
        }
        Err(refused) => {
            transport::write(&mut send, &FromRelay::Refused(refused.clone())).await?;
            let _finished = send.finish();
            let _seen = send.stopped().await;
            connection.close(transport::CLOSE_REFUSED, b"refused");
            Err(refused)
        }
    };
    Ok((connection, send, receive, admission))
}

/// Judges a hello: who it is, and the signed answer; or why not.
async fn admit(
    connection: &Connection,
    hello: &Hello,
    shared: &Arc<Shared>,
) -> Result<Result<(Guest, FromRelay), Refused>, TransportError> {
    let claimed = match Claimed::read(transport::channel(connection)?, hello) {
        Ok(claimed) => claimed,
        Err(privity_protocol::error::Error::Refused(refused)) => return Ok(Err(refused)),
        Err(error) => return Ok(Err(Refused::not_allowed(error.to_string()))),
    };
    // What TLS has shown is what signs the answer.
    let (key, rotations) = shared.keys.shown(transport::asked_for(connection).as_deref());
    let (Ok(relay_key), judged) = (key.public(), enter(&claimed.body, shared).await) else {
        return Ok(Err(Refused::Storage));
    };
    let (Judged { idem, key_packages, ready, organisation, admitted, .. }, guest) = match judged {
        Ok(entered) => entered,
        Err(refused) => return Ok(Err(refused)),
    };
    if !admitted {
        // Another instance took over in between.
        return Ok(Err(Refused::Replaced));
    }
    let answer = AdmittedBody {
        version: claimed.version,
        relay_key,
        incarnation: shared.incarnation,
        now: now(),
        idem: idem.map(|row| AcceptedIdem { idem: row.idem, parts: row.parts, mac: row.mac }),
        key_packages,
        ready,
        organisation,
        firm: shared.firm.clone(),
        rotations,
    };
    let admitted = claimed.admit(&answer, key);
    Ok(admitted.map(|admitted| (guest, FromRelay::Admitted(admitted))).map_err(|_| Refused::Storage))
}

/// Who said hello; a device has taken its seat, and what is said of it is so once its link before has nothing in flight any more.
async fn enter(hello: &HelloBody, shared: &Arc<Shared>) -> Result<(Judged, Guest), Refused> {
    let judged = judge(hello, shared).await?;
    let caller = match &judged.from {
        From::Device(caller) => *caller,
        From::Newcomer(key) => {
            let guest = Guest::Newcomer(key.clone());
            return Ok((judged, guest));
        }
    };
    // From here on the link before enqueues nothing; behind what it has, the writer admits this one.
    let seat = Seat::take(&shared.hub, caller);
    match shared.writer.admit(caller.device, caller.instance).await {
        Reply::Refused(refused) => Err(refused),
        // What is said of the device is read again: of the time after that.
        _ => Ok((judge(hello, shared).await?, Guest::Device(caller, seat))),
    }
}

/// Who said hello, from what has been committed.
async fn judge(hello: &HelloBody, shared: &Arc<Shared>) -> Result<Judged, Refused> {
    let hello = hello.clone();
    let read = shared.readers.read(move |store| refusal(admission::judge(store, &hello)));
    read.await.unwrap_or_else(|failure| {
        warn!(%failure, "the store could not be read");
        Err(Refused::Storage)
    })
}

/// A newcomer's link: a few requests, one at a time, within one deadline.
async fn newcomer(
    connection: &Connection,
    mut send: SendStream,
    mut receive: RecvStream,
    from: From,
    shared: &Arc<Shared>,
) -> Result<(), End> {
    const REQUESTS_MAX: usize = 8;
    let talk = async {
        for _ in 0..REQUESTS_MAX {
            let asked: ToRelay = transport::read(&mut receive, NEWCOMER_FRAME_MAX).await?;
            let address = connection.remote_address().ip();
            let reply = match shared.doors.waits(address, Instant::now()) {
                Some(wait) => {
                    let after_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX).max(1);
                    Reply::Refused(Refused::Slow { after_ms })
                }
                None if relay::only_reads(&asked.request) => shared.answer(from.clone(), asked.request).await,
                None => shared.writer.ask(from.clone(), asked.request).await,
            };
            if matches!(
                reply,
                Reply::Refused(Refused::Invite { .. } | Refused::Handle { .. } | Refused::Malformed { .. })
            ) {
                shared.doors.refused(address, Instant::now());
            }
            transport::write(&mut send, &FromRelay::Reply { id: asked.id, reply }).await?;
        }
        // The answer is on its way; the newcomer closes.
        let _closed = connection.closed().await;
        Ok::<_, TransportError>(())
    };
    let ended = timeout(Duration::from_millis(limits::NEWCOMER_MS), talk).await;
    connection.close(transport::CLOSE_DONE, b"");
    Ok(ended.unwrap_or(Ok(()))?)
}
