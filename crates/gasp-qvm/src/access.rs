//! Accesses of a guest's processors, which a vdev answers.
#![allow(unsafe_code, reason = "calls C")]

use std::sync::Arc;

use crate::abi::*;
use crate::cpu::{ACCESS_MAX, GuestCpu};
use crate::doing::Doing;
use crate::factory::Calls;
use crate::host::{Cause, Status};
use crate::instance::{Instance, kind_of};
use crate::live::Live;
use crate::request::Space;

/// An access to a register of a vdev.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Access {
    /// The space of the address. BARs of a PCI function are in memory or at ports.
    pub space: Space,
    /// The guest-physical address, or the port.
    pub addr: u64,
    /// The number that the vdev has given to the region; 0 for the one that its host has made.
    pub cookie: u32,
}

/// How an access ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answer {
    /// The vdev has answered it.
    Done,
    /// There is no function for it, or the width is not allowed: a read is ones, a write is dropped.
    Unsupported,
    /// The vdev has refused it, or has ended the guest: a read is ones.
    Failed,
}

impl Instance {
    /// Reads a register, of `data.len()` bytes, 1 to 8.
    pub fn read(&self, access: Access, data: &mut [u8]) -> Answer {
        data.fill(0xff);
        let cpu = GuestCpu::reads(data.len());
        let answer = self.access(access, data.len(), &cpu, "vread");
        if answer == Answer::Done {
            match cpu.supplied() {
                Some(bytes) => data.iter_mut().zip(bytes).for_each(|(place, byte)| *place = byte),
                None => return Answer::Failed,
            }
        }
        answer
    }

    /// Writes to a register, of `data.len()` bytes, 1 to 8.
    pub fn write(&self, access: Access, data: &[u8]) -> Answer {
        self.access(access, data.len(), &GuestCpu::writes(data), "vwrite")
    }

    fn access(&self, access: Access, len: usize, cpu: &GuestCpu, what: &'static str) -> Answer {
        match self.ask(access, len, cpu, what) {
            Some(status) => settle(&self.live, status),
            None => Answer::Unsupported,
        }
    }

    /// Calls `vread` or `vwrite`, as `what` says; its status, or `None` if there is none, the width
    /// is not allowed, or the vdev is over.
    pub(crate) fn ask(
        &self,
        access: Access,
        len: usize,
        cpu: &GuestCpu,
        what: &'static str,
    ) -> Option<u32> {
        let live = &self.live;
        if len == 0 || len > ACCESS_MAX || !live.factory.allows(len) || self.is_over() {
            return None;
        }
        let device =
            Block { location: access.addr, length: len as u64, kind: kind_of(access.space) };
        let processor = Block { location: 0, length: len as u64, kind: QST_CPUREGS };
        let doing = Doing {
            name: &live.name,
            what,
            vdev: Some(live.address()),
            cpu: Some(cpu),
            may_unwind: false,
        };
        let call = || call(live, what == "vread", access.cookie, device, processor, cpu);
        live.guest.chosen(|| doing.run(call))
    }
}

/// Calls `vread` or `vwrite`; its status, or `None` if there is none.
fn call(
    live: &Live,
    reads: bool,
    cookie: u32,
    device: Block,
    processor: Block,
    cpu: &GuestCpu,
) -> Option<u32> {
    let object = live.object.pointer();
    match live.factory.calls {
        Calls::V800 { vread, vwrite, .. } => {
            let call = if reads { vread } else { vwrite }?;
            let blocks = (device.into(), processor.into());
            // SAFETY: the function is that of the factory, which is never unloaded; `object` its
            // vdev's, which lasts as long as the instance; both blocks and the processor are valid
            // during the call.
            Some(unsafe {
                call(object, cookie, &raw const blocks.0, &raw const blocks.1, cpu.pointer())
            })
        }
        Calls::V710 { vread, vwrite, .. } => {
            let call = if reads { vread } else { vwrite }?;
            let blocks = (device.into(), processor.into());
            // SAFETY: as above.
            Some(unsafe {
                call(object, cookie, &raw const blocks.0, &raw const blocks.1, cpu.pointer())
            })
        }
    }
}

/// What a status means.
fn settle(live: &Arc<Live>, status: u32) -> Answer {
    match status {
        VRS_NORMAL | VRS_NO_ADVANCE | VRS_CONTINUE => Answer::Done,
        // x86 has no bus error: a read is ones.
        VRS_BUS_ERROR => Answer::Failed,
        _ => {
            tracing::error!(vdev = %live.name, status = %Status(status), "an access ends the guest");
            live.end(Cause::Status(status));
            Answer::Failed
        }
    }
}
