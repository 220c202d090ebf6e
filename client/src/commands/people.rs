//! `invite new` and `people`.

use privity_protocol::device::{NewPersonInvite, Notice};
use privity_protocol::limits;
use qrcode::QrCode;
use qrcode::render::unicode::Dense1x2;
use serde_json::json;

use crate::commands::Run;
use crate::error::Error;
use crate::session::now;
use crate::{out, view};

impl Run {
    pub(super) async fn invite(&self, wanted: NewPersonInvite) -> Result<(), Error> {
        let (_held, mut session) = self.caught_up().await?;
        let invite = session.device.invite(now(), &wanted)?;
        let filed = self.until(&mut session, |notice| match notice {
            Notice::InviteFiled => Some(Ok(())),
            Notice::InviteRefused(refused) => Some(Err(refused.clone().into())),
            _ => None,
        });
        filed.await?;
        self.done(session).await?;
        let url = invite.url();
        let expires = now().plus_ms(limits::INVITE_LIFETIME_MS);
        let object = json!({ "v": view::SCHEMA, "url": url, "role": wanted.role.word(), "expires": expires.0 });
        self.print(&object, || invite_shown(&url, out::columns()))?;
        out::note(&invite_advice(wanted.role.word()));
        Ok(())
    }

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

/// An invite for people: a QR code where there is a terminal that is wide enough for it, and the URL.
pub(crate) fn invite_shown(url: &str, columns: Option<usize>) -> String {
    let code = columns.and_then(|columns| {
        let code = QrCode::new(url.as_bytes()).ok()?.render::<Dense1x2>().quiet_zone(true).build();
        code.lines().all(|line| line.chars().count() <= columns).then_some(code)
    });
    match code {
        Some(code) => format!("{code}\n{url}"),
        None => url.to_owned(),
    }
}

/// What the inviter must know.
pub(crate) fn invite_advice(role: &str) -> String {
    format!("Good for one {role}, for 72 hours. Whoever reads it can use it: send it by a way that you trust.")
}
