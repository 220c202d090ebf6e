//! May this device do this? Every rule about who, in one place; [`crate::relay`] decides about what and when.
//!
//! Invariant: a rule that devices also enforce is enforced here as far as the relay can see, and never more loosely.

use privity_protocol::error::Refused;
use privity_protocol::frame::{Instance, Rights};
use privity_protocol::identity::{Endorsement, Role, may_adopt, may_endorse};
use privity_protocol::ids::{DeviceId, MailboxId, PersonId};

use crate::store::{GrantRow, InviteRow, PersonRow, Read, StoreError};

/// An admitted device and its person.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caller {
    /// The device.
    pub device: DeviceId,
    /// Its person.
    pub person: PersonId,
    /// Which copy of it.
    pub instance: Instance,
}

/// Why a request was not carried out: refused by a rule, or the store failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum No {
    /// A rule says no; the caller is told.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The store failed; the caller is told only that it did.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A refusal as an answer, apart from a store that failed.
///
/// # Errors
/// [`StoreError`] if it failed.
pub fn refusal<T>(decided: Result<T, No>) -> Result<Result<T, Refused>, StoreError> {
    match decided {
        Ok(done) => Ok(Ok(done)),
        Err(No::Refused(refused)) => Ok(Err(refused)),
        Err(No::Store(failure)) => Err(failure),
    }
}

/// The caller's row, which must be endorsed.
///
/// # Errors
/// [`Refused::NotAllowed`] while nobody vouches for the caller.
pub fn endorsed(store: &dyn Read, caller: Caller) -> Result<PersonRow, No> {
    let person = store.person(caller.person)?.ok_or_else(|| Refused::not_found("your registration"))?;
    if person.is_withdrawn() {
        return Err(Refused::not_allowed("the firm has withdrawn your endorsement").into());
    }
    if person.endorsement.is_none() {
        return Err(Refused::not_allowed("nobody has endorsed you yet").into());
    }
    Ok(person)
}

/// Only attorneys and staff open matters.
///
/// # Errors
/// [`Refused::NotAllowed`] for anyone else.
pub fn may_open_matters(person: &PersonRow) -> Result<(), Refused> {
    if person.role.manages() { Ok(()) } else { Err(Refused::not_allowed("only attorneys and staff open matters")) }
}

/// Who may invite, and endorse whom they invited.
///
/// # Errors
/// [`Refused::NotAllowed`] where the role may not.
pub fn may_invite(person: &PersonRow, newcomer: Role) -> Result<(), Refused> {
    if may_endorse(person.role, person.registrar, newcomer) {
        return Ok(());
    }
    let role = person.role.word();
    Err(Refused::not_allowed(format!("as {role} you may not invite {}", with_article(newcomer))))
}

/// Who may take in a newcomer whom somebody else has invited.
///
/// # Errors
/// [`Refused::NotAllowed`] where the role may not.
pub fn may_take_in(person: &PersonRow, newcomer: Role) -> Result<(), Refused> {
    if may_adopt(person.role, person.registrar, newcomer) {
        return Ok(());
    }
    Err(Refused::not_allowed("only a registrar takes in somebody whom another has invited; clients also any attorney"))
}

/// Whether whoever made an invite may still invite in that role, and with that device: otherwise it is void. The relay's own first invite always counts.
///
/// # Errors
/// [`StoreError`] if the store failed.
pub fn still_invites(store: &dyn Read, invite: &InviteRow) -> Result<bool, StoreError> {
    let (Some(inviter), Some(role)) = (invite.inviter, invite.role) else { return Ok(true) };
    let Some(said) = invite.statement()? else { return Ok(true) };
    if store.device(said.issuer.device)?.is_some_and(|row| row.revoked.is_some()) {
        return Ok(false);
    }
    let inviter = store.person(inviter)?.filter(PersonRow::is_endorsed);
    Ok(inviter.is_some_and(|inviter| said.links.is_some() || may_endorse(inviter.role, inviter.registrar, role)))
}

/// The open interval that gives a device a right in a mailbox.
///
/// # Errors
/// [`Refused::NotAllowed`] without one.
pub fn open_grant(grants: &[GrantRow], right: Rights) -> Result<GrantRow, Refused> {
    grants
        .iter()
        .find(|grant| grant.until.is_none() && grant.rights.include(right))
        .copied()
        .ok_or_else(|| Refused::not_allowed("you are not, or no longer, in this matter"))
}

/// The entries that a device may read around `seq`, as the last seq before them and the last one of them: its intervals, those that
/// touch taken together. Without a `seq`, its newest.
pub fn reading(grants: &[GrantRow], seq: Option<u64>) -> Option<(u64, Option<u64>)> {
    let mut spans: Vec<(u64, Option<u64>)> = Vec::new();
    for grant in grants.iter().filter(|grant| grant.rights.include(Rights::READ)) {
        match spans.last_mut() {
            Some((_, until)) if *until == Some(grant.from) => *until = grant.until,
            _ => spans.push((grant.from, grant.until)),
        }
    }
    let holds = |(from, until): &(u64, Option<u64>)| {
        seq.is_none_or(|seq| *from <= seq && until.is_none_or(|until| seq <= until))
    };
    spans.into_iter().rev().find(holds)
}

/// Who may append to somebody's inbox, and so take their key packages: attorneys and staff, whoever shares a mailbox with them, their
/// inviter and their endorser.
///
/// # Errors
/// [`Refused::NotAllowed`] for anyone else.
pub fn may_reach(store: &dyn Read, caller: &PersonRow, owner: PersonId) -> Result<(), No> {
    let person = caller.registration.person;
    if caller.role.manages() || person == owner || store.share_mailbox(person, owner)? {
        return Ok(());
    }
    let Some(owner) = store.person(owner)? else { return Err(Refused::not_found("that person").into()) };
    if owner.inviter == Some(person) || endorser(&owner)? == Some(person) {
        return Ok(());
    }
    Err(Refused::not_allowed("you may not reach this person").into())
}

/// Who endorsed a person; none where nobody did, or the organisation's key.
///
/// # Errors
/// [`StoreError`] if what is kept does not decode.
pub fn endorser(person: &PersonRow) -> Result<Option<PersonId>, StoreError> {
    let Some(endorsement) = &person.endorsement else { return Ok(None) };
    let said: Endorsement = endorsement.unverified("endorsement").map_err(|_| StoreError::Damaged("endorsement"))?;
    Ok(said.issuer.map(|issuer| issuer.person))
}

/// Who may enrol somebody anew: whoever vouches for them, or a registrar.
///
/// # Errors
/// [`Refused::NotAllowed`] for anyone else; [`No::Store`] if what is kept does not decode.
pub fn may_enrol_anew(own: &PersonRow, person: &PersonRow) -> Result<(), No> {
    if person.registrar {
        return Err(Refused::not_allowed("a registrar begins again with their recovery sheet").into());
    }
    if own.registrar || endorser(person)? == Some(own.registration.person) {
        return Ok(());
    }
    Err(Refused::not_allowed("only whoever vouches for them, or a registrar, enrols somebody anew: ask them").into())
}

/// Who may see a person: attorneys and staff for whom somebody vouches see everyone, others whom they share a mailbox with, invited, or were
/// invited by.
///
/// # Errors
/// [`No::Store`] if the store fails.
pub fn may_see(store: &dyn Read, caller: &PersonRow, person: &PersonRow) -> Result<bool, No> {
    let (own, other) = (caller.registration.person, person.registration.person);
    Ok((caller.role.manages() && caller.is_endorsed())
        || own == other
        || caller.inviter == Some(other)
        || person.inviter == Some(own)
        || store.share_mailbox(own, other)?)
}

/// The device whose inbox a mailbox is, with its person.
///
/// # Errors
/// [`Refused::NotFound`] if it is gone.
pub fn inbox_owner(store: &dyn Read, device: DeviceId, mailbox: MailboxId) -> Result<PersonId, No> {
    let row = store.device(device)?.ok_or_else(|| Refused::not_found(format!("inbox {mailbox}")))?;
    Ok(row.person)
}

fn with_article(role: Role) -> &'static str {
    match role {
        Role::Attorney => "an attorney",
        Role::Staff => "staff",
        Role::Client => "a client",
        _ => "a custodian",
    }
}
