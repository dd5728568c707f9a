//! The example does what it says.

#[path = "../examples/block.rs"]
mod block;

#[test]
fn the_block_device_serves_its_requests() -> Result<(), Box<dyn std::error::Error>> {
    block::main()
}
