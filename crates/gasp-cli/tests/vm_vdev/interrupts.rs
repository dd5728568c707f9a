//! Interrupts of vdevs: levels by the I/O APIC, and messages.

use libtest_mimic::Failed;

use crate::code::Code;
use crate::{parts, run, with_probe};

const AT: u32 = 0xfa00_0000;
const VECTOR: u32 = 0x30;
/// Where the kernel is.
const BASE: u32 = 0x10_0000;
const HANDLER: usize = 0x200;
const TABLE: usize = 0x300;
/// A counter in RAM.
const COUNT: u32 = 0x40_0000;

/// A kernel that takes `VECTOR`, does `first`, and waits; and its handler.
fn kernel(first: &Code, handler: &Code) -> Vec<u8> {
    let gate = (BASE as usize + HANDLER).to_le_bytes();
    // 64-bit interrupt gate, in the code segment of the boot protocol.
    let gate = [gate[0], gate[1], 0x10, 0, 0, 0x8e, gate[2], gate[3], 0, 0, 0, 0, 0, 0, 0, 0];
    let table = BASE + TABLE as u32;
    let code = Code::new()
        .raw(&[0x0f, 0x01, 0x1c, 0x25])
        .raw(&(table - 16).to_le_bytes()) // lidt [table - 16]
        .store(0xfee0_00f0, 0x1ff)
        .raw(first.bytes())
        .raw(&[0xfb, 0xf4, 0xeb, 0xfd]) // sti; hlt; jmp to hlt
        .up_to(HANDLER)
        .raw(handler.bytes())
        .up_to(TABLE - 16)
        .raw(&[0xff, 0x0f])
        .raw(&u64::from(table).to_le_bytes())
        .up_to(TABLE + VECTOR as usize * 16)
        .raw(&gate);
    code.bytes().to_vec()
}

/// Ends the interrupt, and waits for the next.
fn wait(code: Code) -> Code {
    code.store(0xfee0_00b0, 0).raw(&[0xfb, 0xf4, 0xeb, 0xfd])
}

pub(crate) fn level() -> Result<(), Failed> {
    // Line 5, by level. The entry is read back: KVM keeps it.
    let first = Code::new()
        .store(0xfec0_0000, 0x10 + 2 * 5)
        .store(0xfec0_0010, 0x8000 | VECTOR)
        .store(AT + 8, 1);
    // From the third on the cause is removed, and the guest waits for a while with interrupts on.
    let last = Code::new()
        .store(AT + 8, 2)
        .store(0xfee0_00b0, 0)
        .raw(&[0xfb, 0xb9, 0x00, 0x80, 0x00, 0x00]) // sti; mov ecx, 0x8000
        .raw(&[0xff, 0xc9, 0x75, 0xfc]) // dec ecx; jnz back
        .load_and_say(1, AT + 12)
        .power_off();
    let counts = Code::new()
        .say(b'i')
        .raw(&[0xff, 0x04, 0x25])
        .raw(&COUNT.to_le_bytes()) // inc dword [COUNT]
        .raw(&[0x83, 0x3c, 0x25])
        .raw(&COUNT.to_le_bytes())
        .raw(&[3, 0x72, last.bytes().len() as u8]); // cmp dword [COUNT], 3; jb past `last`
    let handler = wait(counts.raw(last.bytes()));
    let fixture = with_probe(&kernel(&first, &handler));
    let output = run(&fixture, "vdev probe loc 0xfa000000 intr ioapic:5", &[]);
    let (said, raised) = parts(&output).1.split_at(parts(&output).1.len().saturating_sub(1));
    // KVM may have delivered the next one already when the level falls.
    assert!(said == b"iii" || said == b"iiii", "once is not enough, and then it ends: {output:?}");
    assert_eq!(raised, [1], "raised once");
    Ok(())
}

pub(crate) fn message() -> Result<(), Failed> {
    let first = Code::new().store(AT + 8, 9);
    let handler = Code::new().say(b'm').power_off();
    let fixture = with_probe(&kernel(&first, &handler));
    let output = run(&fixture, "vdev probe loc 0xfa000000 message 0x30", &[]);
    assert_eq!(parts(&output).1, b"m", "{output:?}");
    Ok(())
}
