//! `privity-relay audit`: what IT does with the log. Works beside a running relay, and changes nothing of it.
//!
//! Invariant: what people read here may hold handles, for the relay knows them; what `export` writes holds none.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use clap::Subcommand;
use privity_protocol::ids::Timestamp;
use privity_protocol::log::Act;
use privity_server::RelayError;
use privity_server::audit::export::{Logged, View};
use serde_json::{Map, Value, json};

use crate::check::utc;

#[derive(Debug, Subcommand)]
pub(crate) enum Audit {
    /// Show the newest leaves of the log and what they say
    #[command(after_help = "\
Examples:
  privity-relay audit tail --data /srv/privity
  privity-relay audit tail --data /srv/privity --last 1000 --json | jq 'select(.act == \"device-added\")'

Each line: index, time (UTC), what happened, whom it is about, and the rest. People stand here by their random ids; those of your people \
are in `privity people`. With --json, one object a line: {index, at, act, person, number, …}; `at` is in milliseconds since 1970 UTC, \
`person` is null where the relay itself did it.")]
    Tail {
        /// The relay's folder
        #[arg(long, value_name = "DIR")]
        data: PathBuf,
        /// How many
        #[arg(long, value_name = "COUNT", default_value_t = 20)]
        last: u64,
        /// One JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// Print the state of the log, signed now
    #[command(after_help = "\
Examples:
  privity-relay audit checkpoint --data /srv/privity > checkpoint-2026-08-01
  privity-relay audit checkpoint --data /srv/privity --json

Three lines and two signatures: which log, how many leaves, and the root over all of them (C2SP tlog-checkpoint). Keep one now and then \
where the relay's machine can't reach it: `privity audit verify --bundle BUNDLE --against CHECKPOINT` then shows whether the log has \
only grown since. With --json: {origin, size, root, note}; root in hex.")]
    Checkpoint {
        /// The relay's folder
        #[arg(long, value_name = "DIR")]
        data: PathBuf,
        /// Print {origin, size, root, note} as JSON
        #[arg(long)]
        json: bool,
    },
    /// Write the whole log into a folder, for whoever audits
    #[command(after_help = "\
Example:
  privity-relay audit export --data /srv/privity --out /tmp/log-2026-08-01
  privity audit verify --bundle /tmp/log-2026-08-01

The folder has the checkpoint, the tiles of the tree, the leaves, and the keys that verify them; no names, no handles, no content, no \
secrets. It is in the layout of C2SP tlog-tiles. What is there is never overwritten.")]
    Export {
        /// The relay's folder
        #[arg(long, value_name = "DIR")]
        data: PathBuf,
        /// Where to; made, and must not be there
        #[arg(long, value_name = "BUNDLE")]
        out: PathBuf,
        /// Print {bundle, leaves} as JSON
        #[arg(long)]
        json: bool,
    },
}

/// A line for whoever reads on; who stops reading is no failure.
macro_rules! tell {
    ($($part:tt)*) => {{
        let _heard = writeln!(std::io::stdout(), $($part)*);
    }};
}

pub(crate) fn run(audit: &Audit) -> Result<(), RelayError> {
    match audit {
        Audit::Tail { data, last, json } => {
            for logged in View::of(data)?.newest(*last)? {
                show(&logged, *json);
            }
        }
        Audit::Checkpoint { data, json } => checkpoint(data, *json)?,
        Audit::Export { data, out, json } => {
            let leaves = View::of(data)?.export(out)?;
            if *json {
                tell!("{}", json!({ "bundle": out, "leaves": leaves }));
            } else {
                tell!("{leaves} leaves are in {}.", out.display());
                tell!("Whoever has it verifies it with: privity audit verify --bundle {}", out.display());
            }
        }
    }
    Ok(())
}

fn checkpoint(data: &Path, json: bool) -> Result<(), RelayError> {
    let (note, checkpoint, _) = View::of(data)?.checkpoint()?;
    if json {
        let (origin, size, root) = (checkpoint.origin, checkpoint.size, checkpoint.root.to_string());
        tell!("{}", json!({ "origin": origin, "size": size, "root": root, "note": note }));
    } else {
        let _heard = write!(std::io::stdout(), "{note}");
    }
    Ok(())
}

fn show(Logged { index, leaf, event }: &Logged, json: bool) {
    let fields = fields(&event.act);
    if json {
        let mut object = Map::new();
        object.insert("index".to_owned(), json!(index));
        object.insert("at".to_owned(), json!(event.at.0));
        object.insert("act".to_owned(), json!(event.act.name()));
        object.insert("person".to_owned(), json!(leaf.person.map(|person| person.to_string())));
        object.insert("number".to_owned(), json!(leaf.number));
        object.extend(fields.into_iter().map(|(name, value)| (name.to_owned(), value)));
        tell!("{}", Value::Object(object));
        return;
    }
    let about = leaf.person.map_or_else(|| "relay".to_owned(), |person| person.to_string());
    let rest: Vec<String> = fields
        .iter()
        .filter(|(_, value)| !value.is_null())
        .map(|(name, value)| format!("{name} {}", read(name, value)))
        .collect();
    tell!("{index:>6}  {}  {:<20} {about}  {}", utc(event.at), event.act.name(), rest.join(", "));
}

/// A value for people: times as dates, changes of a roster one by one.
fn read(name: &str, value: &Value) -> String {
    if let Some(at) = value.as_u64().filter(|_| name == "expires") {
        return utc(Timestamp(at));
    }
    let change = |change: &Value| {
        let device = change["device"].as_str().unwrap_or_default();
        match change["rights"].as_u64() {
            Some(rights) => format!("{device} has rights {rights}"),
            None => format!("{device} is out"),
        }
    };
    match value {
        Value::Array(changes) => changes.iter().map(change).collect::<Vec<_>>().join("; "),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// What an act says beside its name.
fn fields(act: &Act) -> Vec<(&'static str, Value)> {
    let text = |value: &dyn std::fmt::Display| json!(value.to_string());
    let maybe = |value: Option<&dyn std::fmt::Display>| value.map_or(Value::Null, text);
    match act {
        Act::Founded { organisation } => vec![("organisation", text(&organisation.fingerprint()))],
        Act::Registered { person_key, handle, role, invite } => vec![
            ("handle", json!(handle)),
            ("role", json!(role.word())),
            ("invite", text(invite)),
            ("key", text(&person_key.fingerprint())),
        ],
        Act::Endorsed { by, .. } | Act::EndorsementRevoked { by, .. } => {
            vec![("by", maybe(by.as_ref().map(|by| by as &dyn std::fmt::Display)))]
        }
        Act::DeviceAdded { device, .. } => vec![("device", text(device))],
        Act::DeviceRevoked { device, by, .. } => {
            vec![("device", text(device)), ("by", maybe(by.as_ref().map(|by| by as &dyn std::fmt::Display)))]
        }
        Act::Recovered { person_key, .. } => vec![("key", text(&person_key.fingerprint()))],
        Act::Replaced { person_key, by } => vec![("key", text(&person_key.fingerprint())), ("by", text(by))],
        Act::KeyRotated { key, .. } => vec![("key", text(&key.fingerprint()))],
        Act::InviteMade { invite, expires, .. } => vec![("invite", text(invite)), ("expires", json!(expires.0))],
        Act::InviteUsed { invite, by } => vec![("invite", text(invite)), ("by", text(by))],
        Act::InviteExpired { invite } | Act::InviteCancelled { invite } => vec![("invite", text(invite))],
        Act::InviteRefused { invite, why } => vec![("invite", text(invite)), ("why", json!(why))],
        Act::MailboxCreated { mailbox, device } => vec![("mailbox", text(mailbox)), ("device", text(device))],
        Act::RosterChanged { mailbox, device, changes } => {
            let rights = |change: &privity_protocol::log::RosterChange| json!({ "device": change.device.to_string(), "rights": change.rights.map(|rights| rights.0) });
            let changes = changes.iter().map(rights).collect();
            vec![("mailbox", text(mailbox)), ("device", text(device)), ("changes", Value::Array(changes))]
        }
        Act::Configured { configuration, version } => {
            vec![("version", json!(version)), ("configuration", text(configuration))]
        }
        Act::BackedUp { backup } => vec![("backup", text(backup))],
        Act::Restored { .. } => Vec::new(),
        Act::Adopted { by, .. } => vec![("by", text(by))],
        _ => Vec::new(),
    }
}
