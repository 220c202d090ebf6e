//! What this device has found out about its relay, as claims and as a [`proof`](crate::proof) that others can check.
//!
//! Invariant: what is exported was kept when it was found, and nothing secret is in it: no text, title, name or secret key.

use std::collections::BTreeMap;

use crate::device::Device;
use crate::device::state::{Record, RecordBody};
use crate::error::{Error, Refused};
use crate::ids::Timestamp;
use crate::limits;
use crate::log::{LogKeys, bundle};
use crate::proof::{Claim, DEVICE, README, STATEMENT, Statement, device_file};
use crate::suite::{Digest, PublicKey};

impl Device {
    /// What contradicts the relay's audit log, and the forks and disputes among these records, the newest of them.
    pub fn claims(&self, records: &[Record]) -> Vec<Claim> {
        let faults = self.log().map_or(&[][..], |view| &view.faults);
        let mut claims: Vec<Claim> = (1..)
            .zip(faults)
            .map(|(number, fault)| Claim::Log {
                number,
                at: fault.at,
                what: fault.what.replace(char::is_control, " "),
                told: fault.told.map(|(person, head)| (person, head.size, head.root)),
            })
            .collect();
        let room = limits::CLAIMS_MAX.saturating_sub(claims.len());
        let found: Vec<Claim> = records.iter().rev().filter_map(claim_of).take(room).collect();
        claims.extend(found.into_iter().rev());
        claims
    }

    /// The proof of these claims, with `readme` as its plain words: files by their paths.
    ///
    /// # Errors
    /// [`Refused::NotAllowed`] while nobody vouches for this person: nobody could tell who says so.
    pub fn proof(
        &self,
        now: Timestamp,
        claims: Vec<Claim>,
        readme: String,
    ) -> Result<BTreeMap<String, Vec<u8>>, Error> {
        let chain = self.people.get(&self.profile.person).map(|known| known.chain.as_slice()).unwrap_or_default();
        if chain.is_empty() {
            return Err(
                Refused::not_allowed("nobody has endorsed you yet, so nobody could tell whose proof it is").into()
            );
        }
        let mut files = BTreeMap::from([
            (README.to_owned(), readme.into_bytes()),
            (DEVICE.to_owned(), device_file(&self.profile.organisation, chain)),
        ]);
        if let Some(view) = self.log() {
            let relay = view.relay.as_ref().unwrap_or(&self.profile.relay);
            put_notes(&mut files, 0, (relay, &view.keys), &view.note, None);
            for (number, fault) in (1..).zip(&view.faults) {
                let keys = (fault.relay.as_ref().unwrap_or(relay), fault.keys.as_ref().unwrap_or(&view.keys));
                put_notes(&mut files, number, keys, &fault.known, fault.shown.as_deref());
            }
        }
        let (person, device) = (self.profile.person, self.profile.device);
        let hashes = files.iter().map(|(path, bytes)| (path.clone(), Digest::of(&[bytes]))).collect();
        let statement = Statement { made: now, person, device, files: hashes, claims };
        files.insert(STATEMENT.to_owned(), statement.sign(&self.profile.mls_key)?);
        Ok(files)
    }
}

fn put_notes(
    files: &mut BTreeMap<String, Vec<u8>>,
    number: u64,
    (relay, keys): (&PublicKey, &LogKeys),
    known: &str,
    shown: Option<&str>,
) {
    let keys = bundle::keys_file(relay, keys);
    let notes = [("keys", Some(keys.as_str())), ("known", Some(known)), ("shown", shown)];
    for (name, text) in notes {
        if let Some(text) = text {
            files.insert(format!("log/{number}/{name}"), text.as_bytes().to_vec());
        }
    }
}

fn claim_of(record: &Record) -> Option<Claim> {
    let (at, matter) = (record.at, record.matter);
    match (&record.what, record.from) {
        (RecordBody::Forked { read, shown }, _) => Some(Claim::Fork { at, matter, read: *read, shown: *shown }),
        (RecordBody::Dispute { read, said }, Some(by)) => {
            Some(Claim::Dispute { at, matter, by, positions: said.map(|said| (*read, said)) })
        }
        _ => None,
    }
}
