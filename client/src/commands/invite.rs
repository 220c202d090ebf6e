//! `invite new`, `ls` and `cancel`.
//!
//! Invariant: an invite's secret is shown once, when it is made; lists never have it.

use std::time::Duration;

use privity_protocol::device::{NewPersonInvite, Notice};
use privity_protocol::ids::InviteId;
use privity_protocol::invite::{InviteState, Standing};
use qrcode::QrCode;
use qrcode::render::unicode::Dense1x2;
use serde_json::json;

use crate::commands::Run;
use crate::commands::identity::plain_handle;
use crate::error::Error;
use crate::session::{Session, now};
use crate::{out, view};

/// An hour, in milliseconds.
const HOUR_MS: u64 = 3600 * 1000;

impl Run {
    pub(super) async fn invite_new(
        &self,
        wanted: NewPersonInvite,
        replaces: Option<&str>,
        lasts: Duration,
    ) -> Result<(), Error> {
        let lasts_ms = u64::try_from(lasts.as_millis()).unwrap_or(u64::MAX);
        let mut wanted = NewPersonInvite { lasts_ms, ..wanted };
        let (_held, mut session) = self.caught_up().await?;
        if let Some(handle) = replaces {
            let person = self.whom(&mut session, plain_handle(handle)).await?;
            let role = session.device.person(person).map(|known| known.role);
            wanted = NewPersonInvite { replaces: Some(person), role: role.unwrap_or(wanted.role), ..wanted };
        }
        let made = now();
        let invite = session.device.invite(made, &wanted)?;
        let filed = self.until(&mut session, |notice| match notice {
            Notice::InviteFiled => Some(Ok(())),
            Notice::InviteRefused(refused) => Some(Err(refused.clone().into())),
            _ => None,
        });
        filed.await?;
        self.done(session).await?;
        let (url, id) = (invite.url(), invite.secret.id().to_string());
        let object = json!({
            "v": view::SCHEMA, "invite": id, "url": url, "role": wanted.role.word(), "expires": made.plus_ms(lasts_ms).0,
        });
        self.print(&object, || shown(&url, out::columns()))?;
        out::note(&advice(wanted.role.word(), lasts_ms));
        if let Some(handle) = replaces {
            out::note(&format!(
                "It makes whoever joins with it {}: hand it over face to face, or make sure by telephone that it is them. As soon as you \
                 are online and they have joined, their old devices are shut out, and everybody who knows them is told; \
                 others let the new device into their matters once they have accepted the new key.",
                view::plain(handle, false)
            ));
        }
        Ok(())
    }

    pub(super) async fn invite_ls(&self) -> Result<(), Error> {
        let (_held, mut session) = self.caught_up().await?;
        let invites = self.invites(&mut session).await?;
        for state in &invites {
            let name = session.device.name_in_invite(state.invite);
            let anew = session.device.replaced_by_invite(state.invite);
            let used_by = match &state.standing {
                Standing::Used { handle } => Some(handle.as_str()),
                _ => None,
            };
            let object = json!({
                "v": view::SCHEMA, "invite": state.invite.to_string(), "role": state.role.word(), "handle": state.handle,
                "name": name, "expires": state.expires.0, "state": state.standing.word(), "used_by": used_by,
                "replaces": anew.map(|person| person.to_string()),
            });
            self.print(&object, || {
                let row = row(state, name);
                if anew.is_some() { format!("{row}  — enrols them anew, with another key (--for)") } else { row }
            })?;
        }
        if invites.is_empty() && !self.json {
            out::line("You have invited nobody; `privity invite new` does.")?;
        }
        self.done(session).await
    }

    pub(super) async fn invite_cancel(&self, asked: &str) -> Result<(), Error> {
        let (_held, mut session) = self.caught_up().await?;
        let invites = self.invites(&mut session).await?;
        let invite = meant(&invites, asked)?;
        session.device.cancel_invite(now(), invite);
        let cancelled = self.until(&mut session, |notice| match notice {
            Notice::InviteCancelled(id) if *id == invite => Some(Ok(())),
            Notice::InviteRefused(refused) => Some(Err(Error::from(refused.clone()))),
            _ => None,
        });
        cancelled.await?;
        let object = json!({ "v": view::SCHEMA, "invite": invite.to_string(), "state": Standing::Cancelled.word() });
        self.print(&object, || "Cancelled: nobody can use it any more.".to_owned())?;
        self.done(session).await
    }

    async fn invites(&self, session: &mut Session) -> Result<Vec<InviteState>, Error> {
        session.device.ask_invites(now());
        self.until(session, |notice| match notice {
            Notice::Invites(invites) => Some(Ok(invites.clone())),
            Notice::InviteRefused(refused) => Some(Err(refused.clone().into())),
            _ => None,
        })
        .await
    }
}

/// The invite that an id means, or the beginning of one.
fn meant(invites: &[InviteState], asked: &str) -> Result<InviteId, Error> {
    let asked = asked.trim();
    let begins = |state: &&InviteState| !asked.is_empty() && state.invite.to_string().starts_with(asked);
    let found: Vec<InviteId> = invites.iter().filter(begins).map(|state| state.invite).collect();
    let shown = view::plain(asked, false);
    match found.as_slice() {
        [one] => Ok(*one),
        [] => Err(Error::Usage(format!("no invite of yours begins with \"{shown}\"; `privity invite ls` lists them"))),
        _ => Err(Error::Usage(format!("several invites begin with \"{shown}\"; use more of the id"))),
    }
}

fn row(state: &InviteState, name: Option<&str>) -> String {
    let id: String = state.invite.to_string().chars().take(6).collect();
    let whom = match (name, state.handle.as_deref()) {
        (Some(name), Some(handle)) => format!("{name} ({handle})"),
        (Some(only), None) | (None, Some(only)) => only.to_owned(),
        (None, None) => "anybody".to_owned(),
    };
    let standing = match &state.standing {
        Standing::Open => format!("open until {}", view::clock(state.expires, now())),
        Standing::Used { handle } => format!("used by {handle}"),
        Standing::Void => "void: you may not invite any more".to_owned(),
        other => other.word().to_owned(),
    };
    view::plain(&format!("{id}  {:<9} {whom:<24} {standing}", state.role.word()), false)
}

/// An invite for people: a QR code where there is a terminal that is wide enough for it, and the URL.
pub(crate) fn shown(url: &str, columns: Option<usize>) -> String {
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
pub(crate) fn advice(role: &str, lasts_ms: u64) -> String {
    let (hours, minutes) = (lasts_ms / HOUR_MS, lasts_ms % HOUR_MS / 60_000);
    let number = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
    let lasts = match (hours, minutes) {
        (0, _) => view::counted(number(minutes), "minute", "minutes"),
        (_, 0) => view::counted(number(hours), "hour", "hours"),
        _ => format!("{hours} h {minutes} min"),
    };
    format!("Good for one {role}, for {lasts}. Whoever reads it can use it: send it by a way that you trust.")
}

#[cfg(test)]
mod tests {
    use privity_protocol::identity::Role;
    use privity_protocol::ids::Timestamp;

    use super::*;

    fn state(id: u8, standing: Standing) -> InviteState {
        let invite = InviteId::new([id; 16]);
        InviteState { invite, role: Role::Client, handle: Some("bob".to_owned()), expires: Timestamp(0), standing }
    }

    #[test]
    fn an_invite_is_meant_only_where_one_alone_is() {
        let invites = [state(0, Standing::Open), state(0x55, Standing::Open)];
        let id = invites[1].invite.to_string();
        assert_eq!(meant(&invites, &id[..6]).unwrap(), invites[1].invite);
        assert_eq!(meant(&invites, &id).unwrap(), invites[1].invite);
        for none in ["", "zz", "\x1b[31m"] {
            let error = meant(&invites, none).unwrap_err();
            assert_eq!(error.exit_code(), 1, "{none}");
            assert!(!error.to_string().contains('\x1b'));
        }
        let alike = [state(0, Standing::Open), state(0, Standing::Open)];
        assert!(meant(&alike, "a").unwrap_err().to_string().contains("several"));
    }

    #[test]
    fn a_row_says_who_and_what_became_of_it_and_how_long_it_is_good() {
        let told = row(&state(0, Standing::Used { handle: "bob\x1b[2J".to_owned() }), Some("Bob Jones"));
        assert!(told.starts_with("aaaaaa  client") && told.contains("Bob Jones (bob)") && told.contains("used by bob"));
        assert!(!told.contains('\x1b'));
        assert!(row(&state(0, Standing::Void), None).contains("may not invite"));
        assert!(advice("client", 72 * HOUR_MS).contains("for 72 hours"));
        assert!(advice("client", 60_000).contains("for 1 minute."));
        assert!(advice("client", HOUR_MS + 60_000).contains("1 h 1 min"));
    }
}
