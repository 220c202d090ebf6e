//! The roster, held against the members: whoever manages a matter puts right what a void Commit left behind.
//!
//! A Commit's Post changes the roster at once, whether the members then follow the Commit or not. After one that they did not follow,
//! and after one of somebody else's that changed who is in it, a device that manages the matter looks at the relay's roster.
//!
//! Invariant: nothing is corrected on a view older than the relay's newest fence.

use crate::device::state::{PendingPost, Purpose, Stage};
use crate::device::{Asked, Device};
use crate::frame::{Part, Reply, Request, Rights};
use crate::identity::Role;
use crate::ids::MatterId;

impl Device {
    /// Asks for a matter's roster, if this device could correct it.
    pub(super) fn look_at_roster(&mut self, matter: MatterId) {
        if let Some(room) = self.rooms.get_mut(&matter).filter(|_| self.profile.role.manages()) {
            room.row.roster_due = true;
        }
        let Some(row) = self.rooms.get(&matter).map(|room| &room.row) else { return };
        let asked = self.later.iter().any(|(asked, _)| *asked == Asked::Roster(matter));
        if self.profile.role.manages() && row.stage == Stage::Open && !asked {
            let mailbox = row.mailbox;
            self.ask_later(Asked::Roster(matter), Request::Roster { mailbox });
        }
    }

    /// What was not looked at, for a link broke or a fence came, is looked at now.
    pub(super) fn look_at_rosters_that_are_due(&mut self) {
        let due = self.rooms.iter().filter(|(_, room)| room.row.roster_due);
        let matters: Vec<MatterId> = due.map(|(matter, _)| *matter).collect();
        matters.into_iter().for_each(|matter| self.look_at_roster(matter));
    }

    /// Gives back what members should have, and takes what others should not.
    pub(super) fn roster_came(&mut self, matter: MatterId, reply: Reply) {
        let Reply::Roster { grants, fence } = reply else { return };
        let Some(row) = self.rooms.get(&matter).map(|room| room.row.clone()) else { return };
        // Behind a newer fence there is another roster; whoever reads that one looks again.
        if fence != row.fence || row.stage != Stage::Open || row.lost.is_some() {
            return;
        }
        if let Some(room) = self.rooms.get_mut(&matter) {
            room.row.roster_due = false;
        }
        self.save_room(matter);
        let Ok(group) = self.group(matter) else { return };
        let (Ok(context), members) = (group.context(), group.members()) else { return };
        let mut parts = Vec::new();
        for member in &members {
            let device = member.credential.device;
            let role = context.participant(member.credential.person).map(|participant| participant.role);
            let rights = if role.is_some_and(Role::manages) { Rights::MANAGER } else { Rights::MEMBER };
            if !grants.iter().any(|grant| grant.device == device && grant.rights.include(rights)) {
                parts.push(Part::Grant { mailbox: row.mailbox, device, rights, resume: true });
            }
        }
        for grant in &grants {
            if !members.iter().any(|member| member.credential.device == grant.device) {
                parts.push(Part::Revoke { mailbox: row.mailbox, device: grant.device });
            }
        }
        if !parts.is_empty() {
            self.new_post(PendingPost::new(parts, matter, Purpose::Roster));
        }
    }
}
