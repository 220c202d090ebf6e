//! Additions without their bundle, and of devices that nobody vouches for.

use super::*;

/// A Commit of Bob's that adds Cyn as she is, and names this bundle.
fn adds_cyn(world: &mut World, matter: MatterId, bundle: Option<Digest>) -> Part {
    let cyn = participant(world, CYN);
    adds(world, matter, bundle, Some(cyn), None)
}

/// A Commit of Bob's that adds a device of Cyn's, listed like this.
fn adds(
    world: &mut World,
    matter: MatterId,
    bundle: Option<Digest>,
    listed: Option<Participant>,
    package: Option<Vec<u8>>,
) -> Part {
    let package = package.unwrap_or_else(|| super::package(world, CYN));
    let context = listed.map(|listed| with(world, matter, listed));
    let wild = Wild { add: vec![package], context, ..Wild::default() };
    let seen = Seen { bundle, ..seen(world, BOB, matter) };
    let commit = forged(world, BOB, matter, &wild, &seen);
    part(world, BOB, matter, Class::Commit, &commit, true)
}

const OTHERS: [usize; 3] = [ADA, DAN, EVE];

#[test]
fn an_addition_without_its_bundle_is_void() {
    let (mut world, matter) = office();
    let identity = identity(&world, CYN);
    // It names none, though one stands there.
    let told = bundle(&mut world, BOB, matter, vec![identity.clone()]);
    let commit = adds_cyn(&mut world, matter, None);
    post(&mut world, BOB, matter, vec![told, commit]);
    assert!(void(&world, matter, BOB, &OTHERS).contains("no certificate"));
    // It names one that was never posted.
    let commit = adds_cyn(&mut world, matter, Some(Digest::of(&[b"nothing"])));
    post(&mut world, BOB, matter, vec![commit]);
    assert!(void(&world, matter, BOB, &OTHERS).contains("no certificate"));
    goes_on(&mut world, matter, &ALL);
}

#[test]
fn a_bundle_from_before_the_last_fence_does_not_count() {
    let (mut world, matter) = office();
    let identity = identity(&world, CYN);
    let told = bundle(&mut world, BOB, matter, vec![identity]);
    let digest = hash(&told);
    post(&mut world, BOB, matter, vec![told]);
    let garbage = part(&world, EVE, matter, Class::Commit, b"garbage", true);
    post(&mut world, EVE, matter, vec![garbage]);
    let commit = adds_cyn(&mut world, matter, Some(digest));
    post(&mut world, BOB, matter, vec![commit]);
    void(&world, matter, BOB, &OTHERS);
    goes_on(&mut world, matter, &ALL);
}

#[test]
fn somebody_elses_bundle_does_not_count() {
    let (mut world, matter) = office();
    let identity = identity(&world, CYN);
    let told = bundle(&mut world, EVE, matter, vec![identity]);
    let digest = hash(&told);
    post(&mut world, EVE, matter, vec![told]);
    let commit = adds_cyn(&mut world, matter, Some(digest));
    post(&mut world, BOB, matter, vec![commit]);
    // Eve's own program keeps nothing of what it has not posted itself; what it judges is the same.
    assert!(void(&world, matter, BOB, &[ADA, DAN]).contains("the bundle it names does not stand before it"));
    void(&world, matter, BOB, &[EVE]);
    goes_on(&mut world, matter, &ALL);
}

#[test]
fn a_bundle_without_the_added_devices_certificate_does_not_count() {
    let (mut world, matter) = office();
    let mut bare = identity(&world, CYN);
    bare.certificates.clear();
    for identities in [vec![identity(&world, DAN)], vec![bare], vec![]] {
        let told = bundle(&mut world, BOB, matter, identities);
        let commit = adds_cyn(&mut world, matter, Some(hash(&told)));
        post(&mut world, BOB, matter, vec![told, commit]);
        void(&world, matter, BOB, &OTHERS);
    }
    goes_on(&mut world, matter, &ALL);
}

/// Several certificates stand in its bundle; each vouches for one device alone.
#[test]
fn a_device_that_its_certificate_does_not_vouch_for_is_not_added() {
    let (mut world, matter) = office();
    let (cyn, dan) = (identity(&world, CYN), identity(&world, DAN));
    let me = world.nodes[CYN].device.me.clone();
    let dans = LeafCredential { certificate: dan.certificates[0].digest(), ..me.credential };
    let elsewhere = LeafCredential { device: DeviceId::random(), ..me.credential };
    let other_key = SecretKey::generate();
    let forgeries = [
        (Me { credential: dans, ..me.clone() }, "the certificate is another person's"),
        (Me { credential: elsewhere, ..me.clone() }, "the certificate is another device's"),
        (Me { key: other_key, ..me.clone() }, "the certificate is of another key"),
    ];
    for (forgery, why) in forgeries {
        let (package, _, _) = crate::matter::key_package(&forgery, &KeyPackages::default(), false).unwrap();
        let told = bundle(&mut world, BOB, matter, vec![cyn.clone(), dan.clone()]);
        let listed = participant(&world, CYN);
        let commit = adds(&mut world, matter, Some(hash(&told)), Some(listed), Some(package));
        post(&mut world, BOB, matter, vec![told, commit]);
        assert!(void(&world, matter, BOB, &OTHERS).contains("certified"), "{why}");
    }
    // Cyn's key certifies her device as Dan's, and somebody tells it so.
    let profile = world.nodes[CYN].device.profile();
    let mut certificate: DeviceCertificate = profile.certificate.unverified("certificate").unwrap();
    certificate.person = world.person(DAN);
    let certificate =
        Signed::make(Label::DeviceCertificate, profile.person_key.as_ref().unwrap(), &certificate).unwrap();
    let forgery = Me { credential: LeafCredential { certificate: certificate.digest(), ..me.credential }, ..me };
    let renamed = Identity { person: world.person(DAN), certificates: vec![certificate], ..cyn };
    let (package, _, _) = crate::matter::key_package(&forgery, &KeyPackages::default(), false).unwrap();
    let told = bundle(&mut world, BOB, matter, vec![renamed]);
    let listed = participant(&world, CYN);
    let commit = adds(&mut world, matter, Some(hash(&told)), Some(listed), Some(package));
    post(&mut world, BOB, matter, vec![told, commit]);
    assert!(void(&world, matter, BOB, &OTHERS).contains("certified"), "the certificate is of another person");
    goes_on(&mut world, matter, &ALL);
}

#[test]
fn a_person_who_is_not_listed_or_under_another_key_is_not_added() {
    let (mut world, matter) = office();
    let cyn = identity(&world, CYN);
    let honest = participant(&world, CYN);
    let other_key = Participant { person_key: participant(&world, DAN).person_key, ..honest };
    for (listed, why) in [(Some(other_key), "not certified by the listed"), (None, "not listed")] {
        let told = bundle(&mut world, BOB, matter, vec![cyn.clone()]);
        let commit = adds(&mut world, matter, Some(hash(&told)), listed, None);
        post(&mut world, BOB, matter, vec![told, commit]);
        let reason = void(&world, matter, BOB, &OTHERS);
        assert!(reason.contains(why), "{reason}");
    }
    goes_on(&mut world, matter, &ALL);
}

/// A person of the matter stays under the key that is listed, also where an attorney changes the list.
#[test]
fn a_member_who_is_taken_off_the_list_and_left_inside_makes_a_commit_void() {
    let (mut world, matter) = office();
    let context = without(&mut world, matter, DAN);
    strike(&mut world, BOB, matter, &Wild { context: Some(context), ..Wild::default() });
    assert!(void(&world, matter, BOB, &OTHERS).contains("a member is not listed"));
    goes_on(&mut world, matter, &ALL);
}
