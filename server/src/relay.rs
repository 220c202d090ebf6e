//! The relay's rules, pure: a request and the time go in, writes and a reply come out. No sockets, disk or clock.
//!
//! 1. [`Rules::handle`] reads what it needs and decides; a refusal has written nothing, but that a Post came or an invite was tried.
//! 2. The shell applies the writes of many requests in one transaction, makes them durable, and only then sends the replies.
//! 3. [`Wake`]s tell the shell whom to tell what.
//! 4. What is to stand in the audit log is among the writes: durable with the action, before anybody hears of it.
//! 5. Requests that [`only_reads`] change nothing: the shell may [`answer`] them from another view of the store.
//!
//! Invariant: whatever the order and content of requests, a mailbox's seq is contiguous from 1, its running hash is that of its entries,
//! and no envelope stands after a fence that its author had not read.

use bytes::Bytes;
use privity_protocol::error::Refused;
use privity_protocol::frame::{Blob, Event, Instance, Reply, Request, TakenKeyPackage};
use privity_protocol::ids::{DeviceId, MailboxId, PersonId, Timestamp};
use privity_protocol::limits;
use privity_protocol::log::{Act, Event as LogEvent};
use privity_protocol::suite::PublicKey;

use crate::policy::{self, Caller, No};
use crate::store::{KeyPackageRow, Read, StoreError, Write};

pub mod admission;
mod devices;
pub mod history;
mod joining;
mod keys;
mod people;
mod post;
mod rates;
pub mod reading;
mod statements;
#[cfg(test)]
mod world;

pub use joining::first_invite;

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
        /// Who posted it.
        by: DeviceId,
        /// The envelope, shared with the write.
        envelope: Bytes,
    },
    /// An interval of a device in a mailbox ends; the store knows where.
    Ended {
        /// Which.
        mailbox: MailboxId,
        /// Whose.
        device: DeviceId,
    },
    /// A newer instance of a device has taken over: links of any other close.
    Replaced {
        /// Which device.
        device: DeviceId,
        /// The instance that stays.
        by: Instance,
    },
    /// A device is nobody's any more: its links close.
    Revoked {
        /// Which.
        device: DeviceId,
    },
    /// Nobody vouches for a device's person any more: its links close.
    Withdrawn {
        /// Which.
        device: DeviceId,
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

/// Whether a request changes nothing, so that [`answer`] is all it takes.
pub fn only_reads(request: &Request) -> bool {
    use Request::{Adoptable, Adoption, Checkpoint, Consistency, History, Invites, Renewals};
    use Request::{Certified, Chain, Newcomers, OpenInvite, OpenRecovery, People, Revocations, Roster, WaitingDevices};
    matches!(request, People | Chain { .. } | Newcomers | OpenInvite { .. } | OpenRecovery { .. } | Roster { .. })
        || matches!(request, Checkpoint | Consistency { .. } | History { .. } | Invites | Renewals)
        || matches!(request, Adoptable | Adoption { .. } | WaitingDevices | Certified)
        || matches!(request, Revocations { .. } | Request::StatementsAbout { .. })
}

/// Whether the refusal of a request that [`only_reads`] is to be logged: it is then to be asked once more, of [`Rules::handle`].
///
/// # Errors
/// [`No::Store`] if the store failed.
pub fn refusal_is_news(store: &dyn Read, request: &Request) -> Result<bool, No> {
    match request {
        Request::OpenInvite { invite, token } => joining::refusal_is_news(store, *invite, token),
        _ => Ok(false),
    }
}

/// What the log has yet to say of what happened by itself: invites that expired.
///
/// # Errors
/// [`StoreError`] if the store failed.
pub fn overdue(store: &dyn Read, now: Timestamp) -> Result<Vec<Write>, StoreError> {
    joining::overdue(store, now)
}

/// A leaf of the audit log.
fn logged(person: Option<PersonId>, at: Timestamp, act: Act) -> Write {
    Write::Log { person, event: LogEvent { at, act } }
}

/// Answers a request that [`only_reads`].
///
/// # Errors
/// [`No`]: it is refused, or the store failed.
pub fn answer(store: &dyn Read, from: &From, request: &Request, now: Timestamp) -> Result<Reply, No> {
    let caller = match (from, request) {
        (_, Request::OpenInvite { invite, token }) => return joining::open_invite(store, *invite, token, now),
        (_, Request::OpenRecovery { handle, token }) => return keys::open(store, handle, token),
        (From::Newcomer(_), _) => return Err(Refused::not_allowed("register first").into()),
        (From::Device(caller), _) => admission::still(store, *caller)?,
    };
    devices::may_ask(store, caller, request)?;
    match request {
        Request::People => people::people(store, caller),
        Request::Chain { person } => people::chain_for(store, caller, *person),
        Request::Newcomers => people::newcomers(store, caller),
        Request::Adoptable => people::adoptable(store, caller),
        Request::Adoption { person } => people::adoption(store, caller, *person),
        Request::Invites => joining::invites(store, caller, now),
        Request::Renewals => people::renewals(store, caller, now),
        Request::Roster { mailbox } => people::roster(store, caller, *mailbox),
        Request::Consistency { from, to } => history::consistency(store, *from, *to),
        Request::History { person, after, size } => history::history(store, caller, *person, *after, *size),
        Request::WaitingDevices => devices::waiting(store, caller),
        Request::Certified => devices::certified(store, caller),
        Request::Revocations { after } => statements::statements(store, caller, None, *after),
        Request::StatementsAbout { person, after } => statements::statements(store, caller, Some(*person), *after),
        _ => Err(Refused::malformed("this relay does not know that request").into()),
    }
}

/// The rules, with what they remember in memory alone: how fast devices are.
#[derive(Debug, Default)]
pub struct Rules {
    rates: rates::Rates,
}

impl Rules {
    /// Decides one request.
    ///
    /// # Errors
    /// [`No`]: nothing is to be written. Where a refusal is to be, it is the reply.
    pub fn handle(&mut self, store: &dyn Read, from: &From, request: &Request, now: Timestamp) -> Result<Outcome, No> {
        if let Request::OpenInvite { invite, token } = request {
            return joining::try_invite(store, *invite, token, now);
        }
        if only_reads(request) {
            return answer(store, from, request, now).map(Outcome::reply);
        }
        let caller = match (from, request) {
            (From::Newcomer(link_key), Request::Register(registration)) => {
                return joining::register(store, link_key, registration, now);
            }
            (From::Newcomer(link_key), Request::RegisterDevice(registration)) => {
                return devices::register(store, link_key, registration, now);
            }
            (From::Newcomer(link_key), Request::Recover(recovery)) => {
                return keys::recover(store, link_key, recovery, now);
            }
            (From::Newcomer(_), _) => return Err(Refused::not_allowed("register first").into()),
            // What an instance posts that another has replaced is not noted: that one knows that it is the newer copy.
            (From::Device(caller), _) => admission::still(store, *caller)?,
        };
        devices::may_ask(store, caller, request)?;
        match request {
            Request::Post(asked) => post::post(&mut self.rates, store, caller, asked, now),
            Request::Ack { mailbox, upto } => ack(store, caller, *mailbox, *upto),
            Request::PublishKeyPackages { single_use, last_resort } => {
                let left = store.key_packages_left(caller.device)? as usize;
                publish_key_packages(caller, left, single_use, last_resort.as_ref())
            }
            Request::TakeKeyPackages { person, device } => {
                self.take_key_packages(store, caller, (*person, *device), now)
            }
            Request::CertifyDevice { certificate, pack } => devices::certify(store, caller, certificate, pack, now),
            Request::Linked => devices::linked(store, caller),
            Request::RevokeDevice { revocation } => devices::revoke(store, caller, revocation, now),
            Request::WithdrawEndorsement { revocation } => statements::withdraw(store, caller, revocation, now),
            Request::SetRecovery(filing) => keys::file(store, caller, filing),
            Request::ReplaceKey(new) => keys::replace(store, caller, new, now),
            Request::Invite(invite) => joining::file_invite(store, caller, invite, now),
            Request::CancelInvite { invite } => joining::cancel_invite(store, caller, *invite, now),
            Request::Endorse { person, endorsement } => people::endorse(store, caller, *person, endorsement, now),
            _ => Err(Refused::malformed("this relay does not know that request").into()),
        }
    }

    /// Decides whether an instance of a device takes the place of the one before.
    ///
    /// # Errors
    /// [`No`]: it does not.
    pub fn admit(&mut self, store: &dyn Read, device: DeviceId, instance: Instance) -> Result<Outcome, No> {
        admission::take_over(store, device, instance)
    }

    fn take_key_packages(
        &mut self,
        store: &dyn Read,
        caller: Caller,
        (person, only): (PersonId, Option<DeviceId>),
        now: Timestamp,
    ) -> Result<Outcome, No> {
        let taker = policy::endorsed(store, caller)?;
        policy::may_reach(store, &taker, person)?;
        let owner = store.person(person)?.ok_or_else(|| Refused::not_found("that person"))?;
        if owner.is_withdrawn() {
            return Err(Refused::not_found("key packages: that person's endorsement was withdrawn").into());
        }
        if owner.endorsement.is_none() {
            return Err(Refused::not_found("key packages: nobody has endorsed that person yet").into());
        }
        let mut devices = store.devices_of(person)?;
        devices.retain(|row| row.is_in_use() && only.is_none_or(|only| only == row.device));
        // Who has taken that many today empties no more stocks, and gets the last-resort ones.
        let slow = self.rates.take_key_packages(caller.device, devices.len() as u64, now).err();
        let mut outcome = Outcome::default();
        let mut packages = Vec::new();
        for device in devices {
            let found = match &slow {
                None => store.key_package(device.device)?,
                Some(_) => store.last_resort(device.device)?.map(|package| KeyPackageRow { number: None, package }),
            };
            let Some(KeyPackageRow { number, package }) = found else { continue };
            if let Some(number) = number {
                outcome.writes.push(Write::DropKeyPackage { device: device.device, number });
            }
            let left = store.key_packages_left(device.device)?.saturating_sub(u32::from(number.is_some()));
            if slow.is_none() && (left as usize) < limits::KEY_PACKAGES / 2 {
                let event = Event::KeyPackagesLow { left };
                outcome.wakes.push(Wake::Device { device: device.device, event });
            }
            let package = Blob(package);
            packages.push(TakenKeyPackage { device: device.device, inbox: device.inbox, package });
        }
        if let Some(slow) = slow
            && packages.is_empty()
        {
            return Err(slow.into());
        }
        outcome.reply = Some(Reply::KeyPackages { packages });
        Ok(outcome)
    }
}

fn ack(store: &dyn Read, caller: Caller, mailbox: MailboxId, upto: u64) -> Result<Outcome, No> {
    let not_found = || Refused::not_found("that mailbox");
    let row = store.mailbox(mailbox)?.ok_or_else(not_found)?;
    let until = if row.inbox_of == Some(caller.device) {
        None
    } else {
        // What it has not read, a device does not have: it may be read on there.
        policy::reading(&store.grants(mailbox, caller.device)?, None).ok_or_else(not_found)?.1
    };
    if upto > until.unwrap_or(row.head.seq) {
        return Err(Refused::malformed("nothing stands there yet").into());
    }
    let writes = vec![Write::Ack { mailbox, device: caller.device, upto }];
    Ok(Outcome { writes, reply: Some(Reply::Done), wakes: Vec::new() })
}

fn publish_key_packages(
    caller: Caller,
    left: usize,
    single_use: &[Blob],
    last_resort: Option<&Blob>,
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
