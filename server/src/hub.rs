//! Who listens to what: links register here, and what the writer made durable is handed to them.
//!
//! Each link has one [`Outbox`], bounded in bytes. When it overflows, entries are dropped from it and the link is marked lagging:
//! it then reads from the store, from where it was. An entry is encoded once, as the frame that carries it, and that frame's bytes are
//! shared by all who listen.
//!
//! A device has one link: a new one closes the one before. A link that is closed asks the writer for nothing more.
//!
//! Invariant: nothing waits here for a slow reader; what is dropped here is in the store.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use privity_protocol::frame::{self, Blob, Entry, EntryBody, Event, FromRelay};
use privity_protocol::ids::{DeviceId, MailboxId, PersonId};
use privity_protocol::limits;
use tokio::sync::Notify;

use crate::policy::Caller;
use crate::relay::Wake;

/// Events that wait for one link, beside entries.
const EVENTS_MAX: usize = 256;

/// Something for a link.
#[derive(Debug, Clone)]
pub(crate) enum Item {
    /// A new entry of a mailbox.
    Entry {
        /// Which mailbox.
        mailbox: MailboxId,
        /// Its seq.
        seq: u64,
        /// The frame that carries it, as it goes on the wire.
        frame: Bytes,
    },
    /// An interval of this device in a mailbox has ended; the store knows where.
    Ended(MailboxId),
    /// Anything else.
    Event(Event),
}

/// Why the relay closes a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Closing {
    /// A newer link of the same instance has taken its place.
    Crowded,
    /// A newer instance of the device has.
    Replaced,
    /// The device was revoked.
    Revoked,
    /// Its person's endorsement was withdrawn.
    Withdrawn,
}

/// What waits for one link.
#[derive(Debug)]
pub(crate) struct Outbox {
    caller: Caller,
    queue: Mutex<Queue>,
    notify: Notify,
    /// Tells a link that is crowded out at once, whatever it is busy with.
    crowded: Notify,
    closing: Mutex<Option<Closing>>,
}

#[derive(Debug, Default)]
struct Queue {
    items: VecDeque<Item>,
    bytes: usize,
    events: usize,
    lagging: bool,
}

impl Outbox {
    /// Waits until there is something to take, or the link is to be [closed](Self::closing).
    pub(crate) async fn ready(&self) {
        self.notify.notified().await;
    }

    /// Everything that waits, and whether entries were dropped.
    pub(crate) fn take(&self) -> (VecDeque<Item>, bool) {
        let queue = std::mem::take(&mut *lock(&self.queue));
        (queue.items, queue.lagging)
    }

    /// Why this link is to be closed, if it is.
    pub(crate) fn closing(&self) -> Option<Closing> {
        *lock(&self.closing)
    }

    /// Waits until a newer link has taken this one's place.
    pub(crate) async fn crowded(&self) {
        self.crowded.notified().await;
    }

    /// Does something if this link is not closed; it is not closed meanwhile.
    pub(crate) fn while_open(&self, act: impl FnOnce()) -> bool {
        let closing = lock(&self.closing);
        let open = closing.is_none();
        if open {
            act();
        }
        open
    }

    fn close(&self, closing: Closing) {
        // The first reason stands.
        let reason = *lock(&self.closing).get_or_insert(closing);
        if reason == Closing::Crowded {
            self.crowded.notify_one();
        }
        self.notify.notify_one();
    }

    fn put(&self, item: Item) {
        let mut queue = lock(&self.queue);
        match &item {
            Item::Entry { frame, .. } => {
                if queue.lagging || queue.bytes.saturating_add(frame.len()) > limits::PUSH_QUEUE_BYTES {
                    queue.lagging = true;
                    queue.items.retain(|item| !matches!(item, Item::Entry { .. }));
                    queue.bytes = 0;
                } else {
                    queue.bytes += frame.len();
                    queue.items.push_back(item);
                }
            }
            // At most one for each subscription.
            Item::Ended(mailbox) => {
                let known = |item: &Item| matches!(item, Item::Ended(waiting) if waiting == mailbox);
                if !queue.items.iter().any(known) {
                    queue.items.push_back(item);
                }
            }
            // Each of these events only says "ask again"; with this many waiting, one more tells nothing.
            Item::Event(_) => {
                if queue.events < EVENTS_MAX {
                    queue.events += 1;
                    queue.items.push_back(item);
                }
            }
        }
        drop(queue);
        self.notify.notify_one();
    }
}

/// All links.
#[derive(Debug, Default)]
pub(crate) struct Hub {
    links: Mutex<Links>,
}

#[derive(Debug, Default)]
struct Links {
    by_person: HashMap<PersonId, Vec<Arc<Outbox>>>,
    by_device: HashMap<DeviceId, Vec<Arc<Outbox>>>,
    by_mailbox: HashMap<MailboxId, Vec<Arc<Outbox>>>,
}

/// A link's place in the hub, until this is dropped.
#[derive(Debug)]
pub(crate) struct Seat {
    hub: Arc<Hub>,
    outbox: Arc<Outbox>,
}

impl Seat {
    /// A new link of a device takes its place.
    pub(crate) fn take(hub: &Arc<Hub>, caller: Caller) -> Self {
        Self { outbox: hub.join(caller), hub: Arc::clone(hub) }
    }

    /// What waits for the link.
    pub(crate) fn outbox(&self) -> &Arc<Outbox> {
        &self.outbox
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.hub.leave(&self.outbox, std::iter::empty());
    }
}

impl Hub {
    /// A new link of a device. The one of the same instance before it is closed; whether another instance stays, the writer decides.
    pub(crate) fn join(&self, caller: Caller) -> Arc<Outbox> {
        let (queue, notify, crowded, closing) = (Mutex::default(), Notify::new(), Notify::new(), Mutex::default());
        let outbox = Arc::new(Outbox { caller, queue, notify, crowded, closing });
        let mut links = lock(&self.links);
        links.by_person.entry(caller.person).or_default().push(Arc::clone(&outbox));
        let own = links.by_device.entry(caller.device).or_default();
        for old in own.iter().filter(|old| old.caller.instance == caller.instance) {
            old.close(Closing::Crowded);
        }
        own.push(Arc::clone(&outbox));
        outbox
    }

    /// A link listens to a mailbox from now on.
    pub(crate) fn listen(&self, mailbox: MailboxId, outbox: &Arc<Outbox>) {
        let mut links = lock(&self.links);
        let listeners = links.by_mailbox.entry(mailbox).or_default();
        if !listeners.iter().any(|known| Arc::ptr_eq(known, outbox)) {
            listeners.push(Arc::clone(outbox));
        }
    }

    /// A link no longer listens to a mailbox.
    pub(crate) fn ignore(&self, mailbox: MailboxId, outbox: &Arc<Outbox>) {
        remove(&mut lock(&self.links).by_mailbox, &mailbox, outbox);
    }

    /// A link is gone, with the mailboxes it listened to.
    pub(crate) fn leave(&self, outbox: &Arc<Outbox>, mailboxes: impl Iterator<Item = MailboxId>) {
        let mut links = lock(&self.links);
        remove(&mut links.by_person, &outbox.caller.person, outbox);
        remove(&mut links.by_device, &outbox.caller.device, outbox);
        for mailbox in mailboxes {
            remove(&mut links.by_mailbox, &mailbox, outbox);
        }
    }

    /// Hands out what has become durable.
    pub(crate) fn publish(&self, wakes: Vec<Wake>) {
        if wakes.is_empty() {
            return;
        }
        let links = lock(&self.links);
        for wake in wakes {
            match wake {
                Wake::Entry { mailbox, seq, fence, by, envelope } => {
                    let Some(listeners) = links.by_mailbox.get(&mailbox) else { continue };
                    let Some(frame) = entry_frame(mailbox, seq, fence, by, &envelope) else { continue };
                    for outbox in listeners {
                        outbox.put(Item::Entry { mailbox, seq, frame: frame.clone() });
                    }
                }
                Wake::Ended { mailbox, device } => {
                    for outbox in links.by_device.get(&device).into_iter().flatten() {
                        outbox.put(Item::Ended(mailbox));
                    }
                }
                Wake::Replaced { device, by } => {
                    let own = links.by_device.get(&device).into_iter().flatten();
                    own.filter(|outbox| outbox.caller.instance != by)
                        .for_each(|outbox| outbox.close(Closing::Replaced));
                }
                Wake::Revoked { device } => {
                    let own = links.by_device.get(&device).into_iter().flatten();
                    own.for_each(|outbox| outbox.close(Closing::Revoked));
                }
                Wake::Withdrawn { device } => {
                    let own = links.by_device.get(&device).into_iter().flatten();
                    own.for_each(|outbox| outbox.close(Closing::Withdrawn));
                }
                Wake::Person { person, event } => tell(links.by_person.get(&person), &event),
                Wake::Device { device, event } => tell(links.by_device.get(&device), &event),
            }
        }
    }
}

fn tell(outboxes: Option<&Vec<Arc<Outbox>>>, event: &Event) {
    for outbox in outboxes.into_iter().flatten() {
        outbox.put(Item::Event(event.clone()));
    }
}

/// The frame that carries one entry. An envelope always fits into one; were it not so, links would find the gap and read the store.
fn entry_frame(mailbox: MailboxId, seq: u64, fence: bool, by: DeviceId, envelope: &Bytes) -> Option<Bytes> {
    let body = EntryBody::Envelope(Blob(envelope.to_vec()));
    let entries = vec![Entry { seq, fence, body, by: Some(by) }];
    frame::to_wire(&FromRelay::Event(Event::Entries { mailbox, entries })).ok().map(Bytes::from)
}

fn remove<K: Hash + Eq>(map: &mut HashMap<K, Vec<Arc<Outbox>>>, key: &K, outbox: &Arc<Outbox>) {
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

#[cfg(test)]
mod tests {
    use privity_protocol::frame::Instance;

    use super::*;

    fn caller() -> Caller {
        Caller { device: DeviceId::random(), person: PersonId::random(), instance: Instance::after(None) }
    }

    fn entry(mailbox: MailboxId, seq: u64, len: usize) -> Wake {
        let (by, envelope) = (DeviceId::new([1; 16]), Bytes::from(vec![7; len]));
        Wake::Entry { mailbox, seq, fence: false, by, envelope }
    }

    #[test]
    fn listeners_share_one_frame() {
        let hub = Hub::default();
        let mailbox = MailboxId::random();
        let outboxes = [hub.join(caller()), hub.join(caller())];
        outboxes.iter().for_each(|outbox| hub.listen(mailbox, outbox));
        hub.publish(vec![entry(mailbox, 1, 4096)]);
        let frames: Vec<Bytes> = outboxes
            .iter()
            .map(|outbox| match outbox.take().0.pop_front() {
                Some(Item::Entry { frame, .. }) => frame,
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(frames[0].as_ptr(), frames[1].as_ptr(), "the bytes are the same, not a copy");
    }

    /// An overflow once could drop the notice that reading has ended, together with the entries.
    #[test]
    fn a_full_outbox_drops_entries_and_keeps_the_rest() {
        let hub = Hub::default();
        let mailbox = MailboxId::random();
        let me = caller();
        let outbox = hub.join(me);
        hub.listen(mailbox, &outbox);
        for seq in 1..=3 {
            hub.publish(vec![entry(mailbox, seq, 1024 * 1024)]);
            hub.publish(vec![Wake::Ended { mailbox, device: me.device }]);
        }
        for _ in 0..EVENTS_MAX * 2 {
            hub.publish(vec![Wake::Device { device: me.device, event: Event::Newcomer }]);
        }
        let (items, lagging) = outbox.take();
        assert!(lagging);
        assert!(items.iter().all(|item| !matches!(item, Item::Entry { .. })));
        assert_eq!(items.iter().filter(|item| matches!(item, Item::Ended(_))).count(), 1);
        assert_eq!(items.len(), EVENTS_MAX + 1);
        assert!(!outbox.take().1, "taking clears it");
    }

    #[test]
    fn a_new_link_closes_the_one_before_and_what_is_closed_does_nothing_more() {
        let hub = Hub::default();
        let me = caller();
        let [old, other, new] = [me, caller(), me].map(|caller| hub.join(caller));
        assert_eq!([&old, &other, &new].map(|link| link.closing()), [Some(Closing::Crowded), None, None]);
        assert!(!old.while_open(|| panic!("it is closed")));
        let mut done = false;
        assert!(new.while_open(|| done = true) && done);
    }

    /// Whether it may take the place of the other is not decided yet.
    #[test]
    fn a_link_of_another_instance_closes_none() {
        let hub = Hub::default();
        let me = caller();
        let copy = Caller { instance: Instance::after(Some(me.instance)), ..me };
        let links = [hub.join(me), hub.join(copy)];
        assert_eq!(links.map(|link| link.closing()), [None, None]);
    }

    #[test]
    fn links_of_older_instances_close_and_those_of_the_newest_stay() {
        let hub = Hub::default();
        let old = caller();
        let new = Caller { instance: Instance::after(Some(old.instance)), ..old };
        let links = [hub.join(old), hub.join(new), hub.join(caller())];
        hub.publish(vec![Wake::Replaced { device: old.device, by: new.instance }]);
        assert_eq!(links.map(|link| link.closing()), [Some(Closing::Replaced), None, None]);
    }

    #[test]
    fn every_link_of_a_revoked_device_closes_and_its_persons_others_stay() {
        let hub = Hub::default();
        let lost = caller();
        let copy = Caller { instance: Instance::after(Some(lost.instance)), ..lost };
        let kept = Caller { device: DeviceId::random(), ..lost };
        let links = [hub.join(lost), hub.join(copy), hub.join(kept)];
        hub.publish(vec![Wake::Revoked { device: lost.device }]);
        assert_eq!(links.map(|link| link.closing()), [Some(Closing::Revoked), Some(Closing::Revoked), None]);
    }

    #[test]
    fn nothing_is_left_of_a_link_that_left() {
        let hub = Arc::new(Hub::default());
        let mailbox = MailboxId::random();
        let outbox = hub.join(caller());
        hub.listen(mailbox, &outbox);
        hub.leave(&outbox, [mailbox].into_iter());
        drop(Seat::take(&hub, caller()));
        let links = lock(&hub.links);
        assert!(links.by_person.is_empty() && links.by_device.is_empty() && links.by_mailbox.is_empty());
    }
}
