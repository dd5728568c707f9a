//! libgasp: gasp for C.
//!
//! The functions are documented in the headers `<qvm/gasp.h>`, `<qvm/types.h>` and
//! `<gasp/guest.h>`, in this crate's `include` folder. Each function here implements what its
//! header says; `tests/abi` compares names, prototypes, layouts and values. The other headers of
//! `include/qvm` are those of virtual devices; their functions are in the programs that host those.
//!
//! | | |
//! |---|---|
//! | [`types`] | structures and constants |
//! | `boundary`, `last_error`, `log` | errors and panics as error numbers, texts and log lines |
//! | `registry`, `objects` | guests, vdevs, domains and drains: numbers, which C sees as pointers |
//! | `arena` | the memory of vdevs, whose addresses are their numbers |
//! | `deadlock` | waits of a thread for itself, refused |
//! | `arguments` | pointers and texts from C |
//! | [`map`], [`by_address`] | the mapping family; its functions without handles |
//! | `guard` | `GASP_DEBUG=guard`: mappings that the processor checks |
//! | [`lock`], [`regions`], [`find`], [`walk`] | the rest of `<qvm/gasp.h>` |
//! | [`edition_710`] | its 7.x forms |
//! | [`host`] | `<gasp/guest.h>` |
//! | [`embed`] | for programs in Rust that host vdevs |
//!
//! # Safety
//!
//! The exported functions require what the headers require of C: `<qvm/gasp.h>` of pointers to
//! data, the comments of `gasp_walk_filter_t` and `gasp_log_t` of callbacks. SAFETY comments call
//! the former *the pointer rule*: during the call, such an argument is NULL; or it is aligned,
//! valid for the reads and writes that the function's comment implies, initialized if it is read,
//! and not accessed by another thread in a way that would be a data race.

#![cfg_attr(not(test), warn(clippy::unwrap_used))]
#![allow(clippy::missing_safety_doc, reason = "the headers say what C must pass: see Safety")]

mod arena;
mod arguments;
mod boundary;
pub mod by_address;
mod deadlock;
pub mod edition_710;
pub mod embed;
pub mod find;
mod guard;
pub mod host;
mod last_error;
pub mod lock;
mod log;
pub mod map;
mod objects;
mod ports;
pub mod regions;
mod registry;
pub mod types;
pub mod walk;
