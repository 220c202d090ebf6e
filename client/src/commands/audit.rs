//! `audit verify`: an exported audit log, held against its own signatures. Without a profile, a relay or a network.
//!
//! Invariant: a bundle is called good only if every byte of every file in its folder was checked.

use std::collections::BTreeMap;
use std::fs;
use std::io::{IsTerminal as _, Write as _};
use std::path::Path;
use std::time::{Duration, Instant};

use privity_protocol::limits;
use privity_protocol::log::bundle::{self, Fault, Verified};
use serde_json::{Value, json};

use crate::commands::Run;
use crate::error::Error;
use crate::{out, view};

/// How often somebody who watches is told how far it is.
const TELL_EVERY: Duration = Duration::from_millis(200);

impl Run {
    pub(super) fn audit_verify(&self, folder: &Path, against: Option<&Path>) -> Result<(), Error> {
        let note = against.map(read_note).transpose()?;
        let verified = read(folder)?.and_then(|files| {
            let mut progress = Progress::begin();
            bundle::verify(&files, note.as_deref(), &mut |done, of| progress.tell(done, of))
        });
        match verified {
            Ok(verified) => self.print(&object(&verified), || text(&verified)),
            Err(fault) => {
                let object = json!({ "v": view::SCHEMA, "verified": false, "file": fault.file, "leaf": fault.leaf,
                                     "why": fault.what });
                if self.json {
                    out::line(&view::compact(&object))?;
                }
                Err(Error::Unverified(format!("the audit log does not verify: {fault}")))
            }
        }
    }
}

/// A note that was kept.
pub(super) fn read_note(path: &Path) -> Result<String, Error> {
    fs::read_to_string(path).map_err(|error| unreadable(path, &error))
}

fn unreadable(path: &Path, error: &std::io::Error) -> Error {
    Error::Usage(format!("{} can't be read: {error}", path.display()))
}

/// Every file below the folder, by its path in it; a fault names what is no file.
pub(super) fn read(folder: &Path) -> Result<Result<BTreeMap<String, Vec<u8>>, Fault>, Error> {
    let mut files = BTreeMap::new();
    let mut waiting = vec![(folder.to_owned(), String::new())];
    while let Some((folder, name)) = waiting.pop() {
        let entries = fs::read_dir(&folder).map_err(|error| unreadable(&folder, &error))?;
        for entry in entries {
            let entry = entry.map_err(|error| unreadable(&folder, &error))?;
            let name = format!("{name}{}", entry.file_name().to_string_lossy());
            let fault = |what: &str| Ok(Err(Fault { file: name.clone(), leaf: None, what: what.to_owned() }));
            let found = entry.metadata().map_err(|error| unreadable(&entry.path(), &error))?;
            if found.is_dir() {
                waiting.push((entry.path(), format!("{name}/")));
            } else if !found.is_file() {
                // A link, say: what it leads to may be another thing tomorrow.
                return fault("it is no ordinary file");
            } else if found.len() > limits::BUNDLE_FILE_MAX {
                return fault("no file of a log is that large");
            } else {
                files.insert(name, fs::read(entry.path()).map_err(|error| unreadable(&entry.path(), &error))?);
            }
        }
    }
    Ok(Ok(files))
}

fn object(verified: &Verified) -> Value {
    json!({
        "v": view::SCHEMA,
        "verified": true,
        "leaves": verified.checkpoint.size,
        "root": verified.checkpoint.root.to_string(),
        "origin": verified.checkpoint.origin,
        "signed_at": verified.at.0,
        "relay": verified.relay.to_string(),
        "relay_before": verified.before.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "against": verified.against,
    })
}

fn text(verified: &Verified) -> String {
    let (size, at) = (verified.checkpoint.size, view::utc(verified.at));
    let mut text = format!("The log verifies: {size} leaves, signed at {at}.");
    if let Some(known) = verified.against {
        text += &format!("\nIt has only grown since the checkpoint with {known} leaves.");
    }
    text += &format!("\nRelay  {}", verified.relay);
    for (at, before) in verified.before.iter().rev().enumerate() {
        let word = if at == 0 { "before" } else { "      " };
        text += &format!("\n{word} {before}");
    }
    text += &format!("\nRoot   {}", verified.checkpoint.root);
    text += "\nCompare the relay's fingerprint with the one in `privity status`: whose log it is, nothing else tells.";
    if !verified.before.is_empty() {
        text += " One on paper may be of a key before: each has signed for the next.";
    }
    text
}

/// A line on a terminal that says how far it is, where that takes long.
struct Progress {
    told: Instant,
    shown: bool,
}

impl Progress {
    fn begin() -> Self {
        Self { told: Instant::now(), shown: false }
    }

    fn tell(&mut self, done: u64, of: u64) {
        let mut stderr = std::io::stderr().lock();
        if !stderr.is_terminal() || (self.told.elapsed() < TELL_EVERY && !(self.shown && done == of)) {
            return;
        }
        self.told = Instant::now();
        self.shown = done < of;
        // Whoever looks away misses nothing.
        let _unseen = if self.shown {
            write!(stderr, "\r{:>3} % of {of} leaves ", done.saturating_mul(100).checked_div(of).unwrap_or(100))
        } else {
            write!(stderr, "\r{:40}\r", "")
        };
    }
}
