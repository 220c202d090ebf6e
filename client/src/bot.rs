//! For bots and other programs: a profile as a stream of events that the program acknowledges, and a way to answer.
//!
//! 1. [`Bot::next`] gives what happens, one [`Event`] after the other, in the order in which this device recorded it.
//! 2. [`Bot::done`] says that an event needs no more work. What was not acknowledged comes again after a restart or a crash.
//! 3. [`Bot::send`] takes an id: the same id is never sent twice. [`Bot::answer`] makes it from the message that is answered, so that
//!    working on an event once more does no harm.
//!
//! A bot that answers every message; `examples/echo_bot.rs` is a whole program:
//! ```no_run
//! # async fn bot() -> Result<(), privity_client::error::Error> {
//! use privity_client::bot::{Bot, Event};
//!
//! let mut bot = Bot::open("/srv/bot", "/srv/bot.passphrase").await?;
//! loop {
//!     let event = bot.next().await?;
//!     if let Event::Message(message) = &event {
//!         bot.answer(message, "Thank you; somebody will call you today.")?;
//!     }
//!     bot.done(&event)?;
//! }
//! # }
//! ```
//!
//! The link comes and goes by itself, while [`Bot::next`] runs: what was sent goes out from there, too. It may be cancelled at any time, so
//! that `tokio::select!` can wait for other things beside it. A program that should only look at matters needs no [`Bot::next`] at all.
//!
//! Invariant: an event is handed out again until it was acknowledged, and nothing is handed out before it is on disk.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use privity_protocol::cbor;
use privity_protocol::device::Notice;
use privity_protocol::device::state::{Batch, Record, RecordBody, Stage, Table};
use privity_protocol::error::Refused;
use privity_protocol::ids::{MatterId, MessageId, PersonId, Timestamp};
use privity_protocol::suite::Digest;

use crate::error::Error;
use crate::home::{Held, Home};
use crate::join::{self, Wanted};
use crate::session::{Session, Told, now};
use crate::{marks, vault, view};

/// The row with the cursor of the last event that was acknowledged.
const CURSOR: &[u8] = b"bot";
/// Records read at once.
const PAGE: usize = 100;
const FAR: Duration = Duration::from_secs(3600);
/// How long joining may take.
const JOIN: Duration = Duration::from_secs(20);
/// How long [`Bot::add`] waits for the relay.
const ADD: Duration = Duration::from_secs(20);
/// How long [`Bot::close`] lets messages go out.
const LAST: Duration = Duration::from_secs(5);

/// An open profile, for a program. One program at a time uses a profile.
#[derive(Debug)]
pub struct Bot {
    session: Session,
    /// The last cursor handed out.
    read: u64,
    page: VecDeque<Record>,
    /// What was told while something else was waited for.
    told: VecDeque<Told>,
    #[expect(dead_code, reason = "held for its lock alone")]
    held: Held,
}

/// A matter, as a program sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MatterView {
    /// Which.
    pub id: MatterId,
    /// Its title, as it was typed: [`view::plain`] it before it reaches a terminal.
    pub title: String,
    /// How far it has come; only in an open one is anything sent at once.
    pub stage: Stage,
    /// Who is in it.
    pub people: Vec<PersonId>,
    /// Who says to have read something else there: sending waits for [`Bot::go_on`].
    pub disputed: Option<PersonId>,
    /// For whom there nobody vouches any more: likewise.
    pub lapsed: Vec<PersonId>,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// Somebody else said something.
    Message(Message),
    /// Anything else that is recorded: people who come and go, trouble and its end, what this person said on this device or another.
    Recorded(Record),
    /// The relay refused a message of this device for good.
    NotSent {
        /// In which matter.
        matter: MatterId,
        /// Which message.
        id: MessageId,
        /// Why.
        why: Refused,
    },
    /// The relay can be reached.
    Online,
    /// It can't, and is tried again.
    Offline(String),
    /// Something else that the device tells.
    Notice(Notice),
}

/// What became of adding somebody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Added {
    /// They are in the matter.
    Done,
    /// They are not ready yet, and will be added as soon as they are; that needs this device to be online.
    Waits,
}

/// What somebody else said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Where it stands among all events.
    pub cursor: u64,
    /// In which matter.
    pub matter: MatterId,
    /// Where it stands there.
    pub seq: u64,
    /// Its id.
    pub id: MessageId,
    /// Who said it.
    pub from: Option<PersonId>,
    /// What to call them, plain.
    pub who: String,
    /// When, by their clock.
    pub sent_at: Timestamp,
    /// What they said, as it was typed: [`view::plain`] it before it reaches a terminal.
    pub text: String,
}

impl Event {
    /// Where it stands; none for what is not recorded and needs no acknowledgement.
    pub fn cursor(&self) -> Option<u64> {
        match self {
            Self::Message(message) => Some(message.cursor),
            Self::Recorded(record) => Some(record.cursor),
            _ => None,
        }
    }
}

/// A message's id from a name of the program's own, such as a row's key in its database: the same name, the same id.
pub fn message_id(name: &str) -> MessageId {
    let digest = Digest::of(&[b"privity bot message\0", name.as_bytes()]);
    let mut id = [0; 16];
    id.iter_mut().zip(digest.as_bytes()).for_each(|(to, from)| *to = *from);
    MessageId::new(id)
}

impl Bot {
    /// Joins with an invite, in a folder of its own.
    ///
    /// # Errors
    /// [`Error`] if the relay can't be reached or refuses the invite, or the folder is a profile already.
    pub async fn join(
        folder: impl Into<PathBuf>,
        passphrase_file: impl Into<PathBuf>,
        wanted: Wanted,
    ) -> Result<Self, Error> {
        let home = Home::new(Some(folder.into()), Some(passphrase_file.into()))?;
        let (held, session, _) = join::joined(&home, wanted, false, JOIN).await?;
        Self::with(held, session)
    }

    /// Opens the profile in a folder, also without a network. It waits for ten seconds if another program uses it, and about one for the
    /// passphrase to be stretched; both block the thread.
    ///
    /// # Errors
    /// [`Error::Usage`] if nobody has joined there or the passphrase is wrong; [`Error::Machine`] if another program uses it.
    pub async fn open(folder: impl Into<PathBuf>, passphrase_file: impl Into<PathBuf>) -> Result<Self, Error> {
        let home = Home::new(Some(folder.into()), Some(passphrase_file.into()))?;
        let held = home.hold_joined()?;
        let mut vault = home.open_vault()?;
        join::finish(&home, &mut vault, Instant::now() + JOIN).await?;
        Self::with(held, Session::open(vault)?)
    }

    fn with(held: Held, session: Session) -> Result<Self, Error> {
        let read = match session.vault.get(Table::Counter, None, CURSOR)? {
            Some(cursor) => cbor::decode(&cursor, "cursor")?,
            None => marks::shown(&session, None)?,
        };
        Ok(Self { session, read, page: VecDeque::new(), told: VecDeque::new(), held })
    }

    /// Who this is.
    pub fn me(&self) -> PersonId {
        self.session.device.profile().person
    }

    /// Every matter.
    pub fn matters(&self) -> Vec<MatterView> {
        let matters = self.session.device.matters().map(|(id, row)| MatterView {
            id,
            title: row.title.clone(),
            stage: row.stage,
            people: row.people.clone(),
            disputed: row.disputed,
            lapsed: self.session.device.lapses_in(id).iter().map(|lapse| lapse.person).collect(),
        });
        matters.collect()
    }

    /// The matter that a title, an id, or the beginning of one means.
    ///
    /// # Errors
    /// [`Error::Usage`] if none or several are meant.
    pub fn matter(&self, asked: &str) -> Result<MatterId, Error> {
        view::find_matter(&self.session.device, asked)
    }

    /// Says something. It is on disk when this returns, and goes out while [`Self::next`] runs. With an id that was used before nothing
    /// more is sent, also after a restart. [`message_id`] makes an id from a name.
    ///
    /// # Errors
    /// [`Error::Refused`] where this person may not, or somebody disputes what was read there; [`Error::Usage`] for a text that is
    /// empty or too large.
    pub fn send(&mut self, matter: MatterId, id: MessageId, text: &str) -> Result<(), Error> {
        if text.trim().is_empty() {
            return Err(Error::Usage("nothing to send: the message is empty".to_owned()));
        }
        self.session.send(matter, id, text).map(|_seq| ())
    }

    /// Answers a message, once: answering the same message again sends nothing.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub fn answer(&mut self, message: &Message, text: &str) -> Result<(), Error> {
        self.send(message.matter, message_id(&format!("answer to {}", message.id)), text)
    }

    /// Adds somebody to a matter by their handle, and waits for it, twenty seconds at most; what happens meanwhile comes from [`Self::next`].
    /// May be cancelled, and called again for somebody who is in already.
    ///
    /// # Errors
    /// [`Error::Refused`] where this person may not; [`Error::Usage`] for a handle or a matter that is not there; [`Error::Network`] if the
    /// relay does not answer: then call it again.
    pub async fn add(&mut self, matter: MatterId, handle: &str) -> Result<Added, Error> {
        let until = Instant::now() + ADD;
        while !self.session.device.is_caught_up() {
            let told = self.session.next(until).await?;
            if told == Told::Quiet {
                return Err(Error::Network("the relay can't be reached; nobody was added".to_owned()));
            }
            self.told.push_back(told);
        }
        self.session.device.ask_people(now());
        let people = self
            .until(until, |notice| match notice {
                Notice::People(people) => Some(people.clone()),
                _ => None,
            })
            .await?;
        let person = view::find_person(&people, handle)?;
        self.session.device.add(now(), matter, person, handle)?;
        let is_mine = |of: &MatterId, who: &PersonId| *of == matter && *who == person;
        self.until(until, |notice| match notice {
            Notice::Done { matter: of, person: who, add: true } if is_mine(of, who) => Some(Ok(Added::Done)),
            Notice::Waits { matter: of, person: who } if is_mine(of, who) => Some(Ok(Added::Waits)),
            Notice::NotDone { matter: of, person: who, why } if is_mine(of, who) => Some(Err(why.clone().into())),
            _ => None,
        })
        .await?
    }

    /// Drives the session until `answer` finds what it looks for; everything else is kept for [`Self::next`].
    async fn until<T>(
        &mut self,
        until: Instant,
        mut answer: impl FnMut(&Notice) -> Option<T> + Send,
    ) -> Result<T, Error> {
        loop {
            match self.session.next(until).await? {
                Told::Quiet => return Err(Error::Network("the relay did not answer in time".to_owned())),
                told => {
                    if let Told::Notice(notice) = &told
                        && let Some(answer) = answer(notice)
                    {
                        return Ok(answer);
                    }
                    self.told.push_back(told);
                }
            }
        }
    }

    /// Says that sending goes on in a matter that is disputed, or has people for whom nobody vouches; see [`MatterView::disputed`]. That is
    /// for people to decide.
    ///
    /// # Errors
    /// [`Error::Usage`] if there is no such matter.
    pub fn go_on(&mut self, matter: MatterId) -> Result<(), Error> {
        self.session.go_on(matter)
    }

    /// The next event. Waits for one, and drives everything while it does. May be cancelled and called again.
    ///
    /// # Errors
    /// [`Error`] where going on is of no use: the vault fails, another relay answers, or this device is refused for good.
    pub async fn next(&mut self) -> Result<Event, Error> {
        loop {
            if let Some(record) = self.page.pop_front() {
                self.read = record.cursor;
                return Ok(self.event(record));
            }
            self.session.drain()?;
            self.page = self.session.vault.records(None, self.read, PAGE)?.into();
            if !self.page.is_empty() {
                continue;
            }
            let told = match self.told.pop_front() {
                Some(told) => told,
                None => self.session.next(Instant::now() + FAR).await?,
            };
            match told {
                Told::Up => return Ok(Event::Online),
                Told::Down(why) => return Ok(Event::Offline(why)),
                Told::Notice(notice) => match *notice {
                    // It is in the vault now, and read from there.
                    Notice::Recorded(_) => {}
                    Notice::Unsendable { matter, id, why } => return Ok(Event::NotSent { matter, id, why }),
                    other => return Ok(Event::Notice(other)),
                },
                Told::Quiet => {}
            }
        }
    }

    fn event(&self, record: Record) -> Event {
        let me = self.me();
        match record.what {
            RecordBody::Text { id, text } if record.from != Some(me) => Event::Message(Message {
                cursor: record.cursor,
                matter: record.matter,
                seq: record.seq,
                id,
                from: record.from,
                who: record.from.map_or_else(String::new, |from| view::person(&self.session.device, from)),
                sent_at: record.at,
                text,
            }),
            _ => Event::Recorded(record),
        }
    }

    /// Acknowledges an event and all before it: they are not handed out again. On disk when this returns.
    ///
    /// # Errors
    /// [`Error::Machine`] if the vault fails.
    pub fn done(&mut self, event: &Event) -> Result<(), Error> {
        let Some(cursor) = event.cursor() else { return Ok(()) };
        let before = self.session.vault.get(Table::Counter, None, CURSOR)?;
        let before: Option<u64> = before.and_then(|before| cbor::decode(&before, "cursor").ok());
        if before.is_some_and(|before| before >= cursor) {
            return Ok(());
        }
        let mut batch = Batch::default();
        batch.put(Table::Counter, None, CURSOR, &cursor);
        self.session.vault.apply(batch)
    }

    /// Hands out what stands after a cursor next, whatever was acknowledged: for programs that keep the cursor themselves; 0 begins
    /// with the first event there is.
    pub fn resume_after(&mut self, cursor: u64) {
        self.page.clear();
        self.read = cursor;
    }

    /// The session below, for everything else: opening matters, removing people, inviting. Whoever drives it takes its notices, but no
    /// recorded event from this stream.
    pub fn session(&mut self) -> &mut Session {
        &mut self.session
    }

    /// Lets what was sent go out, for five seconds at most, and ends the link. What is left goes out the next time.
    ///
    /// # Errors
    /// As [`Self::next`].
    pub async fn close(mut self) -> Result<(), Error> {
        let settled = self.session.settle(Instant::now() + LAST).await;
        self.session.close().await;
        settled.map(|_notices| ())
    }
}

impl Wanted {
    /// Joining with an invite as somebody with this handle and name.
    pub fn new(invite: &str, handle: &str, name: &str) -> Self {
        let (handle, name) = (Some(handle.to_owned()), Some(name.to_owned()));
        Self { invite: invite.to_owned(), handle, name, role: None, kdf_memory: vault::KDF_MEMORY_MIB }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_send<T: Send>(_: &T) {}

    #[test]
    fn a_bot_runs_on_any_runtime() {
        let mut bot = None::<Bot>;
        is_send(&bot);
        is_send(&async { if let Some(bot) = bot.as_mut() { bot.next().await } else { Ok(Event::Online) } });
    }

    #[test]
    fn the_same_name_makes_the_same_id_and_another_another() {
        assert_eq!(message_id("order 7"), message_id("order 7"));
        assert_ne!(message_id("order 7"), message_id("order 8"));
    }
}
