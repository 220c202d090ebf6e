//! `note.json`: a note from one device to another of the same person, recorded, with the private half that opens it.

use privity_protocol::between::{self, Between, Body, DeviceName, NOTE_INFO, Note, SealedNote};
use privity_protocol::cbor;
use privity_protocol::envelope::{self, Class};
use privity_protocol::frame::Blob;
use privity_protocol::ids::{DeviceId, PersonId, Timestamp};
use privity_protocol::matter::{KeyPackages, LeafCredential, Me, Sealed, check_key_package, key_package, seal_to};
use privity_protocol::suite::{Digest, Label};
use serde::{Deserialize, Serialize};

use crate::json::{Hex, hex};
use crate::{follows, recorded, secret};

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Recorded {
    about: String,
    author_seeds: Hex,
    reader_seeds: Hex,
    key_package: Hex,
    reference: Hex,
    private: Hex,
    envelope: Hex,
    padded: Hex,
    signed: Hex,
    note: Hex,
}

const ABOUT: &str = "A note that a person's device sends to another one, in its envelope, sealed to a key package; `padded` is what opens, `signed` \
                     what is in it, `note` what is signed. `private` is the key package's private half, written as in matter.json.";

fn record() -> Recorded {
    let (author, reader) = (secret(21), secret(22));
    let device = DeviceId::new([0x22; 16]);
    let credential =
        LeafCredential { person: PersonId::new([0x20; 16]), device, certificate: Digest::of(&[b"certificate"]) };
    let (me, packages) = (Me { credential, key: reader.clone() }, KeyPackages::default());
    let (package, reference, private) = key_package(&me, &packages, false).unwrap();
    let names = vec![DeviceName { device, name: "laptop".to_owned(), at: Timestamp(1_800_000_000_000) }];
    let note = Note {
        from: DeviceId::new([0x21; 16]),
        to: device,
        at: Timestamp(1_800_000_000_000),
        body: Body::Names(names),
    };
    let signed = note.sign(&author).unwrap();
    let padded = between::pad(&signed).unwrap();
    let sealed = seal_to(&package, NOTE_INFO, &padded).unwrap();
    let sealed = SealedNote {
        reference: Blob(sealed.reference),
        kem_output: Blob(sealed.kem_output),
        ciphertext: Blob(sealed.ciphertext),
    };
    let envelope = envelope::wrap(Class::Between, &cbor::encode(&Between::Note(sealed))).unwrap();
    Recorded {
        about: ABOUT.to_owned(),
        author_seeds: hex(author.as_bytes()),
        reader_seeds: hex(reader.as_bytes()),
        key_package: hex(package),
        reference: hex(reference),
        private: hex(&private[..]),
        envelope: hex(envelope),
        padded: hex(padded),
        signed: hex(cbor::encode(&signed)),
        note: hex(signed.body),
    }
}

#[test]
fn a_recorded_note_opens_and_is_signed() {
    let recorded: Recorded = recorded("note.json", record);
    let (author, reader) = (secret(21), secret(22));
    let (class, payload) = envelope::unwrap(&recorded.envelope.0).unwrap();
    assert_eq!(class, Class::Between);
    assert!(follows("between", payload) && follows("note", &recorded.note.0) && follows("signed", &recorded.signed.0));
    let (owner, key) = check_key_package(&recorded.key_package.0).unwrap();
    assert_eq!((owner.device, key), (DeviceId::new([0x22; 16]), reader.public().unwrap()));
    let packages = KeyPackages::default();
    packages.restore(recorded.reference.0.clone(), &recorded.private.0).unwrap();
    let Ok(Between::Note(SealedNote { reference, kem_output, ciphertext })) = Between::read(payload) else {
        panic!("no note");
    };
    let sealed = Sealed { reference: reference.0, kem_output: kem_output.0, ciphertext: ciphertext.0 };
    let padded = packages.open_sealed(&sealed, NOTE_INFO).unwrap();
    assert_eq!(padded[..], recorded.padded.0[..]);
    assert!(packages.open_sealed(&sealed, b"another purpose").is_err());
    let signed = between::unpad(&padded).unwrap();
    assert_eq!((cbor::encode(&signed), &signed.body), (recorded.signed.0, &recorded.note.0));
    author.public().unwrap().verify(Label::DeviceNote, &signed.body, &signed.signature, "x").unwrap();
    let note = Note::unverified(&signed).unwrap();
    assert_eq!((note.from, note.to), (DeviceId::new([0x21; 16]), DeviceId::new([0x22; 16])));
    assert!(matches!(note.body, Body::Names(names) if names[0].name == "laptop"));
}

#[test]
fn a_key_package_with_a_byte_changed_is_sealed_to_by_nobody() {
    let recorded: Recorded = recorded("note.json", record);
    for at in (4..recorded.key_package.0.len()).step_by(97) {
        let mut package = recorded.key_package.0.clone();
        package[at] ^= 1;
        assert!(seal_to(&package, NOTE_INFO, b"x").is_err(), "byte {at}");
    }
}
