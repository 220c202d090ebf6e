//! What an evil relay has inside: the rules and store of the real one, who is linked, and what it does beside the rules.
//!
//! 1. A request passes `Misdeeds::asked`, and is decided by [`Rules`] or answered from the store.
//! 2. The reply, and what it wakes, pass `Misdeeds::told`, for each link by itself, in the order in which they happened.
//! 3. Entries are read from the store, from where each subscription is.
//!
//! Invariant: honest, it sends each device what the real relay would: the entries of its intervals, in order and gap-free.

use std::collections::BTreeMap;

use privity_protocol::error::Refused;
use privity_protocol::frame::{AcceptedIdem, AdmittedBody, Event, FromRelay, HelloBody, Reply, Request, ToRelay};
use privity_protocol::ids::{MailboxId, Position};
use privity_protocol::limits;
use privity_protocol::suite::SecretKey;
use privity_server::audit::Signer;
use privity_server::clock::now;
use privity_server::policy::{Caller, No, refusal};
use privity_server::relay::admission::{self, Judged};
use privity_server::relay::{self, From, Outcome, Rules, Wake, reading};
use privity_server::store::memory::Memory;
use privity_server::store::{Read as _, Store as _, StoreError, Write};
use tokio::sync::mpsc::UnboundedSender;

use super::{Asked, Fork, Misdeeds, Who};

/// What a link's writer is given.
#[derive(Debug)]
pub(super) enum Out {
    /// To be sent.
    Frame(FromRelay),
    /// The link is over.
    End,
}

#[derive(Debug)]
struct Link {
    from: From,
    who: Who,
    out: UnboundedSender<Out>,
    /// By mailbox, the seq to send next.
    subscriptions: BTreeMap<MailboxId, u64>,
}

/// What an evil relay has.
#[derive(Debug)]
pub struct Inside {
    /// What it keeps: it may write there whatever it likes.
    pub store: Memory,
    /// The relay's own key.
    pub key: SecretKey,
    /// Who is shown another log, by their handle.
    pub forks: BTreeMap<String, Fork>,
    pub(super) signer: Signer,
    pub(super) misdeeds: Misdeeds,
    rules: Rules,
    links: BTreeMap<u64, Link>,
    linked: u64,
}

impl Inside {
    pub(super) fn new(key: SecretKey, store: Memory) -> anyhow::Result<Self> {
        let signer = Signer::new(&key.clone().into(), &store.incarnation())?;
        let (rules, misdeeds) = (Rules::default(), Misdeeds::default());
        Ok(Self { store, key, forks: BTreeMap::new(), signer, misdeeds, rules, links: BTreeMap::new(), linked: 0 })
    }

    /// Writes something that no rule has decided.
    ///
    /// # Errors
    /// If the store refuses it.
    pub fn write(&mut self, writes: &[Write]) -> Result<(), StoreError> {
        self.store.begin()?;
        self.store.apply(writes)?;
        self.store.commit()
    }

    /// Sends a frame of its own to every link of somebody.
    pub fn send(&mut self, handle: &str, frame: &FromRelay) {
        for link in self.links.values().filter(|link| link.who.handle == handle) {
            let _gone = link.out.send(Out::Frame(frame.clone()));
        }
    }

    /// A new link, whose hello is proved: its number, and what it is told about itself.
    pub(super) fn enter(
        &mut self,
        hello: &HelloBody,
        version: u16,
        out: UnboundedSender<Out>,
    ) -> Result<(u64, AdmittedBody), Refused> {
        let storage = |_: StoreError| Refused::Storage;
        let mut judged = refusal(admission::judge(&self.store, hello)).map_err(storage)??;
        if let From::Device(caller) = judged.from {
            self.crowd_out(caller);
            let outcome = refusal(self.rules.admit(&self.store, caller.device, caller.instance)).map_err(storage)??;
            self.write(&outcome.writes).map_err(storage)?;
            self.wake(outcome.wakes);
            judged = refusal(admission::judge(&self.store, hello)).map_err(storage)??;
        }
        let who = self.who(&judged.from);
        let body = self.greeting(version, &judged)?;
        let body = (self.misdeeds.greeted)(&who, body);
        self.linked += 1;
        self.links.insert(self.linked, Link { from: judged.from, who, out, subscriptions: BTreeMap::new() });
        Ok((self.linked, body))
    }

    fn greeting(&self, version: u16, judged: &Judged) -> Result<AdmittedBody, Refused> {
        let idem = judged.idem.as_ref();
        Ok(AdmittedBody {
            version,
            relay_key: self.key.public().map_err(|_| Refused::Storage)?,
            incarnation: self.store.incarnation(),
            now: now(),
            idem: idem.map(|row| AcceptedIdem { idem: row.idem, parts: row.parts, mac: row.mac }),
            key_packages: judged.key_packages,
            ready: judged.ready,
            organisation: judged.organisation.clone(),
            firm: "Byron & Partners".to_owned(),
            rotations: Vec::new(),
        })
    }

    /// A newer link of the same instance takes the place of the one before.
    fn crowd_out(&mut self, caller: Caller) {
        self.links.retain(|_, link| {
            let same = link.from == From::Device(caller);
            if same {
                let _gone = link.out.send(Out::End);
            }
            !same
        });
    }

    fn who(&self, from: &From) -> Who {
        let From::Device(caller) = from else { return Who::default() };
        let row = self.store.person(caller.person).ok().flatten();
        let handle = row.map(|row| row.registration.handle).unwrap_or_default();
        Who { handle, person: Some(caller.person), device: Some(caller.device) }
    }

    pub(super) fn leave(&mut self, link: u64) {
        self.links.remove(&link);
    }

    /// A request of a link's.
    pub(super) fn request(&mut self, link: u64, asked: ToRelay) {
        let Some((from, who)) = self.links.get(&link).map(|link| (link.from.clone(), link.who.clone())) else { return };
        let (id, instead) = (asked.id, asked.request.clone());
        let (request, lie) = match (self.misdeeds.asked)(&who, asked.request) {
            Asked::Do(request) => (request, None),
            Asked::DoAndAnswer(request, reply) => (request, Some(reply)),
            Asked::Answer(reply) => return self.tell(link, Some(&instead), FromRelay::Reply { id, reply }),
            Asked::Nothing => return,
        };
        if let Request::Subscribe { mailbox, after } = request {
            let reply = self.subscribe(link, &from, mailbox, after).unwrap_or_else(Reply::Refused);
            self.tell(link, Some(&instead), FromRelay::Reply { id, reply: lie.unwrap_or(reply) });
            return self.catch_up(link, mailbox);
        }
        let outcome = self.decide(&from, &who, &request).unwrap_or_else(|no| {
            let refused = match no {
                No::Refused(refused) => refused,
                _ => Refused::Storage,
            };
            Outcome { reply: Some(Reply::Refused(refused)), ..Outcome::default() }
        });
        let (writes, reply) = (outcome.writes, outcome.reply.unwrap_or(Reply::Done));
        let reply = if self.write(&writes).is_ok() { reply } else { Reply::Refused(Refused::Storage) };
        self.tell(link, Some(&instead), FromRelay::Reply { id, reply: lie.unwrap_or(reply) });
        self.wake(outcome.wakes);
    }

    fn decide(&mut self, from: &From, who: &Who, request: &Request) -> Result<Outcome, No> {
        if let Some(reply) = self.of_the_log(from, who, request)? {
            return Ok(Outcome { reply: Some(reply), ..Outcome::default() });
        }
        self.rules.handle(&self.store, from, request, now())
    }

    fn subscribe(
        &mut self,
        link: u64,
        from: &From,
        mailbox: MailboxId,
        after: Option<Position>,
    ) -> Result<Reply, Refused> {
        let From::Device(caller) = from else { return Err(Refused::not_allowed("register first")) };
        let placed = refusal(reading::place(&self.store, *caller, mailbox, after)).map_err(|_| Refused::Storage)?;
        let (start, head) = placed?;
        let Some(link) = self.links.get_mut(&link) else { return Err(Refused::Storage) };
        link.subscriptions.remove(&mailbox);
        if after.is_none_or(|after| after == start) {
            link.subscriptions.insert(mailbox, start.seq + 1);
        }
        Ok(Reply::Subscribed { start, head })
    }

    /// Sends what a subscription has not been sent.
    fn catch_up(&mut self, link: u64, mailbox: MailboxId) {
        while let Some((caller, next)) = self.subscription(link, mailbox) {
            let entries = self.store.entries(mailbox, next - 1, u64::MAX, limits::ENTRIES_BYTES);
            let interval = reading::interval(&self.store, caller, mailbox, Some(next - 1));
            let (Ok(mut entries), Ok(interval)) = (entries, interval) else { return };
            let until = interval.map_or(Some(next - 1), |(_, until)| until);
            entries.retain(|entry| until.is_none_or(|until| entry.seq <= until));
            let next = entries.last().map_or(next, |entry| entry.seq + 1);
            let ended = entries.is_empty() && until.is_some_and(|until| next > until);
            if let Some(link) = self.links.get_mut(&link) {
                if ended {
                    link.subscriptions.remove(&mailbox);
                } else {
                    link.subscriptions.insert(mailbox, next);
                }
            }
            if ended {
                return self.tell(link, None, FromRelay::Event(Event::Ended { mailbox }));
            }
            if entries.is_empty() {
                return;
            }
            self.tell(link, None, FromRelay::Event(Event::Entries { mailbox, entries }));
        }
    }

    fn subscription(&self, link: u64, mailbox: MailboxId) -> Option<(Caller, u64)> {
        let link = self.links.get(&link)?;
        let From::Device(caller) = link.from else { return None };
        Some((caller, *link.subscriptions.get(&mailbox)?))
    }

    fn wake(&mut self, wakes: Vec<Wake>) {
        for wake in wakes {
            match wake {
                Wake::Entry { mailbox, .. } => self.each(|_| true, |inside, link| inside.catch_up(link, mailbox)),
                Wake::Ended { mailbox, device } => {
                    self.each(|link| link.who.device == Some(device), |inside, link| inside.catch_up(link, mailbox));
                }
                Wake::Replaced { device, by } => {
                    let older =
                        |link: &Link| matches!(link.from, From::Device(of) if of.device == device && of.instance != by);
                    self.each(older, |inside, link| inside.farewell(link, Refused::Replaced));
                }
                Wake::Revoked { device } => {
                    let lost = |link: &Link| link.who.device == Some(device);
                    self.each(lost, |inside, link| inside.farewell(link, admission::revoked()));
                }
                Wake::Withdrawn { device } => {
                    let of = |link: &Link| link.who.device == Some(device);
                    self.each(of, |inside, link| inside.farewell(link, admission::withdrawn()));
                }
                Wake::Person { person, event } => {
                    let of = |link: &Link| link.who.person == Some(person);
                    self.each(of, |inside, link| inside.tell(link, None, FromRelay::Event(event.clone())));
                }
                Wake::Device { device, event } => {
                    let of = |link: &Link| link.who.device == Some(device);
                    self.each(of, |inside, link| inside.tell(link, None, FromRelay::Event(event.clone())));
                }
            }
        }
    }

    fn each(&mut self, which: impl Fn(&Link) -> bool, act: impl Fn(&mut Self, u64)) {
        let found: Vec<u64> = self.links.iter().filter(|(_, link)| which(link)).map(|(number, _)| *number).collect();
        found.into_iter().for_each(|link| act(self, link));
    }

    fn farewell(&mut self, link: u64, why: Refused) {
        self.tell(link, None, FromRelay::Refused(why));
        if let Some(link) = self.links.remove(&link) {
            let _gone = link.out.send(Out::End);
        }
    }

    /// Sends a link what becomes of a frame.
    fn tell(&mut self, link: u64, asked: Option<&Request>, frame: FromRelay) {
        let Self { misdeeds, links, .. } = self;
        let Some(link) = links.get(&link) else { return };
        for frame in (misdeeds.told)(&link.who, asked, frame) {
            // A link that has gone away hears no more.
            let _gone = link.out.send(Out::Frame(frame));
        }
    }
}

/// Whether somebody asks about the log.
pub(super) fn is_of_the_log(request: &Request) -> bool {
    matches!(request, Request::Checkpoint | Request::Consistency { .. } | Request::History { .. })
        && relay::only_reads(request)
}
