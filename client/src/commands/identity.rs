//! `identity show`, `verify`, `trust`, `confirm`, `revoke`, `endorse`: who somebody is, who vouches for them, and what the user has compared.
//!
//! Invariant: what is compared and accepted here is what the relay shows at this moment, held against what this device knows.

use std::time::{Duration, Instant};

use privity_protocol::device::state::{KnownPerson, Stage};
use privity_protocol::device::{Device, Notice};
use privity_protocol::error::{Error as ProtocolError, Refused};
use privity_protocol::frame::PersonView;
use privity_protocol::identity::{
    DeviceCertificate, Endorsement, Identity, SafetyNumber, stays_since, verify_devices, verify_line,
};
use privity_protocol::ids::{MatterId, PersonId, Timestamp};
use qrcode::QrCode;
use qrcode::render::unicode::Dense1x2;
use serde_json::{Value, json};

use crate::commands::adopt::waiting_told;
use crate::commands::{Run, warn};
use crate::error::Error;
use crate::session::{Session, now};
use crate::{ask, out, view};

/// How long `identity show` tries to reach the relay, unless it is told.
const SHOW_WAIT: Duration = Duration::from_secs(5);
/// Groups of digits in a line.
const LINE: usize = 4;

impl Run {
    pub(super) async fn identity_show(&self, handle: Option<&str>, qr: bool) -> Result<(), Error> {
        let (_held, mut session) = self.online().await?;
        let deadline = Instant::now() + self.asked.unwrap_or(SHOW_WAIT);
        let reached = match session.catch_up(deadline).await {
            Ok(notices) => {
                warn(&notices);
                true
            }
            Err(Error::Network(why)) => {
                out::note(&format!("privity: offline ({}); as this device last knew", view::plain(&why, false)));
                false
            }
            Err(error) => return Err(error),
        };
        let own = session.device.profile();
        let shown = match handle.map(plain_handle).filter(|handle| *handle != own.handle) {
            None => {
                let object = own_json(&session.device)?;
                let code = qr.then(|| own.organisation.fingerprint().to_string());
                self.print(&object, || with_code(code, own_text(&session.device, &object)))
            }
            Some(handle) => {
                let person = if reached { self.whom(&mut session, handle).await? } else { known(&session, handle)? };
                let object = identity_json(&session.device, person);
                let code = session.device.safety_number(person).ok().filter(|_| qr).map(|number| number.digits());
                self.print(&object, || with_code(code, identity_text(&session.device, person, &object)))
            }
        };
        shown?;
        if reached { self.done(session).await } else { Ok(()) }
    }

    pub(super) async fn identity_verify(&self, handle: &str, number: Option<&str>, qr: bool) -> Result<(), Error> {
        let given = number.map(str::parse::<SafetyNumber>).transpose()?;
        let (_held, mut session) = self.caught_up().await?;
        let person = self.whom(&mut session, plain_handle(handle)).await?;
        let device = &session.device;
        let who = view::person(device, person);
        if let Some(told) = change_told(device, person) {
            return Err(Error::Untrusted(format!("{told} {}", accept_with(device, person))));
        }
        let number = device.safety_number(person)?;
        let compared = match given {
            Some(given) => given,
            None if self.json || !ask::is_possible() => return Err(Error::Usage("--number is missing".to_owned())),
            None => {
                out::note(&format!("Compare this with {who}, by telephone or side by side; both of you see the same:"));
                out::note(&with_code(qr.then(|| number.digits()), grouped(&number)));
                if !ask::yes("Do all 60 digits match?")? {
                    return Err(mismatch(&who));
                }
                number
            }
        };
        session.device.verify_person(now(), person, &compared).map_err(|error| match error {
            ProtocolError::PeerMisbehaved(_) => mismatch(&who),
            other => other.into(),
        })?;
        session.drain()?;
        let object = identity_json(&session.device, person);
        self.print(&object, || {
            format!("{who} is verified. If their key ever changes, nothing is sent until you accept it.")
        })?;
        self.done(session).await
    }

    pub(super) async fn identity_trust(&self, handle: &str, yes: bool) -> Result<(), Error> {
        let (_held, mut session) = self.caught_up().await?;
        let person = self.whom(&mut session, plain_handle(handle)).await?;
        let who = view::person(&session.device, person);
        let Some(told) = change_told(&session.device, person) else {
            self.print(&identity_json(&session.device, person), || {
                format!("{who} is who they were: nothing to accept.")
            })?;
            return self.done(session).await;
        };
        out::note(&told);
        if let Ok(number) = session.device.changed_safety_number(person) {
            out::note("The safety number with the new key, to compare with them before you accept it:");
            out::note(&grouped(&number));
        }
        if !yes {
            if self.json || !ask::is_possible() {
                return Err(Error::Usage("--yes is missing; nothing was accepted".to_owned()));
            }
            if !ask::yes("Accept the new key?")? {
                return Err(Error::Refused("nothing was accepted".to_owned()));
            }
        }
        session.device.trust_person(now(), person)?;
        session.drain()?;
        let object = identity_json(&session.device, person);
        self.print(&object, || {
            format!("Accepted. {who} is not verified under the new key: `privity identity verify`.")
        })?;
        self.done(session).await
    }

    pub(super) async fn identity_rotate(&self, yes: bool) -> Result<(), Error> {
        let (_held, mut session) = self.caught_up().await?;
        if !yes {
            if self.json || !ask::is_possible() {
                return Err(Error::Usage("--yes is missing; nothing was replaced".to_owned()));
            }
            out::note(
                "A new key takes the place of yours. Your devices stay, and so does your recovery sheet; your contacts are told, and whoever \
                 has compared a safety number with you does it once more.",
            );
            if !ask::yes("Replace your key?")? {
                return Err(Error::Refused("nothing was replaced".to_owned()));
            }
        }
        session.device.replace_key(now())?;
        let replaced = self.until(&mut session, |notice| match notice {
            Notice::KeyReplaced => Some(Ok(())),
            Notice::KeyRefused(why) => Some(Err(why.clone().into())),
            _ => None,
        });
        replaced.await?;
        self.print(&own_json(&session.device)?, || {
            "Done: you have a new key. Nobody leaves a matter for it.".to_owned()
        })?;
        self.done(session).await
    }

    pub(super) async fn identity_confirm(&self, handle: &str) -> Result<(), Error> {
        let (_held, mut session) = self.caught_up().await?;
        let person = self.whom(&mut session, plain_handle(handle)).await?;
        let who = view::person(&session.device, person);
        let known = session.device.person(person);
        let (named, by) = (known.is_some_and(KnownPerson::is_named), vouching(&session.device, person));
        if known.and_then(said_of).is_some_and(|said| said.confirmed) {
            self.print(&identity_json(&session.device, person), || match named {
                true => format!("{who}: the name is confirmed already."),
                false => format!("{who}: the name is confirmed already, by {by}. {}", name_comes(&by)),
            })?;
            return self.done(session).await;
        }
        if !named {
            return Err(Error::Refused(format!(
                "the name of {who} is not known on this device, so there is nothing to confirm: {by} knows it, and can. {}",
                name_comes(&by)
            )));
        }
        session.device.confirm_name(now(), person)?;
        let kept = self.until(&mut session, |notice| match notice {
            Notice::EndorsedAnew { person: of, outcome } if *of == person => Some(outcome.clone().map_err(Error::from)),
            _ => None,
        });
        kept.await?;
        let who = view::person(&session.device, person);
        self.print(&identity_json(&session.device, person), || {
            format!("Confirmed: {who} is called that, on your word.")
        })?;
        self.done(session).await
    }

    pub(super) async fn identity_revoke(&self, handle: &str, yes: bool) -> Result<(), Error> {
        let (_held, mut session) = self.caught_up().await?;
        let person = self.whom(&mut session, plain_handle(handle)).await?;
        let who = view::person(&session.device, person);
        if session.device.is_withdrawn(person) {
            let object = withdrawn_json(&session.device, person);
            self.print(&object, || format!("{who}: withdrawn already.{}", what_next(&session.device, person)))?;
            return self.done(session).await;
        }
        out::note(&format!(
            "Withdrawing the firm's endorsement of {who}: the relay admits none of their devices any more and serves none, their open \
             invites are void, nobody adds them to a matter, and whoever shares one with them is asked before anything more is sent there. \
             Whom they have vouched for stays as they are, and what was written stays readable. `privity identity endorse` undoes it."
        ));
        if !yes {
            if self.json || !ask::is_possible() {
                return Err(Error::Usage("--yes is missing; nothing was withdrawn".to_owned()));
            }
            if !ask::yes(&format!("Withdraw the endorsement of {who}?"))? {
                return Err(Error::Refused("nothing was withdrawn".to_owned()));
            }
        }
        session.device.withdraw_endorsement(now(), person)?;
        let kept = self.until(&mut session, |notice| match notice {
            Notice::Withdrawn { person: of } if *of == person => Some(Ok(())),
            Notice::NotWithdrawn { person: of, why } if *of == person => Some(Err(Error::from(why.clone()))),
            _ => None,
        });
        kept.await?;
        session.drain()?;
        let object = withdrawn_json(&session.device, person);
        self.print(&object, || {
            format!("Withdrawn: nobody vouches for {who} any more.{}", what_next(&session.device, person))
        })?;
        self.done(session).await
    }

    pub(super) async fn identity_endorse(&self, handle: &str, yes: bool) -> Result<(), Error> {
        let (_held, mut session) = self.caught_up().await?;
        let person = self.whom(&mut session, plain_handle(handle)).await?;
        let who = view::person(&session.device, person);
        if !session.device.is_withdrawn(person) {
            self.print(&identity_json(&session.device, person), || {
                format!("{who}: nothing was withdrawn, and they are vouched for.")
            })?;
            return self.done(session).await;
        }
        if !yes {
            if self.json || !ask::is_possible() {
                return Err(Error::Usage("--yes is missing; nobody was endorsed".to_owned()));
            }
            out::note("Make sure by telephone or side by side that it is them.");
            if !ask::yes(&format!("Vouch for {who} again?"))? {
                return Err(Error::Refused("nobody was endorsed".to_owned()));
            }
        }
        session.device.endorse_again(now(), person)?;
        let kept = self.until(&mut session, |notice| match notice {
            Notice::EndorsedAnew { person: of, outcome } if *of == person => Some(outcome.clone().map_err(Error::from)),
            _ => None,
        });
        kept.await?;
        session.drain()?;
        self.print(&identity_json(&session.device, person), || {
            format!("Endorsed: {who} is vouched for again, and their devices are admitted as before.")
        })?;
        self.done(session).await
    }

    /// The person with a handle, as the relay shows them now, and as their endorsement says.
    pub(super) async fn whom(&self, session: &mut Session, handle: &str) -> Result<PersonId, Error> {
        let directory: Vec<PersonView> = self.directory(session).await?;
        let person = view::find_person(&directory, handle)?;
        if person == session.device.profile().person {
            return Err(Error::Usage("that is you; `privity identity show` shows what others can compare".to_owned()));
        }
        session.device.ask_identity(now(), person);
        let shown = self.until(session, |notice| match notice {
            Notice::Identity { person: of, outcome } if *of == person => Some(Ok(outcome.clone())),
            _ => None,
        });
        match shown.await? {
            Ok(()) => {}
            Err(ProtocolError::Refused(Refused::NotFound { .. })) => {
                let shown = view::plain(handle, false);
                return Err(Error::NotYet(format!("{shown} is not ready yet: nobody has vouched for them")));
            }
            Err(error) => return Err(error.into()),
        }
        let named = session.device.person(person).is_some_and(|known| known.handle == handle);
        if named || session.device.person(person).is_some_and(|known| known.changed.is_some()) {
            return Ok(person);
        }
        Err(Error::Untrusted(
            "the relay says another handle of somebody than whoever vouches for them; ask your firm's IT".to_owned(),
        ))
    }
}

/// The matters that this device shares with somebody.
fn shared(device: &Device, person: PersonId) -> Vec<MatterId> {
    let open = device.matters().filter(|(_, row)| row.stage != Stage::Removed && row.people.contains(&person));
    open.map(|(matter, _)| matter).collect()
}

fn withdrawn_json(device: &Device, person: PersonId) -> Value {
    let matters: Vec<Value> = shared(device, person)
        .into_iter()
        .filter_map(|matter| Some((matter, device.matter(matter)?)))
        .map(|(matter, row)| json!({ "matter": matter.to_string(), "title": row.title }))
        .collect();
    json!({
        "v": view::SCHEMA, "person": person.to_string(), "handle": device.person(person).map(|known| known.handle.clone()),
        "state": "withdrawn", "matters": matters,
    })
}

/// What is left to do once somebody's endorsement is withdrawn.
fn what_next(device: &Device, person: PersonId) -> String {
    let matters = shared(device, person);
    let unseen = "Matters that you are not in can't be seen from here: whoever shares one with them is asked before anything more is sent \
                  there, and a colleague in it removes them. A client who was alone with them needs a new matter: `privity matter new`.";
    if matters.is_empty() {
        return format!(" They are in no matter of yours.\n{unseen}");
    }
    let mut lines = vec![" Remove them from these matters of yours:".to_owned()];
    lines.extend(matters.into_iter().map(|matter| format!("  {}", view::removal(device, matter, person))));
    lines.push(unseen.to_owned());
    lines.join("\n")
}

/// Why nothing is sent in a matter, where somebody in it is not whom the user has verified.
pub(crate) fn doubt(device: &Device, matter: MatterId) -> Option<Error> {
    let person = *device.in_doubt(matter).first()?;
    let told = change_told(device, person)?;
    Some(Error::Untrusted(format!("{told} Nothing was sent. {}", accept_with(device, person))))
}

/// The handles of those whose names look like somebody's.
pub(crate) fn looks_like(device: &Device, person: PersonId) -> Vec<String> {
    let alike = device.look_alikes(person).into_iter();
    alike.filter_map(|other| device.person(other)).map(|known| known.handle.clone()).collect()
}

pub(super) fn plain_handle(handle: &str) -> &str {
    handle.trim_start_matches('@')
}

fn known(session: &Session, handle: &str) -> Result<PersonId, Error> {
    let found = session.device.people().find(|(_, known)| known.handle == handle).map(|(person, _)| person);
    found.ok_or_else(|| Error::Network(format!("this device does not know {} yet", view::plain(handle, false))))
}

fn mismatch(who: &str) -> Error {
    Error::Untrusted(format!(
        "that is not the safety number with {who}: a digit was misread, or somebody stands between the two of you. Compare once more, \
         side by side if you can; until it matches, write nothing to them that must stay between you, and tell your firm's IT"
    ))
}

/// What has changed about somebody, and since when.
fn change_told(device: &Device, person: PersonId) -> Option<String> {
    let known = device.person(person)?;
    let changed = known.changed.as_ref()?;
    let who = view::person(device, person);
    let compared = known.verified_at().map_or_else(
        || {
            format!(
                "{who} has another key than the one this device has known since {}",
                view::day(known_since(device, known))
            )
        },
        |at| format!("WARNING: {who} has another key than the one you verified on {}", view::day(at)),
    );
    let how = how_changed(device, person).unwrap_or_default();
    Some(format!("{compared}; it was first seen on {}.{how}", view::day(changed.at)))
}

/// What is said of somebody as they are known.
fn said_of(known: &KnownPerson) -> Option<Endorsement> {
    known.endorsements().into_iter().next()
}

/// Whoever vouches for somebody, in words.
fn vouching(device: &Device, person: PersonId) -> String {
    let issuer = device.person(person).and_then(said_of).and_then(|said| said.issuer);
    issuer.map_or_else(|| "the firm".to_owned(), |issuer| view::person(device, issuer.person))
}

/// How a name reaches this device that only whoever vouches for the person knows.
fn name_comes(by: &str) -> String {
    format!(
        "The relay never learns names: it comes here by itself once you, they and {by} are in one matter, or somebody adds them who knows it"
    )
}

/// Since when somebody is known. Profiles of the first version kept no time for whoever invited them: they are known since that.
fn known_since(device: &Device, known: &KnownPerson) -> Timestamp {
    let joined = || device.profile().certificate.unverified::<DeviceCertificate>("device certificate");
    match known.since {
        Timestamp(0) => joined().map_or(known.since, |own| own.made_at),
        since => since,
    }
}

/// How somebody came by another key, as the statements about it say.
fn how_changed(device: &Device, person: PersonId) -> Option<String> {
    let known = device.person(person)?;
    let first = known.changed.as_ref()?.chain.first()?;
    let steps = verify_line(first).ok()?;
    if known.is_forked() {
        return Some(
            " Two keys both claim to follow one that they had, and only one can be theirs: somebody else has that old key. Ask them, not by \
             Privity, which number is theirs."
                .to_owned(),
        );
    }
    if stays_since(&steps, known.key()?).is_none() {
        let said: Endorsement = first.endorsement.unverified("endorsement").ok()?;
        let by = said.issuer.map(|issuer| view::person(device, issuer.person)).unwrap_or_else(|| "the firm".to_owned());
        return Some(format!(
            " They were enrolled anew, with a new device; {by} vouches for the new key. Their new device comes into your matters only once \
             you have accepted it."
        ));
    }
    Some(match steps.last()?.recovered {
        true => " They began again from their recovery sheet, on a new device.".to_owned(),
        false => " They replaced it themselves: the key before has signed the new one.".to_owned(),
    })
}

fn accept_with(device: &Device, person: PersonId) -> String {
    let handle = device.person(person).map(|known| view::plain(&known.handle, false)).unwrap_or_default();
    format!("Ask them by telephone why; `privity identity trust {handle}` accepts it")
}

fn own_json(device: &Device) -> Result<Value, Error> {
    let profile = device.profile();
    let mut object = identity_json(device, profile.person);
    let fields = json!({
        "person": profile.person.to_string(), "handle": profile.handle, "name": profile.name.name,
        "role": profile.role.word(), "state": if device.is_ready() { "ready" } else { "waiting" },
        "firm_number": device.firm_number().ok().map(|number| number.to_string()),
    });
    for (name, value) in fields.as_object().into_iter().flatten() {
        object[name] = value.clone();
    }
    Ok(object)
}

/// Somebody's identity as an object.
pub(super) fn identity_json(device: &Device, person: PersonId) -> Value {
    let known = device.person(person);
    let endorsements = known.map(|known| known.endorsements()).unwrap_or_default();
    let said = endorsements.first();
    let vouching = known.map(|known| known.chain.iter().skip(1).collect::<Vec<_>>()).unwrap_or_default();
    let vouching: Vec<Value> = vouching
        .into_iter()
        .zip(endorsements.iter().skip(1))
        .map(|(identity, said)| {
            json!({ "person": identity.person.to_string(), "handle": said.handle, "role": said.role.word(),
                    "registrar": said.registrar, "since": said.from.0, "until": said.until.0 })
        })
        .collect();
    let devices = known.and_then(newest).and_then(|first| verify_devices(first).ok());
    let devices: Vec<Value> = devices
        .unwrap_or_default()
        .iter()
        .filter(|(_, certified)| !device.is_revoked(certified.device))
        .map(|(_, device)| json!({ "device": device.device.to_string(), "since": device.made_at.0 }))
        .collect();
    let number = |number: Result<SafetyNumber, ProtocolError>| number.ok().map(|number| number.to_string());
    json!({
        "v": view::SCHEMA, "person": person.to_string(), "handle": known.map(|known| known.handle.clone()),
        "name": known.and_then(|known| known.name.as_ref()).map(|name| name.name.clone()),
        "self_stated": known.is_some_and(|known| known.self_stated), "role": known.map(|known| known.role.word()),
        "registrar": said.is_some_and(|said| said.registrar), "adopted": said.is_some_and(|said| said.adopted),
        "since": said.map(|said| said.from.0), "until": said.map(|said| said.until.0),
        "vouched_by": vouching, "organisation": device.profile().organisation.fingerprint().to_string(),
        "key": known.and_then(|known| known.chain.first()).map(|first| first.person_key.fingerprint().to_string()),
        "withdrawn": device.withdrawal(person).map(|said| {
            json!({ "at": said.at.0, "by": said.issuer.map(|issuer| view::person_json(device, issuer.person)) })
        }),
        "devices": devices, "safety_number": number(device.safety_number(person)),
        "looks_like": looks_like(device, person),
        "verified": known.and_then(|known| known.verified_at()).map(|at| at.0),
        "changed": known.and_then(|known| known.changed.as_ref()).map(|changed| {
            json!({ "since": changed.at.0, "safety_number": number(device.changed_safety_number(person)) })
        }),
    })
}

fn own_text(device: &Device, object: &Value) -> String {
    let profile = device.profile();
    let mut lines = vec![format!(
        "{} ({}), {}: this is you",
        view::plain(&profile.name.name, false),
        profile.handle,
        profile.role.word()
    )];
    lines.extend(standing(device, profile.person));
    lines.push(format!("  firm's key     {}", profile.organisation.fingerprint()));
    lines.push(format!("  your key       {}", object["key"].as_str().unwrap_or("nobody has vouched for it yet")));
    lines.extend(waiting_told(device));
    lines.push("`privity identity show HANDLE` shows the safety number with somebody.".to_owned());
    lines.join("\n")
}

fn identity_text(device: &Device, person: PersonId, object: &Value) -> String {
    let who = view::person(device, person);
    let known = device.person(person);
    let mut lines = vec![format!("{who}, {}", object["role"].as_str().unwrap_or_default())];
    let name = match known {
        Some(known) if known.name.is_none() => {
            Some(format!("not known here yet. {}", name_comes(&vouching(device, person))))
        }
        Some(known) if !known.is_named() => {
            Some("as it was before; what they are called now was not told here yet".to_owned())
        }
        Some(known) if known.self_stated => {
            Some("as they gave it themselves; nobody at the firm has confirmed it".to_owned())
        }
        _ => None,
    };
    lines.extend(name.map(|name| format!("  name           {name}")));
    let like = looks_like(device, person);
    if !like.is_empty() {
        let like = view::plain(&like.join(", "), false);
        lines.push(format!("  looks like     {like}: tell them apart by their handles"));
    }
    if let Some(said) = device.withdrawal(person) {
        let by = said.issuer.map_or_else(|| "the firm's key".to_owned(), |issuer| view::person(device, issuer.person));
        lines.push(format!("  WITHDRAWN      on {} by {by}: nobody vouches for them any more", view::day(said.at)));
    }
    lines.extend(standing(device, person));
    lines.push(format!("  firm's key     {}", device.profile().organisation.fingerprint()));
    lines.extend(compared(device, person));
    lines.join("\n")
}

/// What was compared with somebody, and what there is to compare: of a changed key the new number, and the one that is over last.
fn compared(device: &Device, person: PersonId) -> Vec<String> {
    let verified = device.person(person).and_then(|known| known.verified_at());
    let Some(told) = change_told(device, person) else {
        let told = match verified {
            Some(at) => format!("  verified       yes, on {}", view::day(at)),
            None => "  verified       no: compare the safety number, then `privity identity verify`".to_owned(),
        };
        let number = match device.safety_number(person) {
            Ok(number) => format!("  safety number\n{}", grouped(&number)),
            Err(_) => "  safety number  not yet: somebody has to vouch for you first".to_owned(),
        };
        return vec![told, number];
    };
    let mut lines = vec![format!("{told} {}.", accept_with(device, person))];
    lines.push(match device.changed_safety_number(person) {
        Ok(number) => format!("  safety number with the new key\n{}", grouped(&number)),
        Err(_) => "  safety number with the new key: not yet, the relay has not shown it".to_owned(),
    });
    if let Ok(number) = device.safety_number(person) {
        let when = verified.map_or_else(|| "never compared".to_owned(), |at| format!("verified on {}", view::day(at)));
        lines.push(format!("  with the key before, {when}; it is good for nothing any more\n{}", grouped(&number)));
    }
    lines
}

/// Somebody's identity as it is shown now: under the newest key, accepted or not.
fn newest(known: &KnownPerson) -> Option<&Identity> {
    let changed = known.changed.as_ref().and_then(|changed| changed.chain.first());
    changed.or_else(|| known.chain.first())
}

/// Who vouches for somebody, since when and until when, and their devices.
fn standing(device: &Device, person: PersonId) -> Vec<String> {
    let Some(known) = device.person(person) else { return Vec::new() };
    let endorsements = known.endorsements();
    let mut lines: Vec<String> = Vec::new();
    for (index, said) in endorsements.iter().enumerate() {
        let by = said.issuer.map_or_else(
            || "the firm's key".to_owned(),
            |issuer| match (device.person(issuer.person), endorsements.get(index + 1)) {
                (Some(_), _) => view::person(device, issuer.person),
                (None, Some(above)) => above.handle.clone(),
                (None, None) => issuer.person.to_string(),
            },
        );
        let whom = if index == 0 { String::new() } else { format!("{} by ", said.handle) };
        let begins = if index == 0 { "  vouched for by " } else { "                 " };
        let adopted =
            if said.adopted { ", who let them in for whoever had invited them, after comparing digits" } else { "" };
        lines.push(format!("{begins}{whom}{by}{adopted}, {}", lasting(said)));
    }
    let mut devices = newest(known).and_then(|first| verify_devices(first).ok()).unwrap_or_default();
    devices.retain(|(_, certified)| !device.is_revoked(certified.device));
    let shown = |(_, device): &(_, DeviceCertificate)| {
        let id: String = device.device.to_string().chars().take(6).collect();
        format!("{id} since {}", view::day(device.made_at))
    };
    let devices: Vec<String> = devices.iter().map(shown).collect();
    let devices = if devices.is_empty() { "none that is in use".to_owned() } else { devices.join(", ") };
    lines.push(format!("  devices        {devices}"));
    lines
}

fn lasting(said: &Endorsement) -> String {
    let ended = if said.until <= now() { " (expired)" } else { "" };
    format!("since {}, until {}{ended}", view::day(said.from), view::day(said.until))
}

/// A safety number in lines that are easy to read to somebody.
pub(super) fn grouped(number: &SafetyNumber) -> String {
    let shown = number.to_string();
    let groups: Vec<&str> = shown.split(' ').collect();
    groups.chunks(LINE).map(|line| format!("    {}", line.join(" "))).collect::<Vec<_>>().join("\n")
}

fn with_code(code: Option<String>, text: String) -> String {
    let drawn = code.and_then(|code| QrCode::new(code.as_bytes()).ok());
    match drawn {
        Some(code) => format!("{}\n{text}", code.render::<Dense1x2>().quiet_zone(true).build()),
        None => text,
    }
}
