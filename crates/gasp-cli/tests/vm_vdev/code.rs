//! 64-bit code from a few instructions, for registers below 4 GiB.

use crate::flat::{HALT, POWER_OFF, say};

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

    /// `mov WIDTH ptr [addr], value`, of 4 bytes.
    pub(crate) fn store(self, addr: u32, value: u32) -> Self {
        self.raw(&[0xbe])
            .raw(&addr.to_le_bytes()) // mov esi, addr
            .raw(&[0xb8])
            .raw(&value.to_le_bytes()) // mov eax, value
            .raw(&[0x89, 0x06]) // mov [rsi], eax
    }

    /// Reads 1, 2, 4 or 8 bytes, in one access, and says them.
    pub(crate) fn load_and_say(self, width: usize, addr: u32) -> Self {
        let code = self.raw(&[0xbe]).raw(&addr.to_le_bytes());
        let code = match width {
            1 => code.raw(&[0x8a, 0x06]),       // mov al, [rsi]
            2 => code.raw(&[0x66, 0x8b, 0x06]), // mov ax, [rsi]
            4 => code.raw(&[0x8b, 0x06]),       // mov eax, [rsi]
            _ => code.raw(&[0x48, 0x8b, 0x06]), // mov rax, [rsi]
        };
        code.say_rax(width)
    }

    /// Reads a port of 1, 2 or 4 bytes, and says them.
    pub(crate) fn input_and_say(self, width: usize, port: u16) -> Self {
        let code = self.raw(&[0x66, 0xba]).raw(&port.to_le_bytes()); // mov dx, port
        let code = match width {
            1 => code.raw(&[0xec]),       // in al, dx
            2 => code.raw(&[0x66, 0xed]), // in ax, dx
            _ => code.raw(&[0xed]),       // in eax, dx
        };
        code.say_rax(width)
    }

    fn say_rax(self, width: usize) -> Self {
        let code = self.raw(&[0x66, 0xba, 0xf8, 0x03]); // mov dx, 0x3f8
        // out dx, al; shr rax, 8
        (0..width).fold(code, |code, _| code.raw(&[0xee, 0x48, 0xc1, 0xe8, 8]))
    }

    pub(crate) fn say(self, letter: u8) -> Self {
        self.raw(&say(letter))
    }

    pub(crate) fn power_off(self) -> Self {
        self.raw(&POWER_OFF).raw(&HALT)
    }

    /// Filled with no operations up to an offset.
    pub(crate) fn up_to(mut self, offset: usize) -> Self {
        assert!(self.0.len() <= offset, "{:#x}", self.0.len());
        self.0.resize(offset, 0x90);
        self
    }
}
