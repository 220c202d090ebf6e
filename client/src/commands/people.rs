//! `people`: the directory.

use crate::commands::{Run, identity};
use crate::error::Error;
use crate::view;

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
        self.done(session).await
    }
}
