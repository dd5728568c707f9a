//! Help texts: examples, descriptions, the fields of `--json`, the exit status.

/// The beginning of a text, the file of a guest, and the rest.
macro_rules! with_guest_file {
    ($before:literal, $after:literal) => {
        concat!(
            $before,
            "

The file describes a guest, in TOML. This one has RAM, and a device that reaches all of it:
  [[ram]]
  size = \"1G\"
  [[vdev]]
  name = \"disk\"

The same in the configuration language of qvm, in a file with the extension qvmconf:
  ram 1G
  vdev virtio-blk name disk

The source tree has a file for each feature, in examples/guest; the documentation of the Rust
module gasp::config describes all keys, and docs/configuration.md the language of qvm.

",
            $after
        )
    };
}

pub(super) const GASP: &str = "\
Examples:
  gasp demo
  gasp probe
  gasp layout --config guest.toml --svg guest.svg
  gasp serve --device nvme,backing=null:64M --socket /tmp/disk.sock

With --json, errors are JSON on stdout, including wrong usage: an object `error` with `errno`
(its name), `reason` and `message`. Those of `vm`, whose stdout is the console, are not.

Exit status:
  0  success, also if the reader of the output has closed it
  1  refused by the guest's IOMMU, its memory or this machine; or the output cannot be
     written
  2  wrong usage or a wrong configuration";

pub(super) const DEMO: &str = "\
Examples:
  gasp demo
  gasp demo --ram 64M --json | jq .runs[0]

Fields of --json (lengths and addresses are integers, in bytes):
  ram_bytes           size of the guest's RAM
  backing             kind of its pages: 1G, 2M, thp or 4K
  backing_note        a remark on them, or null
  passed_over         backings that were tried and unavailable, each with `backing` and `why`
  stability           whether host-physical addresses can change: pinned, reserved, unpinned
  not_pinned_because  why the pages are not pinned, or null
  runs                all of RAM, in order: `guest`, `host` (null: not disclosed), `len`
  maps                the successful maps: `device`, `what`, `access`, `addr`, `len`, `host`,
                      `verified`
  refused             the map that the guest's IOMMU refused: `device`, `addr`, `len`,
                      `access`, `errno`, `reason`
  faults              fault records left for the guest: `device`, `addr`, `access`, `reason`
  rom_write           the write that ROM refused, with the fields of `refused`
  shortened           a host-contiguous map that may return less than requested: `addr`,
                      `asked`, `got` (null: not disclosed; `asked`: RAM is one run there)
  drain               the revoke that waited: `held_ns`, `waited_ns`, `holders`,
                      `completed`; `meanwhile`: `errno` and `took_ns` of a new map
  verified            whether the bytes written through each mapping were read back through
                      a second, independent mapping of the same memory
  notes               what this machine does not permit, and what would allow it

Exit status:
  0  success, even if the machine does not permit everything
  1  the guest cannot be created, or the bytes differ
  2  wrong usage";

pub(super) const PROBE: &str = "\
Examples:
  gasp probe
  gasp probe --json | jq '.checks[] | select(.verdict != \"yes\")'

Fields of --json:
  checks   one object per check: `name`, `verdict` (yes, limited or no), `detail`, and
           `remedy` (null if there is none)

Exit status:
  0  all checks have run, whatever their verdicts
  2  wrong usage";

pub(super) const MAP: &str = with_guest_file!(
    "\
Examples:
  gasp map --config guest.toml --vdev disk --addr 0x100000 --len 2M --access rw
  gasp map --config guest.toml --vdev disk --addr 1M --len 64K --access r --hold 60 --json",
    "\
Fields of --json (lengths and addresses are integers, in bytes):
  pid, vaddr, host, len, stability
           on a line of its own that comes first, with --hold only: the host-contiguous
           mapping at --addr that is held; `host` is null if it is not disclosed
  vdev, addr, len, access, stability
           the map; `stability` is that of its least stable piece
  first    the host-contiguous run at --addr: `host` and `len`, or null
  runs     all of the map, in order: `device`, `guest`, `host` (null: not disclosed), `len`
  error    instead of all these, if the map is refused: `errno`, `reason`, `message`

Exit status:
  0  mapped
  1  refused
  2  wrong usage or a wrong configuration"
);

pub(super) const AUDIT: &str = with_guest_file!(
    "\
Examples:
  gasp audit --config guest.toml
  gasp audit --config guest.toml --every 5 --for 3600 --json

Creates the guest, then reads the frame numbers of its memory again and compares: once, or
with --every and --for periodically. Memory of the class pinned or reserved must not move;
unpinned memory may.",
    "\
Fields of --json, one object per line and round (lengths in bytes):
  round      1, 2, 3, …
  checked    memory whose addresses were read again
  unchecked  memory without known addresses: on demand, or pass-through
  took_us    duration of the round, in microseconds
  broken     memory that has moved against its class
  moved      memory that has moved and is unpinned
  changes    memory that has moved: `object`, `offset`, `len`, `class`, `was`, `is` (null:
             not in memory), `broken`

Exit status:
  0  no memory has moved against its class
  1  some has, or frame numbers can no longer be read
  2  wrong usage or a wrong configuration, or frame numbers cannot be read at all"
);

pub(super) const BROKER: &str = "\
Examples:
  gasp broker --socket /run/gasp/frames --user gasp
  gasp broker --socket /run/gasp/tokens --tokens --user gasp --redeem-user nic

Runs as root. Each process that connects receives a descriptor of its own page map, which
discloses the host-physical addresses of its own memory and nothing else. It needs no
privilege for that, but only root and the users given by --user may ask.

A client has this in its guest's configuration:
  [guest]
  frame-broker = \"/run/gasp/frames\"

With --tokens, no addresses are disclosed. A process that may ask receives a token, 16 random
bytes, for each host-contiguous run of its own writable memory. It passes the tokens to a
process of a --redeem-user, of root or of the broker's own user. That process receives the
address of the run, if the run has not moved since: ESTALE if it has, ESRCH if its process
has ended, EAGAIN if a page is not in memory, ENOENT if the connection of the token has
ended. A token does not pin pages: whoever programs hardware with the address must trust the
sender to keep them pinned, or pin them itself. A process can have 65,536 tokens, a user four
times as many and 64 connections.

Exit status:
  0  ended by SIGINT or SIGTERM
  1  the socket cannot be created, or the broker cannot read frame numbers itself
  2  wrong usage";

pub(super) const LAYOUT: &str = with_guest_file!(
    "\
Examples:
  gasp layout --config guest.toml --svg guest.svg
  gasp layout --config guest.toml --svg - | rsvg-convert > guest.png
  gasp layout --vm /tmp/vm.sock --svg guest.svg      # of a gasp vm --status /tmp/vm.sock",
    "\
Exit status:
  0  drawn
  1  the picture cannot be written, or the VM does not answer
  2  wrong usage or a wrong configuration"
);

pub(super) const SERVE: &str = "\
Examples:
  gasp serve --device nvme,backing=null:64M --socket /tmp/disk.sock
  gasp serve --device nvme,backing=file:disk.img,queues=2 --socket /tmp/disk.sock --json
  gasp serve --device virtio-blk,backing=file:disk.img --socket /tmp/disk.sock
  gasp serve --device vdev,name=trace,option=period=50 --vdev-path . --socket /tmp/trace.sock
  gasp serve --config examples/serve/nvme.toml

Prints the arguments with which QEMU attaches the devices. VMMs may come and go, one at a time
per device; a device keeps the data that it stores.

Migration is not supported, but QEMU (11.1) reports one as completed all the same. A device
that cannot be migrated makes QEMU refuse:
  -object memory-backend-memfd,id=stay,size=1M,share=on
  -device ivshmem-plain,memdev=stay,master=off

A vdev is a virtual device in C, whose source includes <qvm/vdev-core.h>. Its file is searched in
the folders of --vdev-path, and then as the dynamic loader does. Its registers are BAR 0, its
interrupt is the pin and MSI-X; one that is a PCI device itself (virtio, say) describes its BARs.
Each VMM has an instance of its own, and so has each reset. A vdev that fails or does not start
reads as ones until then; one that calls qvm_fatal() outside of control() ends the process.

SIGINT and SIGTERM disconnect all VMMs, remove the sockets and end the process; a second one
ends it at once. SIGUSR2 reports the state of each vdev. SIGHUP reads the file again: new devices are added, devices that are no
longer listed are removed even if a VMM is attached, and all others keep their connections. A
device is identified by its socket: if its keys have changed it is replaced, unless a VMM is
attached; then it stays as it is until the next SIGHUP. A configuration that is wrong, or
whose new devices cannot be created, is reported and changes nothing. A closed pipe or
terminal or a full disk does not end the process: reports that cannot be written are dropped
and counted.

Values of --residency:
  pinned      all of the guest's memory is pinned from the first map on; host-physical
              addresses are known, and disclosed to a device if its VMM is trusted not to
              replace the memory (see `unsealed`)
  on-demand   memory is allocated as the guest uses it, at no cost; host-physical addresses
              are not known

The file has a [[device]] table for each device, with the keys that --device takes, too:
  kind        nvme or virtio-blk (disks), virtio-rng (random bytes), vdev (a device in C), or
              dma (an engine that copies, for tests)
  socket      path of the socket; relative paths start at the file's directory
  backing     disks only: null:SIZE (stores nothing, reads zeros), mem:SIZE (keeps its data
              until the process ends) or file:PATH (a file or a block device)
  block-size  disks only: 512 or 4096
  queues      nvme only: the most I/O queue pairs, 1 to 128
  serial      disks only: the serial number; by default derived from the path of the file, or
              of the socket if there is no file
  vdev        vdev only: its type, for which vdev-TYPE.so is searched; by default the name
  path        vdev only: its file, instead of a search
  options     vdev only: a list, each OPTION or OPTION=ARGUMENT; --device takes `option`, as
              often as needed
  loc         vdev only: where it takes itself to be, as in `mem:0xfa000000`; by default it is
              assigned a place
  mode        permissions of the socket, by default 0o600
  name        name of the device in reports, by default its kind and number
  unsealed    what to do with guest memory that its VMM can take away and that cannot be
              sealed: message (the default: copy it by messages, which is slow), trust (map
              it all the same: a VMM that truncates it ends this process) or refuse
  max-memory, max-dma-maps, max-descriptors, max-drains
              the most that a VMM may hold: bytes of memory files (by default 4T), DMA
              windows (65535), descriptors (512, or less if this process may have few), and
              unmaps that wait (1024)

Fields of --json, one object per line; `at` is in seconds since the start, lengths and
addresses are integers, in bytes:
  at, device, event  in all objects; `device` is null if all devices are concerned; the other
               fields depend on `event`:
  listening    `kind`, `socket`; `qemu`: the arguments to attach
  attached     `pid`: the VMM's process, or null
  detached     `why`
  adopted      `bytes`: a file of guest memory was mapped; reported at most once a second
  by-message   guest memory can be taken away: see `unsealed`
  not-shared   guest memory is not shared with the device (QEMU: share=off): `bytes`,
               `seen` (false: only likely)
  totals, stopped
               `pid`, `connections`, `maps`, `unmaps`; `windows`, `window_bytes` and
               `files`: the DMA windows of the VMM now, and the files behind them;
               `by_message_bytes`: how much of `window_bytes` is not mapped but copied by
               messages; `drains` (unmaps that had to wait), `draining` (unmaps that wait
               now), `faults` (accesses that the guest's IOMMU refused), `commands`,
               `refused`, `message_bytes`, `untold` (events dropped because there were too
               many); `failed`: whether it is a vdev that reads as ones; `counters`: the
               device's own counters
  drained      an unmap that took long: `addr`, `len`, `waited_ns`, `detached`
  faults       `count` since the last report; `first`: `addr`, `access`, `reason`
  reset        the device was reset
  refused      a command of the VMM: `command`, `errno`, `why`
  turned-away  a client that was rejected: `why`
  in-use       a client that was rejected because another is attached: `pid`, `by`, `seconds`
  omitted      `reports` that were dropped because a client caused too many
  failed       the device has failed, the others are still served: `why`
  vdev-failed  a vdev reads as ones until a reset or the next VMM: `why`
  status       after SIGUSR2, for each line that a vdev reports: `text`
  reloaded     after SIGHUP: `added`, `removed`, `replaced`; `kept` (changed, but in use);
               `failed` (messages about devices that could not be created)
  reload-failed
               the new configuration is not used: `why`
  unwritten    `count` of reports that could not be written, since the last of these events

Exit status:
  0  ended by a signal; 130 if that took a second signal or 10 seconds
  1  a socket is in use or cannot be created, a disk cannot be opened, a vdev does not start,
     or all devices failed
  2  wrong usage or a wrong configuration
  65, 96  qvm_fatal() of a vdev, about its configuration or otherwise";

pub(super) const VM: &str = "\
Examples:
  gasp vm --kernel vmlinux --initrd initrd.img --ram 1G --disk disk.img
  gasp vm --kernel vmlinux --disk a.img --cmdline 'console=ttyS0 intel_iommu=on'
  gasp vm guest.qvmconf
  gasp vm @guest.qvmconf cmdline 'console=ttyS0 quiet'

Boots a kernel on KVM, on x86-64, with its serial port on stdin and stdout. A terminal is in raw
mode meanwhile: Ctrl-A x ends the VM, and Ctrl-A Ctrl-A is one Ctrl-A.

Disks and other devices are in this process. What they move goes through maps that the guest's
IOMMU checks: a VT-d, which Linux enables with `intel_iommu=on` on its command line (and uses in
strict mode with `iommu.strict=1`). Until then, and with --iommu off, devices reach all of the
guest's memory.

Values of --disk, --net and --iommu:
  --disk PATH      an NVMe disk; the image is a file or a block device
  --disk virtio-blk:PATH
                   a virtio disk; with `,readonly` at the end the guest cannot write it
  --net tap:NAME   a virtio network device at a tap interface
  --net unix:OWN:PEER
                   the same at a datagram socket OWN, connected to PEER: a frame a message
  --iommu vtd, --iommu off
                   the guest's IOMMU, or none
In the place of PATH, null:SIZE is a disk that stores nothing, and mem:SIZE one whose data ends
with the VM.

A configuration file has the devices by type, each with its options; PCI devices can have a
`loc pci:0:DEVICE`:
  nvme             hostdev PATH, serial TEXT, block-size 512|4096, queues NUMBER
  virtio-blk       (or disk) hostdev PATH, serial TEXT, block-size 512|4096, readonly
  virtio-net       tap NAME, or socket OWN:PEER; mac ADDRESS
  virtio-console   hostdev PATH: a terminal, such as /dev/pts/4
  virtio-entropy   none
  ser8250          the serial port, which is there anyway
  iommu            the VT-d; without it there is none
Any other type is a vdev in C: vdev-TYPE.so in a folder of --vdev-path, or where the dynamic loader
finds it. It can have its own options, a `loc mem:ADDRESS`, `loc io:PORT` or `loc pci:0:DEVICE`, and
unless it is on the PCI bus an `intr ioapic:LINE` and `hid ID`: the identifier by which the guest
finds its driver, such as PNP0501.

SIGINT, SIGTERM, SIGHUP and SIGQUIT are the power button; a second one ends the VM at once.
SIGUSR1 prints counters to stderr: exits by reason; misses and invalidations of the IOMMU, and
held mappings, by device; so does gasp status at the socket of --status, and gasp layout draws.
SIGUSR2 prints what the vdevs in C report of themselves. A vdev that has asked for the power button
has it in the place of the guest. A reset starts the guest anew, on the same disks; --reset end ends the command.

Fields of --json, one object per line; `at` is in seconds since the start, lengths and
addresses are integers, in bytes:
  at, event    in all objects; the other fields depend on `event`:
  started      `name`, `kernel`, `ram_bytes`, `cpus`, `iommu`; `devices`: `name`, `type`, `at`
               (the PCI function, or mem:ADDRESS, io:PORT)
  totals       counters since the start, once a second while they change: `exits` to this
               process: `port`, `mmio`, `interrupted`, `other`; `devices`: `name`, `at`,
               `held` (mappings, now); `iommu`: `misses`, `evictions`, `invalidations`,
               `entries` (of its table, now), or null;
               `nvme`: `reads`, `read_bytes`, `writes`, `written_bytes`, `errors`, or null
  fault        an access that the guest's IOMMU refused: `device`, `addr`, `access`, `reason`
  faults-dropped
               `count` of faults that were not reported, because there were too many
  power-button the power button was pressed
  vdev-status  what a vdev in C reports at SIGUSR2: `vdev`, `text`
  reset        the guest starts anew
  ended        `status`: the exit status; `why`: the end, or the error, which is on stderr as well

Exit status:
  0    the guest has powered off
  1    no KVM, or a kernel, disk or device is unavailable, or a vdev in C refuses to start
  2    wrong usage or a wrong configuration
  3    the guest has reset itself, with --reset end
  4    the guest cannot go on: a triple fault, or KVM has failed
  3 to 7, 32 to 63
       a vdev in C has ended the guest with this cause (guest_terminate); 6 also if one of its
       functions has returned nonsense, and 0 for the cause 1
  96   a fatal error of a vdev in C, while the guest runs
  130  ended at once: by a second signal, or by Ctrl-A x";

pub(super) const STATUS: &str = "\
Examples:
  gasp vm --status /tmp/vm.sock --kernel vmlinux --disk disk.img
  gasp status /tmp/vm.sock
  gasp status /tmp/vm.sock --every 1

Shows exits to the VM's process by reason, and for each device: misses and invalidations of the
guest's IOMMU, and the mappings that it holds. Rates are since the time before, or the start.

Fields of --json: `name`, `seconds` (since the start), `exits`, `devices`, as in the event `totals`
of gasp vm --json.

Exit status:
  0  shown; with --every, the VM has ended
  1  the VM does not answer
  2  wrong usage";

pub(super) const VDEV: &str = "\
Examples:
  gasp vdev check ./vdev-trace.so
  gasp vdev check trace --vdev-path build --option period=50

docs/vdevs.md in the source tree is the page for authors of virtual devices in C.

Exit status:
  0  nothing is wrong
  1  something is wrong with the vdev, and has been reported
  2  wrong usage";

pub(super) const VDEV_CHECK: &str = "\
Examples:
  gasp vdev check ./vdev-trace.so
  gasp vdev check trace --vdev-path build --option period=50 --option quiet
  gasp vdev check ./vdev-trace.so --json | jq '.findings[] | .kind'
  gdb --args gasp vdev check --in-process ./vdev-trace.so

Loads a virtual device that was written for <qvm/vdev-core.h>, walks its life cycle in front of
a guest with RAM and no processors, and reports what is wrong: two vdevs at a time, all calls of
control() in their order, reads of all registers in each width that it allows, the end, and all of
it again. The vdev is in a process of its own, so a crash and a call that does not return are
findings as well.

Fields of --json:
  factory   what the file has registered, or null: `name`, `file`, `edition`, `options` (each with
            `name` and `argument`: whether it takes one), `flags`, `access_widths`, `extra_space`
            (in bytes), `callbacks`
  place     where its registers are, or null: `space` (mem, io, pci), `start` (or null), `bytes`,
            `chosen` (by this check), `line` (of its interrupt, or null)
  calls     the calls of control() that have returned, each once
  reads, writes
            the number of accesses
  status    what it reports of its state
  log       what it logs: `level`, `text`
  printed   what it writes to stdout and stderr
  findings  what is wrong, the worst first: `severity` (error, warning, note), `kind` (of those in
            docs/vdevs.md), `call` (or null), `message`, `advice` (or null)

Exit status:
  0  nothing is wrong; there may be notes
  1  errors or warnings
  2  wrong usage, an option that the vdev does not have, or no such file";

pub(super) const COMPLETIONS: &str = "\
Example:
  gasp completions bash > ~/.local/share/bash-completion/completions/gasp

Exit status:
  0  success
  1  the output cannot be written
  2  wrong usage";

pub(super) const MAN: &str = "\
Examples:
  gasp man | man -l -
  gasp man --out /usr/local/share/man/man1

Exit status:
  0  success
  1  a page cannot be written
  2  wrong usage";
