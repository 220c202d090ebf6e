//! `matter new`, `add`, `remove`, `continue`, `ls` and `show`.

use privity_protocol::device::state::Stage;
use privity_protocol::device::{Device, Notice};
use privity_protocol::error::Error as ProtocolError;
use privity_protocol::ids::{MatterId, PersonId};
use serde_json::{Value, json};

use crate::commands::{Run, warn};
use crate::error::Error;
use crate::session::{Session, Told, now};
use crate::{marks, view};

impl Run {
    pub(super) async fn matter_new(&self, title: &str) -> Result<(), Error> {
        let (_held, mut session) = self.caught_up().await?;
        let matter = session.device.open_matter(now(), title)?;
        let opened = self.until(&mut session, |notice| match notice {
            Notice::Opened(id) if *id == matter => Some(Ok(())),
            Notice::NotOpened(id, refused) if *id == matter => Some(Err(refused.clone().into())),
            _ => None,
        });
        opened.await?;
        let title = session.device.matter(matter).map(|row| row.title.clone()).unwrap_or_default();
        self.done(session).await?;
        let object = json!({ "v": view::SCHEMA, "matter": matter.to_string(), "title": title });
        self.print(&object, || format!("Opened {} ({matter}).", view::plain(&title, false)))
    }

    /// Adds or removes people, and waits for each.
    pub(super) async fn change(&self, matter: &str, handles: &[String], add: bool) -> Result<(), Error> {
        let (_held, mut session) = self.caught_up().await?;
        let matter = view::find_matter(&session.device, matter)?;
        let directory = self.directory(&mut session).await?;
        let mut open: Vec<(PersonId, String)> = Vec::new();
        for handle in handles {
            let handle = handle.trim_start_matches('@');
            let person = view::find_person(&directory, handle)?;
            if !open.iter().any(|(known, _)| *known == person) {
                open.push((person, handle.to_owned()));
            }
        }
        let was_in = |session: &Session, person: &PersonId| {
            session.device.matter(matter).is_some_and(|row| row.people.contains(person))
        };
        let already: Vec<PersonId> =
            open.iter().map(|(person, _)| *person).filter(|person| was_in(&session, person) == add).collect();
        for (person, handle) in &open {
            if add {
                session.device.add(now(), matter, *person, handle)?;
            } else {
                session.device.remove(now(), matter, *person, handle)?;
            }
        }
        let mut waits = Vec::new();
        let mut failed: Option<ProtocolError> = None;
        // Where this device can't write now, the wish is kept, and waiting for it here is of no use.
        let held = session
            .device
            .matter(matter)
            .is_some_and(|row| matches!(row.stage, Stage::OutOfStep | Stage::Moving | Stage::Paused | Stage::Outdated));
        let later = session.state_told(matter).filter(|_| held && open.iter().any(|(who, _)| !already.contains(who)));
        while !open.is_empty() {
            let kept = open.iter().find(|(person, _)| held && !already.contains(person)).map(|(person, _)| *person);
            let (person, outcome) = match kept {
                Some(person) => (person, Ok("waiting")),
                None => self.until(&mut session, |notice| change_of(notice, matter)).await?,
            };
            let Some(at) = open.iter().position(|(open, _)| *open == person) else { continue };
            let (_, handle) = open.remove(at);
            let already = already.contains(&person);
            let state = match outcome {
                Ok("done") if !already && is_requested(&session, matter, person) => "requested",
                Ok(state) => state,
                Err(why) => {
                    failed = Some(why);
                    "refused"
                }
            };
            let object = json!({
                "v": view::SCHEMA, "matter": matter.to_string(), "handle": handle, "state": state, "already": already,
            });
            self.print(&object, || change_told(&handle, state, add, already, held))?;
            if state == "waiting" {
                waits.push(handle);
            }
        }
        self.done(session).await?;
        match (failed, later, waits.is_empty()) {
            (Some(why), ..) => Err(why.into()),
            (None, Some(told), _) => Err(Error::NotYet(told.trim_end_matches('.').to_owned())),
            (None, None, true) => Ok(()),
            (None, None, false) => Err(Error::NotYet(format!("not yet ready: {}", waits.join(", ")))),
        }
    }

    /// Continues a matter that nobody can repair, and waits until it has gone on and whoever can be let in is.
    pub(super) async fn matter_continue(&self, matter: &str) -> Result<(), Error> {
        let (_held, mut session) = self.caught_up().await?;
        let matter = view::find_matter(&session.device, matter)?;
        let stage = |session: &Session| session.device.matter(matter).map_or(Stage::Removed, |row| row.stage);
        let before = stage(&session);
        if session.device.profile().role.manages() && before != Stage::OutOfStep {
            let told = session.state_told(matter).map_or_else(String::new, |told| format!(". {told}"));
            return Err(Error::Usage(format!(
                "this matter is not out of step: there is nothing to continue{}",
                told.trim_end_matches('.')
            )));
        }
        session.device.continue_matter(now(), matter)?;
        let deadline = self.deadline();
        while stage(&session) == Stage::OutOfStep {
            match session.next(deadline).await? {
                Told::Notice(notice) => warn(std::slice::from_ref(&*notice)),
                Told::Quiet => break,
                _ => {}
            }
        }
        let stage = stage(&session);
        // The others are added after a pause, in which whoever knows of a later change says so.
        let settled = session.settle(deadline).await;
        session.close().await;
        warn(&settled?);
        let state = view::stage(stage);
        let object = json!({ "v": view::SCHEMA, "matter": matter.to_string(), "state": state });
        self.print(&object, || match stage {
            Stage::Open => "The matter goes on in a new place. The others are let in as they come online.".to_owned(),
            Stage::Moving => {
                "Somebody else has continued this matter; you are let in there as they come online.".to_owned()
            }
            _ => "Not continued yet.".to_owned(),
        })?;
        match stage {
            Stage::Open | Stage::Moving => Ok(()),
            Stage::OutOfStep => {
                Err(Error::NotYet("the relay has not taken it yet; it goes on at the next contact".to_owned()))
            }
            other => Err(Error::Refused(view::stage_told(other).unwrap_or("the matter was not continued").to_owned())),
        }
    }

    pub(super) fn matter_ls(&self) -> Result<(), Error> {
        let (_held, session) = self.open()?;
        for (id, row) in session.device.matters() {
            let unread = marks::unread(&session, id)?;
            let title = view::plain(&row.title, false);
            let object = json!({
                "v": view::SCHEMA, "matter": id.to_string(), "title": row.title, "state": session.state(id),
                "people": row.people.len(), "requested": row.requested.len(), "unread": unread, "disputed": row.disputed.is_some(), "lapsed": row.lapses.len(), "epoch": row.epoch,
                "seq": row.position.seq,
            });
            self.print(&object, || {
                let new = if unread > 0 { format!("  {unread} new") } else { String::new() };
                let state = session.state(id);
                let state = if state == "open" { String::new() } else { view::state_shown(state) };
                let disputed = match (row.disputed, row.waits_for_a_word()) {
                    (Some(_), _) => "  disputed",
                    (None, true) => "  asks before sending: `privity matter show` says why",
                    (None, false) => "",
                };
                let people = view::counted(row.people.len(), "person", "people");
                let leaving = match row.requested.len() {
                    0 => String::new(),
                    leaving => format!(" and {leaving} whose removal is requested"),
                };
                format!("{}  {title}  {people}{leaving}{new}{disputed}  {state}", view::short(id)).trim_end().to_owned()
            })?;
        }
        Ok(())
    }

    pub(super) fn matter_show(&self, matter: &str) -> Result<(), Error> {
        let (_held, session) = self.open()?;
        let id = view::find_matter(&session.device, matter)?;
        let Some(row) = session.device.matter(id) else { return Ok(()) };
        let people: Vec<Value> = row.people.iter().map(|person| view::person_json(&session.device, *person)).collect();
        let waiting: Vec<&str> = session.device.intents(id).into_iter().map(|intent| intent.handle.as_str()).collect();
        let object = json!({
            "v": view::SCHEMA, "matter": id.to_string(), "title": row.title, "state": session.state(id),
            "people": people, "waiting": waiting, "requested": ids(&row.requested),
            "disputed": row.disputed.map(|person| view::person_json(&session.device, person)),
            "lapsed": view::lapses_json(&session.device, id),
            "epoch": row.epoch, "seq": row.position.seq,
        });
        self.print(&object, || {
            let (title, state) = (view::plain(&row.title, false), view::state_shown(session.state(id)));
            let mut lines = vec![format!("{title}  ({id}, {state})")];
            lines.extend(session.state_told(id).map(str::to_owned));
            if row.stage == Stage::OutOfStep && !row.forgotten && session.device.profile().role.manages() {
                lines.push("If nobody is left who could let it back in: privity matter continue --help.".to_owned());
            }
            if let Some(person) = row.disputed {
                lines.push(format!(
                    "{} says to have read something else here than you: compare by telephone what both of you see.",
                    view::person(&session.device, person)
                ));
            }
            if let Some(told) = view::lapses_told(&session.device, id) {
                lines.push(format!("{told}. Sending here asks first."));
            }
            if row.stage == Stage::Removed {
                lines.push("In it, when this device last saw it:".to_owned());
            }
            lines.extend(who(&session, id));
            lines.join("\n")
        })
    }
}

fn ids(people: &[PersonId]) -> Vec<String> {
    people.iter().map(PersonId::to_string).collect()
}

/// Whether somebody's removal was sent, and nobody else has confirmed it.
fn is_requested(session: &Session, matter: MatterId, person: PersonId) -> bool {
    session.device.matter(matter).is_some_and(|row| row.requested.contains(&person))
}

/// What there is to say of somebody who needs not be added or removed, after their handle.
pub(crate) fn already(device: &Device, matter: MatterId, person: PersonId, add: bool) -> Option<&'static str> {
    let row = device.matter(matter)?;
    match (add, row.people.contains(&person)) {
        (true, true) => Some("is in this matter already"),
        (false, false) if row.requested.contains(&person) => Some("is being removed already: see /who"),
        (false, false) => Some("is not in this matter"),
        _ => None,
    }
}

/// Who is in a matter, and who waits to be.
pub(crate) fn who(session: &Session, matter: MatterId) -> Vec<String> {
    let Some(row) = session.device.matter(matter) else { return Vec::new() };
    let gone = |person: &PersonId| row.requested.contains(person);
    let mut lines: Vec<String> = row
        .people
        .iter()
        .filter(|person| !gone(person))
        .map(|person| {
            let who = view::person(&session.device, *person);
            match row.lapses.iter().any(|lapse| lapse.person == *person) {
                true => {
                    let way_out = view::way_out(&session.device, matter, *person);
                    format!("  {who}  — nobody vouches for them any more: {way_out}")
                }
                false => format!("  {who}"),
            }
        })
        .collect();
    lines.extend(row.requested.iter().map(|person| {
        let who = view::person(&session.device, *person);
        format!("  {who}  — removal requested: it counts once somebody else in the matter has written there again")
    }));
    for intent in session.device.intents(matter) {
        let handle = view::plain(&intent.handle, false);
        lines.push(if intent.add {
            format!("  {handle}  — waits until they are ready")
        } else {
            format!("  {handle}  — is being removed")
        });
    }
    lines
}

/// What has become of one wish, by its state; `held` where this device can't write in the matter now.
fn change_told(handle: &str, state: &str, add: bool, already: bool, held: bool) -> String {
    let what = if add { "added" } else { "removed" };
    match (state, add) {
        ("done", true) if already => format!("{handle} is in this matter already."),
        ("done", false) if already => format!("{handle} is not in this matter."),
        ("requested", _) => format!(
            "Removal of {handle} requested. It counts once somebody else in the matter has written there again; until then, \
             write nothing there that they must not read."
        ),
        ("done", true) => format!("Added {handle}."),
        ("done", false) => format!("Removed {handle}."),
        ("waiting", _) if held => format!("{handle} is to be {what}, as soon as this device can write there again."),
        ("waiting", _) => format!("{handle} is not ready yet; they will be added as soon as they are."),
        _ => format!("{handle} could not be {what}."),
    }
}

type Change = (PersonId, Result<&'static str, ProtocolError>);

/// What a notice says about a change of a matter's people.
fn change_of(notice: &Notice, of: MatterId) -> Option<Result<Change, Error>> {
    match notice {
        Notice::Done { matter, person, .. } if *matter == of => Some(Ok((*person, Ok("done")))),
        Notice::Waits { matter, person } if *matter == of => Some(Ok((*person, Ok("waiting")))),
        Notice::NotDone { matter, person, why } if *matter == of => Some(Ok((*person, Err(why.clone())))),
        _ => None,
    }
}
