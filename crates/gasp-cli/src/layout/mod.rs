//! `gasp layout`: a picture of a configured guest, with its memory next to the host's.
//!
//! [`model`] collects what is to be drawn: regions, runs, and the [`cell`]s of domains, [`merged`]
//! if they are very many. [`positions`] has the places of its parts, [`scale`] those of addresses,
//! [`bands`] merges runs that are too thin to be visible, and the other modules draw:
//! [`guest_bar`], [`domains`], [`host_bar`], and the [`frame`] around them, with the colours of
//! [`palette`] and the text of [`lettering`].

mod bands;
mod cell;
mod domains;
mod frame;
mod guest_bar;
mod host_bar;
mod lettering;
mod merged;
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
        Access, Backing, DeviceAddr, DomainKind, DomainOptions, GuestPhys, MemoryObject,
        PageTables, Region, Residency, Span, Translation, TranslationFault, Translator, Unattached,
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

    /// Domains whose device addresses lead to high and low pages in turn.
    fn alternating(pages: u64, domains: usize) -> Guest {
        let guest = Guest::builder().iommu(Unattached::Deny).build().unwrap();
        let memory = MemoryObject::ram(2 * pages * 4096).residency(Residency::OnDemand);
        let memory = memory.prefer(&[Backing::Base]).create().unwrap();
        guest.space().add_ram(Some(GuestPhys(0)), &memory).unwrap();
        for domain in 0..domains {
            let name = format!("vtd{domain}");
            let options = DomainOptions::new(DomainKind::Translate);
            let domain = guest.domain(&name, options).unwrap();
            for page in 0..pages {
                let to = if page % 2 == 0 { page } else { 2 * pages - page };
                let access = if to / 32 % 2 == 0 { Access::READ } else { Access::RW };
                domain.grant(DeviceAddr(page << 12), GuestPhys(to << 12), 4096, access).unwrap();
            }
        }
        guest
    }

    #[test]
    fn a_picture_does_not_grow_with_what_a_guest_maps() {
        let few = picture(&alternating(256, 1)).to_string();
        assert!(few.contains("at 0x1000") && !few.contains("several mappings"));
        // Neighbouring rows differ, which is the most. Unmerged, there are 8 MB.
        let guest = alternating(16_384, 2);
        let model = Model::of(&guest);
        let cells: Vec<_> = model.columns.iter().map(|column| column.cells.len()).collect();
        assert!(cells.iter().all(|cells| (1000..=1024).contains(cells)), "{cells:?}");
        let many = picture(&guest).to_string();
        assert!(many.contains("in several mappings") && many.contains("more than 256 mappings"));
        assert!(many.len() < 1 << 20, "{} bytes", many.len());
        roxmltree::Document::parse(&many).unwrap();
    }

    #[test]
    fn only_as_many_domains_as_are_drawn_are_collected_and_the_others_are_counted() {
        let model = Model::of(&alternating(2, 9));
        assert_eq!((model.columns.len(), model.hidden_columns), (6, 3));
    }

    /// Allows everything, at the guest-physical address.
    struct Everything;

    impl Translator for Everything {
        fn translate(
            &self,
            _: &PageTables<'_>,
            addr: DeviceAddr,
            _: Access,
        ) -> Result<Translation, TranslationFault> {
            let guest = GuestPhys(addr.0 & !0xfff);
            Ok(Translation { size: 4096, guest, access: Access::RW })
        }
    }

    #[test]
    fn what_a_domain_has_not_been_asked_is_not_called_denied() {
        let guest = Guest::builder().iommu(Unattached::Deny).build().unwrap();
        guest.space().add_ram(Some(GuestPhys(0)), &ram(4 << 20, Backing::Base)).unwrap();
        let options = DomainOptions::ask(std::sync::Arc::new(Everything));
        let domain = guest.domain("vtd", options).unwrap();
        let device = guest.vdev("disk").unwrap();
        device.attach(&domain).unwrap().wait();
        let unasked = picture(&guest).to_string();
        assert!(unasked.contains("not asked yet by vtd") && unasked.contains("url(#unasked)"));
        assert!(!unasked.contains("denied to") && !unasked.contains("url(#denied)"));
        assert!(!unasked.contains("rw- 4 KiB"));
        device.map(DeviceAddr(0x1000), 16, gasp::MapFlags::READ).unwrap();
        let asked = picture(&guest).to_string();
        assert!(asked.contains("vtd: rw- 4 KiB of guest memory from 0x1000"));

        guest.domain("deny", DomainOptions::new(DomainKind::Identity)).unwrap();
        let both = picture(&guest).to_string();
        assert!(both.contains("denied to deny") && both.contains("url(#unasked)"));
    }

    #[test]
    fn a_guest_without_memory_has_a_picture_too() {
        let guest = Guest::builder().build().unwrap();
        let text = picture(&guest).to_string();
        roxmltree::Document::parse(&text).unwrap();
    }
}
