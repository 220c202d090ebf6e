//! Standard output and standard error, written so that a reader who goes away ends the program quietly.
//!
//! Invariant: nothing here panics, whatever is at the other end.

use std::io::{ErrorKind, Write as _};

use crate::error::Error;

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

/// Writes a line to standard error, if anybody reads it.
pub fn note(text: &str) {
    let _unread = writeln!(std::io::stderr().lock(), "{text}");
}
