//! Exports the functions that C calls to the vdevs that `gasp` loads.
fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    for prefix in ["gasp", "gram", "vdev", "guest", "vio", "vq", "vpci", "cdev", "wdog", "qvm"] {
        println!("cargo:rustc-link-arg-bins=-Wl,--export-dynamic-symbol={prefix}_*");
    }
}
