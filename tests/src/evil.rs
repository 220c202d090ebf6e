//! An evil relay: a double that holds a relay's real private key, speaks the real protocol over real QUIC, and lies when it is told to.
//!
//! 1. It is made of the real parts: the transport, the link's opening, the relay's rules and store, and the signer of its log.
//! 2. Told nothing, it is as honest as the relay: [`Firm::under`] plays the same stories on it.
//! 3. Every request passes [`Evil::when_asked`] on its way in, every frame [`Evil::when_told`] on its way out, to each device by itself.
//! 4. Its log can show somebody another history ([`Fork`]); everything else that it keeps is open to [`Evil::inside`].
//!
//! Invariant: whatever it does, an operator who has the relay's machine and key could do; devices' keys it has none of.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Context as _;
use privity_protocol::frame::{AdmittedBody, FromRelay, Reply, Request};
use privity_protocol::ids::{DeviceId, PersonId};
use privity_protocol::invite::{Invite, InviteSecret};
use privity_protocol::log::{Act, Event};
use privity_protocol::suite::{Digest, SecretKey};
use privity_server::clock::now;
use privity_server::relay::first_invite;
use privity_server::store::memory::Memory;
use privity_server::store::{Store as _, Write};
use quinn::Endpoint;
use tokio::runtime::Runtime;

use crate::{Firm, Person};

mod inside;
mod link;
mod log;

pub use inside::Inside;
pub use log::Fork;

/// Who is at the other end of a link.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Who {
    /// Their handle; empty for a newcomer.
    pub handle: String,
    /// Whose device it is; none for a newcomer.
    pub person: Option<PersonId>,
    /// Which device; none for a newcomer.
    pub device: Option<DeviceId>,
}

/// What becomes of a request.
#[derive(Debug)]
pub enum Asked {
    /// It is carried out, as it came or altered.
    Do(Request),
    /// It is answered, and nothing is done.
    Answer(Reply),
    /// It is carried out, and something else is answered.
    DoAndAnswer(Request, Reply),
    /// It is never answered.
    Nothing,
}

type WhenAsked = dyn FnMut(&Who, Request) -> Asked + Send;
type WhenTold = dyn FnMut(&Who, Option<&Request>, FromRelay) -> Vec<FromRelay> + Send;
type WhenGreeted = dyn FnMut(&Who, AdmittedBody) -> AdmittedBody + Send;

/// What the relay does beside its rules; honest unless told otherwise.
struct Misdeeds {
    asked: Box<WhenAsked>,
    told: Box<WhenTold>,
    greeted: Box<WhenGreeted>,
}

impl std::fmt::Debug for Misdeeds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Misdeeds")
    }
}

impl Default for Misdeeds {
    fn default() -> Self {
        Self {
            asked: Box::new(|_, request| Asked::Do(request)),
            told: Box::new(|_, _, frame| vec![frame]),
            greeted: Box::new(|_, body| body),
        }
    }
}

/// A running evil relay. It ends when it is dropped.
#[derive(Debug)]
pub struct Evil {
    /// The first invite.
    pub invite: String,
    /// Where it listens.
    pub address: SocketAddr,
    inside: Arc<Mutex<Inside>>,
    endpoint: Endpoint,
    runtime: Option<Runtime>,
}

impl Evil {
    /// Starts one with a fresh key, that nobody has joined.
    ///
    /// # Errors
    /// If the system gives no port, or the library fails.
    pub fn start() -> anyhow::Result<Self> {
        let (key, secret) = (SecretKey::generate(), InviteSecret::random());
        let mut store = Memory::new();
        store.begin()?;
        store.apply(&first_invite(secret.token_hash(), secret.id(), now()))?;
        let (configuration, version) = (Digest::of(&[]), env!("CARGO_PKG_VERSION").to_owned());
        let event = Event { at: now(), act: Act::Configured { configuration, version } };
        store.apply(&[Write::Log { person: None, event }])?;
        store.commit()?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let endpoint = {
            let _inside_it = runtime.enter();
            let config = privity_transport::server_config(&key)?;
            Endpoint::server(config, SocketAddr::from(([127, 0, 0, 1], 0)))?
        };
        let address = endpoint.local_addr()?;
        let relay = key.public()?.fingerprint();
        let invite = Invite { address: address.to_string(), relay, organisation: None, secret }.url();
        let inside = Arc::new(Mutex::new(Inside::new(key, store)?));
        runtime.spawn(link::serve(endpoint.clone(), Arc::clone(&inside)));
        Ok(Self { invite, address, inside, endpoint, runtime: Some(runtime) })
    }

    /// Everything it has; while this is held, it answers nobody.
    pub fn inside(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on, this decides what becomes of each request.
    pub fn when_asked(&self, deed: impl FnMut(&Who, Request) -> Asked + Send + 'static) {
        self.inside().misdeeds.asked = Box::new(deed);
    }

    /// From now on, this decides what is sent instead of each frame; the request comes with its reply.
    pub fn when_told(&self, deed: impl FnMut(&Who, Option<&Request>, FromRelay) -> Vec<FromRelay> + Send + 'static) {
        self.inside().misdeeds.told = Box::new(deed);
    }

    /// From now on, this decides what a device is told about itself when it is admitted.
    pub fn when_greeted(&self, deed: impl FnMut(&Who, AdmittedBody) -> AdmittedBody + Send + 'static) {
        self.inside().misdeeds.greeted = Box::new(deed);
    }

    /// From now on, it is honest again; a [`Fork`] of its log stays.
    pub fn repents(&self) {
        self.inside().misdeeds = Misdeeds::default();
    }
}

impl Drop for Evil {
    fn drop(&mut self) {
        self.endpoint.close(privity_transport::CLOSE_GOING, b"");
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Firm<Evil> {
    /// A new firm whose relay is an evil one, honest so far.
    ///
    /// # Errors
    /// If any of it fails.
    pub fn under() -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let relay = Evil::start()?;
        let attorney = Person::new(folder.path(), "ada")?;
        attorney.join(&relay.invite, "Ada Byron").context("with the first invite")?;
        Ok(Self { relay, attorney, folder })
    }
}
