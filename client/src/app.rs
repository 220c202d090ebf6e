//! `chat` without a terminal, a vault or a network: what is typed and what happens, and what that leads to. Pure.
//!
//! 1. The shell keeps [`App::rooms`] and [`App::words`] as they are, and hands in every [`Event`].
//! 2. It carries out the [`Effect`]s in order.
//!
//! Invariant: what is shown is [`plain`] already, and a message is shown in the matter it belongs to or not at all.

use std::collections::HashSet;

use privity_protocol::ids::{MatterId, MessageId};

use crate::command::{self, Typed, Verb, Words};
use crate::error::Error;
use crate::view::{Choice, counted, find_among, plain, short, state_shown, titled};

/// Lines of history that `/history` shows unless it is told.
pub const HISTORY: usize = 20;
/// Columns of a title in the prompt.
const TITLE_COLUMNS: usize = 32;

/// A matter as `chat` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Room {
    /// Which.
    pub id: MatterId,
    /// Its title, as it is.
    pub title: String,
    /// The handles of everybody else in it.
    pub people: Vec<String>,
    /// How far it has come, in a word.
    pub stage: &'static str,
    /// Who says to have read something else there, until the user says to go on.
    pub disputed: Option<String>,
    /// For whom there nobody vouches any more and why, and what to do, until the user says to go on.
    pub lapsed: Option<String>,
    /// Messages of others that were not shown.
    pub unread: usize,
    /// Messages that the relay does not have yet.
    pub unsent: usize,
    /// Handles of people who are to be added as soon as they are ready.
    pub waiting: Vec<String>,
}

/// What happens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A line was typed.
    Line(String),
    /// No more lines come.
    End,
    /// Ctrl-C.
    Interrupted,
    /// A record is in the vault.
    Recorded {
        /// Of which matter.
        matter: MatterId,
        /// The message, if it is one.
        id: Option<MessageId>,
        /// Whether it is a message of somebody else.
        theirs: bool,
        /// As it is shown.
        line: String,
        /// Its cursor.
        cursor: u64,
    },
    /// A new matter is open here: opened by this device, or joined.
    Joined(MatterId),
    /// The relay can be reached.
    Up,
    /// It can't.
    Down(String),
    /// Something else worth a line.
    Told(String),
}

/// What that leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Show a line.
    Show(String),
    /// Show a record of the open matter, or nothing where it is on the screen already, and remember that it was shown.
    ShowRecord(Option<String>, u64),
    /// Show what is new in a matter, after a few lines that are not.
    Enter(MatterId),
    /// Show the last lines of a matter.
    History(MatterId, usize),
    /// Send a text.
    Send(MatterId, String),
    /// Open a matter.
    Open(String),
    /// Add or remove somebody.
    Change {
        /// Where.
        matter: MatterId,
        /// Whom.
        handle: String,
        /// Add or remove.
        add: bool,
    },
    /// Make an invite.
    Invite(String),
    /// Show everyone there is.
    People,
    /// Show who is in a matter.
    Who(MatterId),
    /// Go on in a disputed matter.
    GoOn(MatterId),
    /// Show what waits in all matters.
    Pending,
    /// Show who and where one is.
    Status,
    /// End.
    Quit,
}

/// The state of a chat.
#[derive(Debug, Default)]
pub struct App {
    /// The matters.
    pub rooms: Vec<Room>,
    /// What may be completed.
    pub words: Words,
    /// Whether what is typed stays on the screen by itself.
    echoes: bool,
    current: Option<MatterId>,
    typed: HashSet<MessageId>,
    /// What was typed in a disputed matter, until the user says to go on.
    held: Option<(MatterId, Vec<String>)>,
    down: bool,
    /// Whether this person may open matters.
    manages: bool,
    /// Whether this person was here before, and has begun again: their matters let them back in.
    again: bool,
    /// How many messages were typed where no matter was chosen.
    lost: usize,
}

impl App {
    /// A chat of somebody who `manages` matters, or does not. `echoes` says that a typed line stays on the screen, and needs not be shown
    /// once more when it was sent.
    pub fn new(echoes: bool, manages: bool) -> Self {
        Self { echoes, manages, ..Self::default() }
    }

    /// The same, of somebody who was here before and has begun again, or not.
    #[must_use]
    pub fn again(self, again: bool) -> Self {
        Self { again, ..self }
    }

    /// How many messages were typed where no matter was chosen: nobody has them.
    pub fn lost(&self) -> usize {
        self.lost
    }

    /// The matter that messages go to.
    pub fn current(&self) -> Option<MatterId> {
        self.current
    }

    /// Whether the user was told that the relay can't be reached.
    pub fn is_down(&self) -> bool {
        self.down
    }

    /// Begins in a matter, or in the only one there is.
    ///
    /// # Errors
    /// [`Error::Usage`] where one must be chosen and nobody is there to be asked.
    pub fn begin(&mut self, asked: Option<MatterId>) -> Result<Vec<Effect>, Error> {
        let only = match self.rooms.as_slice() {
            [room] => Some(room.id),
            _ => None,
        };
        Ok(match asked.or(only) {
            Some(matter) => self.enter(matter),
            None if self.rooms.is_empty() && self.again => show(
                "Your matters let you back in as soon as somebody else in each of them is online; they open here by themselves. Leave this \
                 running. /help helps.",
            ),
            None if self.rooms.is_empty() && self.manages => {
                show("You are in no matter yet. /new TITLE opens one; or wait until somebody adds you. /help helps.")
            }
            None if self.rooms.is_empty() => {
                show("You are in no matter yet. Your lawyer adds you to one; it opens here by itself. /help helps.")
            }
            None if !self.echoes => {
                let choices: Vec<String> = self.choices().iter().map(Choice::shown).collect();
                return Err(Error::Usage(format!(
                    "which matter? Say `privity chat MATTER`, by its title or the beginning of its id: {}",
                    choices.join("; ")
                )));
            }
            None => {
                let mut effects = self.matters();
                effects.extend(show("Choose one with /switch MATTER."));
                effects
            }
        })
    }

    /// A message was put into the outbox from here.
    pub fn sent(&mut self, id: MessageId) {
        self.typed.insert(id);
    }

    /// What stands before what is typed.
    pub fn prompt(&self) -> String {
        let room = self.current.and_then(|id| self.rooms.iter().find(|room| room.id == id));
        let title = room.map_or_else(|| "privity".to_owned(), |room| self.label(room));
        let mut notes = Vec::new();
        if self.down {
            notes.push("offline".to_owned());
        }
        // Online, what was just typed is on its way.
        let unsent = room.filter(|_| self.down).map_or(0, |room| room.unsent);
        if unsent > 0 {
            notes.push(format!("{unsent} unsent"));
        }
        let elsewhere: usize =
            self.rooms.iter().filter(|room| Some(room.id) != self.current).map(|room| room.unread).sum();
        if elsewhere > 0 {
            notes.push(format!("{elsewhere} new elsewhere"));
        }
        if notes.is_empty() { format!("{title}> ") } else { format!("{title} [{}]> ", notes.join(", ")) }
    }

    /// What an event leads to.
    pub fn handle(&mut self, event: Event) -> Vec<Effect> {
        match event {
            Event::Line(line) => self.line(&line),
            Event::End => vec![Effect::Quit],
            Event::Interrupted => show("To end, type /quit or Ctrl-D."),
            Event::Recorded { matter, id, theirs, line, cursor } => {
                let typed = id.is_some_and(|id| self.typed.remove(&id));
                let line = (!(typed && self.echoes)).then_some(line);
                self.recorded(matter, theirs, line, cursor)
            }
            Event::Joined(matter) if self.current.is_none() => {
                // The prompt stands while a line is typed, and names the matter only from the next one on.
                let mut effects =
                    show(&format!("— you are in {} now: what you type from here on goes there", self.title(matter)));
                effects.extend(self.enter(matter));
                effects
            }
            Event::Joined(matter) => {
                let title = self.title(matter);
                show(&format!("— you are in a new matter: {title} (/switch {})", self.typed_as(matter)))
            }
            Event::Up if std::mem::take(&mut self.down) => show("— connected again"),
            Event::Up => Vec::new(),
            Event::Down(_) if self.down => Vec::new(),
            Event::Down(why) => {
                self.down = true;
                let why = plain(&why, false);
                show(&format!("— offline: {why}. What you write is kept, and goes out by itself"))
            }
            Event::Told(text) => show(&text),
        }
    }

    fn line(&mut self, line: &str) -> Vec<Effect> {
        match command::parse(line) {
            Typed::Empty => Vec::new(),
            Typed::Wrong(why) => show(&plain(&why, false)),
            Typed::Text(text) => match self.current.filter(|matter| self.asks(*matter)) {
                Some(matter) => self.answered(matter, text),
                None => {
                    self.lost += usize::from(self.current.is_none());
                    self.in_matter(|matter| vec![Effect::Send(matter, text)])
                }
            },
            Typed::Command(verb, argument) => self.command(verb, &argument),
        }
    }

    fn command(&mut self, verb: Verb, argument: &str) -> Vec<Effect> {
        match verb {
            Verb::Help => command::help().into_iter().map(Effect::Show).collect(),
            Verb::Matters => self.matters(),
            Verb::Switch => match self.find(argument) {
                Ok(matter) => self.enter(matter),
                Err(error) => show(&error.to_string()),
            },
            Verb::New => vec![Effect::Open(argument.to_owned())],
            Verb::Add | Verb::Remove => self.in_matter(|matter| {
                let handles = argument.split_whitespace().map(|handle| handle.trim_start_matches('@'));
                let change =
                    |handle: &str| Effect::Change { matter, handle: handle.to_owned(), add: verb == Verb::Add };
                handles.map(change).collect()
            }),
            Verb::Invite => match command::ROLES.iter().find(|role| **role == argument || argument.is_empty()) {
                Some(role) => vec![Effect::Invite((*role).to_owned())],
                None => show("/invite takes client, attorney or staff"),
            },
            Verb::People => vec![Effect::People],
            Verb::Who => self.in_matter(|matter| vec![Effect::Who(matter)]),
            Verb::Anyway => match self.current.filter(|matter| self.asks(*matter)) {
                Some(matter) => self.go_on(matter),
                None => self.in_matter(|_| show("There is nothing to go on with: nothing here waits for your word.")),
            },
            Verb::Pending => vec![Effect::Pending],
            Verb::History => match argument.parse() {
                Ok(lines) => self.in_matter(|matter| vec![Effect::History(matter, lines)]),
                Err(_) if argument.is_empty() => self.in_matter(|matter| vec![Effect::History(matter, HISTORY)]),
                Err(_) => show("/history takes a number of lines"),
            },
            Verb::Status => vec![Effect::Status],
            Verb::Quit => vec![Effect::Quit],
        }
    }

    /// Whether sending there waits for the user to say to go on.
    fn asks(&self, matter: MatterId) -> bool {
        self.room(matter).is_some_and(|room| room.disputed.is_some() || room.lapsed.is_some())
    }

    /// A text typed where sending waits: the answer, or one more that waits for it.
    fn answered(&mut self, matter: MatterId, text: String) -> Vec<Effect> {
        let asked = self.held.as_ref().is_some_and(|(held, _)| *held == matter);
        match text.trim().to_lowercase().as_str() {
            "yes" | "y" if asked => return self.go_on(matter),
            "no" | "n" if asked => {
                self.held = None;
                return show("— nothing was sent");
            }
            _ => {}
        }
        if asked {
            if let Some((_, texts)) = &mut self.held {
                texts.push(text);
            }
            return show("— not sent either: type yes or /anyway to send, no to drop what you typed");
        }
        // What was held elsewhere is not lost quietly.
        let mut effects = match self.held.replace((matter, vec![text])) {
            Some((elsewhere, texts)) => {
                let held = counted(texts.len(), "message", "messages");
                show(&format!("— {held} to {} not sent", self.title(elsewhere)))
            }
            None => Vec::new(),
        };
        let why = self.room(matter).map(|room| match (&room.disputed, &room.lapsed) {
            (Some(who), _) => {
                format!(
                    "{who} says to have read something else here than you. Compare by telephone what both of you see"
                )
            }
            (None, lapsed) => lapsed.clone().unwrap_or_default(),
        });
        effects.extend(show(&format!(
            "— not sent yet: {}. Send anyway? yes (or /anyway) sends, no drops it",
            why.unwrap_or_default()
        )));
        effects
    }

    fn go_on(&mut self, matter: MatterId) -> Vec<Effect> {
        if let Some(room) = self.rooms.iter_mut().find(|room| room.id == matter) {
            (room.disputed, room.lapsed) = (None, None);
        }
        let texts = self.held.take_if(|(held, _)| *held == matter).map(|(_, texts)| texts).unwrap_or_default();
        let sends = texts.into_iter().map(|text| Effect::Send(matter, text));
        [Effect::GoOn(matter)].into_iter().chain(sends).collect()
    }

    /// How many messages were typed and not sent, since sending waits for a yes.
    pub fn held(&self) -> usize {
        self.held.as_ref().map_or(0, |(_, texts)| texts.len())
    }

    fn recorded(&self, matter: MatterId, theirs: bool, line: Option<String>, cursor: u64) -> Vec<Effect> {
        if Some(matter) == self.current {
            return vec![Effect::ShowRecord(line, cursor)];
        }
        let first = self.rooms.iter().any(|room| room.id == matter && room.unread == 0);
        if theirs && first {
            return show(&format!("— new in {}: /switch {}", self.title(matter), self.typed_as(matter)));
        }
        Vec::new()
    }

    fn enter(&mut self, matter: MatterId) -> Vec<Effect> {
        self.current = Some(matter);
        vec![Effect::Enter(matter)]
    }

    fn in_matter(&self, then: impl FnOnce(MatterId) -> Vec<Effect>) -> Vec<Effect> {
        match self.current {
            Some(matter) => then(matter),
            None if self.manages => {
                show("You are in no matter: /switch MATTER chooses one, /new TITLE opens one. Nothing was sent.")
            }
            None => {
                show("You are in no matter: /switch MATTER chooses one, and your lawyer adds you. Nothing was sent.")
            }
        }
    }

    fn find(&self, asked: &str) -> Result<MatterId, Error> {
        find_among(&self.choices(), asked, self.manages)
    }

    fn choices(&self) -> Vec<Choice<'_>> {
        let rooms = self.rooms.iter();
        rooms.map(|room| Choice { id: room.id, title: &room.title, people: room.people.clone() }).collect()
    }

    fn matters(&self) -> Vec<Effect> {
        let mut effects = Vec::new();
        for room in &self.rooms {
            let mut notes = Vec::new();
            if room.stage != "open" {
                notes.push(state_shown(room.stage));
            }
            if room.disputed.is_some() {
                notes.push("disputed".to_owned());
            }
            if room.lapsed.is_some() {
                notes.push("asks before sending".to_owned());
            }
            if room.unread > 0 {
                notes.push(format!("{} new", room.unread));
            }
            if room.unsent > 0 {
                notes.push(format!("{} unsent", room.unsent));
            }
            if !room.waiting.is_empty() {
                notes.push(format!("waits for {}", plain(&room.waiting.join(", "), false)));
            }
            let here = if Some(room.id) == self.current { "*" } else { " " };
            let line = format!("{here} {}  {}  {}", short(room.id), plain(&room.title, false), notes.join(", "));
            effects.push(Effect::Show(line.trim_end().to_owned()));
        }
        effects.push(Effect::Show(counted(self.rooms.len(), "matter", "matters")));
        effects
    }

    fn room(&self, matter: MatterId) -> Option<&Room> {
        self.rooms.iter().find(|room| room.id == matter)
    }

    fn title(&self, matter: MatterId) -> String {
        let titles: Vec<(MatterId, &str)> = self.rooms.iter().map(|room| (room.id, room.title.as_str())).collect();
        titled(&titles, matter)
    }

    /// What `/switch` takes, for each matter.
    pub fn switches(&self) -> Vec<String> {
        self.rooms.iter().map(|room| self.typed_as(room.id)).collect()
    }

    /// What `/switch` takes for a matter: its title, or the beginning of its id where the title means several.
    fn typed_as(&self, matter: MatterId) -> String {
        match self.room(matter).map(|room| plain(&room.title, false)) {
            Some(title) if title == self.title(matter) => title,
            _ => short(matter),
        }
    }

    /// The title in the prompt.
    fn label(&self, room: &Room) -> String {
        let (whole, title) = (self.title(room.id), plain(&room.title, false));
        match whole.strip_prefix(&title) {
            Some(id) => shortened(&title) + id,
            None => shortened(&whole),
        }
    }
}

/// A prompt that was shown, brought up to date within its width: what it says in brackets is true again, and nothing moves. The prompt
/// itself is fixed while a line is typed.
pub fn fitted(shown: &str, now: &str) -> String {
    let parts = |prompt: &str| -> Option<(String, String)> {
        let inner = prompt.strip_suffix("]> ")?;
        let (title, notes) = inner.rsplit_once(" [")?;
        Some((title.to_owned(), notes.to_owned()))
    };
    let Some((title, notes)) = parts(shown) else { return shown.to_owned() };
    let fresh = match parts(now) {
        Some((other, fresh)) if other == title => fresh,
        None if now == format!("{title}> ") => "online".to_owned(),
        _ => return shown.to_owned(),
    };
    let width = notes.chars().count();
    let fresh: String = if fresh.chars().count() > width {
        fresh.chars().take(width.saturating_sub(1)).chain(['…']).collect()
    } else {
        format!("{fresh:<width$}")
    };
    format!("{title} [{fresh}]> ")
}

fn show(text: &str) -> Vec<Effect> {
    vec![Effect::Show(text.to_owned())]
}

fn shortened(title: &str) -> String {
    if title.chars().count() <= TITLE_COLUMNS {
        return title.to_owned();
    }
    title.chars().take(TITLE_COLUMNS - 1).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMITH: [u8; 16] = [1; 16];
    const DOE: [u8; 16] = [2; 16];

    fn room(id: [u8; 16], title: &str) -> Room {
        let (stage, waiting, disputed) = ("open", Vec::new(), None);
        let people = vec!["bob".to_owned()];
        let (id, title, lapsed) = (MatterId::new(id), title.to_owned(), None);
        Room { id, title, people, stage, disputed, lapsed, unread: 0, unsent: 0, waiting }
    }

    fn app() -> App {
        let mut app = App::new(true, true);
        app.rooms = vec![room(SMITH, "Smith v Jones"), room(DOE, "Estate of Doe")];
        app
    }

    fn line(app: &mut App, text: &str) -> Vec<Effect> {
        app.handle(Event::Line(text.to_owned()))
    }

    fn text(matter: [u8; 16], id: Option<MessageId>) -> Event {
        Event::Recorded {
            matter: MatterId::new(matter),
            id,
            theirs: id.is_none(),
            line: "12:00  Ada: hello".to_owned(),
            cursor: 7,
        }
    }

    #[test]
    fn nothing_is_sent_where_no_matter_was_chosen() {
        let mut app = app();
        assert!(matches!(app.begin(None).unwrap().last(), Some(Effect::Show(_))));
        assert!(matches!(line(&mut app, "a secret").as_slice(), [Effect::Show(_)]));
        assert_eq!(app.lost(), 1);
    }

    #[test]
    fn where_nobody_can_be_asked_a_matter_must_be_named() {
        let mut app = App { rooms: app().rooms, ..App::new(false, true) };
        let error = app.begin(None).unwrap_err();
        assert_eq!(error.exit_code(), 1);
        for part in ["Smith v Jones (bob)", "Estate of Doe (bob)", &short(MatterId::new(DOE))] {
            assert!(error.to_string().contains(part), "{error}");
        }
        app.rooms.pop();
        assert_eq!(app.begin(None).unwrap(), [Effect::Enter(MatterId::new(SMITH))], "the only one");
    }

    #[test]
    fn whoever_may_open_no_matter_is_told_to_wait_for_their_lawyer() {
        for (manages, part) in [(true, "/new TITLE"), (false, "Your lawyer adds you")] {
            let mut app = App::new(true, manages);
            let told = app.begin(None).unwrap();
            assert!(matches!(told.as_slice(), [Effect::Show(told)] if told.contains(part)), "{told:?}");
            let told = line(&mut app, "hello");
            let new = matches!(told.as_slice(), [Effect::Show(told)] if told.contains("/new"));
            assert_eq!(new, manages, "{told:?}");
        }
    }

    #[test]
    fn a_message_goes_to_the_matter_in_the_prompt() {
        let mut app = app();
        assert_eq!(line(&mut app, "/switch estate"), [Effect::Enter(MatterId::new(DOE))]);
        assert_eq!(app.prompt(), "Estate of Doe> ");
        assert_eq!(line(&mut app, "hello"), [Effect::Send(MatterId::new(DOE), "hello".to_owned())]);
    }

    #[test]
    fn a_message_of_another_matter_is_announced_and_not_shown() {
        let mut app = app();
        app.begin(Some(MatterId::new(SMITH))).unwrap();
        let told = app.handle(text(DOE, None));
        assert_eq!(told, show("— new in Estate of Doe: /switch Estate of Doe"));
        app.rooms[1].unread = 1;
        assert_eq!(app.handle(text(DOE, None)), []);
        assert_eq!(app.prompt(), "Smith v Jones [1 new elsewhere]> ");
    }

    #[test]
    fn what_was_typed_here_is_not_shown_twice() {
        let mut app = app();
        app.begin(Some(MatterId::new(SMITH))).unwrap();
        let id = MessageId::random();
        app.sent(id);
        assert_eq!(app.handle(text(SMITH, Some(id))), [Effect::ShowRecord(None, 7)]);
        // The same person on another device: shown.
        assert_eq!(app.handle(text(SMITH, Some(id))), [Effect::ShowRecord(Some("12:00  Ada: hello".to_owned()), 7)]);
    }

    #[test]
    fn a_lost_connection_is_told_once_and_stands_in_the_prompt() {
        let mut app = app();
        app.begin(Some(MatterId::new(SMITH))).unwrap();
        assert_eq!(app.handle(Event::Down("gone".to_owned())).len(), 1);
        assert_eq!(app.handle(Event::Down("gone".to_owned())), []);
        app.rooms[0].unsent = 2;
        assert_eq!(app.prompt(), "Smith v Jones [offline, 2 unsent]> ");
        assert_eq!(app.handle(Event::Up), show("— connected again"));
        assert_eq!(app.handle(Event::Up), []);
    }

    #[test]
    fn a_title_cannot_disturb_the_prompt() {
        let mut app = App::new(true, true);
        app.rooms = vec![room(SMITH, "\x1b]0;x\x07\u{202e}Smith\nv Jones with a title that is much too long")];
        app.begin(None).unwrap();
        assert_eq!(app.prompt(), "]0;xSmith v Jones with a title …> ");
    }

    #[test]
    fn a_dispute_asks_once_and_sends_what_was_typed_after_a_yes() {
        for yes in ["yes", " Y ", "/anyway"] {
            let mut app = app();
            app.begin(Some(MatterId::new(SMITH))).unwrap();
            app.rooms[0].disputed = Some("Eve (eve)".to_owned());
            let asked = line(&mut app, "yes");
            assert!(matches!(asked.as_slice(), [Effect::Show(told)] if told.contains("Eve (eve) says")), "{asked:?}");
            assert!(matches!(line(&mut app, "and more").as_slice(), [Effect::Show(_)]));
            assert_eq!(app.held(), 2);
            let (smith, text) = (MatterId::new(SMITH), |text: &str| text.to_owned());
            let sent = [Effect::GoOn(smith), Effect::Send(smith, text("yes")), Effect::Send(smith, text("and more"))];
            assert_eq!(line(&mut app, yes), sent, "{yes}");
            assert_eq!(app.held(), 0);
            assert_eq!(
                line(&mut app, "yes"),
                [Effect::Send(smith, text("yes"))],
                "asked once, a yes is a message again"
            );
        }
    }

    #[test]
    fn a_no_to_a_dispute_drops_what_was_typed_and_asks_again_next_time() {
        let mut app = app();
        app.begin(Some(MatterId::new(SMITH))).unwrap();
        app.rooms[0].disputed = Some("Eve (eve)".to_owned());
        line(&mut app, "hello");
        assert_eq!(line(&mut app, "no"), show("— nothing was sent"));
        assert_eq!(app.held(), 0);
        assert!(matches!(line(&mut app, "no").as_slice(), [Effect::Show(told)] if told.contains("Send anyway?")));
        // Another matter is none of it.
        line(&mut app, "/switch estate");
        assert_eq!(line(&mut app, "yes"), [Effect::Send(MatterId::new(DOE), "yes".to_owned())]);
        assert!(
            matches!(line(&mut app, "/anyway").as_slice(), [Effect::Show(told)] if told.contains("nothing to go on"))
        );
        app.rooms[1].disputed = Some("Eve (eve)".to_owned());
        assert_eq!(line(&mut app, "held here").len(), 2, "what was held elsewhere is told");
    }

    #[test]
    fn where_nobody_vouches_for_somebody_it_asks_with_the_reason() {
        let mut app = app();
        app.begin(Some(MatterId::new(SMITH))).unwrap();
        app.rooms[0].lapsed = Some("Eve (eve) has no endorsement any more".to_owned());
        let asked = line(&mut app, "hello");
        assert!(matches!(asked.as_slice(), [Effect::Show(told)] if told.contains("no endorsement")), "{asked:?}");
        let (smith, hello) = (MatterId::new(SMITH), "hello".to_owned());
        assert_eq!(line(&mut app, "y"), [Effect::GoOn(smith), Effect::Send(smith, hello.clone())]);
        assert_eq!(line(&mut app, "hello"), [Effect::Send(smith, hello)]);
    }

    #[test]
    fn two_matters_of_the_same_title_are_told_apart_in_the_prompt_and_in_what_to_type() {
        let mut app = App::new(true, true);
        app.rooms = vec![room(SMITH, "Smith v Jones"), room(DOE, "Smith v Jones")];
        app.begin(Some(MatterId::new(SMITH))).unwrap();
        let (smith, doe) = (short(MatterId::new(SMITH)), short(MatterId::new(DOE)));
        assert_eq!(app.prompt(), format!("Smith v Jones ({smith})> "));
        assert_eq!(app.handle(text(DOE, None)), show(&format!("— new in Smith v Jones ({doe}): /switch {doe}")));
        assert_eq!(line(&mut app, &format!("/switch {doe}")), [Effect::Enter(MatterId::new(DOE))]);
    }

    #[test]
    fn a_prompt_that_is_shown_says_nothing_stale_and_keeps_its_width() {
        let shown = "Smith v Jones [offline, 2 unsent]> ";
        assert_eq!(fitted(shown, "Smith v Jones> "), "Smith v Jones [online           ]> ");
        assert_eq!(fitted(shown, "Smith v Jones [1 new elsewhere]> "), "Smith v Jones [1 new elsewhere  ]> ");
        assert_eq!(fitted(shown, "Smith v Jones [offline, 12 new elsewhere]> "), "Smith v Jones [offline, 12 new …]> ");
        for same in [shown, "Smith v Jones> ", "Estate> "] {
            assert_eq!(fitted(same, shown), same, "nothing to put right, or no room");
        }
    }

    #[test]
    fn the_first_matter_is_entered_by_itself() {
        let mut app = App::new(true, true);
        app.begin(None).unwrap();
        app.rooms = vec![room(SMITH, "Smith v Jones")];
        let joined = app.handle(Event::Joined(MatterId::new(SMITH)));
        let title = app.title(MatterId::new(SMITH));
        assert!(matches!(&joined[0], Effect::Show(told) if told.contains(&title)), "{joined:?}");
        assert_eq!(joined[1..], [Effect::Enter(MatterId::new(SMITH))]);
    }
}
