//! The terminal of `chat`: lines typed with rustyline in a thread of their own, and lines that appear above what is being typed.
//!
//! 1. The typing thread reads a line, hands it over, and waits until it was dealt with before it shows the next prompt.
//! 2. A printing thread writes what is shown, so that a busy terminal never holds up the session.
//! 3. Without a terminal, lines come from standard input and go to standard output as they are.
//!
//! Invariant: what was typed stays in memory; nothing of it is written to a file.

use std::borrow::Cow;
use std::io::{BufRead as _, IsTerminal as _};
use std::sync::mpsc;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use rustyline::completion::Completer;
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::history::MemHistory;
use rustyline::validate::{ValidationContext, ValidationResult, Validator};
use rustyline::{ColorMode, CompletionType, Config, Context, Editor, ExternalPrinter, Helper};
use tokio::sync::mpsc as channel;

use crate::app::{self, Event};
use crate::command::{self, Words};
use crate::error::Error;
use crate::out;

/// Lines remembered for the arrow keys.
const HISTORY: usize = 500;
/// How long the last lines may take to reach the screen.
const LAST_LINES: Duration = Duration::from_millis(500);

/// What the typing thread reads before each line.
#[derive(Debug, Default)]
struct Shared {
    prompt: String,
    words: Words,
}

/// Where a chat reads and writes.
#[derive(Debug)]
pub struct Terminal {
    lines: channel::UnboundedReceiver<Event>,
    next: mpsc::Sender<()>,
    shared: Arc<Mutex<Shared>>,
    printer: Option<(mpsc::Sender<String>, mpsc::Receiver<()>)>,
    /// Whether what is shown is text for people, to be fitted into the terminal.
    fits: bool,
}

impl Terminal {
    /// Takes the terminal, or standard input and output where there is none. No line is read before [`Self::go_on`]. `fits` says that what is
    /// shown is text for people, to be fitted into the terminal.
    ///
    /// # Errors
    /// [`Error::Machine`] if the terminal does not work.
    pub fn open(fits: bool) -> Result<Self, Error> {
        let (typed, lines) = channel::unbounded_channel();
        let (next, wait) = mpsc::channel();
        let shared = Arc::new(Mutex::new(Shared::default()));
        let interactive = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
        let editor = if interactive { editor(Arc::clone(&shared)) } else { None };
        let printer = match editor {
            Some((mut editor, printer)) => {
                let shared = Arc::clone(&shared);
                thread::Builder::new().name("typing".to_owned()).spawn(move || {
                    while wait.recv().is_ok() {
                        let prompt = shared.lock().unwrap_or_else(PoisonError::into_inner).prompt.clone();
                        let event = event(editor.readline(&prompt));
                        let last = event == Event::End;
                        if typed.send(event).is_err() || last {
                            break;
                        }
                    }
                })?;
                Some(printing(printer)?)
            }
            None => {
                thread::Builder::new().name("reading".to_owned()).spawn(move || read_lines(&typed, &wait))?;
                None
            }
        };
        Ok(Self { lines, next, shared, printer, fits })
    }

    /// Whether there is a terminal, on which a typed line stays.
    pub fn is_interactive(&self) -> bool {
        self.printer.is_some()
    }

    /// What stands before the next line, and what may be completed in it.
    pub fn set(&self, prompt: String, words: Words) {
        *self.shared.lock().unwrap_or_else(PoisonError::into_inner) = Shared { prompt, words };
    }

    /// Lets the next line be typed.
    pub fn go_on(&self) {
        let _ended = self.next.send(());
    }

    /// The next line. Safe to cancel.
    pub async fn line(&mut self) -> Event {
        self.lines.recv().await.unwrap_or(Event::End)
    }

    /// Shows a line, above what is being typed.
    ///
    /// # Errors
    /// [`Error::Closed`] if nobody reads any more.
    pub fn show(&self, line: &str) -> Result<(), Error> {
        let line = match out::columns().filter(|_| self.fits) {
            Some(columns) => out::fitted(line, columns),
            None => line.to_owned(),
        };
        match &self.printer {
            Some((printer, _)) => printer.send(line + "\n").map_err(|_| Error::Closed),
            None => out::line(&line),
        }
    }

    /// Ends typing; what is shown from now on is written directly.
    pub fn end(&mut self) {
        if let Some((printer, done)) = self.printer.take() {
            drop(printer);
            let _in_time = done.recv_timeout(LAST_LINES);
        }
    }
}

type Edited = Editor<Typist, MemHistory>;

/// A line editor and its printer; none where the terminal can do neither.
fn editor(shared: Arc<Mutex<Shared>>) -> Option<(Edited, impl ExternalPrinter + Send + 'static)> {
    let config = Config::builder()
        .completion_type(CompletionType::List)
        .auto_add_history(true)
        .bracketed_paste(true)
        // Nothing is coloured; but without this the prompt could not be brought up to date where NO_COLOR is set.
        .color_mode(ColorMode::Forced)
        .max_history_size(HISTORY)
        .ok()?
        .build();
    let history = MemHistory::with_config(&config);
    let mut editor: Edited = Editor::with_history(config, history).ok()?;
    editor.set_helper(Some(Typist { shared }));
    let printer = editor.create_external_printer().ok()?;
    Some((editor, printer))
}

fn event(read: Result<String, ReadlineError>) -> Event {
    match read {
        Ok(line) => Event::Line(line),
        Err(ReadlineError::Interrupted) => Event::Interrupted,
        Err(_) => Event::End,
    }
}

type Printing = (mpsc::Sender<String>, mpsc::Receiver<()>);

fn printing(mut printer: impl ExternalPrinter + Send + 'static) -> Result<Printing, Error> {
    let (lines, waiting) = mpsc::channel::<String>();
    let (done, is_done) = mpsc::channel();
    thread::Builder::new().name("printing".to_owned()).spawn(move || {
        while let Ok(line) = waiting.recv() {
            if printer.print(line).is_err() {
                break;
            }
        }
        let _nobody_waits = done.send(());
    })?;
    Ok((lines, is_done))
}

/// Lines of standard input, those that end with a backslash with the ones after them.
fn read_lines(typed: &channel::UnboundedSender<Event>, wait: &mpsc::Receiver<()>) {
    let mut lines = std::io::stdin().lock().lines();
    while wait.recv().is_ok() {
        let mut whole: Option<String> = None;
        for line in lines.by_ref() {
            let Ok(line) = line else { break };
            let text = whole.map_or_else(String::new, |before: String| before + "\n") + &line;
            let goes_on = text.ends_with('\\');
            whole = Some(text);
            if !goes_on {
                break;
            }
        }
        let event = whole.map_or(Event::End, Event::Line);
        let last = event == Event::End;
        if typed.send(event).is_err() || last {
            break;
        }
    }
}

/// Completion and continued lines for rustyline.
struct Typist {
    shared: Arc<Mutex<Shared>>,
}

impl Completer for Typist {
    type Candidate = String;

    fn complete(&self, line: &str, at: usize, _: &Context<'_>) -> rustyline::Result<(usize, Vec<String>)> {
        let shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(command::complete(line.get(..at).unwrap_or(line), &shared.words))
    }
}

impl Validator for Typist {
    fn validate(&self, context: &mut ValidationContext<'_>) -> rustyline::Result<ValidationResult> {
        let goes_on = context.input().ends_with('\\');
        Ok(if goes_on { ValidationResult::Incomplete } else { ValidationResult::Valid(None) })
    }
}

impl Hinter for Typist {
    type Hint = String;
}

impl Highlighter for Typist {
    /// Called whenever the line is drawn again, as after a line shown above it.
    fn highlight_prompt<'b, 's: 'b, 'p: 'b>(&'s self, prompt: &'p str, _: bool) -> Cow<'b, str> {
        let shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        Cow::Owned(app::fitted(prompt, &shared.prompt))
    }
}

impl Helper for Typist {}
