//! Of a refused Post the relay notes that it came, and nothing else.

use super::*;

fn asked(idem: u64, parts: Vec<Part>) -> Post {
    Post { idem, mac: Digest::of(&[&idem.to_be_bytes()]), parts }
}

/// What is decided on a Post, and what is written of it.
fn decided(world: &mut World, caller: Caller, post: &Post) -> (Option<Reply>, Vec<Write>) {
    let outcome = world.rules.handle(&world.store, &From::Device(caller), &Request::Post(post.clone()), world.now);
    let Outcome { writes, reply, wakes } = outcome.unwrap();
    assert!(wakes.is_empty() || !matches!(reply, Some(Reply::Refused(_))));
    world.write(&writes);
    (reply, writes)
}

fn note(caller: Caller, post: &Post) -> Write {
    let row = ReceivedRow { idem: post.idem, parts: Post::parts_digest(&post.parts), mac: post.mac };
    Write::Received { device: caller.device, row }
}

fn newest(world: &World, caller: Caller) -> u64 {
    newest_received(&world.store, caller.device).unwrap().unwrap().idem
}

#[test]
fn whatever_a_post_is_refused_for_it_is_noted_that_it_came_and_nothing_else_is_written() {
    let (mut world, ada, bob, mailbox) = two();
    let eve = world.person("eve", Role::Client);
    let new = Human::new("new");
    world.settle(&new, Role::Client, None);
    for _ in 1..limits::FENCE_BURST {
        world.commit(ada.caller, mailbox).unwrap();
    }
    let base = world.fence(mailbox);
    fill(&mut world, bob.inbox, 1, limits::INBOX_CLIENTS_TOTAL, false);
    let start = Position::start(mailbox);
    let welcome = append(bob.inbox, Position::start(bob.inbox), false, b"welcome");
    let says = append(mailbox, base, false, b"x");
    let refusals = [
        (bob.caller, vec![append(mailbox, start, false, b"x")], "Stale"),
        (ada.caller, vec![says.clone(), append(mailbox, base, true, b"x")], "Slow"),
        (bob.caller, vec![says.clone(), welcome], "Full"),
        (eve.caller, vec![says.clone()], "NotAllowed"),
        (new.caller, vec![says.clone()], "NotAllowed"),
        (ada.caller, vec![says.clone(), append(mailbox, base, false, b"")], "Malformed"),
        (ada.caller, vec![], "Malformed"),
        (ada.caller, vec![append(MailboxId::random(), base, false, b"x")], "NotFound"),
    ];
    for (idem, (caller, parts, why)) in (100..).zip(refusals) {
        let post = asked(idem, parts);
        let (reply, writes) = decided(&mut world, caller, &post);
        let Some(Reply::Refused(refused)) = reply else { panic!("{why}") };
        assert!(format!("{refused:?}").starts_with(why), "{refused:?} for {why}");
        assert_eq!(writes, [note(caller, &post)], "{why}");
        assert_eq!(newest(&world, caller), idem);
    }
}

#[test]
fn only_a_rising_idem_is_noted() {
    let (mut world, ada, _, mailbox) = two();
    let bad = |idem, byte| asked(idem, vec![append(mailbox, Position::start(mailbox), false, &[byte])]);
    assert_eq!(decided(&mut world, ada.caller, &bad(50, 1)).1, [note(ada.caller, &bad(50, 1))]);
    for (idem, byte) in [(50, 1), (50, 2), (49, 1)] {
        assert!(decided(&mut world, ada.caller, &bad(idem, byte)).1.is_empty(), "{idem} {byte}");
    }
    let good = vec![append(mailbox, world.fence(mailbox), false, b"x")];
    world.post_as(ada.caller, 60, good).unwrap();
    assert!(decided(&mut world, ada.caller, &bad(55, 1)).1.is_empty(), "below one that was accepted");
    assert_eq!(newest(&world, ada.caller), 60);
    assert_eq!(decided(&mut world, ada.caller, &bad(61, 1)).1.len(), 1);
    assert_eq!(newest(&world, ada.caller), 61);
}

#[test]
fn what_was_refused_is_judged_anew_with_the_same_parts_and_with_others() {
    let (mut world, ada, bob, mailbox) = two();
    for _ in 1..limits::FENCE_BURST {
        world.commit(ada.caller, mailbox).unwrap();
    }
    let commit = vec![append(mailbox, world.fence(mailbox), true, b"commit")];
    assert!(matches!(world.post_as(ada.caller, 100, commit.clone()), Err(Refused::Slow { .. })));
    world.now = world.now.plus_ms(60_000);
    world.post_as(ada.caller, 100, commit).unwrap();

    let stale = vec![append(mailbox, Position::start(mailbox), false, b"x")];
    assert!(matches!(world.post_as(bob.caller, 7, stale.clone()), Err(Refused::Stale { .. })));
    let other = vec![append(mailbox, world.fence(mailbox), false, b"y")];
    world.post_as(bob.caller, 7, other.clone()).unwrap();
    let shown = newest_received(&world.store, bob.caller.device).unwrap().unwrap();
    assert_eq!((shown.idem, shown.parts), (7, Post::parts_digest(&other)), "what was accepted");
    assert!(matches!(world.post_as(bob.caller, 7, stale), Err(Refused::Reused { idem: 7, .. })));
}

#[test]
fn a_refused_idem_moves_no_window() {
    let (mut world, ada, _, mailbox) = two();
    let (stale, good) = (Position::start(mailbox), world.fence(mailbox));
    world.post_as(ada.caller, 500_000, vec![append(mailbox, stale, false, b"x")]).unwrap_err();
    world.post_as(ada.caller, 1000, vec![append(mailbox, good, false, b"x")]).unwrap();
    assert_eq!(newest(&world, ada.caller), 500_000);
}

#[test]
fn what_no_store_can_keep_and_what_a_replaced_instance_posts_is_not_noted() {
    let (mut world, ada, _, _) = two();
    let before = newest_received(&world.store, ada.caller.device).unwrap();
    world.post_as(ada.caller, u64::MAX, Vec::new()).unwrap_err();
    let copy = Caller { instance: privity_protocol::frame::Instance::after(Some(ada.caller.instance)), ..ada.caller };
    world.admit(copy).unwrap();
    assert_eq!(world.post_as(ada.caller, 99, Vec::new()), Err(Refused::Replaced));
    assert_eq!(newest_received(&world.store, ada.caller.device).unwrap(), before);
}
