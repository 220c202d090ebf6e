//! Reading: what comes out of mailboxes, entry by entry, and what it does to this device.
//!
//! 1. An entry continues the running hash, or it was read before and is dropped.
//! 2. A message is opened and recorded; an own one is recognised by its hash.
//! 3. A Commit is judged and applied, an own one with the secrets kept for it; a void one is skipped and its place shown.
//! 4. A Welcome in the inbox makes a new matter.
//!
//! Invariant: state, records and position of a batch of entries change together, and an entry that fails changes only the position.

use crate::content::{Body, Bundle, Content};
use crate::device::state::{
    Counters, HeldBundle, KnownPerson, MatterRow, OwnCommit, RECENT, Recent, Record, RecordBody, Stage, Table,
};
use crate::device::{Device, Notice, Room};
use crate::envelope::{self, Class};
use crate::error::{Error, Misuse, PeerMisbehaved, Refused};
use crate::frame::{Entry, EntryBody, Reply, Request};
use crate::identity::{Endorsement, Identity, verify_chain};
use crate::ids::{DeviceId, MailboxId, MatterId, PersonId, Position, Timestamp};
use crate::matter::{Applied, Certificates, Matter, MatterContext, Member, Opened, Seen};
use crate::suite::Digest;

use super::Asked;

impl Device {
    pub(super) fn subscribed(&mut self, now: Timestamp, mailbox: MailboxId, reply: Reply) {
        match reply {
            Reply::Subscribed { start, head } => {
                if mailbox == self.profile.inbox && start != self.inbox {
                    self.deliver(Notice::Problem(PeerMisbehaved::Fork { seq: self.inbox.seq }.into()));
                    return;
                }
                let matter = self.room_of(mailbox);
                let stage = matter.and_then(|id| self.rooms.get(&id)).map(|room| room.row.stage);
                if let Some(matter) = matter.filter(|_| stage == Some(Stage::Open))
                    && !self.continues(matter, &start)
                {
                    return;
                }
                if let Some(link) = self.link.as_mut() {
                    link.heads.insert(mailbox, head);
                }
                if let Some(matter) = matter.filter(|_| stage == Some(Stage::Joining)) {
                    if let Some(room) = self.rooms.get_mut(&matter) {
                        room.row.position = start;
                        room.row.fence = start;
                        room.row.stage = Stage::Open;
                    }
                    self.save_room(matter);
                    self.record(now, matter, start.seq, None, now, RecordBody::Joined);
                    self.deliver(Notice::Joined(matter));
                }
            }
            // The relay alone can't claim a removal, nor take back what was read: the matter rests, on this link.
            Reply::Refused(refused) => {
                let read = self.room_of(mailbox).and_then(|id| self.rooms.get(&id)).map(|room| room.row.position.seq);
                self.deliver(Notice::Problem(match (read, refused) {
                    (Some(seq), Refused::Malformed { .. }) if seq > 0 => PeerMisbehaved::Fork { seq }.into(),
                    (_, refused) => refused.into(),
                }));
            }
            _ => {}
        }
    }

    /// Whether reading goes on where this device left off. A relay that says otherwise shows two histories: the matter stops.
    fn continues(&mut self, matter: MatterId, start: &Position) -> bool {
        let Some(position) = self.rooms.get(&matter).map(|room| room.row.position) else { return false };
        if position == *start || position.seq == 0 {
            return position == *start;
        }
        self.deliver(Notice::Problem(PeerMisbehaved::Fork { seq: position.seq }.into()));
        self.close(matter, Stage::Forked);
        false
    }

    /// The relay says that this device's reading of a mailbox has ended. Whether it was removed, only a Commit tells.
    pub(super) fn ended(&mut self, mailbox: MailboxId) {
        if let Some(matter) = self.room_of(mailbox)
            && self.rooms.get(&matter).is_some_and(|room| room.row.stage == Stage::Open)
        {
            let why = PeerMisbehaved::Mismatch("the relay's claim that this device was removed");
            self.deliver(Notice::Problem(why.into()));
        }
    }

    pub(super) fn room_of(&self, mailbox: MailboxId) -> Option<MatterId> {
        self.rooms.iter().find(|(_, room)| room.row.mailbox == mailbox).map(|(id, _)| *id)
    }

    pub(super) fn entries(&mut self, now: Timestamp, mailbox: MailboxId, entries: Vec<Entry>) {
        if mailbox == self.profile.inbox {
            for entry in entries {
                self.inbox_entry(now, &entry);
            }
            self.acknowledge(mailbox, self.inbox.seq);
            return;
        }
        let Some(matter) = self.room_of(mailbox) else { return };
        for entry in entries {
            self.matter_entry(now, matter, &entry);
        }
        self.save_state(matter);
        if let Some(room) = self.rooms.get(&matter) {
            self.acknowledge(mailbox, room.row.position.seq);
        }
    }

    fn acknowledge(&mut self, mailbox: MailboxId, upto: u64) {
        self.ask(Asked::Ack, Request::Ack { mailbox, upto });
    }

    fn inbox_entry(&mut self, now: Timestamp, entry: &Entry) {
        let next = self.inbox.seq.saturating_add(1);
        if entry.seq != next {
            self.early(entry.seq > next);
            return;
        }
        self.inbox = self.inbox.next(entry.fence, &entry.digest());
        self.batch.put(Table::Counter, None, Counters::INBOX, &self.inbox);
        let EntryBody::Envelope(bytes) = &entry.body else { return };
        let joined = match envelope::unwrap(&bytes.0) {
            Ok((Class::Welcome, welcome)) => self.welcome(now, welcome),
            Ok(_) => Ok(()),
            Err(error) => Err(error.into()),
        };
        if let Err(error) = joined {
            self.deliver(Notice::Problem(error));
        }
    }

    /// An entry that comes before its turn is not applied: the relay withholds what stands before it.
    fn early(&mut self, is_early: bool) {
        let Some(link) = self.link.as_mut().filter(|link| is_early && !link.gap_told) else { return };
        link.gap_told = true;
        self.deliver(Notice::Problem(PeerMisbehaved::Mismatch("the order in which the relay sends entries").into()));
    }

    /// Joins the matter that a Welcome leads into, if everyone in it is vouched for by the organisation.
    pub(super) fn welcome(&mut self, now: Timestamp, welcome: &[u8]) -> Result<(), Error> {
        let before = self.key_packages.references();
        let (group, companion) = Matter::join(&self.me, &self.key_packages, welcome)?;
        // It is used up, whatever comes of the Welcome.
        for reference in before {
            if !self.key_packages.references().contains(&reference) {
                self.batch.delete(Table::KeyPackage, None, &reference);
            }
        }
        let matter = group.id()?;
        let context = group.context()?;
        self.check_welcome(matter, &group, &context, &companion.bundle)?;
        self.learn(&companion.bundle);
        self.forget_room(matter);
        let row = MatterRow::new(matter, &context, Stage::Joining, group.epoch(), now);
        self.rooms.insert(matter, Room::new(row, group));
        self.save_state(matter);
        let mailbox = context.mailbox;
        self.ask(Asked::Subscribe(mailbox), Request::Subscribe { mailbox, after: None });
        Ok(())
    }

    /// A Welcome leads only into a matter that is new here, in a mailbox that is no other's, and every listed person is who the
    /// organisation's chain says, in that role, and has a leaf.
    fn check_welcome(
        &self,
        matter: MatterId,
        group: &Matter,
        context: &MatterContext,
        bundle: &Bundle,
    ) -> Result<(), Error> {
        let known = self.rooms.get(&matter).is_some_and(|room| room.row.stage != Stage::Removed);
        let taken = self.room_of(context.mailbox).is_some_and(|other| other != matter);
        if known || taken || context.mailbox == self.profile.inbox {
            return Err(PeerMisbehaved::Mismatch("a Welcome to a matter this device is in").into());
        }
        let members = group.members();
        let own = self.profile.person;
        if context.participant(own).is_none_or(|listed| listed.role != self.profile.role) {
            return Err(PeerMisbehaved::Mismatch("a Welcome's list of people").into());
        }
        for participant in &context.people {
            if !members.iter().any(|member| member.credential.person == participant.person) {
                return Err(PeerMisbehaved::Mismatch("a Welcome's list of people").into());
            }
            if participant.person == own {
                continue;
            }
            let chain = assemble(&bundle.identities, participant.person);
            let verified = verify_chain(&chain, &self.profile.organisation)?;
            if verified.person_key.digest() != participant.person_key {
                return Err(PeerMisbehaved::WrongKey("a participant's key").into());
            }
            if verified.endorsement.role != participant.role {
                return Err(PeerMisbehaved::Role("a participant's place").into());
            }
        }
        Ok(())
    }

    /// What a matter that this device was removed from left behind, when it is added again; its history stays.
    fn forget_room(&mut self, matter: MatterId) {
        let Some(old) = self.rooms.remove(&matter) else { return };
        for number in old.outbox.into_keys() {
            self.batch.delete(Table::Outbox, Some(matter), &number.to_be_bytes());
        }
        for seq in old.recent.into_keys() {
            let slot = seq.checked_rem(RECENT).unwrap_or_default();
            self.batch.delete(Table::Recent, Some(matter), &slot.to_be_bytes());
        }
    }

    fn matter_entry(&mut self, now: Timestamp, matter: MatterId, entry: &Entry) {
        let Some(room) = self.rooms.get_mut(&matter) else { return };
        let next = room.row.position.seq.saturating_add(1);
        if room.row.stage != Stage::Open || entry.seq != next {
            let is_early = room.row.stage == Stage::Open && entry.seq > next;
            self.early(is_early);
            return;
        }
        let digest = entry.digest();
        let position = room.row.position.next(entry.fence, &digest);
        let done = match &entry.body {
            EntryBody::Envelope(bytes) => self.apply(now, matter, position, entry.fence, &digest, &bytes.0),
            EntryBody::Expired(_) => {
                self.record(now, matter, entry.seq, None, now, RecordBody::Gap);
                if entry.fence {
                    // A Commit that was never read: what this device would say next, nobody could open.
                    self.close(matter, Stage::OutOfStep);
                    return;
                }
                Ok(None)
            }
        };
        let message = match done {
            Ok(message) => message,
            Err(error) => {
                let why = error.to_string();
                self.record(now, matter, entry.seq, None, now, RecordBody::Void { why, claimed: false });
                // Only success is saved: what mls-rs has in memory is thrown away.
                if let Some(room) = self.rooms.get_mut(&matter) {
                    room.group = None;
                }
                self.own_commit_void(matter, &digest, &error);
                None
            }
        };
        let Some(room) = self.rooms.get_mut(&matter) else { return };
        room.row.position = position;
        if entry.fence {
            room.row.fence = position;
            room.row.bundles.clear();
        }
        let recent = Recent { position, message };
        let slot = position.seq.checked_rem(RECENT).unwrap_or_default();
        self.batch.put(Table::Recent, Some(matter), &slot.to_be_bytes(), &recent);
        room.recent.insert(position.seq, recent);
        room.recent.remove(&position.seq.saturating_sub(RECENT));
    }

    /// Applies one envelope. Returns the message's author and id, where it was one.
    fn apply(
        &mut self,
        now: Timestamp,
        matter: MatterId,
        position: Position,
        fence: bool,
        digest: &Digest,
        bytes: &[u8],
    ) -> Result<Option<(PersonId, crate::ids::MessageId)>, Error> {
        let (class, payload) = envelope::unwrap(bytes)?;
        match (class, fence) {
            (Class::Message, false) => match self.own_message(now, matter, position.seq, digest)? {
                Some(message) => Ok(Some(message)),
                None => self.message(now, matter, position.seq, digest, payload),
            },
            (Class::Commit, true) => {
                self.commit(now, matter, position.seq, digest, payload)?;
                Ok(None)
            }
            _ => Err(PeerMisbehaved::Void("a fence is a commit, and nothing else is".to_owned()).into()),
        }
    }

    /// An own text, recognised by its hash: it leaves the outbox and becomes a record. An own bundle is just passed.
    fn own_message(
        &mut self,
        now: Timestamp,
        matter: MatterId,
        seq: u64,
        digest: &Digest,
    ) -> Result<Option<(PersonId, crate::ids::MessageId)>, Error> {
        let own = self.profile.person;
        let device = self.profile.device;
        let Some(room) = self.rooms.get_mut(&matter) else { return Ok(None) };
        if let Some(bundle) = room.commits.values().find_map(|commit| commit.bundle.as_ref().filter(|b| b.0 == *digest))
        {
            let bundle = bundle.1.clone();
            room.hold(HeldBundle { digest: *digest, device, bundle });
            return Ok(Some((own, crate::ids::MessageId::new([0; 16]))));
        }
        let Some(number) = room.outbox.iter().find(|(_, item)| item.digest == Some(*digest)).map(|(n, _)| *n) else {
            return Ok(None);
        };
        let Some(item) = room.outbox.remove(&number) else { return Ok(None) };
        self.batch.delete(Table::Outbox, Some(matter), &number.to_be_bytes());
        let settled: Vec<u64> = self
            .posts
            .iter()
            .filter(|(_, post)| post.matter == matter && post.purpose == super::state::Purpose::Text(number))
            .map(|(idem, _)| *idem)
            .collect();
        for idem in settled {
            self.drop_post(idem);
        }
        let content = Content::decode(&item.content)?;
        self.batch.put(Table::Sent, Some(matter), item.id.as_bytes(), &seq);
        if let Body::Text(text) = content.body {
            let what = RecordBody::Text { id: item.id, text };
            self.record(now, matter, seq, Some((own, device)), content.sent_at, what);
        }
        if item.seq.is_none() {
            self.deliver(Notice::Stored { matter, id: item.id, seq });
        }
        Ok(Some((own, item.id)))
    }

    fn message(
        &mut self,
        now: Timestamp,
        matter: MatterId,
        seq: u64,
        digest: &Digest,
        payload: &[u8],
    ) -> Result<Option<(PersonId, crate::ids::MessageId)>, Error> {
        let Opened { sender, seen, plaintext } = self.group(matter)?.open(payload)?;
        let (person, device) = (sender.credential.person, sender.credential.device);
        let content = Content::decode(envelope::unpad(&plaintext)?)?;
        let Some(room) = self.rooms.get_mut(&matter) else { return Ok(None) };
        let disputed = room.disputes(&seen.position);
        let repeat = room.recent.values().any(|recent| recent.message == Some((person, content.id)));
        let from = Some((person, device));
        if disputed {
            self.record(now, matter, seq, from, now, RecordBody::Dispute);
        }
        if repeat {
            return Ok(Some((person, content.id)));
        }
        match content.body {
            Body::Text(text) => {
                let what = RecordBody::Text { id: content.id, text };
                self.record(now, matter, seq, from, content.sent_at, what);
            }
            Body::Bundle(bundle) => {
                if let Some(room) = self.rooms.get_mut(&matter) {
                    room.hold(HeldBundle { digest: *digest, device, bundle });
                }
            }
            Body::Unknown { .. } => self.record(now, matter, seq, from, content.sent_at, RecordBody::Unknown),
        }
        Ok(Some((person, content.id)))
    }

    fn commit(
        &mut self,
        now: Timestamp,
        matter: MatterId,
        seq: u64,
        digest: &Digest,
        payload: &[u8],
    ) -> Result<(), Error> {
        let room = self.rooms.get(&matter).ok_or(Misuse::NoMatter)?;
        let bundles = room.row.bundles.clone();
        let own: Option<OwnCommit> = room.commits.get(digest).cloned();
        let applied = match &own {
            Some(own) => self.group(matter)?.apply_own(&own.secrets, own.epoch)?,
            None => {
                // Only the bundle that the Commit itself names: nobody else's can make it void.
                let named = Seen::of_message(payload)?.bundle;
                let held = bundles.iter().find(|held| Some(held.digest) == named);
                let certificates = Certificates::of(held.map_or(&[][..], |held| &held.bundle.identities))?;
                self.group(matter)?.apply(payload, certificates)?
            }
        };
        if let Some(bundle) = check_bundle(&applied, &bundles)? {
            self.learn(&bundle);
        }
        if self.rooms.get(&matter).is_some_and(|room| room.disputes(&applied.seen.position)) {
            self.record(now, matter, seq, Some(author(&applied.committer)), now, RecordBody::Dispute);
        }
        if applied.removed_me {
            self.removed_here(now, matter, seq, &applied);
            return Ok(());
        }
        let context = self.group(matter)?.context()?;
        let (added, removed) = self.people_changed(matter, &context)?;
        let from = Some(author(&applied.committer));
        if !added.is_empty() {
            self.record(now, matter, seq, from, now, RecordBody::Added { people: added });
        }
        if !removed.is_empty() {
            self.record(now, matter, seq, from, now, RecordBody::Removed { people: removed });
        }
        self.settle_commits(matter, &context);
        Ok(())
    }

    /// An own Commit that nobody can apply is not built again and again: what it was for is reported.
    fn own_commit_void(&mut self, matter: MatterId, digest: &Digest, why: &Error) {
        let Some(commit) = self.rooms.get_mut(&matter).and_then(|room| room.commits.remove(digest)) else { return };
        self.batch.delete(Table::Commit, Some(matter), digest.as_bytes());
        for number in commit.intents {
            self.not_done(matter, number, why.clone());
        }
    }

    /// Takes over the people and title of a new epoch; returns who came and who went.
    fn people_changed(
        &mut self,
        matter: MatterId,
        context: &MatterContext,
    ) -> Result<(Vec<PersonId>, Vec<PersonId>), Error> {
        let room = self.rooms.get_mut(&matter).ok_or(Misuse::NoMatter)?;
        let before = std::mem::take(&mut room.row.people);
        let after: Vec<PersonId> = context.people.iter().map(|participant| participant.person).collect();
        let added = after.iter().filter(|person| !before.contains(person)).copied().collect();
        let removed = before.iter().filter(|person| !after.contains(person)).copied().collect();
        room.row.people = after;
        room.row.title.clone_from(&context.title);
        room.row.epoch = room.group.as_ref().map_or(room.row.epoch, Matter::epoch);
        Ok((added, removed))
    }

    /// A Commit of this epoch was applied: no own one of it can be any more, and intents that now hold are done.
    fn settle_commits(&mut self, matter: MatterId, context: &MatterContext) {
        let Some(room) = self.rooms.get_mut(&matter) else { return };
        for digest in std::mem::take(&mut room.commits).into_keys() {
            self.batch.delete(Table::Commit, Some(matter), digest.as_bytes());
        }
        let mut done = Vec::new();
        room.intents.retain(|number, intent| {
            let holds = context.participant(intent.person).is_some() == intent.add;
            if holds {
                done.push((*number, intent.person, intent.add));
            }
            !holds
        });
        for (number, person, add) in done {
            self.batch.delete(Table::Intent, Some(matter), &number.to_be_bytes());
            self.materials.remove(&person);
            self.deliver(Notice::Done { matter, person, add });
        }
        let settled: Vec<u64> = self
            .posts
            .iter()
            .filter(|(_, post)| post.matter == matter && matches!(post.purpose, super::state::Purpose::Commit(_)))
            .map(|(idem, _)| *idem)
            .collect();
        for idem in settled {
            self.drop_post(idem);
        }
    }

    fn removed_here(&mut self, now: Timestamp, matter: MatterId, seq: u64, applied: &Applied) {
        let people = vec![self.profile.person];
        self.record(now, matter, seq, Some(author(&applied.committer)), now, RecordBody::Removed { people });
        self.close(matter, Stage::Removed);
    }

    /// Ends a matter on this device: nothing more is sent there, history stays.
    pub(super) fn close(&mut self, matter: MatterId, stage: Stage) {
        let Some(room) = self.rooms.get_mut(&matter) else { return };
        room.row.stage = stage;
        let why = Refused::not_allowed(match stage {
            Stage::Removed => "you are no longer in this matter",
            _ => "this matter has stopped on this device",
        });
        for number in std::mem::take(&mut room.intents).into_keys() {
            self.batch.delete(Table::Intent, Some(matter), &number.to_be_bytes());
        }
        for digest in std::mem::take(&mut room.commits).into_keys() {
            self.batch.delete(Table::Commit, Some(matter), digest.as_bytes());
        }
        for (number, item) in room.outbox.iter_mut().filter(|(_, item)| item.seq.is_none() && item.failed.is_none()) {
            item.failed = Some(why.to_string());
            self.batch.put(Table::Outbox, Some(matter), &number.to_be_bytes(), &*item);
            self.notices.push(Notice::Unsendable { matter, id: item.id, why: why.clone() });
        }
        let posts: Vec<u64> =
            self.posts.iter().filter(|(_, post)| post.matter == matter).map(|(idem, _)| *idem).collect();
        for idem in posts {
            self.drop_post(idem);
        }
        self.save_room(matter);
    }

    /// Remembers the people of a bundle whose chain reaches the organisation, and names that fit their endorsement.
    pub(super) fn learn(&mut self, bundle: &Bundle) {
        for identity in &bundle.identities {
            let chain = assemble(&bundle.identities, identity.person);
            let Ok(verified) = verify_chain(&chain, &self.profile.organisation) else { continue };
            let Endorsement { handle, role, name: commitment, from, .. } = verified.endorsement;
            let named = bundle.names.iter().find(|named| named.person == identity.person);
            let told = named.map(|named| named.name.clone()).filter(|name| name.commitment() == commitment);
            let known = self.people.get(&identity.person);
            let newer = known.and_then(|known| known.chain.first()).is_some_and(|known| {
                let said: Result<Endorsement, _> = known.endorsement.unverified("endorsement");
                said.is_ok_and(|said| said.from > from)
            });
            if newer {
                continue;
            }
            let kept = known.filter(|known| known.name.is_some()).map(|known| known.self_stated);
            let self_stated = kept.or_else(|| named.map(|named| named.self_stated)).unwrap_or(true);
            let name = told
                .or_else(|| known.and_then(|known| known.name.clone()).filter(|name| name.commitment() == commitment));
            self.know(identity.person, KnownPerson { handle, role, name, self_stated, chain });
        }
    }

    pub(super) fn know(&mut self, person: PersonId, known: KnownPerson) {
        self.batch.put(Table::Person, None, person.as_bytes(), &known);
        self.people.insert(person, known);
    }

    pub(super) fn record(
        &mut self,
        _now: Timestamp,
        matter: MatterId,
        seq: u64,
        from: Option<(PersonId, DeviceId)>,
        at: Timestamp,
        what: RecordBody,
    ) {
        self.cursor = self.cursor.saturating_add(1);
        let (person, device) = from.unzip();
        let record = Record { cursor: self.cursor, matter, seq, from: person, device, at, what };
        self.batch.put(Table::Counter, None, Counters::CURSOR, &self.cursor);
        self.batch.put(Table::Record, Some(matter), &self.cursor.to_be_bytes(), &record);
        self.deliver(Notice::Recorded(record));
    }

    /// The loaded group of a matter.
    pub(super) fn group(&mut self, matter: MatterId) -> Result<&mut Matter, Error> {
        let room = self.rooms.get_mut(&matter).ok_or(Misuse::NoMatter)?;
        room.group(&self.me, &self.key_packages, matter)
    }

    /// Takes the group's saved state into the next batch, with the matter's row.
    pub(super) fn save_state(&mut self, matter: MatterId) {
        if let Some(room) = self.rooms.get_mut(&matter) {
            if let Some(group) = &room.group {
                room.state = group.state();
                room.row.epoch = group.epoch();
            }
            self.batch.put_bytes(Table::Group, Some(matter), &[], room.state.clone());
        }
        self.save_room(matter);
    }
}

impl Room {
    pub(super) fn new(row: MatterRow, group: Matter) -> Self {
        Self {
            row,
            state: group.state(),
            group: Some(group),
            outbox: std::collections::BTreeMap::new(),
            intents: std::collections::BTreeMap::new(),
            commits: std::collections::BTreeMap::new(),
            recent: std::collections::BTreeMap::new(),
            not_before: Timestamp(0),
            read_first: 0,
        }
    }

    fn group(
        &mut self,
        me: &crate::matter::Me,
        packages: &crate::matter::KeyPackages,
        matter: MatterId,
    ) -> Result<&mut Matter, Error> {
        if let Some(group) = &self.group {
            // The state that an error later falls back to.
            self.state = group.state();
        }
        match &mut self.group {
            Some(group) => Ok(group),
            empty => Ok(empty.insert(Matter::load(me, packages, matter, self.state.clone())?)),
        }
    }

    /// Keeps a bundle for its Commit: the newest of each device, so that nobody fills this device's memory.
    fn hold(&mut self, bundle: HeldBundle) {
        self.row.bundles.retain(|held| held.device != bundle.device);
        self.row.bundles.push(bundle);
    }

    /// Whether somebody says to have read what this device read differently, or what is not there yet.
    fn disputes(&self, claimed: &Position) -> bool {
        if claimed.seq > self.row.position.seq {
            return true;
        }
        let own = if claimed.seq == self.row.position.seq {
            Some(self.row.position)
        } else {
            self.recent.get(&claimed.seq).map(|recent| recent.position)
        };
        own.is_some_and(|own| own != *claimed)
    }
}

/// The chain from one person upwards, out of a heap of identities.
pub(super) fn assemble(identities: &[Identity], person: PersonId) -> Vec<Identity> {
    let mut chain: Vec<Identity> = Vec::new();
    let mut next = Some(person);
    while let Some(person) = next {
        let found = identities.iter().find(|identity| identity.person == person);
        let Some(identity) = found.filter(|_| chain.len() < crate::limits::CHAIN_MAX) else { break };
        let said: Option<Endorsement> = identity.endorsement.unverified("endorsement").ok();
        next = said.and_then(|said| said.issuer).map(|issuer| issuer.person);
        chain.push(identity.clone());
    }
    chain
}

/// A Commit that adds needs the bundle it names, by the same device, and no other certificates.
fn check_bundle(applied: &Applied, bundles: &[HeldBundle]) -> Result<Option<Bundle>, Error> {
    let Seen { bundle, .. } = applied.seen;
    if applied.added.is_empty() {
        return Ok(None);
    }
    let missing = || PeerMisbehaved::Void("the bundle it names does not stand before it".to_owned());
    let held = bundles
        .iter()
        .find(|held| Some(held.digest) == bundle && held.device == applied.committer.credential.device)
        .ok_or_else(missing)?;
    let certificates: Vec<Digest> = held
        .bundle
        .identities
        .iter()
        .flat_map(|identity| identity.certificates.iter().map(crate::identity::Signed::digest))
        .collect();
    if applied.added.iter().any(|member| !certificates.contains(&member.credential.certificate)) {
        return Err(missing().into());
    }
    Ok(Some(held.bundle.clone()))
}

fn author(member: &Member) -> (PersonId, DeviceId) {
    (member.credential.person, member.credential.device)
}
