//! The headers of virtio: each compiles alone, in both editions and in C and C++, and has the
//! layouts, values and prototypes that are published or that the framework relies on.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

use std::path::Path;
use std::process::Command;

/// The headers, under both of their names.
const HEADERS: [&str; 5] = ["qvm/virtio.h", "qvm/vq.h", "qvm/vio.h", "virtio.h", "vq.h"];

/// Compiles a program in strict ISO mode; an error with the compiler's messages if it fails.
fn compile(compiler: &str, standard: &str, edition: u32, text: &str) -> Result<(), String> {
    let folder = tempfile::tempdir().unwrap();
    let name = if standard.starts_with("c++") { "headers.cpp" } else { "headers.c" };
    let (source, object) = (folder.path().join(name), folder.path().join("headers.o"));
    std::fs::write(&source, format!("#define QVM_EDITION {edition}\n{text}\n")).unwrap();
    let output = Command::new(compiler)
        .arg(format!("-std={standard}"))
        .args(["-Wall", "-Wextra", "-Werror", "-pedantic", "-c", "-I"])
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("include"))
        .arg("-o")
        .args([&object, &source])
        .output()
        .expect("a compiler: cc and c++, or $CC and $CXX");
    match output.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

fn check(edition: u32, text: &str) {
    let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".into());
    let text = format!("#include <qvm/vio.h>\n{text}");
    compile(&compiler, "c11", edition, &text).unwrap_or_else(|errors| panic!("{errors}"));
}

#[test]
fn each_header_compiles_alone_and_twice() {
    let c = std::env::var("CC").unwrap_or_else(|_| "cc".into());
    let cpp = std::env::var("CXX").unwrap_or_else(|_| "c++".into());
    for header in HEADERS {
        let text = format!("#include <{header}>\n#include <{header}>\nint nothing;");
        for edition in [800, 710] {
            for (compiler, standard) in [(&c, "c99"), (&c, "c11"), (&cpp, "c++17")] {
                compile(compiler, standard, edition, &text)
                    .unwrap_or_else(|errors| panic!("<{header}>, {standard}: {errors}"));
            }
        }
    }
}

#[test]
fn values_are_those_that_are_published() {
    let values = [
        ("VIO_MAX_FEATURE_WORDS", 4_u32),
        ("VIOREF_CLASS_NOP", 0),
        ("VIOREF_CLASS_NOTIFY", 0x10000),
        ("VIOREF_CLASS_ENABLED", 0x20000),
        ("VIOREF_CLASS_RESET", 0x30000),
        ("VIOREF_CLASS_STATUS", 0x40000),
        ("VIOREF_CLASS_DEVCFG", 0x50000),
        ("VIOREF_CLASS_BUS_ERROR", 0x60000),
        ("VIOREF_CLASS_ERRNO", 0x70000),
        ("VIOREF_CLASS_MASK", 0xf0000),
        ("VIOVER_095", 0),
        ("VIOVER_100", 1),
        ("VIOVER_110", 2),
        // Of the virtio standard.
        ("VIRTIO_DT_NET", 1),
        ("VIRTIO_DT_BLOCK", 2),
        ("VIRTIO_DT_ENTROPY", 4),
        ("VIRTIO_DT_GPU", 16),
        ("VIRTIO_DT_I2C", 34),
        ("VIRTIO_F_VERSION_1", 32),
        ("VIRTIO_F_RING_RESET", 40),
        ("VIO_F_BIT(VIRTIO_F_VERSION_1)", 1),
        ("VIO_F_BIT(31)", 0x8000_0000),
        ("VIRTIO_DS_DRIVER_OK", 4),
        ("VIRTIO_DS_NEEDS_RESET", 64),
        ("VIRTQ_DESC_F_NEXT", 1),
        ("VIRTQ_DESC_F_WRITE", 2),
        ("VIRTQ_DESC_F_INDIRECT", 4),
        // The framework's own.
        ("VQ_INVALID_ID", 0xffff_ffff),
        ("VVF_NONE", 0),
        ("VVF_PADDRS", 1),
    ];
    let text: String = values
        .iter()
        .map(|(name, value)| format!("_Static_assert(({name}) == {value}u, \"{name}\");\n"))
        .collect();
    check(800, &text);
    check(710, &text);
}

#[test]
fn members_are_where_the_framework_has_them() {
    let layout = |edition: u32, structure: &str, size: usize, members: &[(&str, usize)]| {
        let mut text = format!("_Static_assert(sizeof({structure}) == {size}, \"its size\");\n");
        for (member, offset) in members {
            let at = format!("offsetof({structure}, {member}) == {offset}");
            text += &format!("_Static_assert({at}, \"{member}\");\n");
        }
        check(edition, &text);
    };
    for edition in [800, 710] {
        let members = [
            ("device_type", 0),
            ("vendor_id", 2),
            ("pci_class", 4),
            ("num_queues", 8),
            ("device_config_size", 12),
            ("device_features", 16),
        ];
        layout(edition, "struct vio_description", 32, &members);
        let members = [("vsip", 0), ("qinfo", 8), ("driver_features", 16)];
        layout(edition, "struct vio_state", 32, &members);
        let queue = if edition == 800 { "pvq" } else { "vq" };
        let members = [(queue, 0), ("vsp", 8), ("data", 16), ("max_size", 48)];
        layout(edition, "struct vio_queue_info", 56, &members);
        let members =
            [("descriptors", 0), ("driver", 8), ("device", 16), ("size", 24), ("reserved", 28)];
        layout(edition, "struct virtio_virtq_data", 32, &members);
        layout(edition, "struct __iovec64", 16, &[("iov_base", 0), ("iov_len", 8)]);
        let mut members = vec![
            ("vi_iov", 0),
            ("vi_paddrs", 8),
            ("vi_iov_len", 16),
            ("vi_reserved", 20),
            ("vi_flags", 24),
            ("vi_hdr_len", 28),
            ("vi_count", 32),
            ("vi_payload", 36),
        ];
        if edition == 800 {
            members.push(("vi_is_postmap", 40));
        }
        layout(edition, "struct vio_iov", if edition == 800 { 48 } else { 40 }, &members);
    }
    layout(800, "iov_postmap_elem_t", 24, &[("reserved", 0)]);
}

#[test]
fn a_wrong_assertion_is_noticed() {
    let wrong = "#include <qvm/vio.h>\n_Static_assert(sizeof(struct vio_iov) == 47, \"\");";
    assert!(compile("cc", "c11", 800, wrong).is_err());
}
