//! The demo: a real relay on loopback, an attorney and a client enrolled by real invites, a matter, and a conversation.
//!
//! With a terminal the user goes on chatting as the attorney, and the client's side answers; otherwise a short conversation is played, and
//! what each side saw is printed.

use std::io::IsTerminal as _;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Parser;
use privity_client::session::{Session, Told, now};
use privity_client::vault::Vault;
use privity_protocol::device::Notice;
use privity_protocol::device::state::RecordBody;
use privity_protocol::ids::MessageId;
use privity_tests::{Firm, Person, binaries};
use tokio::sync::watch;

const MATTER: &str = "Jones v Harbour Shipping";

/// A relay on this machine, a firm, an attorney, a client, a matter, and a conversation, all with the real programs.
///
/// In a terminal you are the attorney, and the client answers; /quit ends it. Without one a short conversation is played. Everything is
/// in a folder that goes away at the end. From the sources it builds the programs first.
#[derive(Debug, Parser)]
#[command(name = "privity-demo", version)]
struct Cli {}

fn main() -> ExitCode {
    if let Err(error) = Cli::try_parse() {
        let wrong = error.use_stderr();
        let _shown = error.print();
        return ExitCode::from(u8::from(wrong));
    }
    match demo() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("privity-demo: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn demo() -> anyhow::Result<()> {
    step("Building the relay and the client");
    binaries()?;
    step("Starting a relay on loopback, and founding a firm with its first attorney, Ada Byron");
    let firm = Firm::found()?;
    step("Ada invites a client, who joins with the invite: Bob Jones");
    let bob = firm.bring("bob", "Bob Jones", "client")?;
    step(&format!("Ada opens the matter “{MATTER}” and adds Bob"));
    firm.matter(MATTER, &[&bob])?;
    if std::io::stdin().is_terminal() && std::io::stdout().is_terminal() {
        chat(&firm, &bob)
    } else {
        play(&firm, &bob)
    }
}

fn step(what: &str) {
    eprintln!("· {what}");
}

/// A short conversation, each message a process of its own, and what each side saw.
fn play(firm: &Firm, bob: &Person) -> anyhow::Result<()> {
    let ada = &firm.attorney;
    let lines = [
        (ada, "Good morning, Mr Jones. The other side offers to settle for 40,000."),
        (bob, "Good morning. What do you advise?"),
        (ada, "Refuse. The survey report is on our side; we answer by Friday."),
        (bob, "Then refuse, please."),
    ];
    step("They talk");
    for (person, text) in lines {
        person.ok(&["send", MATTER, text])?;
    }
    for person in [ada, bob] {
        let seen = person.run(&["recv"])?;
        anyhow::ensure!(seen.code == Some(0), "recv: {}", seen.stderr);
        println!("\nWhat {} saw:\n{}", person.handle, seen.stdout.trim_end());
    }
    let (hers, his) = (ada.texts(MATTER)?, bob.texts(MATTER)?);
    anyhow::ensure!(hers == his && hers.len() == lines.len(), "the two sides saw different conversations");
    println!("\nBoth saw the same {} messages in the same order.", hers.len());
    Ok(())
}

/// The user chats as Ada; Bob's side answers by itself.
fn chat(firm: &Firm, bob: &Person) -> anyhow::Result<()> {
    let (stopping, stop) = watch::channel(false);
    let bob = bob.clone();
    let answering = std::thread::spawn(move || -> anyhow::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(answer(&bob, stop))
    });
    step("You are Ada now. Write to Bob, who answers; /help lists commands, /quit ends the demo");
    let status = firm.attorney.command(&["chat", MATTER])?.stdin(std::process::Stdio::inherit()).status()?;
    stopping.send_replace(true);
    answering.join().map_err(|_| anyhow::anyhow!("Bob's side failed"))??;
    anyhow::ensure!(status.success(), "chat ended with {status}");
    Ok(())
}

/// A bot on the client library: answers every text of somebody else.
async fn answer(bob: &Person, mut stop: watch::Receiver<bool>) -> anyhow::Result<()> {
    const ANSWERS: [&str; 5] = [
        "Thank you, I understand.",
        "What does that mean for the hearing in March?",
        "I have the bill of lading here, shall I send a copy?",
        "Please go ahead as you think best.",
        "That is good to hear. Is there anything you need from me?",
    ];
    let passphrase = std::fs::read_to_string(&bob.passphrase)?;
    let vault = Vault::open(&bob.home, passphrase.trim_end().as_bytes())?;
    let mut session = Session::open(vault)?;
    let own = session.device.profile().person;
    let mut answers = ANSWERS.iter().cycle();
    loop {
        let told = tokio::select! {
            told = session.next(Instant::now() + Duration::from_secs(3600)) => told?,
            _ = stop.changed() => break,
        };
        let Told::Notice(notice) = told else { continue };
        if let Notice::Recorded(record) = *notice
            && matches!(record.what, RecordBody::Text { .. })
            && record.from != Some(own)
        {
            tokio::time::sleep(Duration::from_millis(900)).await;
            let text = answers.next().context("no answer")?;
            session.device.send_text(now(), record.matter, MessageId::random(), text)?;
        }
    }
    session.close().await;
    Ok(())
}
