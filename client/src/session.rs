//! A session: an open profile, its device, and the link that comes and goes. What commands, `chat` and bots are built on.
//!
//! 1. [`Session::next`] drives everything and returns the next thing worth telling.
//! 2. What the device wants persisted is durable before what it wants sent goes out.
//! 3. A lost link is tried again with growing, jittered pauses.
//!
//! A bot wants [`crate::bot`], which gives events with a cursor; this is below it.
//!
//! Invariant: [`Session::next`] may be cancelled at any await and called again; nothing is lost between.

use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use privity_protocol::cbor;
use privity_protocol::device::state::{Profile, Stage, Table};
use privity_protocol::device::{Device, Notice, Output};
use privity_protocol::frame::FromRelay;
use privity_protocol::ids::{MatterId, MessageId, PersonId, Timestamp};
use privity_protocol::link::Pin;
use privity_protocol::suite;
use tokio::task::JoinHandle;
use tokio::time::{sleep, sleep_until};

use crate::error::Error;
use crate::link::{Dialer, Live, Opened};
use crate::vault::Vault;
use crate::view;

/// The first pause before connecting again, and the longest.
const PAUSE: Duration = Duration::from_millis(250);
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// A device that wants another link again so soon waits as after a lost one.
const RECONNECT: Duration = Duration::from_secs(1);

/// How long a session that is closed waits for what it has under way.
const LINGER: Duration = Duration::from_secs(2);

/// Now, by the system's clock.
pub fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// Whether what is written in a matter at that stage is kept until it can go out.
pub(crate) fn keeps(stage: Stage) -> bool {
    !matches!(stage, Stage::Removed | Stage::Forked)
}

/// What a session tells.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Told {
    /// The device has something to say.
    Notice(Box<Notice>),
    /// The link is up.
    Up,
    /// The link is down, or could not be had: it is tried again by itself.
    Down(String),
    /// Nothing until the deadline.
    Quiet,
}

/// An open profile with its device and link.
#[derive(Debug)]
pub struct Session {
    /// The vault.
    pub vault: Vault,
    /// The endpoint.
    pub device: Device,
    dialer: Dialer,
    live: Option<Live>,
    connecting: Option<JoinHandle<Result<Opened, Error>>>,
    retry_at: Option<Instant>,
    pause: Duration,
    reconnected: Option<Instant>,
    told: VecDeque<Told>,
    /// Whose adding waits until they are ready, as the device said on this link.
    waiting: BTreeSet<(MatterId, PersonId)>,
    /// Whether a matter was owed fresh keys when this session began.
    owes: bool,
}

impl Session {
    /// Opens the device that a vault holds. No link is made until [`Self::next`] is called.
    ///
    /// # Errors
    /// [`Error::Machine`] if the vault is damaged.
    pub fn open(vault: Vault) -> Result<Self, Error> {
        let device = Device::open(&vault)?;
        let owes = device.owes_keys(now());
        let profile = device.profile();
        let dialer = Dialer {
            address: profile.address.clone(),
            pin: Pin::Key(profile.relay.clone()),
            device: Some((profile.device, device.instance())),
            link_key: profile.link_key.clone(),
        };
        Ok(Self {
            vault,
            device,
            dialer,
            live: None,
            connecting: None,
            retry_at: None,
            pause: PAUSE,
            reconnected: None,
            told: VecDeque::new(),
            waiting: BTreeSet::new(),
            owes,
        })
    }

    /// The profile in a vault, without opening the rest.
    ///
    /// # Errors
    /// [`Error::Machine`] if there is none.
    pub fn profile(vault: &Vault) -> Result<Profile, Error> {
        let bytes = vault.get(Table::Profile, None, &[])?;
        let bytes = bytes.ok_or_else(|| Error::Machine("the vault has no profile".to_owned()))?;
        Ok(cbor::decode(&bytes, "profile")?)
    }

    /// How far a matter has come, in a word.
    pub fn state(&self, matter: MatterId) -> &'static str {
        view::stage(self.device.matter(matter).map_or(Stage::Removed, |row| row.stage))
    }

    /// What that means and what to do; none where all is well.
    pub fn state_told(&self, matter: MatterId) -> Option<&'static str> {
        let row = self.device.matter(matter)?;
        view::state_told(row.stage, row.forgotten, self.device.profile().role.manages())
    }

    /// Whether the link is up.
    pub fn is_up(&self) -> bool {
        self.live.is_some()
    }

    /// Drives the device until there is something to tell, or until `deadline`.
    ///
    /// # Errors
    /// [`Error`] if the vault fails, the relay is not the one pinned, or it refuses this device for good.
    pub async fn next(&mut self, deadline: Instant) -> Result<Told, Error> {
        loop {
            self.drain()?;
            if let Some(told) = self.told.pop_front() {
                return Ok(told);
            }
            if let Some(live) = &mut self.live {
                let timer = self.device.deadline().map(|at| at.0.saturating_sub(now().0));
                let timer = timer.map_or(Duration::from_secs(3600), Duration::from_millis);
                tokio::select! {
                    frame = live.receive() => self.receive(frame)?,
                    () = sleep(timer.max(Duration::from_millis(1))) => self.device.handle_time(now()),
                    () = sleep_until(deadline.into()) => return Ok(Told::Quiet),
                }
            } else if let Some(connecting) = &mut self.connecting {
                tokio::select! {
                    opened = connecting => {
                        self.connecting = None;
                        self.connected(opened.map_err(|error| Error::Machine(error.to_string()))?)?;
                    }
                    () = sleep_until(deadline.into()) => return Ok(Told::Quiet),
                }
            } else {
                let at = self.retry_at.unwrap_or_else(Instant::now);
                if at > deadline {
                    sleep_until(deadline.into()).await;
                    return Ok(Told::Quiet);
                }
                sleep_until(at.into()).await;
                // It may have become another instance since the last hello, and have followed the relay to another key.
                self.dialer.pin = Pin::Key(self.device.profile().relay.clone());
                self.dialer.device = Some((self.device.profile().device, self.device.instance()));
                let dialer = self.dialer.clone();
                self.connecting = Some(tokio::spawn(async move { dialer.open().await }));
            }
        }
    }

    /// Applies everything that waits for this device. Notices are kept for the caller.
    ///
    /// # Errors
    /// [`Error::Network`] if the relay can't be reached until `deadline`; else as [`Self::next`].
    pub async fn catch_up(&mut self, deadline: Instant) -> Result<Vec<Notice>, Error> {
        let mut notices = Vec::new();
        let mut down = None;
        while !self.device.is_caught_up() {
            match self.next(deadline).await? {
                Told::Notice(notice) => notices.push(*notice),
                Told::Up => down = None,
                Told::Down(why) => down = Some(why),
                Told::Quiet => {
                    let why = down.unwrap_or_else(|| format!("the relay at {} does not answer", self.dialer.address));
                    return Err(Error::Network(why));
                }
            }
        }
        Ok(notices)
    }

    /// Carries out what the device wants.
    ///
    /// # Errors
    /// [`Error::Machine`] if the vault fails.
    pub fn drain(&mut self) -> Result<(), Error> {
        while let Some(output) = self.device.poll() {
            match output {
                Output::Persist(batch) => self.vault.apply(batch)?,
                Output::Send(frame) => {
                    let sent = self.live.as_ref().is_some_and(|live| live.send(frame));
                    if !sent && self.live.is_some() {
                        self.lost("the link is stalled");
                    }
                }
                Output::Deliver(notice) => {
                    match &notice {
                        Notice::Waits { matter, person } => {
                            self.waiting.insert((*matter, *person));
                        }
                        Notice::Endorsed { .. } => self.waiting.clear(),
                        _ => {}
                    }
                    self.told.push_back(Told::Notice(Box::new(notice)));
                }
                Output::Reconnect => self.reconnect(),
                Output::Recall { matter, .. } => self.device.recall(now(), matter, &self.vault)?,
                Output::History { device } => self.device.history_piece(now(), device, &self.vault)?,
                _ => {}
            }
        }
        Ok(())
    }

    /// Puts a text into a matter's outbox, on disk when this returns. The seq, if that id was sent before: then it is not sent again.
    ///
    /// # Errors
    /// [`Error::Usage`] for a text that is too large or no matter; [`Error::Refused`] where this device may not.
    pub fn send(&mut self, matter: MatterId, id: MessageId, text: &str) -> Result<Option<u64>, Error> {
        if let Some(seq) = self.vault.get(Table::Sent, Some(matter), id.as_bytes())? {
            return Ok(Some(cbor::decode(&seq, "seq")?));
        }
        if let Some(why) =
            self.device.pending(matter).into_iter().find(|item| item.id == id).and_then(|i| i.failed.clone())
        {
            return Err(Error::Refused(format!("the relay refused that message: {why}")));
        }
        self.device.send_text(now(), matter, id, text)?;
        self.drain()?;
        Ok(None)
    }

    /// The user has seen who says to have read something else in a matter, and says to go on: sending works until the next dispute.
    ///
    /// # Errors
    /// [`Error::Usage`] if there is no such matter.
    pub fn go_on(&mut self, matter: MatterId) -> Result<(), Error> {
        self.device.go_on(now(), matter)?;
        self.drain()
    }

    /// How many texts the relay does not have yet, and may still get.
    pub fn unsent(&self) -> usize {
        self.waiting_in(keeps)
    }

    fn waiting_in(&self, stages: impl Fn(Stage) -> bool) -> usize {
        let waits =
            |id| self.device.pending(id).iter().filter(|item| item.seq.is_none() && item.failed.is_none()).count();
        let matters = self.device.matters().filter(|(_, row)| stages(row.stage));
        matters.map(|(id, _)| waits(id)).sum()
    }

    /// Whether a text is at the relay, and was not read back.
    pub fn awaits_own(&self) -> bool {
        let open = self.device.matters().filter(|(_, row)| row.stage == Stage::Open);
        open.map(|(id, _)| self.device.pending(id)).any(|pending| pending.iter().any(|item| item.seq.is_some()))
    }

    /// Whether nothing is left to do that could be done now, for matters and for other devices of this person.
    pub fn is_settled(&self) -> bool {
        let mut matters = self.device.matters();
        let busy = matters.any(|(id, row)| match row.stage {
            Stage::Opening => true,
            Stage::Open => {
                let intents = self.device.intents(id);
                intents.iter().any(|intent| !intent.add || !self.waiting.contains(&(id, intent.person)))
            }
            _ => false,
        });
        // Where the matter waits for others, waiting for it is of no use.
        !busy
            && !self.device.has_notes_to_send()
            && self.waiting_in(|stage| matches!(stage, Stage::Opening | Stage::Open)) == 0
    }

    /// Drives the device until nothing is left to do, or until `deadline`. Notices are kept for the caller.
    ///
    /// # Errors
    /// As [`Self::next`].
    pub async fn settle(&mut self, deadline: Instant) -> Result<Vec<Notice>, Error> {
        let mut notices = Vec::new();
        loop {
            self.drain()?;
            while let Some(told) = self.told.pop_front() {
                if let Told::Notice(notice) = told {
                    notices.push(*notice);
                }
            }
            if self.is_settled() {
                return Ok(notices);
            }
            match self.next(deadline).await? {
                Told::Notice(notice) => notices.push(*notice),
                Told::Quiet => return Ok(notices),
                _ => {}
            }
        }
    }

    /// Ends the link in order, after what is under way: an own change of membership, a due answer. Fresh keys that were owed when the
    /// session began are given now: a program that runs for one command has no other time.
    pub async fn close(mut self) {
        let until = Instant::now() + LINGER;
        if self.owes && self.device.is_caught_up() {
            self.device.heal(now());
        }
        while self.live.is_some() && self.device.is_caught_up() && !self.device.is_idle() {
            match self.next(until).await {
                Ok(Told::Quiet) | Err(_) => break,
                Ok(_) => {}
            }
        }
        if let Some(live) = self.live.take() {
            live.close().await;
        }
        if let Some(connecting) = self.connecting.take() {
            connecting.abort();
        }
    }

    fn connected(&mut self, opened: Result<Opened, Error>) -> Result<(), Error> {
        match opened {
            Ok(opened) => {
                let admitted = opened.admitted.clone();
                self.live = Some(opened.live());
                self.pause = PAUSE;
                self.waiting.clear();
                self.told.push_back(Told::Up);
                self.device.handle_link_up(now(), &admitted)?;
                Ok(())
            }
            Err(Error::Network(why)) => {
                self.lost(&why);
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    fn receive(&mut self, frame: Option<FromRelay>) -> Result<(), Error> {
        match frame {
            None => self.lost("the relay went away"),
            Some(FromRelay::Reply { id, reply }) => self.device.handle_reply(now(), id, reply),
            Some(FromRelay::Event(event)) => self.device.handle_event(now(), event),
            Some(FromRelay::Refused(refused)) => return self.connected(Err(self.dialer.refused(refused))),
            Some(_) => {}
        }
        Ok(())
    }

    /// Ends the link and dials again at once: the device says hello as another instance.
    fn reconnect(&mut self) {
        if self.reconnected.replace(Instant::now()).is_some_and(|before| before.elapsed() < RECONNECT) {
            self.lost("the relay does not admit this copy of the profile yet");
            return;
        }
        self.live = None;
        if let Some(connecting) = self.connecting.take() {
            connecting.abort();
        }
        self.device.handle_link_down();
        self.retry_at = None;
    }

    fn lost(&mut self, why: &str) {
        self.live = None;
        self.device.handle_link_down();
        let [random] = suite::random::<1>();
        let jitter = self.pause.mul_f64(f64::from(random) / 512.0);
        self.retry_at = Some(Instant::now() + self.pause + jitter);
        self.pause = (self.pause * 2).min(PAUSE_MAX);
        self.told.push_back(Told::Down(why.to_owned()));
    }
}

#[cfg(test)]
mod tests {
    use privity_protocol::error::Refused;
    use privity_protocol::frame::Reply;
    use privity_protocol::suite::SecretKey;

    use super::*;
    use crate::join::tests::begun;
    use crate::link::tests::{Says, StandIn};

    async fn first(relay: &SecretKey, key: &SecretKey, refused: Refused) -> Result<Told, Error> {
        let stand_in = StandIn::start(key, Says::No(refused));
        let (_folder, vault) = begun(relay, &stand_in.address);
        Session::open(vault).unwrap().next(Instant::now() + Duration::from_secs(10)).await
    }

    #[tokio::test]
    async fn a_relay_that_is_in_trouble_is_tried_again_and_one_that_says_no_is_not() {
        let (relay, impostor) = (SecretKey::generate(), SecretKey::generate());
        for refused in [Refused::Storage, Refused::Full { what: "the relay".to_owned() }] {
            let told = first(&relay, &relay, refused).await;
            assert!(matches!(told, Ok(Told::Down(_))), "{told:?}");
        }
        let told = first(&relay, &relay, Refused::not_allowed("revoked")).await;
        assert!(matches!(told, Err(Error::Refused(_))), "{told:?}");
        let told = first(&relay, &impostor, Refused::Storage).await;
        assert!(matches!(told, Err(Error::Untrusted(_))), "{told:?}");
    }

    #[tokio::test]
    async fn a_copy_that_was_replaced_is_told_what_to_do_and_never_tries_again() {
        let relay = SecretKey::generate();
        let told = first(&relay, &relay, Refused::Replaced).await.unwrap_err();
        assert_eq!(told.exit_code(), 5);
        assert!(told.to_string().contains("Use the other copy"), "{told}");
    }

    #[tokio::test]
    async fn another_link_is_had_at_once_when_the_device_wants_it_but_not_again_and_again() {
        let relay = SecretKey::generate();
        let stand_in = StandIn::start(&relay, Says::Yes(Reply::Done));
        let (_folder, vault) = begun(&relay, &stand_in.address);
        let mut session = Session::open(vault).unwrap();
        let soon = || Instant::now() + Duration::from_secs(10);
        assert_eq!(session.next(soon()).await.unwrap(), Told::Up);
        session.reconnect();
        assert!(!session.is_up());
        let began = Instant::now();
        assert_eq!(session.next(soon()).await.unwrap(), Told::Up, "without a word of being down");
        assert!(began.elapsed() < PAUSE);
        session.reconnect();
        assert!(matches!(session.next(soon()).await.unwrap(), Told::Down(_)));
        assert_eq!(stand_in.instances(), [Some(session.device.instance()); 2]);
    }
}
