//! `device link`, `device ls`, `device rename` and `device revoke`; `device history` is in `history.rs`.
//!
//! Invariant: no device is linked before somebody, or the script's `--yes`, has said so.

use std::time::{Duration, Instant};

use privity_protocol::device::{Notice, PersonsDevice, Standing};
use privity_protocol::ids::{DeviceId, PersonId};
use privity_protocol::limits;
use serde_json::{Value, json};

use crate::cli::DeviceCommand;
use crate::commands::history::{on_their_way_json, on_their_way_told};
use crate::commands::{Run, invite, warn};
use crate::error::Error;
use crate::session::{Session, Told, now};
use crate::{ask, out, view};

impl Run {
    pub(super) async fn device(&self, command: DeviceCommand) -> Result<(), Error> {
        match command {
            DeviceCommand::Link { yes, name, history } => self.device_link(yes, name.as_deref(), history).await,
            DeviceCommand::History { device, yes } => self.device_history(&device, yes).await,
            DeviceCommand::Ls { of } => self.device_ls(of.as_deref()).await,
            DeviceCommand::Rename { device, name } => self.device_rename(&device, &name).await,
            DeviceCommand::Revoke { device, of, stolen, yes } => {
                self.device_revoke(&device, of.as_deref(), stolen, yes).await
            }
        }
    }

    async fn device_link(&self, yes: bool, name: Option<&str>, history: bool) -> Result<(), Error> {
        if !yes && !ask::is_possible() {
            return Err(Error::Usage("somebody must compare fingerprints; a script says --yes instead".to_owned()));
        }
        let (_held, mut session) = self.caught_up().await?;
        let linked = self.link_one(&mut session, yes).await;
        let device = match linked {
            Ok(device) => device,
            Err(error) => {
                session.close().await;
                return Err(error);
            }
        };
        if let Some(name) = name {
            session.device.rename_device(now(), device, name)?;
        }
        let left = self.tidy(&mut session).await?;
        let object = json!({
            "v": view::SCHEMA, "device": device.to_string(), "state": "linked", "matters_left": left.len(),
            "name": session.device.device_name(device),
        });
        self.print(&object, || "Linked. Your matters come to it.".to_owned())?;
        let ended = self.history_with_link(&mut session, device, yes, history).await;
        self.done(session).await?;
        ended?;
        outstanding(&left, "have yet to let it in")
    }

    /// What was said before goes to a device that was just linked, if the user says so.
    async fn history_with_link(
        &self,
        session: &mut Session,
        device: DeviceId,
        yes: bool,
        history: bool,
    ) -> Result<(), Error> {
        let offer = session.device.history_for(device, &session.vault)?;
        if offer.messages == 0 {
            return Ok(());
        }
        let wanted = match seen(session, device) {
            _ if history => true,
            Some(seen) if !yes => self.asked_history(&called(&seen), offer)?,
            _ => false,
        };
        if wanted {
            return self.history_goes(session, device).await;
        }
        out::note("What was said before stays here; `privity device history` sends it later.");
        Ok(())
    }

    /// Shows an invite, unless somebody waits already, and links who joins with it once somebody has said so.
    async fn link_one(&self, session: &mut Session, yes: bool) -> Result<DeviceId, Error> {
        let seen = match self.who_waits(session).await? {
            Some(seen) => seen,
            None => self.invite_device(session).await?,
        };
        out::note("A device has joined with your invite. Its fingerprint:");
        out::note(&seen.fingerprint.to_string());
        if !yes && !ask::yes("Does the new device show the same, and is it yours?")? {
            session.device.revoke_device(now(), session.device.profile().person, seen.device)?;
            self.answered(session, seen.device).await?;
            return Err(Error::Refused("not linked; that device is turned away for good".to_owned()));
        }
        session.device.certify(now(), seen.device)?;
        self.answered(session, seen.device).await?;
        Ok(seen.device)
    }

    /// Makes an invite, shows it, and waits until somebody has joined with it.
    async fn invite_device(&self, session: &mut Session) -> Result<PersonsDevice, Error> {
        let made = session.device.link_invite(now())?;
        let filed = self.until(session, |notice| match notice {
            Notice::InviteFiled => Some(Ok(())),
            Notice::InviteRefused(refused) => Some(Err(refused.clone().into())),
            _ => None,
        });
        filed.await?;
        let (url, expires) = (made.url(), now().plus_ms(limits::LINK_LIFETIME_MS));
        let object = json!({ "v": view::SCHEMA, "url": url, "expires": expires.0 });
        self.print(&object, || invite::shown(&url, out::columns()))?;
        out::note(
            "Good for one device of yours, for ten minutes. On it: privity join, and this line. Waiting for it …",
        );
        let deadline = Instant::now() + self.asked.unwrap_or(Duration::from_millis(limits::LINK_LIFETIME_MS));
        loop {
            match session.next(deadline).await? {
                Told::Notice(notice) => match *notice {
                    Notice::DeviceWaits { device, .. } => {
                        return seen(session, device).ok_or_else(nobody_came);
                    }
                    other => warn(&[other]),
                },
                Told::Quiet => return Err(nobody_came()),
                _ => {}
            }
        }
    }

    /// A device that waits since before this command, the newest.
    async fn who_waits(&self, session: &mut Session) -> Result<Option<PersonsDevice>, Error> {
        session.device.ask_waiting(now());
        self.until(session, |notice| (*notice == Notice::DevicesAsked).then_some(Ok(()))).await?;
        let own = session.device.devices_of(session.device.profile().person);
        Ok(own.into_iter().rfind(|seen| seen.standing == Standing::Waiting))
    }

    /// Waits for the relay's word on a device that is to be certified or revoked.
    async fn answered(&self, session: &mut Session, wanted: DeviceId) -> Result<(), Error> {
        let answer = self.until(session, |notice| match notice {
            Notice::DeviceLinked { device } | Notice::DeviceRevoked { device } if *device == wanted => Some(Ok(())),
            Notice::DeviceRefused { device, why } if *device == wanted => Some(Err(why.clone().into())),
            _ => None,
        });
        answer.await
    }

    async fn device_ls(&self, of: Option<&str>) -> Result<(), Error> {
        let (_held, mut session) = self.caught_up().await?;
        let person = self.whose(&mut session, of).await?;
        for seen in session.device.devices_of(person) {
            let object = device_json(&session, &seen);
            self.print(&object, || device_line(&session, &seen))?;
        }
        self.done(session).await
    }

    async fn device_rename(&self, asked: &str, name: &str) -> Result<(), Error> {
        let (_held, mut session) = self.caught_up().await?;
        let own = session.device.profile().person;
        let device = find(&session.device.devices_of(own), asked)?.device;
        session.device.rename_device(now(), device, name)?;
        session.drain()?;
        let name = session.device.device_name(device).unwrap_or_default().to_owned();
        let object = json!({ "v": view::SCHEMA, "device": device.to_string(), "name": name });
        self.print(&object, || format!("{device} is called {} now, on all your devices.", view::plain(&name, false)))?;
        self.done(session).await
    }

    async fn device_revoke(&self, asked: &str, of: Option<&str>, stolen: bool, yes: bool) -> Result<(), Error> {
        let (_held, mut session) = self.caught_up().await?;
        let person = self.whose(&mut session, of).await?;
        let seen = find(&session.device.devices_of(person), asked)?;
        if seen.holds_person_key && seen.standing == Standing::Linked {
            person_key_goes(stolen)?;
        }
        if seen.standing != Standing::Revoked {
            self.asked_to_revoke(&session, &seen, of, yes)?;
            session.device.revoke_device(now(), person, seen.device)?;
            self.answered(&mut session, seen.device).await?;
        }
        let left = self.tidy(&mut session).await?;
        let (device, left_count) = (seen.device.to_string(), left.len());
        let object = json!({
            "v": view::SCHEMA, "device": device, "state": "revoked", "matters_left": left_count,
        });
        self.print(&object, || format!("Revoked: {} is let in no more.", called(&seen)))?;
        self.done(session).await?;
        outstanding(&left, "have yet to be cleared of it")
    }

    /// A device that is revoked never comes back: nobody does that by a slip of the finger.
    fn asked_to_revoke(
        &self,
        session: &Session,
        seen: &PersonsDevice,
        of: Option<&str>,
        yes: bool,
    ) -> Result<(), Error> {
        if yes {
            return Ok(());
        }
        if self.json || !ask::is_possible() {
            return Err(Error::Usage("--yes is missing; nothing was revoked".to_owned()));
        }
        let this = seen.device == session.device.profile().device;
        let whose = match of {
            _ if this => "THE DEVICE THAT YOU ARE USING NOW".to_owned(),
            Some(handle) => format!("a device of {}", view::plain(handle, false)),
            None => "a device of yours".to_owned(),
        };
        out::note(&format!(
            "{}: {whose}. Once revoked it reads and sends nothing more, leaves every matter, and is never let in again; what is on it already \
             stays there.",
            called(seen)
        ));
        if !ask::yes("Revoke it?")? {
            return Err(Error::Refused("nothing was revoked".to_owned()));
        }
        Ok(())
    }

    /// The person meant, with what the relay has of their devices.
    async fn whose(&self, session: &mut Session, of: Option<&str>) -> Result<PersonId, Error> {
        let own = session.device.profile().person;
        let Some(handle) = of.filter(|handle| *handle != session.device.profile().handle) else {
            self.who_waits(session).await?;
            return Ok(own);
        };
        let people = self.directory(session).await?;
        let found = people.iter().find(|person| person.handle == handle).map(|person| person.person);
        let person =
            found.ok_or_else(|| Error::Usage(format!("nobody here is called {}", view::plain(handle, false))))?;
        session.device.ask_identity(now(), person);
        let known = self.until(session, |notice| match notice {
            Notice::Identity { person: of, outcome } if *of == person => Some(outcome.clone().map_err(Error::from)),
            _ => None,
        });
        known.await?;
        Ok(person)
    }

    /// Lets matters take devices in and put devices out; returns the titles of those that are left when time is up.
    async fn tidy(&self, session: &mut Session) -> Result<Vec<String>, Error> {
        let deadline = self.deadline();
        let mut before = session.device.untidy();
        while !session.device.untidy().is_empty() {
            if let Told::Quiet = session.next(deadline).await? {
                break;
            }
            let left = session.device.untidy();
            for done in before.iter().filter(|matter| !left.contains(matter)) {
                out::note(&format!("  {}", view::title(&session.device, *done)));
            }
            before = left;
        }
        Ok(session.device.untidy().into_iter().map(|matter| view::title(&session.device, matter)).collect())
    }
}

/// What is left to do is no failure, and not done either.
fn outstanding(left: &[String], what: &str) -> Result<(), Error> {
    if left.is_empty() {
        return Ok(());
    }
    let count = view::counted(left.len(), "matter", "matters");
    Err(Error::NotYet(format!("{count} {what}, as soon as that can be done: {}", left.join(", "))))
}

fn nobody_came() -> Error {
    Error::NotYet("no device has joined with that invite; `privity device link` makes a new one".to_owned())
}

/// The device with the person key is not given up by accident.
fn person_key_goes(stolen: bool) -> Result<(), Error> {
    const WHAT: &str = "it holds the person key: whoever has it could go on linking devices in that person's name, and once it is gone \
                        nobody can link more";
    if !stolen {
        return Err(Error::Refused(format!("{WHAT}. Add --stolen if that is how it is, and have a registrar look")));
    }
    out::note(&format!(
        "WARNING: {WHAT}. They use their recovery sheet, or somebody runs `privity invite new --for` their handle"
    ));
    Ok(())
}

fn seen(session: &Session, device: DeviceId) -> Option<PersonsDevice> {
    session.device.devices_of(session.device.profile().person).into_iter().find(|seen| seen.device == device)
}

/// The device that an id means, or the beginning of one, or its name.
pub(super) fn find(devices: &[PersonsDevice], asked: &str) -> Result<PersonsDevice, Error> {
    let asked = asked.trim().to_lowercase();
    let named = |seen: &&PersonsDevice| seen.name.as_ref().is_some_and(|name| name.to_lowercase() == asked);
    let fits = |seen: &&PersonsDevice| !asked.is_empty() && seen.device.to_string().starts_with(&asked);
    let mut found: Vec<&PersonsDevice> = devices.iter().filter(named).collect();
    if found.is_empty() {
        found = devices.iter().filter(fits).collect();
    }
    match found.as_slice() {
        [one] => Ok((*one).clone()),
        [] => Err(Error::Usage("there is no such device; `privity device ls` lists them".to_owned())),
        _ => Err(Error::Usage("several devices begin so, or are called so; give more of its id".to_owned())),
    }
}

fn standing(seen: &PersonsDevice) -> &'static str {
    match seen.standing {
        Standing::Linked => "linked",
        Standing::Waiting => "waiting",
        _ => "revoked",
    }
}

fn device_json(session: &Session, seen: &PersonsDevice) -> Value {
    json!({
        "v": view::SCHEMA, "device": seen.device.to_string(), "fingerprint": seen.fingerprint.to_string(),
        "since": seen.since.0, "state": standing(seen), "this": seen.device == session.device.profile().device,
        "person_key": seen.holds_person_key, "name": seen.name,
        "history": on_their_way_json(session, Some(seen.device)),
    })
}

/// A device's id, with what its person calls it.
pub(super) fn called(seen: &PersonsDevice) -> String {
    match &seen.name {
        Some(name) => format!("{}  {}", seen.device, view::plain(name, false)),
        None => seen.device.to_string(),
    }
}

fn device_line(session: &Session, seen: &PersonsDevice) -> String {
    let mut line = format!("{}  since {}  {}", called(seen), view::clock(seen.since, now()), standing(seen));
    if seen.device == session.device.profile().device {
        line.push_str(", this one");
    }
    if seen.holds_person_key && seen.standing != Standing::Revoked {
        line.push_str(", holds the person key");
    }
    for told in on_their_way_told(session, Some(seen.device)) {
        line.push_str(&format!("\n    {told}"));
    }
    line
}

#[cfg(test)]
mod tests {
    use privity_protocol::ids::Timestamp;
    use privity_protocol::suite::Fingerprint;

    use super::*;

    fn devices() -> Vec<PersonsDevice> {
        let device = |bytes| PersonsDevice {
            device: DeviceId::new(bytes),
            fingerprint: Fingerprint::new([7; 32]),
            since: Timestamp(0),
            standing: Standing::Linked,
            holds_person_key: false,
            name: None,
        };
        vec![device([0; 16]), device([1; 16]), device([255; 16])]
    }

    #[test]
    fn a_device_is_meant_by_as_much_of_its_id_as_tells_it_apart() {
        let devices = devices();
        let id = devices[1].device.to_string();
        assert_eq!(find(&devices, &id).unwrap(), devices[1]);
        assert_eq!(find(&devices, "7").unwrap(), devices[2]);
        for unclear in ["", "a", "b", "zz"] {
            assert!(find(&devices, unclear).is_err(), "{unclear}");
        }
    }

    #[test]
    fn a_device_is_meant_by_its_name_where_one_alone_has_it() {
        let mut devices = devices();
        (devices[0].name, devices[1].name) = (Some("Phone".to_owned()), Some("7".to_owned()));
        assert_eq!(find(&devices, "phone").unwrap(), devices[0]);
        assert_eq!(find(&devices, "7").unwrap(), devices[1], "a name counts before what ids begin with");
        devices[2].name = Some("phone ".trim().to_owned());
        assert!(find(&devices, "phone").is_err());
    }
}
