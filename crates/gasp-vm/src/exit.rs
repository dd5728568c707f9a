//! One KVM_RUN, and why it has returned.
#![allow(unsafe_code, reason = "reads what the kernel has written for this exit")]

use core::ptr::NonNull;

use gasp::Errno;
use kvm_bindings::{
    KVM_INTERNAL_ERROR_EMULATION, KVM_SYSTEM_EVENT_RESET, KVM_SYSTEM_EVENT_SHUTDOWN,
};
use kvm_ioctls::{VcpuExit, VcpuFd};

use crate::ending::Failure;
use crate::error::errno_of;

/// Why a vCPU has left the guest.
pub(crate) enum Exit<'a> {
    /// It reads a port: as many items of `width` bytes as fit into `data`.
    In {
        port: u16,
        width: usize,
        data: &'a mut [u8],
    },
    /// It writes a port.
    Out {
        port: u16,
        width: usize,
        data: &'a [u8],
    },
    /// It reads where there is no memory.
    Read {
        addr: u64,
        data: &'a mut [u8],
    },
    /// It writes where there is no memory, or ROM.
    Write {
        addr: u64,
        data: &'a [u8],
    },
    Halted,
    TripleFault,
    PowerOff,
    Reset,
    Failed(Failure),
}

/// An access of the guest.
enum Access {
    In(u16),
    Out(u16),
    Read(u64),
    Write(u64),
}

/// Runs the guest until it needs something.
pub(crate) fn run(fd: &mut VcpuFd) -> Result<Exit<'_>, Errno> {
    let (access, data) = match fd.run().map_err(errno_of)? {
        VcpuExit::IoIn(port, data) => (Access::In(port), NonNull::from(data)),
        VcpuExit::IoOut(port, data) => (Access::Out(port), NonNull::from(data)),
        VcpuExit::MmioRead(addr, data) => (Access::Read(addr), NonNull::from(data)),
        VcpuExit::MmioWrite(addr, data) => (Access::Write(addr), NonNull::from(data)),
        VcpuExit::Hlt => return Ok(Exit::Halted),
        VcpuExit::Shutdown => return Ok(Exit::TripleFault),
        VcpuExit::SystemEvent(KVM_SYSTEM_EVENT_SHUTDOWN, _) => return Ok(Exit::PowerOff),
        VcpuExit::SystemEvent(KVM_SYSTEM_EVENT_RESET, _) => return Ok(Exit::Reset),
        VcpuExit::Intr => return Err(Errno::INTR),
        VcpuExit::FailEntry(reason, _) => return Ok(Exit::Failed(Failure::Entry(reason))),
        VcpuExit::InternalError => return Ok(Exit::Failed(internal(fd))),
        other => return Ok(Exit::Failed(Failure::Unknown(format!("{other:?}")))),
    };
    let width = match access {
        Access::In(_) | Access::Out(_) => port_width(fd),
        Access::Read(_) | Access::Write(_) => 1,
    };
    Ok(match access {
        Access::In(port) => {
            // SAFETY: `data` comes from the mutable slice that `run` has returned with the lifetime
            // of `fd`'s borrow, which the result has as well, so nobody else uses the bytes. They
            // are a page behind `kvm_run`, so the look at its width has not touched them.
            Exit::In { port, width, data: unsafe { &mut *data.as_ptr() } }
        }
        Access::Out(port) => {
            // SAFETY: as for a read of a port, but the slice is shared, and stays so.
            Exit::Out { port, width, data: unsafe { data.as_ref() } }
        }
        Access::Read(addr) => {
            // SAFETY: `data` comes from the mutable slice that `run` has returned with the lifetime
            // of `fd`'s borrow, which the result has as well, and `fd` was not used since.
            Exit::Read { addr, data: unsafe { &mut *data.as_ptr() } }
        }
        Access::Write(addr) => {
            // SAFETY: as for a read of a register, but the slice is shared, and stays so.
            Exit::Write { addr, data: unsafe { data.as_ref() } }
        }
    })
}

/// The width of the port access that has just ended KVM_RUN, 1, 2 or 4 bytes. A string instruction
/// makes several of that width in one exit.
fn port_width(fd: &mut VcpuFd) -> usize {
    // SAFETY: the caller has seen that the exit is one of a port: the kernel has written `io`, and
    // any bytes are numbers.
    let io = unsafe { fd.get_kvm_run().__bindgen_anon_1.io };
    usize::from(io.size).max(1)
}

/// Why KVM gave up.
fn internal(fd: &mut VcpuFd) -> Failure {
    // SAFETY: the caller has seen that the exit is an internal error: the kernel has written
    // `internal`, and any bytes are numbers.
    let suberror = unsafe { fd.get_kvm_run().__bindgen_anon_1.internal }.suberror;
    match suberror {
        KVM_INTERNAL_ERROR_EMULATION => Failure::Emulation,
        other => Failure::Internal(other),
    }
}
