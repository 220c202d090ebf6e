//! Out of step and back: asking to be let back in, letting others back in, and finding out that this vault is a copy.
//!
//! 1. A device that can't follow a Commit remembers where it was, reads on without applying anything, and asks.
//! 2. A member answers by a Commit that removes and re-adds that leaf, and a Welcome; the lowest leaf first, others after a while.
//! 3. With the Welcome the device reads again from where it was, up to that Commit; what lies between is missing, and shown so.
//! 4. A copied vault is out of step in every matter: its keys may have been used.
//!
//! Invariant: a device that is out of step, or knows itself to be a copy, seals nothing under the keys it has.

use crate::content::Content;
use crate::device::state::{
    Counters, Healing, HeldRequest, Lost, OutItem, OwnKeyPackage, PendingPost, Purpose, RecordBody, Stage, Table,
};
use crate::device::{Asked, Device, Notice, Room};
use crate::envelope::{self, Class};
use crate::error::{Error, PeerMisbehaved};
use crate::frame::{AcceptedIdem, Blob, Instance, Post, Request};
use crate::ids::{DeviceId, MatterId, MessageId, PersonId, Position, Timestamp};
use crate::matter::{Certificates, Change, Companion, Matter, Seen, is_of_leaf, key_package};
use crate::rescue::RepairRequest;
use crate::suite::{self, Digest};

use super::post::Wanted;

/// How long a device waits behind a fence before it asks again.
const ASK_MS: u64 = 2_000;
/// How long it waits for the Welcome of a Commit that answers it.
const WELCOME_MS: u64 = 15_000;
/// How long each further leaf waits before it answers somebody's request.
const ANSWER_MS: u64 = 1_000;
/// How often the same device is let back in at once, and how much later each further time: nobody keeps the others busy with it.
const LET_IN_TIMES: u32 = 5;
const LET_IN_MS: u64 = 60_000;

impl Device {
    /// This device can't follow the entry after its position: from here on it reads without applying, and asks.
    pub(super) fn lose_way(&mut self, now: Timestamp, matter: MatterId) {
        self.drop_group(matter);
        let Some(room) = self.rooms.get_mut(&matter) else { return };
        let (position, fence) = (room.row.position, room.row.fence);
        let lost = room.row.lost.get_or_insert_with(|| Lost::at(position, fence, now));
        (lost.request, lost.ask_at) = (None, now);
        let unconfirmed = std::mem::take(&mut room.row.unconfirmed);
        if let Some((_, before)) = room.row.let_in_by.take().filter(|_| unconfirmed) {
            // The epoch into which this device was let was nobody's, and nobody has read what it said there.
            room.row.epoch = before;
            room.row.recall = Some(room.row.epoch_seq);
        }
        let told = std::mem::replace(&mut room.row.stage, Stage::OutOfStep) == Stage::OutOfStep;
        if !told {
            self.record(now, matter, position.seq.saturating_add(1), None, now, RecordBody::OutOfStep);
        }
        self.save_room(matter);
        self.ask_recall(matter);
    }

    /// Reading without applying: own texts that were accepted leave the outbox; the Commit that lets this device back in ends it.
    pub(super) fn astray(
        &mut self,
        now: Timestamp,
        matter: MatterId,
        position: Position,
        digest: &Digest,
        class: Class,
        payload: &[u8],
    ) -> Result<Option<(PersonId, MessageId)>, Error> {
        if class == Class::Message {
            return self.own_text(now, matter, position.seq, digest);
        }
        let Ok((epoch, seen)) = Seen::with_epoch(payload) else { return Ok(None) };
        let Some(room) = self.rooms.get_mut(&matter) else { return Ok(None) };
        let Some(lost) = room.row.lost.as_ref().filter(|lost| seen.repair.is_some() && lost.request == seen.repair)
        else {
            return Ok(None);
        };
        if room.row.stage != Stage::Open {
            return Ok(None);
        }
        let from = lost.position.seq.saturating_add(1);
        if self.group(matter)?.epoch() != epoch.saturating_add(1) {
            self.lose_way(now, matter);
            return Ok(None);
        }
        if let Some(room) = self.rooms.get_mut(&matter) {
            room.row.lost = None;
            room.row.unconfirmed = true;
            room.row.epoch_seq = position.seq;
            room.row.healing = Healing { at: now, ..Healing::default() };
        }
        self.record(now, matter, position.seq, None, now, RecordBody::Repaired { from, upto: position.seq });
        let context = self.group(matter)?.context()?;
        self.tell_people(now, matter, position.seq, None, &context);
        self.settle_commits(matter, &context);
        Ok(None)
    }

    /// An own text among what is only read. An own bundle means nothing here.
    fn own_text(
        &mut self,
        now: Timestamp,
        matter: MatterId,
        seq: u64,
        digest: &Digest,
    ) -> Result<Option<(PersonId, MessageId)>, Error> {
        let known = |room: &Room| room.outbox.values().any(|item| item.digest == Some(*digest));
        if self.rooms.get(&matter).is_some_and(known) { self.own_message(now, matter, seq, digest) } else { Ok(None) }
    }

    /// Somebody asks to be let back in. It counts only for a member's own leaf, and only here.
    pub(super) fn request_read(
        &mut self,
        now: Timestamp,
        matter: MatterId,
        digest: &Digest,
        payload: &[u8],
    ) -> Result<(), Error> {
        let (claim, signed) = RepairRequest::read(payload)?;
        let (member, key) = self.group(matter)?.member_of(claim.device)?;
        let request = RepairRequest::verify(&signed, &key)?;
        is_of_leaf(&request.package.0, &member.credential, &key)?;
        let (own, ranks) = (self.group(matter)?.own_leaf(), self.group(matter)?.members());
        let rank = ranks.iter().filter(|other| other.leaf < own && other.leaf != member.leaf).count();
        let Some(room) = self.rooms.get_mut(&matter) else { return Ok(()) };
        let row = &mut room.row;
        let misplaced = request.group != row.group || request.fence != row.fence || request.epoch > row.epoch;
        if misplaced {
            return Err(PeerMisbehaved::Void("a request to be let back in that does not belong here".to_owned()).into());
        }
        row.requests.retain(|held| held.request.device != request.device);
        if request.device != self.profile.device {
            let answer_at = now.plus_ms(ANSWER_MS.saturating_mul(u64::try_from(rank).unwrap_or(u64::MAX)));
            let often = self.let_in.get(&(matter, request.device)).filter(|(_, times)| *times >= LET_IN_TIMES);
            let answer_at = often.map_or(answer_at, |(at, _)| answer_at.max(at.plus_ms(LET_IN_MS)));
            row.requests.push(HeldRequest { digest: *digest, request, answer_at });
        }
        Ok(())
    }

    /// A device was let back in.
    pub(super) fn count_let_in(&mut self, now: Timestamp, matter: MatterId, device: DeviceId) {
        let (at, times) = self.let_in.entry((matter, device)).or_insert((now, 0));
        if at.plus_ms(LET_IN_MS.saturating_mul(u64::from(LET_IN_TIMES))) <= now {
            *times = 0;
        }
        (*at, *times) = (now, times.saturating_add(1));
    }

    /// While this device is out of step itself, it counts who else asks: where nobody is left in step, nobody can repair.
    pub(super) fn other_asks(&mut self, now: Timestamp, matter: MatterId, payload: &[u8]) -> Result<(), Error> {
        let (claim, signed) = RepairRequest::read(payload)?;
        let (_, key) = self.group(matter)?.member_of(claim.device)?;
        let request = RepairRequest::verify(&signed, &key)?;
        let members = self.group(matter)?.members();
        let own = self.profile.device;
        let Some(room) = self.rooms.get_mut(&matter) else { return Ok(()) };
        let here = request.group == room.row.group && request.fence == room.row.fence;
        let Some(lost) = room.row.lost.as_mut().filter(|_| here && request.device != own) else { return Ok(()) };
        if !lost.others.contains(&request.device) {
            lost.others.push(request.device);
        }
        let all = members.iter().all(|m| m.credential.device == own || lost.others.contains(&m.credential.device));
        if all {
            self.want_successor(now, matter);
        }
        Ok(())
    }

    /// The Welcome of whoever lets this device back in: what was read without applying is read again, up to that Commit.
    pub(super) fn rejoin(&mut self, now: Timestamp, matter: MatterId, group: Matter) -> Result<(), Error> {
        let Some(room) = self.rooms.get_mut(&matter) else { return Ok(()) };
        let Some(lost) = room.row.lost.as_mut() else { return Ok(()) };
        lost.ask_at = now.plus_ms(WELCOME_MS);
        (room.row.position, room.row.fence) = (lost.position, lost.fence);
        room.row.bundles.clear();
        room.row.requests.clear();
        room.row.withheld.clear();
        (room.row.stage, room.row.continue_at) = (Stage::Open, None);
        room.row.let_in_by = group.welcomed_by().map(|by| (by, room.row.epoch));
        room.group = Some(group);
        for digest in std::mem::take(&mut room.commits).into_keys() {
            self.batch.delete(Table::Commit, Some(matter), digest.as_bytes());
        }
        self.forget_posts(matter);
        self.unseal(matter);
        self.save_state(matter);
        self.read_again(matter);
        Ok(())
    }

    /// Subscribes anew, from this device's position on.
    pub(super) fn read_again(&mut self, matter: MatterId) {
        let Some(row) = self.rooms.get(&matter).map(|room| &room.row) else { return };
        let (mailbox, after) = (row.mailbox, row.reads_from());
        if let Some(link) = self.link.as_mut() {
            link.heads.remove(&mailbox);
        }
        self.ask_later(Asked::Subscribe(mailbox, after), Request::Subscribe { mailbox, after });
    }

    /// Asks to be let back in, where that is due. Nothing else is posted by a device that is out of step.
    pub(super) fn ask_back(&mut self, matter: MatterId) -> Result<(), Error> {
        let Some(room) = self.rooms.get_mut(&matter) else { return Ok(()) };
        let Some(lost) = room.row.lost.clone() else { return Ok(()) };
        let kept = lost.package.filter(|kept| self.key_packages.references().contains(&kept.reference));
        let package = match kept {
            Some(package) => package,
            None => {
                let (message, reference, secret) = key_package(&self.me, &self.key_packages, false)?;
                self.batch.put_bytes(Table::KeyPackage, None, &reference, secret);
                OwnKeyPackage { reference, message: Blob(message) }
            }
        };
        let request = RepairRequest {
            group: room.row.group,
            device: self.profile.device,
            epoch: room.row.epoch,
            fence: room.row.fence,
            package: package.message.clone(),
            inbox: self.profile.inbox,
        };
        let envelope = envelope::wrap(Class::Repair, &request.sign(&self.profile.mls_key)?)?;
        let digest = Digest::of(&[&envelope]);
        let part = self.append(matter, &envelope, false)?;
        if let Some(room) = self.rooms.get_mut(&matter)
            && let Some(lost) = room.row.lost.as_mut()
        {
            (lost.package, lost.request) = (Some(package), Some(digest));
            // It stands until a fence comes; whoever comes online reads it.
            lost.ask_at = Timestamp(u64::MAX);
        }
        self.save_room(matter);
        self.new_post(PendingPost::new(vec![part], matter, Purpose::Repair(digest)));
        Ok(())
    }

    /// A request was refused: for good, or because a fence stands behind the one it names.
    pub(super) fn request_refused(&mut self, now: Timestamp, matter: MatterId, digest: Digest, again: bool) {
        let Some(lost) = self.rooms.get_mut(&matter).and_then(|room| room.row.lost.as_mut()) else { return };
        if lost.request == Some(digest) {
            lost.request = None;
            // Refused for good it is asked again on another day: a mailbox that this device may not write to is its removal, as the
            // relay claims.
            lost.ask_at = if again { now } else { now.plus_ms(24 * 3600 * 1000) };
            self.save_room(matter);
        }
    }

    /// Answers the oldest request that is due, by a Commit that does nothing else.
    pub(super) fn answer_request(&mut self, now: Timestamp, matter: MatterId) -> Result<bool, Error> {
        let Some(room) = self.rooms.get_mut(&matter) else { return Ok(false) };
        let Some(due) = room.row.requests.iter().position(|held| held.answer_at <= now) else { return Ok(false) };
        // Tried once: whatever comes of it, others answer, or it is asked again.
        let held = room.row.requests.get(due).cloned();
        let Some(HeldRequest { digest, request, .. }) = held else { return Ok(false) };
        if let Some(held) = room.row.requests.get_mut(due) {
            held.answer_at = now.plus_ms(LET_IN_MS);
        }
        let row = room.row.clone();
        let group = self.group(matter)?;
        let (member, _) = group.member_of(request.device)?;
        let context = group.context()?;
        let bundle = self.bundle_of_listed(&context, &[]);
        let companion = Companion { bundle, seen: row.position, line: row.line.clone(), fates: row.fates.clone() };
        let change = Change {
            add: vec![request.package.0.clone()],
            remove: vec![member.leaf],
            context: None,
            companion: Some(companion),
        };
        let seen = Seen { repair: Some(digest), ..Seen::at(row.position) };
        let wanted = Wanted::answer(digest, request.inbox);
        self.post_change(matter, wanted, change, &seen, Certificates::repair(request))?;
        Ok(true)
    }

    /// Whether what the relay has accepted was posted by another copy of this vault: proved by this vault's own MAC, over an idem that it
    /// has not issued, or has issued for something else.
    pub(super) fn is_copy(&self, accepted: &AcceptedIdem) -> bool {
        let pending = self.posts.get(&accepted.idem).map(|post| Post::parts_digest(&post.parts));
        let newest = self.issued.filter(|(idem, _)| *idem == accepted.idem).map(|(_, parts)| parts);
        let not_ours = accepted.idem > self.idem || pending.or(newest).is_some_and(|parts| parts != accepted.parts);
        not_ours && suite::same(self.idem_mac(accepted.idem, &accepted.parts).as_bytes(), accepted.mac.as_bytes())
    }

    /// This vault is a copy. It takes a new instance, forgets whatever it was about to send under keys that the other may have used, and
    /// asks to be let back into every matter.
    pub(super) fn become_copy(&mut self, now: Timestamp, accepted: &AcceptedIdem) {
        // Counted on from there, no idem stands for two things.
        self.idem = self.idem.max(accepted.idem);
        // What the other copy has posted is known from here on: it proves nothing further.
        let issued = (accepted.idem, accepted.parts);
        self.batch.put(Table::Counter, None, Counters::ISSUED, &issued);
        self.issued = Some(issued);
        self.batch.put(Table::Counter, None, Counters::IDEM, &self.idem);
        self.instance = Instance::after(Some(self.instance));
        self.batch.put(Table::Counter, None, Counters::INSTANCE, &self.instance);
        self.set_used_welcomes(u64::MAX);
        // The relay drops them with the instance before; what is in flight may still be opened.
        self.set_last_resort(Timestamp(0));
        self.forget_posts_between();
        let matters: Vec<MatterId> = self.rooms.keys().copied().collect();
        for matter in matters {
            let opens = |post: &&PendingPost| post.matter == Some(matter) && post.purpose == Purpose::Open;
            let opening = self.posts.values().find(opens).cloned();
            self.forget_posts(matter);
            // Nothing of it was ever at the relay, as far as this copy knows: it is refused if the other copy has opened it.
            if let Some(post) = opening {
                self.new_post(post);
            }
            self.drop_group(matter);
            let Some(room) = self.rooms.get_mut(&matter) else { continue };
            for digest in std::mem::take(&mut room.commits).into_keys() {
                self.batch.delete(Table::Commit, Some(matter), digest.as_bytes());
            }
            let (position, fence) = (room.row.position, room.row.fence);
            match room.row.stage {
                // Nobody answers in a mailbox that the matter has left; the way into the next one shows that it was used before.
                Stage::Opening | Stage::Removed | Stage::Forked | Stage::Moving => continue,
                Stage::Joining => room.row.lost = Some(Lost::copied(position, now)),
                _ => {
                    room.row.lost = Some(Lost { fence, ..Lost::copied(position, now) });
                    let told = std::mem::replace(&mut room.row.stage, Stage::OutOfStep) == Stage::OutOfStep;
                    if !told {
                        self.record(now, matter, position.seq, None, now, RecordBody::OutOfStep);
                    }
                }
            }
            self.save_room(matter);
        }
        self.deliver(Notice::Copied);
        self.reconnect = true;
    }

    pub(super) fn set_used_welcomes(&mut self, seq: u64) {
        self.used_welcomes = Some(seq);
        self.batch.put(Table::Counter, None, Counters::USED_WELCOMES, &seq);
    }

    /// Texts that were sealed and not read back are sealed again.
    pub(super) fn unseal(&mut self, matter: MatterId) {
        let Some(room) = self.rooms.get_mut(&matter) else { return };
        for (number, item) in room.outbox.iter_mut().filter(|(_, item)| item.digest.is_some()) {
            (item.digest, item.seq) = (None, None);
            self.batch.put(Table::Outbox, Some(matter), &number.to_be_bytes(), &*item);
        }
    }

    pub(super) fn forget_posts(&mut self, matter: MatterId) {
        self.forget_posts_if(matter, |_| true);
    }

    pub(super) fn forget_posts_if(&mut self, matter: MatterId, which: impl Fn(&Purpose) -> bool) {
        let of = self.posts.iter().filter(|(_, post)| post.matter == Some(matter) && which(&post.purpose));
        let idems: Vec<u64> = of.map(|(idem, _)| *idem).collect();
        for idem in idems {
            self.drop_post(idem);
        }
    }

    /// Texts of this device's own that the relay has forgotten are sent again under the same ids.
    pub(super) fn send_again(&mut self, matter: MatterId, content: &Content) {
        let item = OutItem {
            id: content.id,
            content: content.encode(),
            digest: None,
            seq: None,
            failed: None,
            again: true,
            told: true,
        };
        let number = self.next_number();
        self.batch.delete(Table::Sent, Some(matter), content.id.as_bytes());
        self.save_item(matter, number, item);
    }
}

impl Room {
    /// A fence was read by a device that is out of step: its request is void behind it, unless the fence answers it.
    pub(super) fn fence_while_lost(&mut self, now: Timestamp, named: Option<Digest>, epoch: Option<u64>) {
        if self.row.stage != Stage::OutOfStep {
            return;
        }
        let row_epoch = self.row.epoch;
        let Some(lost) = self.row.lost.as_mut() else { return };
        if epoch.is_some_and(|epoch| epoch >= row_epoch) {
            // Somebody commits: somebody is in step.
            lost.others.clear();
        }
        if lost.request.is_some() && named == lost.request {
            // The Welcome comes with it; if it does not, the device asks again.
            lost.ask_at = now.plus_ms(WELCOME_MS);
        } else {
            (lost.request, lost.ask_at) = (None, now.plus_ms(ASK_MS));
        }
    }

    /// Whether this device is to ask to be let back in now.
    pub(super) fn asks_back(&self, now: Timestamp) -> bool {
        let due = |lost: &Lost| lost.ask_at <= now;
        self.row.stage == Stage::OutOfStep && !self.row.forgotten && self.row.lost.as_ref().is_some_and(due)
    }

    /// Whether a Welcome came whose Commit did not: the device asks again.
    pub(super) fn welcome_was_false(&self, now: Timestamp) -> bool {
        self.row.stage == Stage::Open && self.row.lost.as_ref().is_some_and(|lost| lost.ask_at <= now)
    }
}
