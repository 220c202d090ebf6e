//! Several devices of one person, on the real binaries: linked, let into matters, revoked.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Child, Stdio};

use privity_tests::{Firm, KDF_MEMORY, Person, Ran, Typed};
use serde_json::Value;

/// `privity device link`, waiting for the new device.
struct Linking {
    child: Child,
    lines: BufReader<std::process::ChildStdout>,
    url: String,
}

impl Linking {
    fn start(person: &Person) -> Self {
        let mut command = person.command(&["--json", "device", "link", "--yes"]).unwrap();
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        lines.read_line(&mut line).unwrap();
        let told: Value = serde_json::from_str(&line).unwrap();
        let url = told["url"].as_str().unwrap().to_owned();
        Self { child, lines, url }
    }

    /// What it says in the end.
    fn end(mut self) -> Ran {
        let mut stdout = String::new();
        self.lines.read_to_string(&mut stdout).unwrap();
        let mut stderr = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
        Ran { code: self.child.wait().unwrap().code(), stdout, stderr }
    }

    fn cancel(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// A folder for one more device of somebody.
fn second(firm: &Firm, of: &Person, folder: &str) -> Person {
    let device = Person::new(firm.folder(), folder).unwrap();
    Person { handle: of.handle.clone(), ..device }
}

fn join(device: &Person, url: &str) -> Ran {
    device.run(&["--json", "join", url, "--kdf-memory", KDF_MEMORY]).unwrap()
}

/// One more device of somebody, linked and ready.
fn link(firm: &Firm, person: &Person, folder: &str) -> Person {
    let linking = Linking::start(person);
    let device = second(firm, person, folder);
    let joined = join(&device, &linking.url);
    assert_eq!(joined.code, Some(0), "{joined:?}");
    let told = &joined.objects().unwrap()[0];
    assert_eq!(told["handle"], person.handle.as_str(), "{told}");
    let linked = linking.end();
    assert_eq!(linked.code, Some(0), "{linked:?}");
    assert_eq!(linked.objects().unwrap()[0]["state"], "linked");
    device.ok(&["recv"]).unwrap();
    device
}

fn id_of(device: &Person) -> String {
    device.ok(&["status"]).unwrap()[0]["device"].as_str().unwrap().to_owned()
}

fn copied(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_file() {
            fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

#[test]
fn a_client_links_a_second_device_and_both_read_and_write_one_matter() {
    let firm = Firm::found().unwrap();
    let dan = firm.bring("dan", "Dan Doe", "client").unwrap();
    firm.matter("Lease", &[&dan]).unwrap();
    firm.attorney.ok(&["send", "Lease", "before"]).unwrap();
    dan.ok(&["recv"]).unwrap();
    let phone = link(&firm, &dan, "phone");
    assert_eq!(phone.ok(&["status"]).unwrap()[0]["name"], "Dan Doe");
    phone.ok(&["send", "Lease", "from the phone"]).unwrap();
    dan.ok(&["recv"]).unwrap();
    dan.ok(&["send", "Lease", "from the laptop"]).unwrap();
    firm.attorney.ok(&["recv"]).unwrap();
    firm.attorney.ok(&["send", "Lease", "to both"]).unwrap();
    for device in [&dan, &phone, &firm.attorney] {
        device.ok(&["recv"]).unwrap();
    }
    let words = |device: &Person| -> Vec<String> {
        device.texts("Lease").unwrap().into_iter().map(|(from, text)| format!("{from}: {text}")).collect()
    };
    let since = ["dan: from the phone", "dan: from the laptop", "ada: to both"];
    // What was said before the phone came is not there.
    assert_eq!(words(&phone), since);
    for device in [&dan, &firm.attorney] {
        assert_eq!(words(device)[0], "ada: before");
        assert_eq!(words(device)[1..], since);
    }
    let records = firm.attorney.ok(&["read", "Lease"]).unwrap();
    assert!(records.iter().any(|record| record["type"] == "device_added"), "{records:?}");
    // A matter that comes later has both from the start.
    firm.matter("Sale", &[&dan]).unwrap();
    firm.attorney.ok(&["send", "Sale", "hello"]).unwrap();
    phone.ok(&["recv"]).unwrap();
    assert_eq!(phone.texts("Sale").unwrap().len(), 1);
    let listed = dan.ok(&["device", "ls"]).unwrap();
    assert_eq!(listed.len(), 2, "{listed:?}");
    assert_eq!((&listed[0]["this"], &listed[0]["person_key"]), (&true.into(), &true.into()), "{listed:?}");
    assert_eq!((&listed[1]["this"], &listed[1]["person_key"]), (&false.into(), &false.into()), "{listed:?}");
    let refused = phone.run(&["device", "link", "--yes"]).unwrap();
    assert_eq!(refused.code, Some(5), "{refused:?}");
    assert!(refused.stderr.contains("does not hold your person key"), "{refused:?}");
}

#[test]
fn the_fingerprint_on_both_screens_is_the_same_and_a_no_links_nothing() {
    let firm = Firm::found().unwrap();
    let ada = firm.attorney.clone();
    let (home, passphrase) = (ada.home.to_str().unwrap(), ada.passphrase.to_str().unwrap());
    let arguments = ["--home", home, "--passphrase-file", passphrase, "device", "link"];
    for (answer, linked) in [("no\n", false), ("yes\n", true)] {
        let Some(mut typed) = Typed::start(&arguments).unwrap() else { return };
        let at = typed.shows("Waiting for it", 0).unwrap();
        let screen = typed.screen();
        let url = screen.split_whitespace().find(|word| word.starts_with("privity://")).unwrap().to_owned();
        let tablet = second(&firm, &ada, &format!("tablet-{linked}"));
        let joined = join(&tablet, &url);
        assert_eq!(joined.code, Some(0), "{joined:?}");
        let fingerprint = joined.objects().unwrap()[0]["fingerprint"].as_str().unwrap().to_owned();
        let at = typed.shows(&fingerprint, at).unwrap();
        typed.at("(yes/no)", at, answer).unwrap();
        let (code, screen) = typed.end().unwrap();
        assert_eq!(code == Some(0), linked, "{screen}");
        let ran = tablet.run(&["--json", "status"]).unwrap();
        match linked {
            true => assert_eq!(ran.objects().unwrap()[0]["state"], "ready", "{ran:?}"),
            false => assert_eq!(ran.code, Some(5), "{ran:?}"),
        }
    }
}

#[test]
fn an_invite_for_a_device_is_good_once_for_its_own_person_and_nothing_else() {
    let firm = Firm::found().unwrap();
    let dan = firm.bring("dan", "Dan Doe", "client").unwrap();
    let linking = Linking::start(&dan);
    let named = second(&firm, &dan, "named");
    let refused = named.run(&["join", &linking.url, "--handle", "dan2", "--kdf-memory", KDF_MEMORY]).unwrap();
    assert_eq!(refused.code, Some(1), "{refused:?}");
    let phone = second(&firm, &dan, "phone");
    assert_eq!(join(&phone, &linking.url).code, Some(0));
    let again = second(&firm, &dan, "again");
    let used = join(&again, &linking.url);
    assert_eq!(used.code, Some(5), "{used:?}");
    assert!(used.stderr.contains("used already"), "{used:?}");
    assert!(!again.home.join("vault.db").exists());
    let linked = linking.end();
    assert_eq!(linked.code, Some(0), "{linked:?}");
    // Nobody joined with this one, and the command was ended: it is void once its time is up, and links nobody by itself meanwhile.
    let left = Linking::start(&dan);
    let (url, tablet) = (left.url.clone(), second(&firm, &dan, "tablet"));
    left.cancel();
    assert_eq!(join(&tablet, &url).code, Some(0));
    dan.ok(&["recv"]).unwrap();
    assert_eq!(tablet.ok(&["status"]).unwrap()[0]["state"], "waiting");
    assert_eq!(tablet.run(&["people"]).unwrap().code, Some(7));
    // Whoever is asked again goes on with the device that waits.
    let told = dan.ok(&["device", "link", "--yes"]).unwrap();
    assert_eq!(told[0]["state"], "linked", "{told:?}");
    assert_eq!(tablet.ok(&["status"]).unwrap()[0]["state"], "ready");
}

#[test]
fn whichever_device_of_the_inviter_is_online_first_lets_the_newcomer_in() {
    let firm = Firm::found().unwrap();
    let before = firm.attorney.ok(&["invite", "new", "--handle", "eve", "--name", "Eve Doe"]).unwrap();
    let phone = link(&firm, &firm.attorney, "phone");
    let made = firm.attorney.ok(&["invite", "new", "--handle", "dan", "--name", "Dan Doe"]).unwrap();
    let cancelled = firm.attorney.ok(&["invite", "new"]).unwrap();
    // From here on the first device is off.
    let newcomer = |told: &[Value], handle: &str| {
        let person = Person::new(firm.folder(), handle).unwrap();
        let url = told[0]["url"].as_str().unwrap();
        let joined = person.run(&["--json", "join", url, "--kdf-memory", KDF_MEMORY]).unwrap();
        assert_eq!(joined.objects().unwrap()[0]["state"], "waiting", "{joined:?}");
        person
    };
    let (dan, eve) = (newcomer(&made, "dan"), newcomer(&before, "eve"));
    let listed = phone.ok(&["invite", "ls"]).unwrap();
    assert_eq!(listed.len(), 3, "{listed:?}");
    phone.ok(&["recv"]).unwrap();
    for person in [&dan, &eve] {
        assert_eq!(person.ok(&["status"]).unwrap()[0]["state"], "ready");
    }
    let id = cancelled[0]["invite"].as_str().unwrap();
    phone.ok(&["invite", "cancel", id]).unwrap();
    // The first device is back: it knows them by name, and nothing is left to do or to warn of.
    let back = firm.attorney.run(&["--json", "recv"]).unwrap();
    assert!(back.code == Some(0) && !back.stderr.to_lowercase().contains("warning"), "{back:?}");
    let people = firm.attorney.ok(&["people"]).unwrap();
    for name in ["Dan Doe", "Eve Doe"] {
        assert!(people.iter().any(|person| person["name"] == name && person["state"] == "ready"), "{people:?}");
    }
    firm.matter("Lease", &[&dan, &eve]).unwrap();
    dan.ok(&["recv"]).unwrap();
    dan.ok(&["send", "Lease", "hello"]).unwrap();
    phone.ok(&["recv"]).unwrap();
    assert_eq!(phone.texts("Lease").unwrap(), [("dan".to_owned(), "hello".to_owned())]);
}

#[test]
fn a_device_is_called_the_same_on_all_devices_and_the_relay_never_learns_it() {
    let firm = Firm::found().unwrap();
    let phone = link(&firm, &firm.attorney, "phone");
    let id = id_of(&phone);
    firm.attorney.ok(&["device", "rename", &id[..8], "Blackberry of the partner"]).unwrap();
    phone.ok(&["recv"]).unwrap();
    let own = id_of(&firm.attorney);
    phone.ok(&["device", "rename", &own, "the old laptop"]).unwrap();
    firm.attorney.ok(&["recv"]).unwrap();
    for device in [&phone, &firm.attorney] {
        let listed = device.ok(&["device", "ls"]).unwrap();
        let names: Vec<&Value> = listed.iter().map(|device| &device["name"]).collect();
        assert_eq!(names, ["the old laptop", "Blackberry of the partner"], "{listed:?}");
    }
    let told = firm.attorney.ok(&["device", "revoke", "blackberry of the partner", "--yes"]).unwrap();
    assert_eq!(told[0]["device"], id.as_str());
    let mut bytes = 0;
    for entry in fs::read_dir(firm.relay.folder()).unwrap().map(Result::unwrap) {
        let stored = fs::read(entry.path()).unwrap_or_default();
        bytes += stored.len();
        let holds = |name: &str| stored.windows(name.len()).any(|window| window == name.as_bytes());
        assert!(!holds("Blackberry of the partner") && !holds("the old laptop"), "{entry:?}");
    }
    assert!(bytes > 100_000, "{bytes}");
}

#[test]
fn a_stolen_device_with_all_its_keys_reads_and_posts_nothing_later_also_from_a_copy() {
    let firm = Firm::found().unwrap();
    let dan = firm.bring("dan", "Dan Doe", "client").unwrap();
    firm.matter("Lease", &[&dan]).unwrap();
    let phone = link(&firm, &dan, "phone");
    phone.ok(&["send", "Lease", "still mine"]).unwrap();
    dan.ok(&["recv"]).unwrap();
    let copy = Person { home: firm.folder().join("copy"), ..phone.clone() };
    copied(&phone.home, &copy.home);
    let id = id_of(&phone);
    // The thief listens while it happens.
    let mut listens = phone.command(&["recv", "--follow"]).unwrap();
    let mut listens = listens.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut heard = String::new();
    BufReader::new(listens.stdout.as_mut().unwrap()).read_line(&mut heard).unwrap();
    assert!(heard.contains("still mine"), "{heard}");
    let unasked = dan.run(&["device", "revoke", &id]).unwrap();
    assert!(unasked.code == Some(1) && unasked.stderr.contains("--yes is missing; nothing was revoked"), "{unasked:?}");
    let told = dan.ok(&["device", "revoke", &id, "--yes"]).unwrap();
    assert_eq!(listens.wait().unwrap().code(), Some(5), "its link is ended");
    assert_eq!((&told[0]["state"], &told[0]["matters_left"]), (&"revoked".into(), &0.into()), "{told:?}");
    firm.attorney.ok(&["recv"]).unwrap();
    firm.attorney.ok(&["send", "Lease", "not for thieves"]).unwrap();
    for thief in [&phone, &copy] {
        let refused = thief.run(&["recv"]).unwrap();
        assert_eq!(refused.code, Some(5), "{refused:?}");
        assert!(refused.stderr.contains("revoked"), "{refused:?}");
        assert_ne!(thief.run(&["send", "Lease", "me again"]).unwrap().code, Some(0));
        assert!(!thief.texts("Lease").unwrap().iter().any(|(_, text)| text == "not for thieves"));
    }
    // Nor does it come back with a matter that is opened later.
    firm.matter("Sale", &[&dan]).unwrap();
    assert_eq!(phone.run(&["recv"]).unwrap().code, Some(5));
    dan.ok(&["recv"]).unwrap();
    let texts: Vec<String> = dan.texts("Lease").unwrap().into_iter().map(|(_, text)| text).collect();
    assert_eq!(texts, ["still mine", "not for thieves"]);
    let records = firm.attorney.ok(&["read", "Lease"]).unwrap();
    assert!(records.iter().any(|record| record["type"] == "device_removed"), "{records:?}");
    let listed = dan.ok(&["device", "ls"]).unwrap();
    let states: Vec<&Value> = listed.iter().map(|device| &device["state"]).collect();
    assert!(states.contains(&&"revoked".into()) && states.contains(&&"linked".into()), "{listed:?}");
}

#[test]
fn a_registrar_revokes_somebodys_only_device_and_they_are_out_of_every_matter() {
    let firm = Firm::found().unwrap();
    let (dan, bob) = (firm.bring("dan", "Dan Doe", "client").unwrap(), firm.bring("bob", "Bob", "attorney").unwrap());
    firm.matter("Lease", &[&dan, &bob]).unwrap();
    let id = id_of(&dan);
    for (who, code) in [(&bob, Some(5)), (&firm.attorney, Some(5))] {
        // An attorney may not; and the only device holds the person key.
        let refused = who.run(&["device", "revoke", &id, "--of", "dan", "--yes"]).unwrap();
        assert_eq!(refused.code, code, "{refused:?}");
    }
    firm.attorney.ok(&["device", "revoke", &id[..8], "--of", "dan", "--stolen", "--yes"]).unwrap();
    assert_eq!(dan.run(&["recv"]).unwrap().code, Some(5));
    bob.ok(&["recv"]).unwrap();
    let shown = bob.ok(&["matter", "show", "Lease"]).unwrap();
    assert!(!shown[0].to_string().contains(r#""handle":"dan""#), "{shown:?}");
    assert_eq!(firm.attorney.ok(&["device", "ls", "--of", "dan"]).unwrap()[0]["state"], "revoked");
    let shown = firm.attorney.ok(&["identity", "show", "dan"]).unwrap();
    assert_eq!(shown[0]["devices"].as_array().unwrap().len(), 0, "{shown:?}");
}
