//! How people come in: invites and registration.
//!
//! 1. A device files an invite: its statement, and the hash of the token that proves it.
//! 2. A newcomer who proves the token sees what it says, and registers once.
//! 3. The first invite is the relay's own; with it, and only with it, the organisation begins.
//! 4. What becomes of an invite stands in the log of whoever made it: used, expired, and by whom it was tried in vain.
//! 5. An inviter lists and cancels their invites; those of somebody who may not invite any more are void.
//!
//! Invariant: an invite makes one person, in the role and under the handle that it names, and no handle looks like another.

use privity_protocol::error::Refused;
use privity_protocol::frame::{Event, InviteView, NewInvite, Registration, Reply};
use privity_protocol::identity::{DeviceCertificate, Endorsement, Role, Signed, check_handle, handle_skeleton};
use privity_protocol::ids::{DeviceId, InviteId, PersonId, Timestamp};
use privity_protocol::invite::{InviteState, InviteStatement, Standing, token_hash};
use privity_protocol::limits;
use privity_protocol::log::Act;
use privity_protocol::suite::{self, Digest, Label, PublicKey};

use super::keys;
use super::people::{chain, chain as chain_of, verified_by_device};
use super::{Outcome, Wake, logged};
use crate::policy::{self, Caller, No};
use crate::store::{DeviceRow, InviteRow, PersonRow, Read, StoreError, Write};

/// Expired invites that are logged in one transaction.
const OVERDUE_AT_ONCE: usize = 256;

pub(super) fn file_invite(store: &dyn Read, caller: Caller, invite: &NewInvite, now: Timestamp) -> Result<Outcome, No> {
    let person = policy::endorsed(store, caller)?;
    let statement: InviteStatement = verified_by_device(store, caller, &invite.statement, Label::Invite)?;
    if statement.issuer.person != caller.person || statement.issuer.device != caller.device {
        return Err(Refused::malformed("the invite names another inviter").into());
    }
    match statement.links {
        None => policy::may_invite(&person, statement.role)?,
        Some(links) => check_link(&statement, links == caller.person && statement.role == person.role, now)?,
    }
    match (statement.replaces, &statement.handle) {
        (Some(replaced), _) => may_enrol_anew(store, &person, replaced, &statement)?,
        (None, Some(handle)) => free_handle(store, handle)?,
        (None, None) => {}
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
        expired: false,
        refusals: 0,
        cancelled: false,
    };
    let act = Act::InviteMade { invite: row.invite, statement: Some(invite.statement.digest()), expires: row.expires };
    let writes = vec![Write::Invite(Box::new(row)), logged(Some(caller.person), now, act)];
    Ok(Outcome { writes, reply: Some(Reply::Done), wakes: Vec::new() })
}

/// Whoever is enrolled anew keeps handle and role; a registrar is vouched for by the organisation's key alone.
fn may_enrol_anew(store: &dyn Read, own: &PersonRow, person: PersonId, statement: &InviteStatement) -> Result<(), No> {
    let row = store.person(person)?.filter(|row| row.endorsement.is_some());
    let row = row.ok_or_else(|| Refused::not_found("that person"))?;
    if person == statement.issuer.person {
        return Err(Refused::not_allowed("nobody enrols themselves anew").into());
    }
    policy::may_enrol_anew(own, &row)?;
    let same = statement.handle.as_deref() == Some(row.registration.handle.as_str()) && statement.role == row.role;
    if !same || statement.links.is_some() {
        return Err(Refused::malformed("whoever is enrolled anew keeps handle and role").into());
    }
    Ok(())
}

/// Whom an invite enrols anew, if it makes no new person.
fn replaces(invite: &InviteRow) -> Result<Option<PersonId>, StoreError> {
    Ok(invite.statement()?.and_then(|statement| statement.replaces))
}

/// An invite that exists, to whoever proves its token.
pub(super) fn proved_invite(store: &dyn Read, invite: InviteId, token: &[u8; 32]) -> Result<InviteRow, No> {
    let unknown = || Refused::Invite { what: "this relay does not know it".to_owned() };
    let row = store.invite(invite)?.ok_or_else(unknown)?;
    if !suite::same(row.token_hash.as_bytes(), token_hash(token).as_bytes()) {
        return Err(unknown().into());
    }
    Ok(row)
}

pub(super) fn used() -> Refused {
    Refused::Invite { what: "it has been used already; ask for a new one".to_owned() }
}

/// Why an invite can't be used, if it can't.
pub(super) fn unusable(standing: &Standing) -> Option<Refused> {
    let what = match standing {
        Standing::Open => return None,
        Standing::Used { .. } => return Some(used()),
        Standing::Expired => "it has expired; ask for a new one",
        Standing::Cancelled => "it was cancelled; ask for a new one",
        _ => "its inviter may not invite any more; ask somebody else of the firm for a new one",
    };
    Some(Refused::Invite { what: what.to_owned() })
}

/// What has become of an invite.
pub(super) fn standing(store: &dyn Read, row: &InviteRow, now: Timestamp) -> Result<Standing, StoreError> {
    if let Some(person) = row.used_by {
        let handle = store.person(person)?.map(|person| person.registration.handle).unwrap_or_default();
        return Ok(Standing::Used { handle });
    }
    Ok(match (row.cancelled, row.expires <= now) {
        (true, _) => Standing::Cancelled,
        (false, true) => Standing::Expired,
        (false, false) if policy::still_invites(store, row)? => Standing::Open,
        (false, false) => Standing::Void,
    })
}

/// The caller's invites for others, and what has become of each.
pub(super) fn invites(store: &dyn Read, caller: Caller, now: Timestamp) -> Result<Reply, No> {
    let mut invites = Vec::new();
    for row in store.invites_of(caller.person, limits::INVITES_SHOWN)? {
        if links(&row)?.is_some() {
            continue;
        }
        let standing = standing(store, &row, now)?;
        let InviteRow { invite, handle, expires, role, .. } = row;
        let Some(role) = role else { continue };
        invites.push(InviteState { invite, role, handle, expires, standing });
    }
    Ok(Reply::Invites { invites })
}

/// Cancels an invite of the caller's that nobody has used.
pub(super) fn cancel_invite(store: &dyn Read, caller: Caller, invite: InviteId, now: Timestamp) -> Result<Outcome, No> {
    let row = store.invite(invite)?.filter(|row| row.inviter == Some(caller.person));
    let row = row.ok_or_else(|| Refused::not_found("that invite among yours"))?;
    match standing(store, &row, now)? {
        Standing::Cancelled => return Ok(Outcome::reply(Reply::Done)),
        Standing::Used { handle } => {
            let what = format!("{handle} has used it already");
            return Err(Refused::Invite { what }.into());
        }
        Standing::Expired => return Err(Refused::Invite { what: "it has expired already".to_owned() }.into()),
        _ => {}
    }
    let row = InviteRow { cancelled: true, ..row };
    let writes = vec![Write::Invite(Box::new(row)), logged(Some(caller.person), now, Act::InviteCancelled { invite })];
    Ok(Outcome { writes, reply: Some(Reply::Done), wakes: Vec::new() })
}

/// A registration as it is kept: the token has proved the invite, and nobody needs it any more.
fn without_token(registration: &Registration) -> Registration {
    Registration { token: [0; 32], ..registration.clone() }
}

pub(super) fn open_invite(store: &dyn Read, invite: InviteId, token: &[u8; 32], now: Timestamp) -> Result<Reply, No> {
    let row = proved_invite(store, invite, token)?;
    if let Some(refused) = unusable(&standing(store, &row, now)?) {
        return Err(refused.into());
    }
    let chain = row.inviter.map_or_else(|| Ok(Vec::new()), |inviter| chain(store, inviter))?;
    let replaced = match replaces(&row)? {
        Some(person) => chain_of(store, person)?.into_iter().next(),
        None => None,
    };
    let (statement, name) = row.filed.map_or((None, None), |filed| (Some(filed.statement), filed.name));
    Ok(Reply::Invite(Box::new(InviteView { statement, name, chain, replaced })))
}

/// Whether the log has room for one more refused use of an invite: somebody who has it and is turned away again and again makes the
/// log no longer than that.
pub(super) fn refusal_is_news(store: &dyn Read, invite: InviteId, token: &[u8; 32]) -> Result<bool, No> {
    match proved_invite(store, invite, token) {
        Ok(row) => Ok(row.refusals < limits::REFUSALS_LOGGED),
        Err(No::Refused(_)) => Ok(false),
        Err(failed) => Err(failed),
    }
}

/// A refusal to somebody who has an invite, with its place in the log of whoever made it.
pub(super) fn refused_use(mut invite: InviteRow, refused: Refused, now: Timestamp) -> Outcome {
    let mut outcome = Outcome::default();
    if invite.refusals < limits::REFUSALS_LOGGED {
        invite.refusals += 1;
        let act = Act::InviteRefused { invite: invite.invite, why: refused.to_string() };
        outcome.writes.push(logged(invite.inviter, now, act));
        outcome.writes.push(Write::Invite(Box::new(invite)));
    }
    outcome.reply = Some(Reply::Refused(refused));
    outcome
}

/// Invites that nobody has used in time, as the log has yet to say.
pub(super) fn overdue(store: &dyn Read, now: Timestamp) -> Result<Vec<Write>, StoreError> {
    let mut writes = Vec::new();
    for invite in store.overdue_invites(now, OVERDUE_AT_ONCE)? {
        writes.push(logged(invite.inviter, now, Act::InviteExpired { invite: invite.invite }));
        writes.push(Write::Invite(Box::new(InviteRow { expired: true, ..invite })));
    }
    Ok(writes)
}

/// Opens an invite for somebody whose refusal is [news](refusal_is_news).
pub(super) fn try_invite(store: &dyn Read, invite: InviteId, token: &[u8; 32], now: Timestamp) -> Result<Outcome, No> {
    let row = proved_invite(store, invite, token)?;
    match open_invite(store, invite, token, now) {
        Err(No::Refused(refused)) => Ok(refused_use(row, refused, now)),
        opened => opened.map(Outcome::reply),
    }
}

pub(super) fn register(
    store: &dyn Read,
    link_key: &PublicKey,
    asked: &Registration,
    now: Timestamp,
) -> Result<Outcome, No> {
    let invite = proved_invite(store, asked.invite, &asked.token)?;
    match enter(store, invite.clone(), link_key, asked, now) {
        Err(No::Refused(refused)) => Ok(refused_use(invite, refused, now)),
        entered => entered,
    }
}

fn enter(
    store: &dyn Read,
    mut invite: InviteRow,
    link_key: &PublicKey,
    asked: &Registration,
    now: Timestamp,
) -> Result<Outcome, No> {
    let registration = without_token(asked);
    if let Some(used_by) = invite.used_by {
        let known = if used_by == asked.person { store.person(used_by)? } else { None };
        let same = known.is_some_and(|row| {
            without_token(&row.registration) == registration || row.again.as_ref() == Some(&registration)
        });
        return if same { Ok(Outcome::reply(Reply::Done)) } else { Err(used().into()) };
    }
    if let Some(refused) = unusable(&standing(store, &invite, now)?) {
        return Err(refused.into());
    }
    if links(&invite)?.is_some() {
        return Err(
            Refused::Invite { what: "it is for one more device of somebody who is here already".to_owned() }.into()
        );
    }
    let again = replaces(&invite)?;
    let certificate = check_registration(store, &invite, link_key, asked)?;
    if let Some(person) = again {
        return enter_anew(store, invite, link_key, registration, (person, certificate.device), now);
    }
    check_newcomer(asked)?;
    let founding = founding(store, &invite, asked)?;
    let (device, person) = (certificate.device, asked.person);
    if store.person(person)?.is_some() || store.device(device)?.is_some() || store.mailbox(asked.inbox)?.is_some() {
        return Err(Refused::malformed("an id is in use").into());
    }
    invite.used_by = Some(person);
    let mut writes = admission_log(&invite, asked, device, founding.as_ref(), now);
    if let Some(founding) = &founding {
        writes.push(Write::Organisation(founding.0.clone()));
    }
    let row = PersonRow {
        registration,
        role: asked.role,
        registrar: founding.is_some(),
        endorsement: founding.map(|(_, endorsement)| endorsement),
        inviter: invite.inviter,
        registered: now,
        withdrawn: None,
        recovery: None,
        line: Vec::new(),
        again: None,
        past: Vec::new(),
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
        waiting: None,
        pack: None,
        revoked: None,
        pending: false,
        former: false,
        ended: false,
    })));
    let wakes = match invite.inviter {
        Some(inviter) if !ready => vec![Wake::Person { person: inviter, event: Event::Newcomer }],
        _ => Vec::new(),
    };
    writes.push(Write::Invite(Box::new(invite)));
    Ok(Outcome { writes, reply: Some(Reply::Done), wakes })
}

/// Whoever is new has nothing to revoke, and an id that is nobody else's.
fn check_newcomer(asked: &Registration) -> Result<(), Refused> {
    if !asked.revocations.is_empty() {
        return Err(Refused::malformed("a newcomer revokes nothing"));
    }
    if asked.person != PersonId::of(&asked.person_key) {
        return Err(Refused::malformed("a newcomer's id follows from their key"));
    }
    Ok(())
}

/// Somebody registers anew: nothing changes for who they were before the new key is endorsed.
fn enter_anew(
    store: &dyn Read,
    mut invite: InviteRow,
    link_key: &PublicKey,
    registration: Registration,
    (person, device): (PersonId, DeviceId),
    now: Timestamp,
) -> Result<Outcome, No> {
    let row = store.person(person)?.ok_or_else(|| Refused::not_found("that person"))?;
    if registration.person != person || registration.organisation.is_some() {
        return Err(Refused::malformed("the registration is somebody else's").into());
    }
    if store.device(device)?.is_some() || store.mailbox(registration.inbox)?.is_some() {
        return Err(Refused::malformed("an id is in use").into());
    }
    let inviter = invite.inviter;
    // Somebody else may have come to vouch for them since the invite was made.
    let by = inviter.map(|inviter| store.person(inviter)).transpose()?.flatten();
    policy::may_enrol_anew(&by.ok_or_else(|| Refused::not_found("the inviter"))?, &row)?;
    keys::may_enrol_anew(store, row.clone(), &registration)?;
    invite.used_by = Some(person);
    let used = Act::InviteUsed { invite: invite.invite, by: person };
    let come = DeviceRow {
        device,
        person,
        link_key: link_key.clone(),
        certificate: registration.certificate.clone(),
        inbox: registration.inbox,
        waiting: None,
        pack: None,
        revoked: None,
        pending: true,
        former: false,
        ended: false,
    };
    let mut wakes: Vec<Wake> = Vec::new();
    let mut writes = Vec::new();
    if let Some(before) = &row.again {
        // Of two enrolments of one person the later one counts.
        keys::end(store, before, &mut writes, &mut wakes)?;
    }
    writes.extend([
        logged(inviter, now, used),
        Write::Mailbox { mailbox: registration.inbox, inbox_of: Some(device) },
        Write::Device(Box::new(come)),
        Write::Person(Box::new(PersonRow { again: Some(registration), ..row })),
        Write::Invite(Box::new(invite)),
    ]);
    wakes.extend(inviter.map(|inviter| Wake::Person { person: inviter, event: Event::Newcomer }));
    Ok(Outcome { writes, reply: Some(Reply::Done), wakes })
}

/// What the log says of somebody who came in, and of their inviter.
fn admission_log(
    invite: &InviteRow,
    asked: &Registration,
    device: DeviceId,
    founding: Option<&(PublicKey, Signed)>,
    now: Timestamp,
) -> Vec<Write> {
    let registered = Act::Registered {
        person_key: asked.person_key.digest(),
        handle: asked.handle.clone(),
        role: asked.role,
        invite: invite.invite,
    };
    let mut acts = Vec::new();
    if let Some((organisation, _)) = founding {
        acts.push((None, Act::Founded { organisation: organisation.digest() }));
    }
    acts.push((Some(asked.person), registered));
    acts.push((Some(asked.person), Act::DeviceAdded { device, certificate: asked.certificate.digest() }));
    if let Some((_, endorsement)) = founding {
        acts.push((Some(asked.person), Act::Endorsed { endorsement: endorsement.digest(), by: None }));
    }
    acts.push((invite.inviter, Act::InviteUsed { invite: invite.invite, by: asked.person }));
    acts.into_iter().map(|(person, act)| logged(person, now, act)).collect()
}

/// An invite for one more device of one's own names nobody, and is good for minutes.
fn check_link(statement: &InviteStatement, own: bool, now: Timestamp) -> Result<(), Refused> {
    if !own || statement.handle.is_some() || statement.name.is_some() {
        return Err(Refused::malformed("an invite for a device is for the inviter's own, and names nobody"));
    }
    if statement.expires > now.plus_ms(limits::LINK_LIFETIME_MS + 60_000) {
        return Err(Refused::malformed("an invite for a device is good for at most ten minutes"));
    }
    Ok(())
}

/// Whose device an invite links, if it makes no person.
pub(super) fn links(invite: &InviteRow) -> Result<Option<PersonId>, StoreError> {
    Ok(invite.statement()?.and_then(|statement| statement.links))
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
    if replaces(invite)?.is_none() {
        free_handle(store, &asked.handle)?;
    }
    let certificate: DeviceCertificate = asked
        .certificate
        .verify(Label::DeviceCertificate, &asked.person_key, "device certificate")
        .map_err(|error| Refused::malformed(error.to_string()))?;
    if certificate.person != asked.person || certificate.link_key != link_key.digest() {
        return Err(Refused::malformed("the device certificate is for another device").into());
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

/// The first invite of a relay, made by the relay itself while there is no organisation.
pub fn first_invite(token_hash: Digest, invite: InviteId, now: Timestamp) -> [Write; 2] {
    let expires = now.plus_ms(limits::INVITE_LIFETIME_MS);
    let row = InviteRow {
        invite,
        token_hash,
        filed: None,
        inviter: None,
        role: None::<Role>,
        handle: None,
        expires,
        used_by: None,
        expired: false,
        refusals: 0,
        cancelled: false,
    };
    let made = Act::InviteMade { invite, statement: None, expires };
    [Write::Invite(Box::new(row)), logged(None, now, made)]
}

#[cfg(test)]
mod tests;
