//! Newcomers whose inviter is away, let in by somebody else of the firm after comparing digits.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::process::Command;

use privity_tests::{Firm, KDF_MEMORY, Person, Typed, binaries};
use serde_json::Value;

/// Somebody who waits for whoever invited them.
fn waiting(firm: &Firm, inviter: &Person, handle: &str, role: &str) -> Person {
    let made = inviter.ok(&["invite", "new", "--role", role]).unwrap();
    let person = Person::new(firm.folder(), handle).unwrap();
    let url = made[0]["url"].as_str().unwrap();
    let arguments = ["join", url, "--handle", handle, "--name", "As they say", "--kdf-memory", KDF_MEMORY];
    assert_eq!(person.ok(&arguments).unwrap()[0]["state"], "waiting");
    person
}

fn number(person: &Person) -> String {
    person.ok(&["status"]).unwrap()[0]["firm_number"].as_str().unwrap().to_owned()
}

fn state(person: &Person) -> Value {
    person.ok(&["status"]).unwrap()[0]["state"].clone()
}

#[test]
fn a_client_is_let_in_by_another_attorney_while_the_inviter_is_away() {
    let firm = Firm::found().unwrap();
    let [bob, cyn] =
        [("bob", "Bob"), ("cyn", "Cyn")].map(|(handle, name)| firm.bring(handle, name, "attorney").unwrap());
    let staff = firm.bring("stu", "Stu", "staff").unwrap();
    let client = firm.bring("cli", "Cli", "client").unwrap();
    let (zoe, yan) = (waiting(&firm, &bob, "zoe", "client"), waiting(&firm, &firm.attorney, "yan", "attorney"));
    let digits = number(&zoe);
    assert_eq!(zoe.ok(&["identity", "show"]).unwrap()[0]["firm_number"], digits.as_str());
    let adopt = |by: &Person, handle: &str, digits: &str| {
        by.run(&["--json", "identity", "adopt", handle, "--number", digits, "--name", "Zoe Doe"]).unwrap()
    };
    for by in [&staff, &client] {
        assert_eq!(adopt(by, "zoe", &digits).code, Some(5), "{}", by.handle);
    }
    let refused = adopt(&cyn, "yan", &number(&yan));
    assert!(refused.code == Some(5) && refused.stderr.contains("a registrar may"), "{refused:?}");
    let misread = format!("{}0", &digits[..digits.len() - 1]);
    let misread = if misread == digits { format!("{}1", &digits[..digits.len() - 1]) } else { misread };
    let wrong = adopt(&cyn, "zoe", &misread);
    assert!(wrong.code == Some(4) && wrong.stderr.contains("Nothing was done"), "{wrong:?}");
    assert_eq!(state(&zoe), "waiting");
    // Without a terminal nobody can compare.
    assert_eq!(cyn.run(&["identity", "adopt", "zoe"]).unwrap().code, Some(1));

    let adopted = adopt(&cyn, "zoe", &digits);
    assert_eq!(adopted.code, Some(0), "{adopted:?}");
    let told = &adopted.objects().unwrap()[0];
    assert_eq!(
        (&told["adopted"], &told["name"], &told["vouched_by"][0]["handle"]),
        (&true.into(), &"Zoe Doe".into(), &"cyn".into())
    );
    assert_eq!(state(&zoe), "ready");
    assert!(zoe.ok(&["status"]).unwrap()[0]["firm_number"].is_null());
    assert_eq!(adopt(&cyn, "zoe", &digits).code, Some(5), "once is enough");
    // Others see it, the inviter too when he is back, and nobody is warned of anything.
    cyn.ok(&["matter", "new", "Lease"]).unwrap();
    cyn.ok(&["matter", "add", "Lease", "zoe", "bob"]).unwrap();
    zoe.ok(&["recv"]).unwrap();
    zoe.ok(&["send", "Lease", "hello"]).unwrap();
    let back = bob.run(&["--json", "recv"]).unwrap();
    assert!(back.code == Some(0) && !back.stderr.to_lowercase().contains("warning"), "{back:?}");
    for (who, adopted) in [("zoe", true), ("cyn", false)] {
        assert_eq!(bob.ok(&["identity", "show", who]).unwrap()[0]["adopted"], adopted, "{who}");
    }
    let shown = bob.run(&["identity", "show", "zoe"]).unwrap();
    assert!(
        shown.stdout.contains("vouched for by Cyn (cyn")
            && shown.stdout.contains("who let them in for whoever had invited them"),
        "{shown:?}"
    );
    assert!(shown.stdout.contains("Zoe Doe (zoe), client"), "{shown:?}");
}

#[test]
fn the_log_says_that_it_was_an_adoption_and_both_verifiers_agree_with_it() {
    let firm = Firm::found().unwrap();
    let bob = firm.bring("bob", "Bob", "attorney").unwrap();
    let zoe = waiting(&firm, &bob, "zoe", "client");
    let digits = number(&zoe);
    firm.attorney.ok(&["identity", "adopt", "zoe", "--number", &digits, "--name", "Zoe"]).unwrap();
    let relay = binaries().unwrap().join("privity-relay");
    let data = firm.relay.folder().to_str().unwrap();
    let tail = Command::new(&relay).args(["audit", "tail", "--json", "--data", data]).output().unwrap();
    let ada = firm.attorney.ok(&["status"]).unwrap()[0]["person"].clone();
    let acts: Vec<Value> =
        String::from_utf8_lossy(&tail.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let adopted: Vec<&Value> = acts.iter().filter(|act| act["act"] == "adopted").collect();
    assert_eq!(adopted.len(), 1, "{acts:?}");
    assert!(adopted[0].to_string().contains(ada.as_str().unwrap()), "{adopted:?}");
    let bundle = firm.folder().join("bundle");
    let bundle = bundle.to_str().unwrap();
    let exported = Command::new(&relay).args(["audit", "export", "--data", data, "--out", bundle]).output().unwrap();
    assert!(exported.status.success(), "{exported:?}");
    assert_eq!(zoe.ok(&["audit", "verify", "--bundle", bundle]).unwrap()[0]["verified"], true);
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/verify_audit.py");
    let import = "from cryptography.hazmat.primitives.asymmetric import mldsa";
    if Command::new("python3").args(["-c", import]).output().is_ok_and(|ran| ran.status.success()) {
        let said = Command::new("python3").args([script, bundle]).output().unwrap();
        assert!(String::from_utf8_lossy(&said.stdout).starts_with("ok"), "{said:?}");
    }
    // Who is let in so is proved from the log like everybody: others add them.
    bob.ok(&["matter", "new", "Lease"]).unwrap();
    // What they are called, only the one who took them in has been told: it comes here once she is in the matter, too.
    let shown = bob.run(&["identity", "show", "zoe"]).unwrap().stdout;
    assert!(shown.contains("not known here yet"), "{shown}");
    let confirmed = bob.run(&["identity", "confirm", "zoe"]).unwrap();
    assert!(confirmed.code == Some(0) && confirmed.stdout.contains("confirmed already, by ada"), "{confirmed:?}");
    assert_eq!(bob.ok(&["matter", "add", "Lease", "zoe"]).unwrap()[0]["state"], "done");
    bob.ok(&["matter", "add", "Lease", "ada"]).unwrap();
    firm.attorney.ok(&["recv"]).unwrap();
    bob.ok(&["recv"]).unwrap();
    let shown = bob.run(&["identity", "show", "zoe"]).unwrap().stdout;
    assert!(shown.starts_with("Zoe (zoe), client") && !shown.contains("not known"), "{shown}");
}

#[test]
fn at_a_terminal_the_digits_of_both_screens_are_compared() {
    let firm = Firm::found().unwrap();
    let bob = firm.bring("bob", "Bob", "attorney").unwrap();
    let zoe = waiting(&firm, &bob, "zoe", "client");
    let shown = zoe.run(&["status"]).unwrap().stdout;
    assert!(shown.contains("any attorney"), "{shown}");
    let groups: Vec<String> = number(&zoe).split(' ').map(str::to_owned).collect();
    assert!(groups.iter().all(|group| shown.contains(group.as_str())), "{shown}");
    let ada = &firm.attorney;
    let (home, passphrase) = (ada.home.to_str().unwrap(), ada.passphrase.to_str().unwrap());
    for (answer, code) in [("n\n", Some(4)), ("y\n", Some(0))] {
        let arguments = ["--home", home, "--passphrase-file", passphrase, "identity", "adopt", "zoe"];
        let Some(mut typed) = Typed::start(&arguments).unwrap() else { return };
        let mut at = typed.at("has invited zoe as a client. Is that who they are?", 0, "y\n").unwrap();
        for group in &groups {
            at = typed.shows(group, at).unwrap();
        }
        at = typed.at("Do all 60 digits match?", at, answer).unwrap();
        if code == Some(0) {
            at = typed.at("Their name", at, "\n").unwrap();
            typed.at("Their name", at, "Zoe Doe\n").unwrap();
        }
        let (ended, screen) = typed.end().unwrap();
        assert_eq!(ended, code, "{screen}");
        assert_eq!(state(&zoe) == "ready", code == Some(0));
    }
}
