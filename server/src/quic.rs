//! The relay's doors: accepting connections, opening links, and carrying frames both ways.
//!
//! 1. An unvalidated address gets a Retry (RFC 9000, section 8.1); nothing is kept for it.
//! 2. Within [`limits::ADMISSION_MS`] the peer has shown a good hello and is admitted, or is gone.
//! 3. Each link has a reader, which passes requests to the writer, and a sender, which owns the stream back.
//!
//! Invariant: what a peer can make the relay hold is bounded before and after admission, and a stalled reader is cut off after
//! [`limits::WRITE_MS`].

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use privity_protocol::error::Refused;
use privity_protocol::frame::{AcceptedIdem, AdmittedBody, Event, FromRelay, Hello, Reply, Request, Rights, ToRelay};
use privity_protocol::ids::{MailboxId, Position};
use privity_protocol::limits;
use privity_protocol::link::Claimed;
use privity_protocol::suite::SecretKey;
use privity_transport::{self as transport, TransportError};
use quinn::{Connection, Endpoint, Incoming, RecvStream, SendStream};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::{debug, info, warn};

use crate::clock::now;
use crate::hub::{Hub, Item, Outbox};
use crate::policy::Caller;
use crate::relay::From;
use crate::store::{Read, Store, StoreError};
use crate::writer::Writer;

/// Reading connections to the store that are kept open.
const READERS_MAX: usize = 8;
/// How long links get to end when the relay shuts down.
const GOING: Duration = Duration::from_secs(5);

/// Views of the store for links, opened when needed.
pub struct Readers {
    idle: Mutex<Vec<Box<dyn Read + Send>>>,
    open: Box<dyn Fn() -> Result<Box<dyn Read + Send>, StoreError> + Send + Sync>,
}

impl std::fmt::Debug for Readers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Readers")
    }
}

impl Readers {
    /// Readers that `open` opens.
    pub fn new(open: impl Fn() -> Result<Box<dyn Read + Send>, StoreError> + Send + Sync + 'static) -> Self {
        Self { idle: Mutex::default(), open: Box::new(open) }
    }

    async fn read<T: Send + 'static>(
        self: &Arc<Self>,
        question: impl FnOnce(&dyn Read) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let readers = Arc::clone(self);
        let task = tokio::task::spawn_blocking(move || {
            let idle = readers.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let reader = match idle {
                Some(reader) => reader,
                None => (readers.open)()?,
            };
            let answer = question(reader.as_ref());
            let mut idle = readers.idle.lock().unwrap_or_else(PoisonError::into_inner);
            if idle.len() < READERS_MAX {
                idle.push(reader);
            }
            answer
        });
        task.await.map_err(|_| StoreError::Damaged("reader"))?
    }
}

/// Everything a link needs.
#[derive(Debug)]
pub struct Shared {
    /// The relay's key.
    pub key: SecretKey,
    /// The firm's name.
    pub firm: String,
    /// The store's incarnation.
    pub incarnation: [u8; 16],
    /// The writer.
    pub writer: Writer,
    /// Views of the store.
    pub readers: Arc<Readers>,
    /// All links.
    pub hub: Arc<Hub>,
    /// Connections at once.
    pub connections_max: usize,
    /// Connections now.
    pub connections: AtomicUsize,
}

impl Shared {
    /// Puts the pieces around an opened store together, and starts its writer.
    ///
    /// # Errors
    /// [`std::io::Error`] if the system gives no thread.
    pub fn start(
        key: SecretKey,
        firm: String,
        connections_max: usize,
        store: Box<dyn Store>,
        readers: Readers,
    ) -> std::io::Result<(Self, std::thread::JoinHandle<Result<(), StoreError>>)> {
        let hub = Arc::new(Hub::default());
        let incarnation = store.incarnation();
        let (writer, thread) = Writer::start(store, Arc::clone(&hub))?;
        let readers = Arc::new(readers);
        let connections = AtomicUsize::new(0);
        Ok((Self { key, firm, incarnation, writer, readers, hub, connections_max, connections }, thread))
    }
}

/// Listens until `stop` changes. Returns once every link has ended.
///
/// # Errors
/// [`std::io::Error`] if the address can't be bound.
pub async fn serve(
    listen: SocketAddr,
    shared: Arc<Shared>,
    mut stop: watch::Receiver<bool>,
    bound: impl FnOnce(SocketAddr),
) -> anyhow::Result<()> {
    let endpoint = Endpoint::server(transport::server_config(&shared.key)?, listen)?;
    bound(endpoint.local_addr()?);
    let mut links = JoinSet::new();
    loop {
        tokio::select! {
            incoming = endpoint.accept() => {
                let Some(incoming) = incoming else { break };
                if !incoming.remote_address_validated() {
                    if incoming.may_retry() {
                        let _sent = incoming.retry();
                    }
                } else if shared.connections.load(Ordering::Relaxed) >= shared.connections_max {
                    warn!("connections_max reached; raise it in relay.toml if this is your own people");
                    incoming.refuse();
                } else {
                    let (shared, stop) = (Arc::clone(&shared), stop.clone());
                    links.spawn(async move {
                        shared.connections.fetch_add(1, Ordering::Relaxed);
                        if let Err(reason) = link(incoming, &shared, stop).await {
                            debug!(%reason, "link ended");
                        }
                        shared.connections.fetch_sub(1, Ordering::Relaxed);
                    });
                }
            }
            Some(_ended) = links.join_next(), if !links.is_empty() => {}
            _ = stop.changed() => break,
        }
    }
    info!("stopping: no new connections");
    let _in_time = timeout(GOING, async { while links.join_next().await.is_some() {} }).await;
    endpoint.close(transport::CLOSE_GOING, b"the relay is shutting down");
    links.shutdown().await;
    let _in_time = timeout(GOING, endpoint.wait_idle()).await;
    Ok(())
}

/// One connection, from its first packet to its end.
async fn link(incoming: Incoming, shared: &Arc<Shared>, stop: watch::Receiver<bool>) -> Result<(), TransportError> {
    let peer = incoming.remote_address();
    let opening = async {
        let connection = incoming.accept()?.await?;
        let (mut send, mut receive) = connection.accept_bi().await?;
        let hello: Hello = transport::read(&mut receive, limits::HELLO_MAX).await?;
        let admission = admit(&connection, &hello, shared).await?;
        match &admission {
            Ok((_, answer)) => transport::write(&mut send, &answer).await?,
            Err(refused) => {
                transport::write(&mut send, &FromRelay::Refused(refused.clone())).await?;
                let _finished = send.finish();
                let _seen = send.stopped().await;
                connection.close(transport::CLOSE_REFUSED, b"refused");
            }
        }
        Ok::<_, TransportError>((connection, send, receive, admission))
    };
    let opened = timeout(Duration::from_millis(limits::ADMISSION_MS), opening).await;
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
        Ok((from @ From::Newcomer(_), _)) => newcomer(connection, send, receive, from, shared).await,
        Ok((From::Device(caller), _)) => device(connection, send, receive, caller, shared, stop).await,
    }
}

/// Judges a hello: who it is, and the signed answer; or why not.
async fn admit(
    connection: &Connection,
    hello: &Hello,
    shared: &Arc<Shared>,
) -> Result<Result<(From, FromRelay), Refused>, TransportError> {
    let claimed = match Claimed::read(transport::channel(connection)?, hello) {
        Ok(claimed) => claimed,
        Err(privity_protocol::error::Error::Refused(refused)) => return Ok(Err(refused)),
        Err(error) => return Ok(Err(Refused::not_allowed(error.to_string()))),
    };
    let body = claimed.body.clone();
    let looked_up = shared.readers.read(move |store| {
        let organisation = store.organisation()?;
        let Some(device) = body.device else {
            return Ok(Ok((From::Newcomer(body.link_key), None, 0, false, organisation)));
        };
        let Some(row) = store.device(device)?.filter(|row| row.link_key == body.link_key) else {
            return Ok(Err(Refused::not_allowed("this relay does not know that device and key")));
        };
        let ready = store.person(row.person)?.is_some_and(|person| person.endorsement.is_some());
        let idem = store.newest_idem(device)?;
        let left = store.key_packages_left(device)?;
        Ok(Ok((From::Device(Caller { device, person: row.person }), idem, left, ready, organisation)))
    });
    let (from, idem, key_packages, ready, organisation) = match looked_up.await {
        Ok(Ok(found)) => found,
        Ok(Err(refused)) => return Ok(Err(refused)),
        Err(failure) => {
            warn!(%failure, "the store could not be read");
            return Ok(Err(Refused::Storage));
        }
    };
    let Ok(relay_key) = shared.key.public() else { return Ok(Err(Refused::Storage)) };
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
    };
    let admitted = claimed.admit(&answer, &shared.key);
    Ok(admitted.map(|admitted| (from, FromRelay::Admitted(admitted))).map_err(|_| Refused::Storage))
}

/// A newcomer's link: a few requests, one at a time, within one deadline.
async fn newcomer(
    connection: Connection,
    mut send: SendStream,
    mut receive: RecvStream,
    from: From,
    shared: &Arc<Shared>,
) -> Result<(), TransportError> {
    const REQUESTS_MAX: usize = 8;
    let talk = async {
        for _ in 0..REQUESTS_MAX {
            let asked: ToRelay = transport::read(&mut receive, limits::FRAME_MAX).await?;
            let reply = shared.writer.ask(from.clone(), asked.request).await;
            transport::write(&mut send, &FromRelay::Reply { id: asked.id, reply }).await?;
        }
        Ok::<_, TransportError>(())
    };
    // A person may take their time between reading an invite and choosing a handle; the client keeps that between links.
    let _in_time = timeout(Duration::from_millis(limits::WRITE_MS), talk).await;
    connection.close(transport::CLOSE_DONE, b"");
    Ok(())
}

/// What the reader tells the sender.
enum ToSender {
    Reply(u64, Reply),
    Subscribe { id: u64, mailbox: MailboxId, after: Option<Position> },
}

/// An admitted device's link.
async fn device(
    connection: Connection,
    send: SendStream,
    mut receive: RecvStream,
    caller: Caller,
    shared: &Arc<Shared>,
    mut stop: watch::Receiver<bool>,
) -> Result<(), TransportError> {
    let outbox = shared.hub.join(caller);
    let (to_sender, from_reader) = mpsc::channel(limits::IN_FLIGHT_MAX);
    let mut sender = Sender {
        send,
        shared: Arc::clone(shared),
        outbox: Arc::clone(&outbox),
        subscriptions: BTreeMap::new(),
        behind: BTreeSet::new(),
        caller,
    };
    let in_flight = Arc::new(Semaphore::new(limits::IN_FLIGHT_MAX));
    let reader = async {
        loop {
            let asked: ToRelay = transport::read(&mut receive, limits::FRAME_MAX).await?;
            let id = asked.id;
            if let Request::Subscribe { mailbox, after } = asked.request {
                if to_sender.send(ToSender::Subscribe { id, mailbox, after }).await.is_err() {
                    return Ok::<(), TransportError>(());
                }
                continue;
            }
            let Ok(permit) = Arc::clone(&in_flight).acquire_owned().await else { return Ok(()) };
            let (writer, to_sender) = (shared.writer.clone(), to_sender.clone());
            // The writer decides in the order asked: the job enters its queue before the next frame is read.
            let answer = writer.enqueue(From::Device(caller), asked.request).await;
            tokio::spawn(async move {
                let reply = answer.await.unwrap_or(Reply::Refused(Refused::Storage));
                let _gone = to_sender.send(ToSender::Reply(id, reply)).await;
                drop(permit);
            });
        }
    };
    let ended = tokio::select! {
        ended = reader => ended,
        ended = sender.run(from_reader) => ended,
        _ = stop.changed() => Ok(()),
    };
    let mailboxes: Vec<MailboxId> = sender.subscriptions.keys().copied().collect();
    shared.hub.leave(&outbox, mailboxes.into_iter());
    let code = if *stop.borrow() { transport::CLOSE_GOING } else { transport::CLOSE_DONE };
    connection.close(code, b"");
    ended
}

/// One subscription of a link.
#[derive(Debug, Clone, Copy)]
struct Subscription {
    /// The seq to send next.
    next: u64,
    /// The last seq this device may read.
    until: Option<u64>,
}

/// The sending half of a link.
struct Sender {
    send: SendStream,
    shared: Arc<Shared>,
    outbox: Arc<Outbox>,
    subscriptions: BTreeMap<MailboxId, Subscription>,
    behind: BTreeSet<MailboxId>,
    caller: Caller,
}

impl Sender {
    async fn run(&mut self, mut from_reader: mpsc::Receiver<ToSender>) -> Result<(), TransportError> {
        loop {
            let message = if self.behind.is_empty() {
                tokio::select! {
                    message = from_reader.recv() => message.map(Some),
                    () = self.outbox.ready() => Some(None),
                }
            } else {
                match from_reader.try_recv() {
                    Ok(message) => Some(Some(message)),
                    Err(mpsc::error::TryRecvError::Empty) => Some(None),
                    Err(mpsc::error::TryRecvError::Disconnected) => None,
                }
            };
            let Some(message) = message else { return Ok(()) };
            match message {
                Some(ToSender::Reply(id, reply)) => self.frame(&FromRelay::Reply { id, reply }).await?,
                Some(ToSender::Subscribe { id, mailbox, after }) => {
                    let reply = self.subscribe(mailbox, after).await.unwrap_or_else(Reply::Refused);
                    self.frame(&FromRelay::Reply { id, reply }).await?;
                }
                None => {}
            }
            self.pushed().await?;
            if let Some(mailbox) = self.behind.pop_first() {
                self.catch_up(mailbox).await?;
            }
        }
    }

    /// Writes a frame, or gives the reader up.
    async fn frame(&mut self, frame: &FromRelay) -> Result<(), TransportError> {
        let write = transport::write(&mut self.send, frame);
        match timeout(Duration::from_millis(limits::WRITE_MS), write).await {
            Ok(written) => written,
            Err(_stalled) => Err(TransportError::Connection(quinn::ConnectionError::TimedOut)),
        }
    }

    async fn subscribe(&mut self, mailbox: MailboxId, after: Option<Position>) -> Result<Reply, Refused> {
        if self.subscriptions.len() >= limits::SUBSCRIPTIONS_MAX {
            return Err(Refused::Full { what: "your subscriptions".to_owned() });
        }
        // Listening begins before reading, so that nothing falls between.
        self.shared.hub.listen(mailbox, &self.outbox);
        let device = self.caller.device;
        let read = self.shared.readers.read(move |store| {
            let Some(row) = store.mailbox(mailbox)? else { return Ok(None) };
            let (from, until) = if row.inbox_of == Some(device) {
                (0, None)
            } else {
                let grants = store.grants(mailbox, device)?;
                let Some(grant) = grants.iter().rev().find(|grant| grant.rights.include(Rights::READ)) else {
                    return Ok(None);
                };
                (grant.from, grant.until)
            };
            let asked = after.map_or(from, |after| after.seq);
            Ok(Some((row, from, until, asked, store.position(mailbox, asked)?)))
        });
        let found = read.await.map_err(|_| Refused::Storage)?;
        let Some((row, from, until, asked, start)) = found else {
            self.shared.hub.ignore(mailbox, &self.outbox);
            return Err(Refused::not_found("that mailbox"));
        };
        let Some(start) = start.filter(|start| asked >= from && after.is_none_or(|after| after == *start)) else {
            self.shared.hub.ignore(mailbox, &self.outbox);
            return Err(Refused::malformed("that position is not in this mailbox"));
        };
        let head = until.map_or(row.head.seq, |until| row.head.seq.min(until));
        self.subscriptions.insert(mailbox, Subscription { next: start.seq + 1, until });
        if start.seq < head || until.is_some() {
            self.behind.insert(mailbox);
        }
        Ok(Reply::Subscribed { start, head })
    }

    /// Sends what the hub has handed out since the last time.
    async fn pushed(&mut self) -> Result<(), TransportError> {
        let (items, lagging) = self.outbox.take();
        if lagging {
            self.behind.extend(self.subscriptions.keys().copied());
        }
        for item in items {
            match item {
                Item::Event(event) => self.frame(&FromRelay::Event(event)).await?,
                Item::Ended(mailbox, until) => {
                    if let Some(subscription) = self.subscriptions.get_mut(&mailbox) {
                        subscription.until = Some(until);
                        self.behind.insert(mailbox);
                    }
                }
                Item::Entry(mailbox, entry) => {
                    let Some(subscription) = self.subscriptions.get_mut(&mailbox) else { continue };
                    let late = self.behind.contains(&mailbox) || entry.seq > subscription.next;
                    if late {
                        self.behind.insert(mailbox);
                    } else if entry.seq == subscription.next {
                        subscription.next += 1;
                        let entries = vec![entry.as_ref().clone()];
                        self.frame(&FromRelay::Event(Event::Entries { mailbox, entries })).await?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Sends one chunk of a mailbox from the store; more, if there is more, after others have had their turn.
    async fn catch_up(&mut self, mailbox: MailboxId) -> Result<(), TransportError> {
        let Some(subscription) = self.subscriptions.get(&mailbox).copied() else { return Ok(()) };
        let until = subscription.until.unwrap_or(u64::MAX);
        let read = self
            .shared
            .readers
            .read(move |store| store.entries(mailbox, subscription.next - 1, until, limits::ENTRIES_BYTES));
        let entries = match read.await {
            Ok(entries) => entries,
            Err(failure) => {
                warn!(%failure, "the store could not be read");
                return self.frame(&FromRelay::Refused(Refused::Storage)).await;
            }
        };
        let next = entries.last().map_or(subscription.next, |entry| entry.seq + 1);
        if let Some(subscription) = self.subscriptions.get_mut(&mailbox) {
            subscription.next = next;
        }
        if !entries.is_empty() {
            self.behind.insert(mailbox);
            return self.frame(&FromRelay::Event(Event::Entries { mailbox, entries })).await;
        }
        if subscription.until.is_some_and(|until| next > until) {
            self.subscriptions.remove(&mailbox);
            self.shared.hub.ignore(mailbox, &self.outbox);
            return self.frame(&FromRelay::Event(Event::Ended { mailbox })).await;
        }
        Ok(())
    }
}
