//! An entropy device (virtio 1.2, 5.4): random bytes of the host's kernel.

use gasp_vdev::Class;
use rustix::io::{Errno, retry_on_intr};
use rustix::rand::{GetRandomFlags, getrandom};
use virtio_bindings::virtio_ids::VIRTIO_ID_RNG;

use crate::device::{Kind, VirtioDevice, Waits};
use crate::queue::{ActiveQueue, Broken, Chain};

/// The number of bytes that one request gets at most: the driver asks again for more.
const REQUEST_MAX: u64 = 64 << 10;
/// The number of bytes that are obtained at a time.
const STEP: usize = 4096;
const QUEUE: u16 = 64;

/// An entropy device: it fills what its driver gives it with random bytes of getrandom(2), at most
/// 64 KiB for each request.
#[derive(Debug, Default)]
pub struct Entropy(());

impl Entropy {
    /// Creates one.
    pub fn new() -> Self {
        Self::default()
    }
}

impl VirtioDevice for Entropy {
    fn kind(&self) -> Kind {
        let class = Class { base: 0x10, sub: 0x80, interface: 0 };
        Kind { id: VIRTIO_ID_RNG as u16, class }
    }

    fn queues(&self) -> Vec<u16> {
        vec![QUEUE]
    }

    fn serve(&self, _: u16, queue: &mut ActiveQueue<'_>) -> Result<Waits, Broken> {
        while let Some(chain) = queue.next()? {
            let written = fill(queue, &chain);
            if queue.should_stop() {
                break;
            }
            queue.complete(&chain, written)?;
        }
        Ok(Waits::ForDriver)
    }
}

/// Fills a request, and returns how many bytes were written: fewer if the guest does not allow the
/// rest.
fn fill(queue: &ActiveQueue<'_>, chain: &Chain) -> u32 {
    let len = chain.writable.len().min(REQUEST_MAX);
    let (mut bytes, mut done) = ([0; STEP], 0);
    while done < len && !queue.should_stop() {
        let step = STEP.min(usize::try_from(len - done).unwrap_or(STEP));
        let part = bytes.get_mut(..step).unwrap_or_default();
        let filled = random(part)
            .map_err(|errno| tracing::error!(%errno, "the kernel has no random bytes"))
            .is_ok();
        if !filled || chain.writable.write(queue.context(), done, part).is_err() {
            break;
        }
        done += step as u64;
    }
    // At most `REQUEST_MAX`.
    done as u32
}

/// # References
/// [getrandom(2)](https://man7.org/linux/man-pages/man2/getrandom.2.html)
fn random(into: &mut [u8]) -> Result<(), Errno> {
    let mut rest = into;
    while !rest.is_empty() {
        let got = retry_on_intr(|| getrandom(&mut *rest, GetRandomFlags::empty()))?;
        rest = rest.get_mut(got..).unwrap_or_default();
    }
    Ok(())
}
