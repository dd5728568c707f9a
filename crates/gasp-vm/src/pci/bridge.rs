//! The configuration space of the host bridge, which has nothing to be configured.

/// The header: everything after it reads as zero.
const HEADER: [u8; 0x40] = {
    let mut bytes = [0; 0x40];
    // Vendor 0x1234, QEMU's number for devices that exist nowhere else; device 0x6862.
    (bytes[0x00], bytes[0x01]) = (0x34, 0x12);
    (bytes[0x02], bytes[0x03]) = (0x62, 0x68);
    // Revision 1; a host bridge.
    (bytes[0x08], bytes[0x0a], bytes[0x0b]) = (1, 0x00, 0x06);
    // The subsystem.
    (bytes[0x2c], bytes[0x2d]) = (0x34, 0x12);
    bytes[0x2e] = 1;
    bytes
};

/// Reads configuration space from `offset` on.
pub(super) fn read(offset: u64, data: &mut [u8]) {
    for (at, byte) in (offset..).zip(data) {
        let place = usize::try_from(at).ok().and_then(|at| HEADER.get(at));
        *byte = place.copied().unwrap_or(0);
    }
}
