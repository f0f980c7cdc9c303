# From reset to `test` in long mode with tiles enabled: a ROM of 64 KiB below 4 GiB, of which the processor sees a copy below
# 1 MiB. The program was loaded at 1 MiB; it prints through port 0xe9.
.intel_syntax noprefix
.globl _start
.code16
_start:
    cli
    mov ax, 0xf000
    mov ds, ax
    mov eax, 1
    lgdt [gdt_address - _start]
    mov cr0, eax
    .byte 0x66, 0xea                # A far jump to 32 bits.
    .long protected - _start + 0xf0000
    .word 8
.code32
protected:
    mov ax, 16
    mov ds, ax
    mov es, ax
    mov ss, ax
    # Tables at 0x1000, 0x2000 and 0x3000 map the first GiB to itself in pages of 2 MiB.
    mov edi, 0x1000
    xor eax, eax
    mov ecx, 0xc00
    rep stosd
    mov dword ptr [0x1000], 0x2003
    mov dword ptr [0x2000], 0x3003
    mov eax, 0x83
    mov edi, 0x3000
    mov ecx, 512
1:  mov [edi], eax
    add eax, 0x200000
    add edi, 8
    loop 1b
    mov eax, 0x1000
    mov cr3, eax
    mov eax, 0x40620                # PAE, SSE and its exceptions, XSAVE
    mov cr4, eax
    mov ecx, 0xc0000080             # EFER: long mode
    mov eax, 0x100
    xor edx, edx
    wrmsr
    mov eax, 0x80000003             # paging, coprocessor, protection
    mov cr0, eax
    .byte 0xea                      # A far jump to 64 bits.
    .long long - _start + 0xf0000
    .word 24
.code64
long:
    xor ecx, ecx
    xor edx, edx
    mov eax, 0x600e7                # x87, SSE, AVX, AVX-512, tiles
    xsetbv
    mov rsp, 0x90000
    mov eax, 0x100000
    call rax
    mov dx, 0x8900                  # Ends the emulation.
    lea rsi, [rip + farewell]
    mov ecx, 8
    rep outsb
2:  hlt
    jmp 2b
farewell:
    .ascii "Shutdown"
.balign 8
gdt:
    .quad 0, 0x00cf9a000000ffff, 0x00cf92000000ffff, 0x00af9a000000ffff
gdt_address:
    .word 31
    .long gdt - _start + 0xf0000
.org 0xfff0
.code16
    .byte 0xea                      # A far jump to the beginning.
    .word 0, 0xf000
.org 0x10000
