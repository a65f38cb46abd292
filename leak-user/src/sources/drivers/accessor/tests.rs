use super::*;

fn of(code: &[u8], object: &[u8]) -> Option<u32> {
    call(code, object).map(|returned| returned.value)
}

#[test]
fn the_field_that_an_accessor_returns() {
    // test rdi,rdi; je +6; mov eax,[rdi+8]; ret; nop; mov eax,-1; ret
    let code =
        [0x48, 0x85, 0xff, 0x74, 0x04, 0x8b, 0x47, 0x08, 0xc3, 0xb8, 0xff, 0xff, 0xff, 0xff, 0xc3];
    let mut object = [0; 16];
    object[8] = 7;
    let returned = Returned { value: 7, last_read: Some((8, 4)) };
    assert_eq!(call(&code, &object), Some(returned));
    assert_eq!(call(&code, &object[..11]), None, "it looks beyond the object");
}

#[test]
fn code_without_optimisation_keeps_its_argument_on_the_stack() {
    // push rbp; mov rbp,rsp; mov [rbp-8],rdi; mov rax,[rbp-8]; movzx eax,word [rax+4]; cdqe;
    // leave; ret
    let code = [
        0x55, 0x48, 0x89, 0xe5, 0x48, 0x89, 0x7d, 0xf8, 0x48, 0x8b, 0x45, 0xf8, 0x0f, 0xb7, 0x40,
        0x04, 0xc9, 0xc3,
    ];
    assert_eq!(of(&code, &[0, 0, 0, 0, 3, 1, 9, 9]), Some(0x103));
}

#[test]
fn conditions_decide() {
    // cmp dword [rdi],1; mov eax,5; cmove eax,[rdi+4]; ret
    let code = [0x83, 0x3f, 0x01, 0xb8, 5, 0, 0, 0, 0x0f, 0x44, 0x47, 0x04, 0xc3];
    assert_eq!(of(&code, &[1, 0, 0, 0, 8, 0, 0, 0]), Some(8));
    assert_eq!(of(&code, &[2, 0, 0, 0, 8, 0, 0, 0]), Some(5));
    // xor eax,eax; cmp dword [rdi],-1; setg al; ret
    let code = [0x31, 0xc0, 0x83, 0x3f, 0xff, 0x0f, 0x9f, 0xc0, 0xc3];
    assert_eq!(of(&code, &[0xfe, 0xff, 0xff, 0xff]), Some(0), "-2 > -1");
    assert_eq!(of(&code, &[0, 0, 0, 0]), Some(1), "0 > -1");
    assert_eq!(of(&code, &[0, 0, 0, 0x80]), Some(0), "the lowest number > -1");
}

#[test]
fn what_is_no_accessor_has_no_answer() {
    for (code, why) in [
        (&[0xe8, 0, 0, 0, 0, 0xc3][..], "a call"),
        (&[0x8b, 0x05, 0, 0, 0, 0, 0xc3], "a variable"),
        (&[0x89, 0x07, 0xc3], "a change of the object"),
        (&[0x64, 0x8b, 0x07, 0xc3], "a thread's variable"),
        (&[0xeb, 0xfe], "a loop"),
        (&[0xeb, 0x7f], "a jump out of it"),
        (&[0x8b, 0x07], "no end"),
        (&[0x0f, 0x05, 0xc3], "a system call"),
        (&[0xf3, 0xa4, 0xc3], "a copy"),
        (&[], "nothing"),
    ] {
        assert_eq!(of(code, &[1; 64]), None, "{why}");
    }
}

#[test]
fn whatever_the_code_is_it_ends() {
    let mut random = fastrand::Rng::with_seed(7);
    let mut answered = 0;
    for _ in 0..200_000 {
        let mut code: Vec<u8> = (0..random.usize(..40)).map(|_| random.u8(..)).collect();
        code.push(0xc3);
        answered += u32::from(call(&code, &[3; 64]).is_some());
    }
    assert!(answered > 1000, "{answered}");
}
