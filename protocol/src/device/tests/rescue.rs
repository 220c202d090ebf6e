//! Out of step and back: repairs, copies, successors and restored relays.
