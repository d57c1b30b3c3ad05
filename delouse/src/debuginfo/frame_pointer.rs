//! Finds the frame pointer of a thread of which only the program counter and the stack pointer are known (x86_64).
//!
//! Functions with a frame pointer store their caller's frame pointer below their return address, and let their own point
//! there. The innermost of them is where unwinding without a frame pointer ends. Its return address is the one on the
//! stack behind a call of exactly this function: the first such place is its frame.

use std::ops::Range;
use std::sync::Arc;

use super::address::{FileAddress, LoadBias};
use super::modules::{Module, Modules};
use super::object_file::ObjectFile;
use crate::snapshot::{Address, Snapshot, Thread, arch};

/// How far from the stack pointer a frame is searched, in bytes.
const FARTHEST: usize = 64 << 10;
/// The size of the header of `.eh_frame_hdr`, and of its entries (LSB core 10.6).
const HEADER: usize = 12;
const ENTRY: usize = 8;
/// Bytes of code before a return address that are examined.
const BEFORE: usize = 64;

/// The functions of all modules: where each begins.
pub(super) struct Functions(Vec<(Range<Address>, LoadBias, Arc<ObjectFile>)>);

impl Functions {
    pub(super) fn of(modules: &Modules) -> Self {
        let entry = |module: &Module| (module.range.clone(), module.bias, module.object.clone());
        Self(modules.list().iter().map(entry).collect())
    }

    /// Where the function begins that contains `address`, by the index of the unwind tables.
    fn start(&self, address: Address) -> Option<Address> {
        let (_, bias, object) = self.0.iter().find(|(range, ..)| range.contains(&address))?;
        let (index, addresses) = object.unwind_tables().eh_frame_hdr?;
        Some(bias.process_address(index_start(&index, addresses.start, bias.file_address(address))?))
    }
}

/// The frame pointer of `thread`, whose stack could be unwound up to the code at `address`, with the stack pointer `sp`.
pub(super) fn find(
    snapshot: &dyn Snapshot,
    functions: &Functions,
    thread: &Thread,
    address: Address,
    sp: Address,
) -> Option<Address> {
    if snapshot.arch().elf_machine() != arch::X86_64.elf_machine() {
        return None;
    }
    let function = functions.start(address)?;
    let mut buffer = vec![0; FARTHEST];
    let copied = thread.stack.as_ref().and_then(|copy| {
        let from = usize::try_from(sp.offset_from(copy.base)?).ok()?;
        copy.bytes.get(from..)
    });
    let bytes = match copied {
        Some(copied) => copied,
        None => {
            let read = snapshot.read(sp, &mut buffer);
            buffer.get(..read)?
        }
    };
    let (words, _) = bytes.as_chunks::<8>();
    let is_frame = |pair: &[[u8; 8]]| {
        pair.get(1).is_some_and(|word| calls(snapshot, Address::new(u64::from_le_bytes(*word)), function))
    };
    let index = words.windows(2).position(is_frame)?;
    sp.checked_add(8 * index as u64)
}

/// Whether the instruction before `return_address` calls `function`.
fn calls(snapshot: &dyn Snapshot, return_address: Address, function: Address) -> bool {
    let Some(start) = return_address.checked_sub(BEFORE as u64) else { return false };
    if !snapshot.mapping(start).is_some_and(|mapping| mapping.execute) {
        return false;
    }
    let mut code = [0; BEFORE];
    if snapshot.read(start, &mut code) != code.len() {
        return false;
    }
    let relative = |end: usize, offset: [u8; 4]| {
        let end = start.get().wrapping_add(end as u64);
        Address::new(end.wrapping_add_signed(i64::from(i32::from_le_bytes(offset))))
    };
    let is_function = |target: Option<u64>| target == Some(function.get());
    match code {
        // call rel32
        [.., 0xe8, a, b, c, d] if is_function(Some(relative(BEFORE, [a, b, c, d]).get())) => true,
        // call [rip + rel32]: through the table of global offsets
        [.., 0xff, 0x15, a, b, c, d] => is_function(snapshot.read_u64(relative(BEFORE, [a, b, c, d]))),
        // call rax, in code that is not optimised. Linkers replace the load of an address that they know.
        [.., 0xff, 0xd0] => code.windows(7).enumerate().any(|(at, instruction)| match *instruction {
            // mov rax, [rip + rel32]
            [0x48, 0x8b, 0x05, a, b, c, d] => is_function(snapshot.read_u64(relative(at + 7, [a, b, c, d]))),
            // lea rax, [rip + rel32]
            [0x48, 0x8d, 0x05, a, b, c, d] => is_function(Some(relative(at + 7, [a, b, c, d]).get())),
            // mov rax, imm32: in executables with a fixed address
            [0x48, 0xc7, 0xc0, a, b, c, d] => is_function(Some(i32::from_le_bytes([a, b, c, d]) as u64)),
            _ => false,
        }),
        _ => false,
    }
}

/// The last function in the index that does not begin after `address`.
fn index_start(index: &[u8], base: FileAddress, address: FileAddress) -> Option<FileAddress> {
    let count = index.get(8..HEADER)?.first_chunk().map(|count| u32::from_le_bytes(*count))?;
    let table = index.get(HEADER..)?;
    let count = usize::try_from(count).ok()?.min(table.len() / ENTRY);
    let entry = |number: usize| {
        let offset = table.get(number.checked_mul(ENTRY)?..)?.first_chunk()?;
        Some(FileAddress::new(base.get().wrapping_add_signed(i64::from(i32::from_le_bytes(*offset)))))
    };
    let (mut low, mut high) = (0, count);
    while low < high {
        let middle = low + (high - low) / 2;
        match entry(middle)? <= address {
            true => low = middle + 1,
            false => high = middle,
        }
    }
    entry(low.checked_sub(1)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::{Capture, FileOffset, Mapping};

    /// Code at 0x1000, and everywhere else words with the value 0x2000.
    struct Code(Vec<u8>, Mapping);

    impl Snapshot for Code {
        fn read(&self, address: Address, buf: &mut [u8]) -> usize {
            let at = address.get().wrapping_sub(0x1000) as usize;
            match self.0.get(at..at.saturating_add(buf.len())) {
                Some(code) => buf.copy_from_slice(code),
                None => buf.iter_mut().zip(0x2000_u64.to_le_bytes()).for_each(|(to, from)| *to = from),
            }
            buf.len()
        }
        fn mappings(&self) -> &[Mapping] {
            std::slice::from_ref(&self.1)
        }
        fn threads(&self) -> &[Thread] {
            &[]
        }
        fn capture(&self) -> &Capture {
            unreachable!("not used by the test")
        }
    }

    #[test]
    fn each_form_of_a_call_is_recognised() {
        let call = |instructions: &[u8], function: u64| {
            let mut code = vec![0x90; 256];
            code[128 - instructions.len()..128].copy_from_slice(instructions);
            let mapping = Mapping {
                range: Address::range(0x1000..0x1100),
                read: true,
                write: false,
                execute: true,
                shared: false,
                offset: FileOffset::default(),
                device: 0,
                inode: 0,
                path: None,
            };
            calls(&Code(code, mapping), Address::new(0x1080), Address::new(function))
        };
        let relative = &[0xe8, 0x10, 0, 0, 0];
        assert!(call(relative, 0x1090) && !call(relative, 0x1091));
        let through_table = &[0xff, 0x15, 0, 0, 1, 0];
        assert!(call(through_table, 0x2000) && !call(through_table, 0x1000));
        let in_two_steps = &[0x48, 0x8b, 0x05, 0, 0, 1, 0, 0x90, 0x90, 0xff, 0xd0];
        assert!(call(in_two_steps, 0x2000) && !call(in_two_steps, 0x1000));
        let known_to_the_linker = &[0x48, 0x8d, 0x05, 0x10, 0, 0, 0, 0x90, 0x90, 0xff, 0xd0];
        assert!(call(known_to_the_linker, 0x108c) && !call(known_to_the_linker, 0x2000));
        let at_a_fixed_address = &[0x48, 0xc7, 0xc0, 0, 0x20, 0, 0, 0xff, 0xd0];
        assert!(call(at_a_fixed_address, 0x2000) && !call(at_a_fixed_address, 0x2001));
        assert!(!call(&[0xff, 0xd0], 0x2000), "any function");
        assert!(!call(&[0x90], 0x2000));
    }

    #[test]
    fn the_index_is_searched_for_the_last_start_before_an_address() {
        let mut index = vec![1, 0x1b, 0x03, 0x3b, 0, 0, 0, 0];
        index.extend(3_u32.to_le_bytes());
        for start in [-0x100_i32, 0x10, 0x40] {
            index.extend(start.to_le_bytes());
            index.extend(0_i32.to_le_bytes());
        }
        let start = |address| index_start(&index, FileAddress::new(0x1000), FileAddress::new(address));
        assert_eq!(start(0xeff), None);
        assert_eq!(start(0xf00), Some(FileAddress::new(0xf00)));
        assert_eq!(start(0x103f), Some(FileAddress::new(0x1010)));
        assert_eq!(start(0x9999), Some(FileAddress::new(0x1040)));
        for length in 0..index.len() {
            let _ = index_start(&index[..length], FileAddress::new(0x1000), FileAddress::new(0x1020));
        }
    }
}
