//! What a VMM has to be told to attach a device.

use std::path::Path;

use super::tell::Intro;

/// QEMU's memory, such that the device's process can map it. Other sizes do as well.
pub(super) const MEMORY: [&str; 2] = [
    "-object memory-backend-memfd,id=ram,size=1G,share=on",
    "-m 1G -machine q35,memory-backend=ram",
];
/// The guest's IOMMU; it comes before the devices behind it.
pub(super) const IOMMU: &str = "-device intel-iommu,intremap=off,caching-mode=on";

/// The argument that attaches the device on a socket, as a shell takes it.
pub(super) fn device(socket: &Path) -> String {
    let path = serde_json::Value::from(socket.to_string_lossy());
    let device =
        format!(r#"{{"driver":"vfio-user-pci","socket":{{"type":"unix","path":{path}}}}}"#);
    format!("-device '{}'", device.replace('\'', r"'\''"))
}

/// All that a person needs to copy.
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
         and have Linux use it strictly: intel_iommu=on iommu.strict=1\n"
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
