//! A device: the protocol's endpoint, over its matters and one link. Pure: no socket, disk or clock of its own.
//!
//! 1. Whoever drives it calls a `handle_*` method or a command, with the time.
//! 2. It drains [`Device::poll`]: [`Output::Persist`] made durable before the next [`Output::Send`] goes out, [`Output::Deliver`]
//!    shown to the user.
//! 3. At [`Device::deadline`] it calls [`Device::handle_time`].
//!
//! Devices of one person are linked in `linking.rs`, revoked in `revoking.rs`, and let into matters or put out of them in `tidy.rs`; they write to
//! each other in `notes.rs`, and say what stands in `sharing.rs`; what was said before comes to a new one in `history.rs`.
//! Endorsements are renewed in `renewals.rs` and withdrawn in `withdrawing.rs`; `lapses.rs` asks before more is sent where one has lapsed.
//!
//! Reading is in `apply.rs`, `commit.rs` and `inbox.rs`, writing in `post.rs`, what the relay answers in `reply.rs`, people and key packages in `people.rs`, what is kept in `state.rs`. What goes wrong has
//! rooms of its own: `rescue.rs` for a device out of step or copied, `restore.rs` for a relay that shows another past, `successor.rs`
//! for a matter that nobody can save, `roster.rs` for rosters that a void Commit left behind; `heal.rs` renews keys in time, `rotating.rs` follows the
//! relay to its new key.
//!
//! Invariant: a reply only settles the outbox; what is in a matter is what was *read* from its mailbox, in seq order.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use minicbor::bytes::ByteArray;
use zeroize::Zeroizing;

use crate::cbor;
use crate::error::{Error, Misuse, PeerMisbehaved};
use crate::frame::{
    AdmittedBody, Blob, DeviceRegistration, Event, Instance, Post, Registration, Reply, Request, ToRelay,
};
use crate::identity::{DeviceRevocation, EndorsementRevocation, Identity, Name, Signed};
use crate::ids::{DeviceId, InviteId, MailboxId, MatterId, PersonId, Position, Timestamp};
use crate::limits;
use crate::log::LogHead;
use crate::matter::{KeyPackages, LeafCredential, Me};
use crate::suite::{self, Digest};

mod adopting;
mod apply;
mod commit;
mod enrol;
mod heal;
mod history;
mod identities;
mod inbox;
mod keys;
mod lapses;
mod late;
mod linking;
mod logged;
mod naming;
mod notes;
mod notice;
mod packages;
mod people;
mod post;
mod proof;
mod recover;
mod rekey;
mod renewals;
mod reply;
mod rescue;
mod restore;
mod revoking;
mod room;
mod roster;
mod rotating;
mod sharing;
pub mod state;
mod successor;
#[cfg(test)]
mod tests;
mod tidy;
mod told;
mod transparency;
mod withdrawing;

pub use adopting::Adoption;
pub use enrol::Enrolment;
pub use history::{HistoryOffer, HistoryProgress};
pub use keys::Replacing;
pub use keys::too_many_steps;
pub use linking::{PersonsDevice, Standing, device_fingerprint};
pub use notice::Notice;
pub use people::NewPersonInvite;
pub use recover::{Recovering, with_step};
use room::{Room, keyed, numbered};
use state::{
    Batch, Counters, Intent, KnownPerson, Logged, MatterRow, OutItem, OwnInvite, PendingPost, Profile, RevocationsTold,
    Revoked, Rows, Snapshot, Stage, Table, Withdrawn, load,
};
use transparency::Watch;
pub use transparency::{LogFault, LogView};

/// What a device asks of whoever drives it.
#[derive(Debug)]
#[non_exhaustive]
pub enum Output {
    /// Make this durable before the next [`Self::Send`].
    Persist(Batch),
    /// Send this to the relay.
    Send(ToRelay),
    /// Tell the user.
    Deliver(Notice),
    /// Close the link and open another, at once: this device says hello as another [instance](Device::instance) now.
    Reconnect,
    /// Call [`Device::recall`] with the vault: the relay has forgotten texts of this device in this matter, from after that seq on.
    Recall {
        /// Which matter.
        matter: MatterId,
        /// The last seq that the relay still has.
        after: u64,
    },
    /// Call [`Device::history_piece`] with the vault: what was said before goes on its way to this device.
    History {
        /// Which.
        device: DeviceId,
    },
}

/// What a request was for.
#[derive(Debug, Clone, PartialEq)]
enum Asked {
    Subscribe(MailboxId, Option<Position>),
    Post(u64),
    Ack,
    KeyPackages { last_resort: bool },
    Chain(PersonId),
    Identity(PersonId),
    Take(PersonId),
    People,
    Newcomers,
    Endorse(PersonId, InviteId, Box<(String, Vec<Identity>, Name)>),
    Invite(InviteId),
    Invites,
    CancelInvite(InviteId),
    Renewals,
    EndorseAnew(PersonId, Vec<Identity>),
    Adoptable,
    Adoption(PersonId),
    Adopt(PersonId),
    Roster(MatterId),
    WaitingDevices,
    Certify(DeviceId, InviteId),
    Certified,
    Linked,
    Revoke(DeviceRevocation, Signed),
    Withdraw(EndorsementRevocation, Signed),
    Revocations,
    FiledAgain,
    TakeOwn(DeviceId),
    Checkpoint,
    Grown { from: LogHead, to: LogHead, by: Option<PersonId> },
    History(PersonId, u64),
    Statements(PersonId, u64),
    OwnHistory { after: u64, size: u64 },
    SetRecovery(Signed),
    ReplaceKey,
    ReplaceKeyAgain,
}

/// What is known of somebody who is to be added, gathered for one Commit.
#[derive(Debug, Default)]
struct Material {
    chain: Option<Vec<Identity>>,
    packages: Option<Vec<crate::frame::TakenKeyPackage>>,
    asked: bool,
    waits: bool,
    /// When to ask again, while it waits.
    again_at: Option<Timestamp>,
}

/// The endpoint machine.
#[derive(Debug)]
pub struct Device {
    profile: Profile,
    me: Me,
    key_packages: KeyPackages,
    rooms: BTreeMap<MatterId, Room>,
    posts: BTreeMap<u64, PendingPost>,
    people: BTreeMap<PersonId, KnownPerson>,
    invites: BTreeMap<InviteId, OwnInvite>,
    materials: BTreeMap<PersonId, Material>,
    /// Newcomers whom this person may take in, as the relay has shown them last.
    adoptable: BTreeMap<PersonId, Registration>,
    /// The one of them that was asked for last, with what their inviter has signed.
    adoption: Option<Box<Adoption>>,
    /// Devices of this person that wait to be certified, their proof checked.
    waiting: BTreeMap<DeviceId, DeviceRegistration>,
    /// The device that is being certified, the invite it used, and what the relay is asked.
    certifying: Option<(DeviceId, InviteId, Request)>,
    /// Key packages of this person's other devices.
    own_packages: BTreeMap<DeviceId, tidy::OwnPackage>,
    /// What goes between the devices of this person.
    notes: Box<notes::Notes>,
    /// Single-use key packages that the relay has served, by hash: the newest.
    served: Vec<Digest>,
    /// What was said before, on its way to and from them.
    history: Box<history::Histories>,
    /// Devices that are nobody's any more.
    revoked: BTreeMap<DeviceId, Revoked>,
    /// People for whom nobody vouches any more, by the newest statement; a later endorsement may have made it good.
    withdrawn: BTreeMap<PersonId, Withdrawn>,
    /// Statements that may be from after their author's end.
    late: Box<late::Late>,
    /// When to look next for people in matters for whom nobody vouches any more.
    lapses_at: Timestamp,
    /// Up to which statement about people the relay has told this device.
    told: Option<RevocationsTold>,
    inbox: Position,
    instance: Instance,
    idem: u64,
    /// The newest idem with the hash of its parts: a copy of this vault may have used it for something else.
    issued: Option<(u64, Digest)>,
    /// When a device was last let back into a matter, and how often of late.
    let_in: BTreeMap<(MatterId, DeviceId), (Timestamp, u32)>,
    cursor: u64,
    number: u64,
    ready: bool,
    /// When the last-resort key package was published.
    last_resort: Timestamp,
    /// The references of those that are kept, the newest last.
    last_resorts: Vec<Blob>,
    /// The relay's incarnation, once it was met.
    incarnation: Option<[u8; 16]>,
    /// Up to which seq Welcomes in the inbox may have been used by another copy of this vault.
    used_welcomes: Option<u64>,
    /// Up to which seq the inbox was read under the relay's incarnation before.
    restored_inbox: Option<u64>,
    /// What the audit log says of people, as far as it was read.
    histories: BTreeMap<PersonId, Logged>,
    /// The relay's audit log.
    watch: Box<Watch>,
    /// The link is to be closed and opened again.
    reconnect: bool,
    now: Timestamp,
    link: Option<Link>,
    outputs: VecDeque<Output>,
    later: Vec<(Asked, Request)>,
    batch: Batch,
    notices: Vec<Notice>,
}

/// What belongs to one link and is gone with it.
#[derive(Debug, Default)]
struct Link {
    next: u64,
    asked: BTreeMap<u64, Asked>,
    heads: BTreeMap<MailboxId, u64>,
    sent: BTreeSet<u64>,
    caught_up: bool,
    /// The inbox is read once every matter is.
    inbox_asked: bool,
    /// An entry came before its turn, and that was told.
    gap_told: bool,
    /// Mailboxes whose reading rests before an entry that can't be judged yet: nothing else waits for them.
    resting: BTreeSet<MailboxId>,
    /// When it was last asked whose endorsements may be renewed.
    renewals_asked: Option<Timestamp>,
    /// A Welcome that came before the statement it belongs to, and whether it was asked for again.
    held_welcome: Option<(u64, bool)>,
    /// Whether the relay was told again what led to this person's key.
    line_filed: bool,
}

impl Device {
    /// The device that a vault holds.
    ///
    /// # Errors
    /// [`Misuse::State`] if something in it does not load.
    pub fn open(vault: &dyn Snapshot) -> Result<Self, Error> {
        let profile: Profile = load(vault, Table::Profile, None, "profile")?
            .into_iter()
            .next()
            .map(|(_, profile)| profile)
            .ok_or(Misuse::State("profile"))?;
        let counters: BTreeMap<Vec<u8>, Zeroizing<Vec<u8>>> = vault.rows(Table::Counter, None)?.into_iter().collect();
        let count = |name: &[u8]| counters.get(name).and_then(|value| cbor::decode(value, "counter").ok());
        let inbox = match counters.get(Counters::INBOX) {
            Some(value) => cbor::decode(value, "inbox").map_err(|_| Misuse::State("inbox"))?,
            None => Position::start(profile.inbox),
        };
        let credential = LeafCredential {
            person: profile.person,
            device: profile.device,
            certificate: profile.certificate.digest(),
        };
        let key_packages = KeyPackages::default();
        for (reference, secret) in vault.rows(Table::KeyPackage, None)? {
            key_packages.restore(reference, &secret)?;
        }
        let mut device = Self {
            me: Me { credential, key: profile.mls_key.clone() },
            key_packages,
            rooms: BTreeMap::new(),
            posts: numbered(load(vault, Table::Post, None, "post")?)?,
            people: keyed(load(vault, Table::Person, None, "person")?, PersonId::from_slice)?,
            invites: keyed(load(vault, Table::Invite, None, "invite")?, InviteId::from_slice)?,
            materials: BTreeMap::new(),
            adoptable: BTreeMap::new(),
            adoption: None,
            late: Box::default(),
            waiting: BTreeMap::new(),
            certifying: None,
            own_packages: BTreeMap::new(),
            served: packages::served(counters.get(Counters::SERVED)),
            notes: Box::new(notes::Notes::open(vault)?),
            history: Box::new(history::Histories::open(vault)?),
            revoked: keyed(load(vault, Table::Revoked, None, "revoked device")?, DeviceId::from_slice)?,
            withdrawn: keyed(load(vault, Table::Withdrawn, None, "withdrawn endorsement")?, PersonId::from_slice)?,
            lapses_at: Timestamp(0),
            told: told::told(counters.get(Counters::REVOCATIONS)),
            inbox,
            instance: kept(counters.get(Counters::INSTANCE), "instance")?.unwrap_or(profile.instance),
            idem: count(Counters::IDEM).unwrap_or(0),
            issued: counters.get(Counters::ISSUED).and_then(|value| cbor::decode(value, "issued").ok()),
            let_in: BTreeMap::new(),
            cursor: count(Counters::CURSOR).unwrap_or(0),
            number: count(Counters::NUMBER).unwrap_or(0),
            ready: count(Counters::READY).unwrap_or(0) == 1,
            last_resort: Timestamp(count(Counters::LAST_RESORT).unwrap_or(0)),
            last_resorts: match counters.get(Counters::LAST_RESORTS) {
                Some(value) => cbor::decode(value, "last resorts").map_err(|_| Misuse::State("last resorts"))?,
                None => Vec::new(),
            },
            incarnation: met(counters.get(Counters::INCARNATION)),
            used_welcomes: count(Counters::USED_WELCOMES),
            restored_inbox: count(Counters::RESTORED_INBOX),
            histories: keyed(load(vault, Table::Logged, None, "log of a person")?, PersonId::from_slice)?,
            watch: Box::new(Watch::of(counters.get(Counters::LOG).and_then(|value| cbor::decode(value, "log").ok()))),
            reconnect: false,
            now: Timestamp(0),
            link: None,
            outputs: VecDeque::new(),
            later: Vec::new(),
            batch: Batch::default(),
            notices: Vec::new(),
            profile,
        };
        device.open_rooms(vault)?;
        Ok(device)
    }

    fn open_rooms(&mut self, vault: &dyn Snapshot) -> Result<(), Error> {
        for (key, row) in load::<MatterRow>(vault, Table::Matter, None, "matter")? {
            let id = MatterId::from_slice(&key).map_err(|_| Misuse::State("matter"))?;
            self.rooms.insert(id, Room::open(vault, id, row)?);
        }
        Ok(())
    }

    /// What to do next; none once everything is said.
    pub fn poll(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When to call [`Self::handle_time`], if nothing else happens before. Never a time that this device was told has come.
    pub fn deadline(&self) -> Option<Timestamp> {
        self.link.as_ref()?;
        let rooms = self.rooms.values().flat_map(Room::wakes);
        let again = self.materials.values().filter_map(|material| material.again_at);
        let rotates = Some(self.last_resort.plus_ms(limits::LAST_RESORT_MS));
        let notes = Some(self.notes.not_before).into_iter().chain(self.notes.newcomers_at);
        let notes = notes.chain(self.notes.due()).chain(self.history_due());
        rooms.chain(again).chain(rotates).chain(notes).chain(self.packages_due()).filter(|at| *at > self.now).min()
    }

    /// Who this device is.
    pub fn profile(&self) -> &Profile {
        &self.profile
    }

    /// Which copy of the profile this is, for the hello.
    pub fn instance(&self) -> Instance {
        self.instance
    }

    /// Whether the person is endorsed.
    pub fn is_ready(&self) -> bool {
        self.ready
    }

    /// Whether everything that the relay had is applied, on this link.
    pub fn is_caught_up(&self) -> bool {
        self.link.as_ref().is_some_and(|link| link.caught_up)
    }

    /// Whether there is nothing left to send or wait for.
    pub fn is_settled(&self) -> bool {
        self.posts.is_empty() && !self.rooms.values().any(Room::wants_to_post)
    }

    /// Whether nothing is under way: nothing asked or posted is unanswered, and nothing could be posted now.
    pub fn is_idle(&self) -> bool {
        let asked = self.link.as_ref().is_some_and(|link| link.asked.values().any(|asked| *asked != Asked::Ack));
        let possible = self.rooms.values().filter(|room| room.row.stage == Stage::Open).any(|room| {
            let waits = |person| self.materials.get(&person).is_some_and(|material| material.waits);
            let possible = |intent: &Intent| {
                if intent.add { !waits(intent.person) } else { !room.is_yet_to_come(intent.person) }
            };
            room.intents.values().any(possible)
                || !room.row.waits_for_a_word()
                    && room.outbox.values().any(|item| item.digest.is_none() && item.failed.is_none())
        });
        !asked && self.posts.is_empty() && !possible && !self.has_notes_to_send() && !self.has_history_to_send()
    }

    /// The matters, by id.
    pub fn matters(&self) -> impl Iterator<Item = (MatterId, &MatterRow)> {
        self.rooms.iter().map(|(id, room)| (*id, &room.row))
    }

    /// A matter.
    pub fn matter(&self, matter: MatterId) -> Option<&MatterRow> {
        self.rooms.get(&matter).map(|room| &room.row)
    }

    /// Until when the relay has put off what this device has to post in a matter, if it has.
    pub fn put_off_until(&self, matter: MatterId) -> Option<Timestamp> {
        self.rooms.get(&matter).map(|room| room.not_before).filter(|at| *at > self.now)
    }

    /// Texts of a matter that are not yet in its mailbox, oldest first.
    pub fn pending(&self, matter: MatterId) -> Vec<&OutItem> {
        let items = self.rooms.get(&matter).map(|room| room.outbox.values());
        items.into_iter().flatten().filter(|item| item.is_text()).collect()
    }

    /// Changes of membership that are not yet done.
    pub fn intents(&self, matter: MatterId) -> Vec<&Intent> {
        self.rooms.get(&matter).map(|room| room.intents.values().collect()).unwrap_or_default()
    }

    /// A person as this device knows them.
    pub fn person(&self, person: PersonId) -> Option<&KnownPerson> {
        self.people.get(&person)
    }

    /// The link is up and the relay has admitted this device.
    ///
    /// # Errors
    /// [`PeerMisbehaved`] if the organisation's key is not the one this device knows, or the relay names a key that does not take the
    /// place of the pinned one.
    pub fn handle_link_up(&mut self, now: Timestamp, admitted: &AdmittedBody) -> Result<(), Error> {
        if admitted.organisation.as_ref().is_some_and(|key| *key != self.profile.organisation) {
            return Err(PeerMisbehaved::WrongKey("the organisation's key").into());
        }
        let more = self.follow_relay(&admitted.rotations)?;
        self.now = now;
        self.materials.clear();
        self.own_packages.clear();
        if more {
            // What the relay signs with its newest key, this device does not believe yet.
            self.reconnect = true;
            self.settle(now);
            return Ok(());
        }
        if let Some(accepted) = admitted.idem.as_ref().filter(|accepted| self.is_copy(accepted)) {
            // Nothing is said as the instance that this vault has been.
            self.become_copy(now, accepted);
            self.settle(now);
            return Ok(());
        }
        self.link = Some(Link::default());
        self.meet_incarnation(admitted.incarnation);
        if admitted.ready {
            self.become_ready();
        }
        let mut reading: Vec<(MailboxId, Option<Position>)> = Vec::new();
        self.mend_times(now);
        for room in self.rooms.values_mut().filter(|room| room.reads(now)) {
            // Where the mailbox ends, the subscription tells.
            (room.fence_at, room.heal_from, room.read_first) = (now, None, 0);
            reading.push((room.row.mailbox, room.row.reads_from()));
            let old = room.row.old.as_ref().filter(|old| !old.gone);
            reading.extend(old.map(|old| (old.mailbox, Some(old.position).filter(|position| position.seq > 0))));
        }
        for (mailbox, after) in reading {
            self.ask(Asked::Subscribe(mailbox, after), Request::Subscribe { mailbox, after });
        }
        let matters: Vec<MatterId> = self.rooms.keys().copied().collect();
        matters.into_iter().for_each(|matter| self.ask_recall(matter));
        self.top_up_key_packages(admitted.key_packages)?;
        self.forget_old_invites(now);
        self.ask_whether_certified();
        self.watch_anew();
        self.ask_about_people();
        self.ask_to_certify();
        self.ask_to_file();
        self.ask_to_replace();
        self.look_at_devices();
        self.settle(now);
        Ok(())
    }

    /// The link is down; whatever was asked and not answered is asked again on the next.
    pub fn handle_link_down(&mut self) {
        self.link = None;
        self.later.clear();
        self.materials.clear();
        self.flush();
    }

    /// The relay answered.
    pub fn handle_reply(&mut self, now: Timestamp, id: u64, reply: Reply) {
        let Some(asked) = self.link.as_mut().and_then(|link| link.asked.remove(&id)) else { return };
        match asked {
            Asked::Subscribe(mailbox, after) => self.subscribed(now, mailbox, after, reply),
            Asked::Post(idem) => self.posted(now, idem, reply),
            Asked::Ack => {}
            Asked::KeyPackages { last_resort } => self.published(last_resort, reply),
            Asked::Chain(person) => self.chain_came(person, reply),
            Asked::Identity(person) => self.identity_came(person, reply),
            Asked::Take(person) => self.key_packages_came(person, reply),
            Asked::People => {
                if let Reply::People { people } = reply {
                    self.deliver(Notice::People(people));
                }
            }
            Asked::Newcomers => self.newcomers_came(now, reply),
            Asked::Endorse(person, invite, vouched) => self.endorsed(person, invite, *vouched, reply),
            Asked::Invite(invite) => self.invite_filed(invite, reply),
            Asked::Invites => self.invites_came(reply),
            Asked::CancelInvite(invite) => self.invite_cancelled(invite, reply),
            Asked::Renewals => self.renewals_came(now, reply),
            Asked::EndorseAnew(person, chain) => self.endorsed_anew(person, chain, reply),
            Asked::Adoptable => self.adoptable_came(reply),
            Asked::Adoption(person) => self.adoption_came(person, reply),
            Asked::Adopt(person) => self.adopt_answered(person, reply),
            Asked::Roster(matter) => self.roster_came(matter, reply),
            Asked::WaitingDevices => self.waiting_came(reply),
            Asked::Certify(device, invite) => self.certify_answered(device, invite, reply),
            Asked::Certified => self.certified_came(reply),
            Asked::Linked | Asked::FiledAgain => {}
            Asked::Revoke(said, statement) => self.revoke_answered(said, statement, reply),
            Asked::Withdraw(said, statement) => self.withdraw_answered(said, statement, reply),
            Asked::Revocations => self.revocations_came(reply),
            Asked::TakeOwn(device) => self.own_package_came(now, device, reply),
            Asked::Checkpoint => self.checkpoint_came(reply),
            Asked::Grown { from, to, by } => self.growth_came((from, to), by, reply),
            Asked::Statements(person, after) => self.statements_came(person, after, reply),
            Asked::History(person, size) => self.history_came(person, size, reply),
            Asked::OwnHistory { after, size } => self.own_history_came(after, size, reply),
            Asked::SetRecovery(statement) => self.sheet_answered(statement, reply),
            Asked::ReplaceKey => self.replace_answered(reply),
            Asked::ReplaceKeyAgain => self.replaced_again(reply),
        }
        self.settle(now);
    }

    /// The relay told something.
    pub fn handle_event(&mut self, now: Timestamp, event: Event) {
        match event {
            Event::Entries { mailbox, entries } => self.entries(now, mailbox, entries),
            Event::Ended { mailbox } => self.ended(mailbox),
            Event::Newcomer => self.ask_newcomers(),
            Event::Devices => self.devices_changed(),
            Event::Revoked => {
                self.ask_revocations();
                self.look_who_is_whole_again();
            }
            Event::Endorsed => {
                self.become_ready();
                self.ask_own_chain();
                self.ask_newcomers();
            }
            Event::KeyPackagesLow { left } => {
                if let Err(error) = self.top_up_key_packages(left) {
                    self.deliver(Notice::Problem(error));
                }
            }
        }
        self.settle(now);
    }

    /// Time has passed.
    pub fn handle_time(&mut self, now: Timestamp) {
        self.settle(now);
    }

    /// Asks whom this device may see; the answer is [`Notice::People`].
    pub fn ask_people(&mut self, now: Timestamp) {
        self.ask(Asked::People, Request::People);
        self.settle(now);
    }

    fn become_ready(&mut self) {
        // Whoever waits to be linked is not ready, whatever the person is.
        if !self.ready && self.profile.linking.is_none() {
            self.ready = true;
            self.batch.put(Table::Counter, None, Counters::READY, &1_u64);
            self.deliver(Notice::Ready);
        }
    }

    /// A clock that was ahead once must not make anything wait for it for ever.
    fn mend_times(&mut self, now: Timestamp) {
        let mut old: Vec<MatterId> = Vec::new();
        for (matter, room) in &mut self.rooms {
            let row = &mut room.row;
            let ahead = |at: Timestamp| at > now.plus_ms(limits::WAIT_MAX_MS) && at != Timestamp(u64::MAX);
            row.healing.at = row.healing.at.min(now);
            row.heard.iter_mut().for_each(|heard| heard.at = heard.at.min(now));
            row.continue_at = row.continue_at.map(|at| if ahead(at) { now } else { at });
            row.paused_at = row.paused_at.map(|at| at.min(now));
            row.requests.iter_mut().filter(|held| ahead(held.answer_at)).for_each(|held| held.answer_at = now);
            if let Some(lost) = row.lost.as_mut().filter(|lost| ahead(lost.ask_at)) {
                lost.ask_at = now;
            }
            if row.stage == Stage::Removed && row.removal.is_some() && !room.reads(now) {
                old.push(*matter);
            }
        }
        for matter in old {
            // Its removal stands: the old keys go.
            self.drop_group(matter);
            if let Some(room) = self.rooms.get_mut(&matter) {
                room.row.removal = None;
                room.state = Zeroizing::default();
            }
            self.batch.delete(Table::Group, Some(matter), &[]);
            self.save_room(matter);
        }
    }

    /// Everything that follows from what has just happened.
    fn settle(&mut self, now: Timestamp) {
        self.now = now;
        if std::mem::take(&mut self.reconnect) {
            self.flush();
            self.link = None;
            self.outputs.push_back(Output::Reconnect);
            return;
        }
        self.ask_what_waits();
        self.check_caught_up();
        self.rotate_last_resort(now);
        self.renew_in_time(now);
        self.notice_silence(now);
        self.find_lapses(now);
        self.look_again_for_newcomers(now);
        self.pump(now);
        self.ask_what_waits();
        self.flush();
    }

    /// Asks once what is under way is done: asking makes durable what has changed so far, and half an entry must not be.
    fn ask_later(&mut self, asked: Asked, request: Request) {
        if self.link.is_some() {
            self.later.push((asked, request));
        }
    }

    fn ask_what_waits(&mut self) {
        for (asked, request) in std::mem::take(&mut self.later) {
            self.ask(asked, request);
        }
    }

    fn check_caught_up(&mut self) {
        let inbox = (self.profile.inbox, self.inbox.seq);
        let read: BTreeMap<MailboxId, u64> = self
            .rooms
            .values()
            .filter(|room| room.reads(self.now))
            .map(|room| (room.row.mailbox, room.row.position.seq))
            .chain(std::iter::once(inbox))
            .collect();
        let Some(link) = self.link.as_mut() else { return };
        let waits = link.asked.values().any(|asked| !matches!(asked, Asked::Ack | Asked::Post(_) | Asked::History(..)));
        let reading = link.asked.values().any(|asked| matches!(asked, Asked::Subscribe(..)));
        let heads = link.heads.iter().filter(|(mailbox, _)| !link.resting.contains(mailbox));
        let unread = heads.filter(|(mailbox, head)| read.get(*mailbox).is_some_and(|seq| seq < *head));
        let unread: Vec<MailboxId> = unread.map(|(mailbox, _)| *mailbox).collect();
        let behind = !unread.is_empty();
        // A Welcome that was held back is what the inbox stops at: it is read again once all else is read.
        let held = link.held_welcome.is_some_and(|(_, again)| !again);
        if held && !reading && unread.iter().all(|mailbox| *mailbox == self.profile.inbox) {
            self.inbox_again();
            return;
        }
        if !link.inbox_asked && !reading && !behind {
            // Matters come first: whoever was removed and added again must read the removal before the Welcome.
            link.inbox_asked = true;
            let (mailbox, after) = (self.profile.inbox, Some(self.inbox));
            self.ask(Asked::Subscribe(mailbox, after), Request::Subscribe { mailbox, after });
        } else if link.inbox_asked && !link.caught_up && !waits && !behind {
            link.caught_up = true;
            self.settle_unknown();
            self.seal_again_what_is_gone();
            self.look_at_rosters_that_are_due();
            self.confirm_what_came();
            self.deliver(Notice::CaughtUp);
        }
    }

    fn ask(&mut self, asked: Asked, request: Request) {
        let Some(link) = self.link.as_mut() else { return };
        let id = link.next;
        link.next = link.next.saturating_add(1);
        link.asked.insert(id, asked);
        self.flush_batch();
        self.outputs.push_back(Output::Send(ToRelay { id, request }));
    }

    fn deliver(&mut self, notice: Notice) {
        self.notices.push(notice);
    }

    /// What was changed so far is to be durable before anything that follows.
    fn flush_batch(&mut self) {
        if !self.batch.is_empty() {
            let batch = std::mem::take(&mut self.batch);
            match self.outputs.back_mut() {
                Some(Output::Persist(last)) => last.merge(batch),
                _ => self.outputs.push_back(Output::Persist(batch)),
            }
        }
    }

    /// Everything done is durable before the user hears of it.
    fn flush(&mut self) {
        self.flush_batch();
        self.outputs.extend(std::mem::take(&mut self.notices).into_iter().map(Output::Deliver));
    }

    fn idem_mac(&self, idem: u64, parts: &Digest) -> Digest {
        suite::mac(&self.profile.idem_key, &[&idem.to_be_bytes()[..], parts.as_bytes()].concat())
    }

    fn save_room(&mut self, matter: MatterId) {
        if let Some(room) = self.rooms.get(&matter) {
            self.batch.put(Table::Matter, None, matter.as_bytes(), &room.row);
        }
    }

    fn next_number(&mut self) -> u64 {
        self.number = self.number.saturating_add(1);
        self.batch.put(Table::Counter, None, Counters::NUMBER, &self.number);
        self.number
    }

    /// A new pending Post; it is sent by [`Self::pump`].
    fn new_post(&mut self, post: PendingPost) {
        self.idem = self.idem.saturating_add(1);
        self.batch.put(Table::Counter, None, Counters::IDEM, &self.idem);
        self.batch.put(Table::Post, None, &self.idem.to_be_bytes(), &post);
        let issued = (self.idem, Post::parts_digest(&post.parts));
        self.batch.put(Table::Counter, None, Counters::ISSUED, &issued);
        self.issued = Some(issued);
        self.posts.insert(self.idem, post);
    }

    fn drop_post(&mut self, idem: u64) -> Option<PendingPost> {
        self.batch.delete(Table::Post, None, &idem.to_be_bytes());
        self.posts.remove(&idem)
    }

    /// Sends the Posts that were not sent on this link and need not wait, in order.
    fn send_posts(&mut self, now: Timestamp) {
        let Some(link) = self.link.as_ref() else { return };
        let waits = |post: &PendingPost| match post.matter {
            Some(matter) => self.rooms.get(&matter).is_some_and(|room| room.not_before > now),
            None => self.notes.not_before > now,
        };
        let unsent = self.posts.iter().filter(|(idem, post)| !link.sent.contains(idem) && !waits(post));
        let unsent: Vec<u64> = unsent.map(|(idem, _)| *idem).collect();
        for idem in unsent {
            let Some(pending) = self.posts.get(&idem) else { continue };
            let mac = self.idem_mac(idem, &Post::parts_digest(&pending.parts));
            let post = Post { idem, mac, parts: pending.parts.clone() };
            if let Some(link) = self.link.as_mut() {
                link.sent.insert(idem);
            }
            self.ask(Asked::Post(idem), Request::Post(post));
        }
    }
}

/// What a counter's row has, if there is one.
fn kept<T: for<'b> minicbor::Decode<'b, ()>>(
    bytes: Option<&Zeroizing<Vec<u8>>>,
    what: &'static str,
) -> Result<Option<T>, Misuse> {
    bytes.map(|bytes| cbor::decode(bytes, what).map_err(|_| Misuse::State(what))).transpose()
}

/// The incarnation of the relay that a vault has met.
fn met(bytes: Option<&Zeroizing<Vec<u8>>>) -> Option<[u8; 16]> {
    let bytes: Option<ByteArray<16>> = bytes.and_then(|value| cbor::decode(value, "incarnation").ok());
    bytes.map(|bytes| *bytes)
}

/// A vault with nothing in it but a new profile, as rows: what [`Enrolment`] leaves behind.
pub fn rows_of(profile: &Profile) -> Rows {
    vec![(Vec::new(), Zeroizing::new(cbor::encode(profile)))]
}
