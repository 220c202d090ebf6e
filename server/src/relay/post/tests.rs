//! The rules of a Post, over a store in memory.

use privity_protocol::frame::{Event, Request};
use privity_protocol::identity::{Issuer, Role};
use proptest::prelude::*;

use super::super::world::{Human, World, append};
use super::*;
use crate::relay::From;
use crate::store::Store;

mod received;
mod rosters;

fn malformed(refused: &Refused) -> bool {
    matches!(refused, Refused::Malformed { .. })
}

fn not_allowed(refused: &Refused) -> bool {
    matches!(refused, Refused::NotAllowed { .. })
}

/// An attorney, a client, and a matter of both.
fn two() -> (World, Human, Human, MailboxId) {
    let mut world = World::new();
    let (ada, bob) = (world.person("ada", Role::Attorney), world.person("bob", Role::Client));
    let mailbox = world.matter(&ada, &[(bob.caller, Rights::MEMBER)]);
    (world, ada, bob, mailbox)
}

#[test]
fn a_post_with_one_bad_part_does_nothing_of_it() {
    let (mut world, ada, _, mailbox) = two();
    let base = world.fence(mailbox);
    let parts = vec![append(mailbox, base, false, b"good"), append(mailbox, base, false, b"")];
    assert!(malformed(&world.post(ada.caller, parts).unwrap_err()));
    assert_eq!(world.head(mailbox).seq, 1);
    assert!(world.post(ada.caller, Vec::new()).is_err());
    let new = MailboxId::random();
    let parts = vec![Part::Create { mailbox: new }, append(mailbox, Position::start(mailbox), false, b"stale")];
    world.post(ada.caller, parts).unwrap_err();
    assert!(world.store.mailbox(new).unwrap().is_none());
}

#[test]
fn envelopes_and_posts_are_as_large_as_their_limits_and_no_larger() {
    let (mut world, ada, _, mailbox) = two();
    let base = world.fence(mailbox);
    let mut envelope = vec![1; limits::ENVELOPE_MAX];
    world.post(ada.caller, vec![append(mailbox, base, false, &envelope)]).unwrap();
    envelope.push(1);
    assert!(malformed(&world.post(ada.caller, vec![append(mailbox, base, false, &envelope)]).unwrap_err()));
    let mut parts = vec![append(mailbox, base, false, b"x"); limits::POST_PARTS_MAX];
    world.post(ada.caller, parts.clone()).unwrap();
    parts.push(append(mailbox, base, false, b"x"));
    assert!(malformed(&world.post(ada.caller, parts).unwrap_err()));
}

#[test]
fn whoever_has_not_read_the_newest_fence_is_stale_and_told_where_it_stands() {
    let (mut world, ada, bob, mailbox) = two();
    let before = world.fence(mailbox);
    world.say(bob.caller, mailbox).unwrap();
    world.commit(ada.caller, mailbox).unwrap();
    let stale = world.post(bob.caller, vec![append(mailbox, before, false, b"late")]).unwrap_err();
    assert_eq!(stale, Refused::Stale { latest: 3 });
    let start = Position::start(mailbox);
    let stale = world.post(bob.caller, vec![append(mailbox, start, true, b"late")]).unwrap_err();
    assert_eq!(stale, Refused::Stale { latest: 3 }, "0 is a base before the first fence");
    world.say(bob.caller, mailbox).unwrap();
}

/// The position of a message before the newest fence was once called stale.
#[test]
fn a_base_that_is_no_fence_is_malformed() {
    let (mut world, ada, bob, mailbox) = two();
    world.say(bob.caller, mailbox).unwrap();
    let message = world.head(mailbox);
    let mut bases = vec![message, Position { seq: 99, ..message }, Position { seq: 1, ..message }];
    for base in &bases {
        assert!(malformed(&world.post(ada.caller, vec![append(mailbox, *base, false, b"x")]).unwrap_err()));
    }
    world.commit(ada.caller, mailbox).unwrap();
    bases.push(Position { seq: u64::MAX, ..message });
    for base in bases {
        assert!(malformed(&world.post(ada.caller, vec![append(mailbox, base, false, b"x")]).unwrap_err()), "{base:?}");
    }
}

#[test]
fn the_same_post_again_gets_the_same_reply_and_does_nothing_twice() {
    let (mut world, ada, _, mailbox) = two();
    let parts = vec![append(mailbox, world.fence(mailbox), true, b"once")];
    let seqs = world.post_as(ada.caller, 50, parts.clone()).unwrap();
    world.commit(ada.caller, mailbox).unwrap();
    assert_eq!(world.post_as(ada.caller, 50, parts).unwrap(), seqs);
    assert_eq!(world.head(mailbox).seq, 3);
    assert_eq!(world.head(mailbox).seq, 3);
}

#[test]
fn an_idem_that_was_accepted_for_something_else_is_answered_with_what_that_was() {
    let (mut world, ada, bob, mailbox) = two();
    let parts = vec![append(mailbox, world.fence(mailbox), true, b"once")];
    world.post_as(ada.caller, 50, parts.clone()).unwrap();
    let (accepted, mac) = (Post::parts_digest(&parts), Digest::of(&[&50_u64.to_be_bytes()]));
    let reused = Refused::Reused { idem: 50, parts: accepted, mac };
    let other = vec![append(mailbox, world.fence(mailbox), true, b"other")];
    assert_eq!(world.post_as(ada.caller, 50, other.clone()).unwrap_err(), reused);
    let forged = Request::Post(Post { idem: 50, mac: Digest::of(&[b"another key"]), parts });
    assert_eq!(world.ask(ada.caller, &forged).unwrap_err(), reused, "the MAC counts too");
    assert_eq!(world.head(mailbox).seq, 2);
    world.post_as(bob.caller, 50, other).unwrap();
}

#[test]
fn an_idem_older_than_the_window_is_unknown_and_a_skipped_one_inside_it_new() {
    let (mut world, ada, _, mailbox) = two();
    let mut at = |idem| {
        let parts = vec![append(mailbox, world.fence(mailbox), false, b"x")];
        world.post_as(ada.caller, idem, parts)
    };
    at(10_000).unwrap();
    assert_eq!(at(10_000 - limits::IDEM_WINDOW).unwrap_err(), Refused::Unknown);
    at(10_001 - limits::IDEM_WINDOW).unwrap();
    at(10_001).unwrap();
    let kept = |idem| world.store.idem(ada.caller.device, idem).unwrap().is_some();
    assert!(!kept(10_001 - limits::IDEM_WINDOW) && kept(10_000), "no more than the window is remembered");
}

/// An idem that SQLite can't hold once stopped the whole relay.
#[test]
fn an_idem_that_no_store_can_keep_is_refused() {
    let (mut world, ada, _, mailbox) = two();
    for idem in [u64::MAX, IDEM_LAST + 1] {
        let parts = vec![append(mailbox, world.fence(mailbox), false, b"x")];
        assert!(malformed(&world.post_as(ada.caller, idem, parts).unwrap_err()));
    }
}

#[test]
fn bytes_are_counted_once_for_each_post_that_is_accepted() {
    let (mut world, ada, bob, mailbox) = two();
    let spent = |world: &World| world.rules.rates.appended_by(ada.caller.person);
    let before = spent(&world);
    let parts = vec![
        append(mailbox, world.fence(mailbox), false, &[1; 1000]),
        append(bob.inbox, Position::start(bob.inbox), false, &[1; 500]),
    ];
    for _ in 0..2 {
        world.post_as(ada.caller, 100, parts.clone()).unwrap();
        assert_eq!(spent(&world), before + 1500);
    }
    let bad = [parts, vec![append(mailbox, world.fence(mailbox), false, b"")]].concat();
    world.post(ada.caller, bad).unwrap_err();
    assert_eq!(spent(&world), before + 1500);
}

#[test]
fn rosters_are_changed_by_managers_and_by_everyone_for_their_own_devices() {
    let (mut world, ada, bob, mailbox) = two();
    let eve = world.person("eve", Role::Client);
    let bobs = world.device(&bob);
    let grant = |device, rights| vec![Part::Grant { mailbox, device, rights, resume: false }];
    let revoke = |device| vec![Part::Revoke { mailbox, device }];
    assert!(not_allowed(&world.post(bob.caller, grant(eve.caller.device, Rights::MEMBER)).unwrap_err()));
    assert!(not_allowed(&world.post(bob.caller, revoke(ada.caller.device)).unwrap_err()));
    assert!(not_allowed(&world.post(eve.caller, grant(eve.caller.device, Rights::MEMBER)).unwrap_err()));
    world.post(bob.caller, grant(bobs.device, Rights::MEMBER)).unwrap();
    world.post(bobs, revoke(bob.caller.device)).unwrap();
    assert!(not_allowed(&world.say(bob.caller, mailbox).unwrap_err()));
    world.post(ada.caller, revoke(bobs.device)).unwrap();
    world.post(ada.caller, grant(eve.caller.device, Rights::READ)).unwrap();
    assert!(not_allowed(&world.say(eve.caller, mailbox).unwrap_err()), "who may only read");
    world.post(eve.caller, revoke(eve.caller.device)).unwrap();
    let odd = [Rights(0), Rights(2), Rights(8 | 1)];
    for rights in odd {
        assert!(malformed(&world.post(ada.caller, grant(eve.caller.device, rights)).unwrap_err()));
    }
}

#[test]
fn only_attorneys_and_staff_open_and_manage_matters() {
    let mut world = World::new();
    let people = [
        ("att", Role::Attorney, true),
        ("stf", Role::Staff, true),
        ("cli", Role::Client, false),
        ("cus", Role::Custodian, false),
    ];
    for (handle, role, may) in people {
        let human = world.person(handle, role);
        let mailbox = MailboxId::random();
        assert_eq!(world.post(human.caller, vec![Part::Create { mailbox }]).is_ok(), may, "{handle} opens");
        let owner = world.person(&format!("own{handle}"), Role::Attorney);
        let mailbox = world.matter(&owner, &[]);
        let grant = vec![Part::Grant { mailbox, device: human.caller.device, rights: Rights::MANAGER, resume: false }];
        assert_eq!(world.post(owner.caller, grant).is_ok(), may, "{handle} manages");
    }
}

#[test]
fn the_last_who_manages_a_matter_cant_leave_the_others_behind() {
    let (mut world, ada, bob, mailbox) = two();
    let adas = world.device(&ada);
    let leave = |device| Part::Revoke { mailbox, device };
    assert!(not_allowed(&world.post(ada.caller, vec![leave(ada.caller.device)]).unwrap_err()));
    assert!(world.say(ada.caller, mailbox).is_ok(), "a refused revoke changed nothing");
    let hand_over = vec![
        Part::Grant { mailbox, device: adas.device, rights: Rights::MANAGER, resume: false },
        leave(ada.caller.device),
    ];
    world.post(ada.caller, hand_over).unwrap();
    world.post(bob.caller, vec![leave(bob.caller.device)]).unwrap();
    world.post(adas, vec![leave(adas.device)]).unwrap();
    assert!(world.store.open_grants(mailbox).unwrap().is_empty(), "alone, she may");
}

#[test]
fn a_matter_has_no_more_devices_than_the_limit() {
    let (mut world, ada, bob, mailbox) = two();
    for _ in 2..limits::DEVICES_MAX {
        let device = world.device(&bob).device;
        world.post(ada.caller, vec![Part::Grant { mailbox, device, rights: Rights::MEMBER, resume: false }]).unwrap();
    }
    let device = world.device(&bob).device;
    let one_more = vec![Part::Grant { mailbox, device, rights: Rights::MEMBER, resume: false }];
    assert!(matches!(world.post(ada.caller, one_more).unwrap_err(), Refused::Full { .. }));
}

#[test]
fn a_newcomer_reads_from_after_the_fence_and_who_is_removed_up_to_it() {
    let (mut world, ada, bob, mailbox) = two();
    let cyd = world.person("cyd", Role::Client);
    let base = world.fence(mailbox);
    let parts = vec![
        append(mailbox, base, true, b"commit"),
        Part::Grant { mailbox, device: cyd.caller.device, rights: Rights::MEMBER, resume: false },
        Part::Revoke { mailbox, device: bob.caller.device },
    ];
    world.post(ada.caller, parts).unwrap();
    let span = |device| {
        let grants = world.store.grants(mailbox, device).unwrap();
        grants.iter().map(|grant| (grant.from, grant.until)).collect::<Vec<_>>()
    };
    assert_eq!(span(cyd.caller.device), [(2, None)]);
    assert_eq!(span(bob.caller.device), [(1, Some(2))]);
}

/// A Revoke of somebody who had left by themselves once refused the Commit that removes them.
#[test]
fn a_member_who_has_revoked_themselves_can_still_be_removed_by_a_commit() {
    let (mut world, ada, bob, mailbox) = two();
    let revoke = Part::Revoke { mailbox, device: bob.caller.device };
    world.post(bob.caller, vec![revoke.clone()]).unwrap();
    let before = world.store.grants(mailbox, bob.caller.device).unwrap();
    assert!(not_allowed(&world.post(bob.caller, vec![revoke.clone()]).unwrap_err()), "who is out changes no roster");
    let parts = vec![append(mailbox, world.fence(mailbox), true, b"commit"), revoke];
    let post = Post { idem: 77, mac: Digest::of(&[]), parts };
    let outcome = world.handle(&From::Device(ada.caller), &Request::Post(post)).unwrap();
    assert_eq!(outcome.reply, Some(Reply::Posted { seqs: vec![2] }));
    assert!(outcome.wakes.iter().all(|wake| !matches!(wake, Wake::Ended { .. })));
    assert_eq!(world.store.grants(mailbox, bob.caller.device).unwrap(), before, "nothing is written of it");
}

/// A Grant left over from a Commit that nobody followed once refused every later one for that device.
#[test]
fn a_grant_that_is_open_already_blocks_no_post() {
    let (mut world, ada, bob, mailbox) = two();
    let before = world.store.grants(mailbox, bob.caller.device).unwrap();
    for rights in [Rights::MEMBER, Rights::READ] {
        let grant = Part::Grant { mailbox, device: bob.caller.device, rights, resume: false };
        let parts = vec![append(mailbox, world.fence(mailbox), true, b"commit"), grant];
        world.post(ada.caller, parts).unwrap();
    }
    assert_eq!(world.head(mailbox).seq, 3);
    assert_eq!(world.store.grants(mailbox, bob.caller.device).unwrap(), before, "nothing is written of it");
}

#[test]
fn a_grant_of_more_rights_changes_the_interval_and_keeps_its_beginning() {
    let (mut world, ada, _, mailbox) = two();
    let stf = world.person("stf", Role::Staff);
    let grant = |device, rights| Part::Grant { mailbox, device, rights, resume: false };
    world.post(ada.caller, vec![grant(stf.caller.device, Rights::MEMBER)]).unwrap();
    world.commit(ada.caller, mailbox).unwrap();
    let more = vec![grant(stf.caller.device, Rights::MANAGER)];
    assert!(not_allowed(&world.post(stf.caller, more.clone()).unwrap_err()), "more than they have");
    world.post(ada.caller, more).unwrap();
    let grants = world.store.grants(mailbox, stf.caller.device).unwrap();
    let spans: Vec<_> = grants.iter().map(|grant| (grant.rights, grant.from, grant.until)).collect();
    assert_eq!(spans, [(Rights::MANAGER, 1, None)], "what they have still to read is kept for them");
    assert_eq!(policy::reading(&grants, None), Some((1, None)));
    world.post(stf.caller, vec![Part::Revoke { mailbox, device: ada.caller.device }]).unwrap();
}

/// Somebody removed and added again once lost what lay between.
#[test]
fn intervals_that_touch_are_read_as_one() {
    let grant = |from, until| GrantRow { device: DeviceId::new([1; 16]), rights: Rights::MEMBER, from, until };
    let touching = [grant(1, Some(5)), grant(5, None)];
    assert_eq!(policy::reading(&touching, Some(3)), Some((1, None)));
    let apart = [grant(1, Some(5)), grant(8, None)];
    assert_eq!(policy::reading(&apart, Some(3)), Some((1, Some(5))));
    assert_eq!(policy::reading(&apart, Some(1)), Some((1, Some(5))), "from before its first");
    assert_eq!(policy::reading(&apart, Some(5)), Some((1, Some(5))), "up to its last");
    assert_eq!(policy::reading(&apart, Some(6)), None);
    assert_eq!(policy::reading(&apart, Some(8)), Some((8, None)));
    assert_eq!(policy::reading(&apart, None), Some((8, None)), "the newest");
    assert_eq!(policy::reading(&[], None), None);
}

#[test]
fn what_is_posted_with_a_fence_is_kept_like_it() {
    let (mut world, ada, bob, mailbox) = two();
    let base = world.fence(mailbox);
    let parts = vec![
        append(mailbox, base, false, b"bundle"),
        append(mailbox, base, true, b"commit"),
        append(bob.inbox, Position::start(bob.inbox), false, b"welcome"),
    ];
    let post = Post { idem: 77, mac: Digest::of(&[]), parts };
    let outcome = world.handle(&From::Device(ada.caller), &Request::Post(post)).unwrap();
    let kept = outcome.writes.iter().filter(|write| matches!(write, Write::Append { kept: true, .. }));
    assert_eq!(kept.count(), 3);
    let post = Post { idem: 78, mac: Digest::of(&[]), parts: vec![append(mailbox, world.fence(mailbox), false, b"x")] };
    let outcome = world.handle(&From::Device(ada.caller), &Request::Post(post)).unwrap();
    assert!(outcome.writes.iter().any(|write| matches!(write, Write::Append { kept: false, .. })));
}

#[test]
fn fences_come_at_twenty_at_once_and_then_ten_a_minute() {
    let (mut world, ada, bob, mailbox) = two();
    let other = world.matter(&ada, &[]);
    for _ in 1..limits::FENCE_BURST {
        world.commit(ada.caller, mailbox).unwrap();
    }
    let slow = world.commit(ada.caller, mailbox).unwrap_err();
    assert_eq!(slow, Refused::Slow { after_ms: 6000 });
    world.commit(ada.caller, other).unwrap();
    world.commit(bob.caller, mailbox).unwrap();
    world.say(ada.caller, mailbox).unwrap();
    world.now = world.now.plus_ms(5999);
    assert_eq!(world.commit(ada.caller, mailbox).unwrap_err(), Refused::Slow { after_ms: 1 });
    world.now = world.now.plus_ms(1);
    world.commit(ada.caller, mailbox).unwrap();
    world.commit(ada.caller, mailbox).unwrap_err();
    world.now = world.now.plus_ms(60_000);
    for _ in 0..limits::FENCES_PER_MINUTE {
        world.commit(ada.caller, mailbox).unwrap();
    }
    world.commit(ada.caller, mailbox).unwrap_err();
}

fn deliver(world: &mut World, from: &Human, to: &Human) -> Result<Vec<u64>, Refused> {
    let parts = vec![append(to.inbox, Position::start(to.inbox), false, b"welcome")];
    world.post(from.caller, parts)
}

#[test]
fn a_client_reaches_those_of_their_matters_their_invitees_and_those_they_endorsed() {
    let (mut world, ada, bob, _) = two();
    let eve = world.person("eve", Role::Client);
    assert!(not_allowed(&deliver(&mut world, &eve, &bob).unwrap_err()), "a stranger");
    deliver(&mut world, &ada, &eve).unwrap();
    deliver(&mut world, &bob, &ada).unwrap();
    deliver(&mut world, &bob, &bob).unwrap();
    let fence = vec![append(bob.inbox, Position::start(bob.inbox), true, b"fence")];
    assert!(malformed(&world.post(ada.caller, fence).unwrap_err()));

    let friend = Human::new("friend");
    let by_bob = Issuer { person: bob.caller.person, device: bob.caller.device };
    let endorsement = friend.endorsement_by(Some(by_bob), Role::Client);
    world.settle(&friend, Role::Client, Some(&endorsement));
    deliver(&mut world, &bob, &friend).unwrap();
    assert!(not_allowed(&deliver(&mut world, &eve, &friend).unwrap_err()));
}

/// Whoever invites manages matters today; the rule holds for others too.
#[test]
fn an_inviter_sees_and_reaches_whom_they_invited() {
    let (mut world, _, bob, _) = two();
    let friend = world.person("friend", Role::Client);
    assert!(not_allowed(&deliver(&mut world, &bob, &friend).unwrap_err()));
    let row = world.store.person(friend.caller.person).unwrap().unwrap();
    world.put_person(PersonRow { inviter: Some(bob.caller.person), ..row });
    deliver(&mut world, &bob, &friend).unwrap();
    match world.ask(bob.caller, &Request::People).unwrap() {
        Reply::People { people } => assert!(people.iter().any(|person| person.person == friend.caller.person)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn who_is_not_endorsed_posts_nothing() {
    let mut world = World::new();
    let human = Human::new("new");
    world.settle(&human, Role::Attorney, None);
    assert!(not_allowed(&world.post(human.caller, vec![Part::Create { mailbox: MailboxId::random() }]).unwrap_err()));
    assert!(not_allowed(&deliver(&mut world, &human, &human).unwrap_err()));
}

#[test]
fn an_inbox_has_no_roster() {
    let (mut world, ada, bob, _) = two();
    let (mailbox, device) = (ada.inbox, bob.caller.device);
    for part in [Part::Grant { mailbox, device, rights: Rights::READ, resume: false }, Part::Revoke { mailbox, device }]
    {
        assert!(matches!(world.post(ada.caller, vec![part]).unwrap_err(), Refused::NotFound { .. }));
    }
}

/// What many senders left in somebody's inbox, without sending it all.
fn fill(world: &mut World, inbox: MailboxId, senders: u64, each: u64, reserved: bool) {
    let mut seq = world.head(inbox).seq;
    let mut writes = Vec::new();
    for _ in 0..senders {
        let sender = PersonId::random();
        for _ in 0..each {
            seq += 1_000_000;
            writes.push(Write::Waiting { inbox, seq, sender, reserved });
        }
    }
    world.write(&writes);
}

#[test]
fn one_person_fills_only_their_share_of_an_inbox() {
    let (mut world, ada, bob, _) = two();
    let stf = world.person("stf", Role::Staff);
    let share = usize::try_from(limits::INBOX_PER_SENDER).unwrap();
    let base = Position::start(ada.inbox);
    for chunk in [share - 1, 1] {
        world.post(bob.caller, vec![append(ada.inbox, base, false, b"x"); chunk]).unwrap();
    }
    assert!(matches!(deliver(&mut world, &bob, &ada).unwrap_err(), Refused::Full { .. }));
    deliver(&mut world, &stf, &ada).unwrap();
    world.ask(ada.caller, &Request::Ack { mailbox: ada.inbox, upto: 1 }).unwrap();
    deliver(&mut world, &bob, &ada).unwrap();
    assert!(matches!(deliver(&mut world, &bob, &ada).unwrap_err(), Refused::Full { .. }));
}

/// Each envelope of one Post was once counted as if it were the only one.
#[test]
fn the_envelopes_of_one_post_count_together() {
    let (mut world, ada, bob, _) = two();
    let share = limits::INBOX_PER_SENDER;
    fill(&mut world, ada.inbox, 0, 0, false);
    let base = Position::start(ada.inbox);
    let most = usize::try_from(share).unwrap();
    world.post(bob.caller, vec![append(ada.inbox, base, false, b"x"); most - 1]).unwrap();
    let two_more = vec![append(ada.inbox, base, false, b"x"); 2];
    assert!(matches!(world.post(bob.caller, two_more).unwrap_err(), Refused::Full { .. }));
}

#[test]
fn clients_leave_a_reserve_that_attorneys_and_staff_can_use_up() {
    let (mut world, ada, bob, _) = two();
    let stf = world.person("stf", Role::Staff);
    fill(&mut world, ada.inbox, 16, 255, false);
    deliver(&mut world, &bob, &ada).unwrap();
    fill(&mut world, ada.inbox, 1, limits::INBOX_CLIENTS_TOTAL - 16 * 255 - 1, false);
    assert!(matches!(deliver(&mut world, &bob, &ada).unwrap_err(), Refused::Full { .. }));
    deliver(&mut world, &stf, &ada).unwrap();
    fill(&mut world, ada.inbox, 1, INBOX_TOTAL - limits::INBOX_CLIENTS_TOTAL - 1, true);
    assert!(matches!(deliver(&mut world, &stf, &ada).unwrap_err(), Refused::Full { .. }));
}

#[test]
fn key_packages_are_taken_within_a_daily_limit_then_the_last_resort() {
    let (mut world, ada, bob, _) = two();
    let package = |byte| privity_protocol::frame::Blob(vec![byte]);
    let publish =
        Request::PublishKeyPackages { single_use: vec![package(1), package(2)], last_resort: Some(package(9)) };
    world.ask(bob.caller, &publish).unwrap();
    let too_many =
        Request::PublishKeyPackages { single_use: vec![package(3); limits::KEY_PACKAGES - 1], last_resort: None };
    assert!(matches!(world.ask(bob.caller, &too_many).unwrap_err(), Refused::Full { .. }));
    let take = Request::TakeKeyPackages { person: bob.caller.person, device: None };
    let taken = |world: &mut World| {
        let outcome = world.handle(&From::Device(ada.caller), &take)?;
        let low =
            outcome.wakes.iter().any(|wake| matches!(wake, Wake::Device { event: Event::KeyPackagesLow { .. }, .. }));
        assert!(low);
        match outcome.reply {
            Some(Reply::KeyPackages { packages }) => Ok::<_, Refused>(packages[0].package.0.clone()),
            other => panic!("{other:?}"),
        }
    };
    for expected in [1, 2, 9, 9] {
        assert_eq!(taken(&mut world).unwrap(), [expected]);
    }
    for _ in 4..limits::KEY_PACKAGES_TAKEN_PER_DAY {
        taken(&mut world).unwrap();
    }
    let one_more = Request::PublishKeyPackages { single_use: vec![package(5)], last_resort: None };
    world.ask(bob.caller, &one_more).unwrap();
    let last_resort = world.handle(&From::Device(ada.caller), &take).unwrap();
    assert!(last_resort.writes.is_empty() && last_resort.wakes.is_empty(), "no stock is emptied any more");
    assert!(matches!(last_resort.reply, Some(Reply::KeyPackages { packages }) if packages[0].package.0 == [9]));
    let cyd = world.person("cyd", Role::Client);
    let publish = Request::PublishKeyPackages { single_use: vec![package(1)], last_resort: None };
    world.ask(cyd.caller, &publish).unwrap();
    let hers = Request::TakeKeyPackages { person: cyd.caller.person, device: None };
    assert!(matches!(world.ask(ada.caller, &hers).unwrap_err(), Refused::Slow { .. }), "she has no last resort");
    world.now = world.now.plus_ms(24 * 3600 * 1000);
    assert_eq!(taken(&mut world).unwrap(), [5]);
    let eve = world.person("eve", Role::Client);
    assert!(not_allowed(&world.ask(eve.caller, &take).unwrap_err()), "a stranger");
}

#[test]
fn key_packages_are_as_many_and_as_large_as_their_limits_and_no_more() {
    let (mut world, ada, bob, _) = two();
    let publish = |count, len| Request::PublishKeyPackages {
        single_use: vec![privity_protocol::frame::Blob(vec![1; len]); count],
        last_resort: None,
    };
    world.ask(bob.caller, &publish(limits::KEY_PACKAGES - 1, 1)).unwrap();
    assert!(matches!(world.ask(bob.caller, &publish(2, 1)).unwrap_err(), Refused::Full { .. }));
    assert!(malformed(&world.ask(bob.caller, &publish(1, limits::KEY_PACKAGE_MAX + 1)).unwrap_err()));
    world.ask(bob.caller, &publish(1, limits::KEY_PACKAGE_MAX)).unwrap();

    let new = Human::new("new");
    world.settle(&new, Role::Client, None);
    world.ask(new.caller, &publish(1, 1)).unwrap();
    let take = Request::TakeKeyPackages { person: new.caller.person, device: None };
    assert!(matches!(world.ask(ada.caller, &take).unwrap_err(), Refused::NotFound { .. }), "not endorsed yet");
}

#[test]
fn acknowledging_needs_a_place_in_the_mailbox_and_something_that_stands_there() {
    let (mut world, ada, bob, mailbox) = two();
    let eve = world.person("eve", Role::Attorney);
    world.ask(bob.caller, &Request::Ack { mailbox, upto: 1 }).unwrap();
    assert!(malformed(&world.ask(bob.caller, &Request::Ack { mailbox, upto: 2 }).unwrap_err()));
    let hers = Request::Ack { mailbox: ada.inbox, upto: 0 };
    assert!(matches!(world.ask(eve.caller, &hers).unwrap_err(), Refused::NotFound { .. }));
    assert!(matches!(world.ask(eve.caller, &Request::Ack { mailbox, upto: 1 }).unwrap_err(), Refused::NotFound { .. }));
}

/// One thing that somebody tries.
#[derive(Debug, Clone)]
struct Try {
    who: usize,
    mailbox: usize,
    base: u8,
    fences: Vec<bool>,
    again: bool,
}

fn tries() -> impl Strategy<Value = Vec<Try>> {
    let fences = prop::collection::vec(any::<bool>(), 1..4);
    let one = (0..3_usize, 0..2_usize, 0..4_u8, fences, any::<bool>());
    let one = one.prop_map(|(who, mailbox, base, fences, again)| Try { who, mailbox, base, fences, again });
    prop::collection::vec(one, 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn whatever_is_posted_seqs_are_contiguous_and_chains_true(tries in tries()) {
        thread_local! {
            static PEOPLE: [Human; 3] = ["ada", "bob", "eve"].map(Human::new);
        }
        PEOPLE.with(|people| {
            let mut world = World::new();
            for (human, role) in people.iter().zip([Role::Attorney, Role::Client, Role::Client]) {
                let said = human.endorsement_by(Some(human.issuer()), role);
                world.settle(human, role, Some(&said));
            }
            let members = [(people[1].caller, Rights::MEMBER)];
            let mailboxes = [world.matter(&people[0], &members), world.matter(&people[0], &members)];
            let mut model: [Vec<(bool, Vec<u8>)>; 2] = [(); 2].map(|()| vec![(true, b"first".to_vec())]);
            for (step, attempt) in tries.iter().enumerate() {
                let mailbox = mailboxes[attempt.mailbox];
                let fence = world.fence(mailbox);
                let mut base = match attempt.base {
                    0 => Position::start(mailbox),
                    1 => world.head(mailbox),
                    _ => fence,
                };
                let mut parts = Vec::new();
                let mut position = world.head(mailbox);
                let mut added = Vec::new();
                for (index, is_fence) in attempt.fences.iter().enumerate() {
                    let envelope = format!("{step} {index}").into_bytes();
                    parts.push(append(mailbox, base, *is_fence, &envelope));
                    position = position.next(*is_fence, &Digest::of(&[&envelope]));
                    if *is_fence {
                        base = position;
                    }
                    added.push((*is_fence, envelope));
                }
                let idem = 1000 + step as u64;
                let good = attempt.who < 2 && (attempt.base > 1 || (attempt.base == 1 && world.head(mailbox) == fence));
                let posted = world.post_as(people[attempt.who].caller, idem, parts.clone());
                let slow = matches!(posted, Err(Refused::Slow { .. }));
                assert_eq!(posted.is_ok(), good && !slow, "{posted:?}");
                if posted.is_ok() {
                    model[attempt.mailbox].extend(added);
                    if attempt.again {
                        assert_eq!(world.post_as(people[attempt.who].caller, idem, parts), posted);
                    }
                }
            }
            for (mailbox, expected) in mailboxes.iter().zip(model) {
                let entries = world.store.entries(*mailbox, 0, u64::MAX, usize::MAX).unwrap();
                assert_eq!(entries.len(), expected.len());
                let mut position = Position::start(*mailbox);
                for (entry, (fence, envelope)) in entries.iter().zip(expected) {
                    assert_eq!((entry.seq, entry.fence), (position.seq + 1, fence));
                    position = position.next(fence, &Digest::of(&[&envelope]));
                    assert_eq!(world.store.position(*mailbox, entry.seq).unwrap(), Some(position));
                }
                assert_eq!(world.head(*mailbox), position);
            }
        });
    }
}
