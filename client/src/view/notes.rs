//! What happened at once is told at once: notes of one event in one matter, such as a restored relay, gathered into one.
//!
//! Invariant: every record that goes in comes out once, in its matter's order, and never behind a later one of that matter.

use privity_protocol::device::Device;
use privity_protocol::device::state::{Record, RecordBody};
use privity_protocol::ids::{PersonId, Timestamp};

use crate::view::{clock, counted, line, person};

/// Records that wait for what belongs to them, by matter.
#[derive(Debug, Default)]
pub struct Notes {
    runs: Vec<Vec<Record>>,
}

impl Notes {
    /// Takes the next record; gives what is to be shown now, each group as one note.
    pub fn push(&mut self, record: Record) -> Vec<Vec<Record>> {
        let run = self.runs.iter().position(|run| run.iter().any(|held| held.matter == record.matter));
        if is_part(&record.what) {
            match run.and_then(|at| self.runs.get_mut(at)) {
                Some(run) => run.push(record),
                None => self.runs.push(vec![record]),
            }
            return Vec::new();
        }
        run.map(|at| self.runs.remove(at)).into_iter().chain([vec![record]]).collect()
    }

    /// Gives what waits.
    pub fn flush(&mut self) -> Vec<Vec<Record>> {
        std::mem::take(&mut self.runs)
    }

    /// The cursor of the first record that waits.
    pub fn first(&self) -> Option<u64> {
        self.runs.iter().flatten().map(|record| record.cursor).min()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }
}

/// Whether a record is a part of something larger.
fn is_part(what: &RecordBody) -> bool {
    matches!(what, RecordBody::OutOfStep | RecordBody::Continued | RecordBody::Restored { .. })
}

/// A group of records as lines for a terminal.
pub fn lines(device: &Device, group: &[Record], now: Timestamp) -> String {
    let named = |id: PersonId| person(device, id);
    match (group, told(group, &named)) {
        ([first, ..], Some(told)) => format!("{}  — {told}", clock(first.at, now)),
        _ => group.iter().map(|record| line(device, record, now)).collect::<Vec<_>>().join("\n"),
    }
}

/// What a group says as one; none where each says its own.
fn told(group: &[Record], named: &dyn Fn(PersonId) -> String) -> Option<String> {
    if group.len() < 2 || !group.iter().all(|record| is_part(&record.what)) {
        return None;
    }
    let again = group.iter().filter_map(|record| match &record.what {
        RecordBody::Restored { again } => Some(usize::try_from(*again).unwrap_or(usize::MAX)),
        _ => None,
    });
    let again: Vec<usize> = again.collect();
    let continued = group.iter().rev().find(|record| record.what == RecordBody::Continued);
    let mut sentences = Vec::new();
    let restored = !again.is_empty();
    if !restored {
        sentences.push("this device missed a change here".to_owned());
    } else {
        sentences.push("the relay was restored from a backup and had forgotten something here".to_owned());
    }
    let again: usize = again.into_iter().fold(0, usize::saturating_add);
    if again > 0 {
        sentences.push(counted(again, "message of yours is sent again", "messages of yours are sent again"));
    }
    if let Some(continued) = continued {
        let by = continued.from.map_or_else(|| "somebody".to_owned(), named);
        sentences.push(format!("The matter goes on in a new place on the relay, opened by {by}"));
    }
    let own = continued.is_some_and(|continued| continued.from.is_some_and(|from| named(from) == "you"));
    let stopped = restored && group.iter().any(|record| record.what == RecordBody::OutOfStep);
    let end = if own || (continued.is_none() && !stopped) {
        "Nothing to do"
    } else if continued.is_none() {
        "The matter goes on once an attorney or staff member of it has been online for a minute or two; what you write waits until then"
    } else {
        "You are let in there as soon as their device is online; what you write waits until then. Nothing to do"
    };
    sentences.push(end.to_owned());
    Some(sentences.join(". "))
}

#[cfg(test)]
mod tests {
    use privity_protocol::ids::MatterId;

    use super::*;

    const ONE: [u8; 16] = [1; 16];
    const TWO: [u8; 16] = [2; 16];

    fn record(cursor: u64, matter: [u8; 16], what: RecordBody) -> Record {
        let (matter, from) = (MatterId::new(matter), Some(PersonId::new([7; 16])));
        Record { cursor, matter, seq: cursor, from, device: None, at: Timestamp(0), what }
    }

    fn cursors(groups: &[Vec<Record>]) -> Vec<Vec<u64>> {
        groups.iter().map(|group| group.iter().map(|record| record.cursor).collect()).collect()
    }

    #[test]
    fn a_restored_relay_is_one_note_in_each_matter() {
        let mut notes = Notes::default();
        let parts = [
            (ONE, RecordBody::OutOfStep),
            (TWO, RecordBody::OutOfStep),
            (ONE, RecordBody::Continued),
            (ONE, RecordBody::Restored { again: 2 }),
        ];
        for (cursor, (matter, what)) in (1..).zip(parts) {
            assert!(notes.push(record(cursor, matter, what)).is_empty());
        }
        assert_eq!(notes.first(), Some(1));
        let shown = notes.push(record(5, ONE, RecordBody::Joined));
        assert_eq!(cursors(&shown), [vec![1, 3, 4], vec![5]], "before what comes later in that matter");
        let told = told(&shown[0], &|_| "Ada (ada)".to_owned()).unwrap();
        for part in ["restored from a backup", "2 messages of yours are sent again", "opened by Ada (ada)", "let in"] {
            assert!(told.contains(part), "{told}");
        }
        assert_eq!(notes.first(), Some(2));
        assert_eq!(cursors(&notes.flush()), [vec![2]]);
        assert!(notes.is_empty());
    }

    #[test]
    fn one_alone_keeps_its_own_words() {
        let alone = [record(1, ONE, RecordBody::OutOfStep)];
        assert_eq!(told(&alone, &|_| String::new()), None);
        let own = [record(1, ONE, RecordBody::Restored { again: 0 }), record(2, ONE, RecordBody::Continued)];
        let own = told(&own, &|_| "you".to_owned()).unwrap();
        assert!(own.ends_with("opened by you. Nothing to do") && !own.contains("sent again"), "{own}");
    }

    #[test]
    fn where_nobody_has_continued_it_yet_the_note_says_what_that_takes() {
        let gone = [record(1, ONE, RecordBody::OutOfStep), record(2, ONE, RecordBody::Restored { again: 1 })];
        let told = told(&gone, &|_| String::new()).unwrap();
        assert!(told.contains("1 message of yours") && told.contains("for a minute or two"), "{told}");
        assert!(!told.contains("othing to do"), "{told}");
    }
}
