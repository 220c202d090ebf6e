//! The link's opening: whatever is not proved over this very connection, with both halves of the expected key, is refused.

use super::*;
use crate::frame::Instance;
use crate::ids::Timestamp;

fn channel(peer: &SecretKey, connection: u8) -> Channel {
    let peer_ml_dsa = peer.public().unwrap().ml_dsa().to_vec();
    Channel { exporter: [connection; EXPORTER_LEN], peer_ml_dsa }
}

fn answer(relay: &SecretKey, version: u16) -> AdmittedBody {
    AdmittedBody {
        version,
        relay_key: relay.public().unwrap(),
        incarnation: [1; 16],
        now: Timestamp(7),
        idem: None,
        key_packages: 0,
        ready: false,
        organisation: None,
        firm: "Firm".to_owned(),
        rotations: Vec::new(),
    }
}

struct Ends {
    device: SecretKey,
    relay: SecretKey,
}

impl Ends {
    fn new() -> Self {
        Self { device: SecretKey::generate(), relay: SecretKey::generate() }
    }

    fn pin(&self) -> Pin {
        Pin::Fingerprint(self.relay.public().unwrap().fingerprint())
    }

    /// The device's end of connection 1.
    fn opening(&self, pin: Pin) -> (Opening, Hello) {
        let id = DeviceId::new([4; 16]);
        Opening::hello(channel(&self.relay, 1), pin, Some((id, Instance::after(None))), &self.device, "test").unwrap()
    }

    fn claimed(&self) -> Claimed {
        Claimed::read(channel(&self.device, 1), &self.opening(self.pin()).1).unwrap()
    }
}

#[test]
fn both_ends_believe_each_other_over_one_connection() {
    let ends = Ends::new();
    for pin in [ends.pin(), Pin::Key(ends.relay.public().unwrap())] {
        let (opening, hello) = ends.opening(pin);
        let claimed = Claimed::read(channel(&ends.device, 1), &hello).unwrap();
        assert_eq!(claimed.body.device, Some(DeviceId::new([4; 16])));
        assert_eq!(claimed.version, VERSION);
        let body = answer(&ends.relay, claimed.version);
        let admitted = claimed.admit(&body, &ends.relay).unwrap();
        assert_eq!(opening.admitted(&admitted).unwrap(), body);
    }
}

#[test]
fn a_proof_carried_to_another_connection_is_refused() {
    let ends = Ends::new();
    let (_, hello) = ends.opening(ends.pin());
    let error = Claimed::read(channel(&ends.device, 2), &hello).unwrap_err();
    assert_eq!(error, PeerMisbehaved::Signature("hello").into());

    let other = Opening::hello(channel(&ends.relay, 2), ends.pin(), None, &ends.device, "test").unwrap().0;
    let admitted = ends.claimed().admit(&answer(&ends.relay, VERSION), &ends.relay).unwrap();
    assert_eq!(other.admitted(&admitted).unwrap_err(), PeerMisbehaved::Signature("relay's answer").into());
}

#[test]
fn an_ed25519_half_that_is_altered_or_missing_is_refused() {
    let ends = Ends::new();
    let (_, hello) = ends.opening(ends.pin());
    let admitted = ends.claimed().admit(&answer(&ends.relay, VERSION), &ends.relay).unwrap();
    for byte in 0..64 {
        let mut broken = hello.clone();
        broken.signature[byte] ^= 1;
        assert!(Claimed::read(channel(&ends.device, 1), &broken).is_err(), "byte {byte}");
        let mut broken = admitted.clone();
        broken.signature[byte] ^= 1;
        assert!(ends.opening(ends.pin()).0.admitted(&broken).is_err(), "byte {byte}");
    }
    for length in [0, 1, 63] {
        let broken = Hello { signature: hello.signature[..length].to_vec(), ..hello.clone() };
        assert!(Claimed::read(channel(&ends.device, 1), &broken).is_err(), "{length} bytes");
        let broken = Admitted { signature: admitted.signature[..length].to_vec(), ..admitted.clone() };
        assert!(ends.opening(ends.pin()).0.admitted(&broken).is_err(), "{length} bytes");
    }
}

#[test]
fn a_proof_made_for_the_other_direction_is_refused() {
    let ends = Ends::new();
    let (_, mut hello) = ends.opening(ends.pin());
    let message = bound(&channel(&ends.device, 1), &hello.body);
    hello.signature = ends.device.sign_ed25519(Label::HelloRelay, &message).unwrap();
    assert!(Claimed::read(channel(&ends.device, 1), &hello).is_err());
}

#[test]
fn a_key_whose_other_half_did_not_open_the_connection_is_refused() {
    let ends = Ends::new();
    let (_, hello) = ends.opening(ends.pin());
    let stranger = SecretKey::generate();
    let error = Claimed::read(channel(&stranger, 1), &hello).unwrap_err();
    assert_eq!(error, PeerMisbehaved::WrongKey("the link key").into());

    let opening = Opening::hello(channel(&stranger, 1), ends.pin(), None, &ends.device, "test").unwrap().0;
    let admitted = ends.claimed().admit(&answer(&ends.relay, VERSION), &ends.relay).unwrap();
    assert_eq!(opening.admitted(&admitted).unwrap_err(), PeerMisbehaved::WrongKey("the relay's key").into());
}

/// The quantum-safe half is the connection's own, the other somebody else's: neither alone is enough.
#[test]
fn a_key_spliced_from_two_is_refused() {
    let ends = Ends::new();
    let stranger = SecretKey::generate().public().unwrap();
    let spliced = PublicKey::from_halves(stranger.ed25519(), ends.device.public().unwrap().ml_dsa()).unwrap();
    let (_, hello) = ends.opening(ends.pin());
    let body: HelloBody = cbor::decode(&hello.body, "hello").unwrap();
    let body = cbor::encode(&HelloBody { link_key: spliced, ..body });
    let message = bound(&channel(&ends.device, 1), &body);
    let signature = ends.device.sign_ed25519(Label::HelloDevice, &message).unwrap();
    assert!(Claimed::read(channel(&ends.device, 1), &Hello { body, signature }).is_err());
}

#[test]
fn another_relay_than_the_pinned_one_is_refused() {
    let ends = Ends::new();
    let other = SecretKey::generate().public().unwrap();
    for pin in [Pin::Fingerprint(other.fingerprint()), Pin::Key(other)] {
        let (opening, _) = ends.opening(pin);
        let admitted = ends.claimed().admit(&answer(&ends.relay, VERSION), &ends.relay).unwrap();
        assert_eq!(opening.admitted(&admitted).unwrap_err(), PeerMisbehaved::WrongKey("the relay's key").into());
    }
}

#[test]
fn without_a_common_version_there_is_no_link() {
    let ends = Ends::new();
    let (_, hello) = ends.opening(ends.pin());
    let body: HelloBody = cbor::decode(&hello.body, "hello").unwrap();
    let versions = [(0, 0, false), (VERSION + 1, VERSION + 1, false), (VERSION + 1, VERSION, true), (1, 0, true)];
    for (newest, lowest, good) in versions {
        let body = cbor::encode(&HelloBody { newest, lowest, ..body.clone() });
        let message = bound(&channel(&ends.device, 1), &body);
        let signature = ends.device.sign_ed25519(Label::HelloDevice, &message).unwrap();
        let read = Claimed::read(channel(&ends.device, 1), &Hello { body, signature });
        assert_eq!(read.is_ok(), good, "{newest} down to {lowest}");
        if !good {
            assert_eq!(read.unwrap_err(), Refused::Version.into());
        }
    }
    for version in [0, VERSION + 1] {
        let admitted = ends.claimed().admit(&answer(&ends.relay, version), &ends.relay).unwrap();
        assert_eq!(ends.opening(ends.pin()).0.admitted(&admitted).unwrap_err(), Refused::Version.into());
    }
}

#[test]
fn a_hello_that_is_not_one_is_refused_without_a_panic() {
    let ends = Ends::new();
    let (_, hello) = ends.opening(ends.pin());
    for length in 0..hello.body.len().min(64) {
        let broken = Hello { body: hello.body[..length].to_vec(), ..hello.clone() };
        assert!(Claimed::read(channel(&ends.device, 1), &broken).is_err());
    }
    let body: HelloBody = cbor::decode(&hello.body, "hello").unwrap();
    let body = cbor::encode(&HelloBody { agent: "x".repeat(65), ..body });
    let signature = ends.device.sign_ed25519(Label::HelloDevice, &bound(&channel(&ends.device, 1), &body)).unwrap();
    assert!(matches!(
        Claimed::read(channel(&ends.device, 1), &Hello { body, signature }).unwrap_err(),
        Error::Malformed(Malformed::TooLarge { what: "agent", limit: 64 })
    ));
}
