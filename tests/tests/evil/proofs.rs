//! What a user who was deceived has in hand: a proof that convinces somebody else, or says plainly that it does not.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use privity_protocol::ids::InviteId;
use privity_protocol::log::Act;
use privity_tests::evil::{Evil, Fork};
use privity_tests::{Firm, Person, Ran, binaries};
use serde_json::Value;

use super::super::{office, told};

fn made_up() -> Act {
    Act::InviteExpired { invite: InviteId::new([9; 16]) }
}

fn proof(firm: &Firm<Evil>, who: &Person) -> PathBuf {
    let out = firm.folder().join(format!("proof-of-{}", who.handle));
    let ran = who.run(&["--json", "audit", "proof", "--out", out.to_str().unwrap()]).unwrap();
    assert_eq!(ran.code, Some(0), "{ran:?}");
    out
}

/// As somebody does who has no profile, and no network.
fn verify(arguments: &[&str]) -> Ran {
    let mut command = Command::new(binaries().unwrap().join("privity"));
    command.args(["--home", "/nowhere", "audit", "verify"]).args(arguments).output().unwrap().into()
}

fn object(ran: &Ran) -> Value {
    serde_json::from_str(&ran.stdout).unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn a_rolled_back_log_convicts_the_relay_before_somebody_who_trusts_neither() {
    let (firm, bob, _dan) = office();
    let size = firm.relay.inside().log_size().unwrap();
    firm.relay.inside().forks.insert("bob".to_owned(), Fork::rolled_back(size - 1).and(None, made_up()));
    assert_eq!(bob.run(&["recv"]).unwrap().code, Some(4));
    let out = proof(&firm, &bob);
    let readme = fs::read_to_string(out.join("README.txt")).unwrap();
    for part in ["the relay's audit log has changed", "Written by a device of bob", "privity audit verify --proof"] {
        assert!(readme.contains(part), "{part}: {readme}");
    }
    let shown = verify(&["--proof", text(&out)]);
    told(&shown, 0, &["nothing in it was changed", "PROVED", "two histories", "log/1/known and log/1/shown"]);
    let said = object(&verify(&["--proof", text(&out), "--json"]));
    let found = &said["contradictions"].as_array().unwrap()[0];
    assert_eq!((&found["how"], &found["size"]), (&"other_root".into(), &size.into()), "{said}");
    assert_eq!(said["handle"], "bob");

    // No byte can be changed, and nothing left out.
    for name in ["statement", "device", "README.txt", "log/1/known", "log/1/shown", "log/1/keys"] {
        let good = fs::read(out.join(name)).unwrap();
        let mut bad = good.clone();
        let middle = bad.len() / 2;
        bad[middle] ^= 1;
        fs::write(out.join(name), bad).unwrap();
        let refused = verify(&["--proof", text(&out), "--json"]);
        assert_eq!(refused.code, Some(8), "{name}: {refused:?}");
        let said = object(&refused);
        assert!(said["verified"] == false && (said["file"] == name || name == "statement"), "{name}: {said}");
        fs::write(out.join(name), good).unwrap();
    }
    fs::remove_file(out.join("log/1/shown")).unwrap();
    told(&verify(&["--proof", text(&out)]), 8, &["log/1/shown: the file is missing"]);
    let again = bob.run(&["audit", "proof", "--out", text(&out)]).unwrap();
    told(&again, 1, &["is there already"]);

    // Nothing of the matter is in it, nor anybody's name.
    for file in ["statement", "device", "README.txt", "log/1/known"] {
        let bytes = fs::read(out.join(file)).unwrap();
        for secret in ["Lease", "Bob Jones", "Ada Byron", "Dan Doe"] {
            assert!(!bytes.windows(secret.len()).any(|part| part == secret.as_bytes()), "{secret} in {file}");
        }
    }
}

/// Two people were shown two logs: each has notes that are in order, and both together are proof.
#[test]
fn the_notes_of_two_people_prove_together_what_neither_proves_alone() {
    let (firm, bob, dan) = office();
    let size = firm.relay.inside().log_size().unwrap();
    // The same size as everybody's, with another last entry.
    firm.attorney.ok(&["invite", "new"]).unwrap();
    let fork = Fork { from: size, ..Fork::default() }.and(None, made_up()).then_goes_on(1);
    firm.relay.inside().forks.insert("dan".to_owned(), fork);
    for who in [&bob, &dan, &firm.attorney] {
        who.ok(&["recv"]).unwrap();
    }
    firm.attorney.ok(&["send", "Lease", "one"]).unwrap();
    told(&dan.run(&["recv"]).unwrap(), 4, &["audit log"]);
    let (dans, bobs) = (proof(&firm, &dan), proof(&firm, &bob));
    let alone = verify(&["--proof", text(&dans)]);
    told(&alone, 0, &["Proved by the relay's own signatures: nothing", "On the signed word of dan alone"]);
    told(&verify(&["--proof", text(&bobs)]), 0, &["Proved by the relay's own signatures: nothing"]);
    let together = verify(&["--proof", text(&dans), "--against", text(&bobs.join("log/0/known"))]);
    told(&together, 0, &["PROVED", "two histories"]);
    let other = verify(&["--proof", text(&dans), "--against", text(&bobs.join("README.txt"))]);
    assert_eq!(other.code, Some(8), "{other:?}");
}

#[test]
fn whoever_found_nothing_can_still_write_down_what_they_know() {
    let firm = Firm::under().unwrap();
    let out = proof(&firm, &firm.attorney);
    let said = object(&verify(&["--proof", text(&out), "--json"]));
    assert_eq!((said["claims"].as_array().unwrap().len(), said["notes"].as_array().unwrap().len()), (0, 1), "{said}");
    let shown = firm.attorney.run(&["security", "show"]).unwrap();
    told(&shown, 0, &["in order as far as seen"]);
    assert!(!shown.stdout.contains("FOUND"), "{shown:?}");
    let both = verify(&[]);
    assert_eq!(both.code, Some(1), "{both:?}");
}
