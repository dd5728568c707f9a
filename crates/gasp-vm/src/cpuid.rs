//! What a vCPU says of itself: what KVM supports, with the vCPU's own number.

use kvm_bindings::{CpuId, KVM_CPUID_FLAG_SIGNIFCANT_INDEX, kvm_cpuid_entry2};

/// Leaf 1, ECX: the local APIC's timer can wait for a value of the time-stamp counter, and this is
/// a virtual machine.
const TSC_DEADLINE: u32 = 1 << 24;
const HYPERVISOR: u32 = 1 << 31;
/// Leaf 0xb: the kinds of levels of the topology.
const THREAD: u32 = 1;
const CORE: u32 = 2;

/// What all vCPUs of a VM have in common.
pub(crate) struct Template {
    /// What KVM supports.
    pub(crate) supported: CpuId,
    /// Whether the local APICs' timers can wait for the time-stamp counter.
    pub(crate) timer: bool,
}

/// Leaf 0x8000_0008, EAX: the width of physical addresses in the lowest byte.
const WIDTHS: u32 = 0x8000_0008;
/// The width if a processor does not say.
const WIDTH: u32 = 36;

impl Template {
    /// The first address that is none: 2 to the power of the width of guest-physical addresses.
    pub(crate) fn end_of_addresses(&self) -> u64 {
        let entries = self.supported.as_slice();
        let widths = entries.iter().find(|entry| entry.function == WIDTHS);
        let width = widths.map(|entry| entry.eax & 0xff).filter(|&width| width != 0);
        1_u64.checked_shl(width.unwrap_or(WIDTH)).unwrap_or(u64::MAX)
    }

    /// The CPUID leaves of vCPU `id` of `count`: one package of cores with one thread each.
    pub(crate) fn leaves(&self, id: u32, count: u32) -> CpuId {
        let mut cpuid = self.supported.clone();
        let topology = |leaf: u32, index: u32| {
            // ECX: the level and its kind; EAX: by how many bits the level above is found.
            let (kind, shift, number) = match index {
                0 => (THREAD, 0, 1),
                1 => (CORE, u32::BITS - count.saturating_sub(1).leading_zeros(), count),
                _ => (0, 0, 0),
            };
            kvm_cpuid_entry2 {
                function: leaf,
                index,
                flags: KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
                eax: shift,
                ebx: number,
                ecx: kind << 8 | index,
                edx: id,
                ..Default::default()
            }
        };
        for entry in cpuid.as_mut_slice() {
            match entry.function {
                1 => {
                    // EBX: bits 31 to 24 the APIC's number, bits 23 to 16 how many there are.
                    let numbers = (id & 0xff) << 24 | count.min(0xff) << 16;
                    entry.ebx = entry.ebx & 0xffff | numbers;
                    entry.ecx |= HYPERVISOR;
                    if self.timer {
                        entry.ecx |= TSC_DEADLINE;
                    }
                }
                leaf @ (0xb | 0x1f) => *entry = topology(leaf, entry.index),
                // AMD: the APIC's number, and the core's.
                0x8000_001e => {
                    entry.eax = id;
                    entry.ebx = entry.ebx & !0xffff | id & 0xff;
                }
                // AMD: how many threads there are, less one, and how many bits number them.
                0x8000_0008 => {
                    let bits = u32::BITS - count.saturating_sub(1).leading_zeros();
                    entry.ecx = bits << 12 | count.saturating_sub(1) & 0xff;
                }
                _ => {}
            }
        }
        // KVM may list only the first level of the topology, or none.
        for index in 0..2 {
            let has = |entry: &kvm_cpuid_entry2| entry.function == 0xb && entry.index == index;
            if !cpuid.as_slice().iter().any(has) {
                // It fails only if there are too many: then the guest sees a smaller topology.
                let _ = cpuid.push(topology(0xb, index));
            }
        }
        cpuid
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_vcpu_has_its_own_number_and_all_of_them_one_package() {
        let leaf = |function, index| kvm_cpuid_entry2 { function, index, ..Default::default() };
        let supported = CpuId::from_entries(&[leaf(1, 0), leaf(0xb, 0)]).unwrap();
        let template = Template { supported, timer: true };
        let cpuid = template.leaves(2, 3);
        let find = |function, index| {
            let all = cpuid.as_slice().iter();
            all.copied().find(|it| it.function == function && it.index == index).unwrap()
        };
        assert_eq!(find(1, 0).ebx >> 16, 2 << 8 | 3);
        assert_eq!((find(0xb, 0).eax, find(0xb, 0).edx, find(0xb, 0).ecx), (0, 2, 0x100));
        assert_eq!((find(0xb, 1).eax, find(0xb, 1).edx, find(0xb, 1).ecx), (2, 2, 0x201));
        assert_eq!(find(0xb, 1).ebx, 3);
        assert_eq!(find(1, 0).ecx, TSC_DEADLINE | HYPERVISOR);
        let alone = template.leaves(0, 1);
        assert_eq!(alone.as_slice().iter().find(|it| it.index == 1).unwrap().eax, 0);
    }
}
