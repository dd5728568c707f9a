//! Throughput without a VMM: ignored unless requested, with `cargo test --release --test nvme --
//! --ignored --nocapture`.

use std::time::{Duration, Instant};

use gasp_nvme::{Backing, Options};

use crate::driver::{Command, DATA, LISTS, Noise, Rig};

const DEPTH: u32 = 128;

fn measure(what: &str, backing: &Backing, opcode: u8, len: u64) {
    let mut rig = Rig::attached(backing, Options::default());
    rig.enable();
    let mut pair = rig.make_pair(1, DEPTH * 2);
    // Write everything once.
    let most = 512 << 10;
    for first in (0..(64 << 20) / most).map(|at| at * most / 512) {
        let prps = rig.prps(DATA, most, LISTS);
        assert_eq!(rig.run(&mut pair, Command::blocks(1, first, 1024, prps)).status, 0);
    }
    let mut noise = Noise(9);
    let prps: Vec<_> =
        (0..8).map(|at| rig.prps(DATA + at * most, len, LISTS + at * 4096)).collect();
    let blocks = len / 512;
    let mut put = |pair: &mut _, count: u64| {
        for _ in 0..count {
            let prps = prps[noise.below(8) as usize];
            let first = noise.below((64 << 20) / len) * blocks;
            rig.put(pair, Command::blocks(opcode, first, blocks as u32, prps));
        }
        rig.ring(pair);
    };
    let before = rig.counters.snapshot();
    let (since, mut done) = (Instant::now(), 0_u64);
    put(&mut pair, DEPTH.into());
    while since.elapsed() < Duration::from_secs(1) {
        let mut taken = 0;
        while let Some(completion) = rig.take(&mut pair) {
            assert_eq!(completion.status, 0);
            taken += 1;
        }
        if taken == 0 {
            core::hint::spin_loop();
            continue;
        }
        done += taken;
        rig.ring_head(&pair);
        put(&mut pair, taken);
    }
    let seconds = since.elapsed().as_secs_f64();
    let interrupts = rig.counters.snapshot().interrupts - before.interrupts;
    println!(
        "{what:18} {:4} KiB: {:9.0} IOPS {:6.2} GB/s, {:.1} commands an interrupt",
        len >> 10,
        done as f64 / seconds,
        (done * len) as f64 / seconds / 1e9,
        done as f64 / interrupts.max(1) as f64,
    );
}

#[test]
#[ignore = "measures; prints its figures"]
fn throughput() {
    let file = std::env::temp_dir().join(format!("gasp-nvme-speed-{}", std::process::id()));
    std::fs::File::create(&file).unwrap().set_len(64 << 20).unwrap();
    for len in [4 << 10, 64 << 10, 512 << 10] {
        for (name, opcode) in [("read", 2), ("write", 1)] {
            measure(&format!("memory {name}"), &Backing::memory(64 << 20), opcode, len);
            measure(&format!("file {name}"), &Backing::file(&file), opcode, len);
            measure(&format!("null {name}"), &Backing::null(64 << 20), opcode, len);
        }
    }
    std::fs::remove_file(&file).unwrap();
}
