//! Loads and creates a virtual device in C.

use std::path::Path;

use gasp_qvm::{Loader, PciFailure, PciVdev, Request, VdevError};

use super::device_error::DeviceError;
use super::plan::Plan;
use super::requested::Wrong;
use super::vdev::{Vdev, key_of};

impl Vdev {
    /// Loads and creates it.
    pub(super) fn create(
        &self,
        plan: &Plan,
        loader: &Loader,
        told: impl Fn(&PciFailure) + Send + Sync + 'static,
    ) -> Result<PciVdev, DeviceError> {
        let config = self.config(&plan.name).map_err(|Wrong { key, message }| {
            DeviceError::new(plan, key, gasp::Errno::INVAL, &message)
        })?;
        let [device] = &*config.machine().devices else {
            return Err(DeviceError::new(plan, "options", gasp::Errno::INVAL, "not one device"));
        };
        let (key, name) = match &self.file {
            Some(file) => ("path", as_path(file)),
            None => ("vdev", self.kind.clone()),
        };
        let fail = |error: VdevError| {
            let (errno, key) = (error.errno(), key_of_error(&error, key));
            let why = match error {
                VdevError::Config(error) => error.message().to_owned(),
                error => error.to_string(),
            };
            DeviceError::new(plan, key, errno, &why)
        };
        let factory = loader.load(&name).map_err(fail)?;
        let request = Request::of(device, &factory).map_err(fail)?;
        PciVdev::builder(&factory, &request).on_failure(told).build().map_err(fail)
    }
}

/// A path, as the loader distinguishes it from a name: by a slash.
fn as_path(file: &Path) -> String {
    let text = file.to_string_lossy().into_owned();
    if text.contains('/') { text } else { format!("./{text}") }
}

/// The same; `other` if it is not about the configuration.
fn key_of_error(error: &VdevError, other: &'static str) -> &'static str {
    match error {
        VdevError::Config(error) => match key_of(error) {
            "vdev" => "loc",
            key => key,
        },
        _ => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_has_a_slash() {
        assert_eq!(as_path(Path::new("vdev-b.so")), "./vdev-b.so");
        assert_eq!(as_path(Path::new("/b/vdev-b.so")), "/b/vdev-b.so");
    }
}
