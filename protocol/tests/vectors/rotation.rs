//! `rotation.json`: a relay's key replaced twice, as its devices and its log are told.

use privity_protocol::cbor;
use privity_protocol::frame::{AdmittedBody, VERSION};
use privity_protocol::identity::Signed;
use privity_protocol::ids::Timestamp;
use privity_protocol::link::server_name;
use privity_protocol::log::bundle::{self, PastKey};
use privity_protocol::log::{Checkpoint, LogKeys, TreeHash, note};
use privity_protocol::rotation::{RelayRotation, follow};
use privity_protocol::suite::{Label, PublicKey, SecretKey};
use serde::{Deserialize, Serialize};

use crate::json::{Hex, hex};
use crate::{follows, recorded, secret};

const AT: Timestamp = Timestamp(1_800_000_000_000);
const INCARNATION: [u8; 16] = [0x1c; 16];

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rotations {
    about: String,
    label: String,
    keys: Vec<Key>,
    statements: Vec<Statement>,
    admitted_body: Hex,
    incarnation: Hex,
    keys_file: String,
    checkpoint: String,
    checkpoint_before: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Key {
    seeds: Hex,
    public_key: Hex,
    server_name: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Statement {
    body: Hex,
    signature: Hex,
}

fn keys() -> [SecretKey; 3] {
    [secret(0x71), secret(0x72), secret(0x73)]
}

fn bodies() -> Vec<RelayRotation> {
    let publics = keys().map(|key| key.public().unwrap());
    let step = |(number, pair): (u64, &[PublicKey])| RelayRotation {
        from: pair[0].digest(),
        to: pair[1].clone(),
        at: AT.plus_ms(number),
    };
    (0..).zip(publics.windows(2)).map(step).collect()
}

fn admitted(statements: Vec<Signed>) -> AdmittedBody {
    AdmittedBody {
        version: VERSION,
        relay_key: keys()[0].public().unwrap(),
        incarnation: INCARNATION,
        now: AT,
        idem: None,
        key_packages: 20,
        ready: true,
        organisation: None,
        firm: "Smith & Partners".to_owned(),
        rotations: statements,
    }
}

fn checkpoint(key: &SecretKey) -> String {
    let origin = note::origin(&key.public().unwrap().fingerprint(), &INCARNATION);
    Checkpoint { origin, size: 0, root: TreeHash::empty() }.sign(key, AT).unwrap()
}

fn made() -> Rotations {
    let keys = keys();
    let signed: Vec<Signed> =
        keys.iter().zip(bodies()).map(|(key, body)| RelayRotation::sign(key, &body.to, body.at).unwrap()).collect();
    let log = |key: &SecretKey| {
        LogKeys::make(&note::origin(&key.public().unwrap().fingerprint(), &INCARNATION), key).unwrap()
    };
    let past: Vec<PastKey> = keys
        .iter()
        .zip(&signed)
        .map(|(key, rotation)| PastKey { relay: key.public().unwrap(), keys: log(key), rotation: rotation.clone() })
        .collect();
    let newest = &keys[2];
    Rotations {
        about: "A relay's three keys, each but the last with its statement for the next; the answer to a device that pins the first; the \
                file `keys` of the log under the last, of which nobody has done anything, with its checkpoint and one by the first key. \
                Signatures are random: to be verified, not made again."
            .to_owned(),
        label: String::from_utf8(Label::RelayRotation.as_bytes().to_vec()).unwrap(),
        keys: keys
            .iter()
            .map(|key| Key {
                seeds: hex(key.as_bytes()),
                public_key: hex(key.public().unwrap().as_bytes()),
                server_name: server_name(&key.public().unwrap().fingerprint()),
            })
            .collect(),
        statements: signed
            .iter()
            .map(|signed| Statement { body: hex(&signed.body), signature: hex(&signed.signature) })
            .collect(),
        admitted_body: hex(cbor::encode(&admitted(signed))),
        incarnation: hex(INCARNATION),
        keys_file: bundle::keys_file_after(&past, &newest.public().unwrap(), &log(newest)),
        checkpoint: checkpoint(newest),
        checkpoint_before: checkpoint(&keys[0]),
    }
}

#[test]
fn the_recorded_statements_lead_from_key_to_key() {
    let file = recorded("rotation.json", made);
    assert_eq!(file.label.as_bytes(), Label::RelayRotation.as_bytes());
    let statements: Vec<Signed> =
        file.statements.iter().map(|s| Signed { body: s.body.0.clone(), signature: s.signature.0.clone() }).collect();
    for (key, found) in keys().iter().zip(&file.keys) {
        let public = key.public().unwrap();
        assert_eq!((&found.seeds, &found.public_key), (&hex(key.as_bytes()), &hex(public.as_bytes())));
        assert_eq!(found.server_name, server_name(&public.fingerprint()));
    }
    for (signed, body) in statements.iter().zip(bodies()) {
        assert_eq!(signed.body, cbor::encode(&body));
        assert!(follows("relay-rotation", &signed.body) && follows("signed", &cbor::encode(signed)));
    }
    let first = keys()[0].public().unwrap();
    assert_eq!(follow(&first, &statements).unwrap(), bodies());
    let answer = cbor::encode(&admitted(statements));
    assert_eq!(file.admitted_body, hex(&answer));
    assert!(follows("admitted-body", &answer));
}

#[test]
fn the_recorded_log_verifies_under_each_key_in_turn() {
    let file = recorded("rotation.json", made);
    let files = [("keys", file.keys_file.clone()), ("checkpoint", file.checkpoint)];
    let files = files.map(|(name, text)| (name.to_owned(), text.into_bytes())).into();
    let verified = bundle::verify(&files, Some(&file.checkpoint_before), &mut |_, _| {}).unwrap();
    let [first, second, third] = keys().map(|key| key.public().unwrap().fingerprint());
    assert_eq!((verified.relay, verified.before, verified.against), (third, vec![first, second], Some(0)));
}
