//! `people`: the directory.

use privity_protocol::frame::PersonView;

use crate::commands::{Distrust, Run, identity};
use crate::error::Error;
use crate::{out, view};

impl Run {
    pub(super) async fn people(&self) -> Result<(), Error> {
        let (_held, mut session) = self.caught_up().await?;
        let people = self.directory(&mut session).await?;
        for person in &people {
            let like = identity::looks_like(&session.device, person.person);
            let mut object = view::person_view_json(&session.device, person);
            object["looks_like"] = like.clone().into();
            self.print(&object, || {
                let line = view::person_view(&session.device, person);
                if like.is_empty() {
                    line
                } else {
                    format!("{line}  — looks like {}", view::plain(&like.join(", "), false))
                }
            })?;
        }
        let known =
            |person: &PersonView| session.device.person(person.person).is_some_and(|known| known.name.is_some());
        let own = session.device.profile().person;
        if !self.json && people.iter().any(|person| person.ready && person.person != own && !known(person)) {
            out::note(
                "Where a name is missing: the relay never learns names. One comes here by itself once you share a matter with the person and \
                 somebody who knows it, such as whoever invited them.",
            );
        }
        self.done(session).await?;
        match self.distrust.get() {
            Some(Distrust::Newcomer) => Err(Error::Untrusted(
                "somebody who asks to come in with an invite of yours was not let in, as warned above; all others here are as they were".to_owned(),
            )),
            _ => Ok(()),
        }
    }
}
