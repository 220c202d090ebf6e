//! The relay's rules, pure: a request and the time go in, writes and a reply come out. No sockets, disk or clock.
//!
//! 1. [`Rules::handle`] reads what it needs and decides; a refusal has written nothing.
//! 2. The shell applies the writes of many requests in one transaction, makes them durable, and only then sends the replies.
//! 3. [`Wake`]s tell the shell whom to tell what.
//!
//! Invariant: whatever the order and content of requests, a mailbox's seq is contiguous from 1, its running hash is that of its entries,
//! and no envelope stands after a fence that its author had not read.

use bytes::Bytes;
use privity_protocol::error::Refused;
use privity_protocol::frame::{Blob, Event, Reply, Request, TakenKeyPackage};
use privity_protocol::ids::{DeviceId, MailboxId, PersonId, Timestamp};
use privity_protocol::limits;
use privity_protocol::suite::PublicKey;

use crate::policy::{self, Caller, No};
use crate::store::{KeyPackageRow, Read, Write};

mod joining;
mod people;
mod post;
mod rates;
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
    rates: rates::Rates,
}

impl Rules {
    /// Decides one request.
    ///
    /// # Errors
    /// [`No`]: nothing is to be written.
    pub fn handle(&mut self, store: &dyn Read, from: &From, request: &Request, now: Timestamp) -> Result<Outcome, No> {
        let caller = match (from, request) {
            (_, Request::OpenInvite { invite, token }) => return joining::open_invite(store, *invite, token, now),
            (From::Newcomer(link_key), Request::Register(registration)) => {
                return joining::register(store, link_key, registration, now);
            }
            (From::Newcomer(_), _) => return Err(Refused::not_allowed("register first").into()),
            (From::Device(caller), _) => *caller,
        };
        match request {
            Request::Post(asked) => post::post(&mut self.rates, store, caller, asked, now),
            Request::Ack { mailbox, upto } => ack(store, caller, *mailbox, *upto),
            Request::PublishKeyPackages { single_use, last_resort } => {
                let left = store.key_packages_left(caller.device)? as usize;
                publish_key_packages(caller, left, single_use, last_resort.as_ref())
            }
            Request::TakeKeyPackages { person } => self.take_key_packages(store, caller, *person, now),
            Request::People => people::people(store, caller),
            Request::Chain { person } => people::chain_for(store, caller, *person),
            Request::Invite(invite) => joining::file_invite(store, caller, invite, now),
            Request::Newcomers => people::newcomers(store, caller),
            Request::Endorse { person, endorsement } => people::endorse(store, caller, *person, endorsement),
            _ => Err(Refused::malformed("this relay does not know that request").into()),
        }
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
        let wanted = u32::try_from(devices.len()).unwrap_or(u32::MAX);
        self.rates.take_key_packages(caller.device, wanted, now)?;
        let mut outcome = Outcome::default();
        let mut packages = Vec::new();
        for device in devices {
            let Some(KeyPackageRow { number, package }) = store.key_package(device.device)? else { continue };
            if let Some(number) = number {
                outcome.writes.push(Write::DropKeyPackage { device: device.device, number });
            }
            let left = store.key_packages_left(device.device)?.saturating_sub(u32::from(number.is_some()));
            if (left as usize) < limits::KEY_PACKAGES / 2 {
                let event = Event::KeyPackagesLow { left };
                outcome.wakes.push(Wake::Device { device: device.device, event });
            }
            let package = Blob(package);
            packages.push(TakenKeyPackage { device: device.device, inbox: device.inbox, package });
        }
        outcome.reply = Some(Reply::KeyPackages { packages });
        Ok(outcome)
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
