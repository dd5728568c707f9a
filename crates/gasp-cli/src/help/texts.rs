//! The texts: examples, the fields of `--json`, the exit status.

pub(super) const GASP: &str = "\
Examples:
  gasp demo                     a guest on this machine's real pages, step by step
  gasp probe                    what this machine offers, and how to get more
  gasp layout --config guest.toml --svg guest.svg
  gasp serve --device nvme,backing=null:64M --socket /tmp/disk.sock

With --json an error is JSON on stdout, too, and wrong usage as well: an object `error` with
`errno` (its name), `reason` and `message`.

Exit status:
  0  done, or whoever read the output has gone away
  1  refused: by the guest's IOMMU, its memory, or this machine; or the output cannot be
     written
  2  wrong usage or a wrong configuration";

pub(super) const DEMO: &str = "\
Examples:
  gasp demo
  gasp demo --ram 64M --json | jq .runs[0]

Fields of --json (lengths and addresses are integers, in bytes):
  ram_bytes           the guest's RAM
  backing             what its pages are: 1G, 2M, thp or 4K
  backing_note        a remark about it, or null
  passed_over         better ones, each with `backing` and `why`
  stability           whether host-physical addresses stay: pinned, reserved, unpinned
  not_pinned_because  why the pages are not pinned, or null
  runs                all of RAM, in order: `guest`, `host` (null: not permitted), `len`
  maps                each map made: `device`, `what`, `access`, `addr`, `len`, `host`,
                      `verified`
  refused             the map that the guest's IOMMU refused: `device`, `addr`, `len`,
                      `errno`, `reason`
  faults              the records left for the guest: `device`, `addr`, `access`, `reason`
  rom_write           the write that ROM refused: `addr`, `errno`, `reason`
  shortened           a host-contiguous map that got less than it asked for: `addr`,
                      `asked`, `got` (null: not permitted; `asked`: RAM is one run there)
  drain               the revoke that waited: `held_ns`, `waited_ns`, `holders`,
                      `completed`; `meanwhile`: `errno` and `took_ns` of a new map
  verified            whether bytes written through every mapping were read back through
                      a second, independent mapping of the same memory
  notes               what this machine does not permit, and what would allow it

Exit status:
  0  done, even if the machine does not permit all of it
  1  the guest cannot be made, or bytes did not compare
  2  wrong usage";

pub(super) const PROBE: &str = "\
Examples:
  gasp probe
  gasp probe --json | jq '.checks[] | select(.verdict != \"yes\")'

Fields of --json:
  checks   one for each line: `name`, `verdict` (yes, limited or no), `detail`, and
           `remedy` (null where there is nothing to be done)

Exit status:
  0  probed, whatever the verdicts
  2  wrong usage";

pub(super) const MAP: &str = "\
Examples:
  gasp map --config guest.toml --vdev disk --addr 0x100000 --len 2M --access rw
  gasp map --config guest.toml --vdev disk --addr 1M --len 64K --access r --hold 60 --json

Fields of --json (lengths and addresses are integers, in bytes):
  (first line, with --hold only)
  pid, vaddr, host, len, stability
           the host-contiguous mapping at --addr that is held; `host` is null where
           host-physical addresses are not permitted
  (then)
  vdev, addr, len, access, stability
           what was mapped; `stability` is that of its least stable piece
  first    the host-contiguous run at --addr: `host` and `len`, or null
  runs     all of it, in order: `device`, `guest`, `host` (null: not permitted), `len`
  error    instead of all that, where it is refused: `errno`, `reason`, `message`

Exit status:
  0  mapped
  1  refused
  2  wrong usage or a wrong configuration";

pub(super) const AUDIT: &str = "\
Examples:
  gasp audit --config guest.toml
  gasp audit --config guest.toml --every 5 --for 3600 --json

The guest is made, and its frame numbers are read again: at once, and then every so many
seconds. Memory whose class is pinned or reserved must not have moved; unpinned memory may.

Fields of --json, one object in one line for each round (lengths in bytes):
  round      1, 2, 3, …
  checked    memory that was looked at
  unchecked  memory of which nothing is said: on demand, or a pass-through window
  took_us    how long that took, in microseconds
  broken     memory that has moved against its promise
  moved      memory that has moved as it may
  changes    what moved: `object`, `offset`, `len`, `class`, `was`, `is` (null: not in
             memory), `broken`

Exit status:
  0  every promise was kept
  1  one was broken, or frame numbers are told no longer
  2  wrong usage or a wrong configuration, or frame numbers are not told at all";

pub(super) const BROKER: &str = "\
Examples:
  gasp broker --socket /run/gasp/frames --user gasp
  (in the guest's configuration)  [guest]  frame-broker = \"/run/gasp/frames\"
  gasp broker --socket /run/gasp/tokens --tokens --user gasp --redeem-user nic

Runs as root. A process that connects is given a descriptor of its own page map, which tells
it the host-physical addresses of its own memory and nothing else; it needs no privilege of
its own. Nobody but root and the users named may ask.

With --tokens, nobody is told an address. A process that may ask is given a token, 16 random
bytes, for each host-contiguous run of memory of its own that it can write. It passes them on
to a process of a --redeem-user (or of root, or of this one's user), which is told where the
run is, if it is still where it was: ESTALE if not, ESRCH if its process is gone, EAGAIN if a
page is not in memory, ENOENT if the token's connection has ended. Nobody holds the pages by
that: whoever programs hardware with the address has to trust the sender to keep them pinned,
or has to hold them itself. A process can have 65,536 tokens, a user four times as many, and
64 connections.

Exit status:
  0  ended by SIGINT or SIGTERM
  1  the socket cannot be made, or this process is not told frame numbers itself
  2  wrong usage";

pub(super) const LAYOUT: &str = "\
Examples:
  gasp layout --config guest.toml --svg guest.svg
  gasp layout --config guest.toml --svg - | rsvg-convert > guest.png

Exit status:
  0  drawn
  1  the picture cannot be written
  2  wrong usage or a wrong configuration";

pub(super) const SERVE: &str = "\
Examples:
  gasp serve --device nvme,backing=null:64M --socket /tmp/disk.sock
  gasp serve --device nvme,backing=file:disk.img,queues=2 --socket /tmp/disk.sock --json
  gasp serve --config examples/serve/nvme.toml

Prints what QEMU needs to attach. VMMs may come and go, one at a time for each device; what
the device stores stays. Migration is not supported, and QEMU (11.1) reports one as completed all the same. Have it
refuse with a device that it does not migrate:
  -object memory-backend-memfd,id=stay,size=1M,share=on
  -device ivshmem-plain,memdev=stay,master=off

SIGINT and SIGTERM end it, disconnect all VMMs and remove the sockets; a second one ends it
at once. SIGHUP has the file read again: new devices are added, those that are gone are
removed even if a VMM is attached, and all others are left alone with their connections. A
device is what is on a socket: if its keys have changed it is replaced, unless a VMM is
attached; then it stays as it is until the next SIGHUP. A configuration that is wrong, or
whose new devices cannot be created, is reported and changes nothing. A reader of the output
that goes away, a closed terminal or a full disk ends nothing: reports that cannot be written
are dropped and counted.

The file has a table [[device]] for each, with the keys that --device has, too:
  kind        nvme (a disk) or dma (an engine that copies, for tests)
  socket      the path of its socket; paths are relative to the file's folder
  backing     nvme only: null:SIZE (keeps nothing, reads zeros), mem:SIZE (keeps its data
              as long as the process lives) or file:PATH (a file or a block device)
  block-size  nvme only: 512 or 4096
  queues      nvme only: the most I/O queue pairs, 1 to 128
  serial      nvme only: its serial number; if not given, made of the file's path, or of
              the socket's if there is no file
  mode        the permissions of the socket, 0o600 unless told
  name        what reports call it: its kind and number, unless told
  unsealed    guest memory that its VMM can take away, and that cannot be sealed: message
              (copied by messages, slow; unless told), trust (mapped all the same: a VMM
              that cuts it off ends this process) or refuse
  max-memory, max-dma-maps, max-descriptors, max-drains
              the most that a VMM may have held: bytes of memory files (4T unless told),
              windows (65535), descriptors (512, or less where this process may have few),
              unmaps that wait (1024)

Fields of --json, one object a line; `at` is in seconds since the start, lengths and
addresses are integers, in bytes:
  at, device, event  in all of them; `device` is null for what is about all devices; the
               others depend on `event`:
  listening    `kind`, `socket`; `qemu`: the arguments to attach
  attached     `pid`: the VMM's process, or null
  detached     `why`
  adopted      `bytes`: a file of guest memory was mapped; told once a second at most
  by-message   guest memory can be taken away: see `unsealed`
  not-shared   guest memory is not shared with the device (QEMU: share=off): `bytes`,
               `seen` (or only likely)
  totals, stopped
               `pid`, `connections`, `maps`, `unmaps`; `windows`, `window_bytes` and
               `files` that the VMM gives now; `by_message_bytes` of `window_bytes` that
               are not mapped but copied by message; `drains` (unmaps that had to wait),
               `draining` (that wait now), `faults` (refused by the guest's IOMMU),
               `commands`, `refused`, `message_bytes`, `untold` (events that were too
               many); `counters`: what the device itself counts
  drained      an unmap that took long: `addr`, `len`, `waited_ns`, `detached`
  faults       `count` since the last; `first`: `addr`, `access`, `reason`
  reset
  refused      a command of the VMM: `command`, `errno`, `why`
  turned-away  a client that was sent away: `why`
  in-use       a client that came while another is served: `pid`, `by`, `seconds`
  omitted      `reports` that were left out, because a client caused too many
  failed       a device that is no longer served, unlike the others: `why`
  reloaded     after SIGHUP: `added`, `removed`, `replaced`; `kept` (changed, but in use);
               `failed` (messages about devices that could not be created)
  reload-failed
               a configuration that is not used: `why`
  unwritten    `count` of reports that could not be written, since the last of these

Exit status:
  0  stopped by a signal; 130 where a second one, or 10 seconds, had to end it
  1  a socket is in use or cannot be created, a disk cannot be opened, or all devices failed
  2  wrong usage or a wrong configuration";

pub(super) const COMPLETIONS: &str = "\
Example:
  gasp completions bash > ~/.local/share/bash-completion/completions/gasp

Exit status:
  0  done
  1  cannot be written
  2  wrong usage";

pub(super) const MAN: &str = "\
Examples:
  gasp man | man -l -
  gasp man --out /usr/local/share/man/man1

Exit status:
  0  done
  1  cannot be written
  2  wrong usage";
