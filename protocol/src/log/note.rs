//! Checkpoints as signed notes: C2SP tlog-checkpoint, signed-note and tlog-cosignature.
//!
//! ```text
//! privity/<fingerprint of the relay>/<its incarnation>        the origin
//! 20852163                                                    how many leaves
//! CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=                their root
//!
//! — <origin> <key id ‖ Ed25519 over the three lines>
//! — <origin> <key id ‖ time ‖ ML-DSA-44 over the cosigned message>
//! ```
//!
//! A restored relay has a new incarnation, and so another log: it never signs two histories under one origin. The keys are said in
//! [`LogKeys`], which the relay's hybrid key signs: whoever has pinned the relay has pinned them.
//!
//! Invariant: a checkpoint is believed only with both signatures.

use data_encoding::BASE64;
use minicbor::{Decode, Encode};

use super::TreeHash;
use crate::error::{Error, Malformed, Misuse, PeerMisbehaved};
use crate::ids::{Timestamp, base32};
use crate::limits;
use crate::suite::note::{COSIGN_KEY_LEN, cosigned, note_signed, sha256};
use crate::suite::{Fingerprint, Label, PublicKey, SecretKey};

/// The signature type of an Ed25519 note signature.
const ED25519: u8 = 0x01;
/// The signature type of an ML-DSA-44 cosignature.
const COSIGNATURE: u8 = 0x06;
/// What a signature line begins with: an em dash and a space.
const DASH: &str = "\u{2014} ";

/// How a relay's log is called: another one for each relay and incarnation.
pub fn origin(relay: &Fingerprint, incarnation: &[u8; 16]) -> String {
    format!("privity/{}/{}", base32().encode(relay.as_bytes()), base32().encode(incarnation))
}

/// The state of a log: how many leaves, and their root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// Which log.
    pub origin: String,
    /// How many leaves.
    pub size: u64,
    /// The root of the tree.
    pub root: TreeHash,
}

impl Checkpoint {
    /// The text that is signed.
    pub fn text(&self) -> String {
        format!("{}\n{}\n{}\n", self.origin, self.size, BASE64.encode(self.root.as_bytes()))
    }

    /// The checkpoint whose text this is, written in the one way.
    ///
    /// # Errors
    /// [`Malformed`] if it is none.
    pub fn parse(text: &str) -> Result<Self, Malformed> {
        let wrong = || Malformed::Text("checkpoint");
        let mut lines = text.split('\n');
        let origin = lines.next().ok_or_else(wrong)?.to_owned();
        let size = lines.next().and_then(|size| size.parse().ok()).ok_or_else(wrong)?;
        let root = lines.next().and_then(|root| BASE64.decode(root.as_bytes()).ok()).ok_or_else(wrong)?;
        let checkpoint = Self { origin, size, root: TreeHash::from_slice(&root)? };
        let named = !checkpoint.origin.is_empty() && !checkpoint.origin.contains([' ', '+']);
        if named && checkpoint.text() == text { Ok(checkpoint) } else { Err(wrong()) }
    }

    /// The signed note, by the relay's key and by its cosigner.
    ///
    /// # Errors
    /// [`Misuse::Crypto`] if the library fails.
    pub fn sign(&self, relay: &SecretKey, at: Timestamp) -> Result<String, Misuse> {
        let (text, seconds) = (self.text(), at.0.div_euclid(1000));
        let ed25519 = relay.sign_note(text.as_bytes())?;
        let cosignature = relay.cosign(&self.cosigned_message(seconds))?;
        let line = |kind, key: &[u8], parts: &[&[u8]]| {
            let bytes = [&key_id(&self.origin, kind, key)[..], &parts.concat()].concat();
            format!("{DASH}{} {}\n", self.origin, BASE64.encode(&bytes))
        };
        let first = line(ED25519, relay.public()?.ed25519(), &[&ed25519]);
        let second = line(COSIGNATURE, &relay.cosign_key()?, &[&seconds.to_be_bytes(), &cosignature]);
        Ok(format!("{text}\n{first}{second}"))
    }

    /// What ML-DSA-44 signs: the `cosigned_message` of tlog-cosignature, by the log itself.
    fn cosigned_message(&self, seconds: u64) -> Vec<u8> {
        let length = u8::try_from(self.origin.len()).unwrap_or(u8::MAX);
        let origin = [&[length], self.origin.as_bytes()].concat();
        [
            &b"subtree/v1\n\0"[..],
            &origin,
            &seconds.to_be_bytes(),
            &origin,
            &0_u64.to_be_bytes(),
            &self.size.to_be_bytes(),
            self.root.as_bytes(),
        ]
        .concat()
    }
}

/// The keys that a log's checkpoints are signed with, and the relay's word for them.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct LogKeys {
    /// Two lines: the verifier keys (C2SP signed-note) for Ed25519 and for ML-DSA-44.
    #[n(0)]
    pub vkeys: String,
    /// By the relay's key, both halves, over the two lines.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub signature: Vec<u8>,
}

impl LogKeys {
    /// The keys of a relay's log.
    ///
    /// # Errors
    /// [`Misuse::Crypto`] if the library fails.
    pub fn make(origin: &str, relay: &SecretKey) -> Result<Self, Misuse> {
        let vkeys = vkey(origin, ED25519, relay.public()?.ed25519()) + &vkey(origin, COSIGNATURE, &relay.cosign_key()?);
        let signature = relay.sign(Label::LogKeys, vkeys.as_bytes())?;
        Ok(Self { vkeys, signature })
    }

    /// What verifies this log's checkpoints, if the relay with this key has said so.
    ///
    /// # Errors
    /// [`PeerMisbehaved`] if it has not; [`Malformed`] if they are no keys of a log.
    pub fn verifier(&self, relay: &PublicKey) -> Result<Verifier, Error> {
        relay.verify(Label::LogKeys, self.vkeys.as_bytes(), &self.signature, "the keys of the log")?;
        let wrong = || Malformed::Text("keys of the log");
        let (first, second) = self.vkeys.split_once('\n').ok_or_else(wrong)?;
        let origin = first.split('+').next().ok_or_else(wrong)?.to_owned();
        let cosigner = second.splitn(3, '+').nth(2).and_then(|key| key.strip_suffix('\n')).ok_or_else(wrong)?;
        let cosigner = BASE64.decode(cosigner.as_bytes()).map_err(|_| wrong())?;
        let cosigner = cosigner.strip_prefix(&[COSIGNATURE]).ok_or_else(wrong)?.to_vec();
        let expected = vkey(&origin, ED25519, relay.ed25519()) + &vkey(&origin, COSIGNATURE, &cosigner);
        let fits = self.vkeys == expected && cosigner.len() == COSIGN_KEY_LEN && origin.len() <= limits::ORIGIN_MAX;
        if fits { Ok(Verifier { origin, relay: relay.clone(), cosigner }) } else { Err(wrong().into()) }
    }
}

/// Verifies the checkpoints of one log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verifier {
    origin: String,
    relay: PublicKey,
    cosigner: Vec<u8>,
}

impl Verifier {
    /// Which log.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// The checkpoint of a signed note, and when it was signed. Signatures of others beside the log's two are passed over.
    ///
    /// # Errors
    /// [`Malformed`] if it is no checkpoint; [`PeerMisbehaved`] if it is another log's, or a signature of this log's is missing or wrong.
    pub fn open(&self, note: &str) -> Result<(Checkpoint, Timestamp), Error> {
        let (checkpoint, at, _) = self.read(note)?;
        Ok((checkpoint, at))
    }

    /// Like [`Self::open`], but the note must have the log's two signatures, Ed25519 first, and nothing else.
    ///
    /// # Errors
    /// As [`Self::open`]; [`Malformed`] for anything beside them.
    pub fn open_exactly(&self, note: &str) -> Result<(Checkpoint, Timestamp), Error> {
        let (checkpoint, at, kinds) = self.read(note)?;
        if kinds == [Some(ED25519), Some(COSIGNATURE)] {
            Ok((checkpoint, at))
        } else {
            Err(Malformed::Text("checkpoint").into())
        }
    }

    /// The checkpoint, its time, and of each signature the type, if it is the log's own.
    fn read(&self, note: &str) -> Result<(Checkpoint, Timestamp, Vec<Option<u8>>), Error> {
        let wrong = || Malformed::Text("checkpoint");
        if note.len() > limits::CHECKPOINT_MAX {
            return Err(Malformed::TooLarge { what: "checkpoint", limit: limits::CHECKPOINT_MAX }.into());
        }
        let (text, signatures) = note.rsplit_once("\n\n").ok_or_else(wrong)?;
        let checkpoint = Checkpoint::parse(&format!("{text}\n"))?;
        if checkpoint.origin != self.origin {
            return Err(PeerMisbehaved::WrongKey("the log of the checkpoint").into());
        }
        let (mut kinds, mut at) = (Vec::new(), None);
        for line in signatures.strip_suffix('\n').ok_or_else(wrong)?.split('\n') {
            let (name, signature) = line.strip_prefix(DASH).and_then(|line| line.split_once(' ')).ok_or_else(wrong)?;
            let bytes = BASE64.decode(signature.as_bytes()).map_err(|_| wrong())?;
            let (id, signature) = bytes.split_first_chunk::<4>().ok_or_else(wrong)?;
            kinds.push(if name == self.origin { self.kind(id) } else { None });
            let good = match kinds.last() {
                Some(Some(ED25519)) => note_signed(&self.relay, checkpoint.text().as_bytes(), signature),
                Some(Some(_)) => {
                    let (time, signature) = signature.split_first_chunk().ok_or_else(wrong)?;
                    let seconds = u64::from_be_bytes(*time);
                    at = Some(Timestamp(seconds.saturating_mul(1000)));
                    cosigned(&self.cosigner, &checkpoint.cosigned_message(seconds), signature)
                }
                _ => true,
            };
            if !good {
                return Err(PeerMisbehaved::Signature("the checkpoint").into());
            }
        }
        match at {
            Some(at) if kinds.contains(&Some(ED25519)) => Ok((checkpoint, at, kinds)),
            _ => Err(PeerMisbehaved::Signature("the checkpoint").into()),
        }
    }

    fn kind(&self, id: &[u8; 4]) -> Option<u8> {
        let ours = [(ED25519, self.relay.ed25519()), (COSIGNATURE, &self.cosigner)];
        ours.into_iter().find(|(kind, key)| key_id(&self.origin, *kind, key) == *id).map(|(kind, _)| kind)
    }
}

/// A verifier key (C2SP signed-note), on a line of its own.
fn vkey(origin: &str, kind: u8, key: &[u8]) -> String {
    let [a, b, c, d] = key_id(origin, kind, key);
    format!("{origin}+{a:02x}{b:02x}{c:02x}{d:02x}+{}\n", BASE64.encode(&[&[kind], key].concat()))
}

fn key_id(name: &str, kind: u8, key: &[u8]) -> [u8; 4] {
    let [a, b, c, d, ..] = sha256(&[name.as_bytes(), b"\n", &[kind], key]);
    [a, b, c, d]
}
