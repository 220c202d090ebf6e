//! People in a matter for whom nobody at the firm vouches any more, their endorsement withdrawn or ended, or of whom the relay keeps
//! something back.
//!
//! 1. Whenever something was learnt, or time has passed, the people of every matter are looked at.
//! 2. What is new of somebody is recorded in that matter once; whoever manages it is to remove them, or to have them endorsed again.
//! 3. Until then, or until the user has said to go on, texts wait. What the user has gone on with does not ask again.
//!
//! Invariant: this blocks what is sent here, and nothing else: no Commit is judged by it, and nobody falls out of a matter.

use crate::cbor;
use crate::device::state::{Cause, Lapse, RecordBody, Stage};
use crate::device::{Device, Notice};
use crate::ids::{MatterId, PersonId, Timestamp};
use crate::suite::Digest;

impl Device {
    /// Who in a matter makes texts wait for the user's word, and why.
    pub fn lapses_in(&self, matter: MatterId) -> Vec<Lapse> {
        let row = self.rooms.get(&matter).map(|room| &room.row);
        let waiting = row.map(|row| row.lapses.iter().filter(|lapse| !lapse.accepted).copied().collect());
        waiting.unwrap_or_default()
    }

    /// Something was learnt of people, or somebody came: everybody is looked at before long.
    pub(super) fn look_for_lapses(&mut self) {
        self.lapses_at = Timestamp(0);
    }

    pub(super) fn find_lapses(&mut self, now: Timestamp) {
        if self.lapses_at > now {
            return;
        }
        let own = self.profile.person;
        let in_use = |stage| !matches!(stage, Stage::Removed | Stage::Forked);
        let matters: Vec<MatterId> =
            self.rooms.iter().filter(|(_, room)| in_use(room.row.stage)).map(|(matter, _)| *matter).collect();
        let mut next = Timestamp(u64::MAX);
        for matter in matters {
            let Some(row) = self.rooms.get(&matter).map(|room| &room.row) else { continue };
            let (before, seq) = (row.lapses.clone(), row.position.seq);
            let mut found: Vec<Lapse> = Vec::new();
            for person in row.people.iter().copied().filter(|person| *person != own) {
                for cause in self.causes(person, now, &mut next) {
                    let known = before.iter().find(|lapse| (lapse.person, lapse.cause) == (person, cause)).copied();
                    found.push(known.unwrap_or(Lapse { person, cause, accepted: false }));
                }
            }
            if found == before {
                continue;
            }
            let news: Vec<Lapse> = found.iter().filter(|lapse| !before.contains(lapse)).copied().collect();
            if let Some(room) = self.rooms.get_mut(&matter) {
                room.row.lapses = found;
            }
            self.save_room(matter);
            for Lapse { person, cause, .. } in news {
                let what = match cause {
                    Cause::Withdrawn(_) => RecordBody::Withdrawn { person },
                    Cause::Expired(_) => RecordBody::Expired { person },
                    Cause::KeptBack(_) => RecordBody::KeptBack { person },
                };
                self.record(now, matter, seq, None, now, what);
                let label = self.label_of(person);
                self.deliver(Notice::Lapsed { matter, person, cause, label });
            }
        }
        self.lapses_at = next;
    }

    /// Why nobody vouches for somebody; `next` becomes the time at which that may be so, where it is earlier.
    fn causes(&self, person: PersonId, now: Timestamp, next: &mut Timestamp) -> Vec<Cause> {
        let mut causes = Vec::new();
        let first = self.people.get(&person).and_then(|known| known.chain.first());
        if let Some(row) = self.withdrawn_row(person) {
            causes.push(Cause::Withdrawn(row.statement.digest()));
        } else if let (Some(first), Some(said)) = (first, self.said_of(person)) {
            if said.until <= now {
                causes.push(Cause::Expired(first.endorsement.digest()));
            } else {
                *next = said.until.min(*next);
            }
        }
        causes.extend(self.unexplained(person).first().map(|act| Cause::KeptBack(Digest::of(&[&cbor::encode(*act)]))));
        causes
    }
}
