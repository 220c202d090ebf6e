//! What a relay that lies can do to the real `privity`, and what its user sees of it.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use privity_protocol::frame::{FromRelay, Reply, Request};
use privity_protocol::identity::{DeviceCertificate, Signed};
use privity_protocol::suite::{Label, SecretKey};
use privity_tests::evil::{Evil, Who};
use privity_tests::{Firm, Person, Ran};

mod evil {
    mod adopting;
    mod between;
    mod directory;
    mod honest;
    mod joining;
    mod log;
    mod mailboxes;
    mod proofs;
    mod removals;
    mod replies;
    mod rotating;
    mod welcomes;
}

/// Keys that the relay has made itself, to put them in somebody's place.
struct Forged {
    person_key: SecretKey,
    mls_key: SecretKey,
}

impl Forged {
    fn keys() -> Self {
        Self { person_key: SecretKey::generate(), mls_key: SecretKey::generate() }
    }

    /// Somebody's certificate with the relay's keys in it, by the relay's person key.
    fn certificate(&self, honest: &Signed) -> Signed {
        let said: DeviceCertificate = honest.unverified("certificate").unwrap();
        let said = DeviceCertificate { mls_key: self.mls_key.public().unwrap(), ..said };
        Signed::make(Label::DeviceCertificate, &self.person_key, &said).unwrap()
    }
}

/// A firm under an evil relay, with a client in a matter, where everything is in order so far.
fn office() -> (Firm<Evil>, Person, Person) {
    let firm = Firm::under().unwrap();
    let [bob, dan] =
        [("bob", "Bob Jones"), ("dan", "Dan Doe")].map(|(handle, name)| firm.bring(handle, name, "client").unwrap());
    firm.matter("Lease", &[&bob, &dan]).unwrap();
    for who in [&bob, &dan] {
        who.ok(&["recv"]).unwrap();
    }
    (firm, bob, dan)
}

/// Alters the replies to some of somebody's requests, from now on.
fn alter(firm: &Firm<Evil>, handle: &'static str, mut deed: impl FnMut(&Request, &mut Reply) + Send + 'static) {
    firm.relay.when_told(move |who: &Who, asked, mut frame| {
        if let (FromRelay::Reply { reply, .. }, Some(request)) = (&mut frame, asked)
            && who.handle == handle
        {
            deed(request, reply);
        }
        vec![frame]
    });
}

/// What ended with this code, and told this in these words.
#[track_caller]
fn told(ran: &Ran, code: i32, parts: &[&str]) {
    assert_eq!(ran.code, Some(code), "{ran:?}");
    for part in parts {
        assert!(ran.stderr.contains(part) || ran.stdout.contains(part), "{part:?} is not told: {ran:?}");
    }
}

/// The texts that somebody has in the matter.
fn words(who: &Person) -> Vec<String> {
    who.texts("Lease").unwrap().into_iter().map(|(_, text)| text).collect()
}
