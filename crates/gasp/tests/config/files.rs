//! Files that cannot be read, that change, or that are too large.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use gasp::Errno;
use gasp::config::Config;

use crate::{folder, parse};

#[test]
fn a_rom_that_changes_before_the_guest_is_built_is_refused() {
    let folder = folder("changed");
    let image = folder.join("image");
    fs::write(&image, "small").unwrap();
    let config = Config::parse("\n[[rom]]\nfile = 'image'", &folder.join("a.toml")).unwrap();
    config.build(None).unwrap();
    fs::write(&image, vec![1; 4097]).unwrap();
    let error = config.build(None).unwrap_err();
    assert_eq!((error.line(), error.key()), (Some(3), Some("rom.file")));
    assert!(error.message().contains("it has grown"), "{error}");
    fs::remove_file(&image).unwrap();
    assert_eq!(config.build(None).unwrap_err().errno(), Errno::NOENT);
}

#[test]
fn a_file_that_cannot_be_read_says_why() {
    let folder = folder("load");
    let fails = |path: &Path| Config::load(path).unwrap_err();
    assert_eq!(fails(&folder.join("none.toml")).errno(), Errno::NOENT);
    assert_eq!(fails(&folder).errno(), Errno::ISDIR);
    assert_eq!(fails(Path::new("/dev/zero")).errno(), Errno::NODEV);
    let latin = folder.join("latin.toml");
    fs::write(&latin, b"[guest]\n\nname = 'caf\xe9'").unwrap();
    let error = fails(&latin);
    assert_eq!(error.to_string(), format!("{}:3: the text is not UTF-8", latin.display()));
    // Opening a pipe without a writer would block for ever.
    let pipe = folder.join("pipe");
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    let kind = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, kind, mode, 0).unwrap();
    assert_eq!(fails(&pipe).errno(), Errno::NODEV);
}

#[test]
fn a_file_of_ten_million_grants_is_refused_at_once() {
    let path = folder("large").join("large.toml");
    let grant = "{ start = 0x00000000, size = 4096, access = 'r' },\n";
    fs::write(&path, "[iommu]").unwrap();
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.set_len(10_000_000 * grant.len() as u64).unwrap();
    let begun = Instant::now();
    let error = Config::load(&path).unwrap_err();
    assert!(begun.elapsed() < Duration::from_secs(1));
    assert_eq!(error.errno(), Errno::FBIG);
    assert!(error.message().contains("4 MiB"), "{error}");
    let error = parse(&grant.repeat(400_000)).unwrap_err();
    assert_eq!(error.errno(), Errno::FBIG);
}

/// The text of a guest with 256 MiB of RAM and a domain with these grants.
fn with_grants(grants: impl Iterator<Item = String>) -> String {
    let grants: String = grants.collect();
    format!(
        "iommu = {{}}\nram = [{{ size = '256M' }}]\n[[domain]]\nname = 'a'\nkind = 'identity'\n\
         grant-identity = [\n{grants}]"
    )
}

#[test]
fn more_grants_than_a_domain_of_a_file_may_have_are_refused() {
    let grant = |page: u64| format!("{{ start = {}, size = 4096, access = 'r' }},\n", page << 12);
    let most = with_grants((0..65_536).map(grant));
    parse(&most).unwrap();
    let error = parse(&with_grants((0..65_537).map(|page| grant(page % 65_536)))).unwrap_err();
    assert_eq!((error.line(), error.key()), (Some(6), Some("domain.grant-identity")));
    assert_eq!(error.errno(), Errno::NOSPC);
    assert!(error.message().contains("at most 65536"), "{error}");
}

#[test]
fn grants_that_all_overlap_are_no_slower_than_others() {
    let one = |page: u64| format!("{{ start = {}, size = 4096, access = 'r' }},\n", page << 13);
    let all = |_| "{ start = 0, size = '256M', access = 'w' },\n".to_owned();
    let begun = Instant::now();
    let config = parse(&with_grants((0..32_768).map(one).chain((0..32_768).map(all)))).unwrap();
    let guest = config.build(None).unwrap();
    // Granted one by one they take half a minute, optimized.
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    assert_eq!(guest.find_domain("a").unwrap().grants().len(), 65_536);
}
