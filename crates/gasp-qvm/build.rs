//! Exports the functions that C calls to the vdevs that the tests load.
fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    for prefix in ["gasp", "gram", "vdev", "guest", "vio", "vq", "vpci", "cdev", "wdog", "qvm"] {
        println!("cargo:rustc-link-arg-tests=-Wl,--export-dynamic-symbol={prefix}_*");
    }
}
