//! What people and scripts see: lines of text and objects of JSON, made from records. Pure.
//!
//! Invariant: no text of a peer reaches a terminal before [`plain`] has taken out what a terminal would obey, or a reader
//! would not see.

use jiff::Timestamp as Instant;
use jiff::tz::TimeZone;
use privity_protocol::device::Device;
use privity_protocol::device::state::MatterRow;
use privity_protocol::frame::PersonView;
use privity_protocol::ids::{MatterId, PersonId, Timestamp};
use serde_json::{Value, json};

use crate::error::Error;

mod claim;
mod lapse;
mod notes;
mod record;
mod state;
mod void;

pub use claim::{claim, claim_json, claim_outside, contradiction, contradiction_json, note_json, utc};
pub use lapse::{lapses_json, lapses_told, removal, way_out};
pub use notes::{Notes, lines};
pub use record::{PAST_BEGINS, PAST_ENDS, json, json_received, line};
pub use state::{notice, stage, stage_told, state_shown, state_told};

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

/// The matter that an id or title means, or the beginning of one.
///
/// # Errors
/// [`Error::Usage`] if none or several are meant; [`Error::NotYet`] for whoever has begun again and is in none yet.
pub fn find_matter(device: &Device, asked: &str) -> Result<MatterId, Error> {
    let choices: Vec<Choice<'_>> =
        device.matters().map(|(id, row)| Choice { id, title: &row.title, people: handles(device, row) }).collect();
    if choices.is_empty() && device.profile().again {
        return Err(Error::NotYet(no_matter(device.profile().role.manages(), true).to_owned()));
    }
    find_among(&choices, asked, device.profile().role.manages())
}

/// A matter that somebody may mean.
#[derive(Debug, Clone)]
pub(crate) struct Choice<'a> {
    /// Which.
    pub id: MatterId,
    /// Its title, as it is.
    pub title: &'a str,
    /// The handles of everybody else in it.
    pub people: Vec<String>,
}

/// As [`find_matter`], for somebody who `manages` matters, or does not.
pub(crate) fn find_among(choices: &[Choice<'_>], asked: &str, manages: bool) -> Result<MatterId, Error> {
    let asked = asked.trim();
    let by = |fits: &dyn Fn(&Choice<'_>) -> bool| -> Vec<&Choice<'_>> {
        choices.iter().filter(|choice| fits(choice)).collect()
    };
    let mut found = by(&|choice| choice.id.to_string() == asked || choice.title == asked);
    if found.is_empty() && !asked.is_empty() {
        found = by(&|choice| choice.id.to_string().starts_with(asked));
    }
    let lower = asked.to_lowercase();
    if found.is_empty() {
        found = by(&|choice| choice.title.to_lowercase() == lower);
    }
    if found.is_empty() && !asked.is_empty() {
        found = by(&|choice| choice.title.to_lowercase().starts_with(&lower));
    }
    let shown = plain(asked, false);
    match found.as_slice() {
        [one] => Ok(one.id),
        [] if choices.is_empty() => Err(Error::Usage(no_matter(manages, false).to_owned())),
        [] => Err(Error::Usage(format!("no matter is called \"{shown}\"; `privity matter ls` lists them"))),
        several => Err(Error::Usage(format!(
            "\"{shown}\" means several matters; say which by the beginning of its id: {}",
            several.iter().map(|choice| choice.shown()).collect::<Vec<_>>().join("; ")
        ))),
    }
}

impl Choice<'_> {
    /// The beginning of its id, its title, and who else is in it.
    pub(crate) fn shown(&self) -> String {
        let people = if self.people.is_empty() { "nobody else".to_owned() } else { self.people.join(", ") };
        format!("{} {} ({})", short(self.id), plain(self.title, false), plain(&people, false))
    }
}

/// What somebody does who is in no matter; `again` says that they were here before, and have begun again.
pub(crate) fn no_matter(manages: bool, again: bool) -> &'static str {
    if again {
        "you are let back into your matters as soon as somebody else in each of them is online; until then there is nothing to do but to wait"
    } else if manages {
        "you are in no matter yet; open one with `privity matter new TITLE`, or wait until somebody adds you"
    } else {
        "you are in no matter yet; your lawyer adds you to one, and until then there is nothing to do but to wait"
    }
}

/// The handles of everybody else in a matter.
pub(crate) fn handles(device: &Device, row: &MatterRow) -> Vec<String> {
    let others = row.people.iter().filter(|person| **person != device.profile().person);
    others.map(|id| device.person(*id).map_or_else(|| id.to_string(), |known| known.handle.clone())).collect()
}

/// The person with a handle.
///
/// # Errors
/// [`Error::Usage`] if there is none.
pub fn find_person(directory: &[PersonView], handle: &str) -> Result<PersonId, Error> {
    let found = directory.iter().find(|view| view.handle == handle).map(|view| view.person);
    found.ok_or_else(|| {
        let shown = plain(handle, false);
        Error::Usage(format!(
            "nobody here is called {shown}; `privity people` lists everyone, `privity invite new` invites somebody"
        ))
    })
}

/// One thing or several.
pub fn counted(count: usize, one: &str, several: &str) -> String {
    if count == 1 { format!("1 {one}") } else { format!("{count} {several}") }
}

/// The beginning of a matter's id, for lists.
pub fn short(matter: MatterId) -> String {
    matter.to_string().chars().take(6).collect()
}

/// An object as one line. Characters that a terminal would obey, or a reader would not see, are escaped.
pub fn compact(object: &Value) -> String {
    let mut line = String::new();
    for character in object.to_string().chars() {
        if character.is_control() || is_invisible(character) {
            let mut units = [0; 2];
            for unit in character.encode_utf16(&mut units) {
                line.push_str(&format!("\\u{unit:04x}"));
            }
        } else {
            line.push(character);
        }
    }
    line
}

/// Somebody in the directory, as a line.
pub fn person_view(device: &Device, view: &PersonView) -> String {
    let known = device.person(view.person).and_then(|known| known.name.as_ref());
    let name = known.map(|name| plain(&name.name, false)).unwrap_or_default();
    let stated = device.person(view.person).is_some_and(|known| known.self_stated);
    let waits = match standing(device, view) {
        "withdrawn" => "  — the firm has withdrawn their endorsement",
        "waiting" => "  — waits for whoever invited them to be online",
        _ => "",
    };
    let stated = if stated { " (self-stated)" } else { "" };
    let line = format!("{:<20} {:<9} {name}{stated}{waits}", plain(&view.handle, false), view.role.word());
    line.trim_end().to_owned()
}

/// How somebody in the directory stands: by the relay's word, but where a statement tells this device more.
fn standing(device: &Device, view: &PersonView) -> &'static str {
    match view.ready {
        _ if device.is_withdrawn(view.person) => "withdrawn",
        true => "ready",
        false => "waiting",
    }
}

/// Somebody in the directory, as an object.
pub fn person_view_json(device: &Device, view: &PersonView) -> Value {
    let known = device.person(view.person);
    json!({
        "v": SCHEMA, "person": view.person.to_string(), "handle": view.handle,
        "name": known.and_then(|known| known.name.as_ref()).map(|name| name.name.clone()),
        "role": view.role.word(), "state": standing(device, view),
        "self_stated": known.is_some_and(|known| known.self_stated),
    })
}

/// Somebody in a matter, as an object.
pub fn person_json(device: &Device, person: PersonId) -> Value {
    let known = device.person(person);
    json!({
        "person": person.to_string(), "handle": known.map(|known| known.handle.clone()),
        "name": known.and_then(|known| known.name.as_ref().map(|name| name.name.clone())),
        "role": known.map(|known| known.role.word()),
    })
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

/// A matter's title, safe to show; with the beginning of its id where another matter has the same title.
pub fn title(device: &Device, matter: MatterId) -> String {
    let titles: Vec<(MatterId, &str)> = device.matters().map(|(id, row)| (id, row.title.as_str())).collect();
    titled(&titles, matter)
}

/// As [`title`], over ids and titles.
pub(crate) fn titled(matters: &[(MatterId, &str)], matter: MatterId) -> String {
    let Some((_, title)) = matters.iter().find(|(id, _)| *id == matter) else { return short(matter) };
    let title = plain(title, false);
    let twice = matters.iter().any(|(id, other)| *id != matter && plain(other, false) == title);
    if twice { format!("{title} ({})", short(matter)) } else { title }
}

/// A day, here.
pub fn day(at: Timestamp) -> String {
    let at = i64::try_from(at.0).ok().and_then(|ms| Instant::from_millisecond(ms).ok());
    at.map_or_else(
        || "an unknown day".to_owned(),
        |at| at.to_zoned(TimeZone::system()).strftime("%Y-%m-%d").to_string(),
    )
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
            "\x1b]0;title\x07",
            "\x1b]8;;http://unterminated",
            "\x1b[",
            "\u{90}device control\u{9c}",
            "\u{9d}52;c;x\u{9c}",
            "\u{2066}isolate\u{2069}\u{061c}\u{200f}",
            "a\u{200d}b\u{2060}c\u{00ad}d",
            "\u{85}\u{2028}\u{2029}",
        ];
        for text in corpus {
            let shown = plain(text, true);
            assert!(shown.chars().all(|c| c == '\n' || (!c.is_control() && !is_invisible(c))), "{shown:?}");
        }
        assert_eq!(plain("Grüße, § 7\nzwei", true), "Grüße, § 7\nzwei");
        assert_eq!(plain("one\ntwo", false), "one two");
    }

    #[test]
    fn an_object_holds_nothing_that_a_terminal_would_obey_and_loses_nothing() {
        let object = json!({ "text": "\u{9b}31m \u{202e}x \u{e0041} Grüße\n" });
        let line = compact(&object);
        assert!(line.chars().all(|c| !c.is_control() && !is_invisible(c)), "{line}");
        assert!(line.contains("Grüße"));
        assert_eq!(serde_json::from_str::<Value>(&line).unwrap(), object);
    }

    fn choice(id: MatterId, title: &str) -> Choice<'_> {
        Choice { id, title, people: vec!["bob".to_owned()] }
    }

    #[test]
    fn a_matter_is_found_only_where_one_alone_is_meant() {
        let (one, two, three) = (MatterId::new([0; 16]), MatterId::new([1; 16]), MatterId::new([9; 16]));
        let matters = [choice(one, "Smith v Jones"), choice(two, "Smith v Doe"), choice(three, "Estate")];
        let find = |asked: &str| find_among(&matters, asked, true);
        assert_eq!(find("Smith v Jones").unwrap(), one);
        assert_eq!(find("smith v doe").unwrap(), two);
        assert_eq!(find("est").unwrap(), three);
        assert_eq!(find(&two.to_string()).unwrap(), two);
        assert_eq!(find(&two.to_string()[..8]).unwrap(), two);
        for none in ["", "smith", "a", "Jones", "\x1b[31m"] {
            let error = find(none).unwrap_err();
            assert_eq!(error.exit_code(), 1, "{none}");
            assert!(!error.to_string().contains('\x1b'));
        }
    }

    #[test]
    fn what_could_be_meant_is_listed_with_ids_and_people() {
        let (one, two) = (MatterId::new([0; 16]), MatterId::new([0x55; 16]));
        let twice = [choice(one, "Same"), Choice { people: Vec::new(), ..choice(two, "Same\x1b") }];
        let error = find_among(&twice, "sa", true).unwrap_err().to_string();
        for part in [format!("{} Same (bob)", short(one)), format!("{} Same (nobody else)", short(two))] {
            assert!(error.contains(&part), "{error}");
        }
    }

    #[test]
    fn whoever_may_open_no_matter_is_not_told_to() {
        let told = |manages| find_among(&[], "Lease", manages).unwrap_err().to_string();
        assert!(told(true).contains("matter new"));
        assert!(!told(false).contains("matter new") && told(false).contains("your lawyer"), "{}", told(false));
    }

    #[test]
    fn two_matters_of_the_same_title_are_told_apart_by_their_ids() {
        let (one, two, three) = (MatterId::new([0; 16]), MatterId::new([0x55; 16]), MatterId::new([9; 16]));
        let matters = [(one, "Same"), (two, "Sa\u{200b}me"), (three, "Other")];
        assert_eq!(titled(&matters, one), "Same (aaaaaa)");
        assert_ne!(titled(&matters, two), titled(&matters, one));
        assert_eq!(titled(&matters, three), "Other");
        let choices = matters.map(|(id, title)| choice(id, title));
        assert_eq!(find_among(&choices, &short(two), true).unwrap(), two, "what is shown can be typed");
    }
}
