//! The NVMe controller, driven through its shell by the tests' own driver.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod admin;
mod data;
mod driver;
mod failures;
mod faults;
mod garbage;
mod gate;
mod identify;
mod iommu;
mod life;
mod shadow;
mod speed;
mod transitions;
