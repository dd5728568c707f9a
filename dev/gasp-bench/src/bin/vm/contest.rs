//! The guests: which program runs them, with which disk and IOMMU.

/// Words of every inner kernel's command line; without `quiet` its log would be an exit a byte.
const WORDS: &str = "console=ttyS0 panic=-1 quiet mitigations=off cryptomgr.notests";
/// Those of a guest whose driver invalidates after each unmap, and waits.
const STRICT: &str = "intel_iommu=on iommu.strict=1";
const QEMU: &str = "qemu -accel kvm -cpu host -m 256 -nodefaults -no-user-config -display none \
                    -no-reboot -serial stdio";
/// Memory that another process can map, as a device in one needs it.
const SHARED: &str = "-object memory-backend-memfd,id=m0,size=256M,share=on";

/// A guest.
pub(crate) struct Contestant {
    pub(crate) name: &'static str,
    /// What runs before it, in the background, until it has ended.
    pub(crate) server: Option<&'static str>,
    /// A shell command that runs it until it has powered off.
    pub(crate) command: String,
    /// Whether it only boots.
    pub(crate) boots: bool,
}

/// The guests whose names contain `filter`.
pub(crate) fn guests(filter: &str) -> Vec<Contestant> {
    let pc = |iommu: &str, device: &str, words: &str| {
        format!(
            "{QEMU} -M q35,hpet=off,smm=off,memory-backend=m0 {SHARED} {iommu} {device} \
             -kernel /vmlinux -initrd /initrd -append '{WORDS} measure {words}'"
        )
    };
    let disk = |options: &str| {
        format!(
            "-drive file=/tmp/disk,format=raw,if=none,id=d -device nvme,drive=d,serial=1{options}"
        )
    };
    let vtd = "-device intel-iommu,intremap=off";
    let vtd_that_tells = "-device intel-iommu,intremap=off,caching-mode=on";
    let socket = r#"-device '{"driver":"vfio-user-pci","socket":{"type":"unix","path":"/tmp/s"}}'"#;
    let ours = |options: &str, words: &str| {
        format!(
            "gasp vm --kernel /vmlinux --initrd /initrd --ram 256M --json /tmp/json {options} \
             --cmdline '{WORDS} {words}'"
        )
    };
    let microvm = format!("{QEMU} -M microvm -kernel /vmlinux -initrd /initrd -append '{WORDS}'");
    let measured = |name, command| Contestant { name, server: None, command, boots: false };
    let booted = |name, command| Contestant { name, server: None, command, boots: true };
    let all = vec![
        booted("boot gasp", ours("--iommu off", "")),
        booted("boot microvm", microvm),
        measured("gasp", ours("--disk /tmp/disk --iommu off", "measure")),
        measured("qemu", pc("", &disk(""), "")),
        measured("qemu ioeventfd", pc("", &disk(",ioeventfd=on"), "")),
        measured("gasp strict", ours("--disk /tmp/disk --iommu vtd", &format!("measure {STRICT}"))),
        measured("qemu strict", pc(vtd, &disk(""), STRICT)),
        measured("qemu ioeventfd strict", pc(vtd, &disk(",ioeventfd=on"), STRICT)),
        Contestant {
            name: "serve strict",
            server: Some("gasp serve --device nvme,backing=file:/tmp/disk --socket /tmp/s"),
            command: pc(vtd_that_tells, socket, STRICT),
            boots: false,
        },
    ];
    all.into_iter().filter(|guest| guest.name.contains(filter)).collect()
}
