//! Successors: a matter goes on in a new mailbox when nobody can save its group, or the relay has forgotten Commits.
//!
//! 1. An attorney's or staff's device appends a signed statement to the old mailbox, as a fence, and makes the new mailbox in one Post.
//! 2. The first valid statement counts, until one names a later epoch: whoever knows more, for one of a removal, continues instead.
//! 3. Who reads their own statement makes the new group and adds the people of the old one; who reads another's waits to be let in.
//!
//! Invariant: it stays one matter to its people, and nobody comes back who was removed in an epoch that the counting statement knows.

use crate::device::state::{Intent, Lost, MatterRow, Old, PendingPost, Purpose, RecordBody, Stage, Table};
use crate::device::{Asked, Device};
use crate::envelope::{self, Class};
use crate::error::{Error, Misuse, PeerMisbehaved, Refused};
use crate::frame::{Blob, Entry, EntryBody, Part, Request};
use crate::identity::{Signed, verify_devices};
use crate::ids::{DeviceId, MailboxId, MatterId, PersonId, Position, Timestamp};
use crate::limits;
use crate::matter::{Continues, Matter, MatterContext, RULES};
use crate::rescue::Successor;
use crate::suite::PublicKey;

/// How much longer each further leaf waits before it continues a matter.
const LEAF_MS: u64 = 2_000;
/// How long whoever continues a matter waits before adding anybody: whoever knows of a later epoch says so first.
const GRACE_MS: u64 = 5_000;

impl Device {
    /// Continues a matter in a new mailbox with the people it has. For matters that nobody can repair.
    ///
    /// # Errors
    /// [`Refused::NotAllowed`] unless this person is an attorney or staff; [`Misuse`] where the matter is not out of step.
    pub fn continue_matter(&mut self, now: Timestamp, matter: MatterId) -> Result<(), Error> {
        let room = self.rooms.get_mut(&matter).ok_or(Misuse::NoMatter)?;
        if !self.profile.role.manages() {
            return Err(Refused::not_allowed("only attorneys and staff continue a matter").into());
        }
        if !matches!(room.row.stage, Stage::OutOfStep | Stage::Moving) {
            return Err(Misuse::Busy("only a matter that is out of step is continued in a new place").into());
        }
        room.row.continue_at = Some(now);
        self.save_room(matter);
        self.settle(now);
        Ok(())
    }

    /// Nobody can repair this matter: if this device may, it continues it when its turn comes.
    pub(super) fn want_successor(&mut self, now: Timestamp, matter: MatterId) {
        if !self.profile.role.manages() {
            return;
        }
        let leaf = self.group(matter).map_or(0, |group| u64::from(group.own_leaf()));
        if let Some(room) = self.rooms.get_mut(&matter) {
            let turn = now.plus_ms(leaf.saturating_mul(LEAF_MS));
            room.row.continue_at = room.row.continue_at.or(Some(turn));
        }
        self.save_room(matter);
    }

    /// Posts the statement, with the new mailbox.
    pub(super) fn post_successor(&mut self, matter: MatterId) -> Result<(), Error> {
        let row = self.rooms.get(&matter).ok_or(Misuse::NoMatter)?.row.clone();
        let statement = Successor {
            group: row.group,
            device: self.profile.device,
            // Whoever let nobody in, or had no say, is overruled.
            epoch: row.overruled().map_or(row.epoch, |epoch| epoch.saturating_add(1).max(row.epoch)),
            position: row.position,
            mailbox: MailboxId::random(),
            successor: MatterId::random(),
        };
        let envelope = envelope::wrap(Class::Successor, &statement.sign(&self.profile.mls_key)?)?;
        let append = Part::Append {
            mailbox: row.mailbox,
            base: row.fence,
            fence: true,
            envelope: Blob(envelope),
            keep_ms: limits::ENVELOPE_LIFETIME_MS,
        };
        if let Some(room) = self.rooms.get_mut(&matter) {
            room.row.continues_in = Some(statement.mailbox);
        }
        self.save_room(matter);
        let parts = vec![Part::Create { mailbox: statement.mailbox }, append];
        self.new_post(PendingPost::new(parts, matter, Purpose::Successor));
        Ok(())
    }

    /// A statement in the mailbox of a matter.
    pub(super) fn successor_read(
        &mut self,
        now: Timestamp,
        matter: MatterId,
        position: Position,
        payload: &[u8],
    ) -> Result<(), Error> {
        let (claim, signed) = Successor::read(payload)?;
        self.claimed_by_a_stranger(now, matter, &claim, &signed);
        let group = self.group(matter)?;
        let (member, key) = group.member_of(claim.device)?;
        let listed = group.context()?.participant(member.credential.person).copied();
        let said = Successor::verify(&signed, &key)?;
        if listed.is_none_or(|listed| !listed.role.manages()) {
            return Err(PeerMisbehaved::Role("continuing a matter").into());
        }
        let row = &self.rooms.get(&matter).ok_or(Misuse::NoMatter)?.row;
        let late = row.successor.as_ref().is_some_and(|first| first.epoch >= said.epoch);
        if said.group != row.group || late || row.is_beyond(&said) {
            return Err(PeerMisbehaved::Void("another statement has continued this matter".to_owned()).into());
        }
        if said.epoch < row.epoch && row.stage != Stage::Removed {
            // This device knows of changes that the other does not: who was removed in them would come back.
            self.want_successor(now, matter);
            return Err(PeerMisbehaved::Void("it continues the matter from before its last change".to_owned()).into());
        }
        if row.stage == Stage::Removed {
            return Ok(());
        }
        let from = (member.credential.person, claim.device);
        self.follow(now, matter, position, &said, from)
    }

    /// Somebody who was removed continues the matter: whoever knows of the removal refuses that, and overrules it for those who do not.
    fn claimed_by_a_stranger(&mut self, now: Timestamp, matter: MatterId, claim: &Successor, signed: &Signed) {
        let here = |group: &Matter| group.member_of(claim.device).is_ok();
        let Some((person, key)) = self.known_device(claim.device) else { return };
        let managed = self.people.get(&person).is_some_and(|known| known.role.manages());
        if !managed || self.group(matter).map_or(true, |group| here(group)) || Successor::verify(signed, &key).is_err()
        {
            return;
        }
        let Some(row) = self.rooms.get_mut(&matter).map(|room| &mut room.row) else { return };
        let open = matches!(row.stage, Stage::Open | Stage::OutOfStep);
        if open && claim.group == row.group && claim.epoch >= row.epoch && !row.is_beyond(claim) {
            row.claimed = row.claimed.max(claim.epoch);
            self.want_successor(now, matter);
        }
    }

    /// Follows the statement that counts: into a group of this device's own making, or into waiting for a Welcome.
    pub(super) fn follow(
        &mut self,
        now: Timestamp,
        matter: MatterId,
        position: Position,
        said: &Successor,
        from: (PersonId, DeviceId),
    ) -> Result<(), Error> {
        self.forget_posts(matter);
        self.unseal(matter);
        let here = self.rooms.get(&matter).and_then(|room| room.row.continues_in) == Some(said.mailbox);
        let copied = from.1 == self.profile.device && !here;
        let group = if here { Some(self.successor_group(matter, said)?) } else { None };
        self.record(now, matter, position.seq, Some(from), now, RecordBody::Continued);
        let Some(room) = self.rooms.get_mut(&matter) else { return Ok(()) };
        for digest in std::mem::take(&mut room.commits).into_keys() {
            self.batch.delete(Table::Commit, Some(matter), digest.as_bytes());
        }
        room.row.successor = Some(*said);
        (room.row.stage, room.row.lost, room.row.continue_at) = (Stage::Moving, None, None);
        (room.row.disputed, room.row.forgotten) = (None, false);
        let people: Vec<PersonId> = room.row.people.clone();
        let old = Old {
            mailbox: room.row.mailbox,
            group: room.row.group,
            position,
            epoch: said.epoch,
            people: people.clone(),
        };
        let Some((group, context)) = group else {
            if self.profile.role.manages() {
                let leaf = self.group(matter).map_or(0, |group| u64::from(group.own_leaf()));
                let turn = now.plus_ms(limits::MOVING_MS.saturating_add(leaf.saturating_mul(LEAF_MS)));
                if let Some(room) = self.rooms.get_mut(&matter) {
                    room.row.continue_at = Some(turn);
                }
            }
            self.save_room(matter);
            if copied {
                return self.follow_the_other_copy(now, matter, said, old);
            }
            self.inbox_again();
            return Ok(());
        };
        let row =
            MatterRow { old: Some(old), ..MatterRow::new(said.successor, &context, Stage::Open, group.epoch(), now) };
        let after = Some(row.position);
        self.take_room(matter, row, group);
        if let Some(room) = self.rooms.get_mut(&matter) {
            room.not_before = now.plus_ms(GRACE_MS);
        }
        self.save_state(matter);
        self.ask_later(Asked::Subscribe(said.mailbox, after), Request::Subscribe { mailbox: said.mailbox, after });
        let own = self.profile.person;
        for person in people.into_iter().filter(|person| *person != own) {
            let handle = self.people.get(&person).map(|known| known.handle.clone()).unwrap_or_default();
            self.put_intent(matter, Intent { person, handle, add: true, told: true, taken_over: true });
        }
        Ok(())
    }

    /// Another copy of this vault has continued the matter: nobody will let this device in, for it is in already. It asks there.
    fn follow_the_other_copy(
        &mut self,
        now: Timestamp,
        matter: MatterId,
        said: &Successor,
        old: Old,
    ) -> Result<(), Error> {
        let context = MatterContext { mailbox: said.mailbox, ..self.group(matter)?.context()? };
        let Some(group) = self.rooms.get_mut(&matter).and_then(|room| room.group.take()) else { return Ok(()) };
        let row = MatterRow::new(said.successor, &context, Stage::OutOfStep, 0, now);
        let lost = Some(Lost::copied(row.position, now));
        self.take_room(matter, MatterRow { old: Some(old), lost, ..row }, group);
        self.save_state(matter);
        self.read_again(matter);
        Ok(())
    }

    fn successor_group(&mut self, matter: MatterId, said: &Successor) -> Result<(Matter, MatterContext), Error> {
        let own = self.profile.person;
        let before = self.group(matter)?.context()?;
        let context = MatterContext {
            rules: RULES,
            mailbox: said.mailbox,
            people: before.people.iter().filter(|participant| participant.person == own).copied().collect(),
            continues: Some(Continues { group: said.group, epoch: said.epoch }),
            ..before
        };
        Ok((Matter::create(&self.me, &self.key_packages, said.successor, &context)?, context))
    }

    /// The matter that a group belongs to: its own, or the one it continues.
    pub(super) fn matter_of(&self, group: MatterId, context: &MatterContext) -> MatterId {
        let belongs = |row: &MatterRow| {
            let continued = context.continues.is_some_and(|from| {
                from.group == row.group || row.old.as_ref().is_some_and(|old| from.group == old.group)
            });
            row.group == group || continued
        };
        self.rooms.iter().find(|(_, room)| belongs(&room.row)).map_or(group, |(matter, _)| *matter)
    }

    /// Whether a Welcome leads into a successor whose statement this device has not read yet.
    pub(super) fn comes_before_its_statement(&self, matter: MatterId, context: &MatterContext) -> bool {
        let row = self.rooms.get(&matter).map(|room| &room.row);
        context.continues.is_some()
            && row.is_some_and(|row| {
                let here = |next: &Successor| next.mailbox == context.mailbox;
                !matches!(row.stage, Stage::Removed) && !row.successor.as_ref().is_some_and(here)
            })
    }

    /// An entry of the mailbox that a matter was continued from: all that still counts there is a statement with a later epoch.
    pub(super) fn old_entry(&mut self, now: Timestamp, matter: MatterId, entry: &Entry) {
        let Some(old) = self.rooms.get(&matter).and_then(|room| room.row.old.clone()) else { return };
        if entry.seq != old.position.seq.saturating_add(1) {
            return;
        }
        let position = old.position.next(entry.fence, &entry.digest());
        if let Some(old) = self.rooms.get_mut(&matter).and_then(|room| room.row.old.as_mut()) {
            old.position = position;
        }
        if let EntryBody::Envelope(bytes) = &entry.body
            && let Ok((Class::Successor, payload)) = envelope::unwrap(&bytes.0)
            && let Ok((claim, from)) = self.later_statement(&old, payload)
            && let Some(room) = self.rooms.get_mut(&matter)
        {
            // Whatever was said in the successor stays in the history; the matter goes on elsewhere.
            room.row.successor = Some(claim);
            room.row.stage = Stage::Moving;
            if let Some(old) = room.row.old.as_mut() {
                old.epoch = claim.epoch;
            }
            let taken_over = |(_, intent): &(&u64, &Intent)| intent.taken_over;
            let numbers: Vec<u64> = room.intents.iter().filter(taken_over).map(|(number, _)| *number).collect();
            self.drop_intents(matter, &numbers);
            self.forget_posts(matter);
            self.unseal(matter);
            self.record(now, matter, position.seq, Some(from), now, RecordBody::Continued);
            self.inbox_again();
        }
        self.save_room(matter);
    }

    /// A statement of somebody who was in the old group, by the certificates that this device has seen there.
    fn later_statement(&self, old: &Old, payload: &[u8]) -> Result<(Successor, (PersonId, DeviceId)), Error> {
        let (claim, signed) = Successor::read(payload)?;
        let (person, key) = self.known_device(claim.device).ok_or(PeerMisbehaved::NotEndorsed)?;
        let said = Successor::verify(&signed, &key)?;
        let manages = self.people.get(&person).is_some_and(|known| known.role.manages());
        let beyond = said.epoch > old.epoch.saturating_add(limits::SUCCESSOR_AHEAD);
        if said.group != old.group || said.epoch <= old.epoch || beyond || !manages || !old.people.contains(&person) {
            return Err(PeerMisbehaved::Void("another statement has continued this matter".to_owned()).into());
        }
        Ok((said, (person, claim.device)))
    }

    fn known_device(&self, device: DeviceId) -> Option<(PersonId, PublicKey)> {
        self.people.iter().find_map(|(person, known)| {
            let devices = verify_devices(known.chain.first()?).ok()?;
            let found = devices.into_iter().find(|(_, certificate)| certificate.device == device)?;
            Some((*person, found.1.mls_key))
        })
    }

    /// A Welcome that came too early is read again, now that its statement was read, or is not there.
    pub(super) fn inbox_again(&mut self) {
        let inbox = self.profile.inbox;
        let Some(link) = self.link.as_mut().filter(|link| link.held_welcome.is_some_and(|(_, again)| !again)) else {
            return;
        };
        link.held_welcome = link.held_welcome.map(|(seq, _)| (seq, true));
        link.heads.remove(&inbox);
        let after = Some(self.inbox);
        self.ask_later(Asked::Subscribe(inbox, after), Request::Subscribe { mailbox: inbox, after });
    }

    /// Where a matter comes from, for the row of the group that continues it.
    pub(super) fn old_of(&self, matter: MatterId, continues: Option<Continues>) -> Option<Old> {
        let row = &self.rooms.get(&matter)?.row;
        let epoch = continues?.epoch;
        let here =
            Old { mailbox: row.mailbox, group: row.group, position: row.position, epoch, people: row.people.clone() };
        let before = row.old.clone().filter(|old| continues.is_some_and(|from| from.group == old.group));
        Some(before.map_or(here, |old| Old { epoch, ..old }))
    }
}

impl MatterRow {
    /// The highest epoch of a statement that this device's own would have to exceed.
    fn overruled(&self) -> Option<u64> {
        let followed = self.successor.map(|first| first.epoch);
        followed.max(Some(self.claimed).filter(|claimed| *claimed > 0))
    }

    /// Whether a statement claims an epoch that no matter comes to.
    fn is_beyond(&self, said: &Successor) -> bool {
        said.epoch > self.epoch.max(self.overruled().unwrap_or(0)).saturating_add(limits::SUCCESSOR_AHEAD)
    }
}
