//! The type and the functions of a trait object, by its vtable.

use super::process::Process;
use crate::debuginfo::types::{TypeId, names};
use crate::host::search;
use crate::snapshot::Address;

/// The most functions of one vtable that are read.
const MAX_METHODS: u64 = 32;
/// The words before the functions: drop, size, alignment.
const HEAD: u64 = 24;

impl Process<'_, '_> {
    /// The concrete type behind a `dyn` pointer, by its vtable.
    ///
    /// rustc lays a vtable out as drop, size, align, then the methods, and describes it in a variable
    /// `<T as Trait>::{vtable}`; methods take `Pin<&mut T>`, `&mut T` or the like; and drop is
    /// `drop_in_place::<T>`. Identical functions may be folded, so the vtable's own description comes first.
    pub(crate) fn dyn_type(&self, vtable: Address) -> Option<TypeId> {
        let drop = self.memory.address(vtable)?;
        let size = self.memory.word(vtable.wrapping_add(8))?;
        let described = self.vtable(vtable).map(|(owner, _)| owner);
        let methods = || Methods::of(self, vtable);
        let fits = |id: &TypeId| self.ty(*id).is_some_and(|ty| ty.size == size);
        let polled = || methods().addresses().iter().take(4).filter_map(|at| self.polled(*at)).find(fits);
        let dropped = || self.function(drop)?.parameters.first().map(|(_, id)| *id);
        described.filter(fits).or_else(polled).or_else(|| dropped().filter(fits))
    }
}

/// The functions of a trait and of those above it.
#[derive(Debug)]
pub(crate) struct Methods {
    addresses: Vec<Address>,
    /// Their names, without paths, if there are symbols.
    names: Vec<String>,
}

impl Methods {
    /// The functions of the vtable at `address`. The debug information has their number; without it, they are the words
    /// up to the first that is no function.
    pub(crate) fn of(process: &Process<'_, '_>, address: Address) -> Self {
        let mut methods = Self { addresses: Vec::new(), names: Vec::new() };
        let size = process.vtable(address).map(|(_, size)| size);
        let count = size.map_or(MAX_METHODS, |size| (size.saturating_sub(HEAD) / 8).min(MAX_METHODS));
        for at in (0..count).filter_map(|n| address.checked_add(HEAD + n * 8)) {
            let Some(function) = process.memory.address(at) else { break };
            let symbols: Vec<_> = process.types.symbols_at(process.bias.file_address(function)).collect();
            let is_other = |symbol: &[u8]| {
                search::find(symbol, b"drop_in_place").is_some()
                    || search::find(symbol, b"7runtime4task3raw").is_some()
            };
            let ends = symbols.is_empty() || symbols.iter().any(|symbol| is_other(symbol));
            if size.is_none() && ends {
                break;
            }
            methods.addresses.push(function);
            methods.names.extend(symbols.iter().filter_map(|symbol| last_name(symbol)));
        }
        methods
    }

    pub(crate) fn addresses(&self) -> &[Address] {
        &self.addresses
    }

    /// Whether one of them is called `poll…`, or takes a `&mut Context`.
    pub(crate) fn can_be_polled(&self, process: &Process<'_, '_>) -> bool {
        let takes_context = |address: &Address| {
            process.function(*address).is_some_and(|function| takes_context(process, &function.arguments))
        };
        self.names.iter().any(|name| name.starts_with("poll")) || self.addresses.iter().any(takes_context)
    }

    /// Whether it is a service of tower: it is polled for readiness, and then called. What it then waits for is another
    /// future.
    pub(crate) fn is_service(&self) -> bool {
        let has = |wanted: &str| self.names.iter().any(|name| name == wanted);
        has("poll_ready") && has("call")
    }
}

/// Whether one of these arguments of a function is a `&mut Context`, as of each function that polls: others may be called
/// `poll…`, too.
pub(super) fn takes_context(process: &Process<'_, '_>, arguments: &[TypeId]) -> bool {
    let is_context =
        |of: &TypeId| process.ty(*of).is_some_and(|ty| ty.name.starts_with("&mut core::task::wake::Context"));
    arguments.iter().any(is_context)
}

/// `poll_read` of `<app::Pipe as tokio::io::async_read::AsyncRead>::poll_read`.
fn last_name(symbol: &[u8]) -> Option<String> {
    let demangled = format!("{:#}", rustc_demangle::try_demangle(std::str::from_utf8(symbol).ok()?).ok()?);
    let path = names::without_parameters(&demangled);
    Some(names::last_segment(path).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_are_called_by_their_last_name() {
        let legacy = "_ZN70_$LT$web..shapes..Pipe$u20$as$u20$tokio..io..async_read..AsyncRead$GT$9poll_read17had8efc4c7d112687E";
        assert_eq!(last_name(legacy.as_bytes()).as_deref(), Some("poll_read"));
        assert_eq!(last_name(b"main"), None);
    }
}
