//! A matter's mailbox: entries dropped, reordered, replayed, changed, and another history of it.

use std::sync::{Arc, Mutex};

use privity_protocol::frame::{Blob, Entry, EntryBody, Event, FromRelay, Reply, Request};
use privity_protocol::ids::MailboxId;
use privity_server::clock::now;
use privity_server::store::{Read as _, Write};
use privity_tests::evil::{Asked, Evil};
use privity_tests::{Firm, Person};
use serde_json::Value;

use super::super::{office, told, words};

/// Alters the entries of matters that somebody is shown.
fn shown(firm: &Firm<Evil>, handle: &'static str, mut deed: impl FnMut(&mut Vec<Entry>) + Send + 'static) {
    let inbox = {
        let inside = firm.relay.inside();
        let row = inside.store.people().unwrap().into_iter().find(|row| row.registration.handle == handle).unwrap();
        inside.store.devices_of(row.registration.person).unwrap().remove(0).inbox
    };
    firm.relay.when_told(move |who, _, mut frame| {
        if let FromRelay::Event(Event::Entries { mailbox, entries }) = &mut frame
            && who.handle == handle
            && *mailbox != inbox
        {
            deed(entries);
            if entries.is_empty() {
                return Vec::new();
            }
        }
        vec![frame]
    });
}

fn head(firm: &Firm<Evil>, who: &Person) -> u64 {
    let id = mailbox(firm);
    assert!(!who.handle.is_empty());
    firm.relay.inside().store.mailbox(id).unwrap().unwrap().head.seq
}

/// The one matter's mailbox: the one that is nobody's inbox.
fn mailbox(firm: &Firm<Evil>) -> MailboxId {
    let inside = firm.relay.inside();
    let log = inside.store.log_rows(0, inside.store.log_size().unwrap()).unwrap();
    let made = log.iter().find_map(|row| {
        let event: privity_protocol::log::Event = privity_protocol::cbor::decode(&row.opening.event, "event").unwrap();
        match event.act {
            privity_protocol::log::Act::MailboxCreated { mailbox, .. } => Some(mailbox),
            _ => None,
        }
    });
    made.unwrap()
}

fn records(who: &Person, kind: &str) -> Vec<Value> {
    who.ok(&["read", "Lease"]).unwrap().into_iter().filter(|record| record["type"] == kind).collect()
}

fn say(who: &Person, text: &str) {
    who.ok(&["send", "Lease", text]).unwrap();
}

#[test]
fn a_message_dropped_in_the_middle_or_two_in_another_order_are_told_and_nothing_behind_is_taken() {
    let (firm, _bob, dan) = office();
    let start = head(&firm, &dan);
    for text in ["one", "two", "three"] {
        say(&firm.attorney, text);
    }
    let deeds: [fn(&mut Vec<Entry>, u64); 2] = [
        |entries, start| entries.retain(|entry| entry.seq != start + 2),
        |entries, start| {
            let place = |entries: &[Entry], seq| entries.iter().position(|entry| entry.seq == seq);
            if let (Some(one), Some(other)) = (place(entries, start + 2), place(entries, start + 3)) {
                entries.swap(one, other);
            }
        },
    ];
    for (number, deed) in deeds.into_iter().enumerate() {
        shown(&firm, "dan", move |entries| deed(entries, start));
        let read = dan.run(&["recv", "--timeout", "3"]).unwrap();
        assert!(
            read.stderr.contains("the order in which the relay sends entries does not match"),
            "deed {number}: {read:?}"
        );
        assert_ne!(words(&dan).last().unwrap(), "three", "deed {number}: nothing is taken out of turn");
    }
    firm.relay.repents();
    dan.ok(&["recv"]).unwrap();
    assert_eq!(words(&dan), ["one", "two", "three"]);
}

/// Leaves out what stands behind `start` in a matter, and numbers the rest anew; the positions of that are as good as true ones.
fn without_one(frame: &mut FromRelay, asked: Option<&Request>, matter: MailboxId, after_it: u64) {
    match (frame, asked) {
        (FromRelay::Event(Event::Entries { mailbox, entries }), _) if *mailbox == matter => {
            entries.retain(|entry| entry.seq != after_it + 1);
            entries.iter_mut().filter(|entry| entry.seq > after_it).for_each(|entry| entry.seq -= 1);
        }
        (
            FromRelay::Reply { reply: Reply::Subscribed { start, head }, .. },
            Some(Request::Subscribe { mailbox, after }),
        ) if *mailbox == matter => {
            *head -= u64::from(*head > after_it);
            *start = after.filter(|after| after.seq > after_it).unwrap_or(*start);
        }
        _ => {}
    }
}

/// The relay leaves one message out and numbers the rest anew, for Dan alone: to him it is in order, and stays so.
#[test]
fn a_history_without_one_message_is_told_by_the_next_one_that_is_exchanged() {
    let (firm, _bob, dan) = office();
    let (start, lease) = (head(&firm, &dan), mailbox(&firm));
    for text in ["left out", "shown"] {
        say(&firm.attorney, text);
    }
    let truth = firm.relay.inside().store.position(lease, start + 2).unwrap().unwrap();
    firm.relay.when_told(move |who, asked, mut frame| {
        if who.handle == "dan" {
            without_one(&mut frame, asked, lease, start);
        }
        vec![frame]
    });
    firm.relay.when_asked(move |who, mut request| {
        if let Request::Subscribe { mailbox, after: Some(after) } = &mut request
            && (who.handle.as_str(), *mailbox) == ("dan", lease)
            && after.seq == start + 1
        {
            *after = truth;
        }
        Asked::Do(request)
    });
    told(&dan.run(&["recv"]).unwrap(), 0, &["Ada Byron (ada", "read something else here"]);
    let disputes = records(&dan, "dispute");
    assert_eq!(disputes.len(), 1);
    assert_ne!(disputes[0]["body"]["read"], disputes[0]["body"]["said"]);
    let status = dan.ok(&["status"]).unwrap();
    assert_eq!(status[0]["matters"][0]["disputed"], true, "{status:?}");
    told(
        &dan.run(&["security", "show"]).unwrap(),
        0,
        &["FOUND", "Ada Byron (ada", "said to have read something else in \"Lease\""],
    );
    // Nothing goes out before he says so. What does tells the others.
    told(&dan.run(&["send", "Lease", "unheard"]).unwrap(), 5, &["--anyway"]);
    dan.ok(&["send", "Lease", "what I see", "--anyway"]).unwrap();
    told(&firm.attorney.run(&["recv"]).unwrap(), 0, &["Dan Doe (dan", "read something else here"]);

    // Shown the true one, he sees that it is another than before: the matter stops, with both positions kept.
    firm.relay.repents();
    told(&dan.run(&["recv"]).unwrap(), 4, &["the relay shows another history of a matter than before"]);
    let forked = records(&dan, "forked");
    assert_eq!(forked.len(), 1, "{forked:?}");
    assert_ne!(forked[0]["body"]["read"]["chain"], forked[0]["body"]["shown"]["chain"]);
    told(&dan.run(&["send", "Lease", "into which?"]).unwrap(), 4, &["another history"]);
    told(&dan.run(&["security", "show"]).unwrap(), 0, &["FOUND", "two histories of \"Lease\""]);
}

#[test]
fn an_envelope_that_was_changed_says_nothing_and_is_told_at_the_next_contact() {
    let (firm, _bob, dan) = office();
    let start = head(&firm, &dan);
    shown(&firm, "dan", move |entries| {
        for entry in entries.iter_mut().filter(|entry| entry.seq == start + 1) {
            if let EntryBody::Envelope(Blob(bytes)) = &mut entry.body {
                let middle = bytes.len() / 2;
                bytes[middle] ^= 1;
            }
        }
    });
    say(&firm.attorney, "one");
    let read = dan.run(&["recv"]).unwrap();
    assert_eq!((words(&dan).len(), records(&dan, "void").len()), (0, 1), "{read:?}");
    // What it subscribes to behind that is another history than the one it was shown.
    say(&firm.attorney, "two");
    told(&dan.run(&["recv"]).unwrap(), 4, &["the relay shows another history of a matter than before"]);
    assert_eq!((words(&dan).len(), records(&dan, "forked").len()), (0, 1));
}

/// Old envelopes, Commits too, appended once more: nobody takes them for anything, and nobody is stopped.
#[test]
fn envelopes_replayed_are_void_for_everybody() {
    let (firm, bob, dan) = office();
    say(&firm.attorney, "one");
    bob.ok(&["recv"]).unwrap();
    let id = mailbox(&firm);
    let before = firm.relay.inside().store.entries(id, 0, u64::MAX, usize::MAX).unwrap();
    assert!(before.iter().any(|entry| entry.fence) && before.iter().any(|entry| !entry.fence));
    let count = before.len();
    for entry in before {
        let mut inside = firm.relay.inside();
        let digest = entry.digest();
        let EntryBody::Envelope(bytes) = entry.body else { panic!("an envelope") };
        let position = inside.store.mailbox(id).unwrap().unwrap().head.next(entry.fence, &digest);
        let (fence, expires, by) = (entry.fence, now().plus_ms(60_000_000), entry.by.unwrap());
        let envelope = bytes.0.into();
        inside
            .write(&[Write::Append { mailbox: id, position, fence, kept: fence, digest, envelope, expires, by }])
            .unwrap();
    }
    for who in [&bob, &dan, &firm.attorney] {
        who.ok(&["recv"]).unwrap();
        assert_eq!(words(who), ["one"], "{}", who.handle);
        assert!(!records(who, "void").is_empty(), "{} of {count} told", who.handle);
        assert_eq!(who.ok(&["matter", "ls"]).unwrap()[0]["state"], "open", "{}", who.handle);
    }
    say(&dan, "two");
    bob.ok(&["recv"]).unwrap();
    assert_eq!(words(&bob), ["one", "two"]);
}

/// Somebody else's matter in place of this one.
#[test]
fn the_entries_of_another_matter_say_nothing_here() {
    let (firm, bob, dan) = office();
    firm.attorney.ok(&["matter", "new", "Sale"]).unwrap();
    firm.attorney.ok(&["matter", "add", "Sale", "bob"]).unwrap();
    firm.attorney.ok(&["send", "Sale", "for Bob alone"]).unwrap();
    let kept: Arc<Mutex<Vec<Entry>>> = Arc::default();
    let (start, keep) = (head(&firm, &dan), Arc::clone(&kept));
    let lease = mailbox(&firm);
    firm.relay.when_told(move |who, _, frame| {
        if let FromRelay::Event(Event::Entries { mailbox, entries }) = &frame
            && who.handle == "bob"
            && *mailbox != lease
        {
            keep.lock().unwrap().extend(entries.iter().filter(|entry| !entry.fence).cloned());
        }
        vec![frame]
    });
    bob.ok(&["recv"]).unwrap();
    let mut others = kept.lock().unwrap().clone();
    assert!(!others.is_empty());
    others.truncate(1);
    others[0].seq = start + 1;
    shown(&firm, "dan", move |entries| {
        if entries.iter().any(|entry| entry.seq == start + 1) {
            entries.clone_from(&others);
        }
    });
    say(&firm.attorney, "one");
    dan.run(&["recv", "--timeout", "2"]).unwrap();
    assert!(words(&dan).is_empty() && records(&dan, "void").len() == 1, "{:?}", words(&dan));
}

/// As it was before: the same mailbox without its last messages, by a relay that does not say that it was restored.
#[test]
fn a_mailbox_that_is_rolled_back_stops_the_matter() {
    let (firm, _bob, dan) = office();
    for text in ["one", "two"] {
        say(&firm.attorney, text);
    }
    dan.ok(&["recv"]).unwrap();
    let (lease, before) = (mailbox(&firm), head(&firm, &dan) - 2);
    let then = firm.relay.inside().store.position(lease, before).unwrap().unwrap();
    firm.relay.when_told(move |who, asked, mut frame| {
        if let (
            FromRelay::Reply { reply: Reply::Subscribed { start, head }, .. },
            Some(Request::Subscribe { mailbox, .. }),
        ) = (&mut frame, asked)
            && (who.handle.as_str(), *mailbox) == ("dan", lease)
        {
            (*start, *head) = (then, before);
        }
        vec![frame]
    });
    told(&dan.run(&["recv"]).unwrap(), 4, &["the relay shows another history of a matter than before"]);
    assert_eq!((words(&dan), records(&dan, "forked").len()), (vec!["one".to_owned(), "two".to_owned()], 1));
}
