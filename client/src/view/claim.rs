//! What a device found out about its relay, in sentences and objects.
//!
//! Invariant: a member's word is told as theirs, and never as a fact.

use jiff::Timestamp as Instant;
use privity_protocol::device::Device;
use privity_protocol::ids::{MatterId, PersonId, Position, Timestamp};
use privity_protocol::proof::{Claim, Contradiction, How, Note};
use serde_json::{Value, json};

use crate::view::{person, plain, title};

/// A claim as a sentence, with names and titles as this device knows them.
pub fn claim(device: &Device, claim: &Claim) -> String {
    let quoted = |matter| format!("\"{}\"", title(device, matter));
    sentence(claim, &|id| person(device, id), &quoted)
}

/// A claim as a sentence for somebody else: no names, no titles.
pub fn claim_outside(device: Option<&Device>, claim: &Claim) -> String {
    let who = |id: PersonId| {
        let known = device.and_then(|device| device.person(id));
        known.map_or_else(|| format!("person {id}"), |known| format!("{} (person {id})", plain(&known.handle, false)))
    };
    sentence(claim, &who, &|matter| format!("matter {matter}"))
}

fn sentence(claim: &Claim, who: &dyn Fn(PersonId) -> String, which: &dyn Fn(MatterId) -> String) -> String {
    match claim {
        Claim::Log { at, what, told: None, .. } => format!("{}: {}", utc(*at), plain(what, false)),
        Claim::Log { at, what, told: Some((person, size, _)), .. } => {
            let what = plain(what, false).replacen("a member", &who(*person), 1);
            format!("{}: {what}; theirs has {size} entries", utc(*at))
        }
        Claim::Fork { at, matter, read, shown } => format!(
            "{}: the relay showed two histories of {}: read up to {}, and then shown another past up to {}",
            utc(*at),
            which(*matter),
            read.seq,
            shown.seq
        ),
        Claim::Dispute { at, matter, by, .. } => {
            format!("{}: {} said to have read something else in {}", utc(*at), who(*by), which(*matter))
        }
    }
}

/// A claim as an object.
pub fn claim_json(claim: &Claim) -> Value {
    let position = |at: &Position| json!({ "seq": at.seq, "chain": at.chain.to_string() });
    match claim {
        Claim::Log { number, at, what, told } => {
            let told = told.map(
                |(person, size, root)| json!({ "person": person.to_string(), "size": size, "root": root.to_string() }),
            );
            json!({ "kind": "log", "at": at.0, "what": what, "by": told, "notes": format!("log/{number}") })
        }
        Claim::Fork { at, matter, read, shown } => json!({
            "kind": "fork", "at": at.0, "matter": matter.to_string(), "read": position(read), "shown": position(shown),
        }),
        Claim::Dispute { at, matter, by, positions } => json!({
            "kind": "dispute", "at": at.0, "matter": matter.to_string(), "by": { "person": by.to_string() },
            "read": positions.and_then(|(read, _)| read).as_ref().map(position),
            "said": positions.as_ref().map(|(_, said)| position(said)),
        }),
    }
}

/// What two notes of the relay prove, in a sentence.
pub fn contradiction(found: &Contradiction) -> String {
    let (one, other) = (plain(&found.one, false), plain(&found.other, false));
    match found.how {
        How::OtherRoot { size } => {
            format!("two histories: {one} and {other} are both of {size} entries, and say different things about them")
        }
        How::NotInExport { size } => {
            format!("two histories: {one} is of {size} entries, and {other} begins with other ones")
        }
    }
}

/// As an object.
pub fn contradiction_json(found: &Contradiction) -> Value {
    let (how, size) = match found.how {
        How::OtherRoot { size } => ("other_root", size),
        How::NotInExport { size } => ("not_in_export", size),
    };
    json!({ "one": found.one, "other": found.other, "how": how, "size": size })
}

/// A note that the relay has signed, as an object.
pub fn note_json(note: &Note) -> Value {
    json!({
        "file": note.file, "relay": note.relay.to_string(), "origin": note.checkpoint.origin,
        "leaves": note.checkpoint.size, "root": note.checkpoint.root.to_string(), "signed_at": note.at.0,
    })
}

/// A time that means the same to everybody.
pub fn utc(time: Timestamp) -> String {
    let ms = i64::try_from(time.0).ok();
    ms.and_then(|ms| Instant::from_millisecond(ms).ok())
        .map_or_else(|| "an unknown time".to_owned(), |time| time.strftime("%Y-%m-%d %H:%M:%S UTC").to_string())
}
