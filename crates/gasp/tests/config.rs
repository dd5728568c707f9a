//! Configuration files: the examples build the guests that they describe, wrong files are
//! refused with the line, the key and what was expected, and no text makes `parse` panic.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "support/any_config.rs"]
mod any_config;
#[path = "config/build.rs"]
mod build;
#[path = "config/examples.rs"]
mod examples;
#[path = "config/files.rs"]
mod files;
#[path = "config/machine.rs"]
mod machine;
#[path = "config/qvm.rs"]
mod qvm;
#[path = "config/qvm_files.rs"]
mod qvm_files;
#[path = "config/qvm_random.rs"]
mod qvm_random;
#[path = "config/random.rs"]
mod random;

use std::error::Error as _;
use std::fs;
use std::path::{Path, PathBuf};

use gasp::Errno;
use gasp::config::{Config, ConfigError};

const EXAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/guest");

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(text, Path::new("test.toml"))
}

/// An empty folder for one test.
fn folder(test: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("config").join(test);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    folder
}

/// A wrong file: its text, and the error's line, key, part of the message, and errno.
type Wrong = (&'static str, usize, &'static str, &'static str, Errno);

fn assert_wrong(path: &Path, found: Option<ConfigError>, wrong: Wrong) {
    let (text, line, key, part, errno) = wrong;
    let error = found.unwrap_or_else(|| panic!("accepted: {text}"));
    let printed = error.to_string();
    assert_eq!(error.line(), Some(line), "{text}\n{printed}");
    assert_eq!(error.key().unwrap_or_default(), key, "{text}\n{printed}");
    assert!(error.message().contains(part), "`{part}` is missing in: {printed}\n{text}");
    assert_eq!(error.errno(), errno, "{printed}");
    assert_eq!(error.path(), path);
    let place = match key {
        "" => format!("{}:{line}: ", path.display()),
        key => format!("{}:{line}: {key}: ", path.display()),
    };
    assert_eq!(printed, format!("{place}{}", error.message()));
}

#[test]
fn a_file_that_is_wrong_in_itself_names_line_key_and_what_was_expected() {
    use Errno as E;
    let wrong: &[Wrong] = &[
        // Not TOML, or wrong keys or types.
        ("[guest\n", 1, "", "expected `]`", E::INVAL),
        ("[guest]\n\nname = \n", 3, "", "must be quoted", E::INVAL),
        ("[guest]\nname = 'a'\nname = 'b'", 3, "name", "duplicate key", E::INVAL),
        ("[gest]\n", 1, "gest", "unknown key `gest`; did you mean `guest`?", E::INVAL),
        (
            "[[ram]]\nsize = '1M'\n\nsise = 3",
            4,
            "ram.sise",
            "unknown key `sise`; did you mean `size`?",
            E::INVAL,
        ),
        (
            "[[ram]]\nsize = '1M'\ncolour = 3",
            3,
            "ram.colour",
            "; there are `start`, `size`",
            E::INVAL,
        ),
        (
            "[[ram]]\nsize = '1M'\nresidency = 'pined'",
            3,
            "ram.residency",
            "mean \"pinned\"?",
            E::INVAL,
        ),
        ("[iommu]\nunatached = 'deny'", 2, "iommu.unatached", "mean `unattached`?", E::INVAL),
        ("[[vdev]]\nname = 'a'\ndomain = 'disk'", 3, "vdev.domain", "; there is none", E::NOENT),
        (
            "[[vdev]]\nname = 'disk'\n[[mmio]]\nstart = 0\nsize = '4K'\nvdev = 'dsik'",
            6,
            "mmio.vdev",
            "no [[vdev]] with the name `dsik`; did you mean `disk`?",
            E::NOENT,
        ),
        ("[[ram]]\nsize = '1M'\n[[ram]]\nstart = 0", 3, "ram.size", "missing", E::INVAL),
        ("[ram]\nsize = '1M'", 1, "ram", "[[ram]]", E::INVAL),
        ("ram = 5", 1, "ram", "write [[ram]]", E::INVAL),
        ("[guest]\nname = 5", 2, "guest.name", "expected a string", E::INVAL),
        ("[guest]\nallow-unpinned = 'no'", 2, "guest.allow-unpinned", "boolean", E::INVAL),
        ("[guest]\nallow_unpinned = true", 2, "guest.allow_unpinned", "unknown", E::INVAL),
        // Values.
        ("[guest]\nname = ''", 2, "guest.name", "expected a name", E::INVAL),
        ("[guest]\nname = \"a\\u001bb\"", 2, "guest.name", "control characters", E::INVAL),
        ("[guest]\naddress-width = 31", 2, "guest.address-width", "32 to 52", E::INVAL),
        ("[guest]\naddress-width = 53", 2, "guest.address-width", "32 to 52", E::INVAL),
        ("[guest]\naddress-width = -1", 2, "guest.address-width", "from 0 on", E::INVAL),
        ("[drain]\ndeadline-ms = 3600001", 2, "drain.deadline-ms", "3600000", E::INVAL),
        ("[drain]\nat-deadline = 'go'", 2, "drain.at-deadline", "\"wait\" or \"detach\"", E::INVAL),
        ("[iommu]\nunattached = 'x'", 2, "iommu.unattached", "\"deny\" or \"bypass\"", E::INVAL),
        ("[[ram]]\nsize = 0", 2, "ram.size", "more than 0 bytes", E::INVAL),
        ("[[ram]]\nsize = 4095", 2, "ram.size", "multiple of 4 KiB", E::INVAL),
        ("[[ram]]\nsize = -4096", 2, "ram.size", "`-4096`, expected bytes", E::INVAL),
        ("[[ram]]\nsize = '1Q'", 2, "ram.size", "\"1Q\", expected bytes", E::INVAL),
        ("[[ram]]\nsize = '16777216T'", 2, "ram.size", "below 2^64", E::INVAL),
        ("[[ram]]\nsize = 0x10000000000000000", 2, "ram.size", "bytes below 2^64", E::INVAL),
        ("[[ram]]\nsize = 1e9", 2, "ram.size", "expected bytes", E::INVAL),
        ("[[ram]]\nsize = '1M'\nstart = 1", 3, "ram.start", "multiple of 4 KiB", E::INVAL),
        ("[[ram]]\nsize = '1M'\nstart = '256T'", 3, "ram.start", "48 bits", E::NXIO),
        ("[[ram]]\nsize = '256T'\n[[ram]]\nsize = '1M'", 3, "ram.start", "48 bits", E::NXIO),
        ("[[ram]]\nstart = '4K'\nsize = '256T'", 3, "ram.size", "48 bits", E::NXIO),
        (
            "[[ram]]\nstart = 0xfffff000\nsize = 0xfffffffffffff000",
            3,
            "ram.size",
            "address width",
            E::NXIO,
        ),
        ("[[ram]]\nsize = '1M'\nbacking = []", 3, "ram.backing", "at least one", E::INVAL),
        ("[[ram]]\nsize = '1M'\nbacking = ['4K',\n'4M']", 4, "ram.backing", "\"4M\"", E::INVAL),
        ("[[ram]]\nsize = '1M'\nresidency = 'x'", 3, "ram.residency", "\"on-demand\"", E::INVAL),
        (
            "[[pass]]\nstart = 0\nsize = '4K'\nhost = 1\npath = '/dev/mem'",
            4,
            "pass.host",
            "multiple of 4 KiB",
            E::INVAL,
        ),
        (
            "[[pass]]\nstart = 0\nsize = '4K'\nhost = 0xfffffffffffff000\npath = 'x'",
            3,
            "pass.size",
            "extend past 64 bits",
            E::INVAL,
        ),
        (
            "[[pass]]\nstart = 0\nsize = '4K'\nhost = 0\npath = 'x'\naccess = 'rq'",
            6,
            "pass.access",
            "letters r, w, x",
            E::INVAL,
        ),
        // Two regions at one address, or two things of one name.
        (
            "[[ram]]\nsize = '1M'\n\n[[reserve]]\nstart = 0xff000\nsize = '4K'",
            5,
            "reserve.start",
            "[0xff000, 0xfffff] overlaps [0x0, 0xfffff] of line 1",
            E::EXIST,
        ),
        (
            "[[reserve]]\nstart = 0\nsize = '2M'\n[[ram]]\nsize = '1M'",
            4,
            "ram.start",
            "of line 2",
            E::EXIST,
        ),
        (
            "[[ram]]\nname = 'a'\nsize = '1M'\n[[ram]]\nname = 'a'\nsize = '1M'",
            5,
            "ram.name",
            "taken on line 2",
            E::EXIST,
        ),
        ("[[vdev]]\nname = 'a'\n[[vdev]]\nname = 'a'", 4, "vdev.name", "on line 2", E::EXIST),
        (
            "[iommu]\n[[domain]]\nname = 'a'\nkind = 'deny'\n[[domain]]\nname = 'a'\nkind = 'deny'",
            6,
            "domain.name",
            "on line 3",
            E::EXIST,
        ),
        // References to what does not exist.
        ("[iommu]\n[[vdev]]\nname = 'a'\ndomain = 'b'", 4, "vdev.domain", "`b`", E::NOENT),
        ("[[mmio]]\nstart = 0\nsize = '4K'\nvdev = 'a'", 4, "mmio.vdev", "`a`", E::NOENT),
        ("\n[[domain]]\nname = 'a'\nkind = 'deny'", 2, "domain", "add an [iommu]", E::INVAL),
    ];
    for &wrong in wrong {
        assert_wrong(Path::new("test.toml"), parse(wrong.0).err(), wrong);
    }
}

#[test]
fn a_wrong_domain_names_line_key_and_what_was_expected() {
    use Errno as E;
    // Each follows 1 MiB of RAM and the head of a domain, which ends on line 5.
    let wrong: &[(&str, Wrong)] = &[
        ("identity", ("limit = 0", 6, "domain.limit", "1 to 268435456", E::INVAL)),
        ("identity", ("limit = 268435457", 6, "domain.limit", "1 to 268435456", E::INVAL)),
        ("identity", ("owner = ''", 6, "domain.owner", "expected a name", E::INVAL)),
        ("other", ("", 5, "domain.kind", "\"bypass\" or \"deny\" or \"identity\"", E::INVAL)),
        (
            "deny",
            ("drain = { deadline-ms = 4e6 }", 6, "domain.drain.deadline-ms", "whole", E::INVAL),
        ),
        (
            "deny",
            (
                "drain = { x = 1 }",
                6,
                "domain.drain.x",
                "unknown key `x`; there are `deadline-ms`",
                E::INVAL,
            ),
        ),
        ("deny", ("grant-identity = []", 6, "domain.grant-identity", "takes no grants", E::INVAL)),
        ("bypass", ("grant = []", 6, "domain.grant", "takes no grants", E::INVAL)),
        ("identity", ("grant = []", 6, "domain.grant", "`grant-identity`", E::INVAL)),
        ("translate", ("grant-identity = []", 6, "domain.grant-identity", "`grant`", E::INVAL)),
        (
            "identity",
            (
                "grant-identity = [\n{ start = 0, size = 1 },\n]",
                7,
                "domain.grant-identity.access",
                "missing",
                E::INVAL,
            ),
        ),
        (
            "identity",
            (
                "grant-identity = [{ start = 0, size = 1, access = '' }]",
                6,
                "domain.grant-identity.access",
                "at least one",
                E::INVAL,
            ),
        ),
        (
            "identity",
            (
                "grant-identity = [{ start = 0, size = 0, access = 'r' }]",
                6,
                "domain.grant-identity.size",
                "more than 0",
                E::INVAL,
            ),
        ),
        (
            "identity",
            (
                "grant-identity = [{ start = 0, size = '1M', access = 'r' },\n\
                 { start = 0xfffff, size = 2, access = 'r' }]",
                7,
                "domain.grant-identity.start",
                "is at 0x100000, inside the grant's [0xfffff, 0x100000]; say `hole = true`",
                E::NXIO,
            ),
        ),
        (
            "identity",
            (
                "grant-identity = [{ start = '2M', size = 0xfffffffffffff000, access = 'r', hole = true }]",
                6,
                "domain.grant-identity.size",
                "48 bits",
                E::NXIO,
            ),
        ),
        (
            "translate",
            (
                "grant = [{ device = 1, guest = 2, size = 1, access = 'r' }]",
                6,
                "domain.grant.guest",
                "same last 12 bits",
                E::INVAL,
            ),
        ),
        (
            "translate",
            (
                "grant = [{ device = '256T', guest = 0, size = 1, access = 'r' }]",
                6,
                "domain.grant.device",
                "48 bits",
                E::NXIO,
            ),
        ),
        (
            "translate",
            (
                "grant = [\n{ device = 0,\nguest = '1M', size = 1, access = 'r' }]",
                8,
                "domain.grant.guest",
                "no RAM, ROM or pass-through memory is at 0x100000",
                E::NXIO,
            ),
        ),
        // Errors of the engine, when the guest is built.
        (
            "translate",
            (
                "grant = [{ device = 0, guest = 0, size = 1, access = 'r' },\n\
                 { device = 0, guest = 4096, size = 1, access = 'r' }]",
                7,
                "domain.grant.device",
                "already leads to",
                E::EXIST,
            ),
        ),
        (
            "identity",
            (
                "limit = 2\ngrant-identity = [{ start = 0, size = '8K', access = 'r' },\n\
                 { start = '8K', size = 1, access = 'r' }]",
                8,
                "domain.grant-identity.start",
                "limit of 2",
                E::NOSPC,
            ),
        ),
    ];
    for &(kind, wrong) in wrong {
        let head = "iommu = {}\nram = [{ size = '1M', backing = ['4K'] }]";
        let text = format!("{head}\n[[domain]]\nname = 'a'\nkind = '{kind}'\n{}", wrong.0);
        let failed = parse(&text).and_then(|config| config.build(None)).err();
        assert_wrong(Path::new("test.toml"), failed, wrong);
    }
}

#[test]
fn wrong_files_that_a_configuration_refers_to_are_named() {
    use Errno as E;
    let folder = folder("files");
    fs::write(folder.join("image"), vec![1; 0x1001]).unwrap();
    fs::write(folder.join("empty"), "").unwrap();
    let wrong: &[Wrong] = &[
        ("[[rom]]\nfile = 'none'", 2, "rom.file", "cannot find the ROM image", E::NOENT),
        ("[[rom]]\nfile = 'empty'", 2, "rom.file", "is empty", E::INVAL),
        ("[[rom]]\nfile = '.'", 2, "rom.file", "is a directory", E::ISDIR),
        ("[[rom]]\nfile = '/dev/zero'", 2, "rom.file", "not a regular file", E::NODEV),
        ("[[rom]]\nfile = \"a\\u0000\"", 2, "rom.file", "cannot find", E::INVAL),
        (
            "[[rom]]\nsize = '4K'\nfile = 'image'",
            3,
            "rom.file",
            "has 4097 bytes, but its region only 4 KiB",
            E::INVAL,
        ),
        (
            "[[pass]]\nstart = 0\nsize = '4K'\nhost = 0\npath = 'none'",
            5,
            "pass.path",
            "cannot read and write",
            E::NOENT,
        ),
        (
            "[[pass]]\nstart = 0\nsize = '4K'\nhost = 0\npath = '.'\naccess = 'r'",
            5,
            "pass.path",
            "it is a directory",
            E::NODEV,
        ),
        (
            "[[pass]]\nstart = 0\nsize = '8K'\nhost = 0\npath = 'image'",
            5,
            "pass.path",
            "holds only 4097 bytes",
            E::INVAL,
        ),
        ("[[ram]]\nsize = '200T'", 2, "ram.size", "the host has", E::NOMEM),
    ];
    let path = folder.join("test.toml");
    for &wrong in wrong {
        let failed = Config::parse(wrong.0, &path).and_then(|config| config.build(None)).err();
        assert_wrong(&path, failed, wrong);
    }
    let text = "[[pass]]\nstart = 0\nsize = '8K'\nhost = 0\npath = 'image'";
    let error = Config::parse(text, &path).unwrap().build(None).unwrap_err();
    let source = error.source().unwrap().downcast_ref::<gasp::Error>().unwrap();
    assert_eq!(source.errno(), error.errno());
}
