//! The link's shell: connecting, the hello, and two tasks that carry frames.
//!
//! Invariant: nothing but a hello is sent before the relay has proved that it is the one pinned.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use privity_protocol::error::Refused;
use privity_protocol::frame::{AdmittedBody, FromRelay, Reply, Request, ToRelay};
use privity_protocol::ids::DeviceId;
use privity_protocol::limits;
use privity_protocol::link::{Opening, Pin};
use privity_protocol::suite::SecretKey;
use privity_transport as transport;
use quinn::{Connection, Endpoint, RecvStream, SendStream};
use tokio::sync::mpsc;
use tokio::time::{timeout, timeout_at};

use crate::error::Error;

/// Frames that wait to be written; a device has fewer requests than this unanswered.
const WAITING_MAX: usize = 8192;
/// How long one attempt to reach the relay may take.
const ATTEMPT: Duration = Duration::from_secs(10);
/// How long one of several addresses may take.
const ADDRESS: Duration = Duration::from_secs(2);

/// Whom to call, and as whom.
#[derive(Debug, Clone)]
pub struct Dialer {
    /// HOST:PORT.
    pub address: String,
    /// What the relay's key must be.
    pub pin: Pin,
    /// The device; none for a newcomer.
    pub device: Option<DeviceId>,
    /// Its link key.
    pub link_key: SecretKey,
}

/// An open stream to a relay that has admitted this device.
#[derive(Debug)]
pub struct Opened {
    endpoint: Endpoint,
    connection: Connection,
    send: SendStream,
    receive: RecvStream,
    /// What the relay said.
    pub admitted: AdmittedBody,
}

impl Dialer {
    /// Connects and shows the hello.
    ///
    /// # Errors
    /// [`Error::Network`] if nobody answers, [`Error::Untrusted`] for another relay, [`Error::Refused`] if this one says no.
    pub async fn open(&self) -> Result<Opened, Error> {
        self.open_until(Instant::now() + ATTEMPT).await
    }

    /// As [`Self::open`], with a deadline of the caller's.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub async fn open_until(&self, deadline: Instant) -> Result<Opened, Error> {
        let deadline = deadline.min(Instant::now() + ATTEMPT);
        match timeout_at(deadline.into(), self.attempt()).await {
            Ok(opened) => opened,
            Err(_late) => Err(self.unreachable("no answer")),
        }
    }

    /// Every address that the name has, in turn.
    async fn attempt(&self) -> Result<Opened, Error> {
        let found = tokio::net::lookup_host(&self.address).await;
        let addresses: Vec<SocketAddr> = found.map_err(|error| self.unreachable(error))?.collect();
        let mut failed = self.unreachable("the name has no address");
        for (at, peer) in addresses.iter().enumerate() {
            let last = at + 1 == addresses.len();
            let attempt = self.attempt_at(*peer);
            let opened = if last { attempt.await } else { timeout(ADDRESS, attempt).await.unwrap_or(Err(failed)) };
            match opened {
                Err(Error::Network(why)) => failed = Error::Network(why),
                other => return other,
            }
        }
        Err(failed)
    }

    async fn attempt_at(&self, peer: SocketAddr) -> Result<Opened, Error> {
        let local: SocketAddr = if peer.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0_u16; 8], 0).into() };
        let mut endpoint = Endpoint::client(local).map_err(|error| self.unreachable(error))?;
        let config = transport::client_config(&self.link_key).map_err(|error| Error::Machine(error.to_string()))?;
        endpoint.set_default_client_config(config);
        let connecting = endpoint.connect(peer, "privity").map_err(|error| self.unreachable(error))?;
        let connection = connecting.await.map_err(|error| self.unreachable(error))?;
        let (mut send, mut receive) = connection.open_bi().await.map_err(|error| self.unreachable(error))?;
        let channel = transport::channel(&connection).map_err(|error| Error::Untrusted(error.to_string()))?;
        let agent = concat!("privity/", env!("CARGO_PKG_VERSION"));
        let (opening, hello) = Opening::hello(channel, self.pin.clone(), self.device, &self.link_key, agent)?;
        transport::write(&mut send, &hello).await.map_err(|error| self.unreachable(error))?;
        match transport::read(&mut receive, limits::HELLO_MAX).await.map_err(|error| self.unreachable(error))? {
            FromRelay::Admitted(admitted) => {
                let admitted = opening.admitted(&admitted)?;
                Ok(Opened { endpoint, connection, send, receive, admitted })
            }
            FromRelay::Refused(Refused::NotAllowed { what }) => {
                Err(Error::Refused(format!("the relay refuses this device: {what}")))
            }
            FromRelay::Refused(refused) => Err(refused.into()),
            _ => Err(Error::Untrusted("the relay does not follow the protocol".to_owned())),
        }
    }

    fn unreachable(&self, why: impl std::fmt::Display) -> Error {
        Error::Network(format!("the relay at {} can't be reached: {why}", self.address))
    }
}

impl Opened {
    /// One request and its answer, for newcomers.
    ///
    /// # Errors
    /// [`Error::Network`] if the link ends; whatever the relay refuses.
    pub async fn ask(&mut self, id: u64, request: Request) -> Result<Reply, Error> {
        let lost = |error: transport::TransportError| Error::Network(format!("the relay went away: {error}"));
        let asked = async {
            transport::write(&mut self.send, &ToRelay { id, request }).await?;
            loop {
                if let FromRelay::Reply { id: answered, reply } =
                    transport::read(&mut self.receive, limits::FRAME_MAX).await?
                    && answered == id
                {
                    return Ok(reply);
                }
            }
        };
        let reply =
            timeout(ATTEMPT, asked).await.map_err(|_| Error::Network("the relay does not answer".to_owned()))?;
        match reply.map_err(lost)? {
            Reply::Refused(refused) => Err(refused.into()),
            reply => Ok(reply),
        }
    }

    /// Ends the connection and waits until the relay knows.
    pub async fn close(self) {
        self.connection.close(transport::CLOSE_DONE, b"");
        let _in_time = timeout(Duration::from_secs(2), self.endpoint.wait_idle()).await;
    }

    /// Hands the stream to two tasks.
    pub fn live(self) -> Live {
        let Self { endpoint, connection, mut send, mut receive, .. } = self;
        let (to_relay, mut outgoing) = mpsc::channel::<ToRelay>(WAITING_MAX);
        let (incoming, from_relay) = mpsc::channel(64);
        let writer = tokio::spawn(async move {
            while let Some(frame) = outgoing.recv().await {
                if transport::write(&mut send, &frame).await.is_err() {
                    break;
                }
            }
        });
        let reader = tokio::spawn(async move {
            while let Ok(frame) = transport::read::<FromRelay>(&mut receive, limits::FRAME_MAX).await {
                if incoming.send(frame).await.is_err() {
                    break;
                }
            }
        });
        Live { endpoint, connection, to_relay, from_relay, tasks: [writer, reader] }
    }
}

/// A link in use. Dropping it ends its tasks.
#[derive(Debug)]
pub struct Live {
    endpoint: Endpoint,
    connection: Connection,
    to_relay: mpsc::Sender<ToRelay>,
    from_relay: mpsc::Receiver<FromRelay>,
    tasks: [tokio::task::JoinHandle<()>; 2],
}

impl Live {
    /// Sends a frame; false if the link is gone, or stalled with thousands waiting.
    pub fn send(&self, frame: ToRelay) -> bool {
        self.to_relay.try_send(frame).is_ok()
    }

    /// The next frame; none once the link is gone. Safe to cancel.
    pub async fn receive(&mut self) -> Option<FromRelay> {
        self.from_relay.recv().await
    }

    /// Ends the connection and waits until the relay knows.
    pub async fn close(self) {
        self.connection.close(transport::CLOSE_DONE, b"");
        let _in_time = timeout(Duration::from_secs(2), self.endpoint.wait_idle()).await;
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}
