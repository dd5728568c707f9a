//! Opening a tap interface.
#![allow(unsafe_code, reason = "an ioctl that rustix does not wrap")]

use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags, open as open_file};
use rustix::io::Errno;
use rustix::ioctl::{Opcode, Updater, ioctl, opcode};

const PATH: &str = "/dev/net/tun";
/// Attaches the descriptor to an interface (linux/if_tun.h). It is declared with an `int`, and takes a
/// `struct ifreq`.
const TUNSETIFF: Opcode = opcode::write::<i32>(b'T', 202);
/// Ethernet frames, without a header in front of each.
const IFF_TAP: u16 = 0x0002;
const IFF_NO_PI: u16 = 0x1000;
/// The size of an interface's name, with its terminating zero (linux/if.h: IFNAMSIZ).
const NAME: usize = 16;

/// The kernel's `struct ifreq`, as far as this request uses it.
#[repr(C, align(8))]
struct Request {
    name: [u8; NAME],
    flags: u16,
    rest: [u8; 22],
}
const _: () = assert!(size_of::<Request>() == 40);

/// Opens the interface of this name, for reads and writes that do not wait.
///
/// # References
/// [tun.txt](https://docs.kernel.org/networking/tuntap.html)
pub(super) fn open(name: &str) -> io::Result<OwnedFd> {
    let mut request = Request { name: [0; NAME], flags: IFF_TAP | IFF_NO_PI, rest: [0; 22] };
    // The last byte stays the zero that ends the name.
    if name.is_empty() || name.len() >= NAME || name.bytes().any(|byte| byte == 0) {
        return Err(Errno::INVAL.into());
    }
    let places = request.name.iter_mut().zip(name.bytes());
    places.for_each(|(place, byte)| *place = byte);
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let tap = open_file(PATH, flags, Mode::empty())?;
    // SAFETY: `Updater::new` asks that the opcode takes a pointer to a `Request`, which the kernel
    // may read and write: TUNSETIFF copies a `struct ifreq` of 40 bytes in and out, of which
    // `Request` has the size and a stricter alignment; any bytes are a valid `Request`.
    let attach = unsafe { Updater::<TUNSETIFF, Request>::new(&mut request) };
    // SAFETY: `ioctl` asks that the request is right for the descriptor: `tap` is of /dev/net/tun,
    // or of something else that an administrator has put there, which would refuse the opcode; the
    // kernel keeps no pointer after the call.
    unsafe { ioctl(&tap, attach) }?;
    Ok(tap)
}
