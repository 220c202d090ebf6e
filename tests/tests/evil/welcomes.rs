//! Into inboxes: forged Welcomes, somebody else's, the same once more; and key packages served twice.

use privity_protocol::envelope::{self, Class};
use privity_protocol::frame::{Entry, EntryBody, Reply, Request, TakenKeyPackage};
use privity_protocol::ids::{DeviceId, MailboxId};
use privity_protocol::suite::Digest;
use privity_server::clock::now;
use privity_server::store::{Read as _, Write};
use privity_tests::evil::{Evil, Inside};
use privity_tests::{Firm, Person};

use super::super::{alter, office, told, words};

fn inbox_of(inside: &Inside, handle: &str) -> (DeviceId, MailboxId) {
    let row = inside.store.people().unwrap().into_iter().find(|row| row.registration.handle == handle).unwrap();
    let device = inside.store.devices_of(row.registration.person).unwrap().remove(0);
    (device.device, device.inbox)
}

/// The Welcomes that somebody has been sent.
fn welcomes(inside: &Inside, handle: &str) -> Vec<Vec<u8>> {
    let (_, inbox) = inbox_of(inside, handle);
    let entries = inside.store.entries(inbox, 0, u64::MAX, usize::MAX).unwrap();
    let bytes = |entry: Entry| match entry.body {
        EntryBody::Envelope(bytes) => Some(bytes.0),
        _ => None,
    };
    entries
        .into_iter()
        .filter_map(bytes)
        .filter(|bytes| matches!(envelope::unwrap(bytes), Ok((Class::Welcome, _))))
        .collect()
}

/// Puts an envelope into somebody's inbox, as if a member had.
fn put(firm: &Firm<Evil>, handle: &str, bytes: Vec<u8>) {
    let mut inside = firm.relay.inside();
    let (by, mailbox) = inbox_of(&inside, handle);
    let digest = Digest::of(&[&bytes]);
    let position = inside.store.mailbox(mailbox).unwrap().unwrap().head.next(false, &digest);
    let (expires, envelope) = (now().plus_ms(60_000), bytes.into());
    inside
        .write(&[Write::Append { mailbox, position, fence: false, kept: false, digest, envelope, expires, by }])
        .unwrap();
}

fn matters(who: &Person) -> usize {
    who.ok(&["matter", "ls"]).unwrap().len()
}

#[test]
fn welcomes_that_are_forged_foreign_or_old_lead_nowhere_and_are_told() {
    let (firm, bob, dan) = office();
    let (his, dans) = {
        let inside = firm.relay.inside();
        (welcomes(&inside, "bob"), welcomes(&inside, "dan"))
    };
    assert_eq!((his.len(), dans.len()), (1, 1));
    let garbage = envelope::wrap(Class::Welcome, &[7; 900]).unwrap();
    let mut spoiled = his[0].clone();
    let middle = spoiled.len() / 2;
    spoiled[middle] ^= 1;
    for (what, bytes) in
        [("garbage", garbage), ("a byte", spoiled), ("Dan's", dans[0].clone()), ("again", his[0].clone())]
    {
        put(&firm, "bob", bytes);
        let read = bob.run(&["recv"]).unwrap();
        assert_eq!(read.code, Some(0), "{what}: {read:?}");
        for part in [
            "was to let this device into a matter, and leads nowhere",
            "ask them to remove you there and to add you once more",
        ] {
            assert!(read.stderr.contains(part), "{what}: {read:?}");
        }
        assert_eq!(matters(&bob), 1, "{what}");
    }
    // None of it stops the inbox, or the matter.
    firm.attorney.ok(&["matter", "new", "Sale"]).unwrap();
    firm.attorney.ok(&["matter", "add", "Sale", "bob"]).unwrap();
    bob.ok(&["recv"]).unwrap();
    assert_eq!(matters(&bob), 2);
    bob.ok(&["send", "Lease", "still here"]).unwrap();
    dan.ok(&["recv"]).unwrap();
    assert_eq!(words(&dan), ["still here"]);
}

/// A single-use key package served a second time is refused by whoever is served it.
#[test]
fn a_key_package_served_twice_adds_nobody() {
    let (firm, bob, _dan) = office();
    let mut kept: Option<Vec<TakenKeyPackage>> = None;
    alter(&firm, "ada", move |request, reply| {
        if let (Request::TakeKeyPackages { .. }, Reply::KeyPackages { packages }) = (request, reply) {
            match &kept {
                Some(kept) => packages.clone_from(kept),
                None => kept = Some(packages.clone()),
            }
        }
    });
    for title in ["One", "Two"] {
        firm.attorney.ok(&["matter", "new", title]).unwrap();
    }
    firm.attorney.ok(&["matter", "add", "One", "bob"]).unwrap();
    let again = firm.attorney.run(&["matter", "add", "Two", "bob"]).unwrap();
    told(
        &again,
        4,
        &["the relay hands out a key of that person's that was used before; nothing was accepted. Ask your firm's IT"],
    );
    bob.ok(&["recv"]).unwrap();
    assert_eq!(matters(&bob), 2);
    firm.relay.repents();
    firm.attorney.ok(&["matter", "add", "Two", "bob"]).unwrap();
    bob.ok(&["recv"]).unwrap();
    assert_eq!(matters(&bob), 3);
}
