//! 32-bit code for flat guests, from a few instructions.

use gasp::GuestPhys;

use crate::support::Flat;

/// Instructions one after another.
#[derive(Clone, Default)]
pub(crate) struct Code(Vec<u8>);

impl Code {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// `mov byte [addr], value`
    pub(crate) fn store8(self, addr: u32, value: u8) -> Self {
        self.raw(&[0xc6, 0x05]).raw(&addr.to_le_bytes()).raw(&[value])
    }

    /// `mov word [addr], value`
    pub(crate) fn store16(self, addr: u32, value: u16) -> Self {
        self.raw(&[0x66, 0xc7, 0x05]).raw(&addr.to_le_bytes()).raw(&value.to_le_bytes())
    }

    /// `mov dword [addr], value`
    pub(crate) fn store32(self, addr: u32, value: u32) -> Self {
        self.raw(&[0xc7, 0x05]).raw(&addr.to_le_bytes()).raw(&value.to_le_bytes())
    }

    /// Two stores of 4 bytes.
    pub(crate) fn store64(self, addr: u32, value: u64) -> Self {
        self.store32(addr, value as u32).store32(addr + 4, (value >> 32) as u32)
    }

    /// Copies 1, 2 or 4 bytes, in one access each.
    pub(crate) fn copy(self, width: usize, from: u32, to: u32) -> Self {
        let code = self.instruction(width, [0xa0, 0xa1]).raw(&from.to_le_bytes());
        code.instruction(width, [0xa2, 0xa3]).raw(&to.to_le_bytes())
    }

    /// `out port, value`, of 1, 2 or 4 bytes.
    pub(crate) fn output(self, width: usize, port: u16, value: u32) -> Self {
        let code = self.raw(&[0x66, 0xba]).raw(&port.to_le_bytes());
        code.raw(&[0xb8]).raw(&value.to_le_bytes()).instruction(width, [0xee, 0xef])
    }

    /// Stores what `in port` returns, 1, 2 or 4 bytes.
    pub(crate) fn input(self, width: usize, port: u16, to: u32) -> Self {
        let code = self.raw(&[0x66, 0xba]).raw(&port.to_le_bytes());
        let code = code.instruction(width, [0xec, 0xed]);
        code.instruction(width, [0xa2, 0xa3]).raw(&to.to_le_bytes())
    }

    /// Waits for interrupts for ever.
    pub(crate) fn wait_for_interrupts(self) -> Self {
        self.raw(&[0xfb, 0xf4, 0xeb, 0xfd]) // sti; hlt; jmp to hlt
    }

    /// Loads the tables of [`interrupt_tables`], and switches the local APIC on.
    pub(crate) fn take_interrupts(self) -> Self {
        self.raw(&[0x0f, 0x01, 0x15, 0x00, 0x20, 0x00, 0x00]) // lgdt [0x2000]
            .raw(&[0x0f, 0x01, 0x1d, 0x08, 0x20, 0x00, 0x00]) // lidt [0x2008]
            .store32(0xfee0_00f0, 0x1ff)
    }

    /// Tells the local APIC that the interrupt is handled.
    pub(crate) fn end_of_interrupt(self) -> Self {
        self.store32(0xfee0_00b0, 0)
    }

    fn instruction(self, width: usize, [byte, wider]: [u8; 2]) -> Self {
        match width {
            1 => self.raw(&[byte]),
            2 => self.raw(&[0x66, wider]),
            _ => self.raw(&[wider]),
        }
    }
}

/// Writes descriptor tables with a flat code segment as number 1, and a gate for each handler.
pub(crate) fn interrupt_tables(flat: &Flat, handlers: &[(u8, u32)]) {
    let write = |addr: u64, bytes: &[u8]| {
        flat.guest.write_firmware(GuestPhys(addr), bytes).unwrap();
    };
    // The tables' limits and addresses.
    write(0x2000, &[0x0f, 0, 0x00, 0x30, 0, 0]);
    write(0x2008, &[0xff, 0x07, 0x00, 0x40, 0, 0]);
    write(0x3008, &[0xff, 0xff, 0, 0, 0, 0x9b, 0xcf, 0]);
    for &(vector, handler) in handlers {
        let [a, b, c, d] = handler.to_le_bytes();
        write(0x4000 + u64::from(vector) * 8, &[a, b, 0x08, 0, 0, 0x8e, c, d]);
    }
}
