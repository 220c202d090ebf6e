//! What there is: a relay with one mailbox, its devices with their vaults, and what has gone wrong.
//!
//! Bytes are told apart by what made them: a Commit by a number of its own, a text by its message id and the position its sender had
//! read. An epoch has the number of the Commit that began it; the first is 0.
//!
//! Invariant: a [`World`] holds nothing that neither the relay nor a device would know, but for what the properties look at.

/// Whoever a leaf of the group belongs to. Several installations share one when a vault was copied.
pub(crate) type Leaf = usize;

/// How many accepted idems the relay remembers for each device.
pub(crate) const WINDOW: usize = 2;

/// How much may happen: what people want to say and do, and what may go wrong. What is left of it is part of the state.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(crate) struct Bounds {
    /// Texts that each member wants to send.
    pub(crate) texts: Vec<usize>,
    /// Commits that each member wants to make.
    pub(crate) commits: Vec<usize>,
    /// Links that break and programs that crash.
    pub(crate) faults: usize,
    /// Posts of a broken link that reach the relay only after the next link is up.
    pub(crate) late: usize,
    /// Fences that mean nothing, from a malicious member: garbage, or an older Commit once more.
    pub(crate) voids: usize,
    /// Copies of a vault: a restored backup is one whose original never comes back.
    pub(crate) copies: usize,
    /// Times that one of two copies links itself while the other may be linked.
    pub(crate) takeovers: usize,
    /// Admissions at which the relay claims an idem that it can't prove.
    pub(crate) lies: usize,
    /// Posts to other mailboxes, which push older idems out of the relay's memory.
    pub(crate) elsewhere: usize,
}

/// What an envelope holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum What {
    /// A text, by its message id.
    Text(usize),
    /// A Commit, by its number, and the leaf that it lets back in, if it is a repair.
    Commit(usize, Option<Leaf>),
    /// Nothing that anybody can use.
    Garbage,
}

impl What {
    /// Whether it may end an epoch.
    pub(crate) fn is_commit(self) -> bool {
        matches!(self, Self::Commit(..))
    }
}

/// A sealed message or Commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Envelope {
    /// The sender's leaf.
    pub(crate) leaf: Leaf,
    /// The epoch it is sealed in.
    pub(crate) epoch: usize,
    /// The generation of the sender's ratchet, one for texts and one for Commits.
    pub(crate) generation: usize,
    /// The position its sender had read; it is sealed with it.
    pub(crate) seen: usize,
    /// What is in it.
    pub(crate) what: What,
}

impl Envelope {
    /// Whether the relay keeps everything older from coming after it.
    pub(crate) fn is_fence(&self) -> bool {
        !matches!(self.what, What::Text(_))
    }

    /// The key that seals it.
    pub(crate) fn key(&self) -> (Leaf, usize, bool, usize) {
        (self.leaf, self.epoch, self.is_fence(), self.generation)
    }
}

/// What a device asks of the relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Post {
    pub(crate) idem: usize,
    /// The last fence its sender has read.
    pub(crate) base: usize,
    pub(crate) envelope: Envelope,
}

/// What the relay answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Reply {
    /// It stands there.
    Accepted { seq: usize },
    /// A newer fence stands there.
    Stale { latest: usize },
    /// The idem is too old to tell; the mailbox ends there.
    Unknown { head: usize },
}

/// A device's place in the group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Group {
    pub(crate) epoch: usize,
    /// The next generation for texts.
    pub(crate) texts: usize,
    /// The next generation for Commits.
    pub(crate) commits: usize,
}

/// What a device keeps on its disk.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Vault {
    /// The highest idem issued.
    pub(crate) issued: usize,
    /// What it stands for.
    pub(crate) newest: Option<Envelope>,
    /// Which copy this is.
    pub(crate) instance: usize,
    /// None while it waits to be let back in.
    pub(crate) group: Option<Group>,
    /// Up to where the mailbox is read.
    pub(crate) read: usize,
    /// The last fence read.
    pub(crate) fence: usize,
    /// Texts that are not known to stand in the mailbox, oldest first.
    pub(crate) outbox: Vec<usize>,
    /// Commits wanted.
    pub(crate) commits: usize,
    /// Sent or about to be, not answered.
    pub(crate) pending: Option<Post>,
    /// An own Commit that was refused as stale.
    pub(crate) refused: Option<Envelope>,
    /// Own Commits whose secrets are kept.
    pub(crate) secrets: Vec<usize>,
    /// Texts read, one bit each.
    pub(crate) history: usize,
    /// Texts of its own that it takes to be delivered, one bit each.
    pub(crate) delivered: usize,
}

/// How a device stands to the relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Link {
    /// The program has died.
    Crashed,
    /// Broken; the device will link itself again.
    Down,
    /// Another copy has taken its place, or it is a copy that nobody has started. It may come back, or never.
    Cut,
    /// The relay has refused it for good: a newer instance has been here.
    Replaced,
    /// With what is on its way, there and back.
    Up(Option<Post>, Option<Reply>),
}

/// One installation.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Device {
    pub(crate) leaf: Leaf,
    /// What is on its disk.
    pub(crate) disk: Vault,
    /// What the program works with.
    pub(crate) ram: Vault,
    pub(crate) link: Link,
    /// Nothing is posted before the mailbox is read up to here.
    pub(crate) read_first: usize,
}

impl Device {
    /// Takes what it has in memory to the disk.
    pub(crate) fn save(&mut self) {
        self.disk = self.ram.clone();
    }
}

/// What the relay knows of one device.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(crate) struct Book {
    /// Accepted idems, with the seqs.
    pub(crate) accepted: Vec<(usize, usize)>,
    /// The highest idem accepted, and what it stood for.
    pub(crate) highest: (usize, Option<Envelope>),
    /// The highest idem received, whatever became of it, and what it stood for; without, what is in other mailboxes.
    pub(crate) received: (usize, Option<Envelope>),
    /// The newest instance admitted.
    pub(crate) instance: usize,
    /// Whether it asks to be let back in.
    pub(crate) asks: bool,
    /// The epoch and the position at which it may come back in.
    pub(crate) welcome: Option<(usize, usize)>,
}

/// What must never happen, noted where it happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct Wrongs {
    /// Two Commits ended one epoch.
    pub(crate) two_winners: bool,
    /// A reader was shown a text twice, or applied a Commit twice.
    pub(crate) applied_twice: bool,
    /// A step led back, or nowhere, though nothing went wrong.
    pub(crate) in_circles: bool,
    /// One key sealed two things.
    pub(crate) key_reused: bool,
    /// A member could not open what another one sent.
    pub(crate) unreadable: bool,
    /// A device met its own Commit without the secrets for it.
    pub(crate) lost_its_way: bool,
    /// A device sealed a text in an epoch that a Commit of its own had ended.
    pub(crate) sealed_too_late: bool,
}

/// Everything.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct World {
    /// The mailbox: the envelope at seq 1 comes first. With each, the base it was posted with.
    pub(crate) mailbox: Vec<(Envelope, usize)>,
    pub(crate) books: Vec<Book>,
    pub(crate) devices: Vec<Device>,
    /// A Post of a broken link.
    pub(crate) late: Option<Post>,
    /// What may still happen.
    pub(crate) left: Bounds,
    /// Every envelope that has reached the relay, sorted.
    pub(crate) reached: Vec<Envelope>,
    /// Which Commit ended which epoch, for whoever applied it.
    pub(crate) winners: Vec<(usize, usize)>,
    /// How many Commits were ever made.
    pub(crate) commits_made: usize,
    pub(crate) wrongs: Wrongs,
}

impl World {
    /// Everybody is in the matter and linked, and nothing has been said.
    pub(crate) fn new(bounds: &Bounds) -> Self {
        let mut first = 0;
        let mut devices = Vec::new();
        for (leaf, texts) in bounds.texts.iter().enumerate() {
            let vault = Vault {
                issued: 0,
                newest: None,
                instance: 0,
                group: Some(Group { epoch: 0, texts: 0, commits: 0 }),
                read: 0,
                fence: 0,
                outbox: (first..first + texts).collect(),
                commits: bounds.commits[leaf],
                pending: None,
                refused: None,
                secrets: Vec::new(),
                history: 0,
                delivered: 0,
            };
            first += texts;
            let link = Link::Up(None, None);
            devices.push(Device { leaf, disk: vault.clone(), ram: vault, link, read_first: 0 });
        }
        Self {
            mailbox: Vec::new(),
            books: vec![Book::default(); devices.len()],
            devices,
            late: None,
            left: bounds.clone(),
            reached: Vec::new(),
            winners: Vec::new(),
            commits_made: 0,
            wrongs: Wrongs::default(),
        }
    }

    /// The last fence.
    pub(crate) fn fence(&self) -> usize {
        self.mailbox.iter().rposition(|(envelope, _)| envelope.is_fence()).map_or(0, |index| index + 1)
    }

    /// Puts an envelope into the mailbox.
    pub(crate) fn append(&mut self, envelope: Envelope, base: usize) -> usize {
        self.mailbox.push((envelope, base));
        self.mailbox.len()
    }

    /// Notes which Commit ended an epoch.
    pub(crate) fn won(&mut self, epoch: usize, commit: usize) {
        if !self.winners.contains(&(epoch, commit)) {
            self.wrongs.two_winners |= self.winners.iter().any(|(other, _)| *other == epoch);
            self.winners.push((epoch, commit));
            self.winners.sort_unstable();
        }
    }
}
