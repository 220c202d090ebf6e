//! A bot that answers every message with "received: …", until Ctrl-C.
//!
//! `cargo run -p privity-client --example echo_bot -- DIR PASSPHRASE-FILE`, where DIR is a profile: `privity --home DIR join …` makes one.
//!
//! Invariant: a message is answered once, also after a crash: it comes again until it is done, and its answer has one id.

use std::pin::pin;

use privity_client::bot::{Bot, Event};
use privity_client::error::Error;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [folder, passphrase_file] = arguments.as_slice() else {
        return Err(Error::Usage("echo_bot DIR PASSPHRASE-FILE".to_owned()));
    };
    let mut bot = Bot::open(folder, passphrase_file).await?;
    for matter in bot.matters() {
        println!("in {} with {} people", matter.id, matter.people.len());
    }
    let mut interrupt = pin!(tokio::signal::ctrl_c());
    loop {
        let event = tokio::select! {
            event = bot.next() => event?,
            _ = &mut interrupt => break,
        };
        match &event {
            Event::Message(message) => match bot.answer(message, &format!("received: {}", message.text)) {
                // A matter that it was removed from, or that somebody disputes: the next message may be answered.
                Err(Error::Refused(why)) => eprintln!("not answered: {why}"),
                answered => answered?,
            },
            Event::Offline(why) => eprintln!("offline: {why}"),
            _ => {}
        }
        bot.done(&event)?;
    }
    bot.close().await
}
