//! Standard output and standard error, written so that a reader who goes away ends the program quietly, and text fits a terminal.
//!
//! Invariant: nothing here panics, whatever is at the other end; what a script reads is written as it is.

use std::io::{ErrorKind, IsTerminal as _, Write as _};

use textwrap::{Options, WordSeparator, WordSplitter};

use crate::error::Error;

/// Columns that a clock and the gap behind it take.
const CLOCK: usize = 7;
/// How far the lines under a row of a list stand in.
const UNDER: usize = 4;

/// Writes a line to standard output, at once.
///
/// # Errors
/// [`Error::Closed`] if nobody reads any more; [`Error::Machine`] if it can't be written, as on a full disk.
pub fn line(text: &str) -> Result<(), Error> {
    let mut stdout = std::io::stdout().lock();
    let written =
        stdout.write_all(text.as_bytes()).and_then(|()| stdout.write_all(b"\n")).and_then(|()| stdout.flush());
    written.map_err(|error| match error.kind() {
        ErrorKind::BrokenPipe => Error::Closed,
        _ => Error::Machine(format!("standard output can't be written: {error}")),
    })
}

/// Writes text to standard output, broken into lines that fit where that is a terminal.
///
/// # Errors
/// As [`line()`].
pub fn text(text: &str) -> Result<(), Error> {
    match columns() {
        Some(columns) => line(&fitted(text, columns)),
        None => line(text),
    }
}

/// Writes text to standard error, if anybody reads it.
pub fn note(text: &str) {
    let mut stderr = std::io::stderr().lock();
    let fits = if stderr.is_terminal() { fitted(text, textwrap::termwidth()) } else { text.to_owned() };
    let _unread = writeln!(stderr, "{fits}");
}

/// The columns of the terminal that standard output is; none where it is none.
pub fn columns() -> Option<usize> {
    std::io::stdout().is_terminal().then(textwrap::termwidth)
}

/// Text in lines of at most that many columns, as far as its words allow: no word is cut, so that what is long can be copied. What belongs
/// to a row of a list stands in under it.
pub fn fitted(text: &str, columns: usize) -> String {
    let lines = text.split('\n').map(|line| {
        let indent = " ".repeat(hanging(line).min(columns / 2));
        let options = Options::new(columns)
            .break_words(false)
            .word_separator(WordSeparator::AsciiSpace)
            .word_splitter(WordSplitter::NoHyphenation)
            .subsequent_indent(&indent);
        textwrap::fill(line, options)
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// How far a line's continuation stands in: under its text behind a clock, a little under a row of a list, not at all in a sentence.
fn hanging(line: &str) -> usize {
    let row = line.trim_start();
    let begins = line.len() - row.len();
    let is_clock = row.get(..CLOCK).is_some_and(|clock| {
        let bytes = clock.as_bytes();
        bytes.get(2) == Some(&b':') && bytes.ends_with(b"  ")
    });
    match (is_clock, begins > 0 || row.contains("  ")) {
        (true, _) => begins + CLOCK,
        (_, true) => begins + UNDER,
        (false, false) => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_stands_under_itself_in_a_narrow_terminal() {
        let told = "12:00  Ada Byron (ada): Good morning, the hearing is on Tuesday.\n       Please come.";
        assert_eq!(
            fitted(told, 40),
            "12:00  Ada Byron (ada): Good morning,\n       the hearing is on Tuesday.\n       Please come."
        );
        assert_eq!(fitted(told, 200), told);
    }

    #[test]
    fn rows_stand_in_sentences_do_not_and_nothing_is_cut() {
        let row = "bob                  client    Bob Jones (self-stated)";
        assert_eq!(fitted(row, 40), "bob                  client    Bob Jones\n    (self-stated)");
        assert_eq!(fitted("You are no longer in this matter.", 20), "You are no longer in\nthis matter.");
        let url = "privity://relay.example.com:4433/af6osmwogek4qb3chprfeds3koao45rb75okokkwkh2c6a";
        assert_eq!(fitted(url, 40), url, "what is copied stays whole");
        assert_eq!(fitted("", 40), "");
    }

    #[test]
    fn wide_characters_count_by_what_they_take_on_the_screen() {
        for line in fitted("12:00  Ada: 日本語 日本語 日本語 日本語 日本語", 24).lines() {
            assert!(textwrap::core::display_width(line) <= 24, "{line:?}");
        }
    }
}
