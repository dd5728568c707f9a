//! Serves a DMA engine on a socket until SIGINT, SIGTERM or SIGHUP. The socket is then
//! removed; a second signal does not wait for the device.
//!
//! ```text
//! cargo run -p gasp-vfio-user --example dma -- /tmp/dma.sock
//! qemu-system-x86_64 … -object memory-backend-memfd,id=m0,size=256M,share=on \
//!     -M q35,memory-backend=m0 \
//!     -device '{"driver":"vfio-user-pci","socket":{"type":"unix","path":"/tmp/dma.sock"}}'
//! ```

use std::error::Error;
use std::io::Write;
use std::process::ExitCode;
use std::thread;

use gasp_vdev::Shell;
use gasp_vdev::dma::DmaEngine;
use gasp_vfio_user::{Options, Server};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

fn main() -> ExitCode {
    match serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve() -> Result<(), Box<dyn Error>> {
    let path = std::env::args_os().nth(1).ok_or("expected the path of the socket to create")?;
    let server = Server::bind(path, Shell::new("dma0", DmaEngine::new())?, Options::default())?;
    let stopper = server.stopper();
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP])?;
    thread::spawn(move || {
        for (so_far, _) in signals.forever().enumerate() {
            if so_far > 0 {
                std::process::exit(130);
            }
            stopper.stop();
        }
    });
    server.observe(|event| say(&format!("{event:?}")));
    say(&format!("listens on {}", server.path().display()));
    server.run()?;
    say("stopped");
    // The socket is removed with the server.
    Ok(())
}

/// `println!` would panic when nobody reads the output; the device must go on.
fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}
