//! An audit of all memory of a guest.

use super::Guest;
use crate::error::Result;
use crate::memory::{Audit, MemoryObject};

impl Guest {
    /// Reads the frame numbers of all of its memory again, and compares them with what was
    /// said: see [`MemoryObject::audit`]. Nothing else of the guest waits for it.
    ///
    /// # Errors
    /// `EPERM` where frame numbers are told no longer (decision 19).
    pub fn audit(&self) -> Result<Audit> {
        let mut objects: Vec<MemoryObject> = Vec::new();
        for region in self.space().regions() {
            let Some(object) = region.object() else { continue };
            if !objects.iter().any(|other| other.same(object)) {
                objects.push(object.clone());
            }
        }
        let mut audit = Audit::default();
        for object in &objects {
            audit.add(object.audit()?);
        }
        Ok(audit)
    }
}
