//! QEMU's arguments to attach devices.

use std::path::Path;

use super::sink::Intro;

/// Guest memory that the device's process can map. Other sizes work as well.
pub(super) const MEMORY: [&str; 2] = [
    "-object memory-backend-memfd,id=ram,size=1G,share=on",
    "-m 1G -machine q35,memory-backend=ram",
];
/// The guest's IOMMU, which comes before the devices behind it.
pub(super) const IOMMU: &str = "-device intel-iommu,intremap=off,caching-mode=on";

/// The argument that attaches the device on a socket, quoted for a shell.
pub(super) fn device(socket: &Path) -> String {
    let path = serde_json::Value::from(socket.to_string_lossy());
    let device =
        format!(r#"{{"driver":"vfio-user-pci","socket":{{"type":"unix","path":{path}}}}}"#);
    format!("-device '{}'", device.replace('\'', r"'\''"))
}

/// All arguments, as text to copy.
pub(super) fn arguments(devices: &[Intro]) -> String {
    let mut text = String::from("Attach with QEMU 10.1 or newer:\n\n  qemu-system-x86_64 … \\\n");
    for argument in MEMORY {
        text.push_str(&format!("    {argument} \\\n"));
    }
    let devices: Vec<_> =
        devices.iter().map(|intro| format!("    {}", device(&intro.socket))).collect();
    text.push_str(&devices.join(" \\\n"));
    text.push_str(&format!(
        "\n\nFor a guest with an IOMMU, put this before the devices:\n\n    {IOMMU}\n\n\
         and add to the kernel's command line, for strict invalidation:\n\n    \
         intel_iommu=on iommu.strict=1\n"
    ));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_quoted_for_json_and_for_the_shell() {
        let text = device(Path::new("/tmp/it's \"a\".sock"));
        let json = r#"{"driver":"vfio-user-pci","socket":{"type":"unix","path":"/tmp/it'\''s \"a\".sock"}}"#;
        assert_eq!(text, format!("-device '{json}'"));
    }
}
