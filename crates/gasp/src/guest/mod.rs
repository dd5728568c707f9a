//! A guest: its memory, its IOMMU, its devices, and the locks between them.
//!
//! | lock | guards | held while |
//! |---|---|---|
//! | edit lock | the right to change regions | a caller makes one or several changes |
//! | a domain's changes | the order of its changes | one change of its grants takes place |
//! | regions | the region map and the segments | the map changes (write), or one chunk of a table is gone through or a device attached (read) |
//! | domains | the list of domains | a domain is added or removed, or the list is copied |
//! | vdevs | the list of devices, and each device's domain | a device is added, attached, moved or removed |
//! | a view's writer | that view's table | one chunk of it is gone through |
//!
//! They are taken in this order. Only the first two are held while a scan waits for look-ups,
//! only the first while a drain waits, and no map takes any.
//!
//! | file | |
//! |---|---|
//! | `guest`, `builder` | the guest as programs hold it, and how it is created |
//! | `space`, `space_lock` | its address space; the right to change that several times in a row |
//! | `domain`, `vdev`, `attach`, `attached` | the domains of its IOMMU, its devices, and which is in which |
//! | `fetch` | maps of devices whose domain asks its translator |
//! | `inner` | the state behind these handles |
//! | `publish` | a change of the regions, and the updates of every view that follow |
//! | `listener`, `announce` | those who follow the regions, such as the slots of KVM, and how they hear of a change |
//! | `own`, `audit` | what a change would wait for on its own thread; an audit of all memory |

mod announce;
mod attach;
mod attached;
mod audit;
mod builder;
mod domain;
mod fetch;
#[allow(clippy::module_inception, reason = "a file for each word of the API")]
mod guest;
mod inner;
mod listener;
mod own;
mod publish;
mod space;
mod space_lock;
mod vdev;

pub use builder::GuestBuilder;
pub use domain::{Domain, Grant};
pub use guest::Guest;
pub use listener::{SpaceChange, SpaceListener};
pub use space::AddressSpace;
pub use space_lock::SpaceLock;
pub use vdev::Vdev;
