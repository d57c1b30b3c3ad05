//! x86_64 code without unwind tables: how deep the stack is at an instruction, and whether a call precedes an address.
//!
//! The depth follows from the instructions between the function's start and the given one, along all branches. It is
//! known unless the function moves its stack pointer by an amount that is not a constant and has no frame pointer.

use std::collections::BTreeMap;

use iced_x86::{Decoder, DecoderOptions, FlowControl, Instruction, Mnemonic, OpKind, Register};

use super::code::{Call, CallerFp, CallerSp, FrameLayout};

/// Functions without tables are hand-written assembly or small C functions; longer ones are not analysed.
const MAX_INSTRUCTIONS: usize = 20_000;
/// The longest call instruction, and the shortest, in bytes.
const LONGEST_CALL: usize = 8;
const SHORTEST_CALL: usize = 2;
/// How many instructions after a call may precede `hlt`.
const MAX_EXIT: usize = 12;

/// What is known before an instruction. Distances are from the caller's stack pointer downwards; `None` if not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct State {
    /// Of the stack pointer.
    sp: Option<i64>,
    /// Of the frame pointer, if it points into this function's frame.
    fp: Option<i64>,
    /// The caller's frame pointer.
    saved: Saved,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Saved {
    InRegister,
    At(i64),
    Unknown,
}

/// At the first instruction, the return address is on the stack.
const ENTRY: State = State { sp: Some(8), fp: None, saved: Saved::InRegister };

/// The layout at the instruction that contains `at`, of the function whose `code` starts at `start`.
pub(super) fn frame_layout(code: &[u8], start: u64, at: u64) -> Option<FrameLayout> {
    let mut states = BTreeMap::from([(start, ENTRY)]);
    let mut pending = vec![start];
    let mut found: Option<State> = None;
    let mut budget = MAX_INSTRUCTIONS;
    while let Some(address) = pending.pop() {
        budget = budget.checked_sub(1)?;
        let state = *states.get(&address)?;
        let Some(instruction) = decode(code, start, address) else { continue };
        if (address..instruction.next_ip()).contains(&at) {
            found = Some(state);
        }
        let after = state.after(&instruction);
        for next in successors(&instruction).into_iter().flatten() {
            let known = states.get(&next).copied();
            let merged = known.map_or(after, |known| known.merge(after));
            if known != Some(merged) {
                states.insert(next, merged);
                pending.push(next);
            }
        }
    }
    found?.layout()
}

/// The call instruction that ends where `code` ends, which is at `end`. The bytes of an instruction can be part of another
/// one: if they can be read in several ways, the shortest is taken, except for a direct call.
pub(super) fn call_before(code: &[u8], end: u64) -> Option<Call> {
    let call = |length: usize| {
        let start = end.checked_sub(length as u64)?;
        let bytes = code.get(code.len().checked_sub(length)?..)?;
        let instruction = decode(bytes, start, start).filter(|instruction| instruction.len() == length)?;
        match instruction.flow_control() {
            FlowControl::Call if instruction.is_call_near() => {
                Some(Call::Direct(instruction.near_branch_target()))
            }
            FlowControl::IndirectCall => Some(Call::Indirect),
            _ => None,
        }
    };
    /// `call rel32`.
    const DIRECT: usize = 5;
    let direct = call(DIRECT).filter(|call| matches!(call, Call::Direct(_)));
    direct.or_else(|| (SHORTEST_CALL..=LONGEST_CALL).find_map(call))
}

/// Whether `code`, which follows a call, leads to `hlt` without a jump. A program may not execute `hlt`: it is put behind
/// the system call that ends a thread, and behind the program's first call (musl's `__clone`, glibc's `_start`).
pub(super) fn never_returns(code: &[u8]) -> bool {
    let mut decoder = Decoder::new(64, code, DecoderOptions::NONE);
    for instruction in decoder.iter().take(MAX_EXIT) {
        if instruction.mnemonic() == Mnemonic::Hlt {
            return true;
        }
        let goes_on =
            instruction.flow_control() == FlowControl::Next || instruction.mnemonic() == Mnemonic::Syscall;
        if instruction.is_invalid() || !goes_on {
            return false;
        }
    }
    false
}

/// The instruction at `address` in `code`, which starts at `start`.
fn decode(code: &[u8], start: u64, address: u64) -> Option<Instruction> {
    let within = usize::try_from(address.checked_sub(start)?).ok()?;
    let bytes = code.get(within..).filter(|bytes| !bytes.is_empty())?;
    let instruction = Decoder::with_ip(64, bytes, address, DecoderOptions::NONE).decode();
    (!instruction.is_invalid()).then_some(instruction)
}

/// Where execution continues within the function.
fn successors(instruction: &Instruction) -> [Option<u64>; 2] {
    let next = Some(instruction.next_ip());
    let target = Some(instruction.near_branch_target());
    match instruction.flow_control() {
        FlowControl::Next | FlowControl::Call | FlowControl::IndirectCall | FlowControl::Interrupt => {
            [next, None]
        }
        FlowControl::UnconditionalBranch => [target, None],
        FlowControl::ConditionalBranch | FlowControl::XbeginXabortXend => [next, target],
        FlowControl::Return | FlowControl::IndirectBranch | FlowControl::Exception => [None, None],
    }
}

impl State {
    fn after(self, instruction: &Instruction) -> Self {
        use Register::{RBP, RSP};
        let distance = |value: Option<i64>, by: i64| value.and_then(|value| value.checked_sub(by));
        let is_register = |operand: u32, register| {
            instruction.op_kind(operand) == OpKind::Register && instruction.op_register(operand) == register
        };
        let writes = |register| instruction.op_count() > 0 && is_register(0, register);
        match instruction.mnemonic() {
            // A call's callee removes the return address.
            Mnemonic::Call => self,
            Mnemonic::Push => {
                let sp = distance(self.sp, instruction.stack_pointer_increment().into());
                let saves = is_register(0, RBP) && self.saved == Saved::InRegister && self.fp.is_none();
                let saved = sp.filter(|_| saves).map_or(self.saved, Saved::At);
                Self { sp, saved, ..self }
            }
            Mnemonic::Pop if writes(RBP) => {
                let saved = if self.saved == self.sp.map_or(Saved::Unknown, Saved::At) {
                    Saved::InRegister
                } else {
                    Saved::Unknown
                };
                Self { sp: distance(self.sp, 8), fp: None, saved }
            }
            Mnemonic::Leave => Self { sp: distance(self.fp, 8), fp: None, saved: Saved::InRegister },
            Mnemonic::Mov if writes(RSP) => Self { sp: self.fp.filter(|_| is_register(1, RBP)), ..self },
            Mnemonic::Mov | Mnemonic::Lea if writes(RBP) => {
                let copies = instruction.mnemonic() == Mnemonic::Mov && is_register(1, RSP);
                let fp = if copies { self.sp } else { self.loaded(instruction) };
                self.with_fp(fp)
            }
            Mnemonic::Lea if writes(RSP) => Self { sp: self.loaded(instruction), ..self },
            Mnemonic::Sub | Mnemonic::Add if writes(RSP) => {
                let Some(by) = constant(instruction) else { return Self { sp: None, ..self } };
                let by = if instruction.mnemonic() == Mnemonic::Sub { by.checked_neg() } else { Some(by) };
                Self { sp: by.and_then(|by| distance(self.sp, by)), ..self }
            }
            // They only read.
            Mnemonic::Cmp | Mnemonic::Test => self,
            _ if writes(RSP) => Self { sp: None, ..self },
            _ if writes(RBP) || writes(Register::EBP) => self.with_fp(None),
            _ => Self { sp: distance(self.sp, instruction.stack_pointer_increment().into()), ..self },
        }
    }

    /// The distance that `lea` computes.
    fn loaded(self, instruction: &Instruction) -> Option<i64> {
        let base = match instruction.memory_base() {
            Register::RSP => self.sp,
            Register::RBP => self.fp,
            _ => None,
        };
        let is_lea = instruction.mnemonic() == Mnemonic::Lea && instruction.memory_index() == Register::None;
        base.filter(|_| is_lea)?.checked_sub(instruction.memory_displacement64() as i64)
    }

    /// The frame pointer's register was overwritten.
    fn with_fp(self, fp: Option<i64>) -> Self {
        let saved = if self.saved == Saved::InRegister { Saved::Unknown } else { self.saved };
        Self { fp, saved, ..self }
    }

    fn merge(self, other: Self) -> Self {
        Self {
            sp: self.sp.filter(|_| self.sp == other.sp),
            fp: self.fp.filter(|_| self.fp == other.fp),
            saved: if self.saved == other.saved { self.saved } else { Saved::Unknown },
        }
    }

    fn layout(self) -> Option<FrameLayout> {
        // At least the return address is in the frame.
        let distance =
            |value: Option<i64>| value.and_then(|value| u64::try_from(value).ok()).filter(|v| *v >= 8);
        let by_sp = distance(self.sp).map(CallerSp::AboveSp);
        let caller_sp = by_sp.or_else(|| distance(self.fp).map(CallerSp::AboveFp))?;
        let caller_fp = match self.saved {
            Saved::InRegister => CallerFp::Unchanged,
            Saved::At(below) => u64::try_from(below).map_or(CallerFp::Unknown, CallerFp::Stored),
            Saved::Unknown => CallerFp::Unknown,
        };
        Some(FrameLayout { caller_sp, caller_fp })
    }
}

/// The constant of an instruction's second operand.
fn constant(instruction: &Instruction) -> Option<i64> {
    match instruction.op_kind(1) {
        OpKind::Immediate8to64 | OpKind::Immediate32to64 | OpKind::Immediate8 | OpKind::Immediate32 => {
            Some(instruction.immediate(1) as i64)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: u64 = 0x1000;

    fn layout(code: &[u8], at: usize) -> Option<FrameLayout> {
        frame_layout(code, START, START + at as u64)
    }

    fn above_sp(bytes: u64, caller_fp: CallerFp) -> Option<FrameLayout> {
        Some(FrameLayout { caller_sp: CallerSp::AboveSp(bytes), caller_fp })
    }

    #[test]
    fn the_stack_pointer_is_followed_through_a_function() {
        let code = [
            0x53, // push rbx
            0x55, // push rbp
            0x48, 0x83, 0xec, 0x18, // sub rsp, 0x18
            0xe8, 0, 1, 0, 0, // call
            0x85, 0xc0, // test eax, eax
            0x74, 0x07, // je to the `xor`
            0x48, 0x83, 0xc4, 0x18, // add rsp, 0x18
            0x5d, // pop rbp
            0xeb, 0x08, // jmp to the `pop rbx`
            0x31, 0xed, // xor ebp, ebp
            0x48, 0x8d, 0x64, 0x24, 0x18, // lea rsp, [rsp + 0x18]
            0x5d, // pop rbp: not reached by the jump
            0x5b, // pop rbx
            0xc3, // ret
        ];
        assert_eq!(layout(&code, 0), above_sp(8, CallerFp::Unchanged));
        assert_eq!(layout(&code, 1), above_sp(16, CallerFp::Unchanged));
        assert_eq!(layout(&code, 2), above_sp(24, CallerFp::Stored(24)));
        // In the middle of the call, as a return address is looked up.
        assert_eq!(layout(&code, 10), above_sp(48, CallerFp::Stored(24)));
        assert_eq!(layout(&code, 20), above_sp(16, CallerFp::Unchanged), "after the first `pop rbp`");
        assert_eq!(layout(&code, 24), above_sp(48, CallerFp::Stored(24)), "rbp is overwritten, but stored");
        assert_eq!(layout(&code, 29), above_sp(24, CallerFp::Stored(24)));
    }

    #[test]
    fn a_frame_pointer_serves_where_the_stack_pointer_is_aligned() {
        let code = [
            0x55, // push rbp
            0x48, 0x89, 0xe5, // mov rbp, rsp
            0x48, 0x83, 0xe4, 0xe0, // and rsp, -32
            0x90, // nop
            0xc9, // leave
            0xc3, // ret
        ];
        let by_fp = Some(FrameLayout { caller_sp: CallerSp::AboveFp(16), caller_fp: CallerFp::Stored(16) });
        assert_eq!(layout(&code, 4), above_sp(16, CallerFp::Stored(16)));
        assert_eq!(layout(&code, 8), by_fp);
        assert_eq!(layout(&code, 10), above_sp(8, CallerFp::Unchanged));
    }

    #[test]
    fn what_is_not_known_is_not_guessed() {
        // sub rsp, rax; nop
        let dynamic = [0x48, 0x29, 0xc4, 0x90, 0xc3];
        assert_eq!(layout(&dynamic, 3), None);
        // je over a `push`: two depths at the `nop`.
        let branches = [0x74, 0x01, 0x50, 0x90, 0xc3];
        assert_eq!(layout(&branches, 3), None);
        // The code after a `ret` that nothing jumps to.
        let unreachable = [0xc3, 0x90];
        assert_eq!(layout(&unreachable, 1), None);
        // pop; nop: above the return address, as in the child of `clone`.
        let popped = [0x5f, 0x90, 0xc3];
        assert_eq!(layout(&popped, 1), None);
        assert_eq!(layout(&[], 0), None);
        assert_eq!(layout(&[0x90], 5), None);
    }

    #[test]
    fn each_form_of_a_call_is_recognised() {
        let call = |code: &[u8]| call_before(code, START);
        assert_eq!(call(&[0x90, 0x90, 0x90, 0xe8, 0x10, 0, 0, 0]), Some(Call::Direct(START + 0x10)));
        for indirect in [
            &[0xff, 0xd0][..],                        // call rax
            &[0x41, 0xff, 0xd1],                      // call r9
            &[0xff, 0x53, 0x18],                      // call [rbx + 0x18]
            &[0xff, 0x15, 0x10, 0x20, 0, 0],          // call [rip + 0x2010]
            &[0x41, 0xff, 0x94, 0x24, 0x80, 0, 0, 0], // call [r12 + 0x80]
        ] {
            assert_eq!(call(indirect), Some(Call::Indirect), "{indirect:x?}");
        }
        assert_eq!(call(&[0x48, 0x89, 0xc7, 0x0f, 0x05]), None, "a system call");
        assert_eq!(call(&[0xe9, 0x10, 0, 0, 0]), None, "a jump");
        assert_eq!(call(&[]), None);
    }

    #[test]
    fn the_end_of_a_thread_is_recognised() {
        // mov edi, eax; xor eax, eax; mov al, 60; syscall; hlt
        assert!(never_returns(&[0x89, 0xc7, 0x31, 0xc0, 0xb0, 0x3c, 0x0f, 0x05, 0xf4]));
        assert!(!never_returns(&[0x89, 0xc7, 0xc3, 0xf4]), "it returns before");
        assert!(!never_returns(&[0x0f, 0x0b]), "a call that never returns to it");
        assert!(!never_returns(&[]));
    }

    #[test]
    fn random_code_never_panics() {
        let mut random = crate::host::random::Random::new(11);
        for _ in 0..3_000 {
            let code: Vec<u8> = (0..random.below(200)).map(|_| random.next() as u8).collect();
            let start = if random.below(2) == 0 { START } else { u64::MAX - 50 };
            let _ = frame_layout(&code, start, start.wrapping_add(random.below(200) as u64));
            let _ = call_before(&code, start);
            let _ = never_returns(&code);
        }
    }
}
