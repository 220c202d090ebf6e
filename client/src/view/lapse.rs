//! People for whom nobody at the firm vouches any more, in words: why sending waits, and the very command that puts them out.
//!
//! Invariant: whoever reads one of these knows what happened, why, and what to do next.

use privity_protocol::device::Device;
use privity_protocol::device::state::{Cause, Lapse};
use privity_protocol::ids::{MatterId, PersonId};
use serde_json::{Value, json};

use crate::view::{person, person_json, plain};

/// Why texts wait in a matter, in a sentence for each reason; none where nothing waits for that.
pub fn lapses_told(device: &Device, matter: MatterId) -> Option<String> {
    let told: Vec<String> = device
        .lapses_in(matter)
        .iter()
        .map(|lapse| format!("{} {}", person(device, lapse.person), happened(lapse.cause)))
        .collect();
    (!told.is_empty()).then(|| told.join("; "))
}

/// What happened to somebody, after their name.
fn happened(cause: Cause) -> &'static str {
    match cause {
        Cause::Withdrawn(_) => "has no endorsement any more: the firm has withdrawn it",
        Cause::Expired(_) => "has no endorsement any more: it has ended, and nobody has renewed it",
        Cause::KeptBack(_) => {
            "may not be who they were: the relay's audit log says that they, or a device of theirs, were shut out, and the relay keeps back by whom"
        }
    }
}

/// What puts somebody out of a matter: a command for whoever manages it, and whom to ask for everybody else.
pub fn way_out(device: &Device, matter: MatterId, whom: PersonId) -> String {
    if device.profile().role.manages() {
        return format!("`{}` removes them", removal(device, matter, whom));
    }
    asks(&managers(device, matter, whom))
}

/// Whoever else could remove somebody: people in the matter who manage matters, and for whom somebody vouches.
fn managers(device: &Device, matter: MatterId, whom: PersonId) -> Vec<String> {
    let Some(row) = device.matter(matter) else { return Vec::new() };
    let lapsed = |person: PersonId| row.lapses.iter().any(|lapse| lapse.person == person);
    let may = |id: &PersonId| *id != whom && !lapsed(*id) && !device.is_withdrawn(*id);
    let managing = |id: &PersonId| device.person(*id).is_some_and(|known| known.role.manages());
    row.people.iter().filter(|id| may(id) && managing(id)).map(|id| person(device, *id)).collect()
}

/// What somebody does who removes nobody themselves, where these others could.
fn asks(managers: &[String]) -> String {
    match managers {
        [] => "call the firm, by a number that you know, and ask for a new matter, since nobody in this one can remove them".to_owned(),
        [one] => format!("ask {one} to remove them"),
        several => format!("ask one of these to remove them: {}", several.join(", ")),
    }
}

/// The command that removes somebody.
pub fn removal(device: &Device, matter: MatterId, whom: PersonId) -> String {
    let title = device.matter(matter).map(|row| plain(&row.title, false)).unwrap_or_default();
    let handle = device.person(whom).map(|known| plain(&known.handle, false)).unwrap_or_default();
    format!("privity matter remove {} {handle}", quoted(&title))
}

/// As a shell reads it.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// Everybody in a matter for whom nobody vouches, as objects.
pub fn lapses_json(device: &Device, matter: MatterId) -> Vec<Value> {
    let lapses = device.matter(matter).map(|row| row.lapses.as_slice()).unwrap_or_default();
    lapses.iter().map(|lapse| lapse_json(device, lapse)).collect()
}

fn lapse_json(device: &Device, lapse: &Lapse) -> Value {
    let why = match lapse.cause {
        Cause::Withdrawn(_) => "withdrawn",
        Cause::Expired(_) => "expired",
        Cause::KeptBack(_) => "kept_back",
    };
    let mut object = person_json(device, lapse.person);
    object["why"] = json!(why);
    object["accepted"] = json!(lapse.accepted);
    object
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_can_remove_nobody_is_told_whom_to_ask_or_to_have_a_new_matter_opened() {
        assert_eq!(asks(&["Ada (ada)".to_owned()]), "ask Ada (ada) to remove them");
        assert!(asks(&["Ada (ada)".to_owned(), "Cyn (cyn)".to_owned()]).ends_with("Ada (ada), Cyn (cyn)"));
        let alone = asks(&[]);
        assert!(alone.contains("new matter") && !alone.contains("ask an attorney"), "{alone}");
    }

    #[test]
    fn a_title_reaches_a_shell_as_it_is() {
        assert_eq!(quoted("O'Neill v $(reboot)"), r"'O'\''Neill v $(reboot)'");
    }
}
