//! The endpoint machine.
