//! Requests to be let back in that nobody must follow, and answers that nobody asked for.

use super::*;
use crate::rescue::RepairRequest;

const OTHERS: [usize; 3] = [ADA, BOB, DAN];

/// A request as a device would make it now.
fn request(world: &mut World, whom: usize, matter: MatterId) -> RepairRequest {
    let package = package(world, whom);
    let profile = world.nodes[whom].device.profile();
    let (device, inbox) = (profile.device, profile.inbox);
    let row = world.nodes[EVE].device.matter(matter).unwrap();
    RepairRequest { group: row.group, device, epoch: row.epoch, fence: row.fence, package: Blob(package), inbox }
}

fn post_request(world: &mut World, signer: usize, matter: MatterId, request: &RepairRequest) {
    let payload = request.sign(&world.nodes[signer].device.me.key).unwrap();
    let part = part(world, EVE, matter, Class::Repair, &payload, false);
    post(world, EVE, matter, vec![part]);
}

/// Time passes for everybody.
fn pass(world: &mut World, ms: u64) {
    world.now = world.now.plus_ms(ms);
    for node in &mut world.nodes {
        node.device.handle_time(world.now);
    }
    world.run();
}

#[test]
fn a_request_that_does_not_belong_where_it_stands_is_void_and_unanswered() {
    let (mut world, matter) = office();
    let before = epoch(&world, ADA, matter);
    let dans = request(&mut world, DAN, matter);
    post_request(&mut world, EVE, matter, &dans);
    assert!(void(&world, matter, EVE, &OTHERS).contains("signature"), "signed by another");

    let cyns = request(&mut world, CYN, matter);
    post_request(&mut world, CYN, matter, &cyns);
    assert!(void(&world, matter, EVE, &OTHERS).contains("it is of no member"), "for a leaf that is not there");

    let honest = request(&mut world, EVE, matter);
    for package in [dans.package, cyns.package, Blob(b"no key package".to_vec())] {
        post_request(&mut world, EVE, matter, &RepairRequest { package, ..honest.clone() });
        void(&world, matter, EVE, &OTHERS);
    }
    let stranger = Me { key: SecretKey::generate(), ..world.nodes[EVE].device.me.clone() };
    let (package, _, _) = crate::matter::key_package(&stranger, &KeyPackages::default(), false).unwrap();
    post_request(&mut world, EVE, matter, &RepairRequest { package: Blob(package), ..honest.clone() });
    void(&world, matter, EVE, &OTHERS);

    let elsewhere = Position { chain: Digest::of(&[b"another history"]), ..honest.fence };
    let misplaced = [
        RepairRequest { epoch: before + 1, ..honest.clone() },
        RepairRequest { group: MatterId::random(), ..honest.clone() },
        RepairRequest { fence: elsewhere, ..honest },
    ];
    for request in misplaced {
        post_request(&mut world, EVE, matter, &request);
        assert!(void(&world, matter, EVE, &OTHERS).contains("does not belong here"));
    }
    // Dan's own, held back until a fence stood behind it.
    let late = request(&mut world, DAN, matter);
    let garbage = part(&world, BOB, matter, Class::Commit, b"garbage", true);
    post(&mut world, BOB, matter, vec![garbage]);
    post_request(&mut world, DAN, matter, &late);
    assert!(void(&world, matter, EVE, &OTHERS).contains("does not belong here"));

    pass(&mut world, 60_000);
    assert_eq!(epoch(&world, ADA, matter), before, "nobody answers");
    goes_on(&mut world, matter, &ALL);
}

/// Dan can't follow any more and asks, while Ada, who would answer at once, is away. Returns his request and its hash.
fn dan_asks(world: &mut World, matter: MatterId) -> (Digest, RepairRequest) {
    if stage(world, DAN, matter) == Stage::Open {
        let now = world.now;
        let device = &mut world.nodes[DAN].device;
        device.lose_way(now, matter);
        device.settle(now);
        world.run();
    } else {
        world.wait(DAN);
    }
    let dan = world.nodes[DAN].device.profile().device;
    let held = &world.nodes[BOB].device.matter(matter).unwrap().requests;
    let held = held.iter().find(|held| held.request.device == dan).expect("Dan's request");
    (held.digest, held.request.clone())
}

fn answer(world: &mut World, by: usize, matter: MatterId, wild: &Wild, request: Digest) {
    let seen = Seen { repair: Some(request), ..seen(world, by, matter) };
    let commit = forged(world, by, matter, wild, &seen);
    post_commit(world, by, matter, &commit);
}

#[test]
fn an_answer_that_is_not_just_what_was_asked_is_void() {
    let (mut world, matter) = office();
    let leaves = ALL.map(|who| leaf(&mut world, who, matter));
    let [_, bobs, dans, _] = leaves;
    world.disconnect(ADA);
    let mut reasons = Vec::new();
    for flaw in 0..6 {
        let (mut digest, request) = dan_asks(&mut world, matter);
        let mut wild = Wild { add: vec![request.package.0], remove: vec![dans], ..Wild::default() };
        match flaw {
            0 => wild.remove.push(bobs),
            1 => wild.context = Some(MatterContext { title: "Mine".to_owned(), ..context(&mut world, matter) }),
            2 => wild.add = vec![package(&mut world, DAN)],
            3 => digest = Digest::of(&[b"no request"]),
            4 => (wild.add, wild.remove) = (vec![package(&mut world, BOB)], vec![bobs]),
            _ => wild.add.clear(),
        }
        answer(&mut world, EVE, matter, &wild, digest);
        reasons.push(void(&world, matter, EVE, &[BOB]));
        assert_eq!(stage(&world, DAN, matter), Stage::OutOfStep);
    }
    for (reason, wanted) in reasons.iter().zip(["more than", "more than", "somebody else", "the request it names"]) {
        assert!(reason.contains(wanted), "{reasons:?}");
    }
    world.wait(DAN);
    world.connect(ADA);
    world.run();
    for (found, reason) in voids(&world, ADA, matter).into_iter().zip(reasons) {
        assert_eq!(found.what, RecordBody::Void { why: reason, claimed: true });
    }
    world.settle();
    goes_on(&mut world, matter, &ALL);
}

/// Whoever answers and keeps the Welcome back gains nothing: the device asks again.
#[test]
fn an_answer_without_its_welcome_delays_a_device_and_no_more() {
    let (mut world, matter) = office();
    let before = epoch(&world, BOB, matter);
    let dans = leaf(&mut world, DAN, matter);
    world.disconnect(ADA);
    let (digest, request) = dan_asks(&mut world, matter);
    // The control for what is void above: a client's answer that is as asked counts.
    let wild = Wild { add: vec![request.package.0], remove: vec![dans], ..Wild::default() };
    answer(&mut world, EVE, matter, &wild, digest);
    assert_eq!(epoch(&world, BOB, matter), before + 1);
    assert!(voids(&world, BOB, matter).is_empty());
    let let_in = world
        .records(BOB, matter)
        .into_iter()
        .rev()
        .find(|record| matches!(record.what, RecordBody::LetBackIn { person, .. } if person == world.person(DAN)));
    assert_eq!(let_in.unwrap().from, Some(world.person(EVE)));
    assert_eq!(stage(&world, DAN, matter), Stage::OutOfStep);
    world.wait(DAN);
    world.connect(ADA);
    world.run();
    assert_eq!(stage(&world, DAN, matter), Stage::Open);
    // Eve's program could not follow what it did not make itself: it is let back in, too.
    let now = world.now;
    world.nodes[EVE].device.lose_way(now, matter);
    world.nodes[EVE].device.settle(now);
    world.run();
    together(&world, matter, &ALL);
    for who in ALL {
        world.say(who, matter, "all here");
        world.run();
    }
    for who in ALL {
        assert!(world.words(who, matter).ends_with(&["all here".to_owned(), "all here".to_owned()]), "device {who}");
    }
}

#[test]
fn nobody_is_let_back_in_who_did_not_ask() {
    let (mut world, matter) = office();
    let dans = leaf(&mut world, DAN, matter);
    let package = package(&mut world, DAN);
    let wild = Wild { add: vec![package], remove: vec![dans], ..Wild::default() };
    // By Eve's own request.
    let own = request(&mut world, EVE, matter);
    world.disconnect(ADA);
    post_request(&mut world, EVE, matter, &own);
    let eve = world.nodes[EVE].device.profile().device;
    let held = &world.nodes[BOB].device.matter(matter).unwrap().requests;
    let digest = held.iter().find(|held| held.request.device == eve).unwrap().digest;
    answer(&mut world, EVE, matter, &wild, digest);
    assert!(void(&world, matter, EVE, &[BOB, DAN]).contains("somebody else"));
    // By none at all: a client may not, and an attorney needs a bundle.
    world.connect(ADA);
    world.run();
    void(&world, matter, EVE, &OTHERS);
    for by in [EVE, BOB] {
        strike(&mut world, by, matter, &wild);
        let others: Vec<usize> = ALL.into_iter().filter(|who| *who != by).collect();
        void(&world, matter, by, &others);
    }
    assert_eq!(stage(&world, DAN, matter), Stage::Open);
    goes_on(&mut world, matter, &ALL);
}

/// A device that asks though it could follow is let back in once, like any other: it can annoy, and it stays one member.
#[test]
fn a_device_that_asks_without_need_is_let_back_in_once() {
    let (mut world, matter) = office();
    let before = epoch(&world, ADA, matter);
    for round in 1..=3 {
        let now = world.now;
        let device = &mut world.nodes[EVE].device;
        device.lose_way(now, matter);
        device.settle(now);
        world.run();
        assert_eq!(epoch(&world, ADA, matter), before + round);
        together(&world, matter, &ALL);
    }
    goes_on(&mut world, matter, &ALL);
}
