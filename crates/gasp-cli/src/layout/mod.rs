//! `gasp layout`: a picture of a configured guest, with its memory next to the host's.
//!
//! [`model`] collects what is to be drawn, [`positions`] has the places of its parts, [`scale`]
//! those of addresses, [`bands`] merges runs that are too thin to be visible, and the other modules
//! draw: [`guest_bar`], [`domains`], [`host_bar`], and the [`frame`] around them, with the colours
//! of [`palette`] and the text of [`lettering`].

mod bands;
mod domains;
mod frame;
mod guest_bar;
mod host_bar;
mod lettering;
mod model;
mod palette;
mod positions;
mod scale;

use std::io::Write;
use std::path::{Path, PathBuf};

use gasp::Guest;
use svg::Document;

use crate::configured;
use crate::failure::Failure;
use crate::output;
use crate::progress::{Progress, release};
use crate::running;
use model::Model;
use positions::{HEIGHT, Positions, TOP};
use scale::Scale;

/// Arguments of `gasp layout`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Configuration of the guest, in TOML or (*.qvmconf, or @FILE) in the language of qvm
    #[arg(long, value_name = "FILE", required_unless_present = "vm")]
    pub(crate) config: Option<PathBuf>,
    /// Instead, a running VM: the socket of its --status
    #[arg(long, value_name = "SOCKET", conflicts_with = "config")]
    pub(crate) vm: Option<PathBuf>,
    /// File to write the picture to; `-` is stdout
    #[arg(long, value_name = "OUT")]
    pub(crate) svg: PathBuf,
}

/// Creates the guest, or asks the VM, and writes the picture.
pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let picture = match (&args.config, &args.vm) {
        (_, Some(vm)) => running::ask(vm, "layout")?,
        (config, None) => {
            let guest = configured::guest(config.as_deref().unwrap_or(Path::new("")))?;
            let progress = Progress::start("drawing");
            let picture = picture(&guest).to_string();
            drop(progress);
            release(guest);
            picture.into_bytes()
        }
    };
    if args.svg.as_os_str() == "-" {
        let mut out = output::stdout();
        out.write_all(&picture)?;
        return Ok(out.flush()?);
    }
    std::fs::write(&args.svg, picture).map_err(Failure::unwritable("cannot write", &args.svg))
}

/// The picture of a guest in its current state.
pub(crate) fn picture(guest: &Guest) -> Document {
    let model = Model::of(guest);
    let positions = Positions::of(model.columns.len());
    let guest_scale = Scale::new(&model.guest_parts(), TOP, HEIGHT);
    let host_height = match model.host_unknown {
        None => guest_scale.bottom() - TOP,
        Some(_) if model.runs.is_empty() => guest_scale.bottom() - TOP,
        Some(_) => model.known_height(&guest_scale),
    };
    let host_scale = Scale::new(&model.host_parts(), TOP, host_height);
    let bottom = guest_scale.bottom().max(host_scale.bottom());
    let bands = bands::of(&model.runs, &guest_scale, &host_scale);

    let mut picture = frame::begin(&model, &positions, bottom);
    picture = domains::draw(picture, &model, &positions, &guest_scale);
    picture = host_bar::draw(picture, &model, &positions, &host_scale, &bands, bottom);
    picture = guest_bar::draw(picture, &model, &positions, &guest_scale);
    frame::end(picture, &model, &bands, bottom)
}

#[cfg(test)]
mod tests {
    use super::*;
    use gasp::{
        Access, Backing, DeviceAddr, DomainKind, DomainOptions, GuestPhys, MemoryObject, Region,
        Residency, Span, Unattached,
    };

    fn ram(len: u64, backing: Backing) -> MemoryObject {
        MemoryObject::ram(len).name("low").prefer(&[backing]).create().unwrap()
    }

    fn guest(backing: Backing) -> Guest {
        let guest = Guest::builder().name("a <&> \"b\"").iommu(Unattached::Deny).build().unwrap();
        let space = guest.space();
        space.add_ram(Some(GuestPhys(0)), &ram(64 << 20, backing)).unwrap();
        space.add_rom(Some(GuestPhys(0xfffc_0000)), &ram(256 << 10, Backing::Base)).unwrap();
        let device = Span::new(GuestPhys(0xfe00_0000), 0x1000).unwrap();
        space.add(Region::device(device, "net")).unwrap();
        let reserved = Span::new(GuestPhys(0xfd00_0000), 1 << 20).unwrap();
        space.add(Region::reserved(reserved)).unwrap();

        let domain = |name, kind| guest.domain(name, DomainOptions::new(kind)).unwrap();
        let disk = domain("disk", DomainKind::Identity);
        disk.grant_identity(GuestPhys(0), 16 << 20, Access::RW).unwrap();
        disk.grant_identity(GuestPhys(32 << 20), 64 << 10, Access::READ).unwrap();
        let gpu = domain("gpu", DomainKind::Translate);
        gpu.grant(DeviceAddr(0x8000_0000), GuestPhys(40 << 20), 8 << 20, Access::RW).unwrap();
        domain("all", DomainKind::Bypass);
        guest.vdev("disk").unwrap().attach(&disk).unwrap().wait();
        guest.vdev("gpu").unwrap().attach(&gpu).unwrap().wait();
        guest.vdev("stray").unwrap();
        guest
    }

    #[test]
    fn a_guest_in_the_language_of_qvm_is_drawn_as_the_same_one_in_toml() {
        let examples = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/guest");
        let drawn = |file: &str| {
            let path = std::path::Path::new(examples).join(file);
            let model = Model::of(&configured::guest(&path).unwrap());
            let region = |region: &Region| (region.kind(), region.span(), region.access());
            let regions: Vec<_> = model.regions.iter().map(region).collect();
            let column = |column: &model::DomainColumn| {
                let cells: Vec<_> = column.cells.iter().map(|c| (c.part, c.access)).collect();
                (column.name.clone(), column.kind, column.devices.clone(), cells)
            };
            let columns: Vec<_> = model.columns.iter().map(column).collect();
            (model.name.clone(), regions, model.guest_parts(), columns)
        };
        let found = drawn("machine.qvmconf");
        assert_eq!(found, drawn("machine.toml"));
        assert_eq!((found.0.as_str(), found.1.len()), ("machine", 4));
        let devices: Vec<_> = found.3.iter().flat_map(|column| column.2.clone()).collect();
        assert_eq!(devices, ["com1", "disk0", "iommu", "virtio-blk"]);
    }

    #[test]
    fn a_picture_is_well_formed_and_names_what_it_shows() {
        let text = picture(&guest(Backing::Base)).to_string();
        let tree = roxmltree::Document::parse(&text).unwrap();
        assert_eq!(tree.root_element().tag_name().name(), "svg");
        let words: String =
            tree.descendants().filter_map(|node| node.text()).collect::<Vec<_>>().join("\n");
        for word in
            ["a <&> \"b\"", "RAM low", "64 MiB", "256 KiB", "disk", "gpu", "stray", "rw-", "bypass"]
        {
            assert!(words.contains(word), "{word} is missing");
        }
    }

    #[test]
    fn memory_of_several_kinds_is_labelled_with_name_and_size() {
        let guest = Guest::builder().build().unwrap();
        let lazy = MemoryObject::ram(32 << 20).name("lazy").prefer(&[Backing::Base]);
        let lazy = lazy.residency(Residency::OnDemand).create().unwrap();
        let fixed = MemoryObject::ram(16 << 20).name("fixed").prefer(&[Backing::Base]);
        let fixed = fixed.residency(Residency::Resident).create().unwrap();
        let pinned = ram(8 << 20, Backing::Base);
        guest.space().add_ram(None, &pinned).unwrap();
        guest.space().add_ram(None, &lazy).unwrap();
        guest.space().add_ram(None, &fixed).unwrap();
        let text = picture(&guest).to_string();
        for words in ["RAM low", "RAM lazy", "RAM fixed"] {
            assert!(text.contains(words), "{words} is missing");
        }
        match pinned.not_pinned_because() {
            None => {
                assert!(text.contains("8 MiB on 4K pages, pinned"));
                assert!(text.contains("48 MiB on 4K pages, not pinned"));
            }
            Some(why) => println!("in part skipped, because nothing is pinned: {why}"),
        }
    }

    #[test]
    fn the_access_of_a_bypass_domain_is_named_and_painted() {
        let guest = Guest::builder().build().unwrap();
        guest.space().add_ram(None, &ram(4 << 20, Backing::Base)).unwrap();
        guest.vdev("disk").unwrap();
        let text = picture(&guest).to_string();
        assert!(text.contains("may read, write and execute") && text.contains("url(#rwx)"));
        assert!(!text.contains(">denied<"));
    }

    #[test]
    fn a_picture_of_tens_of_thousands_of_runs_stays_small() {
        let text = picture(&guest(Backing::Base)).to_string();
        assert!(text.len() < 1 << 20, "{} bytes", text.len());
    }

    #[test]
    fn a_guest_without_memory_has_a_picture_too() {
        let guest = Guest::builder().build().unwrap();
        let text = picture(&guest).to_string();
        roxmltree::Document::parse(&text).unwrap();
    }
}
