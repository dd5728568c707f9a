//! Map and unmap through the C interface, compared with the same in Rust.
#![allow(unsafe_code, reason = "calls the C functions, as C does")]

use core::ffi::c_int;
use core::ptr::null_mut;
use std::hint::black_box;
use std::io;

use gasp::{DeviceAddr, Errno, Error, GRANULE, Location, MapFlags, Operation, Reason};
use gasp_capi::host::{domain, guest, memory, vdev};
use gasp_capi::map::{gasp_map, gasp_map_host_contig, gasp_unmap_handle};
use gasp_capi::types::*;

use super::recipe::{Contestant, Recipe, contestant, recipe};
use crate::peers::{Order, Setup, addresses, target};

const LEN: usize = 64;
const GRANTS: [u64; 3] = [1, 1024, 65_536];

pub(super) fn recipes() -> Vec<Recipe> {
    let mut all = Vec::new();
    for grants in GRANTS {
        let order = if grants == 1 { Order::Same } else { Order::Random };
        let name = format!("C: map+unmap, {}, {order}", super::map::granted(grants));
        all.push(recipe(name, move || plain(grants, order)));
    }
    all.push(recipe("C: host-contiguous, 1024 grants, random".into(), contiguous));
    all
}

fn plain(grants: u64, order: Order) -> gasp::Result<Vec<Contestant>> {
    let (c, rust) = (CGuest::with_grants(grants)?, Setup::with_grants(grants)?);
    let a = addresses(grants, order);
    let b = a.clone();
    // Called as from C: not inlined, and through the symbol.
    let (map, unmap) = (black_box(gasp_map as Map), black_box(gasp_unmap_handle as Unmap));
    Ok(vec![
        contestant("gasp_map", move |i| {
            let mut handle = MapHandle::default();
            let (vdev, flags) = (c.vdev(), GMF_READ | GMF_WRITE);
            // SAFETY: `handle` is a local that is valid for writes during the call.
            assert_eq!(unsafe { map(vdev, a.at(i), LEN, flags, &mut handle) }, EOK);
            // SAFETY: `handle` is a local that is initialized and valid for reads during the call.
            unsafe { unmap(black_box(&mut handle)) };
        }),
        contestant("in Rust", move |i| {
            if let Ok(mapping) = rust.vdev.map(DeviceAddr(b.at(i)), LEN as u64, MapFlags::RW) {
                black_box(mapping.as_ptr());
            }
        }),
    ])
}

fn contiguous() -> gasp::Result<Vec<Contestant>> {
    let grants = 1024;
    let (c, rust) = (CGuest::with_grants(grants)?, Setup::with_grants(grants)?);
    let a = addresses(grants, Order::Random);
    let b = a.clone();
    let map = black_box(gasp_map_host_contig as MapHostContig);
    let unmap = black_box(gasp_unmap_handle as Unmap);
    Ok(vec![
        contestant("gasp_map_host_contig", move |i| {
            let (mut handle, mut addr, mut len) = (MapHandle::default(), a.at(i), LEN);
            let (vdev, flags) = (c.vdev(), GMF_READ | GMF_WRITE);
            // SAFETY: `addr`, `len` and `handle` are locals that are initialized, and valid for
            // reads and writes during the call. (It fails if host-physical addresses are not
            // known.)
            if unsafe { map(vdev, &mut addr, &mut len, flags, &mut handle) } == EOK {
                // SAFETY: `handle` is a local that is initialized and valid for reads during the
                // call.
                unsafe { unmap(black_box(&mut handle)) };
            }
        }),
        contestant("in Rust", move |i| {
            let at = DeviceAddr(b.at(i));
            if let Ok(mapping) = rust.vdev.map_host_contig(at, LEN as u64, MapFlags::RW) {
                black_box((mapping.as_ptr(), mapping.run()));
            }
        }),
    ])
}

type Map = unsafe extern "C" fn(*const Vdev, u64, usize, u32, *mut MapHandle) -> c_int;
type MapHostContig =
    unsafe extern "C" fn(*const Vdev, *mut u64, *mut usize, u32, *mut MapHandle) -> c_int;
type Unmap = unsafe extern "C" fn(*mut MapHandle);

/// The same guest as [`Setup::with_grants`], created by C calls.
struct CGuest {
    guest: *mut GuestSystem,
    vdev: *mut Vdev,
}

impl CGuest {
    fn with_grants(grants: u64) -> gasp::Result<Self> {
        let options = GuestOptions {
            name: c"bench".as_ptr(),
            address_width: 0,
            iommu: GASP_IOMMU_DENY,
            drain_deadline_ms: 1000,
            at_deadline: GASP_DRAIN_WAIT,
            allow_unpinned: 0,
            reserved: 0,
        };
        let mut created = Self { guest: null_mut(), vdev: null_mut() };
        let (mut at, mut of) = (0_u64, null_mut());
        let name = c"device".as_ptr();
        // SAFETY: `options` is initialized, and its name a constant that ends in a NUL;
        // `created.guest` is valid for writes during the call.
        check(unsafe { guest::gasp_guest_create(&options, &mut created.guest) })?;
        // SAFETY: `at` is initialized, and valid for reads and writes during the call.
        check(unsafe {
            memory::gasp_guest_add_ram(
                created.guest,
                &mut at,
                Setup::RAM,
                GASP_PAGES_ANY,
                GASP_PINNED,
            )
        })?;
        // SAFETY: `name` is a constant that ends in a NUL, and `created.vdev` is valid for writes
        // during the call.
        check(unsafe { vdev::gasp_vdev_create(created.guest, name, &mut created.vdev) })?;
        let kind = GASP_DOMAIN_TRANSLATE;
        // SAFETY: `name` is a constant that ends in a NUL, the owner is NULL, and `of` is valid for
        // writes during the call.
        check(unsafe {
            domain::gasp_domain_create(created.guest, name, kind, core::ptr::null(), &mut of)
        })?;
        // SAFETY: the place for the drain is NULL.
        check(unsafe { vdev::gasp_vdev_attach(created.vdev, of, null_mut()) })?;
        for page in 0..grants {
            let (from, access) = (page * GRANULE, GMF_READ | GMF_WRITE);
            check(domain::gasp_domain_grant(of, from, target(page), GRANULE, access))?;
        }
        Ok(created)
    }
}

impl CGuest {
    /// The device. (A method, so that a closure that calls it captures the whole guest.)
    fn vdev(&self) -> *mut Vdev {
        self.vdev
    }
}

impl Drop for CGuest {
    fn drop(&mut self) {
        guest::gasp_guest_destroy(self.guest);
    }
}

fn check(errno: c_int) -> gasp::Result<()> {
    if errno == EOK {
        return Ok(());
    }
    let errno = Errno::from_io_error(&io::Error::from_raw_os_error(errno)).unwrap_or(Errno::IO);
    let reason = Reason::Os { what: "creating the guest of the C benchmark", errno };
    Err(Error::new(Operation::Create, Location::Offset(0), 0, reason))
}
