//! A network device (virtio 1.2, 5.1): Ethernet frames as they are, without offloads.

use std::os::fd::AsFd;

use gasp_vdev::{Bell, Class, Throttle};
use parking_lot::Mutex;
use virtio_bindings::virtio_ids::VIRTIO_ID_NET;
use virtio_bindings::virtio_net::VIRTIO_NET_F_MAC;

use crate::device::{Kind, VirtioDevice, Waits};
use crate::queue::{ActiveQueue, Broken, Chain};
use crate::watch::{Side, Watcher, is_not_ready};

mod port;
mod tap;

pub use port::Port;

const QUEUE: u16 = 256;
/// The queues (5.1.2).
const RECEIVE: u16 = 0;
/// The header in front of each frame (5.1.6): flags, GSO type and sizes, checksum places, and the
/// number of buffers, which is there in every modern device.
const HEADER: usize = 12;
/// The longest frame: 64 KiB.
const FRAME: usize = 64 << 10;
/// The number of frames that one turn receives, of which some may be lost. Then sending has its turn.
const FRAMES: u32 = 64;
/// The number of errors in a row after which a port is no longer asked for frames, until a reset.
const ERRORS: u32 = 16;
/// The number of buffers of a received frame: one, as they are not merged.
const ONE_BUFFER: [u8; HEADER] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0];

/// A network device between a driver and a [`Port`].
///
/// Frames of at most 64 KiB pass as they are: without checksums or segmentation by the device, and
/// each in one chain of buffers. A frame that is too long for the driver's next chain is lost, as on
/// a wire, and so is one that the port refuses. A driver that sends faster than the port takes
/// waits; one that does not receive leaves frames at the port, which loses them in time. A port that
/// has failed (a tap interface that was deleted, say) has no more frames until a reset.
#[derive(Debug)]
pub struct Net {
    port: Port,
    mac: [u8; 6],
    receiving: Mutex<Receiving>,
    sending: Mutex<Sending>,
    watcher: Mutex<Option<Watcher>>,
    lost: Throttle,
}

#[derive(Debug)]
struct Receiving {
    /// Header and frame, and the length of both if there is one that was not passed on.
    buffer: Box<[u8]>,
    pending: Option<usize>,
    /// A chain whose frame was too long for it.
    spare: Option<Chain>,
    /// Errors since the last frame, at most [`ERRORS`].
    errors: u32,
}

#[derive(Debug)]
struct Sending {
    buffer: Box<[u8]>,
    /// A chain whose frame the port does not take yet.
    current: Option<Chain>,
}

impl Net {
    /// A network device at `port` with this address, which should be one of its own: locally
    /// administered (bit 1 of the first byte) and no group (bit 0).
    pub fn new(port: Port, mac: [u8; 6]) -> Self {
        let mut buffer = vec![0; HEADER + FRAME].into_boxed_slice();
        buffer.iter_mut().zip(ONE_BUFFER).for_each(|(place, byte)| *place = byte);
        let receiving = Mutex::new(Receiving { buffer, pending: None, spare: None, errors: 0 });
        let buffer = vec![0; FRAME].into_boxed_slice();
        let sending = Mutex::new(Sending { buffer, current: None });
        let (watcher, lost) = (Mutex::default(), Throttle::default());
        Self { port, mac, receiving, sending, watcher, lost }
    }

    fn watch(&self, side: Side) {
        if let Some(watcher) = &*self.watcher.lock() {
            watcher.watch(side);
        }
    }

    #[cold]
    fn lose(&self, why: &str) {
        if let Some(times) = self.lost.next_logged() {
            tracing::debug!(why, times, "a frame is lost");
        }
    }

    /// Passes frames on to the driver.
    fn receive(&self, queue: &mut ActiveQueue<'_>) -> Result<Waits, Broken> {
        let mut receiving = self.receiving.lock();
        let Receiving { buffer, pending, spare, errors } = &mut *receiving;
        for _ in 0..FRAMES {
            let len = match *pending {
                Some(len) => len,
                None if *errors == ERRORS => return Ok(Waits::ForOutside),
                None => {
                    let frame = buffer.get_mut(HEADER..).unwrap_or_default();
                    match self.port.receive(frame) {
                        Ok(len) if len > FRAME => {
                            self.lose("it has more than 64 KiB");
                            continue;
                        }
                        Ok(len) => {
                            *errors = 0;
                            *pending.insert(HEADER + len)
                        }
                        Err(errno) if is_not_ready(errno) => {
                            self.watch(Side::Input);
                            return Ok(Waits::ForOutside);
                        }
                        Err(errno) => {
                            *errors += 1;
                            if *errors == ERRORS {
                                tracing::warn!(%errno, "a network device's port has failed");
                            }
                            continue;
                        }
                    }
                }
            };
            let chain = match spare.take() {
                Some(chain) => chain,
                None => match queue.next()? {
                    Some(chain) => chain,
                    None => return Ok(Waits::ForDriver),
                },
            };
            *pending = None;
            if chain.writable.len() < len as u64 {
                self.lose("the driver's buffers are too short");
                *spare = Some(chain);
                continue;
            }
            let bytes = buffer.get(..len).unwrap_or_default();
            let written = match chain.writable.write(queue.context(), 0, bytes) {
                Ok(()) => len,
                Err(_) => 0,
            };
            queue.complete(&chain, written as u32)?;
        }
        Ok(Waits::NotAtAll)
    }

    /// Sends the driver's frames.
    fn send(&self, queue: &mut ActiveQueue<'_>) -> Result<Waits, Broken> {
        let mut sending = self.sending.lock();
        let Sending { buffer, current } = &mut *sending;
        loop {
            let chain = match current.take() {
                Some(chain) => chain,
                None => match queue.next()? {
                    Some(chain) => chain,
                    None => return Ok(Waits::ForDriver),
                },
            };
            let Some(len) = chain.readable.len().checked_sub(HEADER as u64) else {
                let why = "it has no header of 12 bytes";
                return Err(Broken::Request { head: chain.head(), why });
            };
            // What the header asks for was not offered.
            let frame = usize::try_from(len).ok().and_then(|len| buffer.get_mut(..len));
            match frame {
                None => self.lose("it has more than 64 KiB"),
                Some([]) => {}
                Some(frame) => {
                    if chain.readable.read(queue.context(), HEADER as u64, frame).is_ok() {
                        match self.port.send(frame) {
                            Ok(()) => {}
                            Err(errno) if is_not_ready(errno) => {
                                *current = Some(chain);
                                self.watch(Side::Output);
                                return Ok(Waits::ForOutside);
                            }
                            Err(_) => self.lose("the port refuses it"),
                        }
                    }
                }
            }
            queue.complete(&chain, 0)?;
        }
    }
}

impl VirtioDevice for Net {
    fn kind(&self) -> Kind {
        let class = Class { base: 0x02, sub: 0x00, interface: 0 };
        Kind { id: VIRTIO_ID_NET as u16, class }
    }

    fn queues(&self) -> Vec<u16> {
        vec![QUEUE, QUEUE]
    }

    fn features(&self) -> u64 {
        1 << VIRTIO_NET_F_MAC
    }

    /// The address, the status, the number of pairs of queues, the MTU (5.1.4): of these only the
    /// first has a feature that offers it.
    fn config(&self) -> Vec<u8> {
        let mut bytes = self.mac.to_vec();
        bytes.extend([0; 6]);
        bytes
    }

    fn serve(&self, index: u16, queue: &mut ActiveQueue<'_>) -> Result<Waits, Broken> {
        match index {
            RECEIVE => self.receive(queue),
            _ => self.send(queue),
        }
    }

    fn reset(&self) {
        let mut receiving = self.receiving.lock();
        (receiving.pending, receiving.spare, receiving.errors) = (None, None, 0);
        self.sending.lock().current = None;
    }

    fn attached(&self, bell: Option<Bell>) {
        let port = Some(self.port.as_fd());
        let started = bell.map(|bell| Watcher::start(bell, port, port)).transpose();
        *self.watcher.lock() = started.unwrap_or_else(|error| {
            tracing::error!(%error, "a network device's port cannot be waited for");
            None
        });
    }

    fn detached(&self) {
        *self.watcher.lock() = None;
    }
}
