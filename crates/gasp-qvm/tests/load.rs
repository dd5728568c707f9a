//! Files that are no vdevs, or not as a vdev should be.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use gasp_qvm::{Loader, VdevError};
use support::{Guests, Library};

const NOTHING: &str = "static int control(vdev_t *vdp, vdev_ctrl_options_t ctrl, const char *arg)
{ (void)vdp, (void)ctrl, (void)arg; return EOK; }\n";

fn refused(text: &str) -> VdevError {
    let library = Library::of_text(text, 800, "odd");
    let error = library.load().unwrap_err();
    assert_eq!(library.load().unwrap_err().to_string(), error.to_string(), "a second time");
    error
}

#[test]
fn a_name_that_has_no_file_says_where_was_searched() {
    let folder = tempfile::tempdir().unwrap();
    let loader = Loader::new(vec![folder.path().to_owned(), "/nowhere".into()]);
    let error = loader.load("none-such").unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, VdevError::NotFound { .. }), "{text}");
    for part in ["vdev-none-such.so", folder.path().to_str().unwrap(), "/nowhere", "--vdev-path"] {
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn a_file_that_is_no_shared_object_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    for (content, part) in [("", "file too short"), (&*"text ".repeat(99), "invalid ELF header")] {
        let path = folder.path().join("vdev-text.so");
        std::fs::write(&path, content).unwrap();
        let error = Loader::default().load(path.to_str().unwrap()).unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, VdevError::NotLoaded { .. }), "{text}");
        assert!(text.contains("vdev-text.so") && text.contains(part), "{text}");
        assert!(text.contains("cc -shared -fPIC"), "{text}");
    }
    let missing = folder.path().join("vdev-gone.so");
    let text = Loader::default().load(missing.to_str().unwrap()).unwrap_err().to_string();
    assert!(text.contains("No such file"), "{text}");
}

#[test]
fn a_library_without_a_factory_is_no_vdev() {
    let error = refused("int unrelated(void) { return 0; }\n");
    assert!(matches!(error, VdevError::NoFactory { .. }), "{error}");
    let text = "#include <support.h>\n".to_owned()
        + "static void __attribute__((constructor)) load(void)\n"
        + "{ vdev_register_factory(NULL, QVM_VDEV_ABI); }\n";
    let error = refused(&text);
    assert!(error.to_string().contains("NULL"), "{error}");
}

#[test]
fn a_wrong_abi_number_is_named_with_the_right_ones() {
    let text = format!(
        "#include <support.h>\n{NOTHING}static struct vdev_factory factory = {{ .control = control }};
static void __attribute__((constructor)) load(void) {{ vdev_register_factory(&factory, 4711); }}\n"
    );
    let text = refused(&text).to_string();
    assert!(text.contains("4711") && text.contains("2026120100"), "{text}");
}

#[test]
fn a_function_that_does_not_exist_is_named() {
    let text = format!(
        "#include <support.h>\nint vdev_frobnicate(vdev_t *);\n{NOTHING}
static int more(vdev_t *vdp, vdev_ctrl_options_t ctrl, const char *arg)
{{ return control(vdp, ctrl, arg) + vdev_frobnicate(vdp); }}
VDEV(.control = more)\n"
    );
    let text = refused(&text).to_string();
    assert!(text.contains("vdev_frobnicate") && text.contains("does not offer"), "{text}");
}

#[test]
fn a_factory_that_is_not_valid_is_refused() {
    for (members, part) in [
        (".vread = 0", "control is NULL"),
        (".control = control, .factory_flags = VFF_MUTEX_RECURSIVE", "needs VFF_MUTEX"),
        (".control = control, .factory_flags = VFF_INTR_NO | VFF_INTR_REQ", "exclude each other"),
    ] {
        let nothing = if members.contains("control") { NOTHING } else { "" };
        let text =
            refused(&format!("#include <support.h>\n{nothing}VDEV({members})\n")).to_string();
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn two_factories_of_one_name_are_refused_in_one_file_and_in_two() {
    let named = |name: &str| {
        format!("#include <support.h>\n{NOTHING}VDEV(.control = control, .name = \"{name}\")\n")
    };
    Library::of_text(&named("twin"), 800, "one").load().unwrap();
    let error = Library::of_text(&named("twin"), 800, "two").load().unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, VdevError::Twice { .. }), "{text}");
    assert!(
        text.contains("`twin`") && text.contains("vdev-one") && text.contains("vdev-two"),
        "{text}"
    );
    let both = format!(
        "#include <support.h>\n{NOTHING}
static struct vdev_factory a = {{ .control = control, .name = \"same\" }},
                           b = {{ .control = control, .name = \"same\" }};
static void __attribute__((constructor)) load(void)
{{ vdev_register_factory(&a, QVM_VDEV_ABI); vdev_register_factory(&b, QVM_VDEV_ABI); }}\n"
    );
    assert!(matches!(refused(&both), VdevError::Twice { .. }));
}

#[test]
fn a_file_is_loaded_once_and_serves_several_instances() {
    let text = format!(
        "#include <support.h>\nstatic int loads;\n{NOTHING}VDEV(.control = control)
static void __attribute__((constructor)) count(void) {{ loads++; if (loads != 1) abort(); }}\n"
    );
    let library = Library::of_text(&text, 800, "once");
    let (first, second) = (library.load().unwrap(), library.load().unwrap());
    assert!(std::sync::Arc::ptr_eq(&first, &second));
    let guest = Guests::new();
    let one = guest.create(&library, "vdev once loc 0xfa000000").unwrap();
    let two = guest.create(&library, "vdev once loc 0xfb000000").unwrap();
    assert_eq!(one.placed().unwrap().start, Some(0xfa00_0000));
    assert_eq!(two.placed().unwrap().start, Some(0xfb00_0000));
}

/// A crash is reported with the file and the place, and ends the process as it would without.
#[test]
fn a_constructor_that_crashes_is_named() {
    const CHILD: &str = "GASP_TEST_CRASH";
    if let Ok(path) = std::env::var(CHILD) {
        let _ = Loader::default().load(&path);
        return;
    }
    for (what, signal, name) in [
        ("*(volatile int *)0 = 1;", libc::SIGSEGV, "SIGSEGV"),
        ("abort();", libc::SIGABRT, "SIGABRT"),
        ("__builtin_trap();", libc::SIGILL, "SIGILL"),
    ] {
        let text = format!(
            "#include <support.h>\nstatic void __attribute__((constructor)) load(void) {{ {what} }}\n"
        );
        let library = Library::of_text(&text, 800, "crash");
        let output = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "a_constructor_that_crashes_is_named", "--nocapture"])
            .env(CHILD, &library.path)
            .output()
            .unwrap();
        use std::os::unix::process::ExitStatusExt;
        assert_eq!(output.status.signal(), Some(signal), "{output:?}");
        let text = String::from_utf8_lossy(&output.stderr);
        let expected = format!("vdev-crash{}", "");
        assert!(text.contains(&expected), "{text}");
        assert!(text.contains(&format!("has crashed: {name} in its constructor")), "{text}");
    }
}
