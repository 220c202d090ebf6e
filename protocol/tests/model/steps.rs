//! What the relay and the devices do, one step at a time.
//!
//! 1. A device makes something and posts it; the relay takes it in or refuses it; the answer travels back.
//! 2. A device reads the mailbox in order, on its own.
//! 3. A broken link loses what is on its way, a crash also what was not on the disk.
//!
//! Invariant: a step of a device looks at its own memory and at what the relay gives it, and at nothing else.

use crate::rules::Rules;
use crate::world::{Device, Envelope, Group, Link, Post, Reply, Vault, WINDOW, What, World};

/// A world in which the next step is taken.
#[derive(Debug)]
pub(crate) struct Step<'a> {
    pub(crate) rules: Rules,
    pub(crate) world: &'a mut World,
}

/// Whether a device may seal something: it is linked and in the group, nothing of its own is on its way, and it has read enough.
pub(crate) fn may_seal(device: &Device) -> bool {
    let ram = &device.ram;
    let free = ram.pending.is_none() && ram.read >= device.read_first;
    device.link == Link::Up(None, None) && ram.group.is_some() && free
}

impl Step<'_> {
    /// A device seals the first text of its outbox and posts it.
    pub(crate) fn post_text(&mut self, index: usize) {
        let device = &mut self.world.devices[index];
        let leaf = device.leaf;
        let (Some(group), Some(text)) = (device.ram.group.as_mut(), device.ram.outbox.first().copied()) else { return };
        let (epoch, generation) = if self.rules.seal_at_head { (group.epoch, group.texts) } else { (0, text) };
        group.texts += 1;
        let ended = |other: &Envelope| other.leaf == leaf && other.is_fence() && other.epoch == epoch;
        let too_late = self.world.mailbox.iter().any(|(other, _)| ended(other) && other.what != What::Garbage);
        self.world.wrongs.sealed_too_late |= too_late;
        if !self.rules.delivered_when_accepted {
            device.ram.delivered |= 1 << text;
        }
        let seen = device.ram.read;
        self.send(index, Envelope { leaf, epoch, generation, seen, what: What::Text(text) });
    }

    /// A device makes a Commit, or takes the one that was stale behind a void fence, and posts it.
    pub(crate) fn post_commit(&mut self, index: usize, readds: Option<usize>) {
        let device = &mut self.world.devices[index];
        if let Some(refused) = device.ram.refused.take() {
            return self.send(index, refused);
        }
        let Some(group) = device.ram.group.as_mut() else { return };
        self.world.commits_made += 1;
        let (id, epoch, generation) = (self.world.commits_made, group.epoch, group.commits);
        group.commits += 1;
        if !self.rules.apply_when_read {
            *group = Group { epoch: id, texts: 0, commits: 0 };
            self.world.won(epoch, id);
        }
        let device = &mut self.world.devices[index];
        device.ram.secrets.push(id);
        let (leaf, seen) = (device.leaf, device.ram.read);
        self.send(index, Envelope { leaf, epoch, generation, seen, what: What::Commit(id, readds) });
    }

    fn send(&mut self, index: usize, envelope: Envelope) {
        let device = &mut self.world.devices[index];
        device.ram.issued += 1;
        device.ram.newest = Some(envelope);
        let post = Post { idem: device.ram.issued, base: device.ram.fence, envelope };
        device.ram.pending = Some(post);
        if self.rules.persist_before_send {
            device.save();
        }
        device.link = Link::Up(Some(post), None);
    }

    /// What was not answered goes out again.
    pub(crate) fn resend(&mut self, index: usize) {
        let device = &mut self.world.devices[index];
        device.link = Link::Up(device.ram.pending, None);
    }

    /// The relay takes a Post off a link and answers it.
    pub(crate) fn decide(&mut self, index: usize) {
        let Link::Up(Some(post), None) = self.world.devices[index].link else { return };
        let reply = self.answer(self.world.devices[index].leaf, post);
        self.world.devices[index].link = Link::Up(None, Some(reply));
    }

    fn answer(&mut self, leaf: usize, post: Post) -> Reply {
        let world = &mut *self.world;
        let envelope = post.envelope;
        if !world.reached.contains(&envelope) {
            world.wrongs.key_reused |= world.reached.iter().any(|other| other.key() == envelope.key());
            world.reached.push(envelope);
            world.reached.sort_unstable();
        }
        let latest = world.fence();
        let book = &mut world.books[leaf];
        book.received = book.received.max((post.idem, Some(envelope)));
        if self.rules.idem_remembered {
            if let Some((_, seq)) = book.accepted.iter().find(|(idem, _)| *idem == post.idem) {
                return Reply::Accepted { seq: *seq };
            }
            if post.idem + WINDOW <= book.highest.0 {
                return Reply::Unknown { head: world.mailbox.len() };
            }
        }
        if post.base < latest && self.rules.fence_refuses_stale {
            return Reply::Stale { latest };
        }
        let seq = world.append(envelope, post.base);
        self.accepted(leaf, post.idem, seq, Some(envelope));
        if let What::Commit(id, Some(back)) = envelope.what {
            let book = &mut self.world.books[back];
            (book.asks, book.welcome) = (false, Some((id, seq)));
        }
        Reply::Accepted { seq }
    }

    fn accepted(&mut self, leaf: usize, idem: usize, seq: usize, what: Option<Envelope>) {
        let book = &mut self.world.books[leaf];
        book.accepted.push((idem, seq));
        book.highest = book.highest.max((idem, what));
        book.received = book.received.max((idem, what));
        let highest = book.highest.0;
        book.accepted.retain(|(idem, _)| idem + WINDOW > highest);
    }

    /// A device posts to another mailbox, which takes it in at once.
    pub(crate) fn elsewhere(&mut self, index: usize) {
        self.world.left.elsewhere -= 1;
        let device = &mut self.world.devices[index];
        device.ram.issued += 1;
        device.ram.newest = None;
        device.save();
        let (leaf, idem) = (device.leaf, device.ram.issued);
        self.accepted(leaf, idem, 0, None);
    }

    /// The answer to a Post arrives.
    pub(crate) fn take_reply(&mut self, index: usize) {
        let rules = self.rules;
        let device = &mut self.world.devices[index];
        let Link::Up(None, Some(reply)) = device.link else { return };
        device.link = Link::Up(None, None);
        let Some(post) = device.ram.pending.take() else { return };
        let envelope = post.envelope;
        match (reply, envelope.what) {
            (Reply::Accepted { .. }, What::Text(text)) => delivered(&mut device.ram, text),
            (Reply::Accepted { seq }, What::Commit(id, _)) => {
                if rules.accepted_commit_read_first {
                    device.read_first = seq;
                }
                if let Some(group) = device.ram.group.as_mut()
                    && !rules.reply_only_settles
                {
                    *group = Group { epoch: id, texts: 0, commits: 0 };
                }
            }
            (Reply::Stale { latest }, what) => {
                device.read_first = latest;
                // If its epoch has ended meanwhile, it is of no use any more.
                let current = device.ram.group.is_some_and(|group| group.epoch == envelope.epoch);
                device.ram.refused = (what.is_commit() && current).then_some(envelope);
            }
            (Reply::Unknown { head }, _) if rules.unknown_settled_by_reading => device.read_first = head,
            _ => {}
        }
        if let (Reply::Stale { .. } | Reply::Unknown { .. }, What::Commit(id, _)) = (reply, envelope.what)
            && !rules.keep_unsettled_secrets
        {
            device.ram.secrets.retain(|kept| *kept != id);
        }
        device.save();
    }

    /// A device reads the next entry of the mailbox.
    pub(crate) fn read(&mut self, index: usize) {
        let device = &mut self.world.devices[index];
        let (envelope, _) = self.world.mailbox[device.ram.read];
        device.ram.read += 1;
        if envelope.is_fence() {
            device.ram.fence = device.ram.read;
        }
        match envelope.what {
            What::Text(text) => self.read_text(index, &envelope, text),
            What::Commit(id, readds) => self.read_commit(index, &envelope, id, readds),
            What::Garbage => {}
        }
        self.world.devices[index].save();
    }

    fn read_text(&mut self, index: usize, envelope: &Envelope, text: usize) {
        let device = &mut self.world.devices[index];
        let wrongs = &mut self.world.wrongs;
        if envelope.leaf == device.leaf {
            delivered(&mut device.ram, text);
        } else if device.ram.group.is_some_and(|group| group.epoch != envelope.epoch) {
            wrongs.unreadable = true;
            return;
        } else if device.ram.history & (1 << text) != 0 {
            wrongs.applied_twice |= !self.rules.drop_repeats;
        }
        device.ram.history |= 1 << text;
    }

    fn read_commit(&mut self, index: usize, envelope: &Envelope, id: usize, readds: Option<usize>) {
        let device = &mut self.world.devices[index];
        let own = envelope.leaf == device.leaf;
        let Some(group) = device.ram.group else { return };
        let early = !self.rules.apply_when_read || !self.rules.reply_only_settles;
        if own && early && group.epoch == id {
            device.ram.commits = device.ram.commits.saturating_sub(usize::from(readds.is_none()));
            return;
        }
        if group.epoch != envelope.epoch && self.rules.other_epoch_is_void {
            return;
        }
        if group.epoch != envelope.epoch && self.world.winners.contains(&(envelope.epoch, id)) {
            self.world.wrongs.applied_twice = true;
            return;
        }
        if own && !device.ram.secrets.contains(&id) {
            self.world.wrongs.lost_its_way = true;
            device.ram.group = None;
            return;
        }
        // Whoever's leaf another copy has replaced holds nothing of the new epoch.
        let stays = readds != Some(device.leaf);
        device.ram.group = stays.then_some(Group { epoch: id, texts: 0, commits: 0 });
        device.ram.secrets.clear();
        device.ram.refused = None;
        if own && readds.is_none() {
            device.ram.commits = device.ram.commits.saturating_sub(1);
        }
        self.world.won(envelope.epoch, id);
    }

    /// A device that was let back in begins where the Commit stands that did it.
    pub(crate) fn come_back(&mut self, index: usize) {
        let device = &mut self.world.devices[index];
        let Some((epoch, seq)) = self.world.books[device.leaf].welcome.take() else { return };
        device.ram.group = Some(Group { epoch, texts: 0, commits: 0 });
        (device.ram.read, device.ram.fence) = (seq, seq);
        device.save();
    }

    /// A device links itself. The relay shows the highest idem; with a lie, also a higher one without a proof.
    pub(crate) fn link(&mut self, index: usize, lie: bool) {
        let head = self.world.mailbox.len();
        let device = &mut self.world.devices[index];
        let book = &mut self.world.books[device.leaf];
        if book.instance > device.ram.instance && self.rules.older_instance_refused {
            device.link = Link::Replaced;
            return;
        }
        let shown = if self.rules.refused_idems_shown { book.received } else { book.highest };
        device.link = Link::Up(None, None);
        device.read_first = if self.rules.caught_up_before_posting { head } else { 0 };
        if !self.rules.same_until_answered && device.ram.pending.take().is_some() {
            device.save();
        }
        let other = shown.0 == device.ram.issued && shown.1 != device.ram.newest && self.rules.same_idem_compared;
        let proved = self.rules.copy_detected && (shown.0 > device.ram.issued || other);
        let believed = lie && !self.rules.claims_need_mac;
        if proved || believed {
            let ram = &mut device.ram;
            ram.instance += 1;
            if self.rules.copy_counts_on {
                (ram.issued, ram.newest) = shown.max((ram.issued, ram.newest));
            }
            (ram.group, ram.pending, ram.refused) = (None, None, None);
            ram.secrets.clear();
            device.save();
            (book.instance, book.asks, book.welcome) = (device.ram.instance, true, None);
        }
        self.cut_others(index);
    }

    fn cut_others(&mut self, index: usize) {
        let leaf = self.world.devices[index].leaf;
        let replaced = |device: &Device| device.leaf == leaf && device.link != Link::Replaced;
        for (other, device) in self.world.devices.iter_mut().enumerate() {
            if self.rules.one_link && other != index && replaced(device) {
                device.link = Link::Cut;
                self.world.late =
                    self.world.late.filter(|late| late.envelope.leaf != leaf || !self.rules.old_link_done);
            }
        }
    }

    /// The link breaks. What was on its way is lost.
    pub(crate) fn lose(&mut self, index: usize, crash: bool) {
        self.world.left.faults -= 1;
        let device = &mut self.world.devices[index];
        device.link = if crash { Link::Crashed } else { Link::Down };
        device.read_first = 0;
        if crash {
            device.ram = device.disk.clone();
        }
    }

    /// The link breaks, and what was on its way will reach the relay all the same.
    pub(crate) fn linger(&mut self, index: usize) {
        self.world.left.late -= 1;
        if let Link::Up(post, _) = self.world.devices[index].link {
            self.world.late = post;
        }
        self.lose(index, false);
    }

    /// It reaches the relay; nobody hears the answer.
    pub(crate) fn arrive_late(&mut self) {
        if let Some(post) = self.world.late.take() {
            self.answer(post.envelope.leaf, post);
        }
    }

    /// Somebody copies a vault, to start the copy now or later or never.
    pub(crate) fn copy(&mut self, index: usize) {
        self.world.left.copies -= 1;
        let Device { leaf, disk, .. } = self.world.devices[index].clone();
        self.world.devices.push(Device { leaf, ram: disk.clone(), disk, link: Link::Cut, read_first: 0 });
    }
}

fn delivered(vault: &mut Vault, text: usize) {
    vault.outbox.retain(|waiting| *waiting != text);
    vault.delivered |= 1 << text;
}
