//! An emulated machine with KVM, and the example in it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use gasp_testbed::{Initramfs, Testbed, Vm};
use libtest_mimic::Failed;

/// The time limit of a run, for a busy machine.
const PATIENCE: Duration = Duration::from_secs(240);
const TARGET: &str = "x86_64-unknown-linux-gnu";
/// The inner kernel's command line; without `quiet` its whole log would be an exit a byte.
const CMDLINE: &str = "console=ttyS0 panic=-1 quiet mitigations=off cryptomgr.notests";

/// The length of the disk of a guest inside.
pub(crate) const DISK: u64 = 64 << 20;

#[derive(Clone)]
pub(crate) struct Nested {
    testbed: Testbed,
    example: PathBuf,
}

impl Nested {
    /// Fetches the testbed, or returns the reason why there is none here.
    pub(crate) fn obtain() -> Result<Self, String> {
        let testbed = Testbed::obtain().map_err(|why| why.to_string())?;
        Ok(Self { testbed, example: build_example() })
    }

    /// Boots this kernel inside with this script. Returns all lines of the console.
    pub(crate) fn run(&self, kernel: &str, script: &str) -> Result<Vec<String>, Failed> {
        self.outer(script, &[], &format!("{} < /dev/null || status=$?", start(kernel, "")))
    }

    /// As [`run`](Self::run), with options of the example, with modules inside, and a command outside after the script has said
    /// that it waits. The example's input is `/tmp/in`.
    pub(crate) fn run_and(
        &self,
        script: &str,
        options: &str,
        modules: &[&str],
        command: &str,
    ) -> Result<Vec<String>, Failed> {
        let outer = format!(
            "mkfifo /tmp/in
            {} < /tmp/in > /tmp/console & job=$!
            exec 3> /tmp/in
            until grep -q 'inside: waiting' /tmp/console; do sleep 0.2; done
            sleep 1
            {command}
            wait $job || status=$?
            cat /tmp/console",
            start("/vmlinux", options)
        );
        self.outer(script, modules, &outer)
    }

    /// Boots the kernel inside once for each set of options and further words of its command line,
    /// one after another, with an NVMe disk and a virtio disk that they share, at `/tmp/disk` and
    /// `/tmp/other` outside. `command` runs outside at the end.
    pub(crate) fn with_disk(
        &self,
        script: &str,
        boots: &[(&str, &str)],
        command: &str,
    ) -> Result<Vec<String>, Failed> {
        let mut outer = format!("truncate -s {DISK} /tmp/disk /tmp/other\n");
        for (options, words) in boots {
            let disks = "--disk /tmp/disk --virtio /tmp/other";
            let options = format!("{disks} {options} --cmdline '{CMDLINE} {words}'");
            let boot = start("/vmlinux", &options);
            outer.push_str(&format!("{boot} < /dev/null || status=$?\n"));
        }
        self.outer(script, &["virtio_pci", "virtio_blk"], &format!("{outer}{command}"))
    }

    fn outer(&self, script: &str, modules: &[&str], run: &str) -> Result<Vec<String>, Failed> {
        let inner = Initramfs::new(&self.testbed).script(script);
        let inner = modules.iter().fold(inner, |inner, module| inner.module(module)).build()?;
        let script = format!("status=0\n{run}\necho boot: status $status");
        let outer = Initramfs::new(&self.testbed)
            .module("kvm")
            .module("kvm-amd")
            .program(&self.example)
            .file("/vmlinux", std::fs::read(self.testbed.vmlinux())?)
            .file("/vmlinuz", std::fs::read(self.testbed.vmlinuz())?)
            .file("/initrd", inner)
            .script(&script);
        let vm = Vm::linux(&self.testbed, outer).memory(2 << 30).cpus(2).limit(PATIENCE).start()?;
        let lines = vm.finish(PATIENCE)?;
        Ok(lines.into_iter().map(|line| line.text).collect())
    }
}

fn start(kernel: &str, options: &str) -> String {
    format!("boot {kernel} --initrd /initrd --ram 256 --cmdline '{CMDLINE}' {options}")
}

/// Builds the example, statically linked.
fn build_example() -> PathBuf {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap();
    let folder = workspace.join("target/static");
    let status = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--release", "-p", "gasp-vm", "--example", "boot"])
        .args(["--target", TARGET, "--target-dir"])
        .arg(&folder)
        .env("RUSTFLAGS", "-C target-feature=+crt-static")
        .current_dir(workspace)
        .status();
    assert!(status.unwrap().success(), "the example is not built");
    folder.join(TARGET).join("release/examples/boot")
}
