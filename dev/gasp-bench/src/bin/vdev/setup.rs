//! A guest with the vdev of `measure.c`, which is compiled here.
#![allow(unsafe_code, reason = "calls the C functions, as C does")]

use std::hint::black_box;
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

use gasp::config::Config;
use gasp::{Guest, MemoryObject};
use gasp_capi::embed::ListedGuest;
use gasp_capi::map::{gasp_map_host_contig, gasp_unmap_handle};
use gasp_capi::types::{EOK, GMF_READ, GMF_WRITE, MapHandle, Vdev};
use gasp_qvm::{Decoder, End, Host, Instance, Loader, Request};
use gasp_vm::layout;

use crate::Result;

/// Where the register is.
pub(crate) const AT: u64 = 0xfa00_0000;
const SOURCE: &str = include_str!("measure.c");
const INCLUDE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../crates/gasp-capi/include");
/// As in `measure.c`.
const ROUNDS: u32 = 200;
const CALLS: u32 = 5000;

/// A guest with a vdev.
pub(crate) struct Setup {
    pub(crate) guest: Guest,
    pub(crate) decoder: Arc<Decoder>,
    instance: Arc<Instance>,
}

#[derive(Debug)]
struct Nothing;

impl Host for Nothing {
    fn interrupt(&self, _: bool) {}
    fn message(&self, _: u64, _: u32) {}
    fn end(&self, _: &End) {}
}

impl Setup {
    pub(crate) fn new() -> Result<Self> {
        let guest = Guest::builder().build()?;
        layout::add_ram(&guest, &MemoryObject::ram(16 << 20).create()?)?;
        let folder = std::env::temp_dir().join(format!("gasp-bench-vdev-{}", std::process::id()));
        std::fs::create_dir_all(&folder)?;
        let built = build(&folder);
        let factory = built.and_then(|path| Ok(Loader::default().load(&path)?));
        std::fs::remove_dir_all(&folder)?;
        let factory = factory?;
        let text = format!("ram 1M\nvdev measure loc mem:{AT:#x}\n");
        let config = Config::parse(&text, "measure.qvmconf".as_ref())?;
        let device = config.machine().devices.first().ok_or("no vdev")?;
        let request = Request::of(device, &factory)?;
        let listed = ListedGuest::new(guest.clone())?;
        let vdev = guest.vdev("measure")?;
        let host = Arc::new(Nothing);
        let instance = Instance::create(&listed, &vdev, &factory, &request, host)?;
        instance.assign()?;
        instance.make_region()?;
        let (instance, decoder) = (Arc::new(instance), Arc::new(Decoder::new(&listed)));
        decoder.add(&instance);
        listed.start()?;
        instance.configured()?;
        instance.starting()?;
        // Its thread has measured when this returns.
        Ok(Self { guest, decoder, instance })
    }

    /// The nanoseconds of a map in a thread of the vdev, and of the same call of this thread; or
    /// the error of either.
    pub(crate) fn maps(&self) -> Result<[String; 2]> {
        let own = self.instance.status();
        let vdev: *const Vdev = core::ptr::with_exposed_provenance(self.instance.address());
        let (map, unmap) =
            (black_box(gasp_map_host_contig as Map), black_box(gasp_unmap_handle as Unmap));
        let mut least = f64::INFINITY;
        for _ in 0..ROUNDS {
            let before = Instant::now();
            for _ in 0..CALLS {
                let mut handle = MapHandle::default();
                let (mut addr, mut len) = (0x20_0000_u64, 64_usize);
                let flags = GMF_READ | GMF_WRITE;
                // SAFETY: all three are locals that are valid for reads and writes during the call.
                let code = unsafe { map(vdev, &mut addr, &mut len, flags, &mut handle) };
                if code != EOK {
                    return Ok([own, format!("error {code}")]);
                }
                // SAFETY: `handle` is a local that is initialized and valid during the call.
                unsafe { unmap(black_box(&mut handle)) };
            }
            least = least.min(before.elapsed().as_secs_f64() * 1e9 / f64::from(CALLS));
        }
        Ok([own, format!("{least:.2}")])
    }
}

type Map = unsafe extern "C" fn(*const Vdev, *mut u64, *mut usize, u32, *mut MapHandle) -> i32;
type Unmap = unsafe extern "C" fn(*mut MapHandle);

/// Compiles the vdev, and returns the path of its file.
fn build(folder: &std::path::Path) -> Result<String> {
    let (source, file) = (folder.join("measure.c"), folder.join("vdev-measure.so"));
    std::fs::write(&source, SOURCE)?;
    let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".into());
    let mut command = Command::new(&compiler);
    command.args(["-std=gnu11", "-O2", "-shared", "-fPIC", "-I", INCLUDE, "-o"]);
    let status = command.args([&file, &source]).status();
    match status.map_err(|error| format!("{compiler}: {error}; set CC to a C compiler"))? {
        status if status.success() => Ok(file.display().to_string()),
        status => Err(format!("{compiler}: {status}").into()),
    }
}
