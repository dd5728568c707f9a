//! The cost of a DMA_MAP and a DMA_UNMAP of a known file, in the server and for its client.
//!
//! A client in the same process maps and unmaps pages of one sealed file, one command after
//! another. *In the server* is the time from the first byte read until the reply is ready,
//! including the system calls that receive the rest and inspect the descriptor; *round
//! trip* is the time that the client waits, mostly for the kernel to switch from one thread
//! to the other. Each figure is the best of several rounds, because the machine does other
//! things, too.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a measurement may fail")]

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gasp_vdev::Shell;
use gasp_vdev::dma::DmaEngine;
use gasp_vfio_user::{Options, Server};

#[path = "../tests/support/client.rs"]
#[allow(dead_code, unreachable_pub, reason = "the tests use the rest")]
mod client;

use client::{Client, DMA_MAP, DMA_UNMAP, map_bytes, memfd, unmap_bytes};

const ROUNDS: usize = 20;
const PAGES: u64 = 2_000;
const RAM: u64 = 256 << 20;

fn main() {
    // Run as a test, it only checks that it works.
    let rounds = if std::env::args().any(|arg| arg == "--bench") { ROUNDS } else { 1 };
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("dma.sock");
    let shell = Shell::new("dma", DmaEngine::new()).expect("a device");
    let server = Server::bind(&path, shell, Options::default()).expect("a socket");
    let server = Arc::new(server);
    let running = {
        let server = Arc::clone(&server);
        std::thread::spawn(move || server.run())
    };
    maps(&server, &path, rounds);
    single_window(&path, rounds);
    connections(&path, rounds);
    server.stopper().stop();
    running.join().expect("the server").expect("a clean end");
}

fn maps(server: &Server, path: &Path, rounds: usize) {
    let mut client = Client::connect(path);
    client.hello();
    let ram = memfd(RAM);
    client.map(3, 0, 1 << 40, 0x1000, &ram).expect("the first map, which adopts the file");
    let (mut inside, mut map, mut unmap) = (f64::MAX, f64::MAX, f64::MAX);
    for _ in 0..rounds {
        let before = server.status();
        map = map.min(each(|page| one_map(&mut client, page, &ram)));
        let after = server.status();
        inside = inside.min(micros(after.map_time - before.map_time) / PAGES as f64);
        unmap = unmap.min(each(|page| {
            client.call(DMA_UNMAP, &unmap_bytes(0, page << 12, 0x1000), &[]).expect("an unmap");
        }));
    }
    println!("DMA_MAP of a known file, in the server   {inside:7.2} us");
    println!("DMA_MAP of a known file, round trip      {map:7.2} us");
    println!("DMA_UNMAP of a page, round trip          {unmap:7.2} us");
}

/// Maps and unmaps the only window of a file, again and again: the file is released with
/// each unmap.
fn single_window(path: &Path, rounds: usize) {
    let mut client = Client::connect(path);
    client.hello();
    let ram = memfd(RAM);
    let mut best = f64::MAX;
    for _ in 0..rounds {
        best = best.min(each(|page| {
            one_map(&mut client, page, &ram);
            client.call(DMA_UNMAP, &unmap_bytes(0, page << 12, 0x1000), &[]).expect("an unmap");
        }));
    }
    println!("DMA_MAP and DMA_UNMAP of a file's only window, round trips {best:7.2} us");
    let mut known = f64::MAX;
    client.map(3, 0, 1 << 40, 0x1000, &ram).expect("another window");
    for _ in 0..rounds {
        known = known.min(each(|page| {
            one_map(&mut client, page, &ram);
            client.call(DMA_UNMAP, &unmap_bytes(0, page << 12, 0x1000), &[]).expect("an unmap");
        }));
    }
    println!("the same while another window shows the file               {known:7.2} us");
}

fn one_map(client: &mut Client, page: u64, ram: &OwnedFd) {
    let offset = ((page * 7) % (RAM >> 12)) << 12;
    let map = map_bytes(3, offset, page << 12, 0x1000);
    client.call(DMA_MAP, &map, &[ram.as_fd()]).expect("a map");
}

fn connections(path: &Path, rounds: usize) {
    let mut best = f64::MAX;
    for _ in 0..rounds {
        let since = Instant::now();
        let mut client = Client::connect(path);
        client.hello();
        drop(client);
        best = best.min(micros(since.elapsed()));
    }
    println!("connection, until the device is attached {best:7.2} us");
}

/// Time of one step in microseconds.
fn each(mut step: impl FnMut(u64)) -> f64 {
    let since = Instant::now();
    (0..PAGES).for_each(&mut step);
    micros(since.elapsed()) / PAGES as f64
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}
