//! The relay's rules, pure: a request and the time go in, writes and a reply come out. No sockets, disk or clock.
//!
//! 1. [`Rules::handle`] reads what it needs and decides; a refusal has written nothing.
//! 2. The shell applies the writes of many requests in one transaction, makes them durable, and only then sends the replies.
//! 3. [`Wake`]s tell the shell whom to tell what.
//!
//! Invariant: whatever the order and content of requests, a mailbox's seq is contiguous from 1, its running hash is that of its entries,
//! and no envelope stands after a fence that its author had not read.

use std::collections::{BTreeMap, HashMap};

use privity_protocol::error::Refused;
use privity_protocol::frame::{
    Event, InviteView, NewInvite, Part, PersonView, Post, Registration, Reply, Request, Rights, TakenKeyPackage,
};
use privity_protocol::identity::{
    DeviceCertificate, Endorsement, Identity, Role, Signed, check_handle, handle_skeleton,
};
use privity_protocol::ids::{DeviceId, InviteId, MailboxId, PersonId, Position, Timestamp};
use privity_protocol::invite::{InviteStatement, token_hash};
use privity_protocol::limits;
use privity_protocol::suite::{self, Digest, Label, PublicKey};

use crate::policy::{self, Caller, No};
use crate::store::{DeviceRow, GrantRow, IdemRow, InviteRow, MailboxRow, PersonRow, Read, StoreError, Write};

/// Who asks.
#[derive(Debug, Clone, PartialEq)]
pub enum From {
    /// An admitted device.
    Device(Caller),
    /// Somebody with an invite, and the link key they proved.
    Newcomer(PublicKey),
}

/// What a request leads to.
#[derive(Debug, Default)]
pub struct Outcome {
    /// To be made durable before the reply is sent.
    pub writes: Vec<Write>,
    /// The answer.
    pub reply: Option<Reply>,
    /// Whom to tell what.
    pub wakes: Vec<Wake>,
}

impl Outcome {
    fn reply(reply: Reply) -> Self {
        Self { reply: Some(reply), ..Self::default() }
    }
}

/// Somebody to tell something, once the writes are durable.
#[derive(Debug, Clone, PartialEq)]
pub enum Wake {
    /// A mailbox has this entry now.
    Entry {
        /// Which.
        mailbox: MailboxId,
        /// Its seq.
        seq: u64,
        /// Whether it is a fence.
        fence: bool,
        /// The envelope.
        envelope: Vec<u8>,
    },
    /// A device's reading of a mailbox ends.
    Ended {
        /// Which.
        mailbox: MailboxId,
        /// Whose.
        device: DeviceId,
        /// At which seq.
        until: u64,
    },
    /// All devices of a person.
    Person {
        /// Who.
        person: PersonId,
        /// What.
        event: Event,
    },
    /// One device.
    Device {
        /// Which.
        device: DeviceId,
        /// What.
        event: Event,
    },
}

/// The rules, with what they remember in memory alone: how fast devices are.
#[derive(Debug, Default)]
pub struct Rules {
    fences: HashMap<(DeviceId, MailboxId), Allowance>,
    taken: HashMap<DeviceId, (u64, u32)>,
}

/// A token bucket.
#[derive(Debug, Clone, Copy)]
struct Allowance {
    tokens_ms: u64,
    at: Timestamp,
}

/// Milliseconds that one fence costs.
const FENCE_MS: u64 = 60_000 / limits::FENCES_PER_MINUTE as u64;
/// Milliseconds of a day.
const DAY_MS: u64 = 24 * 3600 * 1000;
/// Rates remembered at once; beyond, those that have recovered are forgotten.
const RATES_MAX: usize = 65_536;

impl Rules {
    /// Decides one request.
    ///
    /// # Errors
    /// [`No`]: nothing is to be written.
    pub fn handle(&mut self, store: &dyn Read, from: &From, request: &Request, now: Timestamp) -> Result<Outcome, No> {
        let caller = match (from, request) {
            (_, Request::OpenInvite { invite, token }) => return open_invite(store, *invite, token, now),
            (From::Newcomer(link_key), Request::Register(registration)) => {
                return register(store, link_key, registration, now);
            }
            (From::Newcomer(_), _) => return Err(Refused::not_allowed("register first").into()),
            (From::Device(caller), _) => *caller,
        };
        match request {
            Request::Post(post) => self.post(store, caller, post, now),
            Request::Ack { mailbox, upto } => ack(store, caller, *mailbox, *upto),
            Request::PublishKeyPackages { single_use, last_resort } => {
                let left = store.key_packages_left(caller.device)? as usize;
                publish_key_packages(caller, left, single_use, last_resort.as_ref())
            }
            Request::TakeKeyPackages { person } => self.take_key_packages(store, caller, *person, now),
            Request::People => people(store, caller),
            Request::Chain { person } => chain_for(store, caller, *person),
            Request::Invite(invite) => file_invite(store, caller, invite, now),
            Request::Newcomers => newcomers(store, caller),
            Request::Endorse { person, endorsement } => endorse(store, caller, *person, endorsement),
            _ => Err(Refused::malformed("this relay does not know that request").into()),
        }
    }

    fn post(&mut self, store: &dyn Read, caller: Caller, post: &Post, now: Timestamp) -> Result<Outcome, No> {
        let parts = Post::parts_digest(&post.parts);
        if let Some(known) = store.idem(caller.device, post.idem)? {
            if known.parts != parts || known.mac != post.mac {
                return Err(Refused::malformed("this idem was used for something else").into());
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
        let person = policy::endorsed(store, caller)?;
        let mut plan = Plan {
            store,
            caller,
            person,
            now,
            heads: BTreeMap::new(),
            grants: BTreeMap::new(),
            seqs: Vec::new(),
            outcome: Outcome::default(),
        };
        for part in &post.parts {
            plan.part(part)?;
        }
        let Plan { seqs, mut outcome, .. } = plan;
        self.slow_fences(caller.device, &outcome.writes, now)?;
        let row = IdemRow { idem: post.idem, parts, mac: post.mac, seqs: seqs.clone() };
        let keep_from = highest.max(post.idem).saturating_sub(limits::IDEM_WINDOW);
        outcome.writes.push(Write::Idem { device: caller.device, row, keep_from });
        outcome.reply = Some(Reply::Posted { seqs });
        Ok(outcome)
    }

    /// Counts the fences of a Post that is otherwise good.
    fn slow_fences(&mut self, device: DeviceId, writes: &[Write], now: Timestamp) -> Result<(), Refused> {
        const FULL_MS: u64 = FENCE_MS * limits::FENCE_BURST as u64;
        for write in writes {
            let Write::Append { mailbox, fence: true, .. } = write else { continue };
            if self.fences.len() >= RATES_MAX {
                self.fences.retain(|_, allowance| now.0.saturating_sub(allowance.at.0) < FULL_MS);
            }
            let allowance = self.fences.entry((device, *mailbox)).or_insert(Allowance { tokens_ms: FULL_MS, at: now });
            let gained = now.0.saturating_sub(allowance.at.0);
            allowance.tokens_ms = allowance.tokens_ms.saturating_add(gained).min(FULL_MS);
            allowance.at = now;
            match allowance.tokens_ms.checked_sub(FENCE_MS) {
                Some(left) => allowance.tokens_ms = left,
                None => return Err(Refused::Slow { after_ms: FENCE_MS - allowance.tokens_ms }),
            }
        }
        Ok(())
    }

    fn take_key_packages(
        &mut self,
        store: &dyn Read,
        caller: Caller,
        person: PersonId,
        now: Timestamp,
    ) -> Result<Outcome, No> {
        let taker = policy::endorsed(store, caller)?;
        policy::may_reach(store, &taker, person)?;
        let owner = store.person(person)?.ok_or_else(|| Refused::not_found("that person"))?;
        if owner.endorsement.is_none() {
            return Err(Refused::not_found("key packages: nobody has endorsed that person yet").into());
        }
        let devices = store.devices_of(person)?;
        let day = now.0 / DAY_MS;
        if self.taken.len() >= RATES_MAX {
            self.taken.retain(|_, (counted, _)| *counted == day);
        }
        let (counted, taken) = self.taken.entry(caller.device).or_insert((day, 0));
        if *counted != day {
            (*counted, *taken) = (day, 0);
        }
        let wanted = u32::try_from(devices.len()).unwrap_or(u32::MAX);
        if taken.saturating_add(wanted) > limits::KEY_PACKAGES_TAKEN_PER_DAY {
            return Err(Refused::Slow { after_ms: DAY_MS - now.0 % DAY_MS }.into());
        }
        *taken += wanted;
        let mut outcome = Outcome::default();
        let mut packages = Vec::new();
        for device in devices {
            let Some((number, package)) = store.key_package(device.device)? else { continue };
            if let Some(number) = number {
                outcome.writes.push(Write::DropKeyPackage { device: device.device, number });
            }
            let left = store.key_packages_left(device.device)?.saturating_sub(u32::from(number.is_some()));
            if (left as usize) < limits::KEY_PACKAGES / 2 {
                let event = Event::KeyPackagesLow { left };
                outcome.wakes.push(Wake::Device { device: device.device, event });
            }
            let package = privity_protocol::frame::Blob(package);
            packages.push(TakenKeyPackage { device: device.device, inbox: device.inbox, package });
        }
        outcome.reply = Some(Reply::KeyPackages { packages });
        Ok(outcome)
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
    seqs: Vec<u64>,
    outcome: Outcome,
}

impl Plan<'_> {
    fn part(&mut self, part: &Part) -> Result<(), No> {
        match part {
            Part::Create { mailbox } => self.create(*mailbox),
            Part::Append { mailbox, base, fence, envelope, keep_ms } => {
                self.append(*mailbox, *base, *fence, &envelope.0, *keep_ms)
            }
            Part::Grant { mailbox, device, rights } => self.grant(*mailbox, *device, *rights),
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
        self.heads.insert(mailbox, MailboxRow { mailbox, number: 0, inbox_of: None, head: start, fence: start });
        self.outcome.writes.push(Write::Mailbox { mailbox, inbox_of: None });
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
                if fence {
                    return Err(Refused::malformed("there are no fences in an inbox").into());
                }
                let person = policy::inbox_owner(self.store, owner, mailbox)?;
                policy::may_reach(self.store, &self.person, person)?;
                self.inbox_quota(&row, owner)?;
            }
            None => {
                let grants = self.device_grants(mailbox, self.caller.device)?;
                policy::open_grant(&grants, Rights::MEMBER)?;
                if base != row.fence {
                    return Err(self.stale(mailbox, base, &row)?.into());
                }
            }
        }
        let digest = Digest::of(&[envelope]);
        row.head = row.head.next(fence, &digest);
        if row.head.seq > u64::from(u32::MAX) {
            return Err(Refused::Full { what: "this mailbox".to_owned() }.into());
        }
        if fence {
            row.fence = row.head;
        }
        self.heads.insert(mailbox, row);
        self.seqs.push(row.head.seq);
        let seq = row.head.seq;
        let envelope = envelope.to_vec();
        self.outcome.wakes.push(Wake::Entry { mailbox, seq, fence, envelope: envelope.clone() });
        let expires = self.now.plus_ms(keep_ms.min(limits::ENVELOPE_LIFETIME_MS));
        self.outcome.writes.push(Write::Append { mailbox, position: row.head, fence, digest, envelope, expires });
        Ok(())
    }

    /// Why `base` is not the newest fence: an older one is stale, anything else is not a fence at all.
    fn stale(&self, mailbox: MailboxId, base: Position, row: &MailboxRow) -> Result<Refused, No> {
        let known = base.seq < row.fence.seq && self.store.position(mailbox, base.seq)? == Some(base);
        Ok(if known { Refused::Stale { latest: row.fence.seq } } else { Refused::malformed("base is not a fence") })
    }

    /// What waits unread in an inbox is bounded; the last quarter is for attorneys and staff.
    fn inbox_quota(&self, row: &MailboxRow, owner: DeviceId) -> Result<(), No> {
        let waiting = row.head.seq.saturating_sub(self.store.acked(row.mailbox, owner)?);
        let room =
            if self.person.role.manages() { limits::INBOX_CLIENTS_TOTAL * 4 / 3 } else { limits::INBOX_PER_SENDER };
        if waiting >= room { Err(Refused::Full { what: "that inbox".to_owned() }.into()) } else { Ok(()) }
    }

    fn grant(&mut self, mailbox: MailboxId, device: DeviceId, rights: Rights) -> Result<(), No> {
        let row = self.mailbox(mailbox)?;
        if rights.0 & !Rights::MANAGER.0 != 0 || !rights.include(Rights::READ) {
            return Err(Refused::malformed("rights").into());
        }
        let target = self.store.device(device)?.ok_or_else(|| Refused::not_found("that device"))?;
        self.may_change_roster(mailbox, target.person)?;
        if rights.include(Rights::MANAGER) && !self.store.person(target.person)?.is_some_and(|p| p.role.manages()) {
            return Err(Refused::not_allowed("only attorneys and staff manage a matter").into());
        }
        let open = self.device_grants(mailbox, device)?.into_iter().any(|grant| grant.until.is_none());
        if open {
            return Err(Refused::malformed("that device is in this matter already").into());
        }
        self.put_grant(mailbox, GrantRow { device, rights, from: row.head.seq, until: None });
        Ok(())
    }

    fn revoke(&mut self, mailbox: MailboxId, device: DeviceId) -> Result<(), No> {
        let row = self.mailbox(mailbox)?;
        let target = self.store.device(device)?.ok_or_else(|| Refused::not_found("that device"))?;
        self.may_change_roster(mailbox, target.person)?;
        let mut grants = self.device_grants(mailbox, device)?;
        let until = row.head.seq;
        let Some(open) = grants.iter_mut().find(|grant| grant.until.is_none()) else {
            return Err(Refused::not_found("that device in this matter").into());
        };
        open.until = Some(until);
        self.grants.insert((mailbox, device), grants);
        self.outcome.writes.push(Write::EndGrant { mailbox, device, until });
        self.outcome.wakes.push(Wake::Ended { mailbox, device, until });
        Ok(())
    }

    /// Anyone may grant and revoke devices of their own person; beyond that it needs `manage`.
    fn may_change_roster(&self, mailbox: MailboxId, target: PersonId) -> Result<(), No> {
        let needed = if target == self.caller.person { Rights::MEMBER } else { Rights::MANAGER };
        let grants = self.device_grants(mailbox, self.caller.device)?;
        policy::open_grant(&grants, needed)?;
        Ok(())
    }

    fn put_grant(&mut self, mailbox: MailboxId, grant: GrantRow) {
        self.grants.entry((mailbox, grant.device)).or_default().push(grant);
        self.outcome.writes.push(Write::Grant { mailbox, grant });
    }

    fn mailbox(&self, mailbox: MailboxId) -> Result<MailboxRow, No> {
        if let Some(row) = self.heads.get(&mailbox) {
            return Ok(*row);
        }
        Ok(self.store.mailbox(mailbox)?.ok_or_else(|| Refused::not_found("that mailbox"))?)
    }

    fn device_grants(&self, mailbox: MailboxId, device: DeviceId) -> Result<Vec<GrantRow>, StoreError> {
        match self.grants.get(&(mailbox, device)) {
            Some(grants) => Ok(grants.clone()),
            None => self.store.grants(mailbox, device),
        }
    }
}

fn ack(store: &dyn Read, caller: Caller, mailbox: MailboxId, upto: u64) -> Result<Outcome, No> {
    let row = store.mailbox(mailbox)?.ok_or_else(|| Refused::not_found("that mailbox"))?;
    if row.inbox_of != Some(caller.device) && store.grants(mailbox, caller.device)?.is_empty() {
        return Err(Refused::not_found("that mailbox").into());
    }
    if upto > row.head.seq {
        return Err(Refused::malformed("nothing stands there yet").into());
    }
    let writes = vec![Write::Ack { mailbox, device: caller.device, upto }];
    Ok(Outcome { writes, reply: Some(Reply::Done), wakes: Vec::new() })
}

fn publish_key_packages(
    caller: Caller,
    left: usize,
    single_use: &[privity_protocol::frame::Blob],
    last_resort: Option<&privity_protocol::frame::Blob>,
) -> Result<Outcome, No> {
    if left.saturating_add(single_use.len()) > limits::KEY_PACKAGES {
        return Err(Refused::Full { what: "your key packages".to_owned() }.into());
    }
    if single_use.iter().chain(last_resort).any(|package| package.0.len() > limits::KEY_PACKAGE_MAX) {
        return Err(Refused::malformed("a key package is too large").into());
    }
    let device = caller.device;
    let single =
        single_use.iter().map(|package| Write::KeyPackage { device, last_resort: false, package: package.0.clone() });
    let last = last_resort.map(|package| Write::KeyPackage { device, last_resort: true, package: package.0.clone() });
    Ok(Outcome { writes: single.chain(last).collect(), reply: Some(Reply::Done), wakes: Vec::new() })
}

fn people(store: &dyn Read, caller: Caller) -> Result<Outcome, No> {
    let own = store.person(caller.person)?.ok_or_else(|| Refused::not_found("your registration"))?;
    let mut people = Vec::new();
    for person in store.people()? {
        if policy::may_see(store, &own, &person)? {
            people.push(PersonView {
                person: person.registration.person,
                handle: person.registration.handle,
                role: person.role,
                ready: person.endorsement.is_some(),
                inviter: person.inviter,
            });
        }
    }
    Ok(Outcome::reply(Reply::People { people }))
}

fn chain_for(store: &dyn Read, caller: Caller, person: PersonId) -> Result<Outcome, No> {
    let own = store.person(caller.person)?.ok_or_else(|| Refused::not_found("your registration"))?;
    let row = store.person(person)?.ok_or_else(|| Refused::not_found("that person"))?;
    if !policy::may_see(store, &own, &row)? {
        return Err(Refused::not_found("that person").into());
    }
    Ok(Outcome::reply(Reply::Chain { chain: chain(store, person)? }))
}

/// A person and whoever endorses them, up to one endorsed by the organisation's key.
fn chain(store: &dyn Read, person: PersonId) -> Result<Vec<Identity>, No> {
    let mut chain = Vec::new();
    let mut next = Some(person);
    while let Some(person) = next {
        if chain.len() >= limits::CHAIN_MAX {
            break;
        }
        let row = store.person(person)?.ok_or_else(|| Refused::not_found("that person"))?;
        let endorsement = row.endorsement.ok_or_else(|| Refused::not_found("an endorsement of that person"))?;
        let said: Endorsement =
            endorsement.unverified("endorsement").map_err(|_| StoreError::Damaged("endorsement"))?;
        next = said.issuer.map(|issuer| issuer.person);
        let certificates = store.devices_of(person)?.into_iter().map(|device| device.certificate).collect();
        chain.push(Identity { person, person_key: row.registration.person_key, certificates, endorsement });
    }
    Ok(chain)
}

fn file_invite(store: &dyn Read, caller: Caller, invite: &NewInvite, now: Timestamp) -> Result<Outcome, No> {
    let person = policy::endorsed(store, caller)?;
    let statement: InviteStatement = verified_by_device(store, caller, &invite.statement, Label::Invite)?;
    if statement.issuer.person != caller.person || statement.issuer.device != caller.device {
        return Err(Refused::malformed("the invite names another inviter").into());
    }
    policy::may_invite(&person, statement.role)?;
    if let Some(handle) = &statement.handle {
        free_handle(store, handle)?;
    }
    if statement.expires > now.plus_ms(limits::INVITE_LIFETIME_MS + 60_000) {
        return Err(Refused::malformed("an invite is good for at most 72 hours").into());
    }
    if invite.name.as_ref().is_some_and(|name| name.0.len() > limits::NAME_MAX * 2) {
        return Err(Refused::malformed("the name is too long").into());
    }
    if store.open_invites(caller.person, now)? >= limits::INVITES_OPEN_MAX {
        return Err(Refused::Full { what: "your open invites".to_owned() }.into());
    }
    if store.invite(statement.invite)?.is_some() {
        return Err(Refused::malformed("that invite exists").into());
    }
    let row = InviteRow {
        invite: statement.invite,
        token_hash: invite.token_hash,
        filed: Some(invite.clone()),
        inviter: Some(caller.person),
        role: Some(statement.role),
        handle: statement.handle,
        expires: statement.expires,
        used_by: None,
    };
    let writes = vec![Write::Invite(Box::new(row))];
    Ok(Outcome { writes, reply: Some(Reply::Done), wakes: Vec::new() })
}

/// An invite that exists, to whoever proves its token.
fn proved_invite(store: &dyn Read, invite: InviteId, token: &[u8; 32]) -> Result<InviteRow, No> {
    let unknown = || Refused::Invite { what: "this relay does not know it".to_owned() };
    let row = store.invite(invite)?.ok_or_else(unknown)?;
    if !suite::same(row.token_hash.as_bytes(), token_hash(token).as_bytes()) {
        return Err(unknown().into());
    }
    Ok(row)
}

fn open_invite(store: &dyn Read, invite: InviteId, token: &[u8; 32], now: Timestamp) -> Result<Outcome, No> {
    let row = proved_invite(store, invite, token)?;
    if row.expires <= now {
        return Err(Refused::Invite { what: "it has expired; ask for a new one".to_owned() }.into());
    }
    let chain = row.inviter.map_or_else(|| Ok(Vec::new()), |inviter| chain(store, inviter))?;
    let (statement, name) = row.filed.map_or((None, None), |filed| (Some(filed.statement), filed.name));
    Ok(Outcome::reply(Reply::Invite(Box::new(InviteView { statement, name, chain }))))
}

fn register(store: &dyn Read, link_key: &PublicKey, asked: &Registration, now: Timestamp) -> Result<Outcome, No> {
    let mut invite = proved_invite(store, asked.invite, &asked.token)?;
    if let Some(used_by) = invite.used_by {
        let same = used_by == asked.person && store.person(used_by)?.is_some_and(|row| row.registration == *asked);
        let used = Refused::Invite { what: "it has been used already; ask for a new one".to_owned() };
        return if same { Ok(Outcome::reply(Reply::Done)) } else { Err(used.into()) };
    }
    if invite.expires <= now {
        return Err(Refused::Invite { what: "it has expired; ask for a new one".to_owned() }.into());
    }
    let certificate = check_registration(store, &invite, link_key, asked)?;
    let founding = founding(store, &invite, asked)?;
    let (device, person) = (certificate.device, asked.person);
    if store.person(person)?.is_some() || store.device(device)?.is_some() || store.mailbox(asked.inbox)?.is_some() {
        return Err(Refused::malformed("an id is in use").into());
    }
    invite.used_by = Some(person);
    let mut writes = Vec::new();
    if let Some(founding) = &founding {
        writes.push(Write::Organisation(founding.0.clone()));
    }
    let row = PersonRow {
        registration: asked.clone(),
        role: asked.role,
        registrar: founding.is_some(),
        endorsement: founding.map(|(_, endorsement)| endorsement),
        inviter: invite.inviter,
        registered: now,
    };
    let ready = row.endorsement.is_some();
    writes.push(Write::Person(Box::new(row)));
    writes.push(Write::Mailbox { mailbox: asked.inbox, inbox_of: Some(device) });
    writes.push(Write::Device(Box::new(DeviceRow {
        device,
        person,
        link_key: link_key.clone(),
        certificate: asked.certificate.clone(),
        inbox: asked.inbox,
    })));
    let wakes = match invite.inviter {
        Some(inviter) if !ready => vec![Wake::Person { person: inviter, event: Event::Newcomer }],
        _ => Vec::new(),
    };
    writes.push(Write::Invite(Box::new(invite)));
    Ok(Outcome { writes, reply: Some(Reply::Done), wakes })
}

fn check_registration(
    store: &dyn Read,
    invite: &InviteRow,
    link_key: &PublicKey,
    asked: &Registration,
) -> Result<DeviceCertificate, No> {
    if asked.name.len() > limits::NAME_MAX * 2 {
        return Err(Refused::malformed("the name is too long").into());
    }
    if invite.handle.as_ref().is_some_and(|handle| *handle != asked.handle) {
        return Err(Refused::Invite { what: "it is for another handle".to_owned() }.into());
    }
    let role_fits = match invite.role {
        Some(role) => role == asked.role,
        None => asked.role.manages(),
    };
    if !role_fits {
        return Err(Refused::Invite { what: "it is for another role".to_owned() }.into());
    }
    free_handle(store, &asked.handle)?;
    let certificate: DeviceCertificate = asked
        .certificate
        .verify(Label::DeviceCertificate, &asked.person_key, "device certificate")
        .map_err(|error| Refused::malformed(error.to_string()))?;
    if certificate.person != asked.person || certificate.link_key != link_key.digest() {
        return Err(Refused::malformed("the device certificate is for another device").into());
    }
    if let Some(inviter) = invite.inviter
        && store.person(inviter)?.is_none_or(|inviter| inviter.endorsement.is_none())
    {
        return Err(Refused::Invite { what: "its inviter may not invite any more".to_owned() }.into());
    }
    Ok(certificate)
}

/// With the first invite, and only with it, the organisation begins.
fn founding(store: &dyn Read, invite: &InviteRow, asked: &Registration) -> Result<Option<(PublicKey, Signed)>, No> {
    match (&invite.inviter, &asked.organisation) {
        (Some(_), None) => Ok(None),
        (None, Some(founding)) => {
            if store.organisation()?.is_some() {
                let what = "this firm has its organisation key already; ask a registrar for an invite".to_owned();
                return Err(Refused::Invite { what }.into());
            }
            let endorsement: Endorsement = founding
                .endorsement
                .verify(Label::Endorsement, &founding.key, "endorsement")
                .map_err(|error| Refused::malformed(error.to_string()))?;
            let fits = endorsement.issuer.is_none()
                && endorsement.registrar
                && endorsement.person == asked.person
                && endorsement.person_key == asked.person_key.digest()
                && endorsement.handle == asked.handle
                && endorsement.role == asked.role;
            if !fits {
                return Err(Refused::malformed("the organisation endorses somebody else").into());
            }
            Ok(Some((founding.key.clone(), founding.endorsement.clone())))
        }
        _ => Err(Refused::malformed("an organisation begins with the first invite").into()),
    }
}

fn free_handle(store: &dyn Read, handle: &str) -> Result<(), No> {
    let wrong = || Refused::Handle {
        what: format!("{handle:?} won't do: 2 to 32 of a-z, 0-9, dot and dash, a letter or digit at both ends"),
    };
    check_handle(handle).map_err(|_| wrong())?;
    if store.handle_owner(&handle_skeleton(handle))?.is_some() {
        let what = format!("{handle} is taken, or looks like one that is; choose another");
        return Err(Refused::Handle { what }.into());
    }
    Ok(())
}

fn newcomers(store: &dyn Read, caller: Caller) -> Result<Outcome, No> {
    let newcomers = store
        .people()?
        .into_iter()
        .filter(|person| person.endorsement.is_none() && person.inviter == Some(caller.person))
        .map(|person| person.registration)
        .take(limits::INVITES_OPEN_MAX)
        .collect();
    Ok(Outcome::reply(Reply::Newcomers { newcomers }))
}

fn endorse(store: &dyn Read, caller: Caller, person: PersonId, endorsement: &Signed) -> Result<Outcome, No> {
    let own = policy::endorsed(store, caller)?;
    let mut row = store.person(person)?.ok_or_else(|| Refused::not_found("that person"))?;
    let said: Endorsement = verified_by_device(store, caller, endorsement, Label::Endorsement)?;
    if row.inviter != Some(caller.person) && !own.registrar {
        return Err(Refused::not_allowed("you did not invite that person").into());
    }
    policy::may_invite(&own, said.role)?;
    let fits = said.person == person
        && said.issuer.is_some_and(|issuer| issuer.person == caller.person && issuer.device == caller.device)
        && said.person_key == row.registration.person_key.digest()
        && said.handle == row.registration.handle
        && said.role == row.role
        && !said.registrar;
    if !fits {
        return Err(Refused::malformed("the endorsement is for somebody else").into());
    }
    row.endorsement = Some(endorsement.clone());
    let writes = vec![Write::Person(Box::new(row))];
    let wakes = vec![Wake::Person { person, event: Event::Endorsed }];
    Ok(Outcome { writes, reply: Some(Reply::Done), wakes })
}

/// A statement that the calling device's MLS key signed.
fn verified_by_device<T: for<'b> minicbor::Decode<'b, ()>>(
    store: &dyn Read,
    caller: Caller,
    signed: &Signed,
    label: Label,
) -> Result<T, No> {
    let device = store.device(caller.device)?.ok_or_else(|| Refused::not_found("your device"))?;
    let certificate: DeviceCertificate =
        device.certificate.unverified("device certificate").map_err(|_| StoreError::Damaged("certificate"))?;
    signed
        .verify(label, &certificate.mls_key, "statement")
        .map_err(|error| Refused::malformed(error.to_string()).into())
}

/// The first invite of a relay, made by the relay itself while there is no organisation.
pub fn first_invite(token_hash: Digest, invite: InviteId, now: Timestamp) -> Write {
    Write::Invite(Box::new(InviteRow {
        invite,
        token_hash,
        filed: None,
        inviter: None,
        role: None::<Role>,
        handle: None,
        expires: now.plus_ms(limits::INVITE_LIFETIME_MS),
        used_by: None,
    }))
}
