//! What was said before a device was linked, sent to it on the real binaries: asked first, killed in the middle, whole in the end.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use privity_tests::{Firm, KDF_MEMORY, Person, Typed};
use serde_json::Value;

/// How many messages, and how long each is: some pieces of 250 KiB.
const MESSAGES: usize = 2000;
const LONG: usize = 700;

/// `device link` with these arguments, and the device that joins with its invite.
fn link(firm: &Firm, person: &Person, folder: &str, arguments: &[&str]) -> (Person, Vec<Value>) {
    let arguments: Vec<&str> = ["--json", "device", "link", "--yes"].iter().chain(arguments).copied().collect();
    let mut child = person.command(&arguments).unwrap().stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let told: Value = serde_json::from_str(&lines.next().unwrap()).unwrap();
    let device = Person { handle: person.handle.clone(), ..Person::new(firm.folder(), folder).unwrap() };
    device.ok(&["join", told["url"].as_str().unwrap(), "--kdf-memory", KDF_MEMORY]).unwrap();
    let told: Vec<Value> = lines.map(|line| serde_json::from_str(&line).unwrap()).collect();
    assert_eq!(child.wait().unwrap().code(), Some(0), "{told:?}");
    (device, told)
}

/// What `read` has of a matter: whether it was received, and the record.
fn read(device: &Person, matter: &str) -> Vec<(bool, Value)> {
    let records = device.ok(&["read", matter]).unwrap();
    records.into_iter().map(|record| (record["received"] == true, record)).collect()
}

fn history(device: &Person) -> Value {
    device.ok(&["status"]).unwrap()[0]["history"].clone()
}

/// Says many things at once.
fn say(person: &Person, matter: &str, count: usize) {
    let mut child = person.command(&["--json", "chat", matter]).unwrap();
    let mut child = child.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    let mut lines = String::new();
    for number in 0..count {
        writeln!(lines, "{number:05} {}", "x".repeat(LONG)).unwrap();
    }
    input.write_all(lines.as_bytes()).unwrap();
    drop(input);
    // What it does not get rid of in time it keeps for the next command.
    let mut code = child.wait().unwrap().code();
    let until = Instant::now() + Duration::from_secs(120);
    while code != Some(0) || !person.ok(&["read", matter, "--pending"]).unwrap().is_empty() {
        assert!(Instant::now() < until, "{code:?}");
        code = person.run(&["recv"]).unwrap().code;
    }
}

fn kill(mut child: Child) {
    let _dead = child.kill();
    child.wait().unwrap();
}

#[test]
fn what_was_said_before_is_read_on_the_new_device_in_its_place_and_marked() {
    let firm = Firm::found().unwrap();
    let dan = firm.bring("dan", "Dan Doe", "client").unwrap();
    firm.matter("Lease", &[&dan]).unwrap();
    firm.attorney.ok(&["send", "Lease", "from ada"]).unwrap();
    dan.ok(&["recv"]).unwrap();
    dan.ok(&["send", "Lease", "from dan"]).unwrap();
    let (phone, told) = link(&firm, &dan, "phone", &["--history", "--name", "phone"]);
    let last = told.last().unwrap();
    assert_eq!((&last["state"], &last["messages"], &last["done"]), (&"sent".into(), &2.into(), &2.into()), "{told:?}");
    // It is on its way until the new device has been online.
    assert_eq!(history(&dan)[0]["comes"], false);
    let printed = phone.ok(&["recv"]).unwrap();
    assert!(printed.iter().all(|record| record["type"] != "text"), "history is not printed as new: {printed:?}");
    dan.ok(&["recv"]).unwrap();
    for device in [&dan, &phone] {
        assert_eq!(history(device), Value::Array(Vec::new()));
    }
    firm.attorney.ok(&["send", "Lease", "later"]).unwrap();
    phone.ok(&["recv"]).unwrap();
    dan.ok(&["recv"]).unwrap();
    let (here, there) = (read(&dan, "Lease"), read(&phone, "Lease"));
    let texts = |records: &[(bool, Value)]| -> Vec<(bool, String)> {
        let texts = records.iter().filter(|(_, record)| record["type"] == "text");
        texts.map(|(received, record)| (*received, record["body"]["text"].as_str().unwrap().to_owned())).collect()
    };
    let expected = [(true, "from ada"), (true, "from dan"), (false, "later")];
    assert_eq!(texts(&there), expected.map(|(received, text)| (received, text.to_owned())));
    for (received, record) in &there {
        let same = here.iter().find(|(_, other)| other["seq"] == record["seq"] && other["type"] == record["type"]);
        if *received {
            let (_, same) = same.unwrap();
            for key in ["from", "sent_at", "id", "body", "matter"] {
                assert_eq!(record[key], same[key], "{key}");
            }
            assert!(record["cursor"].is_null());
        }
    }
    let shown = phone.run(&["read", "Lease"]).unwrap().stdout;
    let places =
        ["from your other device", "from ada", "read on this device", "later"].map(|text| shown.find(text).unwrap());
    assert!(places.is_sorted(), "{shown}");
    let nothing = dan.ok(&["device", "history", "phone", "--yes"]).unwrap();
    assert_eq!(nothing[0]["state"], "received");
}

#[test]
fn nothing_is_sent_without_a_yes_and_a_no_can_be_taken_back() {
    let firm = Firm::found().unwrap();
    firm.matter("Lease", &[]).unwrap();
    firm.attorney.ok(&["send", "Lease", "before"]).unwrap();
    let (phone, told) = link(&firm, &firm.attorney, "phone", &[]);
    assert_eq!(told.len(), 1, "{told:?}");
    phone.ok(&["recv"]).unwrap();
    assert!(read(&phone, "Lease").iter().all(|(received, _)| !received));
    let id = phone.ok(&["status"]).unwrap()[0]["device"].as_str().unwrap().to_owned();
    // A script says so.
    assert_eq!(firm.attorney.run(&["--json", "device", "history", &id]).unwrap().code, Some(1));
    let (home, passphrase) = (firm.attorney.home.to_str().unwrap(), firm.attorney.passphrase.to_str().unwrap());
    for (answer, code) in [("n\n", Some(5)), ("y\n", Some(0))] {
        let arguments = ["--home", home, "--passphrase-file", passphrase, "device", "history", &id];
        let Some(mut typed) = Typed::start(&arguments).unwrap() else { return };
        typed.at("Send it what was said so far: 1 message in 1 matter? (yes/no)", 0, answer).unwrap();
        let (ended, screen) = typed.end().unwrap();
        assert_eq!(ended, code, "{screen}");
    }
    phone.ok(&["recv"]).unwrap();
    assert_eq!(
        read(&phone, "Lease").iter().filter(|(received, _)| *received).count(),
        2,
        "the text, and that it began"
    );
}

/// Thousands of messages, and both ends are killed while they are on their way.
#[test]
fn a_long_history_is_whole_and_once_though_both_ends_were_killed_in_the_middle() {
    let firm = Firm::found().unwrap();
    let ada = &firm.attorney;
    firm.matter("Trial", &[]).unwrap();
    say(ada, "Trial", MESSAGES);
    let (phone, _) = link(&firm, ada, "phone", &[]);
    let id = phone.ok(&["status"]).unwrap()[0]["device"].as_str().unwrap().to_owned();
    let mut sender = ada.command(&["--json", "device", "history", &id, "--yes"]).unwrap();
    let mut sender = sender.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    for line in BufReader::new(sender.stdout.take().unwrap()).lines() {
        let told: Value = serde_json::from_str(&line.unwrap()).unwrap();
        assert_eq!(told["messages"], MESSAGES);
        if told["done"].as_u64().unwrap() > 0 {
            break;
        }
    }
    kill(sender);
    // What has come by then says so.
    let whole = Instant::now();
    phone.ok(&["recv"]).unwrap();
    let whole = whole.elapsed();
    let part = history(&phone)[0].clone();
    let done = part["done"].as_u64().unwrap();
    assert_eq!((&part["comes"], &part["messages"]), (&true.into(), &MESSAGES.into()));
    assert!(usize::try_from(done).unwrap() < MESSAGES, "{part}");
    // Both go on and are killed again, at one moment or another.
    for tenths in [3, 6, 9] {
        let sender = ada.command(&["recv"]).unwrap().stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let receiver = phone.command(&["recv"]).unwrap().stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(whole.mul_f64(f64::from(tenths) / 10.0));
        kill(receiver);
        kill(sender);
    }
    let until = Instant::now() + Duration::from_secs(60);
    while !(history(ada) == Value::Array(Vec::new()) && history(&phone) == Value::Array(Vec::new())) {
        assert!(Instant::now() < until, "{} {}", history(ada), history(&phone));
        ada.run(&["device", "history", &id, "--yes"]).unwrap();
        phone.ok(&["recv"]).unwrap();
    }
    let texts = |device: &Person| -> Vec<Value> {
        let records = read(device, "Trial").into_iter().map(|(_, record)| record);
        records.filter(|record| record["type"] == "text").map(|record| record["body"]["text"].clone()).collect()
    };
    let (here, there) = (texts(ada), texts(&phone));
    assert_eq!(there.len(), MESSAGES);
    assert!(here == there, "the same, in the same order");
}
