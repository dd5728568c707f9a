//! The entropy device.

use gasp::DeviceAddr;
use gasp_virtio::entropy::Entropy;

use crate::driver::{DATA, Driver, IOVA};
use crate::faults::fail;

#[test]
fn each_request_is_filled_with_other_bytes_and_only_that() {
    let mut driver = Driver::attach(Entropy::new());
    driver.start(0, 16);
    // Two buffers, an empty one, across a page.
    let buffers = [(DATA + 4090, 64, true), (DATA + 8192, 0, true), (DATA + 8192, 8000, true)];
    let mut seen = Vec::new();
    for _ in 0..3 {
        driver.bus.store(DATA, &[0; 20_000]).unwrap();
        assert_eq!(driver.run(0, &buffers), 8064);
        let bytes = driver.bytes(DATA, 20_000);
        assert!(bytes[..4090].iter().all(|&byte| byte == 0));
        assert!(bytes[4090 + 64..8192].iter().all(|&byte| byte == 0));
        assert!(bytes[8192 + 8000..].iter().all(|&byte| byte == 0));
        let random = [&bytes[4090..4154], &bytes[8192..16_192]].concat();
        assert!(random.iter().filter(|&&byte| byte == 0).count() < 100, "1 of 256");
        assert!(!seen.contains(&random));
        seen.push(random);
    }
}

#[test]
fn a_request_gets_64_kib_at_most_and_one_without_room_none() {
    let mut driver = Driver::attach(Entropy::new());
    driver.start(0, 16);
    assert_eq!(driver.run(0, &[(DATA, 8 << 20, true)]), 64 << 10);
    assert_eq!(driver.run(0, &[(DATA, 16, false)]), 0);
    assert_eq!(driver.run(0, &[(DATA, 0, true)]), 0);
}

#[test]
fn what_the_iommu_refuses_is_not_written_and_recorded() {
    let mut driver = Driver::attach(Entropy::new());
    driver.start(0, 16);
    driver.revoke(DATA + 8192);
    assert_eq!(driver.run(0, &[(DATA + 4096, 4096, true), (DATA + 8192, 4096, true)]), 4096);
    let faults = driver.bus.guest().take_faults();
    assert_eq!(faults.records[0].addr, DeviceAddr(IOVA + DATA + 8192));
    driver.grant(DATA + 8192, gasp::Access::READ);
    assert_eq!(driver.run(0, &[(DATA + 8192, 4096, true)]), 0);
    assert_eq!(driver.status(), 15, "the device goes on");
}

#[test]
fn a_kernel_without_random_bytes_gives_none() {
    fail(libc::SYS_getrandom, libc::ENOSYS);
    let mut driver = Driver::attach(Entropy::new());
    driver.start(0, 16);
    assert_eq!(driver.run(0, &[(DATA, 64, true)]), 0);
    assert_eq!((driver.bytes(DATA, 64), driver.status()), (vec![0; 64], 15));
}
