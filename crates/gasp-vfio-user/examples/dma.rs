//! A DMA engine on a socket, until the process is killed.
//!
//! ```text
//! cargo run -p gasp-vfio-user --example dma -- /tmp/dma.sock
//! qemu-system-x86_64 … -object memory-backend-memfd,id=m0,size=256M,share=on \
//!     -M q35,memory-backend=m0 \
//!     -device '{"driver":"vfio-user-pci","socket":{"type":"unix","path":"/tmp/dma.sock"}}'
//! ```

use gasp_vdev::Shell;
use gasp_vdev::devices::dma::DmaEngine;
use gasp_vfio_user::{Options, Server};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args().nth(1).ok_or("the path of a socket is needed")?;
    let server = Server::bind(path, Shell::new("dma0", DmaEngine::new())?, Options::default())?;
    server.observe(|happened| println!("{happened:?}"));
    println!("listens on {}", server.path().display());
    Ok(server.run()?)
}
