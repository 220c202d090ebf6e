//! Records as people and scripts see them: what happened in a matter, one plain sentence each, and what to do about it.
//!
//! Invariant: every kind of record has a sentence and an object of its own, and nothing of a peer's is in either unless it is plain.

use privity_protocol::device::Device;
use privity_protocol::device::state::{Record, RecordBody};
use privity_protocol::ids::{PersonId, Position, Timestamp};
use serde_json::{Value, json};

use crate::view::{SCHEMA, clock, counted, person, plain, void, way_out};

/// A record as lines for a terminal.
pub fn line(device: &Device, record: &Record, now: Timestamp) -> String {
    let at = clock(record.at, now);
    let named = |id: PersonId| person(device, id);
    let told = match record.what {
        RecordBody::Withdrawn { person } | RecordBody::Expired { person } | RecordBody::KeptBack { person } => {
            format!("{}; {}", sentence(record, &named), way_out(device, record.matter, person))
        }
        _ => sentence(record, &named),
    };
    format!("{at}  {}", indent(&told))
}

/// What a record says, without its time.
fn sentence(record: &Record, named: &dyn Fn(PersonId) -> String) -> String {
    let from = record.from.map_or_else(|| "somebody".to_owned(), named);
    let people = |people: &[PersonId]| people.iter().map(|id| named(*id)).collect::<Vec<_>>().join(", ");
    let whose = |id: PersonId| match named(id) {
        you if you == "you" => "yours".to_owned(),
        other => other,
    };
    match &record.what {
        RecordBody::Text { text, .. } => format!("{from}: {}", plain(text, true)),
        RecordBody::Added { people: added } => format!("— {from} added {}", people(added)),
        RecordBody::Removed { people: gone } => format!("— {from} removed {}", people(gone)),
        RecordBody::Joined => "— you are in this matter from here on".to_owned(),
        RecordBody::Unknown => {
            format!("— {from} sent something that this version can't show; update privity to see it")
        }
        RecordBody::Void { why, claimed } => void::told(record.from.map(named), why, *claimed),
        RecordBody::Gap => "— a message here has expired at the relay; ask a colleague what it said".to_owned(),
        RecordBody::LetBackIn { person, .. } => {
            let (whose, by) = (named(*person), if from == "you" { "this device".to_owned() } else { from });
            format!("— {by} let a device of {whose} back in, which had missed a change. Nothing to do")
        }
        RecordBody::Requested { people: gone } => format!(
            "— removal of {} requested. It counts once somebody else in the matter has written there again; until then, write nothing \
             here that they must not read",
            people(gone)
        ),
        RecordBody::Silent { person } => format!(
            "— nothing was heard from {}'s device for a long time. Ask them; whoever no longer needs this matter should be removed",
            named(*person)
        ),
        RecordBody::IdentityChanged { person, verified: false } => format!(
            "— {} has another key than before. Ask them why; `privity identity trust` accepts it",
            named(*person)
        ),
        RecordBody::IdentityChanged { person, verified: true } => format!(
            "— WARNING: {} has another key than the one you verified. Nothing is sent here until you accept it: ask them by telephone, \
             then `privity identity trust`",
            named(*person)
        ),
        RecordBody::Withdrawn { person } => format!(
            "— WARNING: the firm has withdrawn the endorsement of {}: nobody vouches for them any more. Nothing is sent here until they are \
             out, or you say /anyway (`privity send --anyway`)",
            named(*person)
        ),
        RecordBody::Expired { person } => format!(
            "— WARNING: the endorsement of {} has ended, and nobody has renewed it. Nothing is sent here until a registrar renews it, they \
             are out, or you say /anyway (`privity send --anyway`)",
            named(*person)
        ),
        RecordBody::KeptBack { person } => format!(
            "— WARNING: the relay's audit log says that {}, or a device of theirs, was shut out, and the relay keeps back by whom. Ask them and \
             a registrar by telephone, and tell your firm's IT. Nothing is sent here until it is explained, they are out, or you say /anyway \
             (`privity send --anyway`)",
            named(*person)
        ),
        RecordBody::DeviceAdded { person, .. } => format!("— a device of {} came in", whose(*person)),
        RecordBody::DeviceRemoved { person, .. } => format!("— a device of {} is out; it was revoked", whose(*person)),
        other => trouble(other, &from),
    }
}

/// What a record of trouble says, or of its end.
fn trouble(what: &RecordBody, from: &str) -> String {
    let told = match what {
        RecordBody::Dispute { .. } => {
            return format!(
                "— WARNING: {from} says to have read something else here than you. Compare by telephone what both of you see; \
                 then /anyway goes on (or `privity send --anyway`)"
            );
        }
        RecordBody::Forked { .. } => {
            "WARNING: the relay shows another history of this matter than before. Nothing is read or sent here any more; what was \
             not sent yet stays here, marked not sent. Tell your firm's IT, and talk to the others by telephone"
        }
        RecordBody::OutOfStep => {
            "this device missed a change and has asked the others to let it back in. Nothing to do; what you write waits until \
             somebody of this matter is online"
        }
        RecordBody::Repaired { from, upto } => return format!("— you are back in. {}", missing(*from, *upto)),
        RecordBody::Continued => {
            return format!("— the matter goes on in a new place on the relay, opened by {from}. Nothing to do");
        }
        RecordBody::Restored { again: 0 } => {
            "the relay was restored from a backup. Nothing of yours was lost; nothing to do"
        }
        RecordBody::Restored { again } => {
            let number = usize::try_from(*again).unwrap_or(usize::MAX);
            let again = counted(number, "message of yours is", "messages of yours are");
            return format!(
                "— the relay was restored from a backup and had forgotten something: {again} sent again. Nothing to do"
            );
        }
        RecordBody::Reinstated => "your removal from this matter did not count: you are still in. Nothing to do",
        RecordBody::Paused => {
            "the relay holds something back that the next change here needs. Nothing is skipped, and it is asked for again. If \
             this lasts for hours, tell your firm's IT"
        }
        RecordBody::Outdated => {
            "this matter follows rules of a newer version: update privity to read on and to write. Nothing is lost"
        }
        _ => "something that this version can't show; update privity to see it",
    };
    format!("— {told}")
}

fn missing(from: u64, upto: u64) -> String {
    match upto.checked_sub(from) {
        None => "Nothing is missing".to_owned(),
        Some(0) => {
            "At most one message that was sent here meanwhile can't be read on this device; ask a colleague for it"
                .to_owned()
        }
        Some(more) => format!(
            "Up to {} messages that were sent here meanwhile can't be read on this device; ask a colleague for them",
            more.saturating_add(1)
        ),
    }
}

/// Continuation lines stand under the first.
fn indent(text: &str) -> String {
    text.replace('\n', "\n       ")
}

/// A record as an object of JSON.
pub fn json(device: &Device, record: &Record) -> Value {
    let from = record.from.map(|from| {
        let known = device.person(from);
        json!({
            "person": from.to_string(),
            "handle": known.map(|known| known.handle.clone()),
            "name": known.and_then(|known| known.name.as_ref().map(|name| name.name.clone())),
        })
    });
    let id = match &record.what {
        RecordBody::Text { id, .. } => Some(id.to_string()),
        _ => None,
    };
    let (kind, body) = body(&record.what);
    json!({
        "v": SCHEMA, "type": kind, "id": id, "matter": record.matter.to_string(), "seq": record.seq, "from": from,
        "sent_at": record.at.0, "body": body, "cursor": record.cursor,
    })
}

/// What stands before and behind what another device has sent.
pub const PAST_BEGINS: &str = "— from your other device:";
/// See [`PAST_BEGINS`].
pub const PAST_ENDS: &str = "— read on this device:";

/// The object of a record that another device has sent: it says so, and has no cursor.
pub fn json_received(device: &Device, record: &Record) -> Value {
    let mut object = json(device, record);
    (object["received"], object["cursor"]) = (true.into(), Value::Null);
    object
}

/// The type and body of a record's object.
fn body(what: &RecordBody) -> (&'static str, Value) {
    let ids = |people: &[PersonId]| people.iter().map(PersonId::to_string).collect::<Vec<_>>();
    let position = |at: &Position| json!({ "seq": at.seq, "chain": at.chain.to_string() });
    match what {
        RecordBody::Text { text, .. } => ("text", json!({ "text": text })),
        RecordBody::Added { people } => ("added", json!({ "people": ids(people) })),
        RecordBody::Removed { people } => ("removed", json!({ "people": ids(people) })),
        RecordBody::Requested { people } => ("requested", json!({ "people": ids(people) })),
        RecordBody::Joined => ("joined", json!({})),
        RecordBody::Void { why, claimed } => ("void", json!({ "why": why, "claimed": claimed })),
        RecordBody::Gap => ("gap", json!({})),
        RecordBody::Dispute { read, said } => {
            ("dispute", json!({ "read": read.as_ref().map(position), "said": said.as_ref().map(position) }))
        }
        RecordBody::IdentityChanged { person, verified } => {
            ("identity_changed", json!({ "person": person.to_string(), "verified": verified }))
        }
        RecordBody::Withdrawn { person } => ("endorsement_withdrawn", json!({ "person": person.to_string() })),
        RecordBody::Expired { person } => ("endorsement_expired", json!({ "person": person.to_string() })),
        RecordBody::KeptBack { person } => ("kept_back", json!({ "person": person.to_string() })),
        RecordBody::OutOfStep => ("out_of_step", json!({})),
        RecordBody::Repaired { from, upto } => ("repaired", json!({ "from": from, "upto": upto })),
        RecordBody::DeviceAdded { person, device } => {
            ("device_added", json!({ "person": person.to_string(), "device": device.to_string() }))
        }
        RecordBody::DeviceRemoved { person, device } => {
            ("device_removed", json!({ "person": person.to_string(), "device": device.to_string() }))
        }
        RecordBody::LetBackIn { person, device } => {
            ("let_back_in", json!({ "person": person.to_string(), "device": device.to_string() }))
        }
        RecordBody::Continued => ("continued", json!({})),
        RecordBody::Silent { person } => ("silent", json!({ "person": person.to_string() })),
        RecordBody::Restored { again } => ("restored", json!({ "again": again })),
        RecordBody::Reinstated => ("reinstated", json!({})),
        RecordBody::Paused => ("paused", json!({})),
        RecordBody::Outdated => ("outdated", json!({})),
        RecordBody::Forked { read, shown } => ("forked", json!({ "read": position(read), "shown": position(shown) })),
        _ => ("unknown", json!({})),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use privity_protocol::ids::{DeviceId, MailboxId, MatterId, MessageId};

    use super::*;

    const ADA: [u8; 16] = [1; 16];
    const EVE: [u8; 16] = [2; 16];

    fn named(id: PersonId) -> String {
        if id == PersonId::new(ADA) { "Ada (ada)".to_owned() } else { "Eve (eve)".to_owned() }
    }

    fn said(from: Option<[u8; 16]>, what: RecordBody) -> String {
        let (matter, from) = (MatterId::new([7; 16]), from.map(PersonId::new));
        let record = Record { cursor: 1, matter, seq: 4, from, device: None, at: Timestamp(0), what };
        sentence(&record, &named)
    }

    /// One of each kind.
    fn all() -> Vec<RecordBody> {
        let people = vec![PersonId::new(EVE)];
        let at = Position::start(MailboxId::new([9; 16]));
        vec![
            RecordBody::Text { id: MessageId::new([3; 16]), text: "hello".to_owned() },
            RecordBody::Added { people: people.clone() },
            RecordBody::Removed { people: people.clone() },
            RecordBody::Requested { people },
            RecordBody::Joined,
            RecordBody::Unknown,
            RecordBody::Void { why: "wrong epoch".to_owned(), claimed: false },
            RecordBody::Gap,
            RecordBody::Dispute { read: None, said: None },
            RecordBody::IdentityChanged { person: PersonId::new(EVE), verified: true },
            RecordBody::Withdrawn { person: PersonId::new(EVE) },
            RecordBody::Expired { person: PersonId::new(EVE) },
            RecordBody::KeptBack { person: PersonId::new(EVE) },
            RecordBody::OutOfStep,
            RecordBody::Repaired { from: 12, upto: 17 },
            RecordBody::LetBackIn { person: PersonId::new(EVE), device: DeviceId::new([5; 16]) },
            RecordBody::DeviceAdded { person: PersonId::new(EVE), device: DeviceId::new([5; 16]) },
            RecordBody::DeviceRemoved { person: PersonId::new(EVE), device: DeviceId::new([5; 16]) },
            RecordBody::Continued,
            RecordBody::Silent { person: PersonId::new(EVE) },
            RecordBody::Restored { again: 3 },
            RecordBody::Reinstated,
            RecordBody::Paused,
            RecordBody::Outdated,
            RecordBody::Forked { read: at, shown: at },
        ]
    }

    #[test]
    fn every_record_has_a_sentence_and_a_type_of_its_own() {
        let sentences: BTreeSet<String> = all().into_iter().map(|what| said(Some(ADA), what)).collect();
        let types: BTreeSet<&str> = all().iter().map(|what| body(what).0).collect();
        assert_eq!((sentences.len(), types.len()), (all().len(), all().len()), "{sentences:?} {types:?}");
        let unshown = sentences.iter().filter(|told| told.contains("can't show")).count();
        assert_eq!(unshown, 1, "only what is unknown can't be shown: {sentences:?}");
    }

    #[test]
    fn what_went_wrong_reads_with_what_to_do() {
        let told = |what| said(Some(ADA), what);
        assert!(told(RecordBody::OutOfStep).contains("Nothing to do; what you write waits"));
        assert!(
            told(RecordBody::Repaired { from: 12, upto: 17 })
                .contains("Up to 6 messages that were sent here meanwhile")
        );
        assert!(told(RecordBody::Repaired { from: 12, upto: 12 }).contains("At most one message"));
        assert!(told(RecordBody::Repaired { from: 12, upto: 11 }).contains("Nothing is missing"));
        let dispute = told(RecordBody::Dispute { read: None, said: None });
        assert!(dispute.contains("Ada (ada) says") && dispute.contains("telephone") && dispute.contains("/anyway"));
        let requested = told(RecordBody::Requested { people: vec![PersonId::new(EVE)] });
        assert!(requested.contains("Eve (eve) requested") && !requested.contains("removed"), "{requested}");
        assert!(told(RecordBody::Restored { again: 1 }).contains("1 message of yours is sent again"));
        assert!(told(RecordBody::Restored { again: 0 }).contains("Nothing of yours was lost"));
    }

    #[test]
    fn a_void_entry_names_its_author_and_who_says_so() {
        let void = |claimed| RecordBody::Void { why: "wrong\x1b[2J epoch".to_owned(), claimed };
        let told = said(Some(ADA), void(true));
        assert!(told.contains("relay says that it came from Ada (ada)") && !told.contains('\x1b'), "{told}");
        let told = said(Some(ADA), void(false));
        assert!(told.contains("from Ada (ada)") && !told.contains("relay"), "{told}");
        assert_eq!(body(&void(false)).1["why"], "wrong\x1b[2J epoch", "a script reads the exact reason");
        assert!(!said(None, void(true)).contains("somebody"));
        assert_eq!(body(&void(true)).1["claimed"], true);
    }
}
