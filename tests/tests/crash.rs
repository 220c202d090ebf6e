//! Processes are killed, again and again, and nothing that was confirmed is lost, doubled or reordered.
//!
//! The loops are short by default; `PRIVITY_LONG=1` makes them long. A failure prints the seed of its schedule.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use privity_client::session::{Session, Told, now};
use privity_client::vault::Vault;
use privity_protocol::ids::MessageId;
use privity_tests::{Firm, Person};

fn times(short: usize, long: usize) -> usize {
    if std::env::var_os("PRIVITY_LONG").is_some() { long } else { short }
}

/// A small generator (xorshift64), so that a schedule can be played again: `PRIVITY_SEED=…`.
struct Schedule(u64);

impl Schedule {
    fn new() -> Self {
        let given = std::env::var("PRIVITY_SEED").ok().and_then(|seed| seed.parse().ok());
        let clock = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().subsec_nanos().into();
        let seed: u64 = given.unwrap_or_else(clock);
        eprintln!("PRIVITY_SEED={seed}");
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// Everything that was confirmed is at every member, once, in the same order; nothing there is void or disputed.
fn check(people: &[&Person], confirmed: &[String]) {
    // What was left unsent goes out now; only then have all of them read everything.
    for person in people {
        person.ok(&["recv", "--timeout", "1"]).unwrap();
    }
    let mut first: Option<Vec<(String, String)>> = None;
    for person in people {
        person.ok(&["recv", "--timeout", "1"]).unwrap();
        let records = person.ok(&["read", "Trial"]).unwrap();
        for record in &records {
            let kind = record["type"].as_str().unwrap();
            assert!(!["void", "dispute", "gap"].contains(&kind), "{}: {record}", person.handle);
        }
        let texts = person.texts("Trial").unwrap();
        let unique: BTreeSet<&String> = texts.iter().map(|(_, text)| text).collect();
        assert_eq!(unique.len(), texts.len(), "{} has a message twice", person.handle);
        for text in confirmed {
            assert!(unique.contains(text), "{} lacks {text}", person.handle);
        }
        match &first {
            Some(first) => assert_eq!(*first, texts, "{} reads another order", person.handle),
            None => first = Some(texts),
        }
    }
}

#[test]
fn a_relay_killed_again_and_again_loses_and_doubles_nothing_it_confirmed() {
    let mut firm = Firm::found().unwrap();
    let ada = firm.attorney.clone();
    let others = ["bob", "carol", "dan"].map(|handle| firm.bring(handle, handle, "client").unwrap());
    firm.matter("Trial", &others.iter().collect::<Vec<_>>()).unwrap();
    for person in &others {
        person.ok(&["recv"]).unwrap();
    }
    let everyone = [&ada, &others[0], &others[1], &others[2]];
    let kills = times(6, 100);
    let done = AtomicBool::new(false);
    let confirmed = Mutex::new(Vec::new());
    let mut schedule = Schedule::new();
    std::thread::scope(|scope| {
        for person in everyone {
            let (done, confirmed) = (&done, &confirmed);
            scope.spawn(move || {
                let mut number = 0;
                while !done.load(Ordering::Relaxed) {
                    number += 1;
                    let text = format!("{} {number}", person.handle);
                    let ran = person.run(&["--json", "send", "Trial", &text]).unwrap();
                    match ran.code {
                        Some(0) => confirmed.lock().unwrap().push(text),
                        Some(3) => {}
                        other => panic!("{other:?} {}", ran.stderr),
                    }
                }
            });
        }
        for _ in 0..kills {
            std::thread::sleep(Duration::from_millis(300 + schedule.below(900)));
            firm.relay.kill();
            firm.relay.run().unwrap();
        }
        done.store(true, Ordering::Relaxed);
    });
    let confirmed = confirmed.into_inner().unwrap();
    assert!(confirmed.len() > kills, "hardly anything was sent: {}", confirmed.len());
    check(&everyone, &confirmed);
}

#[test]
fn a_client_killed_at_random_points_loses_nothing_and_stays_in_step() {
    let firm = Firm::found().unwrap();
    let ada = &firm.attorney;
    let bob = firm.bring("bob", "Bob Jones", "client").unwrap();
    firm.matter("Trial", &[&bob]).unwrap();
    bob.ok(&["recv"]).unwrap();
    // Opening the vault comes first; what may go wrong comes after. So kills are aimed by how long a whole command takes here.
    let whole = {
        let started = Instant::now();
        bob.ok(&["send", "Trial", "bob first"]).unwrap();
        started.elapsed()
    };
    let mut schedule = Schedule::new();
    let mut confirmed = vec!["bob first".to_owned()];
    let (rounds, mut killed) = (times(20, 1000), 0);
    for number in 0..rounds {
        let text = format!("ada {number}");
        ada.ok(&["send", "Trial", &text]).unwrap();
        confirmed.push(text);
        let text = format!("bob {number}");
        let receives = number % 3 == 2;
        let arguments = if receives { vec!["--json", "recv"] } else { vec!["--json", "send", "Trial", &text] };
        let mut child = bob.command(&arguments).unwrap();
        let mut child = child.stdout(std::process::Stdio::piped()).spawn().unwrap();
        std::thread::sleep(whole.mul_f64(0.4 + 0.006 * schedule.below(100) as f64));
        let _ended_or_killed = child.kill();
        let output = child.wait_with_output().unwrap();
        if output.status.code().is_none() {
            killed += 1;
        } else if !receives && output.status.success() {
            confirmed.push(text);
        }
    }
    assert!(killed >= rounds / 4, "only {killed} of {rounds} commands were still running when they were killed");
    check(&[ada, &bob], &confirmed);
}

fn session(person: &Person) -> Session {
    let passphrase = std::fs::read_to_string(&person.passphrase).unwrap();
    Session::open(Vault::open(&person.home, passphrase.trim_end().as_bytes()).unwrap()).unwrap()
}

#[test]
fn a_member_offline_for_a_thousand_messages_catches_up_in_one_go() {
    const MESSAGES: usize = 1000;
    let firm = Firm::found().unwrap();
    let bob = firm.bring("bob", "Bob Jones", "client").unwrap();
    firm.matter("Trial", &[&bob]).unwrap();
    bob.ok(&["recv"]).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut session = session(&firm.attorney);
        let matter = session.device.matters().next().unwrap().0;
        for number in 0..MESSAGES {
            session.device.send_text(now(), matter, MessageId::random(), &format!("{number}")).unwrap();
        }
        let deadline = Instant::now() + Duration::from_secs(120);
        while !session.device.pending(matter).is_empty() {
            assert_ne!(session.next(deadline).await.unwrap(), Told::Quiet, "not sent in time");
        }
        session.close().await;
    });
    let texts = bob.ok(&["recv"]).unwrap();
    let texts: Vec<&str> = texts.iter().filter_map(|record| record["body"]["text"].as_str()).collect();
    let expected: Vec<String> = (0..MESSAGES).map(|number| number.to_string()).collect();
    assert_eq!(texts, expected);
}
