//! The commands about regions: the BARs and the configuration space.

use gasp::Errno;
use gasp_vdev::CONFIG_SIZE;
use gasp_vdev::RegionError;
use vfio_bindings::bindings::vfio;

use super::device::check_info;
use super::state::Connection;
use crate::wire::{
    Fields, Refused, RegionAccess, RegionInfo, Reply, SparseMmap, WRITE_MULTI_ENTRY, command,
};

/// Size of a region's information in bytes, without capabilities.
const INFO: u32 = size_of::<RegionInfo>() as u32;
const CONFIG: u32 = vfio::VFIO_PCI_CONFIG_REGION_INDEX;
const BARS: core::ops::RangeInclusive<u32> =
    vfio::VFIO_PCI_BAR0_REGION_INDEX..=vfio::VFIO_PCI_BAR5_REGION_INDEX;

impl From<RegionError> for Refused {
    fn from(error: RegionError) -> Self {
        Self::new(error.errno(), error.to_string())
    }
}

impl Connection<'_> {
    pub(super) fn region_info(&self, payload: &[u8]) -> Result<Reply, Refused> {
        let (room, index) = check_info(payload, INFO)?;
        let bar = self.service.shell.model().find_bar(index);
        let size = match index {
            CONFIG => CONFIG_SIZE,
            // The ROM and VGA regions exist but are empty, like BARs that the device does
            // not have.
            _ if index < vfio::VFIO_PCI_NUM_REGIONS => bar.map_or(0, |bar| bar.size),
            _ => return Err(Refused::invalid(format!("there is no region {index}"))),
        };
        let flags = match size {
            0 => 0,
            _ => vfio::VFIO_REGION_INFO_FLAG_READ | vfio::VFIO_REGION_INFO_FLAG_WRITE,
        };
        let shared = bar.and_then(|bar| bar.shared.as_ref());
        let shared =
            shared.filter(|shared| !shared.areas.is_empty() && self.client.max_msg_fds > 0);
        // What is to be mapped begins at offset 0 of its descriptor.
        let info = RegionInfo { argsz: INFO, flags, index, capabilities: 0, size, offset: 0 };
        let Some(shared) = shared else {
            return Ok(Reply::new().put(&info));
        };
        let flags = flags | vfio::VFIO_REGION_INFO_FLAG_MMAP | vfio::VFIO_REGION_INFO_FLAG_CAPS;
        let areas = u32::try_from(shared.areas.len()).unwrap_or(u32::MAX);
        let argsz = areas.saturating_mul(16).saturating_add(INFO + size_of::<SparseMmap>() as u32);
        if room < argsz {
            // The client can ask again, with this much room.
            return Ok(Reply::new().put(&RegionInfo { argsz, flags, ..info }));
        }
        let sparse = vfio::VFIO_REGION_INFO_CAP_SPARSE_MMAP;
        let id = u16::try_from(sparse).unwrap_or(u16::MAX);
        let mut reply = Reply::new()
            .put(&RegionInfo { argsz, flags, capabilities: INFO, ..info })
            .put(&SparseMmap { id, version: 1, next: 0, areas, reserved: 0 });
        for (offset, len) in &shared.areas {
            reply = reply.put(&[*offset, *len]);
        }
        let file = shared.memory.file().map(|(fd, _)| fd.try_clone_to_owned());
        match file {
            Some(Ok(fd)) => Ok(reply.fd(fd)),
            _ => Err(Refused::new(Errno::MFILE, "no descriptor for the region's memory")),
        }
    }

    /// Refuses DEVICE_GET_REGION_IO_FDS: a device sees every access; none goes to an
    /// eventfd.
    pub(super) fn region_io_fds(&self, payload: &[u8]) -> Result<Reply, Refused> {
        let (_, index) = check_info(payload, 16)?;
        let mut fields = Fields::new(payload);
        let [_argsz, flags, _index, count] = fields.read::<[u32; 4]>()?;
        fields.end()?;
        if flags != 0 || count != 0 {
            return Err(Refused::invalid(format!("flags {flags:#x}, count {count}: expected 0")));
        }
        if index >= vfio::VFIO_PCI_NUM_REGIONS {
            return Err(Refused::invalid(format!("there is no region {index}")));
        }
        Err(Refused::new(Errno::OPNOTSUPP, "all accesses are messages"))
    }

    pub(super) fn region_read(&self, payload: &[u8]) -> Result<Reply, Refused> {
        let mut fields = Fields::new(payload);
        let access: RegionAccess = fields.read()?;
        fields.end()?;
        let RegionAccess { offset, region, count } = access;
        let len = self.check_count(count)?;
        let mut reply = Reply::with_capacity(size_of_val(&access) + len).put(&access);
        let into = reply.space(len);
        match region {
            CONFIG => self.service.shell.config_read(offset, into)?,
            _ if BARS.contains(&region) => self.service.shell.bar_read(region, offset, into)?,
            _ => return Err(Refused::invalid(format!("region {region} cannot be read"))),
        }
        Ok(reply)
    }

    pub(super) fn region_write(&self, payload: &[u8]) -> Result<Reply, Refused> {
        let mut fields = Fields::new(payload);
        let access = fields.read()?;
        self.write(access, fields.rest())?;
        Ok(Reply::new().put(&access))
    }

    /// Executes several writes of up to 8 bytes, one after another, until one is refused.
    ///
    /// The reply has the number of writes executed, so a client that finds fewer than it
    /// sent knows where to continue; an error means that none was executed.
    pub(super) fn region_write_multi(&self, payload: &[u8]) -> Result<Reply, Refused> {
        if !self.client.write_multiple {
            return Err(Refused::new(Errno::OPNOTSUPP, "write_multiple was not negotiated"));
        }
        let mut fields = Fields::new(payload);
        let count: u64 = fields.read()?;
        let entries = fields.rest();
        if count.checked_mul(WRITE_MULTI_ENTRY as u64) != Some(entries.len() as u64) {
            return Err(Refused::invalid(format!("{count} writes in {} bytes", entries.len())));
        }
        let entries = entries.chunks_exact(WRITE_MULTI_ENTRY);
        // A message that is malformed at its end must have no effect at its beginning.
        for entry in entries.clone() {
            write_of(entry)?;
        }
        let mut done = 0_u64;
        for entry in entries {
            let (access, data) = write_of(entry)?;
            match self.write(access, data) {
                Ok(()) => done += 1,
                Err(refused) if done == 0 => return Err(refused),
                Err(refused) => {
                    self.note_refusal(command::REGION_WRITE_MULTI, &refused);
                    break;
                }
            }
        }
        Ok(Reply::new().put(&done))
    }

    fn write(&self, access: RegionAccess, data: &[u8]) -> Result<(), Refused> {
        let RegionAccess { offset, region, count } = access;
        if self.check_count(count)? != data.len() {
            return Err(Refused::invalid(format!("the count {count} is not the size of the data")));
        }
        match region {
            CONFIG => self.service.shell.config_write(offset, data)?,
            _ if BARS.contains(&region) => {
                self.service.shell.bar_write(region, offset, data)?;
                self.watch.written();
            }
            _ => return Err(Refused::invalid(format!("region {region} cannot be written"))),
        }
        Ok(())
    }

    fn check_count(&self, count: u32) -> Result<usize, Refused> {
        let most = self.service.options.max_data_xfer_size.max(4096);
        match count {
            0 => Err(Refused::invalid("an access of 0 bytes")),
            _ if count > most => {
                Err(Refused::invalid(format!("{count} bytes, more than the {most} accepted")))
            }
            _ => Ok(count as usize),
        }
    }
}

/// Decodes one write of REGION_WRITE_MULTI.
fn write_of(entry: &[u8]) -> Result<(RegionAccess, &[u8]), Refused> {
    let mut fields = Fields::new(entry);
    let access: RegionAccess = fields.read()?;
    match fields.rest().get(..access.count as usize) {
        Some([]) => Err(Refused::invalid("a write of 0 bytes")),
        Some(data) => Ok((access, data)),
        None => Err(Refused::invalid("more than 8 bytes in one write")),
    }
}
