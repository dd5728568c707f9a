//! The guarded accesses in machine code, so that an instruction that faults is known by its
//! address.
//!
//! None of the functions uses the stack, so wherever one is interrupted, it can be ended by a jump
//! to `gasp_guarded_fault`, which returns 1 in its place. All return 0 when they are done.
#![allow(unsafe_code, reason = "functions in machine code")]

#[cfg(all(target_arch = "x86_64", not(miri)))]
core::arch::global_asm!(
    ".pushsection .text.gasp_guarded, \"ax\", @progbits",
    ".p2align 4",
    ".globl gasp_guarded_begin, gasp_guarded_end, gasp_guarded_fault",
    ".hidden gasp_guarded_begin, gasp_guarded_end, gasp_guarded_fault",
    ".globl gasp_guarded_copy, gasp_guarded_load, gasp_guarded_store",
    ".hidden gasp_guarded_copy, gasp_guarded_load, gasp_guarded_store",
    "gasp_guarded_begin:",
    // to, from, length: 8 bytes at a time, or what the processor has for long copies.
    "gasp_guarded_copy:",
    "mov rcx, rdx",
    "cmp rdx, 256",
    "jae 4f",
    "2:",
    "cmp rcx, 8",
    "jb 3f",
    "mov rax, [rsi]",
    "mov [rdi], rax",
    "add rsi, 8",
    "add rdi, 8",
    "sub rcx, 8",
    "jmp 2b",
    "3:",
    "test rcx, rcx",
    "jz 5f",
    "mov al, [rsi]",
    "mov [rdi], al",
    "inc rsi",
    "inc rdi",
    "dec rcx",
    "jmp 3b",
    "4:",
    "rep movsb",
    "5:",
    "xor eax, eax",
    "ret",
    // from, to, size. Every load of this processor acquires.
    "gasp_guarded_load:",
    "cmp rdx, 4",
    "je 6f",
    "ja 7f",
    "cmp rdx, 2",
    "je 8f",
    "movzx ecx, byte ptr [rdi]",
    "jmp 9f",
    "8:",
    "movzx ecx, word ptr [rdi]",
    "jmp 9f",
    "6:",
    "mov ecx, dword ptr [rdi]",
    "jmp 9f",
    "7:",
    "mov rcx, [rdi]",
    "9:",
    "mov [rsi], rcx",
    "xor eax, eax",
    "ret",
    // to, value, size. An exchange is ordered with everything before and after.
    "gasp_guarded_store:",
    "cmp rdx, 4",
    "je 6f",
    "ja 7f",
    "cmp rdx, 2",
    "je 8f",
    "xchg byte ptr [rdi], sil",
    "xor eax, eax",
    "ret",
    "8:",
    "xchg word ptr [rdi], si",
    "xor eax, eax",
    "ret",
    "6:",
    "xchg dword ptr [rdi], esi",
    "xor eax, eax",
    "ret",
    "7:",
    "xchg qword ptr [rdi], rsi",
    "xor eax, eax",
    "ret",
    "gasp_guarded_end:",
    "gasp_guarded_fault:",
    "mov eax, 1",
    "ret",
    ".popsection",
);

#[cfg(all(target_arch = "aarch64", not(miri)))]
core::arch::global_asm!(
    ".pushsection .text.gasp_guarded, \"ax\", @progbits",
    ".p2align 4",
    ".globl gasp_guarded_begin, gasp_guarded_end, gasp_guarded_fault",
    ".hidden gasp_guarded_begin, gasp_guarded_end, gasp_guarded_fault",
    ".globl gasp_guarded_copy, gasp_guarded_load, gasp_guarded_store",
    ".hidden gasp_guarded_copy, gasp_guarded_load, gasp_guarded_store",
    "gasp_guarded_begin:",
    // to, from, length.
    "gasp_guarded_copy:",
    "2:",
    "cmp x2, #8",
    "b.lo 3f",
    "ldr x3, [x1], #8",
    "str x3, [x0], #8",
    "sub x2, x2, #8",
    "b 2b",
    "3:",
    "cbz x2, 5f",
    "ldrb w3, [x1], #1",
    "strb w3, [x0], #1",
    "sub x2, x2, #1",
    "b 3b",
    "5:",
    "mov x0, #0",
    "ret",
    // from, to, size.
    "gasp_guarded_load:",
    "cmp x2, #4",
    "b.eq 6f",
    "b.hi 7f",
    "cmp x2, #2",
    "b.eq 8f",
    "ldarb w3, [x0]",
    "b 9f",
    "8:",
    "ldarh w3, [x0]",
    "b 9f",
    "6:",
    "ldar w3, [x0]",
    "b 9f",
    "7:",
    "ldar x3, [x0]",
    "9:",
    "str x3, [x1]",
    "mov x0, #0",
    "ret",
    // to, value, size.
    "gasp_guarded_store:",
    "cmp x2, #4",
    "b.eq 6f",
    "b.hi 7f",
    "cmp x2, #2",
    "b.eq 8f",
    "stlrb w1, [x0]",
    "mov x0, #0",
    "ret",
    "8:",
    "stlrh w1, [x0]",
    "mov x0, #0",
    "ret",
    "6:",
    "stlr w1, [x0]",
    "mov x0, #0",
    "ret",
    "7:",
    "stlr x1, [x0]",
    "mov x0, #0",
    "ret",
    "gasp_guarded_end:",
    "gasp_guarded_fault:",
    "mov x0, #1",
    "ret",
    ".popsection",
);

#[cfg(all(any(target_arch = "x86_64", target_arch = "aarch64"), not(miri)))]
mod machine {
    // Each function returns 1, and has done its work in part or not at all, if it accesses memory
    // that is gone; else 0. That it returns at all then needs the handler: `install` must have
    // succeeded.
    unsafe extern "C" {
        /// Copies `len` bytes.
        ///
        /// # Safety
        /// `from` must be mapped for reading and `to` for writing, `len` bytes each, without
        /// overlap.
        #[link_name = "gasp_guarded_copy"]
        pub(in crate::memory::access::guard) fn copy(
            to: *mut u8,
            from: *const u8,
            len: usize,
        ) -> usize;
        /// Reads `size` bytes into `to`, extended with zeros to 8.
        ///
        /// # Safety
        /// `size` must be 1, 2, 4 or 8, `from` a multiple of it and mapped for reading for as many
        /// bytes, and `to` valid for the write of 8.
        #[link_name = "gasp_guarded_load"]
        pub(in crate::memory::access::guard) fn load(
            from: *const u8,
            to: *mut u64,
            size: usize,
        ) -> usize;
        /// Writes the low `size` bytes of `value`.
        ///
        /// # Safety
        /// `size` must be 1, 2, 4 or 8, and `to` a multiple of it and mapped for writing for as
        /// many bytes.
        #[link_name = "gasp_guarded_store"]
        pub(in crate::memory::access::guard) fn store(
            to: *mut u8,
            value: u64,
            size: usize,
        ) -> usize;
        static gasp_guarded_begin: u8;
        static gasp_guarded_end: u8;
        static gasp_guarded_fault: u8;
    }

    /// The address to continue at if the instruction at the address `instruction` cannot access its
    /// memory; `None` if that instruction is not one of the functions above.
    pub(in crate::memory::access::guard) fn instead_of(instruction: usize) -> Option<usize> {
        let begin = (&raw const gasp_guarded_begin).addr();
        let end = (&raw const gasp_guarded_end).addr();
        (begin..end).contains(&instruction).then(|| (&raw const gasp_guarded_fault).addr())
    }
}

/// Machines without such code, on which nothing is ever guarded.
#[cfg(any(not(any(target_arch = "x86_64", target_arch = "aarch64")), miri))]
mod machine {
    pub(in crate::memory::access::guard) unsafe fn copy(
        _: *mut u8,
        _: *const u8,
        _: usize,
    ) -> usize {
        1
    }

    pub(in crate::memory::access::guard) unsafe fn load(
        _: *const u8,
        _: *mut u64,
        _: usize,
    ) -> usize {
        1
    }

    pub(in crate::memory::access::guard) unsafe fn store(_: *mut u8, _: u64, _: usize) -> usize {
        1
    }
}

pub(super) use machine::*;
