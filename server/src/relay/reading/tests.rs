//! Where reading begins and ends, over a store in memory.

use bytes::Bytes;
use privity_protocol::frame::{Instance, Rights};
use privity_protocol::ids::{DeviceId, PersonId, Timestamp};
use privity_protocol::suite::Digest;

use super::*;
use crate::policy::refusal;
use crate::store::memory::Memory;
use crate::store::{GrantRow, Store, Write};

/// A mailbox of five fences, and a device that may read up to the third.
fn removed() -> (Memory, Caller, MailboxId) {
    let mut store = Memory::new();
    let (mailbox, by) = (MailboxId::random(), DeviceId::random());
    let caller = Caller { device: by, person: PersonId::random(), instance: Instance::after(None) };
    let grant = GrantRow { device: by, rights: Rights::MEMBER, from: 0, until: Some(3) };
    let mut writes =
        vec![Write::Instance { device: by, instance: caller.instance }, Write::Mailbox { mailbox, inbox_of: None }];
    let mut position = Position::start(mailbox);
    for byte in 1..=5 {
        let digest = Digest::of(&[&[byte]]);
        position = position.next(true, &digest);
        let (envelope, expires) = (Bytes::from(vec![byte]), Timestamp(9));
        writes.push(Write::Append { mailbox, position, fence: true, kept: true, digest, envelope, expires, by });
    }
    writes.push(Write::Grant { mailbox, grant });
    write(&mut store, &writes);
    (store, caller, mailbox)
}

fn write(store: &mut Memory, writes: &[Write]) {
    store.begin().unwrap();
    store.apply(writes).unwrap();
    store.commit().unwrap();
}

fn at(store: &Memory, mailbox: MailboxId, seq: u64) -> Position {
    store.position(mailbox, seq).unwrap().unwrap()
}

fn refused<T: std::fmt::Debug>(decided: Result<T, No>) -> Refused {
    refusal(decided).unwrap().unwrap_err()
}

#[test]
fn reading_begins_at_the_interval_or_where_it_was_left_and_ends_with_the_interval() {
    let (store, caller, mailbox) = removed();
    assert_eq!(place(&store, caller, mailbox, None).unwrap(), (Position::start(mailbox), 3));
    let two = at(&store, mailbox, 2);
    assert_eq!(place(&store, caller, mailbox, Some(two)).unwrap(), (two, 3));
    let beyond = at(&store, mailbox, 4);
    assert!(matches!(refused(place(&store, caller, mailbox, Some(beyond))), Refused::NotFound { .. }));
}

#[test]
fn an_interval_that_goes_on_is_read_on_from_a_position_inside_it() {
    let (mut store, caller, mailbox) = removed();
    let grant = GrantRow { device: caller.device, rights: Rights::MEMBER, from: 0, until: None };
    write(&mut store, &[Write::Grant { mailbox, grant }]);
    let three = at(&store, mailbox, 3);
    assert_eq!(place(&store, caller, mailbox, Some(three)).unwrap(), (three, 5), "without a gap");
}

/// A link that opens while another instance takes over is told nothing, so it must find nothing either.
#[test]
fn an_instance_that_is_replaced_reads_nothing() {
    let (mut store, caller, mailbox) = removed();
    let instance = Instance::after(Some(caller.instance));
    write(&mut store, &[Write::Instance { device: caller.device, instance }]);
    assert_eq!(refused(place(&store, caller, mailbox, None)), Refused::Replaced);
    assert!(place(&store, Caller { instance, ..caller }, mailbox, None).is_ok());
}
