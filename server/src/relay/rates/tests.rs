//! How fast is too fast.

use privity_protocol::frame::{Blob, Instance};
use privity_protocol::ids::Position;

use super::*;

const NOON: Timestamp = Timestamp(20_000 * DAY_MS + DAY_MS / 2);

fn caller() -> Caller {
    Caller { device: DeviceId::random(), person: PersonId::random(), instance: Instance::after(None) }
}

fn append(mailbox: MailboxId, fence: bool, len: usize) -> Part {
    let (base, envelope) = (Position::start(mailbox), Blob(vec![1; len]));
    Part::Append { mailbox, base, fence, envelope, keep_ms: 1000 }
}

#[test]
fn a_person_appends_so_many_bytes_a_day_with_all_devices_and_to_all_mailboxes() {
    let mut rates = Rates::default();
    let (ada, bob) = (caller(), caller());
    let hers = Caller { device: DeviceId::random(), ..ada };
    let mib = |count| vec![append(MailboxId::random(), false, limits::ENVELOPE_MAX); count];
    rates.post(ada, &mib(2), NOON).unwrap();
    rates.post(hers, &mib(1), NOON).unwrap();
    let spent = &mut rates.appended.get_mut(&ada.person).unwrap().spent;
    assert_eq!(*spent, 3 * limits::ENVELOPE_MAX as u64);
    *spent = limits::APPENDED_PER_DAY - 2 * limits::ENVELOPE_MAX as u64;
    let last = append(MailboxId::random(), true, 1);
    let slow = Refused::Slow { after_ms: DAY_MS / 2 };
    let too_many = [mib(2), vec![last.clone()]].concat();
    assert_eq!(rates.post(hers, &too_many, NOON).unwrap_err(), slow, "one byte too many");
    rates.post(hers, &mib(2), NOON).unwrap();
    let last = [last];
    assert_eq!(rates.post(ada, &last, NOON).unwrap_err(), slow);
    rates.post(bob, &last, NOON).unwrap();
    assert_eq!(rates.post(ada, &last, NOON.plus_ms(DAY_MS / 2 - 1)).unwrap_err(), Refused::Slow { after_ms: 1 });
    rates.post(ada, &last, NOON.plus_ms(DAY_MS / 2)).unwrap();
}

#[test]
fn a_post_that_comes_too_fast_spends_neither_fences_nor_bytes() {
    let mut rates = Rates::default();
    let ada = caller();
    let mailbox = MailboxId::random();
    let burst = vec![append(mailbox, true, 1000); limits::FENCE_BURST as usize + 1];
    rates.post(ada, &burst, NOON).unwrap_err();
    assert!(rates.appended.is_empty(), "no bytes");
    rates.appended.insert(ada.person, Today { day: NOON.0 / DAY_MS, spent: limits::APPENDED_PER_DAY });
    rates.post(ada, &[append(mailbox, true, 1)], NOON).unwrap_err();
    assert!(rates.fences.is_empty(), "no fences");
    rates.appended.clear();
    rates.post(ada, &burst[1..], NOON).unwrap();
}

#[test]
fn who_was_silent_for_a_day_has_one_burst_and_no_more() {
    let mut rates = Rates::default();
    let ada = caller();
    let burst = vec![append(MailboxId::random(), true, 1); limits::FENCE_BURST as usize];
    rates.post(ada, &burst[..1], NOON).unwrap();
    let later = NOON.plus_ms(DAY_MS);
    rates.post(ada, &burst, later).unwrap();
    assert_eq!(rates.post(ada, &burst[..1], later).unwrap_err(), Refused::Slow { after_ms: FENCE_MS });
}

#[test]
fn tables_are_bounded_and_whoever_is_in_them_goes_on() {
    let mut rates = Rates::default();
    let (ada, bob) = (caller(), caller());
    let fence = [append(MailboxId::random(), true, 1)];
    rates.post(ada, &fence, NOON).unwrap();
    let (day, full) = (NOON.0 / DAY_MS, Allowance { tokens_ms: FULL_MS, at: NOON });
    while rates.fences.len() < RATES_MAX {
        rates.fences.insert((DeviceId::random(), MailboxId::random()), full);
    }
    assert_eq!(rates.post(bob, &fence, NOON).unwrap_err(), Refused::Slow { after_ms: FENCE_MS });
    rates.post(ada, &fence, NOON).unwrap();
    let text = [append(MailboxId::random(), false, 1)];
    while rates.appended.len() < RATES_MAX {
        rates.appended.insert(PersonId::random(), Today { day, spent: 1 });
    }
    rates.post(bob, &text, NOON).unwrap_err();
    rates.post(ada, &text, NOON).unwrap();
    assert_eq!((rates.fences.len(), rates.appended.len()), (RATES_MAX, RATES_MAX));
    let tomorrow = NOON.plus_ms(DAY_MS);
    rates.post(bob, &fence, tomorrow).unwrap();
    assert_eq!((rates.fences.len(), rates.appended.len()), (1, 1), "what has recovered is forgotten");
}
