//! Registers of both transports: what an access reads, and what a write asks for.

use gasp_virtio::transport::{
    Area, CommonConfig, Field, NOTIFY_STEP, QUEUES_MAX, QueueConfig, area,
};

/// How the guest reaches the device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Transport {
    /// Virtio over MMIO, version 2 (virtio 1.2, 4.2.2).
    Mmio,
    /// Virtio over PCI, without a legacy interface (virtio 1.2, 4.1).
    Pci,
}

/// The most bytes of one access.
pub(super) const WIDTH_MAX: usize = 8;
/// The configuration in a block of MMIO registers.
pub(super) const MMIO_CONFIG: u64 = 0x100;

/// What a read finds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Read {
    /// A value.
    Value(u64),
    /// The interrupt status of MMIO.
    Pending,
    /// The interrupt status of PCI, which a read clears.
    TakePending,
    /// The device's configuration at this offset: all of the access is within it.
    Config(u16),
}

/// What a write has to lead to, besides the state of the common configuration.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Wrote {
    /// Nothing.
    Nothing,
    /// The driver notifies of a queue, which there is.
    Notify(u16),
    /// It has enabled a queue.
    Enabled(u16),
    /// It has disabled one, without a reset.
    Disabled(u16),
    /// It resets the device.
    Reset,
    /// It has set these bits of the status.
    Status(u8),
    /// It acknowledges these bits of the interrupt status.
    Acknowledge(u8),
    /// The device's configuration at this offset: all of the access is within it.
    Config(u16),
}

/// What does not change.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fixed {
    pub(super) transport: Transport,
    pub(super) device_type: u16,
    pub(super) vendor: u16,
    pub(super) config_len: u16,
}

impl Fixed {
    /// The configuration, if all of an access is within it.
    pub(super) fn config(&self, offset: u64, len: usize) -> Option<u16> {
        let end = offset.checked_add(len as u64)?;
        let offset = u16::try_from(offset).ok()?;
        (end <= u64::from(self.config_len)).then_some(offset)
    }

    /// A read on PCI.
    pub(super) fn read_pci(
        &self,
        common: &CommonConfig,
        generation: u8,
        offset: u64,
        len: usize,
    ) -> Read {
        let config = |offset| self.config(offset, len).map(Read::Config);
        match area(offset) {
            Some(Area::Common(offset)) => {
                let mut bytes = [0; WIDTH_MAX];
                common.read(offset, generation, bytes.get_mut(..len).unwrap_or_default());
                Read::Value(u64::from_le_bytes(bytes))
            }
            Some(Area::Device(offset)) => config(offset).unwrap_or(Read::Value(0)),
            // The one byte of the register (4.1.4.5).
            Some(Area::Isr(0)) => Read::TakePending,
            Some(Area::Isr(_) | Area::Notify(_)) | None => Read::Value(0),
        }
    }

    /// A write on PCI.
    pub(super) fn write_pci(&self, common: &mut CommonConfig, offset: u64, bytes: &[u8]) -> Wrote {
        match area(offset) {
            Some(Area::Common(offset)) => write_common(common, |common| {
                common.write(offset, bytes);
            }),
            Some(Area::Device(offset)) => {
                self.config(offset, bytes.len()).map_or(Wrote::Nothing, Wrote::Config)
            }
            Some(Area::Notify(offset)) => notify(common, offset / u64::from(NOTIFY_STEP)),
            Some(Area::Isr(_)) | None => Wrote::Nothing,
        }
    }
}

/// A notification of a queue.
pub(super) fn notify(common: &CommonConfig, index: u64) -> Wrote {
    let queue = usize::try_from(index).ok().and_then(|index| common.queues().get(index));
    match queue.filter(|queue| queue.max() > 0) {
        // Fewer than `QUEUES_MAX`.
        Some(_) => Wrote::Notify(index as u16),
        None => Wrote::Nothing,
    }
}

/// What a write to the common configuration has changed.
pub(super) fn write_common(
    common: &mut CommonConfig,
    write: impl FnOnce(&mut CommonConfig),
) -> Wrote {
    let enabled = |common: &CommonConfig| {
        let mut all = [false; QUEUES_MAX];
        let queues = common.queues().iter().map(QueueConfig::is_enabled);
        all.iter_mut().zip(queues).for_each(|(place, is)| *place = is);
        all
    };
    let was_resetting = common.is_resetting();
    let (status, before) = (common.get(Field::DEVICE_STATUS) as u8, enabled(common));
    write(common);
    let (now, after) = (common.get(Field::DEVICE_STATUS) as u8, enabled(common));
    // A device that had not started is reset at once.
    if (common.is_resetting() && !was_resetting) || (now == 0 && status != 0) {
        return Wrote::Reset;
    }
    let set = now & !status;
    if set != 0 {
        return Wrote::Status(set);
    }
    let new = before.iter().zip(after).position(|(before, after)| after && !before);
    new.map_or(Wrote::Nothing, |index| Wrote::Enabled(index as u16))
}
