//! Exports the functions that C calls to the vdevs that `vdev` loads.
fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    for prefix in ["gasp", "gram", "vdev", "guest", "vio", "vq", "vpci", "cdev", "wdog", "qvm"] {
        println!("cargo:rustc-link-arg-bin=vdev=-Wl,--export-dynamic-symbol={prefix}_*");
    }
}
