//! The protocol's rules, each of which can be left out.
//!
//! Invariant: with [`Rules::ALL`] the model does what the protocol says; every other choice is there to be caught.

/// Which rules are kept.
#[derive(Debug, Clone, Copy)]
#[expect(clippy::struct_excessive_bools, reason = "each rule is kept or left out on its own")]
pub(crate) struct Rules {
    /// The relay refuses what was posted without having read the last fence.
    pub(crate) fence_refuses_stale: bool,
    /// The relay answers an idem that it has accepted as it did then.
    pub(crate) idem_remembered: bool,
    /// The relay ends the link of a device when another copy of it is admitted.
    pub(crate) one_link: bool,
    /// It does nothing any more that came on such a link.
    pub(crate) old_link_done: bool,
    /// At admission the relay shows the highest idem it received, and not only the highest it accepted.
    pub(crate) refused_idems_shown: bool,
    /// An own Commit, too, is applied when it is read, and not when it is made.
    pub(crate) apply_when_read: bool,
    /// An accepted Commit is not applied at the reply: what stands before it is read first.
    pub(crate) reply_only_settles: bool,
    /// The secrets of an own Commit outlive a refusal.
    pub(crate) keep_unsettled_secrets: bool,
    /// What is sent, and the state that it leaves behind, is on the disk before.
    pub(crate) persist_before_send: bool,
    /// What was not answered goes out again under the same idem, as it was.
    pub(crate) same_until_answered: bool,
    /// After `Unknown` the mailbox is read to its head before anything is sealed again.
    pub(crate) unknown_settled_by_reading: bool,
    /// After an own Commit was accepted, nothing is sealed before it is read.
    pub(crate) accepted_commit_read_first: bool,
    /// On a new link the mailbox is read to its head before anything is posted.
    pub(crate) caught_up_before_posting: bool,
    /// A text counts as delivered when it is accepted or read, and not when it is sent.
    pub(crate) delivered_when_accepted: bool,
    /// Readers drop repeats of a message id.
    pub(crate) drop_repeats: bool,
    /// A vault to which its own idems are shown above the highest issued sends nothing more under its keys.
    pub(crate) copy_detected: bool,
    /// So does one to which the highest idem issued is shown, but for something else.
    pub(crate) same_idem_compared: bool,
    /// Such a vault goes on counting from the idem shown.
    pub(crate) copy_counts_on: bool,
    /// The relay admits no copy that another one has taken over from.
    pub(crate) older_instance_refused: bool,
    /// Idems count only with the device's own MAC.
    pub(crate) claims_need_mac: bool,
    /// Texts are sealed when they are posted, and not when they are typed.
    pub(crate) seal_at_head: bool,
    /// A Commit that was stale behind a void fence is posted again.
    pub(crate) repost_behind_void: bool,
    /// A fence that means nothing is passed over.
    pub(crate) void_skipped: bool,
    /// A Commit made in another epoch is void.
    pub(crate) other_epoch_is_void: bool,
    /// Members let somebody back in who asks.
    pub(crate) members_repair: bool,
}

impl Rules {
    /// The protocol.
    pub(crate) const ALL: Self = Self {
        fence_refuses_stale: true,
        idem_remembered: true,
        one_link: true,
        old_link_done: true,
        refused_idems_shown: true,
        apply_when_read: true,
        reply_only_settles: true,
        keep_unsettled_secrets: true,
        persist_before_send: true,
        same_until_answered: true,
        unknown_settled_by_reading: true,
        accepted_commit_read_first: true,
        caught_up_before_posting: true,
        delivered_when_accepted: true,
        drop_repeats: true,
        copy_detected: true,
        same_idem_compared: true,
        copy_counts_on: true,
        older_instance_refused: true,
        claims_need_mac: true,
        seal_at_head: true,
        repost_behind_void: true,
        void_skipped: true,
        other_epoch_is_void: true,
        members_repair: true,
    };
}
