//! `privity-relay key`: shows the relay's key, and gives it another one.
//!
//! Invariant: what is printed holds fingerprints alone, never a key.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use clap::Subcommand;
use privity_server::RelayError;
use privity_server::config::Config;
use privity_server::keys::{self, KeyView, Keys};
use serde_json::{Value, json};

use crate::check::utc;

#[derive(Debug, Subcommand)]
pub(crate) enum Key {
    /// Show the relay's key and those before it
    #[command(after_help = "\
Examples:
  privity-relay key show --data /srv/privity
  privity-relay key show --data /srv/privity --json

With --json: {key, since, before: [{key, since, until, served}]}, the newest of those before it first; times in milliseconds since 1970 \
UTC, `since` is null for the first key. `served` is false where the file relay.key.1 (or 2, …) of that key was taken away: devices that \
have not been online since then are admitted no more.")]
    Show {
        /// The relay's folder
        #[arg(long, value_name = "DIR")]
        data: PathBuf,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Give the relay a new key, for which the one it has signs
    #[command(after_help = "\
Example:
  systemctl stop privity-relay
  privity-relay key rotate --data /srv/privity
  systemctl start privity-relay

Stop the relay first. Devices follow by themselves the next time that they connect, whenever that is, and tell their users; invites that \
are out stay good. The key before is kept as relay.key.1 (then 2, …) for those who have yet to come: back it up with the rest. After a \
crash, run it again or start the relay. With --json as `privity-relay key show`.")]
    Rotate {
        /// The relay's folder
        #[arg(long, value_name = "DIR")]
        data: PathBuf,
        /// Print JSON
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

pub(crate) fn run(key: &Key) -> Result<(), RelayError> {
    match key {
        Key::Show { data, json } => {
            let (_, keys) = Config::load(data)?;
            show(&keys, *json)
        }
        Key::Rotate { data, json } => rotate(data, *json),
    }
}

fn rotate(data: &Path, json: bool) -> Result<(), RelayError> {
    let keys = keys::rotate(data)?;
    show(&keys, json)?;
    if !json {
        tell!(
            "The new key is in place, and the one before has signed for it. Devices follow by themselves when they next connect."
        );
        tell!("Back up the folder, then start the relay with: privity-relay run --data {}", data.display());
    }
    Ok(())
}

fn show(keys: &Keys, json: bool) -> Result<(), RelayError> {
    let view = keys.view()?;
    let Some((newest, before)) = view.split_first() else { return Ok(()) };
    let since = |view: &KeyView| view.since.map(|since| since.0);
    if json {
        let past = |view: &KeyView| {
            let until = view.until.map(|until| until.0);
            json!({ "key": view.key.to_string(), "since": since(view), "until": until, "served": view.served })
        };
        let past: Vec<Value> = before.iter().map(past).collect();
        tell!("{}", json!({ "key": newest.key.to_string(), "since": since(newest), "before": past }));
        return Ok(());
    }
    let begun = newest.since.map_or_else(|| "its first".to_owned(), |since| format!("since {}", utc(since)));
    tell!("relay key  {}  ({begun})", newest.key);
    for past in before {
        let until = past.until.map_or_else(String::new, utc);
        let served = if past.served { "still served" } else { "served no more" };
        tell!("before it  {}  (until {until}; {served})", past.key);
    }
    Ok(())
}
