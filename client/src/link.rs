//! The link's shell: connecting, the hello, and two tasks that carry frames.
//!
//! Invariant: nothing is sent to another key than the pinned one, nothing but a hello before the relay has proved that it is the one
//! pinned, and no answer is believed that it did not prove.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use privity_protocol::error::{Error as ProtocolError, PeerMisbehaved, Refused};
use privity_protocol::frame::{AdmittedBody, FromRelay, Instance, Reply, Request, ToRelay};
use privity_protocol::ids::DeviceId;
use privity_protocol::limits;
use privity_protocol::link::{Channel, Opening, Pin};
use privity_protocol::suite::SecretKey;
use privity_transport as transport;
use quinn::{Connection, Endpoint, RecvStream, SendStream};
use tokio::sync::mpsc;
use tokio::time::{timeout, timeout_at};

use crate::error::{Error, REVOKED};

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
    /// The device, and which copy of it this is; none for a newcomer.
    pub device: Option<(DeviceId, Instance)>,
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
    /// [`Error::Network`] if nobody answers, or the relay can't admit anybody now; [`Error::Untrusted`] for another relay;
    /// [`Error::Refused`] if this one says no for good.
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
        let connecting = endpoint.connect(peer, &self.pin.server_name()).map_err(|error| self.unreachable(error))?;
        let connection = connecting.await.map_err(|error| self.unreachable(error))?;
        let channel = transport::channel(&connection).map_err(|error| Error::Untrusted(error.to_string()))?;
        self.recognise(&channel)?;
        let (mut send, mut receive) = connection.open_bi().await.map_err(|error| self.unreachable(error))?;
        let agent = concat!("privity/", env!("CARGO_PKG_VERSION"));
        let (opening, hello) = Opening::hello(channel, self.pin.clone(), self.device, &self.link_key, agent)?;
        transport::write(&mut send, &hello).await.map_err(|error| self.unreachable(error))?;
        let answer = transport::read(&mut receive, limits::ADMITTED_MAX).await.map_err(|error| match error {
            transport::TransportError::Malformed(_) => garbled(),
            error => self.unreachable(error),
        })?;
        match answer {
            FromRelay::Admitted(admitted) => {
                let admitted = opening.admitted(&admitted).map_err(|error| match error {
                    ProtocolError::Malformed(_) => garbled(),
                    error => error.into(),
                })?;
                Ok(Opened { endpoint, connection, send, receive, admitted })
            }
            FromRelay::Refused(refused) => Err(self.refused(refused)),
            _ => Err(garbled()),
        }
    }

    /// Whether the other end proved the key in the vault. With a fingerprint that shows only once it has answered the hello.
    fn recognise(&self, channel: &Channel) -> Result<(), Error> {
        match &self.pin {
            Pin::Key(key) if key.ml_dsa() != channel.peer_ml_dsa => {
                Err(PeerMisbehaved::WrongKey("the relay's key").into())
            }
            _ => Ok(()),
        }
    }

    /// What a refused link means: [`Error::Network`] where it is worth trying again, or nobody has proved to be the relay.
    pub(crate) fn refused(&self, refused: Refused) -> Error {
        match (&self.pin, refused) {
            (Pin::Fingerprint(_) | Pin::Unknown, refused) => Error::Network(format!(
                "something answers at {}, but does not prove to be your relay: {}",
                self.address,
                Error::from(refused)
            )),
            (Pin::Key(_), refused @ (Refused::Storage | Refused::Full { .. } | Refused::Slow { .. })) => {
                Error::Network(format!("the relay at {} can't admit this device now: {refused}", self.address))
            }
            (Pin::Key(_), Refused::NotAllowed { what }) if what != REVOKED => {
                Error::Refused(format!("the relay refuses this device: {what}"))
            }
            (Pin::Key(_), refused) => refused.into(),
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
        match self.answer(id, request).await? {
            Reply::Refused(refused) => Err(refused.into()),
            reply => Ok(reply),
        }
    }

    /// As [`Self::ask`], where a refusal is an answer.
    ///
    /// # Errors
    /// [`Error::Network`] if the link ends.
    pub async fn answer(&mut self, id: u64, request: Request) -> Result<Reply, Error> {
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
        reply.map_err(lost)
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

fn garbled() -> Error {
    Error::Untrusted("the relay does not follow the protocol".to_owned())
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

#[cfg(test)]
#[path = "link/tests.rs"]
pub(crate) mod tests;
