//! The cost of a map, compared with other implementations of the same operation in the same run.
//!
//! [`cases`] lists the cases; [`run`] measures one. The binary of this crate prints the
//! results, and its criterion benches use the same list, so each case is defined once.
//!
//! Every number is the minimum of many short rounds. The rounds of all contestants alternate,
//! so that a noisy machine disturbs them alike; trust the ratios more than the times.

mod cases;
mod measure;
mod peers;
mod sizes;

pub use cases::{Case, Contestant, Effort, Recipe, Work, cases};
pub use measure::{Row, run};
pub use sizes::{Figure, figures};
