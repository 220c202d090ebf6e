//! What the relay answers a Post: accepted, not now, too late, unknown, or refused for good.
//!
//! 1. What is accepted counts once it is read in the mailbox; the reply only settles what was waiting for it.
//! 2. Not now: the same bytes go out again under the same idem. Too late: what the Post was for is posted anew behind the fence.
//! 3. Refused for good is reported, and blocks nothing else.
//!
//! Invariant: whatever the relay claims to have refused is still recognised, should it stand in the mailbox nevertheless.

use crate::device::post::AGAIN_MS;
use crate::device::state::{OutItem, PendingPost, Purpose, RecordBody, Stage, Table};
use crate::device::{Device, Notice};
use crate::error::{Error, Refused};
use crate::frame::{AcceptedIdem, Part, Reply};
use crate::ids::{MatterId, Timestamp};
use crate::limits;
use crate::suite::Digest;

impl Device {
    /// The relay answered a Post.
    pub(super) fn posted(&mut self, now: Timestamp, idem: u64, reply: Reply) {
        let Some(post) = self.posts.get(&idem).cloned() else { return };
        match reply {
            Reply::Posted { seqs } if seqs.len() != post.appends() => {
                // The relay can't tell what it has done: reading does.
                self.refused(now, idem, &post, Refused::Unknown);
            }
            Reply::Posted { seqs } => {
                self.drop_post(idem);
                self.accepted(now, &post, &seqs);
            }
            Reply::Refused(refused) => self.refused(now, idem, &post, refused),
            _ => {}
        }
    }

    fn accepted(&mut self, now: Timestamp, post: &PendingPost, seqs: &[u64]) {
        let Some(matter) = post.matter else { return self.between_accepted(post) };
        match post.purpose {
            Purpose::Open => {
                let Some(room) = self.rooms.get_mut(&matter) else { return };
                room.row.stage = Stage::Open;
                let (mailbox, position) = (room.row.mailbox, room.row.position);
                self.save_room(matter);
                let own = Some((self.profile.person, self.profile.device));
                self.record(now, matter, 0, own, now, RecordBody::Joined);
                self.deliver(Notice::Opened(matter));
                let after = Some(position);
                self.ask(super::Asked::Subscribe(mailbox, after), crate::frame::Request::Subscribe { mailbox, after });
            }
            Purpose::Text(number) => {
                let Some(item) = self.rooms.get(&matter).and_then(|room| room.outbox.get(&number)).cloned() else {
                    return;
                };
                let Some(seq) = seqs.first().copied() else { return };
                let (id, told) = (item.id, item.told);
                self.save_item(matter, number, OutItem { seq: Some(seq), told: true, ..item });
                self.batch.put(Table::Sent, Some(matter), id.as_bytes(), &seq);
                if !told {
                    self.deliver(Notice::Stored { matter, id, seq });
                }
            }
            // It counts once it is read; until then nothing else is sealed.
            Purpose::Commit(_) => {
                let last = seqs.iter().zip(post.parts.iter().filter(|part| matches!(part, Part::Append { .. })));
                let fence =
                    last.filter(|(_, part)| matches!(part, Part::Append { fence: true, .. })).map(|(seq, _)| *seq);
                if let (Some(room), Some(seq)) = (self.rooms.get_mut(&matter), fence.max()) {
                    room.read_first = seq;
                }
            }
            Purpose::Successor => {
                if let (Some(room), Some(seq)) = (self.rooms.get_mut(&matter), seqs.first()) {
                    if post.appends_to(room.row.mailbox) {
                        room.read_first = *seq;
                    } else if let (Some(link), Some(old)) = (self.link.as_mut(), &room.row.old) {
                        link.heads.insert(old.mailbox, *seq);
                    }
                }
                self.successor_posted(now, matter);
            }
            Purpose::Repair(_) | Purpose::Roster | Purpose::Note(_) | Purpose::Piece { .. } => {}
        }
    }

    fn refused(&mut self, now: Timestamp, idem: u64, post: &PendingPost, refused: Refused) {
        // Not now: the same bytes under the same idem go out again, so that whatever the relay did is done once.
        if let Refused::Slow { .. } | Refused::Storage = refused {
            let wait = if let Refused::Slow { after_ms } = refused { after_ms } else { AGAIN_MS };
            match post.matter {
                Some(matter) => {
                    if let Some(room) = self.rooms.get_mut(&matter) {
                        room.not_before = now.plus_ms(wait);
                    }
                }
                None => self.notes.not_before = now.plus_ms(wait),
            }
            if let Some(link) = self.link.as_mut() {
                link.sent.remove(&idem);
            }
            if refused == Refused::Storage {
                self.deliver(Notice::Problem(refused.into()));
            }
            return;
        }
        match refused {
            Refused::Reused { idem: reused, parts, mac } => {
                let accepted = AcceptedIdem { idem: reused, parts, mac };
                if reused == idem && self.is_copy(&accepted) {
                    self.become_copy(now, &accepted);
                }
            }
            Refused::Unknown => {
                if let Some(post) = self.posts.get_mut(&idem) {
                    post.unknown = true;
                    self.batch.put(Table::Post, None, &idem.to_be_bytes(), &*post);
                }
                self.reconnect = true;
            }
            Refused::Stale { latest } => {
                self.drop_post(idem);
                self.stale(now, post, latest);
            }
            refused => {
                self.drop_post(idem);
                self.refused_for_good(now, post, refused);
            }
        }
    }

    /// What it was for is reported, and blocks nothing.
    fn refused_for_good(&mut self, now: Timestamp, post: &PendingPost, refused: Refused) {
        let Some(matter) = post.matter else { return self.between_refused(now, post, refused) };
        match post.purpose {
            Purpose::Open => {
                self.deliver(Notice::NotOpened(matter, refused));
                // What was to be said and done there is reported, too.
                self.close(matter, Stage::Removed);
                let room = self.rooms.remove(&matter);
                for number in room.into_iter().flat_map(|room| room.outbox.into_keys()) {
                    self.batch.delete(Table::Outbox, Some(matter), &number.to_be_bytes());
                }
                self.batch.delete(Table::Matter, None, matter.as_bytes());
                self.batch.delete(Table::Group, Some(matter), &[]);
            }
            Purpose::Text(number) => {
                let Some(item) = self.rooms.get(&matter).and_then(|room| room.outbox.get(&number)).cloned() else {
                    return;
                };
                let failed = Some(refused.to_string());
                if item.is_text() {
                    self.deliver(Notice::Unsendable { matter, id: item.id, why: refused });
                }
                // Should the relay have taken it nevertheless, it is recognised when it is read.
                self.save_item(matter, number, OutItem { failed, ..item });
            }
            Purpose::Commit(digest) => {
                // Key packages are used once, even by a Commit that was refused.
                self.materials.clear();
                self.put_off_healing(matter);
                let intents = self.keep_commit(matter, &digest);
                if let Some(room) = self.rooms.get_mut(&matter).filter(|_| intents.is_empty()) {
                    // It was for fresh keys, or for somebody else: nothing was wanted that could be reported and be done with.
                    room.not_before = now.plus_ms(AGAIN_MS);
                }
                for number in intents {
                    self.not_done(matter, number, refused.clone().into());
                }
            }
            Purpose::Repair(digest) => {
                self.request_refused(now, matter, digest, false);
                self.deliver(Notice::Problem(refused.into()));
            }
            Purpose::Successor => {
                if let Some(room) = self.rooms.get_mut(&matter) {
                    room.row.continue_at = Some(now.plus_ms(limits::MOVING_MS));
                }
                self.save_room(matter);
                self.deliver(Notice::Problem(refused.into()));
            }
            Purpose::Roster | Purpose::Note(_) | Purpose::Piece { .. } => self.deliver(Notice::Problem(refused.into())),
        }
    }

    /// A fence stands behind the one that was read: once it is read, what the Post was for is posted anew, a Commit with the same bytes if
    /// that fence turns out void.
    fn stale(&mut self, now: Timestamp, post: &PendingPost, latest: u64) {
        let Some(matter) = post.matter else { return self.between_again(post) };
        if let Some(room) = self.rooms.get_mut(&matter)
            && post.appends_to(room.row.mailbox)
        {
            room.read_first = latest;
        }
        match post.purpose {
            Purpose::Commit(digest) => {
                let Some(own) = self.rooms.get_mut(&matter).and_then(|room| room.commits.get_mut(&digest)) else {
                    return;
                };
                if own.repair.is_some() {
                    // Behind any fence the request that it answers is void.
                    self.drop_commit(matter, &digest);
                    return;
                }
                own.stale.clone_from(&post.parts);
                self.batch.put(Table::Commit, Some(matter), digest.as_bytes(), &*own);
            }
            Purpose::Repair(digest) => self.request_refused(now, matter, digest, true),
            _ => self.put_back(post),
        }
    }

    /// An intent that will never be carried out.
    pub(super) fn not_done(&mut self, matter: MatterId, number: u64, why: Error) {
        let intent = self.rooms.get_mut(&matter).and_then(|room| room.intents.remove(&number));
        self.batch.delete(Table::Intent, Some(matter), &number.to_be_bytes());
        if let Some(intent) = intent {
            self.deliver(Notice::NotDone { matter, person: intent.person, why });
        }
    }

    /// Posts of which the relay could not tell whether they were accepted: everything is read now, so they were not, or they are settled.
    pub(super) fn settle_unknown(&mut self) {
        let unknown: Vec<(u64, PendingPost)> =
            self.posts.iter().filter(|(_, post)| post.unknown).map(|(idem, post)| (*idem, post.clone())).collect();
        for (idem, post) in unknown {
            self.drop_post(idem);
            self.put_back(&post);
        }
    }

    /// What a Post was for is to be posted anew.
    fn put_back(&mut self, post: &PendingPost) {
        let Some(matter) = post.matter else { return self.between_again(post) };
        match post.purpose {
            Purpose::Open => self.new_post(PendingPost { unknown: false, ..post.clone() }),
            Purpose::Text(number) => {
                if let Some(item) = self.rooms.get(&matter).and_then(|room| room.outbox.get(&number)).cloned() {
                    self.save_item(matter, number, OutItem { digest: None, ..item });
                }
            }
            Purpose::Commit(digest) => {
                self.materials.clear();
                self.keep_commit(matter, &digest);
            }
            Purpose::Repair(digest) => self.request_refused(self.now, matter, digest, true),
            Purpose::Successor => {
                if let Some(room) = self.rooms.get_mut(&matter) {
                    room.row.continue_at = Some(self.now);
                }
                self.save_room(matter);
            }
            Purpose::Roster | Purpose::Note(_) | Purpose::Piece { .. } => {}
        }
    }

    /// A refused Commit is kept by its hash until one of its epoch is applied, should the relay have taken it nevertheless: the newest
    /// few. Returns what it was to do.
    fn keep_commit(&mut self, matter: MatterId, digest: &Digest) -> Vec<u64> {
        let Some(room) = self.rooms.get_mut(&matter) else { return Vec::new() };
        let Some(own) = room.commits.get_mut(digest) else { return Vec::new() };
        own.stale.clear();
        let intents = std::mem::take(&mut own.intents);
        self.batch.put(Table::Commit, Some(matter), digest.as_bytes(), &*own);
        let refused: Vec<Digest> = room
            .commits
            .iter()
            .filter(|(other, own)| *other != digest && own.refused)
            .map(|(other, _)| *other)
            .collect();
        if let Some(own) = room.commits.get_mut(digest) {
            own.refused = true;
            self.batch.put(Table::Commit, Some(matter), digest.as_bytes(), &*own);
        }
        if refused.len() >= limits::REFUSED_COMMITS
            && let Some(oldest) = refused.first()
        {
            room.commits.remove(oldest);
            self.batch.delete(Table::Commit, Some(matter), oldest.as_bytes());
        }
        intents
    }

    fn drop_commit(&mut self, matter: MatterId, digest: &Digest) -> Vec<u64> {
        self.batch.delete(Table::Commit, Some(matter), digest.as_bytes());
        let commit = self.rooms.get_mut(&matter).and_then(|room| room.commits.remove(digest));
        commit.map(|commit| commit.intents).unwrap_or_default()
    }
}
