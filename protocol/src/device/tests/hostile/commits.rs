//! Fences that are no Commits, and Commits that MLS or the rules refuse whoever makes them.

use super::*;

#[test]
fn garbage_in_a_fence_is_void_for_all_and_shown_with_its_author() {
    let (mut world, matter) = office();
    let base = world.nodes[EVE].device.matter(matter).unwrap().fence;
    let mailbox = base_mailbox(&world, matter);
    let random: Vec<u8> = (0..=255_u8).map(|n| n.wrapping_mul(7) ^ 13).collect();
    let garbage = [random.clone(), vec![], vec![1], [&[1, 2][..], &random].concat(), [&[1, 3][..], &random].concat()];
    for (index, envelope) in garbage.into_iter().enumerate() {
        let base = if index == 0 { base } else { world.nodes[EVE].device.matter(matter).unwrap().fence };
        let part = Part::Append { mailbox, base, fence: true, envelope: Blob(envelope), keep_ms: 1 };
        post(&mut world, EVE, matter, vec![part]);
        void(&world, matter, EVE, &[ADA, BOB, DAN]);
        assert_eq!(voids(&world, DAN, matter).len(), index + 1);
    }
    for class in [Class::Repair, Class::Successor, Class::Message] {
        let part = part(&world, EVE, matter, class, &random, true);
        post(&mut world, EVE, matter, vec![part]);
        void(&world, matter, EVE, &[ADA, BOB, DAN]);
    }
    goes_on(&mut world, matter, &ALL);
}

fn base_mailbox(world: &World, matter: MatterId) -> MailboxId {
    world.nodes[EVE].device.matter(matter).unwrap().mailbox
}

#[test]
fn a_commit_without_the_fence_bit_and_a_message_with_it_are_void() {
    let (mut world, matter) = office();
    // A Commit that would be good as a fence: new keys for Eve's leaf.
    let seen = seen(&world, EVE, matter);
    let commit = forged(&mut world, EVE, matter, &Wild::default(), &seen);
    let unfenced = part(&world, EVE, matter, Class::Commit, &commit, false);
    post(&mut world, EVE, matter, vec![unfenced]);
    assert!(void(&world, matter, EVE, &ALL).contains("a fence is a commit"));

    let content = Content::text(MessageId::random(), world.now, "fenced").unwrap().encode();
    let mut message = world.nodes[EVE].device.sealed(matter, &content, &seen).unwrap();
    let Part::Append { fence, .. } = &mut message else { panic!() };
    *fence = true;
    post(&mut world, EVE, matter, vec![message]);
    assert!(void(&world, matter, EVE, &ALL).contains("a fence is a commit"));
    assert!(!world.words(ADA, matter).contains(&"fenced".to_owned()));
    goes_on(&mut world, matter, &ALL);
}

#[test]
fn a_commit_with_a_wrong_confirmation_tag_is_void_for_all() {
    let (mut world, matter) = office();
    let spell = Spell { spoil_tag: true, ..Spell::default() };
    strike(&mut world, EVE, matter, &Wild { spell: spell.clone(), ..Wild::default() });
    void(&world, matter, EVE, &[ADA, BOB, DAN]);
    // Nor does anybody believe an attorney's.
    let context = MatterContext { title: "Mine".to_owned(), ..context(&mut world, matter) };
    strike(&mut world, BOB, matter, &Wild { context: Some(context), spell, ..Wild::default() });
    void(&world, matter, BOB, &[ADA, DAN, EVE]);
    assert_eq!(world.nodes[ADA].device.matter(matter).unwrap().title, "Smith v Jones");
    goes_on(&mut world, matter, &ALL);
}

/// A Commit that others have made void, or that comes from another time, changes nothing.
#[test]
fn a_commit_of_an_old_or_a_future_epoch_is_void() {
    let (mut world, matter) = office();
    let seen = seen(&world, EVE, matter);
    let old = forged(&mut world, EVE, matter, &Wild::default(), &seen);
    world.add(ADA, matter, CYN);
    world.run();
    world.remove(BOB, matter, CYN);
    world.run();
    let before = epoch(&world, ADA, matter);
    post_commit(&mut world, EVE, matter, &old);
    assert!(void(&world, matter, EVE, &[ADA, BOB, DAN]).contains("it belongs to epoch"));

    let seen = Seen::at(world.nodes[EVE].device.matter(matter).unwrap().position);
    let mut future = forged(&mut world, EVE, matter, &Wild::default(), &seen);
    // version (2), wire format (2), group id with its length (17), epoch (8)
    assert_eq!(future[21..29], before.to_be_bytes());
    future[21..29].copy_from_slice(&(before + 3).to_be_bytes());
    post_commit(&mut world, EVE, matter, &future);
    assert!(void(&world, matter, EVE, &[ADA, BOB, DAN]).contains("it belongs to epoch"));
    assert_eq!(epoch(&world, ADA, matter), before);
    goes_on(&mut world, matter, &ALL);
}

/// The relay refuses a base that is no fence; nothing is lost but what was posted so.
#[test]
fn a_base_that_the_relay_refuses_is_reported_and_holds_up_nothing() {
    let (mut world, matter) = office();
    let refused = || Refused::malformed("a base that is no fence");
    world.relay.refuse.push_back(refused());
    let id = world.say(DAN, matter, "on a false base");
    world.run();
    let unsendable = |notice: &Notice| matches!(notice, Notice::Unsendable { id: told, .. } if *told == id);
    assert_eq!(world.told(DAN, unsendable), 1);
    world.relay.refuse.push_back(refused());
    world.add(BOB, matter, CYN);
    world.run();
    assert_eq!(world.told(BOB, |notice| matches!(notice, Notice::NotDone { .. })), 1);
    assert_eq!(people(&world, BOB, matter), 4);
    goes_on(&mut world, matter, &ALL);
}

#[test]
fn a_proposal_by_itself_is_void() {
    let (mut world, matter) = office();
    let content = Content::text(MessageId::random(), world.now, "x").unwrap().encode();
    let seen = seen(&world, EVE, matter);
    let Part::Append { envelope, .. } = world.nodes[EVE].device.sealed(matter, &content, &seen).unwrap() else {
        panic!()
    };
    let mut proposal = envelope.0[2..].to_vec();
    assert_eq!(proposal[29], 1, "an application message");
    proposal[29] = 2;
    for (class, fence) in [(Class::Message, false), (Class::Commit, true)] {
        let part = part(&world, EVE, matter, class, &proposal, fence);
        post(&mut world, EVE, matter, vec![part]);
        void(&world, matter, EVE, &[ADA, BOB, DAN]);
    }
    goes_on(&mut world, matter, &ALL);
}

/// A Commit of Bob's that would remove Dan, with these bytes in the proposal's place.
fn with_proposal(world: &mut World, matter: MatterId, bytes: [u8; 7]) -> Wild {
    let dan = leaf(world, DAN, matter);
    let removal = [&[1, 0, 3][..], &dan.to_be_bytes()].concat();
    let spell = Spell { replace: Some((removal, bytes.to_vec())), ..Spell::default() };
    Wild { remove: vec![dan], spell, ..Wild::default() }
}

#[test]
fn a_commit_with_a_proposal_that_is_not_allowed_is_void() {
    let (mut world, matter) = office();
    let reinit = Wild { reinit: true, ..Wild::default() };
    strike(&mut world, BOB, matter, &reinit);
    assert!(void(&world, matter, BOB, &[ADA, DAN, EVE]).contains("a proposal that is not allowed"));
    // RFC 9420, section 12.1 and 12.4: a pre-shared key, an external init, a reference, an update, an unknown kind.
    let proposals = [
        [1, 0, 4, 1, 1, 7, 0],
        [1, 0, 6, 3, 1, 2, 3],
        [2, 5, 1, 2, 3, 4, 5],
        [1, 0, 2, 1, 2, 3, 4],
        [1, 0xf0, 9, 3, 1, 2, 3],
    ];
    for bytes in proposals {
        let wild = with_proposal(&mut world, matter, bytes);
        strike(&mut world, BOB, matter, &wild);
        void(&world, matter, BOB, &[ADA, DAN, EVE]);
    }
    goes_on(&mut world, matter, &ALL);
}

#[test]
fn a_commit_that_is_no_private_message_is_void() {
    let (mut world, matter) = office();
    strike(&mut world, EVE, matter, &Wild { public: true, ..Wild::default() });
    void(&world, matter, EVE, &[ADA, BOB, DAN]);
    goes_on(&mut world, matter, &ALL);
}

/// RFC 9420 lets a Commit that only adds come without a path, and so without fresh keys of its author.
#[test]
fn a_commit_without_a_path_is_void() {
    let (mut world, matter) = office();
    // Eve's second device, which she may add to any matter that she is in.
    let (me, identity) = second_device(&world, EVE);
    for no_path in [true, false] {
        let (package, _, _) = crate::matter::key_package(&me, &KeyPackages::default(), false).unwrap();
        let told = bundle(&mut world, EVE, matter, vec![identity.clone()]);
        let seen = Seen { bundle: Some(hash(&told)), ..seen(&world, EVE, matter) };
        let commit = forged(&mut world, EVE, matter, &Wild { add: vec![package], no_path, ..Wild::default() }, &seen);
        let commit = part(&world, EVE, matter, Class::Commit, &commit, true);
        let before = epoch(&world, ADA, matter);
        post(&mut world, EVE, matter, vec![told, commit]);
        if no_path {
            void(&world, matter, EVE, &[ADA, BOB, DAN]);
            goes_on(&mut world, matter, &ALL);
        } else {
            assert_eq!(epoch(&world, ADA, matter), before + 1, "the control: with a path it is good");
        }
    }
}
