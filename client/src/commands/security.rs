//! `security show`: what protects this profile and its messages, and what nobody has checked. Without a network.
//!
//! Invariant: nothing is shown as checked that was not, and no secret is shown.

use std::collections::BTreeSet;

use privity_protocol::device::state::Profile;
use privity_protocol::device::{Device, LogView};
use privity_protocol::frame;
use privity_protocol::ids::PersonId;
use privity_protocol::matter::RULES;
use privity_protocol::proof::Claim;
use serde_json::{Value, json};

use crate::commands::Run;
use crate::commands::proof::claims;
use crate::commands::recovery::organisation_sheet;
use crate::error::Error;
use crate::session::Session;
use crate::{keystore, view};

/// The suites, as (name, what for, algorithms).
pub(super) const SUITES: [(&str, &str, &str); 4] = [
    ("transport", "between device and relay", "QUIC, TLS 1.3: X25519MLKEM768; ML-DSA-65 and Ed25519 signatures"),
    ("messages", "from device to device", "MLS 0xF0A2: X-Wing, AES-256-GCM, SHA-384; Ed25519 and ML-DSA-65 signatures"),
    ("identities", "who somebody is", "Ed25519 and ML-DSA-65, both of which must hold"),
    ("vault", "on this disk", "Argon2id, AES-256-GCM"),
];

impl Run {
    pub(super) fn security_show(&self) -> Result<(), Error> {
        let (_held, session) = self.open()?;
        let claims = claims(&session)?;
        let object = self.security_json(&session, &claims)?;
        self.print(&object, || text(&session.device, &object, &claims))
    }

    fn security_json(&self, session: &Session, claims: &[Claim]) -> Result<Value, Error> {
        let profile = session.device.profile();
        let protection = session.vault.protection()?;
        let suites = SUITES.iter().map(|(name, _, algorithms)| ((*name).to_owned(), json!(algorithms)));
        let unchecked = unchecked(&session.device);
        let unchecked: Vec<Value> =
            unchecked.into_iter().map(|(what, told)| json!({ "what": what, "told": told })).collect();
        Ok(json!({
            "v": view::SCHEMA,
            "versions": { "program": env!("CARGO_PKG_VERSION"), "wire": frame::VERSION,
                          "wire_lowest": frame::VERSION_LOWEST, "rules": RULES, "vault": crate::vault::VERSION },
            "suites": suites.collect::<serde_json::Map<_, _>>(),
            "relay": relay_json(profile),
            "organisation": profile.organisation.fingerprint().to_string(),
            "log": session.device.log().map(|log| log_json(&session.device, log)),
            "found": claims.iter().map(|claim| found_json(&session.device, claim)).collect::<Vec<_>>(),
            "profile": { "kdf": "argon2id", "memory_mib": protection.memory_mib, "passes": protection.passes,
                         "lanes": protection.lanes, "unlocked": keystore::get(self.home.folder()).is_some() },
            "recovery": { "sheet": session.device.sheet_since().map(|at| at.0), "holds_key": profile.person_key.is_some(),
                          "organisation_sheet_due": organisation_sheet(&session.vault)?.is_some() },
            "unchecked": unchecked,
        }))
    }
}

/// The relay, its key, and those it had before, the newest of them first.
fn relay_json(profile: &Profile) -> Value {
    let before: Vec<Value> = profile
        .relays_before
        .iter()
        .rev()
        .map(|past| json!({ "key": past.key.to_string(), "until": past.until.0 }))
        .collect();
    let since = profile.relays_before.last().map(|past| past.until.0);
    json!({ "address": profile.address, "key": profile.relay.fingerprint().to_string(), "since": since, "before": before })
}

/// The relay's key; where it took the place of another, since when, and which.
fn relay_key(profile: &Profile) -> String {
    let key = format!("  its key  {}", profile.relay.fingerprint());
    match profile.relays_before.last() {
        Some(past) => format!("{key}, since {}\n  before   {}", view::day(past.until), past.key),
        None => key,
    }
}

/// What this device knows of the relay's audit log, with the signed notes: proof, where they contradict each other.
fn log_json(device: &Device, log: &LogView) -> Value {
    let faults: Vec<Value> = log
        .faults
        .iter()
        .map(|fault| {
            let told = fault.told.map(|(person, head)| {
                let handle = device.person(person).map(|known| known.handle.clone());
                json!({ "person": person.to_string(), "handle": handle, "size": head.size, "root": head.root.to_string() })
            });
            json!({ "at": fault.at.0, "what": fault.what, "known": fault.known, "shown": fault.shown, "told": told })
        })
        .collect();
    json!({ "size": log.head.size, "root": log.head.root.to_string(), "note": log.note, "faults": faults })
}

/// Something that was found out about the relay, with a sentence.
fn found_json(device: &Device, claim: &Claim) -> Value {
    let mut object = view::claim_json(claim);
    object["told"] = view::claim(device, claim).into();
    object
}

/// What rests on somebody's word: a word for scripts, and a sentence.
fn unchecked(device: &Device) -> Vec<(&'static str, String)> {
    let mut found = vec![
        (
            "link",
            "This command asks nobody: whether the relay still has this key shows with the next contact".to_owned(),
        ),
        (
            "organisation",
            "The firm's fingerprint came with the invite: compare it with the one on the firm's paper".to_owned(),
        ),
        (
            "log",
            "Of the relay's audit log this device checks that it only grows, that the people in your matters know the same one, and \
             what it says of you and of whom you add: `privity audit verify` checks the whole of an export"
                .to_owned(),
        ),
    ];
    let people: BTreeSet<PersonId> = device.matters().flat_map(|(_, row)| row.people.clone()).collect();
    let own = device.profile().person;
    let compared = |id: &PersonId| {
        device.person(*id).is_some_and(|known| known.changed.is_none() && known.verified_at().is_some())
    };
    let unmet = people.iter().filter(|id| **id != own && !compared(id)).count();
    if unmet > 0 {
        let whom = view::counted(unmet, "person", "people");
        found.push((
            "first_contact",
            format!(
                "With {whom} in your matters no safety number was compared (`privity identity verify`): whoever could read their \
                 invite could have taken their place"
            ),
        ));
    }
    let stated = people.iter().filter(|id| device.person(**id).is_some_and(|known| known.self_stated)).count();
    if stated > 0 {
        let names = view::counted(stated, "name was", "names were");
        found.push(("names", format!("{names} chosen by the people themselves: self-stated")));
    }
    for (id, row) in device.matters() {
        if row.disputed.is_some() {
            let title = view::title(device, id);
            found.push(("dispute", format!("In {title} somebody says to have read something else than you")));
        }
    }
    found
}

/// What is on paper, and what should be.
fn recovery(device: &Device, organisation_due: bool) -> String {
    let own = match (device.profile().person_key.is_some(), device.sheet_since()) {
        (true, Some(since)) => format!("your sheet was made on {}", view::day(since)),
        (true, None) => "no sheet of yours is on paper: privity recovery create makes one".to_owned(),
        (false, _) => "sheets are made on the device that holds your key".to_owned(),
    };
    let firms = "; the firm's key has none: privity recovery organisation shows it";
    format!("recovery   {own}{}", if organisation_due { firms } else { "" })
}

fn text(device: &Device, object: &Value, claims: &[Claim]) -> String {
    let profile = device.profile();
    let versions = &object["versions"];
    let mut lines = Vec::new();
    if !claims.is_empty() {
        lines.push("FOUND, and not in order:".to_owned());
        lines.extend(claims.iter().map(|claim| format!("  - {}", view::claim(device, claim))));
        lines.push("  `privity audit proof --out DIR` writes it down for others to check".to_owned());
    }
    lines.extend([
        format!(
            "versions   privity {}, wire {}, rules {}, vault {}",
            env!("CARGO_PKG_VERSION"),
            versions["wire"],
            versions["rules"],
            versions["vault"]
        ),
        format!("relay      {}", view::plain(&profile.address, false)),
        relay_key(profile),
        format!("firm       {}", view::plain(&profile.firm, false)),
        format!("  its key  {}", profile.organisation.fingerprint()),
    ]);
    lines.extend(SUITES.iter().map(|(name, what, algorithms)| format!("{name:<10} {algorithms} ({what})")));
    lines.push(match device.log() {
        Some(log) if log.faults.is_empty() => format!("audit log  {} entries, in order as far as seen", log.head.size),
        Some(log) => {
            format!("audit log  WARNING: {} entries, and not one and the same for all: see above", log.head.size)
        }
        None => "audit log  nothing of it was seen yet".to_owned(),
    });
    let kdf = &object["profile"];
    lines.push(format!(
        "passphrase each guess takes {} MiB and {} passes of Argon2id; {}",
        kdf["memory_mib"],
        kdf["passes"],
        if kdf["unlocked"] == true { "unlocked for a while now" } else { "locked" }
    ));
    lines.push(recovery(device, object["recovery"]["organisation_sheet_due"] == true));
    lines.push("Not checked:".to_owned());
    let unchecked = object["unchecked"].as_array().map_or(&[][..], Vec::as_slice);
    lines.extend(unchecked.iter().map(|found| format!("  - {}", found["told"].as_str().unwrap_or_default())));
    lines.join("\n")
}
