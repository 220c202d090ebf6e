//! The client as a library: bots over a real relay, started from the test, with real vaults and real QUIC.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::UdpSocket;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use privity_client::bot::{Added, Bot, Event, Message, message_id};
use privity_client::error::Error;
use privity_client::join::Wanted;
use privity_client::session::{Session, Told};
use privity_client::vault::Vault;
use privity_protocol::device::state::RecordBody;
use privity_server::{Relay, config::Config, setup};
use privity_tests::{Person, binaries};
use tempfile::TempDir;

const MATTER: &str = "Intake";
const LATE: Duration = Duration::from_secs(30);

/// A relay inside this process, an attorney, and a client whose profile a bot uses.
struct Office {
    folder: TempDir,
    relay: Option<Relay>,
    ada: Person,
    bob: Person,
}

impl Office {
    fn open() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let free = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let data = folder.path().join("relay");
        let invite = setup::init(&data, &Config::new("Byron & Partners", free, None).unwrap()).unwrap();
        let relay = Some(Relay::start(&data).unwrap());

        let ada = Person::new(folder.path(), "ada").unwrap();
        ada.join(&invite.url, "Ada Byron").unwrap();
        let bob = ada.bring(folder.path(), "bob", "Bob Jones", "client").unwrap();
        ada.ok(&["matter", "new", MATTER]).unwrap();
        ada.ok(&["matter", "add", MATTER, "bob"]).unwrap();
        Self { folder, relay, ada, bob }
    }

    fn start(&mut self) {
        self.relay = Some(Relay::start(&self.folder.path().join("relay")).unwrap());
    }

    fn stop(&mut self) {
        self.relay.take().unwrap().stop().unwrap();
    }

    fn say(&self, text: &str) {
        self.ada.ok(&["send", MATTER, text]).unwrap();
    }

    /// What the bot has said, as the attorney reads it, once it is `count` messages.
    fn said(&self, count: usize) -> Vec<String> {
        let until = Instant::now() + LATE;
        loop {
            self.ada.ok(&["recv", "--timeout", "1"]).unwrap();
            let texts = self.ada.texts(MATTER).unwrap();
            let said: Vec<String> = texts.into_iter().filter(|(from, _)| from == "bob").map(|(_, text)| text).collect();
            if said.len() >= count || Instant::now() > until {
                return said;
            }
        }
    }

    async fn bot(&self) -> Bot {
        Bot::open(&self.bob.home, &self.bob.passphrase).await.unwrap()
    }
}

/// The example, as a process.
struct EchoBot(Child);

impl EchoBot {
    fn start(person: &Person) -> Self {
        let mut command = Command::new(binaries().unwrap().join("examples/echo_bot"));
        command.arg(&person.home).arg(&person.passphrase).stdin(Stdio::null()).stdout(Stdio::null());
        Self(command.spawn().unwrap())
    }
}

impl Drop for EchoBot {
    /// SIGKILL: nothing is put in order.
    fn drop(&mut self) {
        let _dead = self.0.kill();
        let _reaped = self.0.wait();
    }
}

async fn message(bot: &mut Bot) -> (Event, Message) {
    loop {
        let event = tokio::time::timeout(LATE, bot.next()).await.unwrap().unwrap();
        if let Event::Message(message) = &event {
            let message = message.clone();
            return (event, message);
        }
    }
}

#[test]
fn the_example_bot_answers_once_however_often_it_is_killed() {
    let office = Office::open();
    let mut expected = Vec::new();
    for round in 0..4 {
        let bot = EchoBot::start(&office.bob);
        office.say(&format!("question {round}"));
        expected.push(format!("received: question {round}"));
        // Killed while it is about to answer, later each time; the last one is left alone.
        if round < 3 {
            std::thread::sleep(Duration::from_millis(150 * round));
        } else {
            assert_eq!(office.said(expected.len()), expected);
        }
        drop(bot);
    }
    let bot = EchoBot::start(&office.bob);
    office.say("the last one");
    expected.push("received: the last one".to_owned());
    assert_eq!(office.said(expected.len()), expected, "nothing answered twice, nothing left out");
    drop(bot);
}

#[tokio::test]
async fn what_a_bot_has_not_acknowledged_comes_again_and_what_it_has_does_not() {
    let office = Office::open();
    office.say("one");
    office.say("two");
    let mut bot = office.bot().await;
    let (_, seen) = message(&mut bot).await;
    assert_eq!((seen.text.as_str(), seen.who.as_str()), ("one", "Ada Byron (ada)"));
    let (_, ahead) = message(&mut bot).await;
    assert_eq!(ahead.text, "two", "handed out once while it runs");
    bot.close().await.unwrap();

    let mut bot = office.bot().await;
    let (event, again) = message(&mut bot).await;
    assert_eq!(again, seen);
    bot.done(&event).unwrap();
    bot.close().await.unwrap();

    let mut bot = office.bot().await;
    assert_eq!(message(&mut bot).await.1, ahead);
    bot.resume_after(0);
    assert_eq!(message(&mut bot).await.1, seen, "a program may keep the cursor itself");
    bot.done(&event).unwrap();
    bot.close().await.unwrap();
    // What people have read by hand is none of the bot's business, and the other way round.
    assert!(office.bob.ok(&["recv"]).unwrap().iter().any(|record| record["body"]["text"] == "one"));
}

#[tokio::test]
async fn what_a_bot_sends_under_one_id_is_sent_once() {
    let office = Office::open();
    let mut bot = office.bot().await;
    let matter = loop {
        if let Ok(matter) = bot.matter(MATTER) {
            break matter;
        }
        bot.next().await.unwrap();
    };
    for _ in 0..2 {
        for _ in 0..2 {
            bot.send(matter, message_id("order 7"), "your order has come").unwrap();
        }
        bot.close().await.unwrap();
        bot = office.bot().await;
    }
    assert!(matches!(bot.send(matter, message_id("empty"), " "), Err(Error::Usage(_))));
    bot.close().await.unwrap();
    // The attorney waits for a second one in vain.
    assert_eq!(office.said(1), ["your order has come"]);
}

#[tokio::test]
async fn a_message_that_is_worked_on_again_after_a_crash_is_answered_once() {
    let office = Office::open();
    office.say("question");
    for read_back in [false, true, true] {
        let mut bot = office.bot().await;
        let (_, question) = message(&mut bot).await;
        bot.answer(&question, "answer").unwrap();
        let until = Instant::now() + Duration::from_secs(if read_back { 3 } else { 0 });
        while let Ok(event) = tokio::time::timeout_at(until.into(), bot.next()).await {
            if let Event::Recorded(record) = event.unwrap()
                && matches!(&record.what, RecordBody::Text { text, .. } if text == "answer")
            {
                break;
            }
        }
        // A crash: nothing is acknowledged, nothing closed.
        drop(bot);
    }
    office.bot().await.close().await.unwrap();
    assert_eq!(office.said(1), ["answer"]);
}

#[tokio::test]
async fn a_text_that_was_read_back_is_not_sent_again_under_its_id() {
    let office = Office::open();
    let passphrase = std::fs::read_to_string(&office.ada.passphrase).unwrap();
    let vault = Vault::open(&office.ada.home, passphrase.trim_end().as_bytes()).unwrap();
    let mut session = Session::open(vault).unwrap();
    let matter = session.device.matters().next().unwrap().0;
    let id = message_id("order 7");
    assert_eq!(session.send(matter, id, "once").unwrap(), None);
    let until = Instant::now() + LATE;
    while !session.device.pending(matter).is_empty() {
        assert_ne!(session.next(until).await.unwrap(), Told::Quiet, "not read back in time");
    }
    let seq = session.send(matter, id, "once").unwrap();
    assert!(seq.is_some(), "known as sent");
    assert_eq!(session.send(matter, id, "once").unwrap(), seq);
    assert!(session.device.pending(matter).is_empty());
    session.close().await;
    office.bob.ok(&["recv"]).unwrap();
    assert_eq!(office.bob.texts(MATTER).unwrap(), [("ada".to_owned(), "once".to_owned())]);
}

#[tokio::test]
async fn a_bot_comes_back_by_itself_when_its_relay_does() {
    let mut office = Office::open();
    let mut bot = office.bot().await;
    let matter = loop {
        if let Event::Recorded(record) = bot.next().await.unwrap() {
            break record.matter;
        }
    };
    office.stop();
    while !matches!(bot.next().await.unwrap(), Event::Offline(_)) {}
    bot.send(matter, message_id("later"), "said while the relay was away").unwrap();
    office.start();
    while bot.next().await.unwrap() != Event::Online {}
    bot.close().await.unwrap();
    assert_eq!(office.said(1), ["said while the relay was away"]);
}

#[tokio::test]
async fn a_bot_joins_with_an_invite_and_opens_nothing_without_profile_or_passphrase() {
    let office = Office::open();
    let told = office.ada.ok(&["invite", "new"]).unwrap();
    let invite = told[0]["url"].as_str().unwrap();
    let (home, passphrase) = (office.folder.path().join("carol"), &office.bob.passphrase);
    let wanted = Wanted { kdf_memory: 64, ..Wanted::new(invite, "carol", "Carol Doe") };
    let bot = Bot::join(&home, passphrase, wanted).await.unwrap();
    assert!(bot.matters().is_empty());
    bot.close().await.unwrap();
    assert!(matches!(Bot::open(&home, Path::new("/nowhere")).await, Err(Error::Usage(_))), "no passphrase");
    let empty = office.folder.path().join("nobody");
    assert!(matches!(Bot::open(&empty, passphrase).await, Err(Error::Usage(_))), "nobody has joined");
}

#[tokio::test]
async fn a_bot_of_an_attorneys_adds_people_by_handle_and_one_of_a_clients_may_not() {
    let mut office = Office::open();
    let carol = office.ada.bring(office.folder.path(), "carol", "Carol Doe", "client").unwrap();
    let mut bot = Bot::open(&office.ada.home, &office.ada.passphrase).await.unwrap();
    let matter = bot.matter(MATTER).unwrap();
    for _ in 0..2 {
        assert_eq!(bot.add(matter, "carol").await.unwrap(), Added::Done, "once more does no harm");
    }
    assert!(matches!(bot.add(matter, "nobody").await, Err(Error::Usage(_))));
    // What happened meanwhile is not lost.
    while tokio::time::timeout(LATE, bot.next()).await.unwrap().unwrap() != Event::Online {}
    bot.close().await.unwrap();
    carol.ok(&["recv"]).unwrap();
    assert_eq!(carol.ok(&["matter", "ls"]).unwrap()[0]["title"], MATTER);

    let mut bot = office.bot().await;
    while bot.matter(MATTER).is_err() {
        bot.next().await.unwrap();
    }
    let refused = bot.add(matter, "carol").await;
    assert!(matches!(refused, Err(Error::Refused(_))), "{refused:?}");
    bot.close().await.unwrap();
    office.stop();
}
