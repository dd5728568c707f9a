//! `<qvm/cdev.h>`: a character device of the host behind a virtual one.
//!
//! The state is the host's. The `struct cdev_state` of the vdev is its name, and shows what it is: it
//! is written and never read.
//!
//! | | |
//! |---|---|
//! | `window`, `buffer` | the buffers |
//! | `options` | the options |
//! | `device`, `state` | a character device, and what it has and waits for |
//! | `host` | the files behind it, and the settings of terminals |
//! | `watch` | the thread that waits for input and room, and opens what is not there yet |

mod buffer;
mod device;
mod host;
mod options;
mod state;
mod watch;
mod window;

pub(crate) use device::{Cdev, SIZE_MAX, Shown};
pub(crate) use options::{batch, delayed, hostdev};
