//! `send`, `recv` and `read`.

use std::io::Read as _;
use std::pin::pin;
use std::time::{Duration, Instant};

use privity_protocol::content::{Body, Content};
use privity_protocol::device::state::{OutItem, Record, RecordBody, Stage};
use privity_protocol::device::{Device, Notice};
use privity_protocol::error::{Error as ProtocolError, PeerMisbehaved, Refused};
use privity_protocol::ids::{MatterId, MessageId};
use privity_protocol::limits;
use serde_json::json;

use crate::commands::{Distrust, Run, identity, warn};
use crate::error::Error;
use crate::session::{Session, Told, keeps, now};
use crate::{ask, marks, out, view};

/// Records printed at once.
const PAGE: usize = 500;
/// How long the parts of an event are waited for.
pub(crate) const GATHER: Duration = Duration::from_secs(3);

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
        if let Some(doubt) = identity::doubt(&session.device, matter) {
            return Err(doubt);
        }
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

    /// Where somebody disputes what was read, or has nobody who vouches for them, sending takes a word of the user's: `--anyway`, or a
    /// yes at a terminal.
    fn agree(&self, session: &mut Session, matter: MatterId, anyway: bool, ask: bool) -> Result<(), Error> {
        // Where nothing is sent any more, that is what is to be told.
        if !session.device.matter(matter).is_some_and(|row| keeps(row.stage)) {
            return Ok(());
        }
        let Some(told) = asked_first(&session.device, matter) else { return Ok(()) };
        if anyway {
            return session.go_on(matter);
        }
        if ask && !self.json && ask::is_possible() {
            out::note(&told);
            if ask::yes("Send anyway?")? {
                return session.go_on(matter);
            }
            return Err(Error::Refused("nothing was sent".to_owned()));
        }
        Err(Error::Refused(format!("{told}; or send it with --anyway")))
    }

    /// A message that has not gone out: it is in the outbox, on disk.
    async fn kept(&self, session: Session, matter: MatterId, id: MessageId, full: bool) -> Result<(), Error> {
        let stage = session.device.matter(matter).map(|row| row.stage).filter(|_| session.is_up());
        let told = session.state_told(matter).unwrap_or("The relay has not taken it yet.");
        let error = not_out(stage, told, put_off(&session, matter), full);
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
        let from = match after {
            Some(after) => after,
            None => marks::shown(&session, None)?,
        };
        let mut printed = Printed { from, whole: from, again: after.is_some(), ..Printed::default() };
        let ended = self.recv_all(&mut session, &mut printed, follow).await;
        self.print_new(&mut session, &mut printed)?;
        self.print_held(&mut session, &mut printed)?;
        if printed.restored.take().is_some() {
            warn(&[Notice::Restored]);
        }
        let settled = match ended {
            Ok(true) => self.done(session).await,
            other => {
                session.close().await;
                other.map(|_caught_up| ())
            }
        };
        if printed.forked {
            return Err(Error::Untrusted(
                "the relay shows another history of a matter than before: it has stopped, and what was not sent yet there stays here, \
                 marked not sent. Tell your firm's IT, and talk to the others by telephone"
                    .to_owned(),
            ));
        }
        settled?;
        match self.distrust.get() {
            Some(Distrust::Log) => Err(Error::Untrusted(
                "the relay's audit log is not one and the same for all, as warned above: `privity security show` says what was found, \
                 `privity audit proof` keeps it for others to check. Tell somebody at the firm whom you trust, by another way"
                    .to_owned(),
            )),
            _ => Ok(()),
        }
    }

    /// Prints what comes until there is no more, or until Ctrl-C. Whether this device has caught up.
    async fn recv_all(&self, session: &mut Session, printed: &mut Printed, follow: bool) -> Result<bool, Error> {
        self.print_new(session, printed)?;
        let mut interrupt = pin!(tokio::signal::ctrl_c());
        let mut caught_up = false;
        let mut down = None;
        let mut deadline = self.deadline();
        loop {
            let until = printed.until().map_or(deadline, |until| until.min(deadline));
            let told = tokio::select! {
                told = session.next(until) => told?,
                _ = &mut interrupt => return Ok(false),
            };
            match told {
                Told::Notice(notice) => match *notice {
                    Notice::Recorded(_) => deadline = self.deadline(),
                    Notice::CaughtUp => {
                        caught_up = true;
                        deadline = self.deadline();
                    }
                    // Told with what it led to, or alone if that is nothing.
                    Notice::Restored if !self.json => printed.restored = Some(Instant::now()),
                    // Its record says so.
                    Notice::Problem(ProtocolError::PeerMisbehaved(PeerMisbehaved::Fork { .. })) => {}
                    other => self.heed(&[other]),
                },
                Told::Up => down = None,
                Told::Down(why) => {
                    if follow && down.is_none() {
                        out::note(&format!("privity: {}; trying again", view::plain(&why, false)));
                    }
                    down = Some(why);
                }
                Told::Quiet if Instant::now() < deadline => {
                    self.print_held(session, printed)?;
                    if printed.restored.take_if(|at| at.elapsed() >= GATHER).is_some() {
                        warn(&[Notice::Restored]);
                    }
                }
                Told::Quiet if follow && self.asked.is_none() => deadline = self.deadline(),
                Told::Quiet => break,
            }
            self.print_new(session, printed)?;
            if caught_up && !follow && self.asked.is_none() {
                break;
            }
        }
        match down {
            _ if caught_up || follow => Ok(caught_up),
            Some(why) => Err(Error::Network(format!("{why}; what is shown is what was here already"))),
            None => Err(Error::Network("the relay does not answer; what is shown was here already".to_owned())),
        }
    }

    /// Prints records that were not shown before, or all of them, and remembers that they were, up to a gap. What belongs to a larger event is
    /// held for a moment, and printed as one.
    fn print_new(&self, session: &mut Session, printed: &mut Printed) -> Result<(), Error> {
        loop {
            let records = session.vault.records(None, printed.from, PAGE)?;
            let Some(last) = records.last().map(|record| record.cursor) else { break };
            for record in records {
                if !printed.again && marks::shown(session, Some(record.matter))? >= record.cursor {
                    continue;
                }
                printed.forked |= matches!(record.what, RecordBody::Forked { .. });
                if self.json {
                    out::line(&view::compact(&view::json(&session.device, &record)))?;
                    continue;
                }
                for group in printed.notes.push(record) {
                    printed.print(session, &group)?;
                }
            }
            printed.since = printed.since.or_else(|| (!printed.notes.is_empty()).then(Instant::now));
            let whole = printed.notes.first().map_or(last, |first| first - 1);
            marks::mark_from(session, printed.whole, whole)?;
            (printed.from, printed.whole) = (last, whole);
        }
        if printed.notes.is_empty() {
            printed.since = None;
        }
        if printed.until().is_some_and(|until| until <= Instant::now()) {
            return self.print_held(session, printed);
        }
        Ok(())
    }

    /// Prints what was held.
    fn print_held(&self, session: &mut Session, printed: &mut Printed) -> Result<(), Error> {
        for group in printed.notes.flush() {
            printed.print(session, &group)?;
        }
        printed.since = None;
        marks::mark_from(session, printed.whole, printed.from)?;
        printed.whole = printed.from;
        Ok(())
    }

    pub(super) fn read(&self, matter: &str, pending: bool) -> Result<(), Error> {
        let (_held, session) = self.open()?;
        let matter = view::find_matter(&session.device, matter)?;
        if !pending {
            self.read_past(&session, matter)?;
            let (mut from, mut notes) = (0, view::Notes::default());
            let show = |group: &[Record]| out::text(&view::lines(&session.device, group, now()));
            loop {
                let records = session.vault.records(Some(matter), from, PAGE)?;
                let Some(last) = records.last().map(|record| record.cursor) else { break };
                for record in records {
                    if self.json {
                        out::line(&view::compact(&view::json(&session.device, &record)))?;
                    } else {
                        notes.push(record).iter().try_for_each(|group| show(group))?;
                    }
                }
                from = last;
            }
            notes.flush().iter().try_for_each(|group| show(group))?;
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
            let shown = if state == "refused" { "not sent" } else { state };
            self.print(&object, || format!("--:--  you ({shown}): {}", view::plain(&text, true)))?;
        }
        Ok(())
    }
}

/// What the user is to know before anything more is sent in a matter.
fn asked_first(device: &Device, matter: MatterId) -> Option<String> {
    if let Some(person) = device.matter(matter).and_then(|row| row.disputed) {
        return Some(format!(
            "{} says to have read something else in this matter than you; nothing was sent. Compare by telephone what both of you see",
            view::person(device, person)
        ));
    }
    let (told, first) = (view::lapses_told(device, matter)?, device.lapses_in(matter).first().copied()?);
    let way_out = view::way_out(device, matter, first.person);
    Some(format!("{told}; nothing was sent. To go on without them, {way_out}"))
}

impl Run {
    /// What another device has sent of a matter: it was said before anything that this one has read.
    fn read_past(&self, session: &Session, matter: MatterId) -> Result<(), Error> {
        let (mut after, mut notes, mut some) = (Vec::new(), view::Notes::default(), false);
        let show = |group: &[Record]| out::text(&view::lines(&session.device, group, now()));
        loop {
            let rows = session.vault.past(matter, &after, PAGE)?;
            let Some(last) = rows.last().map(|(key, _)| key.clone()) else { break };
            if !some && !self.json {
                out::text(view::PAST_BEGINS)?;
            }
            some = true;
            for (_, record) in rows {
                if self.json {
                    out::line(&view::compact(&view::json_received(&session.device, &record)))?;
                } else {
                    notes.push(record).iter().try_for_each(|group| show(group))?;
                }
            }
            after = last;
        }
        notes.flush().iter().try_for_each(|group| show(group))?;
        if some && !self.json { out::text(view::PAST_ENDS) } else { Ok(()) }
    }
}

/// How far `recv` has come.
#[derive(Default)]
struct Printed {
    /// The last cursor that was looked at.
    from: u64,
    /// The last one up to which everything was printed.
    whole: u64,
    /// Whether what was shown before is printed again.
    again: bool,
    /// Whether a fork was among it.
    forked: bool,
    /// What is held, to be printed as one, and since when.
    notes: view::Notes,
    since: Option<Instant>,
    /// When the relay was found to be restored, until a note says so.
    restored: Option<Instant>,
}

impl Printed {
    /// When what is held is printed at the latest.
    fn until(&self) -> Option<Instant> {
        [self.since, self.restored].into_iter().flatten().min().map(|since| since + GATHER)
    }

    fn print(&mut self, session: &Session, group: &[Record]) -> Result<(), Error> {
        let Some(record) = group.first() else { return Ok(()) };
        if group.iter().any(|record| matches!(record.what, RecordBody::Restored { .. })) {
            self.restored = None;
        }
        let title = view::title(&session.device, record.matter);
        out::text(&format!("{title:<24} {}", view::lines(&session.device, group, now())))
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

fn is_forked(session: &Session, matter: MatterId) -> bool {
    session.device.matter(matter).is_some_and(|row| row.stage == Stage::Forked)
}

/// A text on its way when its matter stopped.
fn forked() -> Error {
    Error::Untrusted(
        "the relay shows another history of this matter than before, and it has stopped. The message was not sent; it stays here, marked \
         not sent (`privity read MATTER --pending`). Tell your firm's IT, and talk to the others by telephone"
            .to_owned(),
    )
}

/// For how long the relay has put off what waits in a matter.
fn put_off(session: &Session, matter: MatterId) -> Option<Duration> {
    let until = session.device.put_off_until(matter)?;
    Some(Duration::from_millis(until.0.saturating_sub(now().0))).filter(|wait| !wait.is_zero())
}

/// Why a message is kept, by where its matter stands (none without a link), what is told of that, and what the relay said; with the exit code for it.
fn not_out(stage: Option<Stage>, told: &str, put_off: Option<Duration>, full: bool) -> Error {
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
        (Some(_), _) => Error::NotYet(format!("the message is kept, and goes out as soon as it can. {told}")),
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
                Notice::Unsendable { matter: m, id: i, why } if m == matter && i == id => {
                    return Err(if is_forked(session, matter) { forked() } else { why.into() });
                }
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
            Some(Stage::Forked) => return Err(forked()),
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
            let told = stage.and_then(view::stage_told).unwrap_or_default();
            let error = not_out(stage, told, put_off, full);
            assert_eq!(error.exit_code(), code, "{stage:?} {put_off:?} {full}: {error}");
            assert!(error.to_string().contains(part) && error.to_string().contains("kept"), "{error}");
        }
    }
}
