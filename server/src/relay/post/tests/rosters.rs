//! Intervals: where they begin, end and go on, and who sees them.

use privity_protocol::frame::Interval;

use super::*;

fn grant(mailbox: MailboxId, device: DeviceId, rights: Rights) -> Part {
    Part::Grant { mailbox, device, rights, resume: false }
}

fn resume(mailbox: MailboxId, device: DeviceId, rights: Rights) -> Part {
    Part::Grant { mailbox, device, rights, resume: true }
}

fn spans(world: &World, mailbox: MailboxId, device: DeviceId) -> Vec<(Rights, u64, Option<u64>)> {
    let grants = world.store.grants(mailbox, device).unwrap();
    grants.iter().map(|grant| (grant.rights, grant.from, grant.until)).collect()
}

/// Two, and bob was removed at 2; the mailbox stands at 4.
fn removed() -> (World, Human, Human, MailboxId) {
    let (mut world, ada, bob, mailbox) = two();
    let revoke = Part::Revoke { mailbox, device: bob.caller.device };
    world.post(ada.caller, vec![append(mailbox, world.fence(mailbox), true, b"void"), revoke]).unwrap();
    world.commit(ada.caller, mailbox).unwrap();
    world.say(ada.caller, mailbox).unwrap();
    (world, ada, bob, mailbox)
}

#[test]
fn a_resumed_interval_goes_on_as_if_it_had_never_ended() {
    let (mut world, ada, bob, mailbox) = removed();
    let device = bob.caller.device;
    assert_eq!(spans(&world, mailbox, device), [(Rights::MEMBER, 1, Some(2))]);
    world.post(ada.caller, vec![resume(mailbox, device, Rights::MEMBER)]).unwrap();
    assert_eq!(spans(&world, mailbox, device), [(Rights::MEMBER, 1, None)]);
    let grants = world.store.grants(mailbox, device).unwrap();
    assert_eq!(policy::reading(&grants, Some(2)), Some((1, None)), "gap-free");
    world.say(bob.caller, mailbox).unwrap();
}

#[test]
fn only_the_last_interval_is_resumed_and_with_the_rights_given() {
    let (mut world, ada, bob, mailbox) = removed();
    let device = bob.caller.device;
    world.post(ada.caller, vec![grant(mailbox, device, Rights::MEMBER)]).unwrap();
    world.commit(ada.caller, mailbox).unwrap();
    world.post(ada.caller, vec![Part::Revoke { mailbox, device }]).unwrap();
    world.commit(ada.caller, mailbox).unwrap();
    world.post(ada.caller, vec![resume(mailbox, device, Rights::READ)]).unwrap();
    assert_eq!(spans(&world, mailbox, device), [(Rights::MEMBER, 1, Some(2)), (Rights::READ, 4, None)]);
    assert!(not_allowed(&world.say(bob.caller, mailbox).unwrap_err()));
}

#[test]
fn resuming_what_is_open_does_nothing_and_what_never_was_is_an_ordinary_grant() {
    let (mut world, ada, bob, mailbox) = two();
    let before = spans(&world, mailbox, bob.caller.device);
    world.post(ada.caller, vec![resume(mailbox, bob.caller.device, Rights::MEMBER)]).unwrap();
    assert_eq!(spans(&world, mailbox, bob.caller.device), before);
    let cyd = world.person("cyd", Role::Client);
    world.commit(ada.caller, mailbox).unwrap();
    world.post(ada.caller, vec![resume(mailbox, cyd.caller.device, Rights::MEMBER)]).unwrap();
    assert_eq!(spans(&world, mailbox, cyd.caller.device), [(Rights::MEMBER, 2, None)]);
}

#[test]
fn resuming_follows_the_rules_of_granting() {
    let (mut world, ada, bob, mailbox) = removed();
    let cyd = world.person("cyd", Role::Client);
    world.post(ada.caller, vec![grant(mailbox, cyd.caller.device, Rights::MEMBER)]).unwrap();
    let device = bob.caller.device;
    for who in [cyd.caller, bob.caller] {
        let refused = world.post(who, vec![resume(mailbox, device, Rights::MEMBER)]).unwrap_err();
        assert!(not_allowed(&refused), "{refused:?}");
    }
    assert!(not_allowed(&world.post(ada.caller, vec![resume(mailbox, device, Rights::MANAGER)]).unwrap_err()));
    assert!(malformed(&world.post(ada.caller, vec![resume(mailbox, device, Rights(0))]).unwrap_err()));
    let inbox = vec![resume(bob.inbox, device, Rights::MEMBER)];
    assert!(matches!(world.post(ada.caller, inbox).unwrap_err(), Refused::NotFound { .. }));
    while world.store.open_grants(mailbox).unwrap().len() < limits::DEVICES_MAX {
        let device = world.device(&cyd).device;
        world.post(ada.caller, vec![grant(mailbox, device, Rights::MEMBER)]).unwrap();
    }
    let one_more = world.post(ada.caller, vec![resume(mailbox, device, Rights::MEMBER)]).unwrap_err();
    assert!(matches!(one_more, Refused::Full { .. }));
}

/// Somebody who was away for a while could otherwise let an older device of theirs read what they were not to.
#[test]
fn who_does_not_manage_resumes_own_devices_only_over_what_they_read_themselves() {
    let (mut world, ada, bob, mailbox) = two();
    let bobs = world.device(&bob);
    world.post(bob.caller, vec![grant(mailbox, bobs.device, Rights::MEMBER)]).unwrap();
    world.post(bob.caller, vec![Part::Revoke { mailbox, device: bobs.device }]).unwrap();
    world.commit(ada.caller, mailbox).unwrap();
    world.post(bob.caller, vec![resume(mailbox, bobs.device, Rights::MEMBER)]).unwrap();
    assert_eq!(spans(&world, mailbox, bobs.device), [(Rights::MEMBER, 1, None)]);

    for device in [bob.caller.device, bobs.device] {
        world.post(ada.caller, vec![Part::Revoke { mailbox, device }]).unwrap();
    }
    world.commit(ada.caller, mailbox).unwrap();
    world.post(ada.caller, vec![grant(mailbox, bob.caller.device, Rights::MEMBER)]).unwrap();
    let refused = world.post(bob.caller, vec![resume(mailbox, bobs.device, Rights::MEMBER)]).unwrap_err();
    assert!(not_allowed(&refused));
    world.post(ada.caller, vec![resume(mailbox, bobs.device, Rights::MEMBER)]).unwrap();
}

#[test]
fn what_a_resumed_device_has_not_acknowledged_is_kept() {
    let (mut world, ada, bob, mailbox) = removed();
    world.ask(ada.caller, &Request::Ack { mailbox, upto: 4 }).unwrap();
    world.ask(bob.caller, &Request::Ack { mailbox, upto: 2 }).unwrap();
    let beyond = world.ask(bob.caller, &Request::Ack { mailbox, upto: 3 }).unwrap_err();
    assert!(malformed(&beyond), "it has not read that");
    world.post(ada.caller, vec![resume(mailbox, bob.caller.device, Rights::MEMBER)]).unwrap();
    world.store.expire(Timestamp(u64::MAX), 100).unwrap();
    let expired = |world: &World| -> Vec<u64> {
        let entries = world.store.entries(mailbox, 0, 9, usize::MAX).unwrap();
        let gone = |body: &_| matches!(body, privity_protocol::frame::EntryBody::Expired(_));
        entries.iter().filter(|entry| gone(&entry.body)).map(|entry| entry.seq).collect()
    };
    assert_eq!(expired(&world), [1, 2, 4], "the fence between is still awaited");
    world.ask(bob.caller, &Request::Ack { mailbox, upto: 3 }).unwrap();
    world.store.expire(Timestamp(u64::MAX), 100).unwrap();
    assert_eq!(expired(&world), [1, 2, 3, 4]);
}

/// A Grant of more rights once began a new interval, and forgot what the device had still to read of the old one.
#[test]
fn a_grant_of_more_rights_does_not_forget_what_is_still_to_be_read() {
    let (mut world, ada, _, mailbox) = two();
    let stf = world.person("stf", Role::Staff);
    world.post(ada.caller, vec![grant(mailbox, stf.caller.device, Rights::MEMBER)]).unwrap();
    world.commit(ada.caller, mailbox).unwrap();
    world.post(ada.caller, vec![grant(mailbox, stf.caller.device, Rights::MANAGER)]).unwrap();
    for reader in world.store.open_grants(mailbox).unwrap() {
        if reader.device != stf.caller.device {
            world.write(&[Write::Ack { mailbox, device: reader.device, upto: 2 }]);
        }
    }
    world.store.expire(Timestamp(u64::MAX), 100).unwrap();
    let entries = world.store.entries(mailbox, 1, 2, usize::MAX).unwrap();
    assert!(matches!(entries[0].body, privity_protocol::frame::EntryBody::Envelope(_)));
}

/// Staff with fewer rights could once make a manager of a second device of theirs.
#[test]
fn nobody_gives_their_own_devices_more_than_they_have() {
    let (mut world, ada, _, mailbox) = two();
    let stf = world.person("stf", Role::Staff);
    let second = world.device(&stf);
    world.post(ada.caller, vec![grant(mailbox, stf.caller.device, Rights::READ)]).unwrap();
    for rights in [Rights::MEMBER, Rights::MANAGER] {
        assert!(not_allowed(&world.post(stf.caller, vec![grant(mailbox, second.device, rights)]).unwrap_err()));
    }
    world.post(stf.caller, vec![grant(mailbox, second.device, Rights::READ)]).unwrap();
    world.post(ada.caller, vec![grant(mailbox, stf.caller.device, Rights::MANAGER)]).unwrap();
    world.post(stf.caller, vec![grant(mailbox, second.device, Rights::MANAGER)]).unwrap();
}

#[test]
fn what_a_post_grants_and_takes_back_counts_for_nothing() {
    let (mut world, ada, _, mailbox) = two();
    let stf = world.person("stf", Role::Staff);
    world.post(ada.caller, vec![grant(mailbox, stf.caller.device, Rights::MEMBER)]).unwrap();
    let revoke = |device| Part::Revoke { mailbox, device };
    let parts =
        vec![grant(mailbox, stf.caller.device, Rights::MANAGER), revoke(stf.caller.device), revoke(ada.caller.device)];
    assert!(not_allowed(&world.post(ada.caller, parts).unwrap_err()), "the client would be left alone");
    assert_eq!(world.store.open_grants(mailbox).unwrap().len(), 3);
}

#[test]
fn rights_are_read_member_or_manager_and_nothing_between() {
    let (mut world, ada, bob, mailbox) = two();
    for bits in (0..=255).filter(|bits| ![1, 3, 7].contains(bits)) {
        let part = grant(mailbox, bob.caller.device, Rights(bits));
        assert!(malformed(&world.post(ada.caller, vec![part]).unwrap_err()), "{bits}");
    }
}

#[test]
fn with_a_commit_intervals_begin_and_end_at_it_whatever_else_is_posted() {
    let (mut world, ada, bob, mailbox) = two();
    let cyd = world.person("cyd", Role::Client);
    let base = world.fence(mailbox);
    let commit = base.next(true, &Digest::of(&[b"commit"]));
    let roster =
        [grant(mailbox, cyd.caller.device, Rights::MEMBER), Part::Revoke { mailbox, device: bob.caller.device }];
    for part in &roster {
        let before = vec![part.clone(), append(mailbox, base, true, b"commit")];
        assert!(malformed(&world.post(ada.caller, before).unwrap_err()));
    }
    let mut parts = vec![append(mailbox, base, true, b"commit"), append(mailbox, commit, false, b"text")];
    parts.extend(roster);
    world.post(ada.caller, parts).unwrap();
    assert_eq!(spans(&world, mailbox, cyd.caller.device), [(Rights::MEMBER, 2, None)]);
    assert_eq!(spans(&world, mailbox, bob.caller.device), [(Rights::MEMBER, 1, Some(2))]);
    assert_eq!(world.head(mailbox).seq, 3);
    world.post(ada.caller, vec![Part::Revoke { mailbox, device: cyd.caller.device }]).unwrap();
    assert_eq!(spans(&world, mailbox, cyd.caller.device), [(Rights::MEMBER, 2, Some(3))], "without one, at once");
}

#[test]
fn whoever_reads_a_mailbox_sees_its_roster_and_nobody_else_does() {
    let (mut world, ada, bob, mailbox) = two();
    let (stf, eve) = (world.person("stf", Role::Staff), world.person("eve", Role::Attorney));
    world.commit(ada.caller, mailbox).unwrap();
    world.post(ada.caller, vec![grant(mailbox, stf.caller.device, Rights::READ)]).unwrap();
    world.say(ada.caller, mailbox).unwrap();
    let mut grants = [(&ada, Rights::MANAGER, 0), (&bob, Rights::MEMBER, 1), (&stf, Rights::READ, 2)]
        .map(|(who, rights, from)| Interval { device: who.caller.device, rights, from });
    grants.sort();
    let roster = Reply::Roster { grants: grants.to_vec(), fence: world.fence(mailbox) };
    let ask = Request::Roster { mailbox };
    for who in [&ada, &bob, &stf] {
        assert_eq!(world.ask(who.caller, &ask).unwrap(), roster);
    }
    let not_found = |refused| matches!(refused, Refused::NotFound { .. });
    assert!(not_found(world.ask(eve.caller, &ask).unwrap_err()), "an attorney who is not in it");
    assert!(not_found(world.ask(ada.caller, &Request::Roster { mailbox: ada.inbox }).unwrap_err()), "an inbox");
    assert!(not_found(world.ask(ada.caller, &Request::Roster { mailbox: MailboxId::random() }).unwrap_err()));
    world.post(ada.caller, vec![Part::Revoke { mailbox, device: bob.caller.device }]).unwrap();
    assert!(not_found(world.ask(bob.caller, &ask).unwrap_err()), "who has left");
    let Reply::Roster { grants, .. } = world.ask(ada.caller, &ask).unwrap() else { unreachable!() };
    assert_eq!(grants.len(), 2);
}

#[test]
fn an_entry_says_who_posted_it_also_in_an_inbox_and_after_it_expired() {
    let (mut world, ada, bob, mailbox) = two();
    let deliver = append(ada.inbox, Position::start(ada.inbox), false, b"hello");
    let post = Post {
        idem: 77,
        mac: Digest::of(&[]),
        parts: vec![append(mailbox, world.fence(mailbox), false, b"x"), deliver],
    };
    let outcome = world.handle(&From::Device(bob.caller), &Request::Post(post)).unwrap();
    let told: Vec<_> = outcome
        .wakes
        .iter()
        .filter_map(|wake| match wake {
            Wake::Entry { mailbox, by, .. } => Some((*mailbox, *by)),
            _ => None,
        })
        .collect();
    assert_eq!(told, [(mailbox, bob.caller.device), (ada.inbox, bob.caller.device)]);
    let by = |world: &World, mailbox| -> Vec<_> {
        world.store.entries(mailbox, 0, 9, usize::MAX).unwrap().iter().map(|entry| entry.by).collect()
    };
    for _ in 0..2 {
        assert_eq!(by(&world, mailbox), [Some(ada.caller.device), Some(bob.caller.device)]);
        assert_eq!(by(&world, ada.inbox), [Some(bob.caller.device)]);
        world.store.expire(Timestamp(u64::MAX), 100).unwrap();
    }
}

#[test]
fn what_goes_into_an_inbox_stands_on_its_beginning() {
    let (mut world, ada, bob, mailbox) = two();
    deliver(&mut world, &ada, &bob).unwrap();
    for base in [world.head(bob.inbox), world.fence(mailbox)] {
        assert!(malformed(&world.post(ada.caller, vec![append(bob.inbox, base, false, b"x")]).unwrap_err()));
    }
    deliver(&mut world, &ada, &bob).unwrap();
}
