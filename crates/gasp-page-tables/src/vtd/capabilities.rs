//! What the remapping unit that the guest sees can do.

/// The capabilities of a remapping unit that matter to a walk: they say which bits of an entry are
/// reserved. They must be those that its registers report to the guest.
///
/// ```
/// use gasp_page_tables::vtd::Capabilities;
/// // A unit without 1 GiB pages, in a guest with 46 bits of guest-physical address.
/// let unit = Capabilities { pages_1g: false, ..Capabilities::new(46) };
/// assert!(unit.pages_2m);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Capabilities {
    /// The width in bits of the guest's physical addresses: the host address width of its DMAR
    /// table, at most 52.
    pub host_address_width: u32,
    /// The width in bits of the widest device address (CAP.MGAW, plus one). Tables with fewer
    /// levels have a smaller one.
    pub guest_address_width: u32,
    /// Whether there are pages of 2 MiB (CAP.SLLPS, bit 0).
    pub pages_2m: bool,
    /// Whether there are pages of 1 GiB (CAP.SLLPS, bit 1).
    pub pages_1g: bool,
    /// Whether a leaf can ask for snooping, with its bit 11 (ECAP.SC). Guest memory is coherent
    /// anyway.
    pub snoop_control: bool,
    /// Whether devices can have TLBs of their own (ECAP.DT): then bit 62 of a leaf is ignored.
    pub device_tlb: bool,
}

impl Capabilities {
    /// A unit with both sizes of large pages, without snoop control and device-TLBs, in a guest
    /// whose physical addresses have `host_address_width` bits.
    pub fn new(host_address_width: u32) -> Self {
        Self {
            host_address_width,
            guest_address_width: 57,
            pages_2m: true,
            pages_1g: true,
            snoop_control: false,
            device_tlb: false,
        }
    }
}
