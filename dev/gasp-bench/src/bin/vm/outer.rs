//! The emulated machine, and the script that starts one guest after another in it.

use std::time::Duration;

use gasp_testbed::{Initramfs, Line, Testbed, Vm};

use crate::contest::Contestant;
use crate::programs::Programs;
use crate::{Args, Result};

/// The time limit of a guest, for a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// What every guest does, by a word of its command line.
const INNER: &str = "
echo inside: up
if grep -q measure /proc/cmdline; then
    until [ -b /dev/nvme0n1 ]; do sleep 0.1; done
    disk-rounds /dev/nvme0n1
fi";

/// The disk's bytes are there, so that no write allocates. `resident` prints the memory of the
/// process `$1` as it was last seen, but for the guest's RAM, which is a memfd. A program that is in
/// an initramfs is resident in the same way as one that is on a disk.
const PREPARE: &str = "
dd if=/dev/urandom of=/tmp/disk bs=1M count=64 2> /dev/null
resident() {
    while kill -0 $1 2> /dev/null; do
        awk '/^[0-9a-f]+-/ { ram = /memfd:/ }
            /^Rss:/ && !ram { sum += $2 }
            END { if (sum) print sum }' /proc/$1/smaps > /tmp/now 2> /dev/null || true
        if [ -s /tmp/now ]; then mv /tmp/now /tmp/rss; fi
        sleep 3
    done
    sed 's/^/resident: /' /tmp/rss
}
";

/// Runs the guests, and returns the lines of the console.
pub(crate) fn run(
    testbed: &Testbed,
    programs: &Programs,
    guests: &[Contestant],
    args: &Args,
) -> Result<Vec<Line>> {
    let inner = Initramfs::new(testbed).program(&programs.rounds).script(INNER).build()?;
    let mut script = PREPARE.to_string();
    let (mut began, mut starts) = (Vec::new(), 0);
    for _ in 0..args.times {
        for guest in guests {
            script.push_str(&start(guest, args));
            began.push(guest.name);
            starts += 1;
        }
    }
    let outer = Initramfs::new(testbed)
        .module("kvm")
        .module("kvm-amd")
        .program(&programs.gasp)
        .qemu()
        .file("/vmlinux", std::fs::read(testbed.vmlinux())?)
        .file("/initrd", inner)
        .script(&script);
    let limit = PATIENCE * (starts + 1);
    let vm = Vm::linux(testbed, outer).memory(2 << 30).cpus(2).limit(limit);
    let vm = if args.console { vm.echo() } else { vm }.start()?;
    for (index, name) in began.iter().enumerate() {
        vm.wait_for("begin: ", PATIENCE)?;
        eprintln!("{} of {starts}: {name}", index + 1);
    }
    Ok(vm.finish(PATIENCE)?)
}

/// The lines of the script for a guest.
fn start(guest: &Contestant, args: &Args) -> String {
    let command = match args.append.as_str() {
        "" => guest.command.clone(),
        words => guest.command.replacen("panic=-1", &format!("panic=-1 {words}"), 1),
    };
    let (serve, end) = match guest.server {
        None => (String::new(), ""),
        Some(server) => {
            let serve = format!(
                "{server} > /dev/null 2>&1 & server=$!\nuntil [ -S /tmp/s ]; do sleep 0.1; done\n"
            );
            (serve, "kill $server; wait $server || true\n")
        }
    };
    let json = if guest.command.starts_with("gasp") {
        "grep totals /tmp/json | sed 's/^/json: /'\n"
    } else {
        ""
    };
    format!(
        "rm -f /tmp/rss; touch /tmp/rss\n{serve}echo 'begin: {name}'\n\
         {command} < /dev/null & guest=$!\nresident $guest\n\
         wait $guest || echo \"failed: {name}: $?\"\necho 'end: {name}'\n{end}{json}",
        name = guest.name
    )
}
