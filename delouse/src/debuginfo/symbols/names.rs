//! Function names as their authors wrote them.

/// A mangled name longer than this is shown as it is.
const MAX_MANGLED: usize = 1 << 14;
/// Names of futures of deep stacks of adapters grow without limit.
const MAX_NAME: usize = 2048;

/// The Rust name of a symbol, without hash and crate disambiguators; names of other languages as they are.
pub(crate) fn readable(symbol: &str) -> String {
    let name = match rustc_demangle::try_demangle(symbol) {
        Ok(name) if symbol.len() <= MAX_MANGLED => format!("{name:#}"),
        _ => symbol.to_owned(),
    };
    if name.len() <= MAX_NAME {
        return name;
    }
    let mut short: String = name.chars().take(MAX_NAME).collect();
    short.push('…');
    short
}

/// Whether a readable name is that of a function of the crate `name`, or of a method of one of its types.
pub(super) fn is_of(function: &str, name: &str) -> bool {
    let path = function.trim_start_matches(['<', '&']);
    path.strip_prefix(name).is_some_and(|rest| rest.starts_with("::"))
}

/// Whether a symbol was mangled by rustc.
pub(crate) fn is_rust(symbol: &str) -> bool {
    rustc_demangle::try_demangle(symbol).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lose_what_only_compilers_read() {
        for (symbol, name) in [
            ("_ZN3std6thread5sleep17h0123456789abcdefE", "std::thread::sleep"),
            (
                "_ZN71_$LT$Test$u20$$u2b$$u20$$u27$static$u20$as$u20$foo..Bar$LT$Test$GT$$GT$3bar17h930b740aa94f1d3aE",
                "<Test + 'static as foo::Bar<Test>>::bar",
            ),
            ("_RNvNtCs1234_7mycrate3foo3bar", "mycrate::foo::bar"),
            ("_RNCNvCs1234_7mycrate4main0", "mycrate::main::{closure#0}"),
            ("_ZN3foo3barEv", "_ZN3foo3barEv"),
            ("epoll_wait", "epoll_wait"),
            ("", ""),
        ] {
            assert_eq!(readable(symbol), name);
        }
        assert!(readable(&"x".repeat(100_000)).chars().count() <= MAX_NAME + 1);
    }
}
