//! `people`: the directory.

use crate::commands::Run;
use crate::error::Error;
use crate::view;

impl Run {
    pub(super) async fn people(&self) -> Result<(), Error> {
        let (_held, mut session) = self.caught_up().await?;
        let people = self.directory(&mut session).await?;
        for person in &people {
            self.print(&view::person_view_json(&session.device, person), || {
                view::person_view(&session.device, person)
            })?;
        }
        self.done(session).await
    }
}
