//! A driver that sends garbage: whatever it does, the device answers or reports that it has failed,
//! and works again after a reset.

use gasp_nvme::{Backing, Options};

use crate::driver::{Command, DATA, LISTS, Noise, Pair, RAM, Rig, until};

const COMMANDS: u64 = 100_000;

/// Addresses that are nearly valid, more often than random ones.
fn address(noise: &mut Noise) -> u64 {
    let page = noise.below(RAM / 4096 + 4) * 4096;
    match noise.below(8) {
        0 => noise.next(),
        1 => !0xfff,
        2 => page + noise.below(1024) * 4,
        3 => LISTS + noise.below(512) * 8,
        // Rarely the driver's own memory.
        4 => page + noise.below(4096),
        _ => DATA + noise.below(1024) * 4096,
    }
}

fn command(noise: &mut Noise, admin: bool) -> Command {
    let mut command = Command::default();
    if noise.below(8) == 0 {
        command.0.iter_mut().for_each(|word| *word = noise.next() as u32);
        return command;
    }
    let opcode = noise.below(if admin { 0x10 } else { 0x0a }) as u32;
    command = command.word(0, opcode).word(1, noise.below(8).min(1) as u32);
    command = command.prps((address(noise), address(noise)));
    for word in 10..16 {
        let value = match noise.below(16) {
            0 => noise.next(),
            1..4 => noise.below(12) | noise.below(12) << 16,
            4..8 => noise.below(1024),
            8..10 => noise.below(12),
            _ => 0,
        };
        command = command.word(word, value as u32);
    }
    command
}

/// Reads may overwrite the driver's own queues: the driver resets the controller often enough.
#[test]
fn random_commands_never_panic_or_hang() {
    let mut rig = Rig::attached(&Backing::memory(1 << 20), Options::default());
    let mut noise = Noise(7);
    let (mut sent, mut starts) = (0, 0);
    while sent < COMMANDS {
        starts += 1;
        rig.disable();
        // PRP lists of random addresses.
        let list: Vec<u8> = (0..1024).flat_map(|_| address(&mut noise).to_le_bytes()).collect();
        rig.ram.write_at(LISTS, &list).unwrap();
        rig.enable();
        let mut pairs = vec![rig.admin.clone()];
        for id in [1, 2] {
            pairs.push(rig.make_pair(id, 16));
        }
        pairs[0] = rig.admin.clone();
        // The controller is reset often, so that a lost queue costs little.
        for _ in 0..20 {
            let pair = &mut pairs[noise.below(3) as usize];
            let batch = 1 + noise.below(15);
            for _ in 0..batch {
                rig.put(pair, command(&mut noise, pair.id == 0));
            }
            rig.ring(pair);
            sent += batch;
            if noise.below(16) == 0 {
                rig.write32(0x1000 + 4 * noise.below(40) as u32 as u64, noise.next() as u32);
            }
            settle(&rig, pair);
        }
    }
    let counters = rig.counters.snapshot();
    println!("{sent} commands sent, {starts} starts, {counters:?}");
    assert!(counters.errors > COMMANDS / 4 && counters.admin > COMMANDS / 8);
    assert!(counters.reads > 200 && counters.writes > 200 && counters.zeroes > 200);
    rig.shell.reset();
    rig.shell.config_write(4, &[6, 0]).unwrap();
    rig.enable();
    let mut pair = rig.make_pair(1, 16);
    assert_eq!(rig.run(&mut pair, Command::blocks(2, 0, 1, (DATA, 0))).status, 0);
}

/// Consumes the completions that come in a while; a command can wait for ever (an event request),
/// and a queue can be gone.
fn settle(rig: &Rig, pair: &mut Pair) {
    for _ in 0..200 {
        while rig.take(pair).is_some() {}
        if pair.head == pair.tail {
            break;
        }
        std::thread::yield_now();
    }
    rig.ring_head(pair);
}

#[test]
fn random_registers_never_panic_or_hang() {
    let mut rig = Rig::attached(&Backing::null(1 << 20), Options::default());
    let mut noise = Noise(8);
    for _ in 0..100_000 {
        let mut bytes = noise.next().to_le_bytes();
        let len = 1 + noise.below(8) as usize;
        let offset = match noise.below(3) {
            0 => noise.below(0x4000 - 8),
            1 => noise.below(0x40),
            _ => 0x1000 + noise.below(0x60),
        };
        match noise.below(3) {
            0 => rig.shell.bar_read(0, offset, &mut bytes[..len]).unwrap(),
            _ => rig.shell.bar_write(0, offset, &bytes[..len]).unwrap(),
        }
    }
    rig.shell.reset();
    rig.shell.config_write(4, &[6, 0]).unwrap();
    until(|| (rig.read32(0x1c) == 0).then_some(()));
    rig.enable();
    rig.make_pair(1, 16);
}
