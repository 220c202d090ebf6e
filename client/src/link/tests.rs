//! Against a stand-in on loopback: the relay, or somebody who answers in its place.

use std::sync::{Arc, Mutex};

use privity_protocol::cbor;
use privity_protocol::frame::{Admitted, Hello, HelloBody, VERSION};
use privity_protocol::ids::Timestamp;
use privity_protocol::link::Claimed;

use super::*;

type Hellos = Arc<Mutex<Vec<HelloBody>>>;

/// What a stand-in answers.
#[derive(Debug, Clone)]
pub(crate) enum Says {
    /// The hello is refused.
    No(Refused),
    /// The hello is admitted, and the first request answered so.
    Yes(Reply),
    /// Bytes that are no answer of a relay's.
    Garbled,
}

/// Answers every hello in the same way, and remembers them.
pub(crate) struct StandIn {
    pub(crate) address: String,
    hellos: Hellos,
}

impl StandIn {
    /// With `key`, on a port of its own, as long as the runtime lives.
    pub(crate) fn start(key: &SecretKey, says: Says) -> Self {
        let config = transport::server_config(key).unwrap();
        let endpoint = Endpoint::server(config, ([127, 0, 0, 1], 0).into()).unwrap();
        let address = endpoint.local_addr().unwrap().to_string();
        let hellos = Hellos::default();
        let (key, heard) = (key.clone(), Arc::clone(&hellos));
        tokio::spawn(async move {
            while let Some(incoming) = endpoint.accept().await {
                let (key, says, heard) = (key.clone(), says.clone(), Arc::clone(&heard));
                tokio::spawn(async move {
                    let connection = incoming.await.unwrap();
                    if let Ok((send, receive)) = connection.accept_bi().await {
                        answer(&connection, send, receive, &key, says, &heard).await;
                    }
                });
            }
        });
        Self { address, hellos }
    }

    pub(crate) fn hellos(&self) -> usize {
        self.hellos.lock().unwrap().len()
    }

    /// Which copy of a profile said hello, each time.
    pub(crate) fn instances(&self) -> Vec<Option<Instance>> {
        self.hellos.lock().unwrap().iter().map(|hello| hello.instance).collect()
    }
}

async fn answer(
    connection: &Connection,
    mut send: SendStream,
    mut receive: RecvStream,
    key: &SecretKey,
    says: Says,
    heard: &Hellos,
) {
    let Ok(hello) = transport::read::<Hello>(&mut receive, limits::HELLO_MAX).await else { return };
    heard.lock().unwrap().push(cbor::decode(&hello.body, "hello").unwrap());
    match says {
        Says::No(refused) => transport::write(&mut send, &FromRelay::Refused(refused)).await.unwrap(),
        Says::Garbled => {
            let admitted = Admitted { body: b"garbled".to_vec(), signature: vec![0; 64] };
            transport::write(&mut send, &FromRelay::Admitted(admitted)).await.unwrap();
        }
        Says::Yes(reply) => {
            let claimed = Claimed::read(transport::channel(connection).unwrap(), &hello).unwrap();
            let body = AdmittedBody {
                version: VERSION,
                relay_key: key.public().unwrap(),
                incarnation: [0; 16],
                now: Timestamp(0),
                idem: None,
                key_packages: 0,
                ready: false,
                organisation: None,
                firm: "Firm".to_owned(),
                rotations: Vec::new(),
            };
            transport::write(&mut send, &FromRelay::Admitted(claimed.admit(&body, key).unwrap())).await.unwrap();
            if let Ok(ToRelay { id, .. }) = transport::read(&mut receive, limits::FRAME_MAX).await {
                transport::write(&mut send, &FromRelay::Reply { id, reply }).await.unwrap();
            }
        }
    }
    connection.closed().await;
}

fn dialer(to: &StandIn, pin: Pin) -> Dialer {
    Dialer { address: to.address.clone(), pin, device: None, link_key: SecretKey::generate() }
}

fn refusal() -> Says {
    Says::No(Refused::not_allowed("go away"))
}

#[tokio::test]
async fn another_key_than_the_pinned_one_hears_nothing_and_is_not_believed() {
    let (relay, impostor) = (SecretKey::generate(), SecretKey::generate());
    for says in [refusal(), Says::Garbled, Says::Yes(Reply::Done)] {
        let impostor = StandIn::start(&impostor, says);
        let opened = dialer(&impostor, Pin::Key(relay.public().unwrap())).open().await;
        assert!(matches!(&opened, Err(Error::Untrusted(why)) if why.contains("nothing was sent")), "{opened:?}");
        assert_eq!(impostor.hellos(), 0);
    }
}

#[tokio::test]
async fn at_first_contact_nobody_is_believed_who_does_not_prove_to_be_the_relay() {
    let (relay, impostor) = (SecretKey::generate(), SecretKey::generate());
    let pin = Pin::Fingerprint(relay.public().unwrap().fingerprint());
    for refused in [Refused::not_allowed("go away"), Refused::Version, Refused::Storage] {
        let impostor = StandIn::start(&impostor, Says::No(refused));
        let opened = dialer(&impostor, pin.clone()).open().await;
        assert!(matches!(&opened, Err(Error::Network(why)) if why.contains("does not prove")), "{opened:?}");
    }
    for says in [Says::Garbled, Says::Yes(Reply::Done)] {
        let impostor = StandIn::start(&impostor, says);
        let opened = dialer(&impostor, pin.clone()).open().await;
        assert!(matches!(&opened, Err(Error::Untrusted(_))), "{opened:?}");
    }
}

#[tokio::test]
async fn the_pinned_relay_is_believed() {
    let relay = SecretKey::generate();
    let key = relay.public().unwrap();
    for pin in [Pin::Key(key.clone()), Pin::Fingerprint(key.fingerprint())] {
        let stand_in = StandIn::start(&relay, Says::Yes(Reply::Done));
        assert_eq!(dialer(&stand_in, pin).open().await.unwrap().admitted.firm, "Firm");
    }
    let to = |says| dialer(&StandIn::start(&relay, says), Pin::Key(key.clone()));
    assert!(matches!(to(refusal()).open().await, Err(Error::Refused(_))));
    assert!(matches!(to(Says::No(Refused::Version)).open().await, Err(Error::Refused(_))));
    assert!(matches!(to(Says::Garbled).open().await, Err(Error::Untrusted(_))));
    let full = Refused::Full { what: "the relay".to_owned() };
    for not_now in [Refused::Storage, full] {
        let opened = to(Says::No(not_now)).open().await;
        assert!(matches!(opened, Err(Error::Network(_))), "worth another try: {opened:?}");
    }
}
