//! Successors: a matter goes on in a new mailbox when nobody can save its group, or the relay has forgotten Commits.
//!
//! 1. An attorney's or staff's device appends a signed statement to the old mailbox, as a fence, and makes the new mailbox in one Post.
//! 2. The first valid statement counts, until one of a higher rank: from a later epoch, or a turn later from the same.
//! 3. Who reads their own statement makes the new group and adds the people whom it names; who reads another's waits to be let in.
//! 4. Who manages and knows of a removal that a statement does not know of overrules it; whom anybody has removed is named in the next.
//! 5. Where the relay has forgotten the old mailbox as well, the statement comes inside the Welcome.
//!
//! Invariant: it stays one matter to its people, and nobody comes back who was removed in an epoch that an author, or whoever overrules
//! them, knows of.

use std::cmp::Reverse;

use crate::device::state::{Intent, Lost, MatterRow, Old, PendingPost, Purpose, RecordBody, Stage, Table};
use crate::device::{Asked, Device, Room};
use crate::envelope::{self, Class};
use crate::error::{Error, Misuse, PeerMisbehaved, Refused};
use crate::frame::{Blob, Entry, EntryBody, Part, Request};
use crate::identity::{Signed, verify_devices};
use crate::ids::{DeviceId, MailboxId, MatterId, PersonId, Position, Timestamp};
use crate::limits;
use crate::matter::{Continues, Matter, MatterContext, RULES};
use crate::rescue::{Fate, Successor};
use crate::suite::PublicKey;

/// How much longer each further leaf waits before it continues a matter.
const LEAF_MS: u64 = 2_000;
/// How long whoever continues a matter waits before adding anybody: whoever knows of a later epoch says so first.
const GRACE_MS: u64 = 5_000;
/// How long a device waits before it continues a matter of which the relay has forgotten even the mailbox, and how much longer each
/// further leaf: whoever can still say so in the old mailbox goes first, and one at a time.
const GONE_MS: u64 = 60_000;
const GONE_LEAF_MS: u64 = 30_000;

/// Whoever continues a matter, as a reader has found out.
type Author = (PersonId, DeviceId);

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
        let own = self.profile.person;
        if !self.profile.role.manages() || self.rooms.get(&matter).is_some_and(|room| room.row.is_out(own)) {
            return;
        }
        let leaf = self.group(matter).map_or(0, |group| u64::from(group.own_leaf()));
        if let Some(room) = self.rooms.get_mut(&matter) {
            let (first, each) = if room.row.gone { (GONE_MS, GONE_LEAF_MS) } else { (0, LEAF_MS) };
            let turn = now.plus_ms(first.saturating_add(leaf.saturating_mul(each)));
            room.row.continue_at = room.row.continue_at.or(Some(turn));
        }
        self.save_room(matter);
    }

    /// Posts the statement, with the new mailbox.
    pub(super) fn post_successor(&mut self, matter: MatterId) -> Result<(), Error> {
        let row = self.rooms.get(&matter).ok_or(Misuse::NoMatter)?.row.clone();
        let place = row.place();
        let heads = self.link.as_ref().map(|link| &link.heads);
        let read = heads.and_then(|heads| heads.get(&place.mailbox)).is_some_and(|head| place.position.seq >= *head);
        if !read && !row.gone {
            // Another statement may stand there already; where it can't be read, nothing can be said there either.
            let closed = heads.is_none_or(|heads| !heads.contains_key(&place.mailbox));
            if let Some(room) = self.rooms.get_mut(&matter).filter(|_| closed) {
                room.row.continue_at = Some(self.now.plus_ms(limits::MOVING_MS));
            }
            return Ok(());
        }
        let (epoch, turn) = row.next_rank();
        let statement = Successor {
            group: place.group,
            device: self.profile.device,
            epoch,
            position: place.position,
            mailbox: MailboxId::random(),
            successor: MatterId::random(),
            turn,
            people: self.taken_over(matter),
            fates: row.fates.clone(),
        };
        let payload = statement.sign(&self.profile.mls_key)?;
        let mut parts = vec![Part::Create { mailbox: statement.mailbox }];
        if !row.gone {
            parts.push(Part::Append {
                mailbox: place.mailbox,
                base: place.fence,
                fence: true,
                envelope: Blob(envelope::wrap(Class::Successor, &payload)?),
                keep_ms: limits::ENVELOPE_LIFETIME_MS,
            });
        }
        if let Some(room) = self.rooms.get_mut(&matter) {
            room.row.continues_in = Some(statement.mailbox);
            // Should it count for nobody, it is said again, and not at once.
            room.row.continue_at = Some(self.now.plus_ms(limits::MOVING_MS));
            room.row.stated = Some(Blob(payload));
        }
        self.save_room(matter);
        self.new_post(PendingPost::new(parts, matter, Purpose::Successor));
        Ok(())
    }

    /// The relay has this device's statement, or the new mailbox, where there is no other any more.
    pub(super) fn successor_posted(&mut self, now: Timestamp, matter: MatterId) {
        let Some(row) = self.rooms.get(&matter).map(|room| &room.row).filter(|row| row.gone) else { return };
        let own = (self.profile.person, self.profile.device);
        let said = row.stated.clone().and_then(|signed| Some((Successor::read(&signed.0).ok()?.0, signed)));
        let position = row.position;
        if let Some((said, signed)) = said.filter(|(said, _)| row.continues_in == Some(said.mailbox))
            && let Err(error) = self.follow(now, matter, position, (&said, &signed), own)
        {
            self.deliver(super::Notice::Problem(error));
        }
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
        let here = self.rooms.get(&matter).is_some_and(|room| room.stands_here(&claim));
        if here {
            self.claimed_by_a_stranger(now, matter, &claim, &signed);
        }
        let (said, from) = self.statement_of_a_member(matter, &claim, &signed)?;
        let row = &self.rooms.get(&matter).ok_or(Misuse::NoMatter)?.row;
        let late = row.successor.as_ref().is_some_and(|first| first.rank() >= said.rank());
        if said.group != row.group || late || row.is_beyond(&said) || !here {
            return Err(PeerMisbehaved::Void("another statement has continued this matter".to_owned()).into());
        }
        if row.stage == Stage::Removed {
            return Ok(());
        }
        self.follow_or_overrule(now, matter, position, (&said, &Blob(payload.to_vec())), from)
    }

    /// A statement whose author was in this matter's group, by its roster and list.
    fn statement_of_a_member(
        &mut self,
        matter: MatterId,
        claim: &Successor,
        signed: &Signed,
    ) -> Result<(Successor, Author), Error> {
        let group = self.group(matter)?;
        let (member, key) = group.member_of(claim.device)?;
        let listed = group.context()?.participant(member.credential.person).copied();
        let said = Successor::verify(signed, &key)?;
        if listed.is_none_or(|listed| !listed.role.manages()) {
            return Err(PeerMisbehaved::Role("continuing a matter").into());
        }
        Ok((said, (member.credential.person, claim.device)))
    }

    /// Somebody whose removal the relay has forgotten continues the matter: whoever knows of it refuses that, and overrules it for those
    /// who do not. Where nothing was forgotten everybody who reads it knows.
    fn claimed_by_a_stranger(&mut self, now: Timestamp, matter: MatterId, claim: &Successor, signed: &Signed) {
        let Some(row) = self.rooms.get(&matter).map(|room| &room.row).filter(|row| row.forgotten) else { return };
        let outs: Vec<PersonId> = row.fates.iter().filter(|fate| fate.out).map(|fate| fate.person).collect();
        let Some((_, key)) = self.known_device(claim.device, &outs) else { return };
        let known = claim.group == row.group && claim.epoch >= row.epoch && !row.is_beyond(claim);
        if known && Successor::verify(signed, &key).is_ok() {
            // Whom they name is nobody's wish.
            self.overrule(now, matter, &Successor { people: Vec::new(), fates: Vec::new(), ..claim.clone() });
        }
    }

    /// A statement that this device does not follow, though others may: it says so with a higher rank.
    fn overrule(&mut self, now: Timestamp, matter: MatterId, said: &Successor) {
        let Some(row) = self.rooms.get_mut(&matter).map(|room| &mut room.row) else { return };
        row.merge_fates(&said.fates);
        if row.claimed.as_ref().is_none_or(|claimed| claimed.group != said.group || claimed.rank() < said.rank()) {
            row.claimed = Some(said.clone());
        }
        self.want_successor(now, matter);
        self.save_room(matter);
    }

    /// The statement that counts is followed, unless this device may and must say better who is in the matter.
    fn follow_or_overrule(
        &mut self,
        now: Timestamp,
        matter: MatterId,
        position: Position,
        (said, signed): (&Successor, &Blob),
        from: Author,
    ) -> Result<(), Error> {
        let manages = self.profile.role.manages();
        let row = &self.rooms.get(&matter).ok_or(Misuse::NoMatter)?.row;
        if row.is_out(from.0) {
            if manages {
                self.overrule(now, matter, &Successor { people: Vec::new(), fates: Vec::new(), ..said.clone() });
            }
            return Err(PeerMisbehaved::Void("its author was removed".to_owned()).into());
        }
        // Who can't say so follows: whoever can overrules it.
        if manages && said.group == row.group && said.epoch < row.epoch {
            self.overrule(now, matter, said);
            return Err(PeerMisbehaved::Void("it continues the matter from before its last change".to_owned()).into());
        }
        if manages && row.knows_better(said) {
            self.overrule(now, matter, said);
            return Err(PeerMisbehaved::Void("it does not know who was removed or added again".to_owned()).into());
        }
        // Whoever posted the statement before may not know this author: somebody whom both know says it again.
        let own = self.profile.person;
        let before = row.successor.as_ref().or(row.claimed.as_ref()).filter(|before| before.group == said.group);
        let restates = manages
            && from.0 != own
            && before.is_some_and(|before| {
                before.device != said.device && before.people.contains(&own) && !before.people.contains(&from.0)
            });
        self.follow(now, matter, position, (said, signed), from)?;
        if restates {
            self.overrule(now, matter, said);
            if let Some(room) = self.rooms.get_mut(&matter) {
                room.row.continue_at = None;
            }
            self.want_successor(now, matter);
        }
        Ok(())
    }

    /// Follows the statement that counts: into a group of this device's own making, or into waiting for a Welcome.
    pub(super) fn follow(
        &mut self,
        now: Timestamp,
        matter: MatterId,
        position: Position,
        (said, signed): (&Successor, &Blob),
        from: Author,
    ) -> Result<(), Error> {
        let row = self.rooms.get(&matter).ok_or(Misuse::NoMatter)?.row.clone();
        let managers = self.managers(matter)?;
        let here = row.continues_in == Some(said.mailbox);
        let group = if here { Some(self.successor_group(matter, said)?) } else { None };
        self.record(now, matter, position.seq, Some(from), now, RecordBody::Continued);
        self.forget_posts(matter);
        let old = row.left_by(said, position, managers);
        // What overrules the group that this device is in stands in the mailbox before: it is read on until the new one takes this device.
        let reads_on = group.is_none() && row.is_followed_beside(said);
        if !reads_on {
            self.unseal(matter);
            for digest in self
                .rooms
                .get_mut(&matter)
                .map(|room| std::mem::take(&mut room.commits))
                .unwrap_or_default()
                .into_keys()
            {
                self.batch.delete(Table::Commit, Some(matter), digest.as_bytes());
            }
        }
        self.drop_taken_over(matter);
        let Some(room) = self.rooms.get_mut(&matter) else { return Ok(()) };
        room.row.merge_fates(&said.fates);
        room.row.continued_by(said, signed);
        room.row.successor = Some(said.clone());
        (room.row.stage, room.row.lost, room.row.continue_at) = (Stage::Moving, None, None);
        (room.row.disputed, room.row.forgotten, room.row.claimed) = (None, false, None);
        room.row.reads_on = reads_on;
        if reads_on {
            // Whoever leads the matter away may not have read what was said last.
            let heard =
                room.recent.values().rev().find(|recent| recent.message.is_some_and(|(person, _)| person == from.0));
            room.row.recall = Some(heard.map_or(0, |recent| recent.position.seq));
        }
        if said.group != row.group {
            room.row.old = Some(old.clone());
        }
        let Some((group, context)) = group else {
            let out = self.rooms.get(&matter).is_some_and(|room| room.row.is_out(self.profile.person));
            if self.profile.role.manages() && !out {
                let leaf = self.group(matter).map_or(0, |group| u64::from(group.own_leaf()));
                let turn = now.plus_ms(limits::MOVING_MS.saturating_add(leaf.saturating_mul(LEAF_MS)));
                if let Some(room) = self.rooms.get_mut(&matter) {
                    room.row.continue_at = Some(turn);
                }
            }
            self.save_room(matter);
            if from.1 == self.profile.device {
                return self.follow_the_other_copy(now, matter, said, old);
            }
            self.ask_recall(matter);
            self.inbox_again();
            return Ok(());
        };
        let line = self.rooms.get(&matter).map(|room| room.row.line.clone()).unwrap_or_default();
        let next = MatterRow::new(said.successor, &context, Stage::Open, group.epoch(), now);
        let row = MatterRow { old: Some(old), line, continues_in: Some(said.mailbox), ..next };
        let after = Some(row.position);
        self.take_room(matter, row, group);
        // What was known of those to be added may be why the statement before came to nothing.
        self.materials.clear();
        if let Some(room) = self.rooms.get_mut(&matter) {
            room.not_before = now.plus_ms(GRACE_MS);
        }
        self.save_state(matter);
        self.ask_later(Asked::Subscribe(said.mailbox, after), Request::Subscribe { mailbox: said.mailbox, after });
        let own = self.profile.person;
        for person in said.people.iter().copied().filter(|person| *person != own) {
            let handle = self.people.get(&person).map(|known| known.handle.clone()).unwrap_or_default();
            self.put_intent(matter, Intent { person, handle, add: true, told: true, taken_over: true });
        }
        Ok(())
    }

    fn drop_taken_over(&mut self, matter: MatterId) {
        let Some(room) = self.rooms.get(&matter) else { return };
        let taken_over = |(_, intent): &(&u64, &Intent)| intent.taken_over;
        let numbers: Vec<u64> = room.intents.iter().filter(taken_over).map(|(number, _)| *number).collect();
        self.drop_intents(matter, &numbers);
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
    pub(super) fn matter_of(&self, group: MatterId, context: &MatterContext, line: &[Blob]) -> MatterId {
        let belongs = |row: &MatterRow| {
            let continued = context.continues.is_some_and(|from| {
                from.group == row.group || row.old.as_ref().is_some_and(|old| from.group == old.group)
            });
            row.group == group || continued
        };
        let known = self.rooms.iter().find(|(_, room)| belongs(&room.row)).map(|(matter, _)| *matter);
        known.or_else(|| self.matter_in_line(line)).unwrap_or(group)
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

    /// Statements that this device can't read where they stand come with the Welcome that they lead to: where the relay has forgotten the
    /// mailbox, and behind the one that this device waits to be let in by.
    pub(super) fn statements_in_a_welcome(
        &mut self,
        now: Timestamp,
        matter: MatterId,
        context: &MatterContext,
        line: &[Blob],
        by: Option<PersonId>,
    ) -> Result<(), Error> {
        for signed in line.iter().take(limits::LINE_MAX) {
            let Some(row) = self.rooms.get(&matter).map(|room| room.row.clone()) else { return Ok(()) };
            if !self.comes_before_its_statement(matter, context) {
                return Ok(());
            }
            let (claim, statement) = Successor::read(&signed.0)?;
            let followed = row.successor.as_ref().filter(|next| next.successor == claim.group);
            let lost = row.old.as_ref().filter(|old| old.gone && old.group == claim.group);
            let (said, from) = match (lost, followed) {
                (Some(old), _) => self.later_statement(&row, old, &signed.0)?,
                (None, Some(next)) if next.people.contains(&self.profile.person) => {
                    // One more step of the same matter, by somebody who was in it before the first.
                    let (said, from) = self.statement_of_a_member(matter, &claim, &statement)?;
                    let vouched = by.is_some_and(|by| by != from.0 && next.people.contains(&by));
                    let known = next.device == from.1 || (vouched && next.people.contains(&from.0));
                    if !known || row.is_out(from.0) || row.is_beyond(&said) {
                        return Err(PeerMisbehaved::Mismatch("a statement in a Welcome").into());
                    }
                    (said, from)
                }
                (None, None) if row.gone && row.group == claim.group => {
                    let (said, from) = self.statement_of_a_member(matter, &claim, &statement)?;
                    let late = row.successor.as_ref().is_some_and(|first| first.rank() >= said.rank());
                    if late || row.is_beyond(&said) {
                        continue;
                    }
                    (said, from)
                }
                _ => continue,
            };
            if followed.is_some() && lost.is_none() {
                if let Some(room) = self.rooms.get_mut(&matter) {
                    room.row.merge_fates(&said.fates);
                    room.row.successor = Some(said);
                }
                self.save_room(matter);
            } else {
                self.follow_or_overrule(now, matter, row.position, (&said, signed), from)?;
            }
        }
        Ok(())
    }

    /// The matter whose statements lead to a group, where its own is none that this device knows.
    pub(super) fn matter_in_line(&self, line: &[Blob]) -> Option<MatterId> {
        let groups: Vec<MatterId> =
            line.iter().filter_map(|signed| Successor::read(&signed.0).ok()).map(|(said, _)| said.group).collect();
        let waits = |row: &MatterRow| row.stage == Stage::Moving && groups.contains(&row.group);
        self.rooms.iter().find(|(_, room)| waits(&room.row)).map(|(matter, _)| *matter)
    }

    /// The relay, restored from a backup, knows nothing of this mailbox, or of this device in it.
    pub(super) fn mailbox_is_gone(&mut self, now: Timestamp, matter: MatterId) {
        let Some(room) = self.rooms.get_mut(&matter) else { return };
        room.row.gone = true;
        self.forgotten(now, matter);
    }

    /// An entry of the mailbox that a matter was continued from: all that still counts there is a statement of a higher rank.
    pub(super) fn old_entry(&mut self, now: Timestamp, matter: MatterId, entry: &Entry) {
        let Some(old) = self.rooms.get_mut(&matter).and_then(|room| room.row.old.as_mut()) else { return };
        if entry.seq != old.position.seq.saturating_add(1) {
            return;
        }
        let before = old.clone();
        old.position = old.position.next(entry.fence, &entry.digest());
        let position = old.position;
        if entry.fence {
            old.fence = position;
        }
        if let EntryBody::Envelope(bytes) = &entry.body
            && let Ok((Class::Successor, payload)) = envelope::unwrap(&bytes.0)
            && let Some(row) = self.rooms.get(&matter).map(|room| room.row.clone())
            && row.stage != Stage::Removed
            && let Ok((said, from)) = self.later_statement(&row, &before, payload)
            && said.position.seq >= before.fence.seq
        {
            // Whatever was said in the successor stays in the history; the matter goes on elsewhere.
            if let Err(error) = self.follow_or_overrule(now, matter, position, (&said, &Blob(payload.to_vec())), from) {
                self.drop_group(matter);
                self.deliver(super::Notice::Problem(error));
            }
        }
        self.save_room(matter);
    }

    /// A statement of somebody who managed the old group, by the certificates that this device has seen there.
    fn later_statement(&self, row: &MatterRow, old: &Old, payload: &[u8]) -> Result<(Successor, Author), Error> {
        let (claim, signed) = Successor::read(payload)?;
        let (person, key) = self.known_device(claim.device, &old.managers).ok_or(PeerMisbehaved::NotEndorsed)?;
        let said = Successor::verify(&signed, &key)?;
        // Where the mailbox is gone to this device alone, what stands there counts for the others; of two that stand nowhere the same one
        // counts for everybody.
        let later = if old.gone {
            (said.stands(), said.rank(), Reverse(said.mailbox)) > (old.stands, old.rank(), Reverse(old.next))
        } else {
            said.rank() > old.rank()
        };
        let beyond = said.epoch > old.epoch.saturating_add(limits::SUCCESSOR_AHEAD)
            || said.turn
                > old.turn.max(row.overruled().map_or(0, |said| said.turn)).saturating_add(limits::SUCCESSOR_TURNS);
        if said.group != old.group || !later || beyond || row.is_out(person) {
            return Err(PeerMisbehaved::Void("another statement has continued this matter".to_owned()).into());
        }
        Ok((said, (person, claim.device)))
    }

    fn known_device(&self, device: DeviceId, of: &[PersonId]) -> Option<(PersonId, PublicKey)> {
        of.iter().find_map(|person| {
            let devices = verify_devices(self.people.get(person)?.chain.first()?).ok()?;
            let found = devices.into_iter().find(|(_, certificate)| certificate.device == device)?;
            Some((*person, found.1.mls_key))
        })
    }

    /// Who manages a matter, as its group lists them.
    fn managers(&mut self, matter: MatterId) -> Result<Vec<PersonId>, Error> {
        let context = self.group(matter)?.context()?;
        Ok(context.people.iter().filter(|listed| listed.role.manages()).map(|listed| listed.person).collect())
    }

    /// Whom this device would take over: everybody who is in the matter, or is yet to come, as far as it and those whom it overrules
    /// know, and whom nobody has removed.
    fn taken_over(&self, matter: MatterId) -> Vec<PersonId> {
        let Some(room) = self.rooms.get(&matter) else { return Vec::new() };
        let row = &room.row;
        let listed = row.old.as_ref().map(|old| old.listed.as_slice()).unwrap_or_default();
        let overruled = row.overruled().map(|said| said.people.as_slice()).unwrap_or_default();
        let wanted = room.intents.values().filter(|intent| intent.taken_over).map(|intent| intent.person);
        let mut people: Vec<PersonId> = [&row.people, listed, overruled].concat();
        people.extend(wanted);
        people.extend(
            row.fates
                .iter()
                .filter(|fate| !fate.out)
                .map(|fate| fate.person)
                .filter(|person| row.people.contains(person)),
        );
        people.sort();
        people.dedup();
        let unwanted: Vec<PersonId> = room.intents.values().filter(|intent| !intent.add).map(|i| i.person).collect();
        people.retain(|person| !row.is_out(*person) && !unwanted.contains(person) && *person != self.profile.person);
        people.truncate(limits::PEOPLE_MAX);
        people
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
    pub(super) fn old_of(&mut self, matter: MatterId, continues: Option<Continues>) -> Option<Old> {
        let managers = self.managers(matter).unwrap_or_default();
        let row = &self.rooms.get(&matter)?.row;
        let from = continues?;
        let said = row.successor.as_ref().filter(|said| said.group == from.group);
        let before = row.old.clone().filter(|old| from.group == old.group);
        let old = before.unwrap_or_else(|| row.as_old(row.position, from.epoch, managers));
        Some(match said {
            Some(said) => old.said(said),
            None => Old { epoch: from.epoch, ..old },
        })
    }
}

/// Where a statement of this device's would stand.
struct Place {
    group: MatterId,
    mailbox: MailboxId,
    position: Position,
    fence: Position,
}

impl Room {
    /// Whether somebody whom the matter's statement takes over, by another device, is not in yet.
    pub(super) fn is_yet_to_come(&self, person: PersonId) -> bool {
        let listed = self.row.old.as_ref().is_some_and(|old| old.listed.contains(&person));
        // Who came in and was removed since has a fate of their own in this group.
        listed
            && !self.row.people.contains(&person)
            && !self.row.came.contains(&person)
            && self.row.continues_in != Some(self.row.mailbox)
    }

    /// Whether a statement stands where its author had read to: it names the last position before it, or one since the last fence.
    fn stands_here(&self, said: &Successor) -> bool {
        let known = self.recent.get(&said.position.seq).map(|recent| recent.position);
        said.position.seq >= self.row.fence.seq && known.is_none_or(|known| known == said.position)
    }
}

impl MatterRow {
    /// The statement that this device's own would have to exceed.
    fn overruled(&self) -> Option<&Successor> {
        let place = self.place().group;
        let of = |said: &&Successor| said.group == place;
        let (followed, claimed) = (self.successor.as_ref().filter(of), self.claimed.as_ref().filter(of));
        followed.into_iter().chain(claimed).max_by_key(|said| said.rank())
    }

    /// Whether the group that this one was to continue is claimed anew: what overrules that stands in the mailbox before.
    fn is_overruled_from_before(&self) -> bool {
        let of = |said: &Option<Successor>| {
            said.as_ref().is_some_and(|said| self.old.as_ref().is_some_and(|old| old.group == said.group))
        };
        of(&self.successor) || of(&self.claimed)
    }

    fn place(&self) -> Place {
        match self.old.as_ref().filter(|_| self.is_overruled_from_before()) {
            Some(Old { mailbox, group, position, fence, .. }) => {
                Place { group: *group, mailbox: *mailbox, position: *position, fence: *fence }
            }
            None => Place { group: self.group, mailbox: self.mailbox, position: self.position, fence: self.fence },
        }
    }

    /// The rank of this device's own statement: its epoch, or a turn above the statement that it overrules.
    fn next_rank(&self) -> (u64, u32) {
        let from_before = self.old.as_ref().filter(|_| self.is_overruled_from_before());
        let known = from_before.map_or((self.epoch, 0), Old::rank);
        let highest = self.overruled().map(Successor::rank).max(from_before.map(Old::rank));
        match highest {
            Some((epoch, turn)) if epoch >= known.0 => (epoch, turn.saturating_add(1)),
            _ => known,
        }
    }

    /// Whether a statement claims an epoch or a turn that no matter comes to.
    fn is_beyond(&self, said: &Successor) -> bool {
        let (epoch, turn) = self.overruled().map_or((0, 0), Successor::rank);
        said.epoch > self.epoch.max(epoch).saturating_add(limits::SUCCESSOR_AHEAD)
            || said.turn > turn.saturating_add(limits::SUCCESSOR_TURNS)
    }

    /// Whether this group is still followed while a statement about the one before leads the matter elsewhere.
    fn is_followed_beside(&self, said: &Successor) -> bool {
        said.group != self.group && (self.stage == Stage::Open || self.reads_on) && self.lost.is_none()
    }

    /// What a statement or a Welcome says of people who were removed: of each the latest counts.
    pub(super) fn merge_fates(&mut self, said: &[Fate]) {
        for fate in said.iter().take(limits::FATES_MAX) {
            let known = self.fate(fate.person);
            let beyond = fate.number > known.number.saturating_add(limits::FATE_AHEAD);
            if !beyond && (fate.number, fate.out) > (known.number, known.out) {
                self.set_fate(*fate);
            }
        }
    }

    /// A Commit that was applied has added and removed people.
    pub(super) fn note_fates(&mut self, added: &[PersonId], removed: &[PersonId]) {
        removed.iter().for_each(|person| self.note_fate(*person, true));
        for person in added {
            // Who was never removed needs no mark.
            if self.fate(*person).out {
                self.note_fate(*person, false);
            }
        }
    }

    /// Somebody is out from now on, or in again.
    pub(super) fn note_fate(&mut self, person: PersonId, out: bool) {
        let known = self.fate(person);
        if known.out != out {
            self.set_fate(Fate { person, number: known.number.saturating_add(1), out });
        }
    }

    fn fate(&self, person: PersonId) -> Fate {
        let known = self.fates.iter().find(|fate| fate.person == person).copied();
        known.unwrap_or(Fate { person, number: 0, out: false })
    }

    fn set_fate(&mut self, fate: Fate) {
        self.fates.retain(|known| known.person != fate.person);
        self.fates.push(fate);
        // Should there be too many, the oldest go.
        let many = self.fates.len().saturating_sub(limits::FATES_MAX);
        self.fates.drain(..many);
    }

    /// Whether somebody was removed, and not added again.
    pub(super) fn is_out(&self, person: PersonId) -> bool {
        self.fate(person).out
    }

    /// Whether a statement takes over somebody who is out, or leaves out somebody who is in again.
    fn knows_better(&self, said: &Successor) -> bool {
        let theirs = |person: PersonId| {
            let known = said.fates.iter().find(|fate| fate.person == person);
            known.map_or((0, false), |fate| (fate.number, fate.out))
        };
        self.fates.iter().any(|fate| {
            let later = (fate.number, fate.out) > theirs(fate.person);
            later && (said.people.contains(&fate.person) == fate.out)
        })
    }

    /// The statements by which the group continues others, and this one.
    fn continued_by(&mut self, said: &Successor, signed: &Blob) {
        // Of two about one group the later one led here.
        let about = |line: &Blob| Successor::read(&line.0).is_ok_and(|(known, _)| known.group == said.group);
        if let Some(same) = self.line.iter().position(about) {
            self.line.truncate(same);
        }
        self.line.push(signed.clone());
        let many = self.line.len().saturating_sub(limits::LINE_MAX);
        self.line.drain(..many);
    }

    fn as_old(&self, position: Position, epoch: u64, managers: Vec<PersonId>) -> Old {
        Old {
            mailbox: self.mailbox,
            group: self.group,
            position,
            epoch,
            managers,
            fence: position,
            turn: 0,
            listed: Vec::new(),
            gone: self.gone,
            next: self.mailbox,
            stands: true,
        }
    }

    /// Where a matter that follows this statement comes from.
    fn left_by(&self, said: &Successor, position: Position, managers: Vec<PersonId>) -> Old {
        let before = self.old.clone().filter(|old| old.group == said.group && said.group != self.group);
        before.unwrap_or_else(|| self.as_old(position, said.epoch, managers)).said(said)
    }
}

impl Old {
    fn rank(&self) -> (u64, u32) {
        (self.epoch, self.turn)
    }

    fn said(self, said: &Successor) -> Self {
        let listed = said.people.clone();
        Self { epoch: said.epoch, turn: said.turn, listed, next: said.mailbox, stands: said.stands(), ..self }
    }
}
