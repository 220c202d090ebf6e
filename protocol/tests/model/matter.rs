//! The steps that are possible in a world, and what must hold in every one.
//!
//! Invariant: all steps but those of [`Matter::faults`] lead on, which is itself a property. So whatever is left when faults end comes
//! to an end, and that nobody waits for ever is a property of the worlds in which nothing is left to do.

use std::collections::BTreeSet;

use stateright::{Model, Property};

use crate::rules::Rules;
use crate::steps::{Step, may_seal};
use crate::world::{Bounds, Device, Envelope, Link, What, World};

/// One matter under some rules.
#[derive(Debug, Clone)]
pub(crate) struct Matter {
    pub(crate) rules: Rules,
    pub(crate) bounds: Bounds,
    /// What must be seen to happen in some state.
    pub(crate) seen: Vec<Seen>,
}

/// Something that happens in some state, by name.
pub(crate) type Seen = (&'static str, fn(&Matter, &World) -> bool);

/// A step, and whose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    PostText(usize),
    PostCommit(usize),
    /// The second is the leaf that is let back in.
    Repair(usize, usize),
    Resend(usize),
    Decide(usize),
    TakeReply(usize),
    Read(usize),
    ComeBack(usize),
    Link(usize),
    /// With a claim that the relay can't prove.
    LinkWithLie(usize),
    /// Another copy is or was linked.
    TakeOver(usize),
    Break(usize),
    Crash(usize),
    Linger(usize),
    ArriveLate,
    Copy(usize),
    Elsewhere(usize),
    Garbage,
    Replay,
}

impl Matter {
    /// What is left to do when nothing more goes wrong.
    fn progress(&self, world: &World, actions: &mut Vec<Action>) {
        for (index, device) in world.devices.iter().enumerate() {
            let ram = &device.ram;
            match device.link {
                Link::Crashed | Link::Down => actions.push(Action::Link(index)),
                Link::Cut | Link::Replaced => continue,
                Link::Up(None, None) if ram.pending.is_some() => actions.push(Action::Resend(index)),
                Link::Up(None, None) => {}
                Link::Up(Some(_), _) => actions.push(Action::Decide(index)),
                Link::Up(None, Some(_)) => actions.push(Action::TakeReply(index)),
            }
            if !matches!(device.link, Link::Up(..)) {
                continue;
            }
            match world.mailbox.get(ram.read) {
                _ if ram.group.is_none() => {}
                Some((envelope, _)) if envelope.what == What::Garbage && !self.rules.void_skipped => {}
                Some(_) => actions.push(Action::Read(index)),
                None => {}
            }
            let book = &world.books[device.leaf];
            if ram.group.is_none() && book.welcome.is_some() && book.instance == ram.instance {
                actions.push(Action::ComeBack(index));
            }
            if may_seal(device) {
                self.sealable(world, index, actions);
            }
        }
    }

    fn sealable(&self, world: &World, index: usize, actions: &mut Vec<Action>) {
        let device = &world.devices[index];
        if device.ram.refused.is_some() {
            if self.rules.repost_behind_void {
                actions.push(Action::PostCommit(index));
            }
            return;
        }
        if !device.ram.outbox.is_empty() {
            actions.push(Action::PostText(index));
        }
        if device.ram.commits > 0 {
            actions.push(Action::PostCommit(index));
        }
        for (leaf, book) in world.books.iter().enumerate() {
            if book.asks && leaf != device.leaf && self.rules.members_repair {
                actions.push(Action::Repair(index, leaf));
            }
        }
    }

    /// What may go wrong.
    fn faults(world: &World, actions: &mut Vec<Action>) {
        let left = &world.left;
        for (index, device) in world.devices.iter().enumerate() {
            let busy = device.ram.pending.is_some() || device.ram.read < device.read_first;
            match device.link {
                Link::Up(..) if busy && left.faults > 0 => {
                    actions.extend([Action::Break(index), Action::Crash(index)]);
                }
                Link::Crashed | Link::Down if left.lies > 0 => actions.push(Action::LinkWithLie(index)),
                Link::Cut if left.takeovers > 0 => actions.push(Action::TakeOver(index)),
                _ => {}
            }
            if matches!(device.link, Link::Up(Some(_), _)) && left.faults > 0 && left.late > 0 {
                actions.push(Action::Linger(index));
            }
            if matches!(device.link, Link::Up(..)) && device.ram.pending.is_some() && left.elsewhere > 0 {
                actions.push(Action::Elsewhere(index));
            }
            // Whose vault it is makes no difference.
            if index == 0 && left.copies > 0 {
                actions.push(Action::Copy(index));
            }
        }
        if world.late.is_some() {
            actions.push(Action::ArriveLate);
        }
        if left.voids > 0 {
            actions.push(Action::Garbage);
            if world.mailbox.iter().any(|(envelope, _)| matches!(envelope.what, What::Commit(..))) {
                actions.push(Action::Replay);
            }
        }
    }

    /// Whether there is nothing left to do.
    pub(crate) fn at_rest(&self, world: &World) -> bool {
        let mut actions = Vec::new();
        self.progress(world, &mut actions);
        actions.is_empty()
    }
}

impl Model for Matter {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        vec![World::new(&self.bounds)]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        self.progress(world, actions);
        Self::faults(world, actions);
    }

    fn next_state(&self, last: &World, action: Action) -> Option<World> {
        let mut world = last.clone();
        let fault = Step { rules: self.rules, world: &mut world }.take(action);
        world.wrongs.in_circles |= !fault && way(&world) <= way(last);
        Some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = vec![
            Property::always(ONE_COMMIT, |_, world: &World| !world.wrongs.two_winners),
            Property::always(DELIVERED, |_, world: &World| delivered_is_in_the_mailbox(world)),
            Property::always(READABLE, |_, world: &World| !world.wrongs.unreadable),
            Property::always(ONCE, |_, world: &World| !world.wrongs.applied_twice),
            Property::always(STORED_ONCE, |_, world: &World| stored_once(world)),
            Property::always(ONE_KEY, |_, world: &World| !world.wrongs.key_reused),
            Property::always(IN_STEP, |_, world: &World| !world.wrongs.lost_its_way),
            Property::always(IN_TIME, |_, world: &World| !world.wrongs.sealed_too_late),
            Property::always(NOBODY_WAITS, |matter: &Self, world: &World| !matter.at_rest(world) || settled(world)),
            Property::always(LEADS_ON, |_, world: &World| !world.wrongs.in_circles),
            Property::always(ONLY_COPIES, |_, world: &World| only_copies_move(world)),
        ];
        properties.extend(self.seen.iter().map(|(name, seen)| Property::sometimes(name, *seen)));
        properties
    }

    /// Without a rule there may be no end to it.
    fn within_boundary(&self, world: &World) -> bool {
        world.mailbox.len() <= 12 && world.devices.iter().all(|device| device.ram.issued <= 12)
    }
}

impl Step<'_> {
    /// Takes a step; whether it is one that may go wrong.
    fn take(&mut self, action: Action) -> bool {
        match action {
            Action::PostText(index) => self.post_text(index),
            Action::PostCommit(index) => self.post_commit(index, None),
            Action::Repair(index, leaf) => self.post_commit(index, Some(leaf)),
            Action::Resend(index) => self.resend(index),
            Action::Decide(index) => self.decide(index),
            Action::TakeReply(index) => self.take_reply(index),
            Action::Read(index) => self.read(index),
            Action::ComeBack(index) => self.come_back(index),
            Action::Link(index) => self.link(index, false),
            fault => {
                self.go_wrong(fault);
                return true;
            }
        }
        false
    }

    fn go_wrong(&mut self, fault: Action) {
        let left = &mut self.world.left;
        match fault {
            Action::LinkWithLie(index) => {
                left.lies -= 1;
                self.link(index, true);
            }
            Action::TakeOver(index) => {
                left.takeovers -= 1;
                self.link(index, false);
            }
            Action::Break(index) => self.lose(index, false),
            Action::Crash(index) => self.lose(index, true),
            Action::Linger(index) => self.linger(index),
            Action::ArriveLate => self.arrive_late(),
            Action::Copy(index) => self.copy(index),
            Action::Elsewhere(index) => self.elsewhere(index),
            Action::Garbage => {
                left.voids -= 1;
                let (leaf, epoch, generation, seen, what) = (0, 0, 0, 0, What::Garbage);
                let fence = self.world.fence();
                self.world.append(Envelope { leaf, epoch, generation, seen, what }, fence);
            }
            Action::Replay => {
                left.voids -= 1;
                let fence = self.world.fence();
                let last = self.world.mailbox.iter().rfind(|(envelope, _)| envelope.what.is_commit());
                if let Some((envelope, _)) = last.copied() {
                    self.world.append(envelope, fence);
                }
            }
            _ => {}
        }
    }
}

/// How far everybody has come: what is issued and read, and then how far the last Post is.
fn way(world: &World) -> usize {
    let way = |device: &Device| {
        let posted = match device.link {
            Link::Up(..) if device.ram.pending.is_none() => 4,
            Link::Up(None, None) => 1,
            Link::Up(Some(_), _) => 2,
            Link::Up(None, Some(_)) => 3,
            Link::Crashed | Link::Down => 0,
            Link::Cut | Link::Replaced => 5,
        };
        8 * (device.ram.issued + device.ram.read) + posted
    };
    world.devices.iter().map(way).sum()
}

pub(crate) const ONE_COMMIT: &str = "one Commit ends an epoch";
pub(crate) const DELIVERED: &str = "what is taken to be delivered is in the mailbox";
pub(crate) const READABLE: &str = "what is in the mailbox can be opened by every member";
pub(crate) const ONCE: &str = "nothing is applied twice";
pub(crate) const STORED_ONCE: &str = "nothing is stored twice but by two copies";
pub(crate) const ONE_KEY: &str = "one key seals one thing";
pub(crate) const IN_STEP: &str = "nobody lacks the secrets of their own Commit";
pub(crate) const IN_TIME: &str = "nothing is sealed in an epoch that one's own Commit has ended";
const LEADS_ON: &str = "every step leads on";
pub(crate) const NOBODY_WAITS: &str = "nobody waits for ever";
pub(crate) const ONLY_COPIES: &str = "nobody but a copy is taken for one";

fn delivered_is_in_the_mailbox(world: &World) -> bool {
    world.devices.iter().all(|device| {
        let stands = |text| {
            let same = |envelope: &Envelope| envelope.leaf == device.leaf && envelope.what == What::Text(text);
            world.mailbox.iter().any(|(envelope, _)| same(envelope))
        };
        (0..usize::BITS as usize).filter(|text| device.ram.delivered >> text & 1 == 1).all(stands)
    })
}

fn stored_once(world: &World) -> bool {
    let texts: Vec<What> =
        world.mailbox.iter().map(|(envelope, _)| envelope.what).filter(|what| matches!(what, What::Text(_))).collect();
    let distinct: BTreeSet<&What> = texts.iter().collect();
    copied(world, 0) || distinct.len() == texts.len()
}

fn only_copies_move(world: &World) -> bool {
    world.devices.iter().all(|device| device.ram.instance == 0 || copied(world, device.leaf))
}

pub(crate) fn copied(world: &World, leaf: usize) -> bool {
    world.devices.iter().filter(|device| device.leaf == leaf).count() > 1
}

/// Everybody who is linked has said and read everything, in one epoch.
pub(crate) fn settled(world: &World) -> bool {
    let mut linked = world.devices.iter().filter(|device| matches!(device.link, Link::Up(..)));
    let epochs: BTreeSet<Option<usize>> =
        linked.clone().map(|device| device.ram.group.map(|group| group.epoch)).collect();
    let texts: usize = world.left.texts.iter().sum();
    linked.all(|device| {
        let ram = &device.ram;
        let said = ram.outbox.is_empty() && ram.commits == 0 && ram.pending.is_none() && ram.refused.is_none();
        let together = epochs.len() == 1 && ram.group.is_some();
        let heard = copied(world, device.leaf) || ram.history + 1 == 1 << texts;
        said && together && heard && ram.read == world.mailbox.len()
    })
}
