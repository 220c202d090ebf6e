//! The one write to mailboxes: a Post is decided part by part on a plan, and becomes writes as a whole or not at all.
//!
//! 1. A Post that was accepted before gets the answer it got then.
//! 2. Each part is decided on what the parts before it would change.
//! 3. Rosters and fence rates are judged at the end, over the whole Post.
//! 4. Of a refused one it is noted that it came, if its idem is the highest so far: a copy of the device must learn of it.
//!
//! Invariant: a refused Post has written nothing but that note, and is judged anew when it comes again; an accepted one leaves each mailbox with a contiguous seq, a true running hash, and,
//! where anyone is left in a matter, somebody who manages it.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use privity_protocol::error::Refused;
use privity_protocol::frame::{Part, Post, Reply, Rights};
use privity_protocol::ids::{DeviceId, MailboxId, PersonId, Position, Timestamp};
use privity_protocol::limits;
use privity_protocol::log::{Act, RosterChange};
use privity_protocol::suite::Digest;

use super::rates::Rates;
use super::{Outcome, Wake, logged};
use crate::policy::{self, Caller, No};
use crate::store::{
    DeviceRow, GrantRow, IdemRow, MailboxRow, PersonRow, Read, ReceivedRow, StoreError, Waiting, Write,
};

/// The largest idem: what the store can keep.
const IDEM_LAST: u64 = i64::MAX as u64;
/// Envelopes that may wait in one inbox, those of attorneys and staff included: a quarter is their reserve.
const INBOX_TOTAL: u64 = limits::INBOX_CLIENTS_TOTAL / 3 * 4;

pub(super) fn post(
    rates: &mut Rates,
    store: &dyn Read,
    caller: Caller,
    post: &Post,
    now: Timestamp,
) -> Result<Outcome, No> {
    if post.idem > IDEM_LAST {
        // Neither can it be noted; no device counts that far.
        return Err(Refused::malformed("that idem is too large").into());
    }
    let parts = Post::parts_digest(&post.parts);
    match accept(rates, store, caller, post, parts, now) {
        Err(No::Refused(refused)) => {
            let mut outcome = Outcome::reply(Reply::Refused(refused));
            let device = caller.device;
            // Only a rising idem writes: who posts the same again costs nothing more.
            if newest_received(store, device)?.is_none_or(|newest| newest.idem < post.idem) {
                let row = ReceivedRow { idem: post.idem, parts, mac: post.mac };
                outcome.writes.push(Write::Received { device, row });
            }
            Ok(outcome)
        }
        decided => decided,
    }
}

/// The Post with the highest idem that came from a device, accepted or refused.
pub(super) fn newest_received(store: &dyn Read, device: DeviceId) -> Result<Option<ReceivedRow>, StoreError> {
    let accepted = store.newest_idem(device)?;
    let accepted = accepted.map(|IdemRow { idem, parts, mac, .. }| ReceivedRow { idem, parts, mac });
    Ok(match (accepted, store.received(device)?) {
        // Of two with one idem it is the accepted one: that stands in the mailboxes.
        (Some(accepted), Some(refused)) if refused.idem > accepted.idem => Some(refused),
        (accepted, refused) => accepted.or(refused),
    })
}

fn accept(
    rates: &mut Rates,
    store: &dyn Read,
    caller: Caller,
    post: &Post,
    parts: Digest,
    now: Timestamp,
) -> Result<Outcome, No> {
    if let Some(known) = store.idem(caller.device, post.idem)? {
        if known.parts != parts || known.mac != post.mac {
            let IdemRow { idem, parts, mac, .. } = known;
            return Err(Refused::Reused { idem, parts, mac }.into());
        }
        return Ok(Outcome::reply(Reply::Posted { seqs: known.seqs }));
    }
    let highest = store.newest_idem(caller.device)?.map_or(0, |row| row.idem);
    if post.idem.saturating_add(limits::IDEM_WINDOW) <= highest {
        return Err(Refused::Unknown.into());
    }
    if post.parts.is_empty() || post.parts.len() > limits::POST_PARTS_MAX {
        return Err(Refused::malformed("a post has between 1 and 256 parts").into());
    }
    let mut plan = Plan::new(store, caller, policy::endorsed(store, caller)?, now);
    for part in &post.parts {
        plan.part(part)?;
    }
    plan.somebody_manages()?;
    let Plan { seqs, mut outcome, log, .. } = plan;
    outcome.writes.extend(log.into_iter().map(|act| logged(Some(caller.person), now, act)));
    keep_with_fences(&mut outcome.writes);
    rates.post(caller, &post.parts, now)?;
    let row = IdemRow { idem: post.idem, parts, mac: post.mac, seqs: seqs.clone() };
    let keep_from = (highest.max(post.idem) + 1).saturating_sub(limits::IDEM_WINDOW);
    outcome.writes.push(Write::Idem { device: caller.device, row, keep_from });
    outcome.reply = Some(Reply::Posted { seqs });
    Ok(outcome)
}

/// What is posted with a fence is kept as long as the fence: nobody can apply the one without the other.
fn keep_with_fences(writes: &mut [Write]) {
    if writes.iter().any(|write| matches!(write, Write::Append { fence: true, .. })) {
        for write in writes {
            if let Write::Append { kept, .. } = write {
                *kept = true;
            }
        }
    }
}

/// One Post being decided: what its earlier parts would change is seen by its later ones.
struct Plan<'a> {
    store: &'a dyn Read,
    caller: Caller,
    person: PersonRow,
    now: Timestamp,
    heads: BTreeMap<MailboxId, MailboxRow>,
    grants: BTreeMap<(MailboxId, DeviceId), Vec<GrantRow>>,
    /// Envelopes that this Post adds to inboxes.
    delivered: BTreeMap<MailboxId, u64>,
    /// Mailboxes that somebody leaves.
    left: BTreeSet<MailboxId>,
    /// Mailboxes whose roster this Post changes.
    rosters: BTreeSet<MailboxId>,
    /// The fences that this Post appends.
    commits: BTreeMap<MailboxId, u64>,
    seqs: Vec<u64>,
    outcome: Outcome,
    /// What the log says of it: the mailboxes made, and the changes of each roster.
    log: Vec<Act>,
}

impl<'a> Plan<'a> {
    fn new(store: &'a dyn Read, caller: Caller, person: PersonRow, now: Timestamp) -> Self {
        Self {
            store,
            caller,
            person,
            now,
            heads: BTreeMap::new(),
            grants: BTreeMap::new(),
            delivered: BTreeMap::new(),
            left: BTreeSet::new(),
            rosters: BTreeSet::new(),
            commits: BTreeMap::new(),
            seqs: Vec::new(),
            outcome: Outcome::default(),
            log: Vec::new(),
        }
    }

    fn part(&mut self, part: &Part) -> Result<(), No> {
        match part {
            Part::Create { mailbox } => self.create(*mailbox),
            Part::Append { mailbox, base, fence, envelope, keep_ms } => {
                self.append(*mailbox, *base, *fence, &envelope.0, *keep_ms)
            }
            Part::Grant { mailbox, device, rights, resume } => self.grant(*mailbox, *device, *rights, *resume),
            Part::Revoke { mailbox, device } => self.revoke(*mailbox, *device),
            _ => Err(Refused::malformed("this relay does not know that part").into()),
        }
    }

    fn create(&mut self, mailbox: MailboxId) -> Result<(), No> {
        policy::may_open_matters(&self.person)?;
        if self.heads.contains_key(&mailbox) || self.store.mailbox(mailbox)?.is_some() {
            return Err(Refused::malformed("that mailbox exists").into());
        }
        let start = Position::start(mailbox);
        self.heads.insert(mailbox, MailboxRow { mailbox, inbox_of: None, head: start, fence: start });
        self.outcome.writes.push(Write::Mailbox { mailbox, inbox_of: None });
        self.log.push(Act::MailboxCreated { mailbox, device: self.caller.device });
        let grant = GrantRow { device: self.caller.device, rights: Rights::MANAGER, from: 0, until: None };
        self.put_grant(mailbox, grant);
        Ok(())
    }

    fn append(
        &mut self,
        mailbox: MailboxId,
        base: Position,
        fence: bool,
        envelope: &[u8],
        keep_ms: u64,
    ) -> Result<(), No> {
        if envelope.is_empty() || envelope.len() > limits::ENVELOPE_MAX {
            return Err(Refused::malformed("an envelope has between 1 and 1,048,576 bytes").into());
        }
        let mut row = self.mailbox(mailbox)?;
        match row.inbox_of {
            Some(owner) => {
                if base != row.fence {
                    return Err(Refused::malformed("base is not a fence").into());
                }
                self.may_deliver(mailbox, owner, fence)?;
            }
            None => {
                let grants = self.device_grants(mailbox, self.caller.device)?;
                policy::open_grant(&grants, Rights::MEMBER)?;
                if base != row.fence {
                    return Err(self.not_the_fence(mailbox, base, &row)?.into());
                }
                if fence && self.rosters.contains(&mailbox) {
                    return Err(Refused::malformed("a roster changes after the fence, not before").into());
                }
            }
        }
        let digest = Digest::of(&[envelope]);
        row.head = row.head.next(fence, &digest);
        if row.head.seq >= u64::from(u32::MAX) {
            return Err(Refused::Full { what: "this mailbox".to_owned() }.into());
        }
        if fence {
            row.fence = row.head;
            self.commits.insert(mailbox, row.head.seq);
        }
        self.heads.insert(mailbox, row);
        let seq = row.head.seq;
        self.seqs.push(seq);
        let envelope = Bytes::copy_from_slice(envelope);
        let by = self.caller.device;
        self.outcome.wakes.push(Wake::Entry { mailbox, seq, fence, by, envelope: envelope.clone() });
        let expires = self.now.plus_ms(keep_ms.min(limits::ENVELOPE_LIFETIME_MS));
        let (position, kept) = (row.head, fence);
        self.outcome.writes.push(Write::Append { mailbox, position, fence, kept, digest, envelope, expires, by });
        if row.inbox_of.is_some() {
            let (sender, reserved) = (self.caller.person, self.person.role.manages());
            self.outcome.writes.push(Write::Waiting { inbox: mailbox, seq, sender, reserved });
        }
        Ok(())
    }

    /// Why `base` is not the newest fence: an older one is stale, anything else is no fence at all.
    fn not_the_fence(&self, mailbox: MailboxId, base: Position, row: &MailboxRow) -> Result<Refused, No> {
        let older = base.seq < row.fence.seq && self.store.fence(mailbox, base.seq)? == Some(base);
        Ok(if older { Refused::Stale { latest: row.fence.seq } } else { Refused::malformed("base is not a fence") })
    }

    /// Into an inbox goes no fence, nothing from strangers, and of each person, and of all clients together, so much unread and no
    /// more.
    fn may_deliver(&mut self, inbox: MailboxId, owner: DeviceId, fence: bool) -> Result<(), No> {
        if fence {
            return Err(Refused::malformed("there are no fences in an inbox").into());
        }
        let person = policy::inbox_owner(self.store, owner, inbox)?;
        policy::may_reach(self.store, &self.person, person)?;
        let Waiting { of_sender, unreserved, total } = self.store.waiting(inbox, self.caller.person)?;
        let new = self.delivered.entry(inbox).or_default();
        let room = of_sender + *new < limits::INBOX_PER_SENDER
            && total + *new < INBOX_TOTAL
            && (self.person.role.manages() || unreserved + *new < limits::INBOX_CLIENTS_TOTAL);
        if !room {
            return Err(Refused::Full { what: "that inbox".to_owned() }.into());
        }
        *new += 1;
        Ok(())
    }

    fn grant(&mut self, mailbox: MailboxId, device: DeviceId, rights: Rights, resume: bool) -> Result<(), No> {
        let row = self.matter_mailbox(mailbox)?;
        if ![Rights::READ, Rights::MEMBER, Rights::MANAGER].contains(&rights) {
            return Err(Refused::malformed("rights").into());
        }
        // One that waits to be linked is nobody's yet.
        let target = self.store.device(device)?.filter(|row| row.waiting.is_none());
        let target = target.ok_or_else(|| Refused::not_found("that device"))?;
        // Nobody gives themselves more than they have.
        if !self.has_one_like(mailbox, &target, rights)? {
            self.may_change_roster(mailbox, target.person, rights)?;
        }
        if rights.include(Rights::MANAGER) && !self.store.person(target.person)?.is_some_and(|p| p.role.manages()) {
            return Err(Refused::not_allowed("only attorneys and staff manage a matter").into());
        }
        let known = self.device_grants(mailbox, device)?;
        let from = match known.last() {
            // Left over from a Commit that the members did not follow, it would be in the way of the next.
            Some(GrantRow { until: None, rights: has, .. }) if has.include(rights) => return Ok(()),
            // The same interval with more rights: what it has still to read is kept for it.
            Some(GrantRow { until: None, from, .. }) => *from,
            last => {
                if self.open_grants(mailbox)?.len() >= limits::DEVICES_MAX {
                    return Err(Refused::Full { what: "this matter".to_owned() }.into());
                }
                match last {
                    Some(GrantRow { until: Some(until), from, .. }) if resume => {
                        self.may_resume(mailbox, *until)?;
                        *from
                    }
                    _ => self.border(&row),
                }
            }
        };
        self.rosters.insert(mailbox);
        self.grants.insert((mailbox, device), known);
        self.put_grant(mailbox, GrantRow { device, rights, from, until: None });
        self.changed(mailbox, RosterChange { device, rights: Some(rights) });
        Ok(())
    }

    /// One leaf tells all that a Post changes in one roster.
    fn changed(&mut self, mailbox: MailboxId, change: RosterChange) {
        for act in &mut self.log {
            if let Act::RosterChanged { mailbox: known, changes, .. } = act
                && *known == mailbox
            {
                changes.push(change);
                return;
            }
        }
        self.log.push(Act::RosterChanged { mailbox, device: self.caller.device, changes: vec![change] });
    }

    /// Reading on where it ended gives a device what lies between: whoever does not manage gives only what they may read themselves.
    fn may_resume(&self, mailbox: MailboxId, ended: u64) -> Result<(), No> {
        let own = self.device_grants(mailbox, self.caller.device)?;
        let reads_it = matches!(policy::reading(&own, Some(ended)), Some((_, None)));
        if reads_it || policy::open_grant(&own, Rights::MANAGER).is_ok() {
            return Ok(());
        }
        Err(Refused::not_allowed("you may not read what lies between").into())
    }

    fn revoke(&mut self, mailbox: MailboxId, device: DeviceId) -> Result<(), No> {
        let row = self.matter_mailbox(mailbox)?;
        let target = self.store.device(device)?.ok_or_else(|| Refused::not_found("that device"))?;
        // A revoked device reads nothing any more: whoever posts the Commit that puts it out may say so.
        let own = self.device_grants(mailbox, self.caller.device)?;
        if target.revoked.is_none() || policy::open_grant(&own, Rights::MEMBER).is_err() {
            self.may_change_roster(mailbox, target.person, Rights::READ)?;
        }
        self.rosters.insert(mailbox);
        // Who has left by themselves is removed from the group by a Commit that comes later, with its own Revoke.
        if self.end_grant(mailbox, device, self.border(&row))? {
            self.changed(mailbox, RosterChange { device, rights: None });
            self.outcome.wakes.push(Wake::Ended { mailbox, device });
        }
        Ok(())
    }

    /// Where intervals begin and end: at the Commit that this Post brings, else at the head.
    fn border(&self, row: &MailboxRow) -> u64 {
        self.commits.get(&row.mailbox).copied().unwrap_or(row.head.seq)
    }

    /// Ends the open interval of a device; whether there was one.
    fn end_grant(&mut self, mailbox: MailboxId, device: DeviceId, until: u64) -> Result<bool, StoreError> {
        let mut grants = self.device_grants(mailbox, device)?;
        let Some(open) = grants.iter_mut().find(|grant| grant.until.is_none()) else { return Ok(false) };
        open.until = Some(until);
        self.grants.insert((mailbox, device), grants);
        self.left.insert(mailbox);
        self.outcome.writes.push(Write::EndGrant { mailbox, device, until });
        Ok(true)
    }

    /// Whether whoever may post here lets in a device of somebody who is in with another one, and gives it no more than that one has: their
    /// key was replaced, and any member may make the Commit.
    fn has_one_like(&self, mailbox: MailboxId, target: &DeviceRow, rights: Rights) -> Result<bool, No> {
        let own = self.device_grants(mailbox, self.caller.device)?;
        if !target.is_in_use() || policy::open_grant(&own, Rights::MEMBER).is_err() {
            return Ok(false);
        }
        for grant in self.open_grants(mailbox)?.into_iter().filter(|grant| grant.rights.include(rights)) {
            if self.store.device(grant.device)?.is_some_and(|row| row.person == target.person) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Anyone may change the devices of their own person; beyond that it needs `manage`.
    fn may_change_roster(&self, mailbox: MailboxId, target: PersonId, own: Rights) -> Result<(), No> {
        let needed = if target == self.caller.person { own } else { Rights::MANAGER };
        let grants = self.device_grants(mailbox, self.caller.device)?;
        policy::open_grant(&grants, needed)?;
        Ok(())
    }

    /// The last who manages a matter can't leave the others behind.
    fn somebody_manages(&self) -> Result<(), No> {
        for mailbox in &self.left {
            let open = self.open_grants(*mailbox)?;
            if !open.is_empty() && !open.iter().any(|grant| grant.rights.include(Rights::MANAGER)) {
                return Err(Refused::not_allowed("nobody would be left who manages this matter").into());
            }
        }
        Ok(())
    }

    fn put_grant(&mut self, mailbox: MailboxId, grant: GrantRow) {
        let grants = self.grants.entry((mailbox, grant.device)).or_default();
        grants.retain(|known| known.from != grant.from);
        grants.push(grant);
        self.outcome.writes.push(Write::Grant { mailbox, grant });
    }

    fn mailbox(&self, mailbox: MailboxId) -> Result<MailboxRow, No> {
        if let Some(row) = self.heads.get(&mailbox) {
            return Ok(*row);
        }
        Ok(self.store.mailbox(mailbox)?.ok_or_else(|| Refused::not_found("that mailbox"))?)
    }

    /// A mailbox with a roster; an inbox has none, it is its device's.
    fn matter_mailbox(&self, mailbox: MailboxId) -> Result<MailboxRow, No> {
        let row = self.mailbox(mailbox)?;
        if row.inbox_of.is_some() { Err(Refused::not_found("that mailbox").into()) } else { Ok(row) }
    }

    fn device_grants(&self, mailbox: MailboxId, device: DeviceId) -> Result<Vec<GrantRow>, StoreError> {
        match self.grants.get(&(mailbox, device)) {
            Some(grants) => Ok(grants.clone()),
            None => self.store.grants(mailbox, device),
        }
    }

    /// Who is in a matter, with what this Post has changed so far.
    fn open_grants(&self, mailbox: MailboxId) -> Result<Vec<GrantRow>, StoreError> {
        let mut open = self.store.open_grants(mailbox)?;
        open.retain(|grant| !self.grants.contains_key(&(mailbox, grant.device)));
        let changed = self.grants.iter().filter(|((of, _), _)| *of == mailbox).flat_map(|(_, grants)| grants);
        open.extend(changed.filter(|grant| grant.until.is_none()).copied());
        Ok(open)
    }
}

#[cfg(test)]
mod tests;
