//! The symbol table of a file: the function at an address, by its start and size.

use std::ops::Range;

use object::LittleEndian;
use object::elf::{SHN_UNDEF, STT_FUNC, STT_GNU_IFUNC, Sym64};

use crate::debuginfo::address::FileAddress;
use crate::debuginfo::object_file::{ObjectFile, records};
use crate::host::shared_bytes::SharedBytes;

/// A large program has some hundred thousand.
const MAX_SYMBOLS: usize = 4 << 20;
/// What fits into 16 KB and is still a name.
const MAX_NAME: usize = 1 << 14;
/// A function in assembly that states no size is not longer, in bytes.
const MAX_UNSIZED: u64 = 1 << 10;

/// Functions by address.
#[derive(Debug, Default)]
pub(in crate::debuginfo) struct SymbolTable {
    /// Ordered by address.
    functions: Vec<Function>,
    strings: SharedBytes,
}

#[derive(Debug, Clone, Copy)]
struct Function {
    address: FileAddress,
    size: u32,
    name: u32,
}

impl SymbolTable {
    /// Reads `.symtab` or `.dynsym`; empty where there is none.
    pub(super) fn of(object: &ObjectFile, section: &str) -> Self {
        let Some((symbols, strings)) = object.symbol_table(section) else { return Self::default() };
        let mut functions: Vec<_> = records(&symbols).iter().take(MAX_SYMBOLS).filter_map(function).collect();
        // Of aliases the longest function is kept first: `pthread_mutex_lock` and `__pthread_mutex_lock`
        // are equally long, and the table's order decides.
        functions.sort_by_key(|f| (f.address, std::cmp::Reverse(f.size)));
        measure(&mut functions, object);
        functions.shrink_to_fit();
        Self { functions, strings }
    }

    /// The functions of a file without the one that may have its debug information.
    pub(in crate::debuginfo) fn of_object(object: &ObjectFile) -> Self {
        let table = Self::of(object, ".symtab");
        if table.is_empty() { Self::of(object, ".dynsym") } else { table }
    }

    /// Whether there is nothing in it.
    pub(super) fn is_empty(&self) -> bool {
        self.functions.is_empty()
    }

    /// How many functions there are, aliases included.
    pub(in crate::debuginfo) fn len(&self) -> usize {
        self.functions.len()
    }

    /// Where functions begin.
    pub(in crate::debuginfo) fn starts(&self) -> impl Iterator<Item = FileAddress> {
        self.functions.iter().map(|function| function.address)
    }

    /// Where functions begin, and how long they are.
    #[cfg(test)]
    pub(super) fn ranges(&self) -> impl Iterator<Item = (FileAddress, u64)> {
        self.functions.iter().map(|function| (function.address, u64::from(function.size)))
    }

    /// The name of the function that `address` lies in: not that of one that ends before it.
    pub(in crate::debuginfo) fn find(&self, address: FileAddress) -> Option<&str> {
        let function = self.containing(address)?;
        let name = self.strings.get(usize::try_from(function.name).ok()?..)?;
        let name = name.get(..name.len().min(MAX_NAME))?;
        let end = name.iter().position(|&b| b == 0)?;
        std::str::from_utf8(name.get(..end)?).ok().filter(|name| !name.is_empty())
    }

    /// The addresses of the function that `address` lies in.
    pub(in crate::debuginfo) fn function(&self, address: FileAddress) -> Option<Range<FileAddress>> {
        let function = self.containing(address)?;
        Some(function.address..function.address.checked_add(u64::from(function.size))?)
    }

    fn containing(&self, address: FileAddress) -> Option<&Function> {
        let after = self.functions.partition_point(|f| f.address <= address);
        let nearest = self.functions.get(after.checked_sub(1)?)?.address;
        let first = self.functions.partition_point(|f| f.address < nearest);
        let function = self.functions.get(first)?;
        (address.offset_from(function.address)? < u64::from(function.size)).then_some(function)
    }
}

/// Gives functions without a size one: musl's functions in assembly have none. They end where the next function begins,
/// or with their section.
fn measure(functions: &mut [Function], object: &ObjectFile) {
    let (mut at, mut after) = (None, None);
    for function in functions.iter_mut().rev() {
        if at != Some(function.address) {
            (at, after) = (Some(function.address), at);
        }
        if function.size == 0 {
            let section = object.section_containing(function.address);
            let end = section.map(|section| section.end).into_iter().chain(after).min();
            let size = end.and_then(|end| end.offset_from(function.address)).unwrap_or(0);
            function.size = u32::try_from(size.min(MAX_UNSIZED)).unwrap_or(0);
        }
    }
}

fn function(entry: &Sym64<LittleEndian>) -> Option<Function> {
    let size = entry.st_size.get(LittleEndian);
    let is_function =
        matches!(entry.st_type(), STT_FUNC | STT_GNU_IFUNC) && entry.st_shndx.get(LittleEndian) != SHN_UNDEF;
    is_function.then(|| Function {
        address: FileAddress::new(entry.st_value.get(LittleEndian)),
        size: u32::try_from(size).unwrap_or(u32::MAX),
        name: entry.st_name.get(LittleEndian),
    })
}
