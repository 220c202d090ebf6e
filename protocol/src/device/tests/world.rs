//! What devices are tested against: vaults in memory, a relay that follows the mailbox rules and can be told to lie, and a pump.
//!
//! Invariant: a vault is changed by whole batches alone, and the relay accepts one content for one idem, as the real ones do.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::OnceLock;

use zeroize::Zeroizing;

use crate::device::state::{Batch, Record, RecordBody, RowKey, Rows, Snapshot, Table};
use crate::device::{Device, Enrolment, NewPersonInvite, Notice, Output, rows_of};
use crate::error::{Misuse, Refused};
use crate::frame::{
    AcceptedIdem, AdmittedBody, AdoptionView, Blob, Entry, EntryBody, Event, FromRelay, Instance, Interval, InviteView,
    NewInvite, Part, Post, RecoveryFiling, Registration, Reply, Request, Rights, TakenKeyPackage, VERSION,
};
use crate::identity::{Identity, Role, Signed, Step};
use crate::ids::{DeviceId, InviteId, MailboxId, MatterId, MessageId, PersonId, Position, Timestamp};
use crate::invite::{Invite, InviteSecret};
use crate::limits;
use crate::suite::{Digest, PublicKey, SecretKey};

mod devices;
mod directory;
mod keys;
pub(super) mod log;
mod mailboxes;

use devices::{LinkedRow, Told};
use mailboxes::mailbox;

/// A vault in memory.
#[derive(Clone, Default)]
pub(super) struct Vault(pub(super) BTreeMap<RowKey, Zeroizing<Vec<u8>>>);

impl Vault {
    pub(super) fn apply(&mut self, batch: Batch) {
        for (key, value) in batch.into_rows() {
            match value {
                Some(value) => self.0.insert(key, value),
                None => self.0.remove(&key),
            };
        }
    }
}

impl Snapshot for Vault {
    fn rows(&self, table: Table, matter: Option<MatterId>) -> Result<Rows, Misuse> {
        let of = self.0.iter().filter(|((t, m, _), _)| *t == table && *m == matter);
        Ok(of.map(|((_, _, key), value)| (key.clone(), value.clone())).collect())
    }
}

#[derive(Clone)]
struct Grant {
    device: DeviceId,
    rights: Rights,
    from: u64,
    until: Option<u64>,
}

#[derive(Clone)]
struct Mailbox {
    entries: Vec<Entry>,
    head: Position,
    fence: Position,
    positions: Vec<Position>,
    grants: Vec<Grant>,
    inbox_of: Option<DeviceId>,
}

#[derive(Clone)]
struct Person {
    registration: Registration,
    endorsement: Option<Signed>,
    inviter: Option<PersonId>,
    recovery: Option<RecoveryFiling>,
    line: Vec<Step>,
    past: Vec<Identity>,
    /// Certificates under a key that is not the first.
    certificates: Option<Vec<Signed>>,
    /// Who is enrolled anew, until the new key is endorsed.
    again: Option<Registration>,
}

/// What a relay does to the entries that it shows one reader.
pub(super) type Lie = fn(&mut Vec<Entry>);

/// A relay in memory.
#[derive(Clone, Default)]
pub(super) struct Relay {
    organisation: Option<PublicKey>,
    people: BTreeMap<PersonId, Person>,
    devices: BTreeMap<DeviceId, (PersonId, MailboxId)>,
    /// Devices beside their person's first.
    pub(super) linked: BTreeMap<DeviceId, LinkedRow>,
    revoked: Vec<(PersonId, DeviceId, Signed)>,
    /// A device's own key packages, while others are shown in their place.
    swapped: Option<(DeviceId, VecDeque<Blob>)>,
    /// People whose key was replaced.
    replaced: Vec<PersonId>,
    /// Devices that a new key has not certified.
    former: BTreeSet<DeviceId>,
    /// Whose endorsement was withdrawn, and by what.
    pub(super) withdrawn: BTreeMap<PersonId, Signed>,
    /// This device is told of no statement about anybody.
    pub(super) keeps_back: Option<DeviceId>,
    /// What is told of people, in order.
    pub(super) told: Vec<Told>,
    mailboxes: BTreeMap<MailboxId, Mailbox>,
    pub(in crate::device::tests) single_use: BTreeMap<DeviceId, VecDeque<Blob>>,
    pub(super) last_resort: BTreeMap<DeviceId, Blob>,
    accepted: BTreeMap<(DeviceId, u64), (Digest, Digest, Vec<u64>)>,
    pub(super) newest: BTreeMap<DeviceId, AcceptedIdem>,
    invites: BTreeMap<InviteId, (PersonId, NewInvite)>,
    envelopes: BTreeSet<Digest>,
    events: Vec<(PersonId, Event)>,
    /// How many Posts came, accepted or not.
    pub(super) posts: usize,
    /// The next Posts are refused with these.
    pub(super) refuse: VecDeque<Refused>,
    /// The next Post is refused with this, whatever idem it has.
    pub(super) refuse_before_idem: Option<Refused>,
    /// Two devices may hold one vault.
    pub(super) copies: bool,
    /// The newest instance of each device.
    instances: BTreeMap<DeviceId, Instance>,
    /// Changes when the relay is restored.
    pub(super) incarnation: [u8; 16],
    /// Its clock.
    now: Timestamp,
    /// After the next Post is accepted the link breaks instead of a reply.
    pub(super) lose_reply: bool,
    /// The next accepted Post is answered with this.
    pub(super) lie: Option<Refused>,
    /// The next accepted Post is answered without the places of its envelopes.
    pub(super) short_reply: bool,
    /// Its audit log.
    pub(super) log: log::Log,
    /// Another one that one device is shown.
    pub(super) other_log: Option<(DeviceId, log::Log)>,
    /// The incarnation after which it is called, if not this one.
    pub(super) log_name: Option<[u8; 16]>,
    /// The leaf of this number is left out of what it says of this person.
    pub(super) hidden_leaf: Option<(PersonId, u64)>,
    /// What it says of people is said without being in it.
    pub(super) forged_leaves: bool,
    /// People of whom nothing gets into it from now on.
    pub(super) unlogged: BTreeSet<PersonId>,
    /// This device reads on behind the end of its interval.
    pub(super) keep_reading: Option<DeviceId>,
    /// Instead of somebody's key packages those of somebody else are served.
    pub(super) swap_packages: BTreeMap<PersonId, PersonId>,
    /// Key packages are served with their last byte changed, a byte of their signature.
    pub(super) spoil_packages: bool,
    /// Instead of somebody's chain that of somebody else is served.
    pub(super) swap_chain: BTreeMap<PersonId, PersonId>,
    /// What one device is shown of matters instead of the truth.
    pub(super) shown: Option<(DeviceId, Lie)>,
    /// The inbox of this device has no room.
    pub(super) full: Option<DeviceId>,
    /// The endorsement of somebody enrolled anew is refused.
    pub(super) refuse_anew: bool,
    /// No endorsement arrives.
    pub(super) lose_endorsements: bool,
    /// No answer to one does.
    pub(super) lose_answers: bool,
    /// Registrations are shown altered.
    pub(super) altered: Option<fn(&mut Registration)>,
    /// So is what shows as whom somebody was invited.
    pub(super) altered_adoption: Option<fn(&mut AdoptionView)>,
}

impl Relay {
    fn owner(&self, device: DeviceId) -> Option<PersonId> {
        self.devices.get(&device).map(|(person, _)| *person)
    }

    pub(super) fn key(&self) -> &'static SecretKey {
        relay_key()
    }

    pub(super) fn admitted(&self, device: DeviceId, now: Timestamp) -> AdmittedBody {
        let (person, _) = self.devices[&device];
        AdmittedBody {
            version: VERSION,
            relay_key: relay_key().public().unwrap(),
            incarnation: self.incarnation,
            now,
            idem: self.newest.get(&device).cloned(),
            key_packages: self.single_use.get(&device).map_or(0, |packages| u32::try_from(packages.len()).unwrap()),
            ready: self.people[&person].endorsement.is_some() && !self.waits(device),
            organisation: self.organisation.clone(),
            firm: "Firm".to_owned(),
            rotations: Vec::new(),
        }
    }

    /// Whether this instance of a device is admitted: none that a newer one has replaced.
    fn hello(&mut self, device: DeviceId, instance: Instance) -> bool {
        if !self.serves(device) {
            return false;
        }
        let known = *self.instances.entry(device).or_insert(instance);
        if instance.number > known.number {
            self.instances.insert(device, instance);
            self.single_use.remove(&device);
            self.last_resort.remove(&device);
        }
        instance == known || instance.number > known.number
    }

    fn handle(&mut self, device: DeviceId, request: &Request) -> Reply {
        let (own, _) = self.devices[&device];
        match request {
            Request::Post(post) => self.post(device, post).map_or_else(Reply::Refused, |seqs| Reply::Posted { seqs }),
            Request::Subscribe { mailbox, after } => self.subscribe(device, *mailbox, *after),
            Request::Ack { .. } => Reply::Done,
            Request::PublishKeyPackages { single_use, last_resort } => {
                self.single_use.entry(device).or_default().extend(single_use.iter().cloned());
                self.last_resort.extend(last_resort.iter().map(|package| (device, package.clone())));
                Reply::Done
            }
            Request::TakeKeyPackages { person, device } => self.take(*person, *device),
            Request::People => Reply::People { people: Vec::new() },
            Request::Chain { person } => {
                let shown = self.swap_chain.get(person).unwrap_or(person);
                match self.chain(*shown) {
                    chain if chain.is_empty() => Reply::Refused(Refused::not_found("that person")),
                    chain => Reply::Chain { chain },
                }
            }
            Request::Invite(invite) => {
                let statement: crate::invite::InviteStatement = invite.statement.unverified("invite").unwrap();
                self.invites.insert(statement.invite, (own, invite.clone()));
                Reply::Done
            }
            Request::Newcomers => {
                let waiting = self.people.values().filter(|row| row.endorsement.is_none() && row.inviter == Some(own));
                let mut newcomers: Vec<Registration> = waiting.map(|row| row.registration.clone()).collect();
                let again = self.people.values().filter_map(|row| row.again.clone());
                newcomers.extend(again.filter(|again| self.invites[&again.invite].0 == own));
                if let Some(alter) = self.altered {
                    newcomers.iter_mut().for_each(alter);
                }
                Reply::Newcomers { newcomers }
            }
            Request::Endorse { .. } if self.lose_endorsements => Reply::Refused(Refused::Storage),
            Request::Endorse { person, .. } if self.refuse_anew && self.people[person].again.is_some() => {
                Reply::Refused(Refused::malformed("a device of that person is left out"))
            }
            Request::Endorse { person, endorsement } => {
                self.endorsed_anew(*person);
                let said: crate::identity::Endorsement = endorsement.unverified("endorsement").unwrap();
                if self.withdrawn.get(person).is_some_and(|before| said.after != Some(before.digest())) {
                    return Reply::Refused(Refused::not_allowed("it was withdrawn"));
                }
                if self.withdrawn.remove(person).is_some() {
                    self.events.extend(self.people.keys().map(|person| (*person, Event::Revoked)));
                }
                self.people.get_mut(person).unwrap().endorsement = Some(endorsement.clone());
                self.events.push((*person, Event::Endorsed));
                if self.lose_answers { Reply::Refused(Refused::Storage) } else { Reply::Done }
            }
            Request::Renewals => self.renewals(own),
            Request::Roster { mailbox } => {
                let row = &self.mailboxes[mailbox];
                let open = row.grants.iter().filter(|grant| grant.until.is_none());
                let grants = open
                    .map(|grant| Interval { device: grant.device, rights: grant.rights, from: grant.from })
                    .collect();
                Reply::Roster { grants, fence: row.fence }
            }
            Request::Checkpoint | Request::Consistency { .. } | Request::History { .. } => {
                self.log_request(device, request)
            }
            request => self.devices_request(device, own, request),
        }
    }
}

pub(in crate::device::tests) fn relay_key() -> &'static SecretKey {
    static KEY: OnceLock<SecretKey> = OnceLock::new();
    KEY.get_or_init(SecretKey::generate)
}

#[derive(Default)]
struct Wire {
    next: BTreeMap<MailboxId, u64>,
    incoming: VecDeque<FromRelay>,
}

/// A device with its vault and its link.
pub(super) struct Node {
    pub(super) device: Device,
    pub(super) vault: Vault,
    pub(super) notices: Vec<Notice>,
    pub(super) persists: usize,
    /// The device crashes right after this Persist.
    pub(super) crash_at: Option<usize>,
    /// The relay admits it no more: another copy has taken its place.
    pub(super) replaced: bool,
    wire: Option<Wire>,
}

impl Node {
    fn open(vault: Vault) -> Self {
        let device = Device::open(&vault).unwrap();
        Self { device, vault, notices: Vec::new(), persists: 0, crash_at: None, replaced: false, wire: None }
    }

    pub(super) fn person(&self) -> PersonId {
        self.device.profile().person
    }

    /// The private leaf keys of this device's key packages are others now: it can join, but no path secret opens, as if whoever
    /// commits had sealed garbage to it.
    pub(super) fn spoil_leaf_keys(&mut self) {
        for (reference, secret) in self.device.key_packages.spoil_leaf_keys() {
            self.vault.0.insert((Table::KeyPackage, None, reference), secret);
        }
    }

    pub(super) fn is_online(&self) -> bool {
        self.wire.is_some()
    }

    /// Everything in memory is gone, and so is whatever was not sent.
    pub(super) fn crash(&mut self) {
        self.device = Device::open(&self.vault).unwrap();
        self.wire = None;
        self.crash_at = None;
    }
}

/// An invite for somebody.
pub(super) struct Invited {
    pub(super) invite: Invite,
    view: InviteView,
    handle: String,
    role: Role,
    by: PersonId,
}

/// Devices, their relay and the time.
pub(super) struct World {
    pub(super) now: Timestamp,
    pub(super) relay: Relay,
    pub(super) nodes: Vec<Node>,
}

pub(super) const ADA: usize = 0;
pub(super) const BOB: usize = 1;
pub(super) const CYN: usize = 2;
pub(super) const DAN: usize = 3;
pub(super) const EVE: usize = 4;

impl World {
    /// Two attorneys, one of staff and two clients, ready and online. Ada is the registrar.
    pub(super) fn office() -> Self {
        static SEED: OnceLock<(Relay, Vec<Vault>)> = OnceLock::new();
        let (relay, vaults) = SEED.get_or_init(|| {
            let mut world = Self { now: Timestamp(1_800_000_000_000), relay: Relay::default(), nodes: Vec::new() };
            world.found("ada");
            world.join(ADA, "bob", Role::Attorney);
            world.join(ADA, "cyn", Role::Staff);
            world.join(BOB, "dan", Role::Client);
            world.join(CYN, "eve", Role::Client);
            (world.relay, world.nodes.into_iter().map(|node| node.vault).collect())
        });
        let nodes = vaults.iter().cloned().map(Node::open).collect();
        let mut world = Self { now: Timestamp(1_800_000_100_000), relay: relay.clone(), nodes };
        world.settle();
        world
    }

    /// The same again, everybody offline.
    pub(super) fn fork(&self) -> Self {
        let nodes = self.nodes.iter().map(|node| Node::open(node.vault.clone())).collect();
        Self { now: self.now, relay: self.relay.clone(), nodes }
    }

    /// A matter of Ada's with some of the others in it.
    pub(super) fn matter(&mut self, with: &[usize]) -> MatterId {
        let matter = self.open(ADA);
        for other in with {
            self.add(ADA, matter, *other);
        }
        self.settle();
        matter
    }

    /// The relay is what it was then, in a new incarnation. Everybody's link breaks.
    pub(super) fn restore(&mut self, backup: Relay) {
        (0..self.nodes.len()).for_each(|index| self.disconnect(index));
        let incarnation = [self.relay.incarnation[0] + 1; 16];
        // Key packages of a backup may have been taken since.
        let (single_use, last_resort) = (BTreeMap::new(), BTreeMap::new());
        self.relay = Relay { incarnation, single_use, last_resort, ..backup };
    }

    fn found(&mut self, handle: &str) {
        let invite = Invite {
            address: "localhost:1".to_owned(),
            relay: relay_key().public().unwrap().fingerprint(),
            organisation: None,
            secret: InviteSecret::random(),
        };
        let view = InviteView { statement: None, name: None, chain: Vec::new(), replaced: None };
        self.enrol(invite, view, handle, Role::Attorney, None);
    }

    /// Invites somebody, who registers and comes online; the inviter endorses them if online.
    pub(super) fn join(&mut self, inviter: usize, handle: &str, role: Role) -> usize {
        let invited = self.invite(inviter, handle, role);
        self.enter(invited)
    }

    /// An invite, as its URL and the relay show it.
    pub(super) fn invite(&mut self, inviter: usize, handle: &str, role: Role) -> Invited {
        let wanted = NewPersonInvite { handle: Some(handle.to_owned()), ..NewPersonInvite::new(role) };
        let invite = self.nodes[inviter].device.invite(self.now, &wanted).unwrap();
        self.run();
        let (by, filed) = self.relay.invites[&invite.secret.id()].clone();
        let view = InviteView {
            statement: Some(filed.statement),
            name: filed.name,
            chain: self.relay.chain(by),
            replaced: None,
        };
        Invited { invite, view, handle: handle.to_owned(), role, by }
    }

    /// Somebody uses an invite and comes online.
    pub(super) fn enter(&mut self, invited: Invited) -> usize {
        let Invited { invite, view, handle, role, by } = invited;
        self.enrol(invite, view, &handle, role, Some(by))
    }

    fn enrol(&mut self, invite: Invite, view: InviteView, handle: &str, role: Role, by: Option<PersonId>) -> usize {
        let key = SecretKey::generate();
        let enrolment = Enrolment::new(invite, key, view, self.relay.organisation.clone(), self.now).unwrap();
        let relay = relay_key().public().unwrap();
        let (profile, registration) = enrolment.enrol(self.now, relay, "Firm", handle, handle, role).unwrap();
        let mut vault = Vault::default();
        for (key, value) in rows_of(&profile) {
            vault.0.insert((Table::Profile, None, key), value);
        }
        self.relay.register(&registration, by);
        self.nodes.push(Node::open(vault));
        let index = self.nodes.len() - 1;
        self.connect(index);
        self.run();
        index
    }

    pub(super) fn connect(&mut self, index: usize) {
        let (device, instance) = (self.nodes[index].device.profile().device, self.nodes[index].device.instance());
        if !self.relay.hello(device, instance) {
            self.nodes[index].replaced = true;
            return;
        }
        let node = &mut self.nodes[index];
        node.wire = Some(Wire::default());
        let admitted = self.relay.admitted(node.device.profile().device, self.now);
        node.device.handle_link_up(self.now, &admitted).unwrap();
    }

    pub(super) fn disconnect(&mut self, index: usize) {
        self.nodes[index].wire = None;
        self.nodes[index].device.handle_link_down();
        self.drain(index);
    }

    /// Runs until nothing happens any more, and until everybody is online again.
    pub(super) fn settle(&mut self) {
        loop {
            self.run();
            let offline = |index: &usize| !self.nodes[*index].is_online() && !self.nodes[*index].replaced;
            let offline: Vec<usize> = (0..self.nodes.len()).filter(offline).collect();
            if offline.is_empty() {
                return;
            }
            for index in offline {
                self.connect(index);
            }
        }
    }

    /// Runs with one device away, and lets the time come that others wait for, for a minute.
    pub(super) fn settle_but(&mut self, away: usize) {
        let end = self.now.plus_ms(60_000);
        loop {
            self.run();
            let others = (0..self.nodes.len()).filter(|index| *index != away);
            let next = others.filter_map(|index| Some((self.nodes[index].device.deadline()?, index))).min();
            let Some((at, index)) = next.filter(|(at, _)| *at <= end) else { return };
            self.now = at;
            self.nodes[index].device.handle_time(at);
        }
    }

    /// Runs until nothing happens any more.
    pub(super) fn run(&mut self) {
        for _ in 0..10_000 {
            let mut moved = false;
            for index in 0..self.nodes.len() {
                moved |= self.turn(index);
            }
            if !moved {
                return;
            }
        }
        panic!("devices and relay never come to rest");
    }

    /// Lets the time come at which a device wants to be called.
    pub(super) fn wait(&mut self, index: usize) {
        let at = self.nodes[index].device.deadline().expect("something to wait for");
        assert!(at > self.now, "a deadline in the past makes its driver spin");
        self.now = at;
        self.nodes[index].device.handle_time(at);
        self.run();
    }

    pub(super) fn turn(&mut self, index: usize) -> bool {
        let mut moved = self.drain(index);
        self.events();
        let device = self.nodes[index].device.profile().device;
        if !self.relay.serves(device) {
            (self.nodes[index].wire, self.nodes[index].replaced) = (None, true);
        }
        let Some(wire) = self.nodes[index].wire.as_mut() else { return moved };
        for (mailbox, next) in &mut wire.next {
            let Some((_, until)) = self.relay.readable(device, *mailbox) else { continue };
            let entries = self.relay.view(device, *mailbox).into_iter();
            let entries: Vec<Entry> = entries.filter(|entry| entry.seq >= *next && entry.seq <= until).collect();
            if let Some(last) = entries.last() {
                *next = last.seq + 1;
                wire.incoming.push_back(FromRelay::Event(Event::Entries { mailbox: *mailbox, entries }));
            }
        }
        match wire.incoming.pop_front() {
            Some(FromRelay::Reply { id, reply }) => self.nodes[index].device.handle_reply(self.now, id, reply),
            Some(FromRelay::Event(event)) => self.nodes[index].device.handle_event(self.now, event),
            _ => return moved,
        }
        moved |= self.drain(index);
        let _ = moved;
        true
    }

    fn events(&mut self) {
        for (person, event) in std::mem::take(&mut self.relay.events) {
            for node in self.nodes.iter_mut().filter(|node| node.device.profile().person == person) {
                if let Some(wire) = node.wire.as_mut() {
                    wire.incoming.push_back(FromRelay::Event(event.clone()));
                }
            }
        }
    }

    pub(super) fn drain(&mut self, index: usize) -> bool {
        let mut moved = false;
        let node = &mut self.nodes[index];
        while let Some(output) = node.device.poll() {
            moved = true;
            match output {
                Output::Persist(batch) => {
                    node.vault.apply(batch);
                    node.persists += 1;
                    if node.crash_at == Some(node.persists) {
                        node.crash();
                    }
                }
                Output::Deliver(notice) => node.notices.push(notice),
                Output::Reconnect => {
                    node.wire = None;
                    node.device.handle_link_down();
                }
                Output::Recall { matter, .. } => node.device.recall(self.now, matter, &node.vault).unwrap(),
                Output::History { device } => node.device.history_piece(self.now, device, &node.vault).unwrap(),
                Output::Send(frame) => {
                    let Some(wire) = node.wire.as_mut() else { continue };
                    self.relay.now = self.now;
                    let mut reply = self.relay.handle(node.device.profile().device, &frame.request);
                    if matches!(reply, Reply::Posted { .. })
                        && let Some(lie) = self.relay.lie.take()
                    {
                        reply = Reply::Refused(lie);
                    }
                    if let Reply::Posted { seqs } = &mut reply
                        && std::mem::take(&mut self.relay.short_reply)
                    {
                        seqs.clear();
                    }
                    if self.relay.lose_reply && matches!(reply, Reply::Posted { .. }) {
                        self.relay.lose_reply = false;
                        node.crash();
                        continue;
                    }
                    // Where the relay does not have the position, it says where it is and subscribes nothing.
                    if let (Request::Subscribe { mailbox, after }, Reply::Subscribed { start, .. }) =
                        (&frame.request, &reply)
                        && after.is_none_or(|after| after == *start)
                    {
                        wire.next.insert(*mailbox, start.seq + 1);
                    }
                    wire.incoming.push_back(FromRelay::Reply { id: frame.id, reply });
                }
            }
        }
        moved
    }

    pub(super) fn person(&self, index: usize) -> PersonId {
        self.nodes[index].person()
    }

    pub(super) fn open(&mut self, by: usize) -> MatterId {
        let matter = self.nodes[by].device.open_matter(self.now, "Smith v Jones").unwrap();
        self.drain(by);
        matter
    }

    pub(super) fn add(&mut self, by: usize, matter: MatterId, whom: usize) {
        let person = self.person(whom);
        let handle = self.nodes[whom].device.profile().handle.clone();
        self.nodes[by].device.add(self.now, matter, person, &handle).unwrap();
        self.drain(by);
    }

    pub(super) fn remove(&mut self, by: usize, matter: MatterId, whom: usize) {
        let person = self.person(whom);
        self.nodes[by].device.remove(self.now, matter, person, "someone").unwrap();
        self.drain(by);
    }

    pub(super) fn say(&mut self, by: usize, matter: MatterId, text: &str) -> MessageId {
        let id = MessageId::random();
        self.now = self.now.plus_ms(1);
        self.nodes[by].device.send_text(self.now, matter, id, text).unwrap();
        self.drain(by);
        id
    }

    /// What a device has recorded of a matter, as its vault has it.
    pub(super) fn records(&self, index: usize, matter: MatterId) -> Vec<Record> {
        let rows = self.nodes[index].vault.rows(Table::Record, Some(matter)).unwrap();
        rows.into_iter().map(|(_, row)| crate::cbor::decode(&row, "record").unwrap()).collect()
    }

    /// The texts of a matter on one device: seq, author, text.
    pub(super) fn texts(&self, index: usize, matter: MatterId) -> Vec<(u64, PersonId, String)> {
        let texts = self.records(index, matter).into_iter().filter_map(|record| match record.what {
            RecordBody::Text { text, .. } => Some((record.seq, record.from.unwrap(), text)),
            _ => None,
        });
        texts.collect()
    }

    /// The texts alone.
    pub(super) fn words(&self, index: usize, matter: MatterId) -> Vec<String> {
        self.texts(index, matter).into_iter().map(|(_, _, text)| text).collect()
    }

    /// All these devices have the same texts in the same order, and nothing that they could not open or that is disputed.
    pub(super) fn agree(&self, matter: MatterId, who: &[usize], texts: &[&str]) {
        for index in who {
            let odd = |record: &Record| {
                matches!(
                    record.what,
                    RecordBody::Void { .. } | RecordBody::Dispute { .. } | RecordBody::Gap | RecordBody::Unknown
                )
            };
            let odd: Vec<Record> = self.records(*index, matter).into_iter().filter(odd).collect();
            assert!(odd.is_empty(), "device {index}: {odd:?}");
            assert_eq!(self.words(*index, matter), texts, "device {index}");
            assert_eq!(self.texts(*index, matter), self.texts(who[0], matter), "device {index}");
        }
    }

    pub(super) fn told(&self, index: usize, wanted: impl Fn(&Notice) -> bool) -> usize {
        self.nodes[index].notices.iter().filter(|notice| wanted(notice)).count()
    }
}
