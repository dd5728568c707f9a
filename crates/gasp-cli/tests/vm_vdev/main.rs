//! Vdevs in C in front of kernels of a few instructions, run by `gasp vm` on this machine's own KVM.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod code;
mod ends;
#[path = "../support/flat.rs"]
mod flat;
mod function;
mod interrupts;
mod places;
mod registers;

use std::process::{Command, Output};

use flat::Fixture;

fn main() {
    flat::run(&[
        ("a_vdev_answers_its_register_at_its_place", registers::trace),
        ("a_vdev_is_accessed_in_each_width_in_memory_and_at_ports", registers::widths),
        ("regions_that_a_vdev_makes_are_dispatched_as_they_change", registers::own_regions),
        ("a_vdev_maps_what_the_iommu_of_the_configuration_allows", registers::maps),
        ("a_guest_that_resets_itself_has_fresh_vdevs", registers::reset),
        ("an_interrupt_stays_up_until_the_vdev_lowers_it", interrupts::level),
        ("a_message_of_a_vdev_is_an_interrupt", interrupts::message),
        ("a_place_and_a_line_are_given_if_none_is_named", places::given),
        ("what_is_taken_is_an_error_that_names_both", places::taken),
        ("what_a_vdev_refuses_stops_the_start_with_its_line", places::refused),
        ("a_dry_run_creates_and_places_the_vdevs", places::dry_run),
        ("the_guest_finds_vdevs_in_its_tables", places::tables),
        ("a_vdev_ends_the_guest_with_a_status_of_its_own", ends::ends),
        ("signals_reach_vdevs", ends::signals),
        ("a_vdev_is_a_pci_function_with_its_registers_in_a_bar", function::bar),
        ("a_vdev_on_the_pci_bus_ends_the_guest_or_refuses", function::ends),
        ("the_terminal_is_restored_after_a_fatal_error", ends::terminal),
    ]);
}

/// Compiles a vdev into the folder of a fixture.
fn compile(fixture: &Fixture, source: &str, name: &str, defines: &[&str]) {
    let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".into());
    let output = Command::new(compiler)
        .args(["-std=gnu11", "-Wall", "-Wextra", "-Werror", "-g", "-shared", "-fPIC"])
        .arg(format!("-DNAME=\"{name}\""))
        .args(defines)
        .args(["-I", concat!(env!("CARGO_MANIFEST_DIR"), "/../gasp-capi/include"), "-o"])
        .arg(fixture.path(&format!("vdev-{name}.so")))
        .arg(source)
        .output()
        .expect("a C compiler: cc, or $CC");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

const PROBE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vm_vdev/probe.c");
const TRACE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/vdev/vdev-trace.c");

/// A folder with a kernel and the vdev `probe`.
fn with_probe(code: &[u8]) -> Fixture {
    let fixture = Fixture::new(&[code]);
    compile(&fixture, PROBE, "probe", &[]);
    fixture
}

/// Runs the kernel with these lines of the configuration, from its third on, and further arguments.
fn run(fixture: &Fixture, lines: &str, more: &[&str]) -> Output {
    std::fs::write(fixture.path("a.qvmconf"), format!("ram 16M\nload kernel\n{lines}\n")).unwrap();
    let args = ["-v", "a.qvmconf", "--vdev-path", ".", "--json", "events"];
    let args: Vec<&str> = args.iter().chain(more).copied().collect();
    flat::finish(fixture.command(&args).spawn().unwrap())
}

/// The exit status, stdout as bytes, and stderr.
fn parts(output: &Output) -> (Option<i32>, &[u8], String) {
    (output.status.code(), &output.stdout, flat::text(&output.stderr))
}
