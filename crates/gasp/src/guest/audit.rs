//! Audits of all memory of a guest.

use super::guest::Guest;
use crate::error::Result;
use crate::memory::{Audit, MemoryObject};

impl Guest {
    /// Reads the frame numbers of all the guest's memory objects again, and compares them with
    /// those reported before: see [`MemoryObject::audit`]. Other operations do not wait for it.
    ///
    /// # Errors
    /// `EPERM` if frame numbers can no longer be read (decision 19).
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
