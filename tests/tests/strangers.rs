//! Whom the real relay does not let in: other key exchanges, unknown keys, proofs of other connections, half a signature.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::SocketAddr;
use std::sync::Arc;

use privity_protocol::cbor;
use privity_protocol::error::Refused;
use privity_protocol::frame::{ALPN, FromRelay, Hello, HelloBody, Instance, VERSION};
use privity_protocol::ids::DeviceId;
use privity_protocol::limits;
use privity_protocol::link::{Channel, Opening, Pin};
use privity_protocol::suite::{Fingerprint, Label, SecretKey};
use privity_tests::Firm;
use privity_transport as transport;
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{Connection, Endpoint};
use rustls::crypto::aws_lc_rs as provider;

fn run(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test);
}

async fn connect(address: &str, link_key: &SecretKey) -> (Endpoint, Connection) {
    let mut endpoint = Endpoint::client(([127, 0, 0, 1], 0).into()).unwrap();
    endpoint.set_default_client_config(transport::client_config(link_key).unwrap());
    let address: SocketAddr = address.parse().unwrap();
    let connection = endpoint.connect(address, "privity").unwrap().await.unwrap();
    (endpoint, connection)
}

/// Shows a hello and returns the relay's first frame.
async fn show(connection: &Connection, hello: &Hello) -> FromRelay {
    let (mut send, mut receive) = connection.open_bi().await.unwrap();
    transport::write(&mut send, hello).await.unwrap();
    transport::read(&mut receive, limits::HELLO_MAX).await.unwrap()
}

fn hello(channel: &Channel, link_key: &SecretKey, device: Option<DeviceId>) -> Hello {
    let pin = Pin::Fingerprint(Fingerprint::new([0; 32]));
    let device = device.map(|device| (device, Instance::after(None)));
    Opening::hello(channel.clone(), pin, device, link_key, "test").unwrap().1
}

fn refused(frame: &FromRelay) -> bool {
    matches!(frame, FromRelay::Refused(Refused::NotAllowed { .. } | Refused::Malformed { .. }))
}

#[test]
fn a_client_with_classical_key_exchange_only_is_refused() {
    let firm = Firm::found().unwrap();
    run(async {
        for (groups, let_in) in [
            (vec![provider::kx_group::X25519, provider::kx_group::SECP256R1], false),
            (vec![provider::kx_group::X25519MLKEM768], true),
        ] {
            let crypto = rustls::crypto::CryptoProvider { kx_groups: groups, ..provider::default_provider() };
            let crypto = Arc::new(crypto);
            let mut tls = rustls::ClientConfig::builder_with_provider(Arc::clone(&crypto))
                .with_protocol_versions(&[&rustls::version::TLS13])
                .unwrap()
                .with_root_certificates(rustls::RootCertStore::empty())
                .with_no_client_auth();
            tls.alpn_protocols = vec![ALPN.to_vec()];
            let config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()));
            let mut endpoint = Endpoint::client(([127, 0, 0, 1], 0).into()).unwrap();
            endpoint.set_default_client_config(config);
            let address: SocketAddr = firm.relay.address.parse().unwrap();
            let error = endpoint.connect(address, "privity").unwrap().await.unwrap_err().to_string();
            // Both fail, for different reasons: no common key exchange, or (with a common one) no raw keys.
            let no_group = error.contains("handshake failure") || error.contains("NoKxGroupsInCommon");
            assert_eq!(!no_group, let_in, "{error}");
        }
    });
}

#[test]
fn an_unknown_device_key_is_refused_in_a_frame() {
    let firm = Firm::found().unwrap();
    run(async {
        let link_key = SecretKey::generate();
        let (_endpoint, connection) = connect(&firm.relay.address, &link_key).await;
        let channel = transport::channel(&connection).unwrap();
        let frame = show(&connection, &hello(&channel, &link_key, Some(DeviceId::random()))).await;
        assert!(refused(&frame), "{frame:?}");
    });
}

#[test]
fn a_known_device_with_another_key_is_refused() {
    let firm = Firm::found().unwrap();
    let status = firm.attorney.ok(&["status"]).unwrap();
    let device: DeviceId = status[0]["device"].as_str().unwrap().parse().unwrap();
    run(async {
        let link_key = SecretKey::generate();
        let (_endpoint, connection) = connect(&firm.relay.address, &link_key).await;
        let channel = transport::channel(&connection).unwrap();
        let frame = show(&connection, &hello(&channel, &link_key, Some(device))).await;
        assert!(refused(&frame), "{frame:?}");
    });
}

#[test]
fn a_proof_made_for_another_connection_is_refused() {
    let firm = Firm::found().unwrap();
    run(async {
        let link_key = SecretKey::generate();
        let (_one, first) = connect(&firm.relay.address, &link_key).await;
        let (_two, second) = connect(&firm.relay.address, &link_key).await;
        let carried = hello(&transport::channel(&first).unwrap(), &link_key, None);
        let frame = show(&second, &carried).await;
        assert!(refused(&frame), "{frame:?}");
        // The same proof on its own connection is good.
        assert!(matches!(show(&first, &carried).await, FromRelay::Admitted(_)));
    });
}

#[test]
fn a_hello_without_its_ed25519_half_is_refused() {
    let firm = Firm::found().unwrap();
    run(async {
        let link_key = SecretKey::generate();
        for broken in 0..3 {
            let (_endpoint, connection) = connect(&firm.relay.address, &link_key).await;
            let channel = transport::channel(&connection).unwrap();
            let mut hello = hello(&channel, &link_key, None);
            match broken {
                0 => hello.signature.clear(),
                1 => hello.signature[0] ^= 1,
                _ => {
                    // Another Ed25519 key beside the TLS connection's ML-DSA key, with a good signature of its own.
                    let other = SecretKey::generate();
                    let mut body: HelloBody = cbor::decode(&hello.body, "hello").unwrap();
                    body.newest = VERSION;
                    let own = link_key.public().unwrap();
                    body.link_key = privity_protocol::suite::PublicKey::from_halves(
                        other.public().unwrap().ed25519(),
                        own.ml_dsa(),
                    )
                    .unwrap();
                    hello.body = cbor::encode(&body);
                    let message = [&channel.exporter[..], &hello.body].concat();
                    hello.signature = link_key.sign_ed25519(Label::HelloDevice, &message).unwrap();
                }
            }
            let frame = show(&connection, &hello).await;
            assert!(refused(&frame), "{broken}: {frame:?}");
        }
    });
}
