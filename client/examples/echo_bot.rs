//! A bot that answers every message with "received: …", until Ctrl-C.
//!
//! `cargo run -p privity-client --example echo_bot -- --home DIR --passphrase-file FILE`
//!
//! Invariant: a message is answered once, also after a crash, for the answer's id follows from the message's.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use privity_client::error::Error;
use privity_client::home::Home;
use privity_client::marks;
use privity_client::session::Session;
use privity_protocol::device::state::RecordBody;
use privity_protocol::ids::MessageId;
use privity_protocol::suite::Digest;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let mut arguments = std::env::args().skip(1);
    let (mut folder, mut passphrase) = (None, None);
    while let Some(flag) = arguments.next() {
        match flag.as_str() {
            "--home" => folder = arguments.next().map(PathBuf::from),
            "--passphrase-file" => passphrase = arguments.next().map(PathBuf::from),
            _ => return Err(Error::Usage("echo_bot --home DIR --passphrase-file FILE".to_owned())),
        }
    }
    let home = Home::new(folder, passphrase)?;
    let _held = home.hold_joined()?;
    let mut session = Session::open(home.open_vault()?)?;
    let mut interrupt = std::pin::pin!(tokio::signal::ctrl_c());
    loop {
        answer(&mut session)?;
        tokio::select! {
            told = session.next(Instant::now() + Duration::from_secs(60)) => { told?; }
            _ = &mut interrupt => break,
        }
    }
    session.close().await;
    Ok(())
}

/// Answers what was not answered yet: the answer is on disk before the message counts as shown.
fn answer(session: &mut Session) -> Result<(), Error> {
    let own = session.device.profile().person;
    for record in session.vault.records(None, marks::shown(session, None)?, 100)? {
        if let RecordBody::Text { id, text } = &record.what
            && record.from != Some(own)
        {
            let digest = Digest::of(&[b"echo", id.as_bytes()]);
            let answer = MessageId::from_slice(&digest.as_bytes()[..16])?;
            session.send(record.matter, answer, &format!("received: {text}"))?;
        }
        marks::mark(session, None, record.cursor)?;
    }
    Ok(())
}
