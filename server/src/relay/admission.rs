//! Which copy of a device is let in: the newest [`Instance`] that has said hello, and no other.
//!
//! 1. A hello names an instance; the one that is admitted already changes nothing.
//! 2. A device's first, or one with a higher number, takes over: from the moment that this is durable, no other is served.
//! 3. What was asked on a link of an older one is refused, whenever it is decided.
//!
//! 4. A revoked device is let in no more, in whatever instance; one whose person's endorsement was withdrawn not until that is given anew.
//!
//! Invariant: of two copies of a profile at most one is served, and nobody is handed a key package whose private half the other copy
//! may have.

use privity_protocol::error::Refused;
use privity_protocol::frame::{HelloBody, Instance, Reply};
use privity_protocol::ids::DeviceId;
use privity_protocol::suite::PublicKey;

use super::{From, Outcome, Wake, post};
use crate::policy::{Caller, No};
use crate::store::{PersonRow, Read, ReceivedRow, Write};

/// Who said hello, and what the relay tells them about themselves.
#[derive(Debug, PartialEq)]
pub struct Judged {
    /// Who.
    pub from: From,
    /// The Post with the highest idem that came from the device, accepted or refused.
    pub idem: Option<ReceivedRow>,
    /// Its single-use key packages that are left.
    pub key_packages: u32,
    /// Whether its person is endorsed.
    pub ready: bool,
    /// The organisation's key.
    pub organisation: Option<PublicKey>,
    /// Whether its instance is the one admitted; if not, it has to `take_over`.
    pub admitted: bool,
}

/// Judges a hello, whose link key is proved.
///
/// # Errors
/// [`No::Refused`] for a device that the relay does not know so, or that another copy has replaced.
pub fn judge(store: &dyn Read, hello: &HelloBody) -> Result<Judged, No> {
    let organisation = store.organisation()?;
    let Some(device) = hello.device else {
        let from = From::Newcomer(hello.link_key.clone());
        return Ok(Judged { from, idem: None, key_packages: 0, ready: false, organisation, admitted: true });
    };
    let Some(row) = store.device(device)?.filter(|row| row.link_key == hello.link_key) else {
        return Err(Refused::not_allowed("this relay does not know that device and key").into());
    };
    if row.revoked.is_some() {
        return Err(revoked().into());
    }
    if row.ended {
        return Err(
            Refused::not_allowed("its enrolment came to nothing; ask whoever invited you for a new invite").into()
        );
    }
    let person = store.person(row.person)?;
    if person.as_ref().is_some_and(PersonRow::is_withdrawn) {
        return Err(withdrawn().into());
    }
    let Some(instance) = hello.instance else {
        return Err(Refused::malformed("a device says which instance it is").into());
    };
    Ok(Judged {
        from: From::Device(Caller { device, person: row.person, instance }),
        idem: post::newest_received(store, device)?,
        key_packages: store.key_packages_left(device)?,
        ready: !row.waits() && person.is_some_and(|person| person.is_endorsed()),
        organisation,
        admitted: is_admitted(store, device, instance)?,
    })
}

/// Whether an instance is the one admitted; if not, it has to [`take_over`].
///
/// # Errors
/// [`Refused::Replaced`] for one whose place another has taken.
fn is_admitted(store: &dyn Read, device: DeviceId, instance: Instance) -> Result<bool, No> {
    match store.instance(device)? {
        Some(known) if known == instance => Ok(true),
        // Two copies that took the same number: the first one stays.
        Some(known) if known.number >= instance.number => Err(Refused::Replaced.into()),
        _ => Ok(false),
    }
}

/// An instance becomes the one admitted.
pub(super) fn take_over(store: &dyn Read, device: DeviceId, instance: Instance) -> Result<Outcome, No> {
    if let Some(row) = store.device(device)?
        && store.person(row.person)?.is_some_and(|person| person.is_withdrawn())
    {
        return Err(withdrawn().into());
    }
    let mut outcome = Outcome::reply(Reply::Done);
    if is_admitted(store, device, instance)? {
        return Ok(outcome);
    }
    outcome.writes.push(Write::Instance { device, instance });
    if store.instance(device)?.is_some() {
        outcome.writes.push(Write::DropKeyPackages { device });
        outcome.wakes.push(Wake::Replaced { device, by: instance });
    }
    Ok(outcome)
}

/// What a revoked device is told.
pub fn revoked() -> Refused {
    Refused::not_allowed("it was revoked by its person or a registrar")
}

/// What a device is told whose person nobody vouches for any more.
pub fn withdrawn() -> Refused {
    Refused::not_allowed("the firm has withdrawn your endorsement; ask a registrar")
}

/// The caller, if its instance is still the one admitted.
///
/// # Errors
/// [`No::Refused`] if another has taken its place, or it was revoked.
pub fn still(store: &dyn Read, caller: Caller) -> Result<Caller, No> {
    if store.instance(caller.device)? == Some(caller.instance) {
        return Ok(caller);
    }
    if store.device(caller.device)?.is_some_and(|row| row.revoked.is_some()) {
        return Err(revoked().into());
    }
    let gone = store.person(caller.person)?.is_some_and(|person| person.is_withdrawn());
    Err(if gone { withdrawn() } else { Refused::Replaced }.into())
}

#[cfg(test)]
mod tests;
