//! Answers that are not true: stale while accepting, seqs that nothing stands at, acceptance of what is thrown away.

use privity_protocol::error::Refused;
use privity_protocol::frame::{AcceptedIdem, Part, Reply, Request};
use privity_protocol::log::Act;
use privity_protocol::suite::Digest;
use privity_server::store::Read as _;
use privity_tests::evil::Asked;

use super::super::{office, words};

fn is_text(request: &Request) -> bool {
    let text = |part: &Part| matches!(part, Part::Append { fence: false, .. });
    matches!(request, Request::Post(post) if post.parts.len() == 1 && post.parts.iter().all(text))
}

/// What it refused as stale it has kept: everybody reads it once, whatever the sender sends again.
#[test]
fn stale_while_accepting_is_read_once() {
    let (firm, bob, dan) = office();
    let mut lies = 1;
    firm.relay.when_asked(move |who, request| {
        if who.handle == "bob" && is_text(&request) && lies > 0 {
            lies -= 1;
            return Asked::DoAndAnswer(request, Reply::Refused(Refused::Stale { latest: 1 }));
        }
        Asked::Do(request)
    });
    bob.run(&["send", "Lease", "once", "--timeout", "5"]).unwrap();
    firm.relay.repents();
    bob.run(&["recv"]).unwrap();
    firm.attorney.ok(&["send", "Lease", "answer"]).unwrap();
    for who in [&dan, &bob, &firm.attorney] {
        who.ok(&["recv"]).unwrap();
        let words = words(who);
        assert_eq!(words.iter().filter(|word| *word == "once").count(), 1, "{}: {words:?}", who.handle);
        assert_eq!(words.len(), 2, "{}: {words:?}", who.handle);
    }
}

#[test]
fn seqs_that_are_not_true_lose_nothing_and_show_nothing_twice() {
    for lie in [vec![9_999], vec![0], vec![], vec![1, 2, 3], vec![u64::MAX]] {
        let (firm, bob, dan) = office();
        let answer = lie.clone();
        firm.relay.when_asked(move |who, request| {
            if who.handle == "bob" && is_text(&request) {
                return Asked::DoAndAnswer(request, Reply::Posted { seqs: answer.clone() });
            }
            Asked::Do(request)
        });
        bob.run(&["send", "Lease", "one", "--timeout", "5"]).unwrap();
        firm.relay.repents();
        bob.run(&["recv"]).unwrap();
        bob.ok(&["send", "Lease", "two"]).unwrap();
        dan.ok(&["recv"]).unwrap();
        bob.ok(&["recv"]).unwrap();
        assert_eq!(words(&dan), ["one", "two"], "{lie:?}");
        assert_eq!(words(&bob), ["one", "two"], "{lie:?}");
    }
}

/// A message that the relay says to have, and throws away: its author does not find it in the mailbox, and sends it again.
#[test]
fn what_is_thrown_away_after_it_was_accepted_is_sent_again() {
    let (firm, bob, dan) = office();
    firm.relay.when_asked(move |who, request| {
        if who.handle == "bob" && is_text(&request) {
            return Asked::Answer(Reply::Posted { seqs: vec![3] });
        }
        Asked::Do(request)
    });
    bob.ok(&["send", "Lease", "thrown away"]).unwrap();
    firm.relay.repents();
    dan.ok(&["send", "Lease", "anybody?"]).unwrap();
    bob.ok(&["recv"]).unwrap();
    for who in [&dan, &bob] {
        who.ok(&["recv"]).unwrap();
        assert_eq!(words(who), ["anybody?", "thrown away"], "{}", who.handle);
    }
}

/// The log says of whoever was denied a Post nothing that did not happen.
#[test]
fn a_matter_that_was_opened_only_in_words_is_in_no_log() {
    let (firm, _bob, _dan) = office();
    firm.relay.when_asked(|_, request| match request {
        Request::Post(post) if post.parts.iter().any(|part| matches!(part, Part::Create { .. })) => {
            Asked::Answer(Reply::Posted { seqs: Vec::new() })
        }
        request => Asked::Do(request),
    });
    firm.attorney.ok(&["matter", "new", "Sale"]).unwrap();
    firm.relay.repents();
    let sent = firm.attorney.run(&["send", "Sale", "hello", "--timeout", "3"]).unwrap();
    assert_ne!(sent.code, Some(0), "{sent:?}");
    let inside = firm.relay.inside();
    let rows = inside.store.log_rows(0, inside.store.log_size().unwrap()).unwrap();
    let created = rows.iter().filter(|row| {
        let event: privity_protocol::log::Event = privity_protocol::cbor::decode(&row.opening.event, "event").unwrap();
        matches!(event.act, Act::MailboxCreated { .. })
    });
    assert_eq!(created.count(), 1);
}

/// What it says to have had from this device, it can't prove: only the vault makes the MAC. Nobody takes itself for a copy.
#[test]
fn an_idem_that_this_device_never_used_makes_no_copy_of_it() {
    let (firm, bob, dan) = office();
    firm.relay.when_greeted(|_, mut body| {
        let zero = Digest::of(&[]);
        body.idem = Some(AcceptedIdem { idem: 9_999, parts: zero, mac: zero });
        body
    });
    let sent = bob.run(&["send", "Lease", "one"]).unwrap();
    assert_eq!((sent.code, sent.stderr.as_str()), (Some(0), ""), "{sent:?}");
    dan.ok(&["recv"]).unwrap();
    assert_eq!(words(&dan), ["one"]);
}
