//! `audit proof` and `audit verify --proof`: what was found out about the relay, for others to check.
//!
//! Invariant: writing needs a vault and no network; checking needs neither.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use privity_protocol::device::Device;
use privity_protocol::device::state::{Record, RecordBody};
use privity_protocol::log::bundle::{self, Fault};
use privity_protocol::proof::{self, Claim, Proved};
use serde_json::{Value, json};

use crate::commands::Run;
use crate::commands::audit::{read, read_note};
use crate::error::Error;
use crate::session::{Session, now};
use crate::{out, view};

/// Records read at once.
const PAGE: usize = 500;

/// What is written into each proof, around what was found.
const ABOUT: &str = "\
What this is
------------
A device of the messenger Privity wrote this folder. It says what the device found out about its relay,
the firm's server that carries the messages. No message, title or name of a matter is in it, and no key
that opens anything.

How to check it
---------------
  privity audit verify --proof FOLDER
checks that nothing in it was changed, who says so, and what the relay's own signatures prove. It needs no
network and no account. Two more things help where the notes alone do not settle it:
  --against NOTE     a note that somebody else kept: log/0/known in a proof of theirs
  --bundle EXPORT    the relay's whole log, which its IT writes with: privity-relay audit export
Compare the fingerprints that the command shows with those on the firm's paper: nothing else tells whose
relay, and whose firm, it is about.

What proves what
----------------
A relay keeps one log, which only grows, and signs its state as notes. Two notes of the same size that
differ are its own signatures against itself, and so is a note that its whole log, exported, does not
begin with. Everything else here is the signed word of the device that wrote it, or what a member of a
matter told it.
";

impl Run {
    pub(super) fn audit_proof(&self, folder: &Path) -> Result<(), Error> {
        let (_held, session) = self.open()?;
        let claims = claims(&session)?;
        let readme = readme(&session.device, &claims);
        let files = session.device.proof(now(), claims.clone(), readme)?;
        write(folder, &files)?;
        let object = json!({
            "v": view::SCHEMA, "folder": folder.display().to_string(), "files": files.len(),
            "claims": claims.iter().map(view::claim_json).collect::<Vec<_>>(),
        });
        self.print(&object, || {
            let shown = folder.display();
            let mut lines = match claims.as_slice() {
                [] => vec![format!(
                    "Nothing was found that speaks against the relay. {shown} has the newest note of its log that this device knows, \
                     for others to compare with."
                )],
                _ => vec![format!("{shown} says what was found out about the relay:")],
            };
            lines.extend(claims.iter().map(|claim| format!("  - {}", view::claim(&session.device, claim))));
            lines.push("Its README.txt explains it. Nothing in it is secret; it tells handles, and who is in the firm's chain.".to_owned());
            lines.join("\n")
        })
    }

    pub(super) fn proof_verify(
        &self,
        folder: &Path,
        against: Option<&Path>,
        export: Option<&Path>,
    ) -> Result<(), Error> {
        let note = against.map(read_note).transpose()?;
        let held = (export.is_some(), against.is_some());
        let export =
            export.map(read).transpose()?.map(|files| files.and_then(|files| bundle::read(&files, &mut |_, _| {})));
        let proved = match export.transpose() {
            Ok(export) => read(folder)?
                .and_then(|files| proof::verify(&files, note.as_deref(), export.as_ref()))
                .map_err(|fault| ("proof", fault)),
            Err(fault) => Err(("exported log", fault)),
        };
        match proved {
            Ok(proved) => self.print(&object(&proved), || text(&proved, held)),
            Err((what, Fault { file, leaf, what: why })) => {
                let fault = Fault { file: file.clone(), leaf, what: why.clone() };
                if self.json {
                    out::line(&view::compact(&json!({
                        "v": view::SCHEMA, "verified": false, "file": file, "leaf": leaf, "why": why,
                    })))?;
                }
                Err(Error::Unverified(format!("the {what} does not verify: {fault}")))
            }
        }
    }
}

/// Everything that was found out about the relay on this device.
pub(super) fn claims(session: &Session) -> Result<Vec<Claim>, Error> {
    let (mut found, mut from): (Vec<Record>, u64) = (Vec::new(), 0);
    loop {
        let records = session.vault.records(None, from, PAGE)?;
        let Some(last) = records.last().map(|record| record.cursor) else { break };
        let tells = |record: &Record| matches!(record.what, RecordBody::Forked { .. } | RecordBody::Dispute { .. });
        found.extend(records.into_iter().filter(tells));
        from = last;
    }
    Ok(session.device.claims(&found))
}

fn readme(device: &Device, claims: &[Claim]) -> String {
    let profile = device.profile();
    let mut text = format!(
        "A proof about a Privity relay\n=============================\nWritten by a device of {}, {}.\nThe relay's fingerprint:  {}\nThe firm's fingerprint:   {}\n\n\
         What was found\n--------------\n",
        profile.handle,
        view::utc(now()),
        profile.relay.fingerprint(),
        profile.organisation.fingerprint(),
    );
    if claims.is_empty() {
        text.push_str(
            "Nothing that speaks against the relay. log/0 has the newest note of its log that the device knows.\n",
        );
    }
    for claim in claims {
        text.push_str(&format!("- {}\n", view::claim_outside(Some(device), claim)));
    }
    text.push('\n');
    text + ABOUT
}

/// Writes a folder that is not there yet, or leaves nothing.
fn write(folder: &Path, files: &BTreeMap<String, Vec<u8>>) -> Result<(), Error> {
    fs::create_dir(folder).map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => Error::Usage(format!("{} is there already; choose another name", folder.display())),
        _ => Error::Usage(format!("{} can't be made: {error}", folder.display())),
    })?;
    let put = |(path, bytes): (&String, &Vec<u8>)| {
        let path = folder.join(path);
        path.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| fs::write(&path, bytes))
    };
    let written = files.iter().try_for_each(put);
    if written.is_err() {
        // What is left of it says nothing that the error does not say better.
        let _removed = fs::remove_dir_all(folder);
    }
    written.map_err(|error| Error::Machine(format!("{} can't be written: {error}", folder.display())))
}

fn object(proved: &Proved) -> Value {
    let said = &proved.said;
    json!({
        "v": view::SCHEMA, "verified": true, "made": said.made.0, "person": said.person.to_string(),
        "device": said.device.to_string(), "handle": proved.handle, "organisation": proved.organisation.to_string(),
        "contradictions": proved.contradictions.iter().map(view::contradiction_json).collect::<Vec<_>>(),
        "claims": said.claims.iter().map(view::claim_json).collect::<Vec<_>>(),
        "notes": proved.notes.iter().map(view::note_json).collect::<Vec<_>>(), "unsigned": proved.unsigned,
    })
}

/// What else could tell whether the notes of a proof belong together.
fn still_to_try(notes: usize, bundle: bool, against: bool) -> Option<String> {
    let export = "who has the relay's whole log (privity-relay audit export) finds out with --bundle";
    let note = "who has a note that somebody else kept, with --against";
    match (notes > 1, bundle, against) {
        (false, ..) | (true, true, true) => None,
        (true, true, false) => Some(format!("The export fits it. Still to be tried: {note}.")),
        (true, false, true) => Some(format!("Its notes may still belong to two histories: {export}.")),
        (true, false, false) => Some(format!("Its notes may still belong to two histories: {export}; {note}.")),
    }
}

/// In words, with what could still be held against it: an export, and a note that somebody kept, unless they were.
fn text(proved: &Proved, (bundle, against): (bool, bool)) -> String {
    let said = &proved.said;
    let mut lines = vec![
        format!("The proof is whole: nothing in it was changed since {}, when it was written.", view::utc(said.made)),
        format!("By      {}, whom the firm with this key vouches for", view::plain(&proved.handle, false)),
        format!("Firm    {}", proved.organisation),
    ];
    let mut relays: Vec<String> = proved.notes.iter().map(|note| format!("Relay   {}", note.relay)).collect();
    relays.dedup();
    lines.extend(relays);
    if proved.contradictions.is_empty() {
        lines.push("Proved by the relay's own signatures: nothing.".to_owned());
        lines.extend(still_to_try(proved.notes.len(), bundle, against));
    } else {
        lines.push("PROVED: the relay has signed what no honest relay signs.".to_owned());
        lines.extend(proved.contradictions.iter().map(|found| format!("  - {}", view::contradiction(found))));
    }
    let word: Vec<&Claim> = said.claims.iter().filter(|claim| proved.is_word_alone(claim)).collect();
    if !word.is_empty() {
        lines.push(format!("On the signed word of {} alone:", view::plain(&proved.handle, false)));
        lines.extend(word.into_iter().map(|claim| format!("  - {}", view::claim_outside(None, claim))));
    }
    lines.push(
        "Compare both fingerprints with the firm's paper: whose relay and firm it is, nothing else tells.".to_owned(),
    );
    lines.join("\n")
}
