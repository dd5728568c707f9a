//! The headers for virtual devices: sources of vdevs compile with them, and every structure,
//! constant and prototype is what was published or is promised to the hosts of vdevs.
//!
//! `samples/` are vdevs, written after the public guides, `abi/` are assertions; files whose names
//! end in `_710` are of the 7.x edition. `symbols.txt` lists the functions that a host of vdevs
//! exports: they are not in libgasp, so that vdevs are not linked or run here. `inline/` runs what the
//! headers define themselves.
//!
//! That each header compiles alone, in both editions and as C99, C11 and C++17, is tested with all
//! others by `tests/c.rs`.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod compile;
mod text;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use compile::{compile, compile_text, edition, files, here};
use text::{HEADERS, asserted, constants, functions, header, symbols};

const SHARED: [&str; 2] = ["-shared", "-fPIC"];

/// A vdev links with nothing: a host has what it needs.
fn assert_is_a_vdev(source: &Path, edition: u32, standard: &str) {
    let options = [SHARED[0], SHARED[1], standard];
    let vdev = compile(source, edition, &options)
        .unwrap_or_else(|why| panic!("{} {standard}: {why}", source.display()));
    let undefined = vdev.undefined(true);
    assert!(undefined.contains("vdev_register_factory"), "{undefined:?}");
    let mut host = symbols(edition);
    let suffix = if edition == 710 { "_710" } else { "" };
    host.extend(functions("gasp.h").into_iter().map(|name| format!("{name}{suffix}")));
    let strange: Vec<_> = undefined.difference(&host).collect();
    assert!(strange.is_empty(), "{} {standard}: {strange:?}", source.display());
}

#[test]
fn vdevs_in_c_compile_and_need_only_what_a_host_has() {
    let sources = files("tests/vdev/samples", "c");
    for name in ["trace", "sp805", "pci", "uart"] {
        for suffix in ["", "_710"] {
            let file = format!("{name}{suffix}.c");
            assert!(sources.iter().any(|path| path.ends_with(&file)), "{file} is missing");
        }
    }
    for source in &sources {
        for standard in ["-std=gnu99", "-std=gnu17"] {
            assert_is_a_vdev(source, edition(source), standard);
        }
    }
}

#[test]
fn vdevs_in_strict_c_compile_if_they_include_the_headers_first_or_ask_for_posix() {
    for source in files("tests/vdev/samples", "c") {
        let strict = ["-std=c11", "-D_POSIX_C_SOURCE=200809L", SHARED[0], SHARED[1]];
        compile(&source, edition(&source), &strict)
            .unwrap_or_else(|why| panic!("{}: {why}", source.display()));
    }
    let first = "#include <qvm/vdev-core.h>\n#include <stdio.h>\nstruct sigevent event;\n";
    for standard in ["-std=c99", "-std=c11"] {
        compile_text(first, 800, &[standard, "-c"]).unwrap_or_else(|why| panic!("{why}"));
    }
    let late = "#include <stdio.h>\n#include <qvm/vdev-core.h>\n";
    let errors = compile_text(late, 800, &["-std=c11", "-c"]).err().unwrap();
    assert!(errors.contains("compile with -std=gnu11"), "{errors}");
}

#[test]
fn vdevs_in_cxx_compile_and_need_only_what_a_host_has() {
    for source in files("tests/vdev/samples", "cpp") {
        let options = [SHARED[0], SHARED[1], "-std=c++17", "-fno-exceptions"];
        for edition in [800, 710] {
            let vdev = compile(&source, edition, &options)
                .unwrap_or_else(|why| panic!("{} {edition}: {why}", source.display()));
            let undefined = vdev.undefined(true);
            assert!(undefined.is_subset(&symbols(edition)), "{undefined:?}");
        }
    }
}

#[test]
fn structures_constants_and_prototypes_are_as_asserted() {
    for source in files("tests/vdev/abi", "c") {
        compile(&source, edition(&source), &["-std=gnu11", "-c"])
            .unwrap_or_else(|why| panic!("{}: {why}", source.display()));
    }
}

#[test]
fn the_functions_that_the_headers_define_work() {
    // The sanitizers, if the compiler has them.
    let sanitize = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"];
    let has = compile_text("int main(void) { return 0; }\n", 800, &sanitize).is_ok();
    let sanitize = if has { &sanitize[..] } else { &[] };
    for source in files("tests/vdev/inline", "c") {
        let options = [&["-std=gnu11", "-g"], sanitize].concat();
        let program = compile(&source, edition(&source), &options)
            .unwrap_or_else(|why| panic!("{}: {why}", source.display()));
        let output = Command::new(&program.file).output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: {errors}", source.display());
    }
}

#[test]
fn a_wrong_assertion_is_noticed() {
    let wrong = [
        "VALUE(VRS_BUS_ERROR, 2);",
        "SIZE(struct vdev_factory, 80);",
        "MEMBER(struct vdev_s, v_block, 16, struct qvm_state_block);",
        "MEMBER(struct guest_intr, param, 8, int);",
        "SAME(guest_termination_cause_t, unsigned);",
        "IS(guest_intr_signal, void (*)(guest_intr_t *, guest_intr_state_t));",
    ];
    let include = format!("#include \"{}/tests/vdev/abi/expect.h\"\n", env!("CARGO_MANIFEST_DIR"));
    for assertion in wrong {
        let text = format!("#include <qvm/vdev-core.h>\n{include}{assertion}\n");
        let errors = compile_text(&text, 800, &["-std=gnu11", "-c"]).err();
        assert!(errors.is_some_and(|why| why.contains("static assertion failed")), "{assertion}");
    }
}

#[test]
fn the_symbols_of_the_functions_are_those_of_the_list() {
    for (source, edition) in [("prototypes.c", 800), ("prototypes_710.c", 710)] {
        let source = here("tests/vdev/abi").join(source);
        let object =
            compile(&source, edition, &["-std=gnu11", "-c"]).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(object.undefined(false), symbols(edition), "edition {edition}");
    }
}

#[test]
fn every_function_has_its_prototype_asserted() {
    let mut declared = BTreeSet::new();
    for name in HEADERS.into_iter().filter(|name| *name != "gasp.h") {
        declared.extend(functions(name));
    }
    assert!(declared.len() > 60, "{declared:?}");
    assert_eq!(declared, asserted("IS"));
}

#[test]
fn every_constant_has_its_value_asserted() {
    // Not numbers, or compared elsewhere: with libgasp, or by a test of the initializers.
    let elsewhere = |name: &str| {
        name.starts_with("VPCI_SLICE")
            || ["CDEV_OPTIONS", "GUEST_TIMER_ABSOLUTE", "QVM_OPTION_NO_ARG_PREFIX"].contains(&name)
            || ["_POSIX_C_SOURCE", "EOK", "QVM_EDITION", "QVM_TYPES_EDITION"].contains(&name)
            || ["GRF_", "QST_", "QSF_"].iter().any(|prefix| name.starts_with(prefix))
    };
    let mut asserted = asserted("VALUE");
    asserted.extend(text::asserted("CLASS").iter().map(|name| format!("PCI_CLASS_{name}")));
    asserted.extend(text::asserted("SUBCLASS").iter().map(|name| format!("PCI_SUBCLASS_{name}")));
    for name in HEADERS.into_iter().filter(|name| *name != "gasp.h") {
        for constant in constants(name) {
            assert!(elsewhere(&constant) || asserted.contains(&constant), "{name}: {constant}");
        }
    }
    assert!(header("vdev-core.h").contains("#define QVM_OPTION_NO_ARG_PREFIX \"0\"\n"));
}

#[test]
fn an_edition_that_is_chosen_too_late_is_an_error() {
    for name in HEADERS {
        if ["8250.h", "hw_pci.h", "posix.h"].contains(&name) {
            continue; // The same in both editions.
        }
        let text = format!(
            "#include <qvm/{name}>\n#undef QVM_EDITION\n#define QVM_EDITION 710\n\
             #include <qvm/{name}>\n"
        );
        let errors = compile_text(&text, 800, &["-std=gnu11", "-c"]).err().unwrap();
        assert!(errors.contains("before the first header"), "{name}: {errors}");
    }
}

#[test]
fn a_message_whose_arguments_do_not_match_its_format_is_a_warning() {
    let messages = [
        (800, "vdev_logf(QL_QVM_INFO, NULL, \"%s\", 1);"),
        (800, "qvm_report(\"%s\", 1);"),
        (800, "qvm_fatal(QLS_CNF, \"%s\", 1);"),
        (710, "vdev_logf(QVM_OUTI_QVM, NULL, \"%s\", 1);"),
        (710, "qvm_outf(QVM_OUTI_QVM, \"%s\", 1);"),
        (710, "qvm_logf(QVM_OUTI_QVM, \"%s\", 1);"),
        (710, "qvm_outff(QVM_OUTF_QVM, \"%s\", 1);"),
        (710, "qvm_fatal(QVM_OUTF_QVM, \"%s\", 1);"),
    ];
    for (edition, message) in messages {
        let program = |message: &str| {
            let text = format!(
                "#include <qvm/vdev-core.h>\nvoid log(void);\nvoid log(void) {{ {message} }}\n"
            );
            compile_text(&text, edition, &["-std=gnu11", "-c", "-fno-builtin"]).err()
        };
        assert_eq!(program(&message.replace("%s", "%d")), None, "{message}");
        assert!(program(message).is_some_and(|why| why.contains("format")), "{message}");
    }
}

#[test]
fn questions_that_the_headers_cite_are_in_the_decisions() {
    let decisions = fs::read_to_string(here("../../docs/decisions.md")).unwrap().to_lowercase();
    let mut cited = 0;
    for name in HEADERS {
        let text = header(name).replace("\n * ", " ");
        for question in text.split("\"").filter(|quoted| quoted.ends_with('?')) {
            let row = format!("{} |", question.to_lowercase());
            assert!(decisions.contains(&row), "{name}: {question}");
            cited += 1;
        }
    }
    assert!(cited >= 5, "{cited}");
}
