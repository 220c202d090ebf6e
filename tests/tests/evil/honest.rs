//! The double, told nothing, is the relay: the same story has the same end on both.

use privity_tests::Firm;
use serde_json::Value;

/// Two people join, open a matter, talk; one is removed. Everything that they see of it, but for ids, keys and times.
fn story<R>(firm: &Firm<R>) -> Vec<String> {
    let ada = &firm.attorney;
    let [bob, dan] =
        [("bob", "Bob Jones"), ("dan", "Dan Doe")].map(|(handle, name)| firm.bring(handle, name, "client").unwrap());
    // One after the other: people who are added together stand in the order of their random ids.
    firm.matter("Lease", &[&bob]).unwrap();
    ada.ok(&["matter", "add", "Lease", "dan"]).unwrap();
    for (who, text) in [(ada, "one"), (&bob, "two"), (&dan, "three")] {
        who.ok(&["recv"]).unwrap();
        who.ok(&["send", "Lease", text]).unwrap();
    }
    ada.ok(&["matter", "remove", "Lease", "bob"]).unwrap();
    for who in [&dan, ada] {
        who.ok(&["recv"]).unwrap();
        who.ok(&["send", "Lease", "without him"]).unwrap();
    }
    let mut told = Vec::new();
    for who in [ada, &bob, &dan] {
        let status = who.ok(&["status"]).unwrap().remove(0);
        for arguments in [&["recv", "--after", "0"][..], &["people"], &["matter", "ls"], &["status"]] {
            let ran = who.run(arguments).unwrap();
            told.push(format!("{} {arguments:?}: {:?} {}", who.handle, ran.code, plain(&status, &ran.stdout)));
            told.push(plain(&status, &ran.stderr));
        }
        let log = &who.ok(&["security", "show"]).unwrap()[0]["log"];
        told.push(format!("{} leaves, faults {}", log["size"], log["faults"]));
    }
    told
}

/// Without what no two firms have in common.
fn plain(status: &Value, text: &str) -> String {
    let mut text = text.to_owned();
    let mut own =
        vec![status["relay"]["address"].clone(), status["relay"]["key"].clone(), status["organisation"].clone()];
    own.extend(status["matters"].as_array().unwrap().iter().map(|matter| matter["matter"].clone()));
    own.extend([status["person"].clone(), status["device"].clone()]);
    for value in own {
        let value = value.as_str().unwrap().to_owned();
        text = text.replace(&value, "…").replace(&value[..6], "…");
    }
    text.split_whitespace().filter(|word| !word.contains(':')).collect::<Vec<_>>().join(" ")
}

#[test]
fn told_nothing_it_is_as_honest_as_the_relay() {
    let (real, double) = (Firm::found().unwrap(), Firm::under().unwrap());
    let (there, here) = std::thread::scope(|both| {
        let there = both.spawn(|| story(&real));
        let here = story(&double);
        (there.join().unwrap(), here)
    });
    assert_eq!(here, there);
    assert!(here.iter().any(|told| told.contains("without him")), "{here:#?}");
}
