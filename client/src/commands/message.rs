//! `send`, `recv` and `read`.

use std::io::Read as _;
use std::pin::pin;
use std::time::{Duration, Instant};

use privity_protocol::content::{Body, Content};
use privity_protocol::device::Notice;
use privity_protocol::device::state::{OutItem, Stage};
use privity_protocol::error::Refused;
use privity_protocol::ids::{MatterId, MessageId};
use privity_protocol::limits;
use serde_json::json;

use crate::commands::{Run, warn};
use crate::error::Error;
use crate::session::{Session, Told, now};
use crate::{ask, marks, out, view};

/// Records printed at once.
const PAGE: usize = 500;

impl Run {
    pub(super) async fn send(&self, matter: &str, text: &str, id: Option<&str>, anyway: bool) -> Result<(), Error> {
        let piped = text == "-";
        let text = if piped { read_text()? } else { text.to_owned() };
        let id = match id {
            Some(id) => id
                .parse()
                .map_err(|_| Error::Usage("--id takes 26 characters of base32, a to z and 2 to 7".to_owned()))?,
            None => MessageId::random(),
        };
        if text.trim().is_empty() {
            return Err(Error::Usage("nothing to send: the message is empty".to_owned()));
        }
        // Too large is told before anything else is done.
        Content::text(id, now(), &text).map_err(Error::from)?;
        let (_held, mut session) = self.online().await?;
        let deadline = self.deadline();
        let reached = match session.catch_up(deadline).await {
            Ok(notices) => {
                warn(&notices);
                true
            }
            Err(Error::Network(_)) => false,
            Err(error) => return Err(error),
        };
        let matter = view::find_matter(&session.device, matter)?;
        self.agree(&mut session, matter, anyway, !piped)?;
        if let Some(seq) = session.send(matter, id, &text)? {
            return self.sent(matter, id, Some(seq));
        }
        if !reached {
            session.drain()?;
            return self.kept(session, matter, id, false).await;
        }
        match stored(&mut session, matter, id, deadline).await? {
            Answer::Stored(seq) => {
                self.done(session).await?;
                self.sent(matter, id, Some(seq))
            }
            Answer::Waits { full } => self.kept(session, matter, id, full).await,
        }
    }

    /// Where somebody disputes what was read, sending takes a word of the user's: `--anyway`, or a yes at a terminal.
    fn agree(&self, session: &mut Session, matter: MatterId, anyway: bool, ask: bool) -> Result<(), Error> {
        let Some(person) = session.device.matter(matter).and_then(|row| row.disputed) else { return Ok(()) };
        if anyway {
            return session.go_on(matter);
        }
        let told = format!(
            "{} says to have read something else in this matter than you; nothing was sent. Compare by telephone what both of you see",
            view::person(&session.device, person)
        );
        if ask && !self.json && ask::is_possible() {
            out::note(&told);
            if ask::yes("Send anyway? [y/N] ")? {
                return session.go_on(matter);
            }
            return Err(Error::Refused("nothing was sent".to_owned()));
        }
        Err(Error::Refused(format!("{told}; then send it with --anyway")))
    }

    /// A message that has not gone out: it is in the outbox, on disk.
    async fn kept(&self, session: Session, matter: MatterId, id: MessageId, full: bool) -> Result<(), Error> {
        let stage = session.device.matter(matter).map(|row| row.stage).filter(|_| session.is_up());
        let error = not_out(stage, put_off(&session, matter), full);
        session.close().await;
        self.sent(matter, id, None)?;
        Err(error)
    }

    fn sent(&self, matter: MatterId, id: MessageId, seq: Option<u64>) -> Result<(), Error> {
        let state = if seq.is_some() { "stored" } else { "queued" };
        let object = json!({
            "v": view::SCHEMA, "id": id.to_string(), "matter": matter.to_string(), "seq": seq, "state": state,
        });
        self.print(&object, || if seq.is_some() { "Sent.".to_owned() } else { "Kept for later.".to_owned() })
    }

    pub(super) async fn recv(&self, follow: bool, after: Option<u64>) -> Result<(), Error> {
        let (_held, mut session) = self.online().await?;
        let mut from = match after {
            Some(after) => after,
            None => marks::shown(&session, None)?,
        };
        let again = after.is_some();
        self.print_new(&mut session, &mut from, again)?;
        let mut interrupt = pin!(tokio::signal::ctrl_c());
        let mut caught_up = false;
        let mut down = None;
        let mut deadline = self.deadline();
        loop {
            let told = tokio::select! {
                told = session.next(deadline) => told?,
                _ = &mut interrupt => {
                    session.close().await;
                    return Ok(());
                }
            };
            match told {
                Told::Notice(notice) => match *notice {
                    Notice::Recorded(_) => deadline = self.deadline(),
                    Notice::CaughtUp => {
                        caught_up = true;
                        deadline = self.deadline();
                    }
                    other => warn(&[other]),
                },
                Told::Up => down = None,
                Told::Down(why) => {
                    if follow && down.is_none() {
                        out::note(&format!("privity: {}; trying again", view::plain(&why, false)));
                    }
                    down = Some(why);
                }
                Told::Quiet if follow && self.asked.is_none() => deadline = self.deadline(),
                Told::Quiet => break,
            }
            self.print_new(&mut session, &mut from, again)?;
            if caught_up && !follow && self.asked.is_none() {
                break;
            }
        }
        self.print_new(&mut session, &mut from, again)?;
        if caught_up {
            return self.done(session).await;
        }
        session.close().await;
        match down {
            _ if follow => Ok(()),
            Some(why) => Err(Error::Network(format!("{why}; what is shown is what was here already"))),
            None => Err(Error::Network("the relay does not answer; what is shown was here already".to_owned())),
        }
    }

    /// Prints records after `from` that were not shown before, or all of them, and remembers that they were, up to a gap.
    fn print_new(&self, session: &mut Session, from: &mut u64, again: bool) -> Result<(), Error> {
        loop {
            let records = session.vault.records(None, *from, PAGE)?;
            let Some(last) = records.last().map(|record| record.cursor) else { return Ok(()) };
            for record in &records {
                if !again && marks::shown(session, Some(record.matter))? >= record.cursor {
                    continue;
                }
                self.print(&view::json(&session.device, record), || {
                    let title = view::title(&session.device, record.matter);
                    format!("{title:<24} {}", view::line(&session.device, record, now()))
                })?;
            }
            marks::mark_from(session, *from, last)?;
            *from = last;
        }
    }

    pub(super) fn read(&self, matter: &str, pending: bool) -> Result<(), Error> {
        let (_held, session) = self.open()?;
        let matter = view::find_matter(&session.device, matter)?;
        if !pending {
            let mut from = 0;
            loop {
                let records = session.vault.records(Some(matter), from, PAGE)?;
                let Some(last) = records.last().map(|record| record.cursor) else { break };
                for record in &records {
                    self.print(&view::json(&session.device, record), || view::line(&session.device, record, now()))?;
                }
                from = last;
            }
        }
        for item in session.device.pending(matter) {
            if pending && item.seq.is_some() {
                continue;
            }
            let (text, state) = (pending_text(item), pending_state(item));
            let object = json!({
                "v": view::SCHEMA, "type": "pending", "id": item.id.to_string(), "matter": matter.to_string(),
                "seq": item.seq, "state": state, "body": { "text": text }, "why": item.failed,
            });
            self.print(&object, || format!("--:--  you ({state}): {}", view::plain(&text, true)))?;
        }
        Ok(())
    }
}

/// What came of a text.
enum Answer {
    /// The relay has it on disk.
    Stored(u64),
    /// It waits in the outbox.
    Waits {
        /// The relay said that it can't store anything.
        full: bool,
    },
}

/// For how long the relay has put off what waits in a matter.
fn put_off(session: &Session, matter: MatterId) -> Option<Duration> {
    let until = session.device.put_off_until(matter)?;
    Some(Duration::from_millis(until.0.saturating_sub(now().0))).filter(|wait| !wait.is_zero())
}

/// Why a message is kept, by where its matter stands (none without a link) and what the relay said, with the exit code for it.
fn not_out(stage: Option<Stage>, put_off: Option<Duration>, full: bool) -> Error {
    match (stage, put_off) {
        (None, _) => Error::Network(
            "the relay can't be reached; the message is kept and goes out at the next contact".to_owned(),
        ),
        (Some(_), _) if full => Error::Machine(
            "the relay could not store the message (is its disk full?); it is kept, and goes out as soon as it can"
                .to_owned(),
        ),
        (Some(Stage::Opening | Stage::Open), Some(wait)) => {
            let seconds = wait.as_millis().div_ceil(1000);
            Error::TooFast(format!("too fast; the message is kept and goes out in {seconds} s, or at the next contact"))
        }
        // A link may be dead for a while before that shows.
        (Some(Stage::Opening | Stage::Open), None) => Error::Network(
            "the relay has not answered in time; the message is kept and goes out at the next contact".to_owned(),
        ),
        (Some(stage), _) => {
            let told = view::stage_told(stage).unwrap_or("The relay has not taken it yet.");
            Error::NotYet(format!("the message is kept, and goes out as soon as it can. {told}"))
        }
    }
}

/// Waits until the relay has a text on disk, or it is clear that it won't have until the deadline.
async fn stored(session: &mut Session, matter: MatterId, id: MessageId, deadline: Instant) -> Result<Answer, Error> {
    let mut full = false;
    loop {
        let told = session.next(deadline).await?;
        match told {
            Told::Notice(notice) => match *notice {
                Notice::Stored { matter: m, id: i, seq } if m == matter && i == id => return Ok(Answer::Stored(seq)),
                Notice::Unsendable { matter: m, id: i, why } if m == matter && i == id => return Err(why.into()),
                other => {
                    full |= other == Notice::Problem(Refused::Storage.into());
                    warn(&[other]);
                }
            },
            Told::Quiet => return Ok(Answer::Waits { full }),
            _ => {}
        }
        match session.device.matter(matter).map(|row| row.stage) {
            Some(Stage::Opening | Stage::Joining | Stage::Open) => {
                if put_off(session, matter).is_some_and(|wait| Instant::now() + wait > deadline) {
                    return Ok(Answer::Waits { full });
                }
            }
            // It is kept; waiting for others may take days.
            Some(Stage::OutOfStep | Stage::Paused | Stage::Outdated | Stage::Moving) => {
                return Ok(Answer::Waits { full });
            }
            Some(Stage::Forked) => {
                return Err(Error::Untrusted(
                    "the relay shows two histories of this matter: nothing is sent there. Ask your firm's IT"
                        .to_owned(),
                ));
            }
            _ => return Err(Error::Refused("you are no longer in this matter; the message was not sent".to_owned())),
        }
    }
}

fn read_text() -> Result<String, Error> {
    let mut bytes = Vec::new();
    let limit = limits::TEXT_MAX as u64 + 2;
    std::io::stdin().lock().take(limit).read_to_end(&mut bytes)?;
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
    }
    if bytes.len() > limits::TEXT_MAX {
        // Cut within a character, perhaps; it is refused for its size.
        return Ok(String::from_utf8_lossy(&bytes).into_owned());
    }
    String::from_utf8(bytes).map_err(|_| Error::Usage("what came on standard input is not UTF-8 text".to_owned()))
}

/// What a message that waits says.
pub(crate) fn pending_text(item: &OutItem) -> String {
    match Content::decode(&item.content).map(|content| content.body) {
        Ok(Body::Text(text)) => text,
        _ => String::new(),
    }
}

/// How far a message that waits has come.
pub(crate) fn pending_state(item: &OutItem) -> &'static str {
    match (&item.failed, item.seq) {
        (Some(_), _) => "refused",
        (None, Some(_)) => "stored",
        (None, None) => "queued",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn why_a_message_is_kept_has_an_exit_code_and_a_sentence_of_its_own() {
        let wait = Some(Duration::from_millis(6_100));
        let cases = [
            (None, None, false, 3, "can't be reached"),
            (None, wait, false, 3, "can't be reached"),
            (Some(Stage::Open), wait, false, 6, "goes out in 7 s"),
            (Some(Stage::Opening), wait, false, 6, "goes out in 7 s"),
            (Some(Stage::Open), wait, true, 2, "disk full"),
            (Some(Stage::Open), None, false, 3, "has not answered in time"),
            (Some(Stage::OutOfStep), wait, false, 7, "let it back in"),
            (Some(Stage::Moving), None, false, 7, "new place"),
        ];
        for (stage, put_off, full, code, part) in cases {
            let error = not_out(stage, put_off, full);
            assert_eq!(error.exit_code(), code, "{stage:?} {put_off:?} {full}: {error}");
            assert!(error.to_string().contains(part) && error.to_string().contains("kept"), "{error}");
        }
    }
}
