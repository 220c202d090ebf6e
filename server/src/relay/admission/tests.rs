//! Which copy of a device is served.

use privity_protocol::frame::{Blob, Post, Request};
use privity_protocol::identity::Role;
use privity_protocol::ids::DeviceId;
use privity_protocol::suite::Digest;

use super::super::world::{Human, World};
use super::*;
use crate::policy::refusal;
use crate::store::Store;
use crate::store::memory::Memory;

/// Somebody whose device has a key package of either kind at the relay.
fn stocked() -> (World, Human) {
    let mut world = World::new();
    let ada = world.person("ada", Role::Attorney);
    let package = |byte| Blob(vec![byte]);
    let publish = Request::PublishKeyPackages { single_use: vec![package(1)], last_resort: Some(package(9)) };
    world.ask(ada.caller, &publish).unwrap();
    (world, ada)
}

fn hello(human: &Human, device: Option<DeviceId>, instance: Option<Instance>) -> HelloBody {
    let link_key = human.link_key();
    HelloBody { newest: 1, lowest: 1, device, link_key, agent: "test".to_owned(), instance }
}

fn judged(world: &World, hello: &HelloBody) -> Result<Judged, Refused> {
    refusal(judge(&world.store, hello)).unwrap()
}

/// A copy of the device, with this number.
fn copy(of: Caller, number: u64) -> Caller {
    let before = number.checked_sub(1).map(|number| Instance { number, ..of.instance });
    Caller { instance: Instance::after(before), ..of }
}

#[test]
fn the_first_instance_of_a_device_is_stored_and_comes_back_unchanged() {
    let mut world = World::new();
    let device = DeviceId::random();
    let first = Instance { number: 7, ..Instance::after(None) };
    let outcome = world.rules.admit(&world.store, device, first).unwrap();
    assert_eq!(outcome.writes, [Write::Instance { device, instance: first }]);
    assert!(outcome.wakes.is_empty());
    world.write(&outcome.writes);
    assert!(world.rules.admit(&world.store, device, first).unwrap().writes.is_empty());
}

#[test]
fn a_newer_instance_takes_over_and_all_key_packages_are_gone() {
    let (mut world, ada) = stocked();
    let device = ada.caller.device;
    let newer = copy(ada.caller, 1);
    let outcome = world.admit(newer).unwrap();
    assert_eq!(outcome.wakes, [Wake::Replaced { device, by: newer.instance }]);
    assert_eq!(world.store.instance(device).unwrap(), Some(newer.instance));
    assert_eq!(world.store.key_package(device).unwrap(), None, "neither kind");
    assert_eq!(world.admit(ada.caller).unwrap_err(), Refused::Replaced);
}

#[test]
fn an_older_instance_and_another_of_the_same_number_are_replaced() {
    let (mut world, ada) = stocked();
    world.admit(copy(ada.caller, 3)).unwrap();
    for number in [0, 2, 3] {
        assert_eq!(world.admit(copy(ada.caller, number)).unwrap_err(), Refused::Replaced, "{number}");
    }
    world.admit(copy(ada.caller, 4)).unwrap();
}

#[test]
fn what_an_older_instance_asked_is_refused_whenever_it_is_decided() {
    let (mut world, ada) = stocked();
    let newer = copy(ada.caller, 1);
    world.admit(newer).unwrap();
    let publish = Request::PublishKeyPackages { single_use: vec![Blob(vec![1])], last_resort: None };
    let asked = [
        publish.clone(),
        Request::People,
        Request::Newcomers,
        Request::Ack { mailbox: ada.inbox, upto: 0 },
        Request::TakeKeyPackages { person: ada.caller.person, device: None },
    ];
    for request in asked {
        assert_eq!(world.ask(ada.caller, &request).unwrap_err(), Refused::Replaced, "{request:?}");
    }
    assert_eq!(world.post(ada.caller, Vec::new()).unwrap_err(), Refused::Replaced);
    world.ask(newer, &publish).unwrap();
}

#[test]
fn a_known_device_says_which_instance_it_is_and_a_newcomer_says_none() {
    let (world, ada) = stocked();
    let device = Some(ada.caller.device);
    let refused = judged(&world, &hello(&ada, device, None)).unwrap_err();
    assert!(matches!(refused, Refused::Malformed { .. }), "{refused:?}");
    let unknown = judged(&world, &hello(&ada, Some(DeviceId::random()), Some(ada.caller.instance))).unwrap_err();
    assert!(matches!(unknown, Refused::NotAllowed { .. }));
    let eve = Human::new("eve");
    let stolen = judged(&world, &hello(&eve, device, Some(ada.caller.instance))).unwrap_err();
    assert!(matches!(stolen, Refused::NotAllowed { .. }), "another link key");
    let newcomer = judged(&world, &hello(&eve, None, None)).unwrap();
    assert_eq!(newcomer.from, From::Newcomer(eve.link_key()));
    assert!(newcomer.admitted && !newcomer.ready);
}

#[test]
fn a_hello_learns_what_the_relay_has_of_its_device() {
    let (mut world, ada) = stocked();
    let device = ada.caller.device;
    let mailbox = world.matter(&ada, &[]);
    world.say(ada.caller, mailbox).unwrap();
    let known = judged(&world, &hello(&ada, Some(device), Some(ada.caller.instance))).unwrap();
    assert_eq!(known.from, From::Device(ada.caller));
    let accepted = world.store.newest_idem(device).unwrap().unwrap();
    assert_eq!(known.idem.as_ref().map(|row| (row.idem, row.parts)), Some((accepted.idem, accepted.parts)));
    assert_eq!((known.key_packages, known.ready, known.admitted), (1, true, true));
    world.post_as(ada.caller, accepted.idem + 5, Vec::new()).unwrap_err();
    let known = judged(&world, &hello(&ada, Some(device), Some(ada.caller.instance))).unwrap();
    let refused = ReceivedRow {
        idem: accepted.idem + 5,
        parts: Post::parts_digest(&[]),
        mac: Digest::of(&[&(accepted.idem + 5).to_be_bytes()]),
    };
    assert_eq!(known.idem, Some(refused), "received, and refused");
    let newer = copy(ada.caller, 1);
    assert!(!judged(&world, &hello(&ada, Some(device), Some(newer.instance))).unwrap().admitted, "not yet");
    world.admit(newer).unwrap();
    let now = judged(&world, &hello(&ada, Some(device), Some(newer.instance))).unwrap();
    assert_eq!((now.key_packages, now.admitted), (0, true));
    let older = judged(&world, &hello(&ada, Some(device), Some(ada.caller.instance)));
    assert_eq!(older.unwrap_err(), Refused::Replaced);
}

/// Every step at which the store can die while an instance takes over, swept.
#[test]
fn a_crash_in_a_take_over_leaves_the_old_copy_with_its_key_packages_or_the_new_one_without() {
    for step in 1.. {
        let (world, ada) = stocked();
        let (mut store, device) = (world.store.reopen(), ada.caller.device);
        let newer = copy(ada.caller, 1).instance;
        let outcome = take_over(&store, device, newer).unwrap();
        store.crash_at(step);
        let done = store.begin().and_then(|()| store.apply(&outcome.writes)).and_then(|()| store.commit());
        let found: Memory = store.reopen();
        let stock = (found.key_packages_left(device).unwrap(), found.last_resort(device).unwrap().is_some());
        match found.instance(device).unwrap() {
            Some(instance) if instance == newer => assert_eq!(stock, (0, false), "at step {step}"),
            instance => {
                assert_eq!(instance, Some(ada.caller.instance), "at step {step}");
                assert_eq!(stock, (1, true), "at step {step}");
                assert!(done.is_err(), "at step {step}: acknowledged and lost");
            }
        }
        if done.is_ok() {
            assert!(step > 4, "the sweep went through every step");
            return;
        }
    }
}
