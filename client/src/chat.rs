//! `chat`: carries what is typed and what happens to the [`App`], and what that leads to to the session and the screen.
//!
//! Invariant: a record is marked as shown only after it was handed to the screen, and only in the matter that is open.

use std::collections::VecDeque;
use std::pin::pin;
use std::time::{Duration, Instant};

use privity_protocol::device::state::{Record, RecordBody};
use privity_protocol::device::{NewPersonInvite, Notice};
use privity_protocol::frame::PersonView;
use privity_protocol::identity::Role;
use privity_protocol::ids::{MatterId, MessageId};
use privity_protocol::limits;
use tokio::time::sleep_until;

use crate::app::{App, Effect, Event, Room};
use crate::commands::adopt::waiting_told;
use crate::commands::invite::{advice, shown};
use crate::commands::message::{GATHER, pending_state, pending_text};
use crate::commands::recovery::{SHEET_DUE, organisation_sheet};
use crate::commands::{Run, matter};
use crate::error::Error;
use crate::home::Held;
use crate::session::{Session, Told, keeps, now};
use crate::terminal::Terminal;
use crate::{marks, out, view};

/// Lines already shown that stand above new ones when a matter is entered in a terminal.
const CONTEXT: usize = 10;
/// Records shown at once.
const PAGE: usize = 500;
const FAR: Duration = Duration::from_secs(3600);

/// Chats until `/quit`, Ctrl-D or the end of standard input.
///
/// # Errors
/// [`Error`] as for every command; [`Error::Network`] if messages are left waiting.
pub(crate) async fn chat(run: &Run, asked: Option<&str>, joined: Option<(Held, Session)>) -> Result<(), Error> {
    // Whoever has just joined has just typed the passphrase.
    let (_held, session) = match joined {
        Some(open) => open,
        None => run.online().await?,
    };
    let terminal = Terminal::open(!run.json)?;
    let profile = session.device.profile();
    let app = App::new(terminal.is_interactive(), profile.role.manages()).again(profile.again);
    let mut chat = Chat {
        app,
        terminal,
        session,
        json: run.json,
        started: false,
        people: Vec::new(),
        changes: Vec::new(),
        invites: VecDeque::new(),
        show_people: false,
        notes: view::Notes::default(),
        since: None,
        restored: false,
    };
    let ended = chat.run(asked).await;
    chat.terminal.end();
    ended?;
    chat.last(run).await?;
    Box::pin(chat.leave(run)).await
}

struct Chat {
    app: App,
    terminal: Terminal,
    session: Session,
    json: bool,
    /// Caught up, or known to be offline: lines are taken.
    started: bool,
    people: Vec<PersonView>,
    /// Changes that wait for the directory.
    changes: Vec<(MatterId, String, bool)>,
    /// Invites that wait to be filed.
    invites: VecDeque<(String, &'static str)>,
    show_people: bool,
    /// What is held for a moment, to be shown as one, and since when.
    notes: view::Notes,
    since: Option<Instant>,
    /// Whether the relay was found to be restored, and no note has said so.
    restored: bool,
}

impl Chat {
    async fn run(&mut self, asked: Option<&str>) -> Result<(), Error> {
        let plain = !self.terminal.is_interactive();
        let mut interrupt = pin!(async {
            // rustyline has Ctrl-C to itself.
            if plain { tokio::signal::ctrl_c().await } else { std::future::pending().await }
        });
        if self.session.device.is_caught_up() {
            // Nothing more comes to begin with.
            self.started = true;
            self.begin(asked, &[])?;
        }
        loop {
            let due = self.since.map_or_else(|| Instant::now() + FAR, |since| since + GATHER);
            let event = tokio::select! {
                told = self.session.next(Instant::now() + FAR) => self.told(told?)?,
                () = sleep_until(due.into()), if self.started => self.gathered(),
                line = self.terminal.line(), if self.started => vec![line],
                _ = &mut interrupt => return Ok(()),
            };
            let started = self.started;
            if !started && (self.session.device.is_caught_up() || event.iter().any(|e| matches!(e, Event::Down(_)))) {
                self.started = true;
                self.begin(asked, &event)?;
                continue;
            }
            let mut typed = false;
            for event in event {
                typed |= matches!(event, Event::Line(_) | Event::Interrupted);
                if self.handle(event)? {
                    return Ok(());
                }
            }
            self.refresh()?;
            if typed {
                self.terminal.go_on();
            }
        }
    }

    /// The first screen: what happened before, and where one is.
    fn begin(&mut self, asked: Option<&str>, before: &[Event]) -> Result<(), Error> {
        self.refresh()?;
        let asked = asked.map(|asked| view::find_matter(&self.session.device, asked)).transpose()?;
        for event in before.iter().filter(|event| matches!(event, Event::Down(_) | Event::Told(_))) {
            self.handle(event.clone())?;
        }
        if !self.session.device.is_ready() {
            self.show("You are not ready yet: whoever invited you still has to be online once. /status shows how others let you in.")?;
        }
        if organisation_sheet(&self.session.vault)?.is_some() {
            self.show(&format!("The firm's key {SHEET_DUE}."))?;
        }
        for effect in self.app.begin(asked)? {
            self.carry_out(effect)?;
        }
        let waiting: Vec<String> = self.waiting();
        for line in waiting {
            self.show(&line)?;
        }
        self.session.device.ask_people(now());
        self.refresh()?;
        self.terminal.go_on();
        Ok(())
    }

    /// What the session tells, as events.
    fn told(&mut self, told: Told) -> Result<Vec<Event>, Error> {
        let notice = match told {
            Told::Up => {
                self.session.device.ask_people(now());
                return Ok(vec![Event::Up]);
            }
            Told::Down(why) => {
                self.invites.clear();
                return Ok(vec![Event::Down(why)]);
            }
            Told::Notice(notice) => *notice,
            Told::Quiet => return Ok(Vec::new()),
        };
        Ok(match notice {
            // Before the first screen the vault has them, and they are shown from there.
            Notice::Recorded(record) if self.started && self.json => vec![self.recorded(&[record])],
            Notice::Recorded(record) if self.started => {
                let groups = self.notes.push(record);
                if self.notes.is_empty() && !self.restored {
                    self.since = None;
                } else {
                    self.since.get_or_insert_with(Instant::now);
                }
                self.shown(&groups)
            }
            Notice::Restored if !self.json => {
                self.restored = true;
                self.since.get_or_insert_with(Instant::now);
                Vec::new()
            }
            Notice::Joined(matter) if self.started => {
                // Its title is known from here on.
                self.refresh()?;
                vec![Event::Joined(matter)]
            }
            Notice::People(people) => self.people_came(people)?,
            Notice::InviteFiled => match self.invites.pop_front() {
                Some((url, role)) => {
                    let shown = shown(&url, out::columns().filter(|_| self.terminal.is_interactive()));
                    vec![Event::Told(shown), Event::Told(advice(role, limits::INVITE_LIFETIME_MS))]
                }
                None => Vec::new(),
            },
            Notice::InviteRefused(why) => {
                self.invites.pop_front();
                vec![Event::Told(Error::from(why).to_string())]
            }
            Notice::Endorsed { handle } => {
                for person in self.people.iter_mut().filter(|person| person.handle == handle) {
                    person.ready = true;
                }
                self.session.device.ask_people(now());
                vec![Event::Told(format!("— {} has joined", view::plain(&handle, false)))]
            }
            Notice::NotOpened(_, why) => vec![Event::Told(format!("the matter was not opened: {}", Error::from(why)))],
            Notice::Waits { person, .. } => {
                let who = view::person(&self.session.device, person);
                let handle = self.people.iter().find(|view| view.person == person).map(|view| view.handle.clone());
                let who = handle.map_or(who, |handle| view::plain(&handle, false));
                vec![Event::Told(format!("— {who} is not ready yet; they will be added as soon as they are"))]
            }
            Notice::NotDone { person, why, .. } => {
                let who = view::person(&self.session.device, person);
                vec![Event::Told(format!("— {who}: not done: {}", Error::from(why)))]
            }
            other => view::notice(&other).map(|text| Event::Told(format!("— {text}"))).into_iter().collect(),
        })
    }

    /// What was held, as events.
    fn gathered(&mut self) -> Vec<Event> {
        self.since = None;
        let groups = self.notes.flush();
        let mut events = self.shown(&groups);
        if std::mem::take(&mut self.restored) {
            events.extend(view::notice(&Notice::Restored).map(|text| Event::Told(format!("— {text}"))));
        }
        events
    }

    fn shown(&mut self, groups: &[Vec<Record>]) -> Vec<Event> {
        let restored = |record: &Record| matches!(record.what, RecordBody::Restored { .. });
        self.restored &= !groups.iter().flatten().any(restored);
        groups.iter().map(|group| self.recorded(group)).collect()
    }

    /// Records that are shown as one.
    fn recorded(&self, group: &[Record]) -> Event {
        let Some(record) = group.last() else { return Event::Told(String::new()) };
        let id = match &record.what {
            RecordBody::Text { id, .. } => Some(*id),
            _ => None,
        };
        let theirs = id.is_some() && record.from != Some(self.session.device.profile().person);
        Event::Recorded { matter: record.matter, id, theirs, line: self.line(group), cursor: record.cursor }
    }

    fn line(&self, group: &[Record]) -> String {
        if self.json {
            let objects = group.iter().map(|record| view::compact(&view::json(&self.session.device, record)));
            objects.collect::<Vec<_>>().join("\n")
        } else {
            view::lines(&self.session.device, group, now())
        }
    }

    /// True at the end.
    fn handle(&mut self, event: Event) -> Result<bool, Error> {
        for effect in self.app.handle(event) {
            if effect == Effect::Quit {
                return Ok(true);
            }
            self.carry_out(effect)?;
        }
        Ok(false)
    }

    fn carry_out(&mut self, effect: Effect) -> Result<(), Error> {
        match effect {
            Effect::Show(text) => self.show(&text),
            Effect::ShowRecord(line, cursor) => self.show_record(line.as_deref(), cursor),
            Effect::Enter(matter) => self.enter(matter),
            Effect::History(matter, lines) => self.history(matter, u64::MAX >> 1, lines),
            Effect::Send(matter, text) => {
                let id = MessageId::random();
                match self.session.send(matter, id, &text) {
                    Ok(_) => self.app.sent(id),
                    Err(error) => self.show(&format!("— not sent: {error}"))?,
                }
                Ok(())
            }
            Effect::Open(title) => match self.session.device.open_matter(now(), &title) {
                Ok(matter) => {
                    self.refresh()?;
                    let title = view::title(&self.session.device, matter);
                    self.show(&format!("— opened {title}"))?;
                    for effect in self.app.begin(Some(matter))? {
                        self.carry_out(effect)?;
                    }
                    Ok(())
                }
                Err(error) => self.show(&Error::from(error).to_string()),
            },
            Effect::Change { matter, handle, add } => self.change(matter, handle, add),
            Effect::Invite(role) => self.invite(&role),
            Effect::People if self.session.is_up() => {
                self.show_people = true;
                self.session.device.ask_people(now());
                Ok(())
            }
            Effect::People => self.show("— offline: everyone you can add is shown once the relay is back"),
            Effect::GoOn(matter) => {
                self.session.go_on(matter)?;
                self.show("— going on here; the next dispute asks again")
            }
            Effect::Who(matter) => matter::who(&self.session, matter).iter().try_for_each(|line| self.show(line)),
            Effect::Pending => self.pending(),
            Effect::Status => self.status(),
            Effect::Quit => Ok(()),
        }
    }

    fn show(&self, text: &str) -> Result<(), Error> {
        // The prompt is drawn again below the line.
        self.terminal.set(self.app.prompt(), self.app.words.clone());
        if self.json && !self.terminal.is_interactive() {
            out::note(text);
            return Ok(());
        }
        self.terminal.show(text)
    }

    fn show_record(&mut self, line: Option<&str>, cursor: u64) -> Result<(), Error> {
        let Some(matter) = self.app.current() else { return Ok(()) };
        // Entering the matter may have shown it already.
        if marks::shown(&self.session, Some(matter))? >= cursor {
            return Ok(());
        }
        if let Some(line) = line {
            self.terminal.show(line)?;
        }
        marks::mark(&mut self.session, Some(matter), cursor)
    }

    fn enter(&mut self, matter: MatterId) -> Result<(), Error> {
        let (mut from, mut notes) = (marks::shown(&self.session, Some(matter))?, view::Notes::default());
        if self.terminal.is_interactive() {
            self.history(matter, from, CONTEXT)?;
        }
        loop {
            let records = self.session.vault.records(Some(matter), from, PAGE)?;
            let Some(last) = records.last().map(|record| record.cursor) else { break };
            for record in records {
                notes.push(record).iter().try_for_each(|group| self.terminal.show(&self.line(group)))?;
            }
            from = last;
            marks::mark(&mut self.session, Some(matter), notes.first().map_or(last, |first| first - 1))?;
        }
        notes.flush().iter().try_for_each(|group| self.terminal.show(&self.line(group)))?;
        marks::mark(&mut self.session, Some(matter), from)?;
        match self.session.state_told(matter) {
            Some(told) => self.show(&format!("— {told}")),
            None => Ok(()),
        }
    }

    fn history(&self, matter: MatterId, upto: u64, lines: usize) -> Result<(), Error> {
        let records = self.session.vault.last_records(matter, upto, lines.min(PAGE))?;
        self.past(matter, lines.min(PAGE).saturating_sub(records.len()))?;
        let mut notes = view::Notes::default();
        for record in records {
            notes.push(record).iter().try_for_each(|group| self.terminal.show(&self.line(group)))?;
        }
        notes.flush().iter().try_for_each(|group| self.terminal.show(&self.line(group)))
    }

    /// The last lines of what another device has sent.
    fn past(&self, matter: MatterId, lines: usize) -> Result<(), Error> {
        let records = self.session.vault.last_past(matter, lines)?;
        if records.is_empty() {
            return Ok(());
        }
        self.show(view::PAST_BEGINS)?;
        let mut notes = view::Notes::default();
        for record in records {
            notes.push(record).iter().try_for_each(|group| self.terminal.show(&self.line(group)))?;
        }
        notes.flush().iter().try_for_each(|group| self.terminal.show(&self.line(group)))?;
        self.show(view::PAST_ENDS)
    }

    fn change(&mut self, matter: MatterId, handle: String, add: bool) -> Result<(), Error> {
        if !self.session.is_up() {
            return self.show("— offline: adding and removing people works once the relay is back");
        }
        self.changes.push((matter, handle, add));
        self.session.device.ask_people(now());
        Ok(())
    }

    fn people_came(&mut self, people: Vec<PersonView>) -> Result<Vec<Event>, Error> {
        self.people = people;
        let mut events = Vec::new();
        if std::mem::take(&mut self.show_people) {
            let lines = self.people.iter().map(|person| Event::Told(view::person_view(&self.session.device, person)));
            events.extend(lines);
        }
        for (matter, handle, add) in std::mem::take(&mut self.changes) {
            let known = view::find_person(&self.people, &handle);
            let changed = known.and_then(|person| {
                let device = &mut self.session.device;
                let already = matter::already(device, matter, person, add);
                let changed = if add {
                    device.add(now(), matter, person, &handle)
                } else {
                    device.remove(now(), matter, person, &handle)
                };
                changed.map(|()| already).map_err(Error::from)
            });
            match changed {
                Ok(Some(told)) => events.push(Event::Told(format!("— {} {told}", view::plain(&handle, false)))),
                Ok(None) => {}
                Err(error) => events.push(Event::Told(format!("— {error}"))),
            }
        }
        self.session.drain()?;
        Ok(events)
    }

    fn invite(&mut self, role: &str) -> Result<(), Error> {
        if !self.session.is_up() {
            return self.show("— offline: an invite can be made once the relay is back");
        }
        let role = [Role::Client, Role::Attorney, Role::Staff].into_iter().find(|known| known.word() == role);
        let wanted = NewPersonInvite::new(role.unwrap_or(Role::Client));
        match self.session.device.invite(now(), &wanted) {
            Ok(invite) => {
                self.invites.push_back((invite.url(), wanted.role.word()));
                Ok(())
            }
            Err(error) => self.show(&Error::from(error).to_string()),
        }
    }

    /// What waits, in all matters.
    fn pending(&self) -> Result<(), Error> {
        let mut any = false;
        for (id, _) in self.session.device.matters() {
            for item in self.session.device.pending(id) {
                any = true;
                let (text, title) = (view::plain(&pending_text(item), false), view::title(&self.session.device, id));
                self.show(&format!("  {title}: {text} ({})", pending_state(item)))?;
            }
        }
        let waiting = self.waiting();
        if !any && waiting.is_empty() {
            self.show("Nothing waits.")?;
        }
        waiting.iter().try_for_each(|line| self.show(line))
    }

    /// What people are waiting for.
    fn waiting(&self) -> Vec<String> {
        let waits = self.app.rooms.iter().flat_map(|room| room.waiting.iter().map(|handle| (handle, &room.title)));
        let mut lines: Vec<String> = waits
            .map(|(handle, title)| {
                let (handle, title) = (view::plain(handle, false), view::plain(title, false));
                format!("— {handle} will be added to {title} as soon as they are ready")
            })
            .collect();
        let strangers = self.people.iter().filter(|person| !person.ready);
        lines.extend(strangers.map(|person| {
            format!("— {} waits for whoever invited them to be online", view::plain(&person.handle, false))
        }));
        lines
    }

    fn status(&self) -> Result<(), Error> {
        let profile = self.session.device.profile();
        let link = if self.session.is_up() { "connected" } else { "offline" };
        let (address, firm) = (view::plain(&profile.address, false), view::plain(&profile.firm, false));
        let name = view::plain(&profile.name.name, false);
        self.show(&format!("{name} ({}), {}; {link}, relay {address} of {firm}", profile.handle, profile.role.word()))?;
        waiting_told(&self.session.device).iter().try_for_each(|line| self.show(line))
    }

    /// Brings the prompt and the words for completion up to date.
    fn refresh(&mut self) -> Result<(), Error> {
        self.session.drain()?;
        let mut rooms = Vec::new();
        for (id, row) in self.session.device.matters() {
            let pending = self.session.device.pending(id);
            let intents = self.session.device.intents(id);
            rooms.push(Room {
                id,
                title: row.title.clone(),
                people: view::handles(&self.session.device, row),
                stage: self.session.state(id),
                disputed: row.disputed.map(|person| view::person(&self.session.device, person)),
                lapsed: self.lapsed(id),
                unread: marks::unread(&self.session, id)?,
                unsent: if keeps(row.stage) {
                    pending.iter().filter(|item| item.seq.is_none() && item.failed.is_none()).count()
                } else {
                    0
                },
                waiting: intents.iter().filter(|intent| intent.add).map(|intent| intent.handle.clone()).collect(),
            });
        }
        self.app.rooms = rooms;
        self.app.words.matters = self.app.switches();
        self.app.words.handles = self.people.iter().map(|person| view::plain(&person.handle, false)).collect();
        self.terminal.set(self.app.prompt(), self.app.words.clone());
        Ok(())
    }

    /// Why sending waits in a matter, with what to do.
    fn lapsed(&self, matter: MatterId) -> Option<String> {
        let device = &self.session.device;
        let (told, first) = (view::lapses_told(device, matter)?, device.lapses_in(matter).first().copied()?);
        Some(format!("{told}; {}", view::way_out(device, matter, first.person)))
    }

    /// Lets what waits go out, for a while.
    async fn last(&mut self, run: &Run) -> Result<(), Error> {
        let waits = self.session.unsent();
        if waits > 0 {
            let (waits, seconds) = (view::counted(waits, "message", "messages"), run.timeout.as_secs());
            out::note(&format!("Waiting to send {waits}, for at most {seconds} s…"));
        }
        let deadline = run.deadline();
        // Whoever pipes in commands gets the answers, too.
        while !self.session.is_settled() || self.session.awaits_own() || self.awaits_answers() {
            match self.session.next(deadline).await? {
                Told::Quiet => break,
                Told::Down(_) if !self.app.is_down() && self.session.unsent() == 0 => break,
                told => {
                    for event in self.told(told)? {
                        self.handle(event)?;
                    }
                }
            }
        }
        for event in self.gathered() {
            self.handle(event)?;
        }
        Ok(())
    }

    /// Whether something was asked of the relay that is yet to be shown.
    fn awaits_answers(&self) -> bool {
        self.session.is_up() && (self.show_people || !self.changes.is_empty() || !self.invites.is_empty())
    }

    /// Ends the chat, and says what is left.
    async fn leave(self, run: &Run) -> Result<(), Error> {
        let (left, held, up) = (self.session.unsent(), self.app.held(), self.session.is_up());
        let lost = if self.terminal.is_interactive() { 0 } else { self.app.lost() };
        let settled = run.done(self.session).await;
        if left > 0 {
            let left = view::counted(left, "message", "messages");
            if up {
                return Err(Error::NotYet(format!("{left} kept here, to go out as soon as the matter lets them")));
            }
            return Err(Error::Network(format!(
                "the relay can't be reached; {left} kept here, to go out at the next contact"
            )));
        }
        if lost > 0 {
            let lost = view::counted(lost, "message", "messages");
            return Err(Error::Usage(format!("{lost} not sent: no matter was chosen")));
        }
        if held > 0 {
            let held = view::counted(held, "message", "messages");
            return Err(Error::Refused(format!(
                "{held} not sent: this matter waits for your word. `privity matter show` says why; then type /anyway"
            )));
        }
        settled
    }
}
