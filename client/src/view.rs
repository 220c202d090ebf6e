//! What people and scripts see: lines of text and objects of JSON, made from records. Pure.
//!
//! Invariant: no text of a peer reaches a terminal before [`plain`] has taken out what a terminal would obey, or a reader
//! would not see.

use jiff::Timestamp as Instant;
use jiff::tz::TimeZone;
use privity_protocol::device::Device;
use privity_protocol::device::state::{Record, RecordBody};
use privity_protocol::ids::{MatterId, PersonId, Timestamp};
use serde_json::{Value, json};

/// The version of every JSON object's schema, docs/json.md.
pub const SCHEMA: u32 = 1;

/// Text without control characters (C0, C1, so every escape sequence), bidirectional controls and invisible characters. Line breaks
/// and tabs become spaces unless `lines` keeps line breaks.
pub fn plain(text: &str, lines: bool) -> String {
    let kept = text.chars().filter_map(|character| match character {
        '\n' if lines => Some('\n'),
        '\n' | '\t' => Some(' '),
        _ if character.is_control() || is_invisible(character) => None,
        _ => Some(character),
    });
    kept.collect()
}

/// Bidirectional controls, zero-width and other characters that show nothing but change what is read.
fn is_invisible(character: char) -> bool {
    matches!(character,
        '\u{00ad}' | '\u{034f}' | '\u{061c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
        | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
        | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}'
        | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

/// What to call a person.
pub fn person(device: &Device, person: PersonId) -> String {
    if person == device.profile().person {
        return "you".to_owned();
    }
    let known = device.person(person).map(|known| match (&known.name, known.self_stated) {
        (Some(name), true) => format!("{} ({}, self-stated)", name.name, known.handle),
        (Some(name), false) => format!("{} ({})", name.name, known.handle),
        (None, _) => known.handle.clone(),
    });
    plain(&known.unwrap_or_else(|| format!("person {person}")), false)
}

/// A matter's title, safe to show.
pub fn title(device: &Device, matter: MatterId) -> String {
    device.matter(matter).map_or_else(|| matter.to_string(), |row| plain(&row.title, false))
}

/// Time of day here; with the date if it is not today's.
pub fn clock(at: Timestamp, now: Timestamp) -> String {
    let local = |at: Timestamp| {
        let at = i64::try_from(at.0).ok().and_then(|ms| Instant::from_millisecond(ms).ok());
        at.map(|at| at.to_zoned(TimeZone::system()))
    };
    match (local(at), local(now)) {
        (Some(at), Some(now)) if at.date() == now.date() => at.strftime("%H:%M").to_string(),
        (Some(at), _) => at.strftime("%Y-%m-%d %H:%M").to_string(),
        _ => "--:--".to_owned(),
    }
}

/// A record as lines for a terminal.
pub fn line(device: &Device, record: &Record, now: Timestamp) -> String {
    let who = |from: Option<PersonId>| from.map_or_else(|| "somebody".to_owned(), |from| person(device, from));
    let people = |people: &[PersonId]| people.iter().map(|id| person(device, *id)).collect::<Vec<_>>().join(", ");
    let at = clock(record.at, now);
    let from = who(record.from);
    match &record.what {
        RecordBody::Text { text, .. } => format!("{at}  {from}: {}", indent(&plain(text, true))),
        RecordBody::Added { people: added } => format!("{at}  — {from} added {}", people(added)),
        RecordBody::Removed { people: gone } => format!("{at}  — {from} removed {}", people(gone)),
        RecordBody::Joined => format!("{at}  — you are in this matter from here on"),
        RecordBody::Unknown => {
            format!("{at}  — {from} sent something that this version can't show; update privity to see it")
        }
        RecordBody::Void { why } => format!("{at}  — something here could not be accepted: {}", plain(why, false)),
        RecordBody::Gap => format!("{at}  — a message here has expired at the relay"),
        RecordBody::Dispute => format!(
            "{at}  — WARNING: {from} says they read something else here than you did. Either the relay shows two histories, or \
             they are wrong: ask them by another way"
        ),
        _ => format!("{at}  — something that this version can't show"),
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
    let ids = |people: &[PersonId]| people.iter().map(PersonId::to_string).collect::<Vec<_>>();
    let (kind, id, body) = match &record.what {
        RecordBody::Text { id, text } => ("text", Some(id.to_string()), json!({ "text": text })),
        RecordBody::Added { people } => ("added", None, json!({ "people": ids(people) })),
        RecordBody::Removed { people } => ("removed", None, json!({ "people": ids(people) })),
        RecordBody::Joined => ("joined", None, json!({})),
        RecordBody::Unknown => ("unknown", None, json!({})),
        RecordBody::Void { why } => ("void", None, json!({ "why": why })),
        RecordBody::Gap => ("gap", None, json!({})),
        RecordBody::Dispute => ("dispute", None, json!({})),
        _ => ("unknown", None, json!({})),
    };
    json!({
        "v": SCHEMA, "type": kind, "id": id, "matter": record.matter.to_string(), "seq": record.seq, "from": from,
        "sent_at": record.at.0, "body": body, "cursor": record.cursor,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_a_terminal_would_obey_is_left() {
        let corpus = [
            "\x1b]52;c;aGVsbG8=\x07",
            "\x1b]8;;http://x\x1b\\click\x1b]8;;\x1b\\",
            "\x1b[2J\x1b[H",
            "\u{9b}31m",
            "\u{202e}evil\u{202c}",
            "a\u{200b}b",
            "\r overwrite",
            "\x08\x08",
            "\u{feff}",
            "\x1b",
            "\u{e0041}",
        ];
        for text in corpus {
            let shown = plain(text, true);
            assert!(shown.chars().all(|c| c == '\n' || (!c.is_control() && !is_invisible(c))), "{shown:?}");
        }
        assert_eq!(plain("Grüße, § 7\nzwei", true), "Grüße, § 7\nzwei");
        assert_eq!(plain("one\ntwo", false), "one two");
    }
}
