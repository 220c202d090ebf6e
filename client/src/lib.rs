//! Privity's client: the vault, the link, and the session that commands and bots are built on.
//!
//! `main → cli → commands, chat → session → vault, link → protocol`. [`view`] is pure.
//!
//! Whoever writes a bot begins at [`bot`].

pub mod app;
mod ask;
pub mod bot;
pub mod chat;
pub mod cli;
pub mod command;
pub mod commands;
pub mod error;
pub mod home;
pub mod join;
pub mod keystore;
pub mod link;
pub mod marks;
pub mod out;
pub mod session;
pub mod terminal;
pub mod vault;
pub mod view;
