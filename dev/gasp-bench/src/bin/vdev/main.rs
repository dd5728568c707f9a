//! What a vdev in C costs: a read of its register by a guest under KVM, compared with the same
//! device in Rust on the same bus; and `gasp_map_host_contig` in a thread of its own, compared with
//! the same call outside of a vdev.

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod registers;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod setup;

/// The errors of this program, each in words.
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
type Result<T> = core::result::Result<T, Box<dyn std::error::Error>>;

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
fn main() -> std::process::ExitCode {
    use std::io::Write;
    let outcome = setup::Setup::new().and_then(|setup| {
        let registers = registers::measure(&setup)?;
        let [own, outside] = setup.maps()?;
        let mut out = std::io::stdout().lock();
        writeln!(out, "a read of a register by the guest, in nanoseconds (least of all rounds):")?;
        for (name, ns) in registers {
            writeln!(out, "  {name:<34} {ns:>9.1}")?;
        }
        writeln!(out, "gasp_map_host_contig and gasp_unmap_handle, in nanoseconds:")?;
        writeln!(out, "  {:<34} {own:>9}", "in a thread of the vdev")?;
        writeln!(out, "  {:<34} {outside:>9}", "outside of a vdev")?;
        Ok(())
    });
    match outcome {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "error: {error}");
            std::process::ExitCode::FAILURE
        }
    }
}

#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
fn main() {}
