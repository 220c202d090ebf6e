//! Where a matter stands and what a device tells beside its records, in words.
//!
//! Invariant: nobody is left with a word alone: whatever stops a matter has a sentence that says what to do.

use privity_protocol::device::Notice;
use privity_protocol::device::state::Stage;

use crate::view::plain;

/// How far a matter has come, in a word.
pub fn stage(stage: Stage) -> &'static str {
    match stage {
        Stage::Opening => "opening",
        Stage::Joining => "joining",
        Stage::Open => "open",
        Stage::Removed => "removed",
        Stage::OutOfStep => "out_of_step",
        Stage::Paused => "paused",
        Stage::Outdated => "outdated",
        Stage::Moving => "moving",
        _ => "stopped",
    }
}

/// What that means and what to do, for a matter in which nothing can be said now; none for an open one.
pub fn stage_told(stage: Stage) -> Option<&'static str> {
    Some(match stage {
        Stage::Open => return None,
        Stage::Opening => "Not at the relay yet: it opens at the next contact. Nothing to do.",
        Stage::Joining => "You were added and are about to be in. Nothing to do.",
        Stage::Removed => "You are no longer in this matter. What you have read stays here; nothing new comes.",
        Stage::OutOfStep => {
            "This device missed a change and has asked the others to let it back in. Nothing to do; what you write waits until \
             somebody of this matter is online."
        }
        Stage::Paused => {
            "The relay holds something back that the next change here needs. Nothing is skipped, and it is asked for again. If \
             this lasts for hours, tell your firm's IT."
        }
        Stage::Outdated => "This matter follows rules of a newer version: update privity to read on and to write.",
        Stage::Moving => {
            "The matter goes on in a new place on the relay. What you write waits until you are let in there; if that takes more \
             than a day, ask your attorney whether you are still in it."
        }
        _ => {
            "The relay showed another history of this matter than before: nothing is read or sent here any more. Tell your \
             firm's IT, and talk to the others by telephone."
        }
    })
}

/// What a notice says to somebody who did not ask for it; none where it says nothing, or stands in a record.
pub fn notice(notice: &Notice) -> Option<String> {
    match notice {
        Notice::Problem(error) => Some(format!("warning: {}", plain(&error.to_string(), false))),
        Notice::Suspicious { handle, why } => Some(format!(
            "WARNING: somebody who asks to be {} was not accepted: {why}. Ask whom you invited, by another way",
            plain(handle, false)
        )),
        Notice::Endorsed { handle } => Some(format!("{} has joined", plain(handle, false))),
        Notice::Ready => Some("you are ready: others can add you to matters now".to_owned()),
        Notice::Unsendable { why, .. } => {
            Some(format!("a message could not be sent: {}", plain(&why.to_string(), false)))
        }
        Notice::Copied => Some(
            "this is a copy of your profile, or one restored from a backup. It asks the others to let it back in, and takes the \
             place of the other copy, which can't be used any more. Nothing to do; if you made no copy, tell your firm's IT at once"
                .to_owned(),
        ),
        Notice::Restored => Some(
            "the relay was restored from a backup and has forgotten something that you have read. What it misses is sent again; \
             nothing to do"
                .to_owned(),
        ),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_stage_that_is_not_open_says_what_to_do() {
        let all = [
            Stage::Opening,
            Stage::Joining,
            Stage::Open,
            Stage::Removed,
            Stage::Forked,
            Stage::OutOfStep,
            Stage::Paused,
            Stage::Outdated,
            Stage::Moving,
        ];
        let words: std::collections::BTreeSet<&str> = all.into_iter().map(stage).collect();
        assert_eq!(words.len(), all.len(), "{words:?}");
        for one in all {
            assert_eq!(stage_told(one).is_none(), one == Stage::Open, "{one:?}");
        }
    }

    #[test]
    fn a_copy_and_a_restored_relay_are_told_with_what_to_do() {
        for notice in [notice(&Notice::Copied), notice(&Notice::Restored)] {
            assert!(notice.is_some_and(|told| told.contains("othing to do")));
        }
    }
}
