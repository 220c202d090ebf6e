//! Who listens to what: links register here, and what the writer made durable is handed to them.
//!
//! Each link has one [`Outbox`], bounded in bytes. When it overflows, entries are dropped from it and the link is marked lagging:
//! it then reads from the store, from where it was. Entries are shared, not copied, between links.
//!
//! Invariant: nothing waits here for a slow reader; what is dropped here is in the store.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use privity_protocol::frame::{Blob, Entry, EntryBody, Event};
use privity_protocol::ids::{MailboxId, PersonId};
use privity_protocol::limits;
use tokio::sync::Notify;

use crate::policy::Caller;
use crate::relay::Wake;

/// Events that wait for one link, beside entries.
const EVENTS_MAX: usize = 256;

/// Something for a link.
#[derive(Debug, Clone)]
pub enum Item {
    /// A new entry of a mailbox.
    Entry(MailboxId, Arc<Entry>),
    /// Reading of a mailbox ends at this seq.
    Ended(MailboxId, u64),
    /// Anything else.
    Event(Event),
}

/// What waits for one link.
#[derive(Debug)]
pub struct Outbox {
    caller: Caller,
    queue: Mutex<Queue>,
    notify: Notify,
}

#[derive(Debug, Default)]
struct Queue {
    items: VecDeque<Item>,
    bytes: usize,
    lagging: bool,
}

impl Outbox {
    /// Waits until there is something to take.
    pub async fn ready(&self) {
        self.notify.notified().await;
    }

    /// Everything that waits, and whether entries were dropped.
    pub fn take(&self) -> (VecDeque<Item>, bool) {
        let mut queue = lock(&self.queue);
        queue.bytes = 0;
        (std::mem::take(&mut queue.items), std::mem::take(&mut queue.lagging))
    }

    fn put(&self, item: Item) {
        let mut queue = lock(&self.queue);
        match &item {
            Item::Entry(_, entry) => {
                let bytes = match &entry.body {
                    EntryBody::Envelope(envelope) => envelope.0.len(),
                    _ => 64,
                };
                if queue.lagging || queue.bytes.saturating_add(bytes) > limits::PUSH_QUEUE_BYTES {
                    queue.lagging = true;
                    queue.items.retain(|item| !matches!(item, Item::Entry(..)));
                    queue.bytes = 0;
                } else {
                    queue.bytes += bytes;
                    queue.items.push_back(item);
                }
            }
            _ if queue.items.len() < EVENTS_MAX || matches!(item, Item::Ended(..)) => queue.items.push_back(item),
            _ => {}
        }
        drop(queue);
        self.notify.notify_one();
    }
}

/// All links.
#[derive(Debug, Default)]
pub struct Hub {
    links: Mutex<Links>,
}

#[derive(Debug, Default)]
struct Links {
    by_person: HashMap<PersonId, Vec<Arc<Outbox>>>,
    by_mailbox: HashMap<MailboxId, Vec<Arc<Outbox>>>,
}

impl Hub {
    /// A new link of a device.
    pub fn join(&self, caller: Caller) -> Arc<Outbox> {
        let outbox = Arc::new(Outbox { caller, queue: Mutex::default(), notify: Notify::new() });
        lock(&self.links).by_person.entry(caller.person).or_default().push(Arc::clone(&outbox));
        outbox
    }

    /// A link listens to a mailbox from now on.
    pub fn listen(&self, mailbox: MailboxId, outbox: &Arc<Outbox>) {
        let mut links = lock(&self.links);
        let listeners = links.by_mailbox.entry(mailbox).or_default();
        if !listeners.iter().any(|known| Arc::ptr_eq(known, outbox)) {
            listeners.push(Arc::clone(outbox));
        }
    }

    /// A link no longer listens to a mailbox.
    pub fn ignore(&self, mailbox: MailboxId, outbox: &Arc<Outbox>) {
        remove(&mut lock(&self.links).by_mailbox, &mailbox, outbox);
    }

    /// A link is gone, with the mailboxes it listened to.
    pub fn leave(&self, outbox: &Arc<Outbox>, mailboxes: impl Iterator<Item = MailboxId>) {
        let mut links = lock(&self.links);
        remove(&mut links.by_person, &outbox.caller.person, outbox);
        for mailbox in mailboxes {
            remove(&mut links.by_mailbox, &mailbox, outbox);
        }
    }

    /// Hands out what has become durable.
    pub fn publish(&self, wakes: Vec<Wake>) {
        if wakes.is_empty() {
            return;
        }
        let links = lock(&self.links);
        for wake in wakes {
            match wake {
                Wake::Entry { mailbox, seq, fence, envelope } => {
                    let Some(listeners) = links.by_mailbox.get(&mailbox) else { continue };
                    let entry = Arc::new(Entry { seq, fence, body: EntryBody::Envelope(Blob(envelope)) });
                    for outbox in listeners {
                        outbox.put(Item::Entry(mailbox, Arc::clone(&entry)));
                    }
                }
                Wake::Ended { mailbox, device, until } => {
                    let listeners = links.by_mailbox.get(&mailbox).into_iter().flatten();
                    for outbox in listeners.filter(|outbox| outbox.caller.device == device) {
                        outbox.put(Item::Ended(mailbox, until));
                    }
                }
                Wake::Person { person, event } => {
                    for outbox in links.by_person.get(&person).into_iter().flatten() {
                        outbox.put(Item::Event(event.clone()));
                    }
                }
                Wake::Device { device, event } => {
                    let all = links.by_person.values().flatten();
                    for outbox in all.filter(|outbox| outbox.caller.device == device) {
                        outbox.put(Item::Event(event.clone()));
                    }
                }
            }
        }
    }
}

fn remove<K: std::hash::Hash + Eq>(map: &mut HashMap<K, Vec<Arc<Outbox>>>, key: &K, outbox: &Arc<Outbox>) {
    if let Some(listeners) = map.get_mut(key) {
        listeners.retain(|known| !Arc::ptr_eq(known, outbox));
        if listeners.is_empty() {
            map.remove(key);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
