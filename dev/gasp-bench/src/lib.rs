//! What a map costs, beside what others pay for the same, in the same run.
//!
//! [`cases`] makes the list; [`run`] measures it. The binary of this crate prints the
//! result, and its criterion benches go through the same list, so there is one definition
//! of each case.
//!
//! Every number is the minimum of many short rounds. Ours and the peers' rounds take
//! turns, so that a noisy machine disturbs them alike; trust the ratios more than the
//! times.

mod cases;
mod measure;
mod peers;
mod sizes;

pub use cases::{Case, Contestant, Effort, Recipe, Work, cases};
pub use measure::{Row, run};
pub use sizes::{Figure, figures};
