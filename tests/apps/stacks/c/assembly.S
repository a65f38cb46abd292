/* Functions that call through `rdi` and that no compiler would write so. */

	.text

/* The stack pointer's old value is kept on the stack, as in OpenSSL. */
	.globl by_saved_stack_pointer
	.type by_saved_stack_pointer, @function
by_saved_stack_pointer:
	.cfi_startproc
	mov %rsp, %rax
	.cfi_def_cfa_register %rax
	push %rbx
	.cfi_offset %rbx, -16
	sub $200, %rsp
	and $-64, %rsp
	mov %rax, 152(%rsp)
	/* The frame is *(rsp + 152) + 8. */
	.cfi_escape 0x0f, 6, 0x77, 0x98, 0x01, 0x06, 0x23, 0x08
	call *%rdi
	mov 152(%rsp), %rsi
	.cfi_def_cfa %rsi, 8
	mov -8(%rsi), %rbx
	.cfi_restore %rbx
	lea (%rsi), %rsp
	.cfi_def_cfa_register %rsp
	ret
	.cfi_endproc
	.size by_saved_stack_pointer, . - by_saved_stack_pointer

/* The frame is found by a register that callees preserve. */
	.globl by_other_register
	.type by_other_register, @function
by_other_register:
	.cfi_startproc
	push %rbx
	.cfi_adjust_cfa_offset 8
	.cfi_offset %rbx, -16
	mov %rsp, %rbx
	.cfi_def_cfa_register %rbx
	sub $80, %rsp
	and $-32, %rsp
	call *%rdi
	mov %rbx, %rsp
	.cfi_def_cfa_register %rsp
	pop %rbx
	.cfi_adjust_cfa_offset -8
	.cfi_restore %rbx
	ret
	.cfi_endproc
	.size by_other_register, . - by_other_register

/* Interrupted at its first instruction: the one before belongs to another function. */
	.globl illegal_at_once
	.type illegal_at_once, @function
illegal_at_once:
	.cfi_startproc
	ud2
	ret
	.cfi_endproc
	.size illegal_at_once, . - illegal_at_once

/* Interrupted where its frame is found by a register that no callee preserves. */
	.globl illegal_by_scratch_register
	.type illegal_by_scratch_register, @function
illegal_by_scratch_register:
	.cfi_startproc
	lea 8(%rsp), %r10
	.cfi_def_cfa %r10, 0
	and $-64, %rsp
	push $0
	ud2
	lea -8(%r10), %rsp
	.cfi_def_cfa %rsp, 8
	ret
	.cfi_endproc
	.size illegal_by_scratch_register, . - illegal_by_scratch_register

	.section .note.GNU-stack, "", @progbits
