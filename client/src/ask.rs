//! Questions at a terminal, on standard error: asked again until the answer will do, and ended by Ctrl-D with nothing done.
//!
//! Invariant: without a terminal nothing is asked; what is missing is named instead.

use std::io::{BufRead, ErrorKind, IsTerminal as _, Write as _};

use crate::error::Error;
use crate::{out, view};

/// Longest answer, in bytes.
const ANSWER_MAX: u64 = 4096;

/// Whether there is somebody to ask.
pub(crate) fn is_possible() -> bool {
    std::io::stdin().is_terminal()
}

/// Asks until `check` makes something of the answer. `flag` is what a script would have said instead.
pub(crate) fn until<T>(prompt: &str, flag: &str, check: impl FnMut(&str) -> Result<T, Error>) -> Result<T, Error> {
    if !is_possible() {
        return Err(Error::Usage(format!("{flag} is missing")));
    }
    until_in(&mut std::io::stdin().lock(), prompt, check)
}

fn until_in<T>(
    input: &mut impl BufRead,
    prompt: &str,
    mut check: impl FnMut(&str) -> Result<T, Error>,
) -> Result<T, Error> {
    loop {
        let answer = line(input, prompt)?;
        match check(&answer) {
            Ok(answer) => return Ok(answer),
            Err(error) => out::note(&view::plain(&error.to_string(), false)),
        }
    }
}

/// Asks for a yes; anything else is a no.
pub(crate) fn yes(question: &str) -> Result<bool, Error> {
    let answer = line(&mut std::io::stdin().lock(), &format!("{question} (yes/no) "))?;
    Ok(matches!(answer.to_lowercase().as_str(), "y" | "yes"))
}

fn line(input: &mut impl BufRead, prompt: &str) -> Result<String, Error> {
    let mut stderr = std::io::stderr();
    stderr.write_all(prompt.as_bytes())?;
    stderr.flush()?;
    let mut line = String::new();
    if std::io::Read::take(input, ANSWER_MAX).read_line(&mut line)? == 0 {
        out::note("");
        return Err(nothing());
    }
    Ok(line.trim().to_owned())
}

/// Asks for a passphrase without showing it.
pub(crate) fn hidden(prompt: &str) -> Result<String, Error> {
    rpassword::prompt_password(prompt).map_err(|error| match error.kind() {
        ErrorKind::UnexpectedEof => nothing(),
        _ => error.into(),
    })
}

fn nothing() -> Error {
    Error::Usage("no answer; nothing was done".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_asked_again_until_the_answer_will_do_and_ctrl_d_ends_it() {
        let mut asked = 0;
        let mut check = |answer: &str| {
            asked += 1;
            if answer == "good" { Ok(answer.to_owned()) } else { Err(Error::Usage("not that".to_owned())) }
        };
        assert_eq!(until_in(&mut &b"\nbad\n good \nmore\n"[..], "", &mut check).unwrap(), "good");
        assert_eq!(asked, 3);
        let ended = until_in(&mut &b"bad\n"[..], "", |_| Err::<(), _>(Error::Usage("not that".to_owned())));
        let ended = ended.unwrap_err();
        assert_eq!((ended.exit_code(), ended.to_string().as_str()), (1, "no answer; nothing was done"));
    }
}
