//! What can be typed in `chat` beside messages: one table, from which parsing, help and completion come.
//!
//! Invariant: a line that begins with a slash is never sent as a message; two slashes send one.

/// What a slash command takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Takes {
    /// Nothing.
    Nothing,
    /// A matter.
    Matter,
    /// A new title.
    Title,
    /// One or more handles.
    Handles,
    /// A role, or nothing.
    Role,
    /// A number, or nothing.
    Number,
}

/// Which command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the table below says what each does")]
pub enum Verb {
    Help,
    Matters,
    Switch,
    New,
    Add,
    Remove,
    Invite,
    People,
    Who,
    Pending,
    History,
    Anyway,
    Status,
    Quit,
}

/// A row of the table.
#[derive(Debug)]
pub struct Slash {
    /// What it does.
    pub verb: Verb,
    /// Its name, without the slash.
    pub name: &'static str,
    /// What it takes.
    pub takes: Takes,
    /// How that is written in the help.
    pub argument: &'static str,
    /// One line of help.
    pub help: &'static str,
}

/// Every slash command.
pub const TABLE: &[Slash] = &[
    row(Verb::Matters, "matters", Takes::Nothing, "", "your matters, and what is new in them"),
    row(
        Verb::Switch,
        "switch",
        Takes::Matter,
        "MATTER",
        "talk in another matter (its title, or the beginning of its id)",
    ),
    row(Verb::Who, "who", Takes::Nothing, "", "who is in this matter, and who waits to be"),
    row(Verb::History, "history", Takes::Number, "[N]", "the last N lines of this matter"),
    row(Verb::Pending, "pending", Takes::Nothing, "", "what waits: messages to be sent, people to be added"),
    row(Verb::Anyway, "anyway", Takes::Nothing, "", "send here although somebody says to have read something else"),
    row(Verb::New, "new", Takes::Title, "TITLE", "open a matter"),
    row(Verb::Add, "add", Takes::Handles, "HANDLE…", "add people to this matter"),
    row(Verb::Remove, "remove", Takes::Handles, "HANDLE…", "remove people from this matter"),
    row(Verb::People, "people", Takes::Nothing, "", "everyone you can add"),
    row(Verb::Invite, "invite", Takes::Role, "[ROLE]", "invite a client (or an attorney, or staff)"),
    row(Verb::Status, "status", Takes::Nothing, "", "the connection, and who you are"),
    row(Verb::Help, "help", Takes::Nothing, "", "this list"),
    row(Verb::Quit, "quit", Takes::Nothing, "", "end; also Ctrl-D"),
];

/// The roles that `/invite` takes.
pub const ROLES: &[&str] = &["client", "attorney", "staff"];

const fn row(verb: Verb, name: &'static str, takes: Takes, argument: &'static str, help: &'static str) -> Slash {
    Slash { verb, name, takes, argument, help }
}

/// A line, understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Typed {
    /// A message to send.
    Text(String),
    /// A command with its argument.
    Command(Verb, String),
    /// Nothing at all.
    Empty,
    /// A mistake, and what to do.
    Wrong(String),
}

/// Understands a line as it was typed. A backslash at the end of a line in it continues the message on the next.
pub fn parse(line: &str) -> Typed {
    let line = line.replace("\\\n", "\n");
    let Some(rest) = line.strip_prefix('/') else {
        return if line.trim().is_empty() { Typed::Empty } else { Typed::Text(line) };
    };
    if rest.starts_with('/') {
        return Typed::Text(rest.to_owned());
    }
    let (name, argument) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    let argument = argument.trim();
    let fits: Vec<&Slash> = TABLE.iter().filter(|slash| !name.is_empty() && slash.name.starts_with(name)).collect();
    let slash = match fits.as_slice() {
        [one] => *one,
        several => match several.iter().find(|slash| slash.name == name) {
            Some(exact) => *exact,
            None => return Typed::Wrong(format!("there is no /{name}; /help lists what there is")),
        },
    };
    match (slash.takes, argument.is_empty()) {
        (Takes::Nothing, false) => Typed::Wrong(format!("/{} takes nothing after it", slash.name)),
        (Takes::Matter | Takes::Title | Takes::Handles, true) => {
            Typed::Wrong(format!("/{0} what? Type /{0} {1}", slash.name, slash.argument))
        }
        _ => Typed::Command(slash.verb, argument.to_owned()),
    }
}

/// The help, one line for each command.
pub fn help() -> Vec<String> {
    let mut lines: Vec<String> = TABLE
        .iter()
        .map(|slash| format!("  {:<18} {}", format!("/{} {}", slash.name, slash.argument).trim_end(), slash.help))
        .collect();
    lines.push(
        "Anything else is sent to the matter in the prompt. A line that ends with \\ goes on in the next one;"
            .to_owned(),
    );
    lines.push("// at the beginning sends a message that begins with one slash.".to_owned());
    lines
}

/// What may be completed: matters by title, and handles.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Words {
    /// Titles of matters.
    pub matters: Vec<String>,
    /// Handles.
    pub handles: Vec<String>,
}

/// What could stand at the end of `line`: where that begins, and the candidates.
pub fn complete(line: &str, words: &Words) -> (usize, Vec<String>) {
    let Some(rest) = line.strip_prefix('/') else { return (line.len(), Vec::new()) };
    let Some((name, argument)) = rest.split_once(' ') else {
        let names = TABLE.iter().filter(|slash| slash.name.starts_with(rest));
        return (0, names.map(|slash| format!("/{} ", slash.name)).collect());
    };
    let takes = TABLE.iter().find(|slash| slash.name == name).map_or(Takes::Nothing, |slash| slash.takes);
    let (begins, candidates): (usize, Vec<&str>) = match takes {
        Takes::Matter => (line.len() - argument.len(), words.matters.iter().map(String::as_str).collect()),
        Takes::Handles => {
            let last = argument.rsplit(' ').next().unwrap_or_default();
            (line.len() - last.len(), words.handles.iter().map(String::as_str).collect())
        }
        Takes::Role => (line.len() - argument.len(), ROLES.to_vec()),
        _ => return (line.len(), Vec::new()),
    };
    let begun = line.get(begins..).unwrap_or_default().to_lowercase();
    let fits = candidates.into_iter().filter(|word| word.to_lowercase().starts_with(&begun));
    (begins, fits.map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_with_a_slash_is_never_a_message() {
        assert_eq!(parse("/who"), Typed::Command(Verb::Who, String::new()));
        assert_eq!(parse("/switch Smith v Jones "), Typed::Command(Verb::Switch, "Smith v Jones".to_owned()));
        for wrong in ["/", "/hepl", "/who me", "/add", "/add  ", "/ who", "/wh\u{1b}o"] {
            assert!(matches!(parse(wrong), Typed::Wrong(_)), "{wrong}");
        }
        assert_eq!(parse("//who"), Typed::Text("/who".to_owned()));
    }

    #[test]
    fn a_command_may_be_shortened_while_it_is_clear() {
        assert_eq!(parse("/q"), Typed::Command(Verb::Quit, String::new()));
        assert!(matches!(parse("/h"), Typed::Wrong(_)), "help or history");
        assert_eq!(parse("/sw x"), Typed::Command(Verb::Switch, "x".to_owned()));
    }

    #[test]
    fn a_backslash_at_the_end_of_a_line_continues_the_message() {
        assert_eq!(parse("one\\\ntwo"), Typed::Text("one\ntwo".to_owned()));
        assert_eq!(parse("C:\\temp"), Typed::Text("C:\\temp".to_owned()));
        assert_eq!(parse(" \n "), Typed::Empty);
    }

    #[test]
    fn every_command_is_in_the_help_once() {
        let help = help().join("\n");
        for slash in TABLE {
            assert_eq!(help.matches(&format!("  /{}", slash.name)).count(), 1, "{}", slash.name);
        }
    }

    #[test]
    fn commands_matters_handles_and_roles_are_completed() {
        let words =
            Words { matters: vec!["Smith v Jones".to_owned()], handles: vec!["ada".to_owned(), "bob".to_owned()] };
        assert_eq!(complete("/sw", &words), (0, vec!["/switch ".to_owned()]));
        assert_eq!(complete("/switch smi", &words), (8, vec!["Smith v Jones".to_owned()]));
        assert_eq!(complete("/switch Smith v", &words), (8, vec!["Smith v Jones".to_owned()]));
        assert_eq!(complete("/add ada b", &words), (9, vec!["bob".to_owned()]));
        assert_eq!(complete("/invite a", &words), (8, vec!["attorney".to_owned()]));
        assert_eq!(complete("hello b", &words).1, Vec::<String>::new());
    }
}
