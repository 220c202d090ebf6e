//! In the directory and in key packages: other keys, other endorsers, old ones, somebody else's.

use std::sync::{Arc, Mutex};

use privity_protocol::frame::{Reply, Request, TakenKeyPackage};
use privity_protocol::identity::{Endorsement, Identity, Signed};
use privity_protocol::suite::Label;
use privity_tests::evil::Evil;
use privity_tests::{Firm, Person};

use super::super::{Forged, alter, told};

fn firm_of_three() -> (Firm<Evil>, Person, Person) {
    let firm = Firm::under().unwrap();
    let [bob, dan] =
        [("bob", "Bob Jones"), ("dan", "Dan Doe")].map(|(handle, name)| firm.bring(handle, name, "client").unwrap());
    (firm, bob, dan)
}

fn people(firm: &Firm<Evil>) -> u64 {
    firm.attorney.ok(&["matter", "ls"]).unwrap()[0]["people"].as_u64().unwrap()
}

fn endorsed_by(identity: &mut Identity, by: &privity_protocol::suite::SecretKey, alter: impl FnOnce(&mut Endorsement)) {
    let mut said: Endorsement = identity.endorsement.unverified("endorsement").unwrap();
    said.person_key = identity.person_key.digest();
    alter(&mut said);
    identity.endorsement = Signed::make(Label::Endorsement, by, &said).unwrap();
}

#[test]
fn other_keys_and_endorsers_in_the_directory_add_nobody() {
    let (firm, _bob, _dan) = firm_of_three();
    firm.matter("Lease", &[]).unwrap();
    let deeds: [fn(&mut Vec<Identity>); 5] = [
        // Another person key, the rest as it was.
        |chain| chain[0].person_key = Forged::keys().person_key.public().unwrap(),
        // Another person key, with devices of its own.
        |chain| {
            let forged = Forged::keys();
            chain[0].certificates = vec![forged.certificate(&chain[0].certificates[0])];
            chain[0].person_key = forged.person_key.public().unwrap();
        },
        // The same person, with a device of the relay's.
        |chain| chain[0].certificates = vec![Forged::keys().certificate(&chain[0].certificates[0])],
        // All of it, endorsed by a firm of the relay's own making.
        |chain| {
            let (forged, firm) = (Forged::keys(), Forged::keys());
            chain[0].certificates = vec![forged.certificate(&chain[0].certificates[0])];
            chain[0].person_key = forged.person_key.public().unwrap();
            endorsed_by(&mut chain[0], &firm.person_key, |said| said.issuer = None);
            chain.truncate(1);
        },
        // All of it, endorsed in the attorney's name.
        |chain| {
            let (forged, ada) = (Forged::keys(), Forged::keys());
            chain[0].certificates = vec![forged.certificate(&chain[0].certificates[0])];
            chain[0].person_key = forged.person_key.public().unwrap();
            endorsed_by(&mut chain[0], &ada.mls_key, |_| {});
        },
    ];
    for (number, deed) in deeds.into_iter().enumerate() {
        alter(&firm, "ada", move |_, reply| {
            if let Reply::Chain { chain } = reply
                && chain.len() > 1
            {
                deed(chain);
            }
        });
        let added = firm.attorney.run(&["matter", "add", "Lease", "bob"]).unwrap();
        assert_eq!(added.code, Some(4), "deed {number}: {added:?}");
        assert!(added.stderr.contains("nothing was accepted"), "deed {number}: {added:?}");
        let shown = firm.attorney.run(&["identity", "show", "bob"]).unwrap();
        assert_eq!(shown.code, Some(4), "deed {number}: {shown:?}");
        assert_eq!(people(&firm), 1, "deed {number}");
    }
    firm.relay.repents();
    firm.attorney.ok(&["matter", "add", "Lease", "bob"]).unwrap();
    assert_eq!(people(&firm), 2);
}

#[test]
fn somebody_elses_key_package_adds_nobody() {
    let (firm, _bob, dan) = firm_of_three();
    firm.matter("Lease", &[]).unwrap();
    let others: Arc<Mutex<Option<Vec<TakenKeyPackage>>>> = Arc::default();
    let kept = Arc::clone(&others);
    alter(&firm, "ada", move |request, reply| {
        let (Request::TakeKeyPackages { .. }, Reply::KeyPackages { packages }) = (request, reply) else { return };
        let mut kept = kept.lock().unwrap();
        match kept.as_ref() {
            None => *kept = Some(packages.clone()),
            Some(others) => {
                packages.iter_mut().zip(others).for_each(|(own, other)| own.package = other.package.clone())
            }
        }
    });
    // Dan's are taken first, and served for Bob's.
    firm.attorney.ok(&["matter", "new", "Sale"]).unwrap();
    firm.attorney.ok(&["matter", "add", "Sale", "dan"]).unwrap();
    assert!(others.lock().unwrap().is_some());
    let added = firm.attorney.run(&["matter", "add", "Lease", "bob"]).unwrap();
    told(&added, 4, &["nothing was accepted"]);
    assert!(
        firm.attorney.ok(&["matter", "ls"]).unwrap().iter().any(|row| row["title"] == "Lease" && row["people"] == 1)
    );
    firm.relay.repents();
    firm.attorney.ok(&["matter", "add", "Lease", "bob"]).unwrap();
    dan.ok(&["recv"]).unwrap();
    assert_eq!(dan.ok(&["matter", "ls"]).unwrap().len(), 1);
}

/// What was said of somebody before is not taken for news: a name that was confirmed stays so, and an end that was put off, too.
#[test]
fn an_old_chain_shown_again_takes_nothing_back() {
    let (firm, _bob, dan) = firm_of_three();
    let kept: Arc<Mutex<Option<Vec<Identity>>>> = Arc::default();
    let keep = Arc::clone(&kept);
    alter(&firm, "ada", move |request, reply| {
        if let (Request::Chain { .. }, Reply::Chain { chain }) = (request, reply)
            && chain.len() > 1
        {
            *keep.lock().unwrap() = Some(chain.clone());
        }
    });
    let shown = firm.attorney.ok(&["identity", "show", "bob"]).unwrap();
    assert_eq!(shown[0]["self_stated"], true, "{shown:?}");
    firm.relay.repents();
    firm.attorney.ok(&["identity", "confirm", "bob"]).unwrap();
    let old = kept.lock().unwrap().clone().unwrap();
    alter(&firm, "ada", move |request, reply| {
        if let (Request::Chain { .. }, Reply::Chain { chain }) = (request, reply)
            && chain.len() > 1
        {
            chain.clone_from(&old);
        }
    });
    let shown = firm.attorney.ok(&["identity", "show", "bob"]).unwrap();
    assert_eq!(shown[0]["self_stated"], false, "{shown:?}");
    // Somebody else's, good in itself, is not this person's.
    let bobs = kept.lock().unwrap().clone().unwrap();
    alter(&firm, "dan", move |request, reply| {
        if let (Request::Chain { .. }, Reply::Chain { chain }) = (request, reply)
            && chain.len() == 1
        {
            chain.clone_from(&bobs);
        }
    });
    told(
        &dan.run(&["identity", "show", "ada"]).unwrap(),
        4,
        &["a chain of endorsements does not match what was said before"],
    );
}
