//! Healing: fresh keys in time, and members of whom nothing was heard for long.
//!
//! - A device owes a matter a Commit of its own after 100 messages or a day in which it spoke, a week in which it did not, and at once
//!   where others may have used the key package by which it joined.
//! - It is made after what is to be said, by the lowest leaf first, and never close behind another fence: no storm.
//! - One epoch seals at most 900 messages of a device; further ones wait for a Commit.
//!
//! Invariant: an update never delays a text by more than its own Post, and two devices that owe one at once do not race.

use crate::device::state::{Heard, RecordBody, Stage};
use crate::device::{Device, Room};
use crate::error::Error;
use crate::ids::{MatterId, PersonId, Timestamp};
use crate::limits;
use crate::matter::{Certificates, Change, Seen};

use super::post::Wanted;

/// How far behind a fence an update is made at the earliest.
pub(super) const FENCE_GAP_MS: u64 = 2_000;
/// How much later each further leaf makes its own: more than a fence takes to reach everybody.
const LEAF_MS: u64 = 500;
const DAY_MS: u64 = 24 * 3600 * 1000;

impl Device {
    /// Whether a matter is owed fresh keys by now. A program that runs for one command alone asks this when it starts, and calls
    /// [`Self::heal`] once it has done its own work.
    pub fn owes_keys(&self, now: Timestamp) -> bool {
        self.rooms.values().any(|room| room.owes_keys(now))
    }

    /// Gives every matter that is owed fresh keys its Commit now, rather than when it is this device's turn.
    pub fn heal(&mut self, now: Timestamp) {
        for room in self.rooms.values_mut() {
            room.heal_now = room.owes_keys(now);
        }
        self.settle(now);
    }

    /// A Commit that changes nothing but this device's keys, if one is due and nothing is to be said.
    pub(super) fn post_update(&mut self, now: Timestamp, matter: MatterId, must: bool) -> Result<bool, Error> {
        let due = must || self.heal_at(matter, now).is_some_and(|at| at <= now);
        let Some(room) = self.rooms.get_mut(&matter).filter(|_| due) else { return Ok(false) };
        room.heal_now = false;
        let seen = Seen::at(room.row.position);
        self.post_change(matter, Wanted::default(), Change::default(), &seen, Certificates::default())?;
        Ok(true)
    }

    /// When an update is to be made, if one is owed: after the last fence, in the order of leaves.
    pub(super) fn heal_at(&mut self, matter: MatterId, now: Timestamp) -> Option<Timestamp> {
        let room = self.rooms.get(&matter).filter(|room| room.owes_keys(now))?;
        if room.heal_now {
            // Whoever runs for one command alone waits for that much, and no longer.
            return Some(now.max(room.fence_read.plus_ms(FENCE_GAP_MS)));
        }
        if let Some(at) = room.heal_from {
            return Some(at);
        }
        let fence_at = room.fence_at;
        let leaf = u64::from(self.group(matter).ok()?.own_leaf());
        // Where the last fence is long past, members whose week ends at the same moment still take turns.
        let at = fence_at.plus_ms(FENCE_GAP_MS).max(now).plus_ms(leaf.saturating_mul(LEAF_MS));
        if let Some(room) = self.rooms.get_mut(&matter) {
            room.heal_from = Some(at);
        }
        Some(at)
    }

    /// An update that the relay or the members did not take is not tried again at once.
    pub(super) fn put_off_healing(&mut self, matter: MatterId) {
        self.put_off_tidying(matter);
        if let Some(room) = self.rooms.get_mut(&matter) {
            (room.row.healing.at, room.row.healing.due, room.row.healing.sent) = (self.now, false, 0);
        }
    }

    /// A message was sealed.
    pub(super) fn count_sealed(&mut self, matter: MatterId) {
        if let Some(room) = self.rooms.get_mut(&matter) {
            let healing = &mut room.row.healing;
            healing.sent = healing.sent.saturating_add(1);
            healing.generations = healing.generations.saturating_add(1);
        }
    }

    /// Tells whoever manages a matter of members of whom nothing was heard for long: their keys grow old, and whether they should
    /// stay is for people to decide.
    pub(super) fn notice_silence(&mut self, now: Timestamp) {
        if !self.profile.role.manages() || !self.is_caught_up() {
            return;
        }
        let own = self.profile.device;
        let due = |heard: &Heard| heard.device != own && heard.is_silent(now);
        let waits = |room: &Room| room.row.stage == Stage::Open && room.row.heard.iter().any(due);
        let matters: Vec<MatterId> = self.rooms.iter().filter(|(_, room)| waits(room)).map(|(id, _)| *id).collect();
        for matter in matters {
            let Ok(members) = self.group(matter).map(|group| group.members()) else { continue };
            let Some(room) = self.rooms.get_mut(&matter) else { continue };
            let mut silent: Vec<PersonId> = Vec::new();
            for heard in room.row.heard.iter_mut().filter(|heard| due(heard)) {
                heard.told = true;
                let person = members.iter().find(|member| member.credential.device == heard.device);
                silent.extend(person.map(|member| member.credential.person));
            }
            let seq = room.row.position.seq;
            self.save_room(matter);
            for person in silent {
                self.record(now, matter, seq, None, now, RecordBody::Silent { person });
            }
        }
    }
}

impl Heard {
    fn is_silent(&self, now: Timestamp) -> bool {
        !self.told && self.at.plus_ms(limits::SILENT_MS) <= now
    }
}

impl Room {
    /// Whether this device owes the matter fresh keys.
    pub(super) fn owes_keys(&self, now: Timestamp) -> bool {
        // The time may have been set back.
        let healing = self.row.healing;
        let spoke = healing.sent > 0 && healing.at.plus_ms(DAY_MS) <= now;
        let old = healing.at.plus_ms(7 * DAY_MS) <= now;
        let due = healing.due || healing.sent >= limits::HEAL_MESSAGES || spoke || old;
        due && self.row.stage == Stage::Open && self.row.lost.is_none() && self.row.people.len() > 1
    }

    /// Whether the ratchet of this epoch has advanced so far that the next text waits for a Commit.
    pub(super) fn is_worn(&self) -> bool {
        self.row.healing.generations >= limits::GENERATIONS_MAX
    }

    /// When keys will be owed that are not owed now.
    pub(super) fn keys_due(&self) -> Option<Timestamp> {
        let healing = self.row.healing;
        let days = if healing.sent > 0 { DAY_MS } else { 7 * DAY_MS };
        (self.row.stage == Stage::Open && self.row.people.len() > 1).then(|| healing.at.plus_ms(days))
    }
}
