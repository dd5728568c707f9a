//! Frame numbers, or tokens of them, for processes without the privilege to read them.
//!
//! A broker is a privileged process, such as `gasp broker`. What it hands out tells of the
//! memory of the process that asks and of no other:
//!
//! * the *page map* of that process, from which its memory objects read their frame numbers
//!   ([`use_broker`]); or
//! * *tokens* of host-physical runs, for a process that is to know no addresses
//!   ([`MemoryObject::host_tokens`](crate::MemoryObject::host_tokens)). Whoever programs the
//!   hardware, and is trusted to, redeems them ([`redeem_token`]).
//!
//! [`Server`] is the broker's side.
//!
//! | | |
//! |---|---|
//! | `client`, `greet` | connecting to a broker |
//! | `tokens` | asking for tokens, and redeeming them |
//! | `wire` | what both sides say to each other, in bytes |
//! | `server` | who may ask, and what is handed out |

mod client;
mod greet;
mod server;
mod tokens;
#[doc(hidden)]
pub mod wire;

pub use client::use_broker;
pub use server::Server;
pub use tokens::redeem_token;
pub use wire::HostToken;
