//! Frame numbers, or tokens of them, for processes without the privilege to read frame numbers.
//!
//! A broker is a privileged process, such as `gasp broker`. It hands out, about the memory of the
//! process that asks and of no other,
//!
//! * the *page map* of that process, from which its memory objects read their frame numbers
//!   ([`use_broker`]); or
//! * *tokens* of host-physical runs, if the process is to know no addresses
//!   ([`MemoryObject::host_tokens`](crate::MemoryObject::host_tokens)). Whoever programs the
//!   hardware, and is trusted, redeems them ([`redeem_token`]).
//!
//! [`Server`] is the broker's side.
//!
//! | | |
//! |---|---|
//! | `client`, `greet` | connecting to a broker |
//! | `tokens` | asking for tokens, and redeeming them |
//! | `wire` | the messages of both sides, as bytes |
//! | `server` | who may ask, and what is handed out |

mod client;
mod greet;
mod server;
mod tokens;
mod wire;

pub use client::use_broker;
pub use server::Server;
pub use tokens::redeem_token;
pub use wire::HostToken;
