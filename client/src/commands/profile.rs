//! `status`, `unlock`, `lock`, `passphrase change` and `completions`.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::CommandFactory as _;
use clap_complete::Shell;
use serde_json::{Value, json};

use crate::cli::Cli;
use crate::commands::Run;
use crate::commands::adopt::waiting_told;
use crate::commands::history::{on_their_way_json, on_their_way_told};
use crate::commands::recovery::{SHEET_DUE, organisation_sheet};
use crate::error::Error;
use crate::session::{Session, Told};
use crate::{join, keystore, marks, out, view};

/// How long `status` tries to reach the relay, unless it is told.
const STATUS_WAIT: Duration = Duration::from_secs(5);

impl Run {
    pub(super) async fn status(&self) -> Result<(), Error> {
        let held = self.home.hold_joined()?;
        let mut vault = self.home.open_vault()?;
        let deadline = Instant::now() + self.asked.unwrap_or(STATUS_WAIT);
        let finished = join::finish(&self.home, &mut vault, deadline).await;
        let mut session = Session::open(vault)?;
        let reached = match finished {
            Ok(()) => self.reach(&mut session, deadline).await,
            Err(error) => Err(error),
        };
        let object = self.status_json(&session, reached.as_ref().err())?;
        self.print(&object, || status_text(&session, &object, reached.as_ref().err()))?;
        match reached {
            Ok(()) => self.done(session).await?,
            // What is known here was shown; being offline is no failure.
            Err(Error::Network(_)) => {}
            Err(error) => return Err(error),
        }
        drop(held);
        Ok(())
    }

    /// Catches up; [`Error::Network`] at the first attempt that fails.
    async fn reach(&self, session: &mut Session, deadline: Instant) -> Result<(), Error> {
        let mut notices = Vec::new();
        while !session.device.is_caught_up() {
            match session.next(deadline).await? {
                Told::Notice(notice) => notices.push(*notice),
                Told::Down(why) => return Err(Error::Network(why)),
                Told::Quiet => return Err(Error::Network("the relay does not answer".to_owned())),
                Told::Up => {}
            }
        }
        self.heed(&notices);
        Ok(())
    }

    fn status_json(&self, session: &Session, why: Option<&Error>) -> Result<Value, Error> {
        let (shut_out, why) = (matches!(why, Some(Error::Refused(_))), why.map(ToString::to_string));
        let profile = session.device.profile();
        let mut matters = Vec::new();
        let mut unread_total = 0;
        for (id, row) in session.device.matters() {
            let unread = marks::unread(session, id)?;
            unread_total += unread;
            let pending = session.device.pending(id);
            matters.push(json!({
                "matter": id.to_string(), "title": row.title, "state": session.state(id), "unread": unread,
                "disputed": row.disputed.is_some(), "lapsed": row.lapses.len(),
                "pending": pending.iter().filter(|item| item.seq.is_none()).count(), "epoch": row.epoch,
                "seq": row.position.seq, "chain": row.position.chain.to_string(),
            }));
        }
        Ok(json!({
            "v": view::SCHEMA,
            "relay": { "address": profile.address, "firm": profile.firm, "reached": why.is_none(), "why": why,
                       "key": profile.relay.fingerprint().to_string() },
            "organisation": profile.organisation.fingerprint().to_string(),
            "person": profile.person.to_string(), "device": profile.device.to_string(), "handle": profile.handle,
            "name": profile.name.name, "role": profile.role.word(),
            "state": if shut_out { "refused" } else if session.device.is_ready() { "ready" } else { "waiting" },
            "organisation_sheet_due": organisation_sheet(&session.vault)?.is_some(),
            "firm_number": session.device.firm_number().ok().map(|number| number.to_string()),
            "suites": { "transport": "X25519MLKEM768, ML-DSA-65 + Ed25519",
                        "messages": "MLS 0xF0A2: X-Wing, AES-256-GCM, Ed25519 + ML-DSA-65" },
            "log": session.device.log().map(|log| json!({ "size": log.head.size, "faults": log.faults.len() })),
            "matters": matters, "unread": unread_total, "history": on_their_way_json(session, None),
        }))
    }

    pub(super) fn unlock(&self, lasts: Duration) -> Result<(), Error> {
        let _held = self.home.hold_joined()?;
        let vault = self.home.open_vault()?;
        keystore::put(self.home.folder(), vault.root(), lasts)?;
        let object = json!({ "v": view::SCHEMA, "state": "unlocked", "seconds": lasts.as_secs() });
        self.print(&object, || {
            let minutes = usize::try_from(lasts.as_secs().div_ceil(60)).unwrap_or(usize::MAX);
            format!("Unlocked for {}; `privity lock` ends it.", view::counted(minutes, "minute", "minutes"))
        })
    }

    pub(super) fn lock(&self) -> Result<(), Error> {
        let was = keystore::remove(self.home.folder());
        self.print(&json!({ "v": view::SCHEMA, "state": "locked" }), || {
            if was { "Locked.".to_owned() } else { "It was locked already.".to_owned() }
        })
    }
}

impl Run {
    pub(super) fn passphrase_change(&self, new_file: Option<PathBuf>) -> Result<(), Error> {
        let _held = self.home.hold_joined()?;
        self.home.change_passphrase(new_file)?;
        self.print(&json!({ "v": view::SCHEMA, "state": "changed" }), || {
            "Changed. Copies and backups made before still open with the old passphrase.".to_owned()
        })
    }
}

/// Writes what a shell needs to complete commands.
pub(super) fn completions(shell: Shell) -> Result<(), Error> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "privity", &mut script);
    out::line(String::from_utf8_lossy(&script).trim_end())
}

/// A founding that was cut off before the firm's key was on paper.
fn sheet_due(object: &Value) -> Option<String> {
    (object["organisation_sheet_due"] == true).then(|| format!("firm's key {SHEET_DUE}"))
}

fn status_text(session: &Session, object: &Value, why: Option<&Error>) -> String {
    let profile = session.device.profile();
    let link = match why {
        None => "connected".to_owned(),
        Some(Error::Network(why)) => format!("offline: {}", view::plain(why, false)),
        Some(_) => "not admitted, as said below".to_owned(),
    };
    let state = if object["state"] == "refused" {
        "shut out"
    } else if session.device.is_ready() {
        "ready"
    } else if profile.linking.is_some() {
        "waiting to be linked: say yes on your other device"
    } else {
        "waiting for whoever invited you to be online once"
    };
    let count = |value: &Value| usize::try_from(value.as_u64().unwrap_or(0)).unwrap_or(usize::MAX);
    let matters = object["matters"].as_array().map_or(&[][..], Vec::as_slice);
    let mut lines = vec![
        format!("{} ({}), {}, {state}", view::plain(&profile.name.name, false), profile.handle, profile.role.word()),
        format!("relay      {} of {}, {link}", view::plain(&profile.address, false), view::plain(&profile.firm, false)),
        format!("its key    {}", profile.relay.fingerprint()),
        format!("firm's key {}", profile.organisation.fingerprint()),
        "suites     X25519MLKEM768 outside, X-Wing inside; Ed25519 and ML-DSA-65 signatures".to_owned(),
        format!(
            "matters    {}, {}",
            matters.len(),
            view::counted(count(&object["unread"]), "new message", "new messages")
        ),
    ];
    lines.extend(sheet_due(object));
    if session.device.log().is_some_and(|log| !log.faults.is_empty()) {
        lines.push(
            "audit log  WARNING: not one and the same for all: `privity security show` says what was found".to_owned(),
        );
    }
    lines.extend(waiting_told(&session.device));
    lines.extend(on_their_way_told(session, None));
    for ((id, row), told) in session.device.matters().zip(matters) {
        let mut line = format!(
            "  {}  {}  epoch {}, position {}",
            view::short(id),
            view::title(&session.device, id),
            row.epoch,
            row.position.seq
        );
        for (key, word) in [("unread", "new"), ("pending", "waiting to be sent")] {
            let count = count(&told[key]);
            if count > 0 {
                line.push_str(&format!(", {count} {word}"));
            }
        }
        if row.disputed.is_some() {
            line.push_str(", disputed: see `privity matter show`");
        } else if row.waits_for_a_word() {
            line.push_str(", asks before sending: see `privity matter show`");
        }
        lines.push(line);
        lines.extend(session.state_told(id).map(|told| format!("          {told}")));
    }
    lines.join("\n")
}
