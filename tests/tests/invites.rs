//! Invites that are not to be used: refused, and in the relay's audit log.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::process::Command;

use privity_protocol::ids::{InviteId, Timestamp};
use privity_protocol::invite::Invite;
use privity_server::store::sqlite::Sqlite;
use privity_server::store::{InviteRow, Read as _, Store as _, Write};
use privity_tests::{Firm, KDF_MEMORY, Person, Ran, Relay, binaries};
use serde_json::Value;

/// What the relay's audit log says, the oldest first.
fn tail(relay: &Relay) -> Vec<Value> {
    let data = relay.folder().to_str().unwrap();
    let mut command = Command::new(binaries().unwrap().join("privity-relay"));
    let told = command.args(["audit", "tail", "--last", "999", "--json", "--data", data]).output().unwrap();
    String::from_utf8(told.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn join(firm: &Firm, handle: &str, url: &str) -> (Person, Ran) {
    let person = Person::new(firm.folder(), handle).unwrap();
    let ran = person.run(&["join", url, "--handle", handle, "--name", handle, "--kdf-memory", KDF_MEMORY]).unwrap();
    (person, ran)
}

fn invite(firm: &Firm) -> (String, String) {
    let told = firm.attorney.ok(&["invite", "new"]).unwrap().remove(0);
    (told["invite"].as_str().unwrap().to_owned(), told["url"].as_str().unwrap().to_owned())
}

/// Its time is over, as if 72 hours had passed.
fn run_out(firm: &mut Firm, invite: &str) {
    firm.relay.stop().unwrap();
    let mut store = Sqlite::open(firm.relay.folder()).unwrap();
    let row = store.invite(invite.parse::<InviteId>().unwrap()).unwrap().unwrap();
    store.begin().unwrap();
    store.apply(&[Write::Invite(Box::new(InviteRow { expires: Timestamp(1), ..row }))]).unwrap();
    store.commit().unwrap();
    drop(store);
    firm.relay.run().unwrap();
}

#[test]
fn a_stolen_invite_an_expired_and_a_cancelled_one_are_refused_and_recorded() {
    let mut firm = Firm::found().unwrap();
    let [used, expired, cancelled] = [(); 3].map(|()| invite(&firm));
    assert_eq!(join(&firm, "bob", &used.1).1.code, Some(0));
    firm.attorney.ok(&["invite", "cancel", &cancelled.0]).unwrap();
    run_out(&mut firm, &expired.0);
    for (number, (invite, why)) in
        [(&used, "used already"), (&expired, "expired"), (&cancelled, "cancelled")].iter().enumerate()
    {
        let (thief, refused) = join(&firm, &format!("thief{number}"), &invite.1);
        assert_eq!(refused.code, Some(5), "{why}: {refused:?}");
        assert!(refused.stderr.contains("that invite can't be used") && refused.stderr.contains(why), "{refused:?}");
        assert!(!thief.home.join("vault.db").exists(), "{why}");
    }
    let log = tail(&firm.relay);
    let acts = |name: &str| -> Vec<&Value> { log.iter().filter(|leaf| leaf["act"] == name).collect() };
    let ada = firm.attorney.ok(&["status"]).unwrap()[0]["person"].clone();
    let refused = acts("invite-refused");
    for ((id, _), why) in [(&used, "used already"), (&expired, "expired"), (&cancelled, "cancelled")] {
        let leaf = refused.iter().find(|leaf| leaf["invite"] == id.as_str()).unwrap();
        assert!(leaf["why"].as_str().unwrap().contains(why) && leaf["person"] == ada, "{leaf}");
    }
    assert_eq!((acts("invite-used").len(), acts("invite-cancelled")[0]["invite"] == cancelled.0.as_str()), (2, true));
    assert!(acts("invite-expired").iter().any(|leaf| leaf["invite"] == expired.0.as_str()), "{log:?}");
    // Whoever came with it in time is as good as before, and the inviter sees what became of each.
    let listed = firm.attorney.ok(&["invite", "ls"]).unwrap();
    let mut states: Vec<&str> = listed.iter().map(|row| row["state"].as_str().unwrap()).collect();
    states.sort_unstable();
    assert_eq!(states, ["cancelled", "expired", "used"]);
}

/// An invite names its relay by the key: another one learns nothing of it, and so has nothing to record.
#[test]
fn an_invite_for_another_relay_is_refused_before_anything_is_said() {
    let (here, there) = (Firm::found().unwrap(), Firm::found().unwrap());
    let (_, url) = invite(&here);
    let mut invite: Invite = url.parse().unwrap();
    invite.address = there.relay.address.clone();
    let before = tail(&there.relay);
    let (bob, refused) = join(&here, "bob", &invite.url());
    assert_eq!(refused.code, Some(4), "{refused:?}");
    assert!(refused.stderr.contains("the relay's key is not the one in your invite"), "{refused:?}");
    assert!(!bob.home.join("vault.db").exists());
    assert_eq!(tail(&there.relay), before);
    // One whose relay was swapped in the URL by hand is none of that relay's.
    let other: Invite = there.relay.invite.parse().unwrap();
    invite.relay = other.relay;
    let (bob, refused) = join(&here, "bobby", &invite.url());
    assert_eq!(refused.code, Some(5), "{refused:?}");
    assert!(!bob.home.join("vault.db").exists());
    assert_eq!(tail(&there.relay), before, "nobody here made it: there is nobody to tell");
}
