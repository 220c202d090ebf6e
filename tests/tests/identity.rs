//! Who somebody is, on the real binaries: shown, compared, accepted; invites listed and cancelled; names confirmed.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use privity_tests::{Firm, KDF_MEMORY, Person, Typed};
use serde_json::Value;

fn one(told: Vec<Value>) -> Value {
    assert_eq!(told.len(), 1, "{told:?}");
    told.into_iter().next().unwrap()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}")).to_owned()
}

#[test]
fn two_people_see_one_safety_number_and_compare_it() {
    let firm = Firm::found().unwrap();
    let (ada, bob) = (&firm.attorney, firm.bring("bob", "Bob Jones", "client").unwrap());
    let (hers, his) =
        (one(ada.ok(&["identity", "show", "bob"]).unwrap()), one(bob.ok(&["identity", "show", "@ada"]).unwrap()));
    let number = text(&hers["safety_number"]);
    assert_eq!(text(&his["safety_number"]), number);
    assert_eq!((number.len(), &hers["verified"]), (71, &Value::Null));
    assert_eq!(
        (text(&hers["handle"]), text(&hers["name"]), text(&hers["role"])),
        ("bob".into(), "Bob Jones".into(), "client".into())
    );
    assert_eq!(hers["devices"].as_array().unwrap().len(), 1);
    assert_eq!(text(&hers["vouched_by"][0]["handle"]), "ada");
    assert!(hers["until"].as_u64() > hers["since"].as_u64());

    // Wrong digits are another number, fewer are none.
    let other = number.replace(&number[..5], if number.starts_with("00000") { "11111" } else { "00000" });
    let wrong = ada.run(&["identity", "verify", "bob", "--number", &other]).unwrap();
    assert_eq!(wrong.code, Some(4), "{wrong:?}");
    assert!(wrong.stderr.contains("not the safety number with Bob Jones"), "{wrong:?}");
    let short = ada.run(&["identity", "verify", "bob", "--number", "12345"]).unwrap();
    assert_eq!((short.code, short.stderr.contains("60 digits")), (Some(1), true), "{short:?}");
    let unasked = ada.run(&["identity", "verify", "bob"]).unwrap();
    assert_eq!((unasked.code, unasked.stderr.contains("--number")), (Some(1), true), "{unasked:?}");
    assert_eq!(one(ada.ok(&["identity", "show", "bob"]).unwrap())["verified"], Value::Null);

    // A scanned code has no spaces.
    let scanned = number.replace(' ', "");
    let verified = one(ada.ok(&["identity", "verify", "bob", "--number", &scanned]).unwrap());
    assert!(verified["verified"].is_u64(), "{verified}");
    let shown = ada.run(&["identity", "show", "bob", "--qr"]).unwrap();
    assert!(shown.stdout.contains("verified       yes") && shown.stdout.contains('█'), "{shown:?}");
    let nothing = ada.run(&["identity", "trust", "bob"]).unwrap();
    assert_eq!((nothing.code, nothing.stdout.contains("nothing to accept")), (Some(0), true), "{nothing:?}");
    let nobody = ada.run(&["identity", "show", "nobody"]).unwrap();
    assert_eq!(nobody.code, Some(1), "{nobody:?}");
}

#[test]
fn oneself_is_shown_with_the_firms_key_and_what_is_known_also_offline() {
    let mut firm = Firm::found().unwrap();
    let bob = firm.bring("bob", "Bob Jones", "client").unwrap();
    let ada = firm.attorney.clone();
    let own = one(ada.ok(&["identity", "show"]).unwrap());
    let key = text(&one(ada.ok(&["status"]).unwrap())["organisation"]);
    assert_eq!(
        (text(&own["organisation"]), text(&own["handle"]), text(&own["state"])),
        (key.clone(), "ada".into(), "ready".into())
    );
    let shown = bob.run(&["identity", "show"]).unwrap().stdout;
    assert!(
        shown.contains(&key) && shown.contains("vouched for by Ada Byron") | shown.contains("vouched for by ada"),
        "{shown}"
    );
    assert!(shown.contains("by the firm's key"), "{shown}");
    firm.relay.stop().unwrap();
    let offline = ada.run(&["identity", "show", "bob", "--timeout", "1"]).unwrap();
    assert_eq!(offline.code, Some(0), "{offline:?}");
    assert!(offline.stdout.contains("safety number") && offline.stderr.contains("offline"), "{offline:?}");
}

#[test]
fn verifying_at_a_terminal_shows_the_digits_and_asks() {
    let firm = Firm::found().unwrap();
    firm.bring("bob", "Bob Jones", "client").unwrap();
    let ada = &firm.attorney;
    let number = text(&one(ada.ok(&["identity", "show", "bob"]).unwrap())["safety_number"]);
    let (home, passphrase) = (ada.home.to_str().unwrap(), ada.passphrase.to_str().unwrap());
    for (answer, code, part) in [("n\n", 4, "somebody stands between"), ("yes\n", 0, "is verified")] {
        let arguments = ["--home", home, "--passphrase-file", passphrase, "identity", "verify", "bob", "--qr"];
        let Some(mut typed) = Typed::start(&arguments).unwrap() else { return };
        let at = typed.shows(&number[..23], 0).unwrap();
        typed.at("match? (yes/no) ", at, answer).unwrap();
        let (ended, screen) = typed.end().unwrap();
        assert_eq!(ended, Some(code), "{screen}");
        assert!(screen.replace("\r\n", " ").contains(part) && screen.contains('█'), "{screen}");
    }
    assert!(one(ada.ok(&["identity", "show", "bob"]).unwrap())["verified"].is_u64());
}

#[test]
fn invites_are_listed_with_what_became_of_them_and_cancelled_ones_are_refused() {
    let firm = Firm::found().unwrap();
    let ada = &firm.attorney;
    let make = |arguments: &[&str]| one(ada.ok(&[&["invite", "new"], arguments].concat()).unwrap());
    let used = make(&["--handle", "bob", "--name", "Bob Jones"]);
    let cancelled = make(&["--expires", "2h"]);
    let open = make(&["--role", "staff"]);
    let ends = |told: &Value| told["expires"].as_u64().unwrap() / 3_600_000;
    assert!((69..=70).contains(&(ends(&open) - ends(&cancelled))), "two hours, not 72");
    for wrong in ["0s", "73h", "soon"] {
        assert_eq!(ada.run(&["invite", "new", "--expires", wrong]).unwrap().code, Some(1), "{wrong}");
    }

    let bob = Person::new(firm.folder(), "bob").unwrap();
    bob.join(used["url"].as_str().unwrap(), "Bob Jones").unwrap();
    let id = text(&cancelled["invite"]);
    assert_eq!(text(&one(ada.ok(&["invite", "cancel", &id[..8]]).unwrap())["state"]), "cancelled");
    let listed = ada.ok(&["invite", "ls"]).unwrap();
    let state = |invite: &Value| listed.iter().find(|row| row["invite"] == invite["invite"]).unwrap().clone();
    assert_eq!(listed.len(), 3, "{listed:?}");
    assert_eq!((text(&state(&used)["state"]), text(&state(&used)["used_by"])), ("used".into(), "bob".into()));
    assert_eq!((text(&state(&cancelled)["state"]), text(&state(&open)["state"])), ("cancelled".into(), "open".into()));
    assert_eq!(text(&state(&open)["role"]), "staff");
    assert!(listed.iter().all(|row| row.get("url").is_none()), "the secret is shown once");

    let eve = Person::new(firm.folder(), "eve").unwrap();
    for (invite, part) in [(&cancelled, "cancelled"), (&used, "used already")] {
        let url = invite["url"].as_str().unwrap();
        let refused = eve.run(&["join", url, "--handle", "eve", "--name", "Eve", "--kdf-memory", KDF_MEMORY]).unwrap();
        assert_eq!((refused.code, refused.stderr.contains(part)), (Some(5), true), "{refused:?}");
        assert!(!eve.home.join("vault.db").exists());
    }
    let late = ada.run(&["invite", "cancel", used["invite"].as_str().unwrap()]).unwrap();
    assert_eq!((late.code, late.stderr.contains("bob has used it")), (Some(5), true), "{late:?}");
    assert_eq!(bob.ok(&["invite", "ls"]).unwrap().len(), 0);
    // The one that is open is as good as before.
    eve.join(open["url"].as_str().unwrap(), "Eve").unwrap();
}

#[test]
fn a_name_that_looks_like_another_is_pointed_out_and_one_is_self_stated_until_confirmed() {
    let firm = Firm::found().unwrap();
    let ada = &firm.attorney;
    let bob = firm.bring("bob", "Bob Jones", "client").unwrap();
    let url = text(&one(ada.ok(&["invite", "new"]).unwrap())["url"]);
    let eve = Person::new(firm.folder(), "b-jones").unwrap();
    // A Cyrillic letter, and a full-width one.
    eve.join(&url, "B\u{43e}b \u{ff2a}ones").unwrap();
    let told = ada.run(&["people"]).unwrap();
    assert!(told.stderr.contains("looks like that of Bob Jones (bob)"), "{told:?}");
    let row = |handle: &str| told.stdout.lines().find(|line| line.starts_with(handle)).unwrap().to_owned();
    assert!(row("b-jones").contains("looks like bob") && row("bob").contains("looks like b-jones"), "{told:?}");
    let shown = one(ada.ok(&["identity", "show", "b-jones"]).unwrap());
    assert_eq!((text(&shown["looks_like"][0]), &shown["self_stated"]), ("bob".into(), &Value::Bool(true)));

    // In a matter the two are told apart.
    firm.matter("Lease", &[&bob, &eve]).unwrap();
    for who in [&bob, &eve] {
        who.ok(&["recv"]).unwrap();
        who.ok(&["send", "Lease", "hello"]).unwrap();
    }
    let read = ada.run(&["recv"]).unwrap().stdout;
    assert!(read.contains("(bob, self-stated)") && read.contains("(b-jones, self-stated)"), "{read}");

    let refused = bob.run(&["identity", "confirm", "b-jones"]).unwrap();
    assert_eq!(refused.code, Some(5), "{refused:?}");
    let confirmed = one(ada.ok(&["identity", "confirm", "bob"]).unwrap());
    assert_eq!(confirmed["self_stated"], false, "{confirmed}");
    assert_eq!(one(bob.ok(&["identity", "show"]).unwrap())["self_stated"], false, "he is told");
    assert_eq!(one(eve.ok(&["identity", "show", "bob"]).unwrap())["self_stated"], false);
    assert_eq!(one(eve.ok(&["identity", "show"]).unwrap())["self_stated"], true);
    let again = ada.run(&["identity", "confirm", "bob"]).unwrap();
    assert_eq!((again.code, again.stdout.contains("already")), (Some(0), true), "{again:?}");
}
