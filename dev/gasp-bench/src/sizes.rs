//! Results other than times per operation: bytes of tables, and the start of a guest.

use std::time::Instant;

use gasp::{Access, Backing, DeviceAddr, DomainKind, GRANULE, GuestPhys, MemoryObject};
use serde::Serialize;

use crate::peers::Setup;

/// One figure.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Figure {
    /// What was measured.
    pub figure: String,
    /// The value; `None` if it is not available on this machine.
    pub value: Option<f64>,
    /// The unit of the value.
    pub unit: &'static str,
    /// A remark, such as why the value is not available.
    pub note: Option<String>,
}

/// Measures table sizes, and the time to create 1 GiB of RAM on each backing.
pub fn figures() -> gasp::Result<Vec<Figure>> {
    let mut all = vec![
        grants("dense, each elsewhere in memory", |page| page)?,
        grants("one in each 2 MiB", |page| page * 512)?,
        grants("one in each 1 GiB, then a second", |page| page * (1 << 18))?,
    ];
    for backing in Backing::PREFERENCE {
        all.extend(start(backing));
    }
    Ok(all)
}

/// Bytes of table per 4 KiB grant, for one layout of the grants.
fn grants(layout: &str, device: impl Fn(u64) -> u64) -> gasp::Result<Figure> {
    const GRANTS: u64 = 65_536;
    const PAGES: u64 = 1 << 36;
    let setup = Setup::with_grants(0)?;
    debug_assert_eq!(setup.domain.kind(), DomainKind::Translate);
    for page in 0..GRANTS {
        let at = device(page);
        let addr = DeviceAddr((at % PAGES + at / PAGES) * GRANULE);
        let guest = GuestPhys(crate::peers::target(page));
        setup.domain.grant(addr, guest, GRANULE, Access::RW)?;
    }
    Ok(Figure {
        figure: format!("domain table for a 4 KiB grant, {layout}"),
        value: Some(setup.domain.table_bytes() as f64 / GRANTS as f64),
        unit: "bytes",
        note: None,
    })
}

/// The time to create 1 GiB of RAM, pinned and with its frame numbers read, in milliseconds, and
/// the bytes of its frame table. The minimum of three runs.
fn start(backing: Backing) -> Vec<Figure> {
    let (mut time, mut bytes, mut note) = (None::<f64>, None, None);
    for _ in 0..3 {
        let begun = Instant::now();
        match MemoryObject::ram(1 << 30).prefer(&[backing]).create() {
            Ok(object) => {
                let took = begun.elapsed().as_secs_f64() * 1e3;
                time = Some(time.map_or(took, |best| best.min(took)));
                bytes = Some(object.table_bytes() as f64);
                note = object.not_pinned_because().map(|why| format!("not pinned: {why}"));
            }
            Err(error) => {
                note = Some(error.reason().to_string());
                break;
            }
        }
    }
    let figure = |figure, value, unit| Figure { figure, value, unit, note: note.clone() };
    vec![
        figure(format!("1 GiB of RAM on {backing}, until it can be mapped"), time, "ms"),
        figure(format!("frame table for 1 GiB on {backing}"), bytes, "bytes"),
    ]
}
