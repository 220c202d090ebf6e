//! The in-memory relay's audit log: of whatever it shows of people, unless it is told to lie.

use std::collections::BTreeMap;
use std::sync::{Mutex, OnceLock, PoisonError};

use super::*;
use crate::frame::ProvedLeaf;
use crate::identity::DeviceCertificate;
use crate::log::{Act, Checkpoint, Event as LogEvent, Last, Leaf, LogKeys, Opening, TreeHash, note, tree};

/// The leaves of a log with what they commit to.
#[derive(Clone, Default)]
pub(in crate::device::tests) struct Log {
    pub(in crate::device::tests) leaves: Vec<(Leaf, Opening)>,
}

impl Log {
    fn hashes(&self) -> Vec<TreeHash> {
        self.leaves.iter().map(|(leaf, _)| leaf.hash()).collect()
    }

    pub(in crate::device::tests) fn add(&mut self, person: PersonId, act: Act) {
        let last: Option<Last> =
            self.leaves.iter().rev().find(|(leaf, _)| leaf.person == Some(person)).map(|(leaf, _)| leaf.last());
        let opening = Opening::new(&LogEvent { at: Timestamp(0), act });
        self.leaves.push((Leaf::after(last.as_ref(), Some(person), &opening), opening));
    }

    fn has(&self, person: PersonId, act: &Act) -> bool {
        let is = |(leaf, opening): &(Leaf, Opening)| {
            leaf.person == Some(person) && leaf.open(opening).is_ok_and(|event| event.act == *act)
        };
        self.leaves.iter().any(is)
    }
}

impl Relay {
    /// The log that a device is shown.
    fn log_of(&self, device: DeviceId) -> &Log {
        self.other_log.as_ref().filter(|(to, _)| *to == device).map_or(&self.log, |(_, log)| log)
    }

    fn keep_log(&mut self) {
        let people: Vec<PersonId> = self.people.keys().copied().collect();
        for person in people {
            for identity in self.chain(person).into_iter().filter(|identity| identity.person == person) {
                let key = identity.person_key.digest();
                let handle = String::new();
                let invite = InviteId::new([0; 16]);
                let mut acts = vec![match self.replaced.contains(&person) {
                    true => Act::Recovered { person_key: key, statement: key },
                    false => Act::Registered { person_key: key, handle, role: Role::Client, invite },
                }];
                acts.extend(identity.certificates.iter().map(|certificate| {
                    let said: DeviceCertificate = certificate.unverified("certificate").unwrap();
                    Act::DeviceAdded { device: said.device, certificate: certificate.digest() }
                }));
                acts.push(Act::Endorsed { endorsement: identity.endorsement.digest(), by: None });
                for act in acts {
                    if !self.log.has(person, &act) && !self.unlogged.contains(&person) {
                        self.log.add(person, act);
                    }
                }
            }
        }
    }

    pub(super) fn log_request(&mut self, device: DeviceId, request: &Request) -> Reply {
        self.keep_log();
        let hashes = self.log_of(device).hashes();
        match request {
            Request::Checkpoint => {
                let size = hashes.len() as u64;
                let root = tree::root(&hashes[..], size).unwrap();
                let origin = note::origin(
                    &relay_key().public().unwrap().fingerprint(),
                    &self.log_name.unwrap_or(self.incarnation),
                );
                let note = signed(&Checkpoint { origin: origin.clone(), size, root });
                Reply::Checkpoint { note, keys: keys(&origin) }
            }
            Request::Consistency { from, to } => match tree::consistency(&hashes[..], *from, *to) {
                Ok(proof) if *to <= hashes.len() as u64 => Reply::Consistency { proof },
                _ => Reply::Refused(Refused::malformed("the log has no such sizes")),
            },
            Request::History { person, after, size } => {
                let forged = Self { log: Log::default(), ..self.clone() };
                let forged = self.forged_leaves.then(|| {
                    let mut forged = Self { unlogged: BTreeSet::new(), ..forged };
                    forged.keep_log();
                    forged.log
                });
                let leaves = &forged.as_ref().unwrap_or_else(|| self.log_of(device)).leaves;
                let of = leaves.iter().enumerate().take(usize::try_from(*size).unwrap());
                let of = of.filter(|(_, (leaf, _))| leaf.person == Some(*person) && leaf.number > *after);
                let of = of.filter(|(_, (leaf, _))| self.hidden_leaf != Some((*person, leaf.number)));
                let proved = of.map(|(index, (leaf, opening))| ProvedLeaf {
                    index: index as u64,
                    leaf: leaf.encode(),
                    proof: tree::inclusion(&hashes[..], index as u64, *size).unwrap(),
                    opening: Some(opening.clone()),
                });
                Reply::History { leaves: proved.collect(), more: false }
            }
            _ => Reply::Refused(Refused::malformed("request")),
        }
    }
}

/// Signing takes its time, and one log has one note.
fn signed(checkpoint: &Checkpoint) -> String {
    static NOTES: OnceLock<Mutex<BTreeMap<String, String>>> = OnceLock::new();
    let mut notes = NOTES.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner);
    // By a clock that goes back as the log grows: nothing may hang on it.
    let at = Timestamp(1_800_000_000_000 - 1000 * checkpoint.size);
    let sign = || checkpoint.sign(relay_key(), at).unwrap();
    notes.entry(checkpoint.text()).or_insert_with(sign).clone()
}

fn keys(origin: &str) -> LogKeys {
    static KEYS: OnceLock<Mutex<BTreeMap<String, LogKeys>>> = OnceLock::new();
    let mut keys = KEYS.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner);
    keys.entry(origin.to_owned()).or_insert_with(|| LogKeys::make(origin, relay_key()).unwrap()).clone()
}
