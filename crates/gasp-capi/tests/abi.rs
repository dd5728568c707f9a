//! The headers beside the Rust side: every size, offset, constant and prototype.
//!
//! A C program is made from what Rust has, and compiled: it consists of static assertions.
//! What it is about is complete, because the functions it names are those that the shared
//! library exports and those that the headers declare.
#![allow(unsafe_code, reason = "speaks of unsafe functions, without calling any")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

use std::collections::BTreeSet;
use std::ffi::{c_char, c_int, c_uint, c_void};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use gasp_capi::by_address::*;
use gasp_capi::edition_710::*;
use gasp_capi::find::*;
use gasp_capi::host::{domain::*, drain::*, guest::*, memory::*, report::*, vdev::*};
use gasp_capi::lock::*;
use gasp_capi::map::*;
use gasp_capi::regions::*;
use gasp_capi::types::*;
use gasp_capi::walk::*;

/// What C calls a type, by edition.
trait InC {
    fn name(edition: u32) -> String;
}

macro_rules! in_c {
    ($($rust:ty: $name:literal $(or $old:literal)?;)*) => {
        $(impl InC for $rust {
            fn name(edition: u32) -> String {
                let _ = edition;
                $(if edition == 710 { return $old.into(); })?
                $name.into()
            }
        })*
    };
}

in_c! {
    (): "void";
    u16: "uint16_t";
    u32: "uint32_t";
    i32: "int";
    u64: "uint64_t";
    usize: "size_t";
    c_void: "void";
    c_char: "char";
    Vdev: "vdev_t";
    GuestSystem: "struct guest_system";
    Domain: "gasp_domain_t";
    Drain: "gasp_drain_t";
    MapHandle: "gasp_map_handle_t";
    StateBlock: "struct qvm_state_block";
    StateBlock710: "struct qvm_state_block" or "struct qvm_state_block";
    Region: "struct gasp_region";
    Region710: "struct gasp_region" or "struct gasp_region";
    WalkState: "gasp_walk_state_t";
    WalkState710: "" or "struct gasp_walk_state";
    WalkStateFiltered: "gasp_walk_state_filtered_t";
    WalkStateFiltered710: "" or "struct gasp_walk_state_filtered";
    GuestOptions: "struct gasp_guest_options";
    Fault: "struct gasp_fault";
    Drained: "struct gasp_drained";
    WalkFilter: "gasp_walk_filter_t";
    Log: "gasp_log_t";
}

impl<T: InC> InC for *mut T {
    fn name(edition: u32) -> String {
        format!("{} *", T::name(edition))
    }
}

impl<T: InC> InC for *const T {
    fn name(edition: u32) -> String {
        format!("const {} *", T::name(edition))
    }
}

/// A function's type in C.
trait Prototype {
    fn in_c(&self, edition: u32) -> String;
}

macro_rules! prototypes {
    ($(($($argument:ident)*))*) => {$(
        impl<R: InC, $($argument: InC),*> Prototype for unsafe extern "C" fn($($argument),*) -> R {
            fn in_c(&self, edition: u32) -> String {
                let arguments: Vec<String> = vec![$($argument::name(edition)),*];
                let arguments = if arguments.is_empty() { "void".into() } else { arguments.join(", ") };
                format!("{} (*)({arguments})", R::name(edition))
            }
        }
    )*};
}
prototypes! { () (A) (A B) (A B C) (A B C D) (A B C D E) (A B C D E F) (A B C D E F G) }

/// One exported function.
struct Function {
    symbol: &'static str,
    edition: u32,
    prototype: String,
}

macro_rules! functions {
    ($($edition:literal { $($name:ident($($argument:tt)*);)* })*) => {
        vec![$($(Function {
            symbol: stringify!($name),
            edition: $edition,
            prototype: ($name as unsafe extern "C" fn($($argument)*) -> _).in_c($edition),
        },)*)*]
    };
}

fn functions() -> Vec<Function> {
    functions! {
        800 {
            gasp_map_host_contig(_, _, _, _, _);
            gasp_map(_, _, _, _, _);
            gasp_map_firmware(_, _, _, _);
            gasp_get_vaddr(_);
            gasp_unmap_handle(_);
            gasp_map_vdma(_, _, _, _);
            gasp_map_contig(_, _, _, _);
            gasp_map_sys(_, _, _);
            gasp_unmap(_, _, _);
            gasp_region_info(_, _);
            gasp_region_set(_, _);
            gasp_region_set_soft(_, _);
            gasp_lock(_);
            gasp_unlock(_);
            gasp_find_free(_, _, _);
            gasp_find_free_range(_, _, _, _, _);
            gram_find_free(_, _, _);
            gram_find_free_range(_, _, _, _, _);
            gram_reserve(_, _);
            gasp_walk_init(_, _, _);
            gasp_walk_next(_);
            gasp_walk_count(_, _);
            gasp_walk_init_filtered(_, _, _, _);
            gasp_walk_next_filtered(_);
            gasp_walk_count_filtered(_, _, _);
            gasp_version();
            gasp_last_error();
            gasp_set_log(_, _, _);
            gasp_guest_load(_, _);
            gasp_guest_parse(_, _);
            gasp_guest_create(_, _);
            gasp_guest_destroy(_);
            gasp_guest_start(_);
            gasp_guest_use(_);
            gasp_guest_add_ram(_, _, _, _, _);
            gasp_guest_add_rom(_, _, _, _);
            gasp_guest_add_shared(_, _, _, _, _, _, _);
            gasp_guest_add_window(_, _, _, _, _, _, _);
            gasp_guest_remove(_, _, _, _);
            gasp_vdev_create(_, _, _);
            gasp_vdev_find(_, _, _);
            gasp_vdev_attach(_, _, _);
            gasp_vdev_detach(_, _);
            gasp_vdev_destroy(_, _);
            gasp_domain_create(_, _, _, _, _);
            gasp_domain_find(_, _, _);
            gasp_domain_grant(_, _, _, _, _);
            gasp_domain_revoke(_, _, _, _);
            gasp_domain_destroy(_);
            gasp_guest_next_fault(_, _);
            gasp_drain_pending(_, _);
            gasp_drain_wait(_, _);
            gasp_drain_abandon(_);
            gasp_map_check(_);
        }
        710 {
            gasp_map_contig_710(_, _, _, _);
            gasp_map_vdma_710(_, _, _, _);
            gasp_map_sys_710(_, _, _, _);
            gasp_unmap_710(_, _, _, _);
            gasp_region_info_710(_, _, _);
            gasp_region_set_710(_, _, _);
            gasp_region_set_soft_710(_, _, _);
            gasp_lock_710(_, _);
            gasp_unlock_710(_, _);
            gasp_find_free_710(_, _, _, _);
            gasp_find_free_range_710(_, _, _, _, _, _);
            gram_find_free_710(_, _, _, _);
            gram_find_free_range_710(_, _, _, _, _, _);
            gram_reserve_710(_, _, _);
            gasp_walk_init_710(_, _, _, _);
            gasp_walk_next_710(_);
            gasp_walk_count_710(_, _, _);
            gasp_walk_init_filtered_710(_, _, _, _, _);
            gasp_walk_next_filtered_710(_);
            gasp_walk_count_filtered_710(_, _, _, _);
        }
    }
}

/// Assertions about a structure: its size, alignment, and each member's place and size.
macro_rules! structure {
    ($text:ident, $edition:expr, $rust:ident { $($member:ident = $c:literal),* $(,)? }) => {{
        let name = <$rust as InC>::name($edition);
        // All members are named: this does not compile otherwise.
        let _ = |value: $rust| { let $rust { $($member: _),* } = value; };
        let (size, align) = (size_of::<$rust>(), align_of::<$rust>());
        writeln!($text, "_Static_assert(sizeof({name}) == {size}, \"size of {name}\");").unwrap();
        writeln!($text, "_Static_assert(_Alignof({name}) == {align}, \"{name}\");").unwrap();
        $(
            let offset = std::mem::offset_of!($rust, $member);
            writeln!(
                $text,
                "_Static_assert(offsetof({name}, {}) == {offset}, \"offset of {}\");", $c, $c
            ).unwrap();
            let size = size_of_result(|value: $rust| value.$member);
            writeln!(
                $text,
                "_Static_assert(sizeof((({name} *)0)->{}) == {size}, \"size of {}\");", $c, $c
            ).unwrap();
        )*
    }};
}

fn size_of_result<S, T>(_: impl Fn(S) -> T) -> usize {
    size_of::<T>()
}

fn structures(edition: u32) -> String {
    let mut text = String::new();
    if edition == 800 {
        structure!(text, 800, MapHandle { reserved = "reserved" });
        structure!(text, 800, StateBlock {
            location = "location", length = "length", qst_type = "qst_type",
            qst_flags = "qst_flags", spare = "spare",
        });
        structure!(text, 800, Region {
            flags = "grf_flags", cookie = "cookie", vdev = "vdev",
            host_location = "host_location", guest = "guest",
        });
        structure!(text, 800, WalkState {
            span = "gw_span", guest_loc = "gw_guest_loc", host_loc = "gw_host_loc",
            length = "gw_length", max_length = "gw_max_length", flags = "gwf_flags",
        });
        structure!(text, 800, WalkStateFiltered {
            ws = "ws", filter = "filter", remaining_guest_loc = "remaining_guest_loc",
            remaining_length = "remaining_length",
        });
    } else {
        structure!(text, 710, StateBlock710 {
            location = "location", length = "length", qst_type = "type", qst_flags = "flags",
        });
        structure!(text, 710, Region710 {
            flags = "flags", cookie = "cookie", vdev = "vdev",
            host_location = "host_location", guest = "guest",
        });
        structure!(text, 710, WalkState710 {
            span = "span", gsp = "gsp", guest_loc = "guest_loc", host_loc = "host_loc",
            length = "length", max_length = "max_length", flags = "flags",
        });
        structure!(text, 710, WalkStateFiltered710 {
            ws = "ws", filter = "filter", remaining_guest_loc = "remaining_guest_loc",
            remaining_length = "remaining_length",
        });
    }
    structure!(text, edition, GuestOptions {
        name = "name", address_width = "address_width", iommu = "iommu",
        drain_deadline_ms = "drain_deadline_ms", at_deadline = "at_deadline",
        allow_unpinned = "allow_unpinned", reserved = "reserved",
    });
    structure!(text, edition, Fault {
        vdev = "vdev", device_addr = "device_addr", access = "access", refusal = "refusal",
        dropped = "dropped", name = "name",
    });
    structure!(text, edition, Drained {
        holders = "holders", detached = "detached", waited_ns = "waited_ns",
    });
    text
}

fn include() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("include")
}

/// Whether a program of assertions compiles; what the compiler says otherwise.
fn compile(edition: u32, text: &str) -> Result<(), String> {
    let folder = tempfile::tempdir().unwrap();
    let (source, object) = (folder.path().join("abi.c"), folder.path().join("abi.o"));
    let program = format!("#define QVM_EDITION {edition}\n#include <gasp/guest.h>\n{text}");
    std::fs::write(&source, program).unwrap();
    let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".into());
    let output = Command::new(compiler)
        .args(["-std=c11", "-Wall", "-Wextra", "-Werror", "-pedantic", "-c"])
        .arg("-I")
        .arg(include())
        .arg("-o")
        .args([&object, &source])
        .output()
        .expect("a C compiler: cc, or $CC");
    match output.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

fn check(edition: u32, text: &str) {
    compile(edition, text).unwrap_or_else(|errors| panic!("{errors}"));
}

#[test]
fn structures_are_laid_out_as_the_headers_say() {
    check(800, &structures(800));
    check(710, &structures(710));
    assert_eq!(size_of::<MapHandle>(), 24, "published");
}

#[test]
fn constants_have_the_values_of_the_headers() {
    let mut text = String::new();
    for (name, value) in CONSTANTS {
        writeln!(text, "_Static_assert((uint64_t)({name}) == UINT64_C({value}), \"{name}\");")
            .unwrap();
    }
    check(800, &text);
    check(710, &text);
}

#[test]
fn every_constant_of_ours_in_the_headers_is_compared() {
    let compared: BTreeSet<&str> = CONSTANTS.iter().map(|(name, _)| *name).collect();
    // Published, and nothing here depends on them.
    let names =
        ["GASP_GUEST_OPTIONS_INIT", "GASP_EDITION_710", "GASP_GUEST_H", "GASP_VERSION_STRING"];
    for header in ["qvm/types.h", "qvm/gasp.h", "gasp/guest.h"] {
        let text = std::fs::read_to_string(include().join(header)).unwrap();
        let defined = text.lines().filter_map(|line| line.strip_prefix("#define "));
        for define in defined {
            let name = define.split([' ', '(']).next().unwrap_or_default();
            let ours = ["GASP_", "GMF_", "GRF_", "GWF_", "GWS_", "GRAM_", "QSL_"];
            if ours.iter().any(|prefix| name.starts_with(prefix)) && !names.contains(&name) {
                assert!(compared.contains(name), "{header}: {name} is not compared");
            }
        }
    }
}

#[test]
fn the_headers_have_the_version_of_the_library() {
    let version = env!("CARGO_PKG_VERSION");
    check(
        800,
        &format!("_Static_assert(sizeof(GASP_VERSION_STRING) == {}, \"\");", version.len() + 1),
    );
    let text = std::fs::read_to_string(include().join("gasp/guest.h")).unwrap();
    assert!(text.contains(&format!("#define GASP_VERSION_STRING \"{version}\"")));
    // SAFETY: `gasp_version` returns a static string that ends in a NUL.
    let library = unsafe { std::ffi::CStr::from_ptr(gasp_version()) };
    assert_eq!(library.to_str(), Ok(version));
}

#[test]
fn an_edition_that_is_chosen_too_late_is_an_error() {
    for (first, then) in [(800, 710), (710, 800)] {
        for header in ["qvm/types.h", "qvm/gasp.h", "gasp/guest.h"] {
            let late =
                format!("#undef QVM_EDITION\n#define QVM_EDITION {then}\n#include <{header}>\n");
            let errors = compile(first, &late).unwrap_err();
            assert!(errors.contains("before the first header"), "{errors}");
            check(first, &format!("#include <{header}>\nint nothing;\n"));
        }
    }
}

#[test]
fn the_shared_library_has_no_room_in_its_file_for_what_is_empty() {
    let test = std::env::current_exe().unwrap();
    let library = test.parent().unwrap().join("libgasp_capi.so");
    let output = Command::new("readelf").arg("-SW").arg(library).output().expect("readelf");
    let text = String::from_utf8(output.stdout).unwrap();
    let size = |section: &str| {
        let line = text.lines().find(|line| line.contains(&format!(" {section} "))).unwrap();
        let words: Vec<&str> = line.split(section).nth(1).unwrap().split_whitespace().collect();
        u64::from_str_radix(words[3], 16).unwrap()
    };
    assert!(size(".data") < 64 << 10, "{text}");
    // What is there as it is needed: the lists of objects, and the engine's list of slots.
    assert!((16 << 20..17 << 20).contains(&size(".bss")), "{text}");
}

#[test]
fn prototypes_are_those_of_the_headers() {
    let mut text = [String::new(), String::new()];
    for Function { symbol, edition, prototype } in functions() {
        let name = symbol.strip_suffix("_710").unwrap_or(symbol);
        let assertion = format!(
            "_Static_assert(_Generic(&{name}, {prototype}: 1, default: 0), \"{name}: {prototype}\");\n"
        );
        text[usize::from(edition == 710)] += &assertion;
    }
    check(800, &text[0]);
    check(710, &text[1]);
}

#[test]
fn a_wrong_assertion_is_noticed() {
    let wrong = "_Static_assert(sizeof(gasp_map_handle_t) == 16, \"\");";
    assert!(compile(800, wrong).is_err());
    let wrong = "_Static_assert(_Generic(&gasp_lock, void (*)(int): 1, default: 0), \"\");";
    assert!(compile(800, wrong).is_err());
}

/// The names of the functions that a header declares, as the linker knows them.
fn declared() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for header in ["qvm/types.h", "qvm/gasp.h", "gasp/guest.h"] {
        let text = std::fs::read_to_string(include().join(header)).unwrap();
        let code: String =
            text.split("/*").map(|part| part.split_once("*/").map_or(part, |p| p.1)).collect();
        let code = code.lines().filter(|line| !line.starts_with('#')).collect::<Vec<_>>().join(" ");
        for statement in code.split(';') {
            let Some((head, _)) = statement.split_once('(') else { continue };
            let name = head.rsplit([' ', '*']).next().unwrap_or_default();
            if statement.contains("typedef")
                || !(name.starts_with("gasp_") || name.starts_with("gram_"))
            {
                continue;
            }
            let edition = if statement.contains("GASP_EDITION_710(") { "_710" } else { "" };
            names.insert(format!("{name}{edition}"));
        }
    }
    names
}

#[test]
fn what_is_compared_is_all_that_the_headers_declare() {
    let compared: BTreeSet<String> =
        functions().iter().map(|function| function.symbol.to_owned()).collect();
    assert_eq!(compared, declared());
}

#[test]
fn the_shared_library_exports_what_the_headers_declare_and_nothing_else() {
    let output = nm(&["-D", "--defined-only"], "libgasp_capi.so");
    let exported: BTreeSet<String> = output
        .lines()
        .filter_map(|line| line.split_whitespace().nth(2))
        .map(str::to_owned)
        .collect();
    assert_eq!(exported, declared());
}

#[test]
fn the_archive_has_no_other_names_that_could_be_in_a_program_s_way() {
    let output = nm(&["--defined-only", "--extern-only"], "libgasp_capi.a");
    let declared = declared();
    let strange: BTreeSet<&str> = output
        .lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace().skip(1);
            let kind = words.next()?;
            // Weak ones give way.
            (kind.len() == 1 && !"VWvw".contains(kind)).then(|| words.next()).flatten()
        })
        .filter(|name| !declared.contains(*name))
        // Rust's own names are mangled, and no C program has such.
        .filter(|name| !name.starts_with("_ZN") && !name.starts_with("_R"))
        .filter(|name| !name.starts_with("__r") && *name != "rust_eh_personality")
        // Of compiler-builtins, hidden: they do not meet those of a program.
        .filter(|name| !name.starts_with("__"))
        // Of the engine's code that recovers from faults; hidden as well.
        .filter(|name| !name.starts_with("gasp_guarded_"))
        .collect();
    assert!(strange.is_empty(), "{strange:?}");
}

/// The symbols of a library that cargo has built beside this test.
fn nm(options: &[&str], library: &str) -> String {
    let test = std::env::current_exe().unwrap();
    let library = test.parent().unwrap().join(library);
    assert!(library.exists(), "{} is built with the package's tests", library.display());
    let output = Command::new("nm").args(options).arg(&library).output().expect("nm, of binutils");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// `c_int` and `c_uint` are the 32-bit integers that the comparison takes them for.
const _: () = {
    const fn same<T, U>() -> bool {
        size_of::<T>() == size_of::<U>()
    }
    assert!(same::<c_int, i32>() && same::<c_uint, u32>());
};
