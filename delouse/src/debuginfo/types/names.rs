//! Names, from what rustc writes to what people wrote.
//!
//! rustc calls the future of `async fn handle` in `impl Server` `app::{impl#3}::handle::{async_fn_env#0}`;
//! its author calls it `app::Server::handle`.

use std::borrow::Cow;

use crate::host::search;

/// Arguments deeper than this are elided.
const MAX_ARGUMENT_DEPTH: usize = 2;
/// Arguments longer than this are elided, in bytes.
const MAX_ARGUMENTS: usize = 60;
/// Names longer than this are not worth taking apart, in bytes.
const MAX_NAME: usize = 1 << 16;

/// The path of a type without its generic parameters.
pub(crate) fn without_parameters(name: &str) -> &str {
    let last = last_segment(name);
    let at = last.find('<').filter(|at| *at > 0);
    at.and_then(|at| name.get(..name.len() - last.len() + at)).unwrap_or(name)
}

/// The part behind the last `::` that is not inside brackets.
pub(crate) fn last_segment(name: &str) -> &str {
    let mut start = 0;
    each_separator(name, "::", |at| start = at + 2);
    name.get(start..).unwrap_or(name)
}

/// The path of the function that polls the coroutine at `path`.
pub(crate) fn body_of(path: &str) -> Option<String> {
    let path = without_parameters(path);
    let last = last_segment(path);
    let kind = ["{async_fn_env#", "{async_block_env#", "{async_closure_env#"]
        .into_iter()
        .find(|kind| last.starts_with(kind))?;
    let scope = path.strip_suffix(last)?;
    Some(format!("{scope}{}{}", kind.replace("_env#", "#"), last.strip_prefix(kind)?))
}

/// The function that a closure or coroutine stands in: `handle` of `app::handle::{async_fn_env#0}`.
pub(crate) fn enclosing_item(path: &str) -> Option<&str> {
    let item = *segments(path).iter().rev().find(|segment| !segment.starts_with('{'))?;
    item.find('<').filter(|at| *at > 0).map_or(Some(item), |at| item.get(..at))
}

/// The item that a closure stands in, from its mangled name; `None` for what is no closure.
pub(crate) fn item_of_closure(symbol: &[u8]) -> Option<Cow<'_, [u8]>> {
    if symbol.starts_with(b"_ZN") {
        return legacy_item(symbol.get(3..)?).map(Cow::Borrowed);
    }
    if !symbol.starts_with(b"_R") || !symbol.windows(2).any(|pair| pair == b"NC") {
        return None;
    }
    let demangled = format!("{:#}", rustc_demangle::try_demangle(std::str::from_utf8(symbol).ok()?).ok()?);
    let (path, _) = demangled.split_once("::{closure#")?;
    let item = segments(path).into_iter().rev().find(|s| !s.starts_with('<'))?;
    Some(Cow::Owned(item.as_bytes().to_vec()))
}

/// How many of the leading segments of the path of a function or type a symbol has in its name. The path of a method has
/// the module that its `impl` is in, the symbol that of its type.
pub(crate) fn likeness(path: &str, symbol: &[u8]) -> usize {
    let name = std::str::from_utf8(symbol).ok().and_then(|name| rustc_demangle::try_demangle(name).ok());
    let Some(name) = name.map(|name| format!("{name:#}")) else { return 0 };
    let modules: Vec<&str> =
        segments(path).into_iter().take_while(|segment| !segment.starts_with('{')).collect();
    let is_in = |count: &usize| modules.get(..*count).is_some_and(|path| name.contains(&path.join("::")));
    (1..=modules.len()).rev().find(is_in).unwrap_or(0)
}

/// Whether a symbol is of a function or static of that crate, or of a method of one of its types.
pub(crate) fn is_in_crate(symbol: &[u8], name: &str) -> bool {
    let segment = format!("{}{name}", name.len());
    if let Some(legacy) = symbol.strip_prefix(b"_ZN") {
        let digits = legacy.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let of_type = || {
            legacy.get(digits..)?.strip_prefix(b"_$LT$").and_then(|rest| rest.strip_prefix(name.as_bytes()))
        };
        return legacy.starts_with(segment.as_bytes())
            || of_type().is_some_and(|rest| rest.starts_with(b".."));
    }
    // The first crate that is named: `C`, the disambiguator `s…_`, the name. `NC` is a closure.
    let Some(v0) = symbol.strip_prefix(b"_R") else { return false };
    let after = v0.split(|byte| *byte == b'C').skip(1).find_map(|root| {
        let end = root.iter().position(|byte| *byte == b'_').filter(|_| root.starts_with(b"s"));
        let name = root.get(end.map_or(0, |end| end + 1)..)?;
        name.first().is_some_and(u8::is_ascii_digit).then_some(name)
    });
    after.is_some_and(|rest| rest.starts_with(segment.as_bytes()))
}

/// What a closure is called in a legacy symbol, and the length of that.
pub(super) const CLOSURES: [(&str, usize); 2] = [("_$u7b$$u7b$closure$u7d$$u7d$", 28), ("{{closure}}", 11)];

/// Walks the `length name` pairs of a legacy symbol up to the first closure.
fn legacy_item(mut rest: &[u8]) -> Option<&[u8]> {
    let mut item = None;
    loop {
        let digits = rest.iter().take(5).take_while(|byte| byte.is_ascii_digit()).count();
        let (length, after) = rest.split_at_checked(digits)?;
        let length: usize = std::str::from_utf8(length).ok()?.parse().ok()?;
        let (segment, after) = after.split_at_checked(length)?;
        if CLOSURES.iter().any(|(closure, _)| segment.starts_with(closure.as_bytes())) {
            return item;
        }
        item = Some(segment);
        rest = after;
    }
}

/// A coroutine's name as its author wrote it. `linkage_name` is its poll function's, which alone knows the
/// type behind `{impl#N}`.
pub(crate) fn coroutine(path: &str, linkage_name: Option<&str>) -> String {
    let path = without_parameters(path);
    let segments = segments(path);
    let implementation = segments.iter().position(|segment| segment.starts_with("{impl#"));
    let owner = implementation.and_then(|at| {
        let demangled = format!("{:#}", rustc_demangle::try_demangle(linkage_name?).ok()?);
        owner_of(&demangled, segments.get(at + 1)?)
    });
    match (owner, implementation) {
        (Some(owner), Some(at)) => {
            let mut parts = vec![ty(&owner)];
            let after = segments.iter().skip(at + 1);
            parts.extend(after.filter_map(|segment| written(segment)).map(String::from));
            parts.join("::")
        }
        _ => written_path(&segments),
    }
}

/// `app::Server` of `app::Server::handle::{{closure}}`, `<app::Server>::handle::{closure#0}` or
/// `<app::Server as app::Handler>::handle::{{closure}}`.
fn owner_of(demangled: &str, item: &str) -> Option<String> {
    let segments = segments(demangled);
    let at = segments.iter().rposition(|segment| *segment == item)?;
    let end = segments.get(..at)?.iter().map(|segment| segment.len() + 2).sum::<usize>().checked_sub(2)?;
    let owner = demangled.get(..end)?;
    let inner = owner.strip_prefix('<').and_then(|rest| rest.strip_suffix('>'));
    let Some(inner) = inner else { return Some(owner.to_owned()) };
    let of = top_level(inner, " as ").into_iter().next().unwrap_or(inner);
    Some(of.to_owned())
}

/// The innermost type or function of the program's own among the arguments of a type: the handler in
/// `hyper::Connection<Io<TcpStream>, ServiceFn<app::hello>>`. `is_own`: whether a crate is the program's.
pub(crate) fn carried(name: &str, is_own: impl Fn(&str) -> bool) -> Option<String> {
    let mut found: Option<(usize, &str)> = None;
    let (mut depth, mut start, mut before) = (0_usize, 0, ' ');
    for (at, letter) in name.char_indices().chain([(name.len(), ' ')]).take(MAX_NAME) {
        if letter.is_alphanumeric() || matches!(letter, '_' | ':' | '{' | '}' | '#') {
            before = letter;
            continue;
        }
        let path = name.get(start..at).unwrap_or_default();
        let own = path.split_once("::").is_some_and(|(krate, _)| is_own(krate));
        if own && found.is_none_or(|(deepest, _)| depth > deepest) {
            found = Some((depth, path));
        }
        match letter {
            '<' => depth += 1,
            // Not that of `->`.
            '>' if before != '-' => depth = depth.saturating_sub(1),
            _ => {}
        }
        (start, before) = (at + letter.len_utf8(), letter);
    }
    found.map(|(_, path)| written_path(&segments(path)))
}

/// A type's name with its arguments cut to what tells it apart.
pub(crate) fn ty(name: &str) -> String {
    if name.len() > MAX_NAME {
        return "…".to_owned();
    }
    let path = without_parameters(name);
    let arguments = arguments(name.strip_prefix(path).unwrap_or_default(), 0);
    format!("{}{arguments}", written_path(&segments(path)))
}

fn arguments(list: &str, depth: usize) -> String {
    let Some(inner) = list.strip_prefix('<').and_then(|rest| rest.strip_suffix('>')) else {
        return String::new();
    };
    if depth == MAX_ARGUMENT_DEPTH {
        return "<…>".to_owned();
    }
    let parts = top_level(inner, ", ");
    let parts: Vec<String> = parts
        .into_iter()
        .filter(|part| *part != "alloc::alloc::Global" && !part.starts_with('\''))
        .map(|part| short(part, depth + 1))
        .collect();
    match parts.join(", ") {
        joined if joined.is_empty() => joined,
        joined if joined.len() > MAX_ARGUMENTS => "<…>".to_owned(),
        joined => format!("<{joined}>"),
    }
}

/// The arguments in `<A, B<C>>`, as they stand there.
pub(crate) fn top_arguments(list: &str) -> Option<Vec<&str>> {
    let inner = list.strip_prefix('<')?.strip_suffix('>')?;
    (list.len() <= MAX_NAME).then(|| top_level(inner, ", "))
}

/// A type as an argument: the last part of its path.
fn short(name: &str, depth: usize) -> String {
    const PREFIXES: [&str; 5] = ["&mut ", "&", "*mut ", "*const ", "dyn "];
    let mut rest = name;
    while let Some(stripped) = PREFIXES.iter().find_map(|prefix| rest.strip_prefix(prefix)) {
        rest = stripped;
    }
    let (prefix, name) = name.split_at(name.len() - rest.len());
    // Only the first one of a trait object's traits has methods.
    if let Some(traits) = name.strip_prefix("(dyn ").and_then(|traits| traits.strip_suffix(')'))
        && let Some(first) = top_level(traits, " + ").first()
    {
        return format!("{prefix}dyn {}", short(first, depth));
    }
    if name.starts_with(['(', '[']) {
        return format!("{prefix}{}", if name.len() <= 16 { name } else { "(…)" });
    }
    if name.starts_with("fn(") {
        return format!("{prefix}{}", if name.len() <= 24 { name } else { "fn(…)" });
    }
    let path = without_parameters(name);
    let segments = segments(path);
    let from = segments.iter().rposition(|segment| !segment.starts_with('{')).unwrap_or(0);
    let own = segments.get(from..).unwrap_or_default();
    format!("{prefix}{}{}", written_path(own), arguments(name.strip_prefix(path).unwrap_or_default(), depth))
}

fn written_path(segments: &[&str]) -> String {
    segments.iter().filter_map(|segment| written(segment)).collect::<Vec<_>>().join("::")
}

/// One segment; `None` for one that the compiler has made.
fn written(segment: &str) -> Option<&str> {
    if !segment.starts_with('{') {
        return Some(segment);
    }
    Some(match segment.trim_start_matches('{').split(['#', '}']).next()? {
        "async_fn" | "async_fn_env" => return None,
        "async_block" | "async_block_env" => "{async block}",
        "async_closure" | "async_closure_env" => "{async closure}",
        "closure" | "closure_env" => "{closure}",
        // Which type it is for, only the linkage name knows.
        "impl" => return None,
        _ => segment,
    })
}

/// Splits a path at the `::` that are not inside brackets.
fn segments(path: &str) -> Vec<&str> {
    top_level(path, "::")
}

/// Splits at every `separator` outside of brackets.
fn top_level<'a>(text: &'a str, separator: &str) -> Vec<&'a str> {
    let mut parts = Vec::new();
    let mut start = 0;
    each_separator(text, separator, |at| {
        parts.extend(text.get(start..at));
        start = at + separator.len();
    });
    parts.extend(text.get(start..));
    parts
}

/// Calls `visit` with the place of every `separator` outside of brackets. Names are taken apart so often that the calls of
/// an iterator for each byte would be most of the time of an answer in a build without optimisation.
fn each_separator(text: &str, separator: &str, mut visit: impl FnMut(usize)) {
    let ([first, ..], [.., last]) = (separator.as_bytes(), separator.as_bytes()) else { return };
    let (mut depth, mut before, mut rest) = (0_usize, 0, text.as_bytes());
    while let [byte, after @ ..] = rest {
        if depth == 0 && *byte == *first && rest.starts_with(separator.as_bytes()) {
            visit(text.len() - rest.len());
            rest = rest.get(separator.len()..).unwrap_or_default();
            before = *last;
            continue;
        }
        match *byte {
            b'<' | b'(' | b'[' | b'{' => depth += 1,
            // The arrow of a function type closes nothing.
            b'>' if before == b'-' || before == b'=' => {}
            b'>' | b')' | b']' | b'}' if depth > 0 => depth -= 1,
            _ => {}
        }
        before = *byte;
        rest = after;
    }
}

/// The linkage name of a symbol as debug information has it: LLVM makes a private symbol visible to another unit as
/// `NAME.llvm.NUMBER`, in the table of symbols alone.
pub(crate) fn without_llvm_suffix(symbol: &[u8]) -> &[u8] {
    let suffix = search::find(symbol, b".llvm.");
    suffix.and_then(|end| symbol.get(..end)).unwrap_or(symbol)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suffixes_of_llvm_are_no_part_of_a_name() {
        for (symbol, name) in
            [("_ZN3app5TABLE17h0E.llvm.154", "_ZN3app5TABLE17h0E"), ("main", "main"), ("", "")]
        {
            assert_eq!(without_llvm_suffix(symbol.as_bytes()), name.as_bytes());
        }
    }

    #[test]
    fn coroutines_are_called_as_they_were_written() {
        let legacy = "_ZN3web6shapes6Server6handle28_$u7b$$u7b$closure$u7d$$u7d$17h3dbddf61c4dcf100E";
        let of_trait = "_ZN60_$LT$web..shapes..Server$u20$as$u20$web..shapes..Handler$GT$4call28_$u7b$$u7b$closure$u7d$$u7d$17had8efc4c7d112687E";
        for (path, linkage_name, expected) in [
            ("app::main::{async_fn_env#0}", None, "app::main"),
            ("app::run::{async_fn_env#0}<alloc::string::String>", None, "app::run"),
            ("app::main::{async_block_env#1}", None, "app::main::{async block}"),
            ("a::f::{async_fn#0}::{closure#1}::{async_block_env#0}", None, "a::f::{closure}::{async block}"),
            ("web::shapes::{impl#0}::handle::{async_fn_env#0}", Some(legacy), "web::shapes::Server::handle"),
            ("web::shapes::{impl#0}::handle::{async_fn_env#0}", None, "web::shapes::handle"),
            ("web::shapes::{impl#2}::call::{async_fn_env#0}", Some(of_trait), "web::shapes::Server::call"),
        ] {
            assert_eq!(coroutine(path, linkage_name), expected);
        }
    }

    #[test]
    fn types_keep_what_tells_them_apart() {
        for (name, expected) in [
            ("tokio::sync::mpsc::bounded::Receiver<u8>", "tokio::sync::mpsc::bounded::Receiver<u8>"),
            ("a::Map<b::c::{async_fn_env#0}, fn(u8) -> b::d::E>", "a::Map<c, fn(u8) -> b::d::E>"),
            (
                "alloc::boxed::Box<dyn core::future::future::Future<Output=()>, alloc::alloc::Global>",
                "alloc::boxed::Box<dyn Future<Output=()>>",
            ),
            (
                "a::Read<alloc::boxed::Box<(dyn b::AsyncRead + core::marker::Send), alloc::alloc::Global>>",
                "a::Read<Box<dyn AsyncRead>>",
            ),
            ("a::A<b::B<c::C<d::D>>>", "a::A<B<C<…>>>"),
        ] {
            assert_eq!(ty(name), expected);
        }
    }

    #[test]
    fn what_a_connection_carries() {
        let own = |krate: &str| matches!(krate, "app" | "shop");
        for (name, expected) in [
            (
                "futures_util::future::map::Map<hyper::Connection<Io<tokio::net::TcpStream>, hyper::ServiceFn<app::hello, hyper::Incoming>>, app::main::{closure_env#0}>",
                Some("app::hello"),
            ),
            (
                "axum::serve::handle_connection::{async_block_env#0}<tokio::TcpListener, axum::Router<()>>",
                None,
            ),
            ("lib::Task<fn(u8) -> core::Option<u8>, (shop::Cart, app::Other)>", Some("shop::Cart")),
            (
                "lib::Task<app::serve::{closure_env#0}::{async_block_env#1}>",
                Some("app::serve::{closure}::{async block}"),
            ),
            ("lib::Own", None),
            ("", None),
            (">>>app::x", Some("app::x")),
        ] {
            assert_eq!(carried(name, own).as_deref(), expected, "{name}");
        }
    }

    #[test]
    fn bodies_and_items() {
        assert_eq!(body_of("a::f::{async_fn_env#0}<T>").as_deref(), Some("a::f::{async_fn#0}"));
        assert_eq!(body_of("a::f"), None);
        assert_eq!(enclosing_item("a::f<u8>::{async_fn#0}::{closure#0}"), Some("f"));
        let symbol = b"_ZN3web6shapes5deepr28_$u7b$$u7b$closure$u7d$$u7d$17h3dbddf61c4dcf100E";
        assert_eq!(item_of_closure(symbol).as_deref(), Some(&b"deepr"[..]));
        assert_eq!(item_of_closure(b"_ZN3web4main17h3dbddf61c4dcf100E"), None);
        assert_eq!(item_of_closure(b"_ZN99"), None);
    }

    #[test]
    fn symbols_of_a_crate_and_a_path() {
        let method = b"_ZN3web6shapes6Server6handle28_$u7b$$u7b$closure$u7d$$u7d$17h3dbddf61c4dcf100E";
        let of_trait = b"_ZN60_$LT$web..shapes..Server$u20$as$u20$app..Handler$GT$4call17had8efc4c7d112687E";
        let v0 = b"_RNCNvNtCs1234_3web6shapes6handle0B5_";
        for (symbol, of_web) in [
            (&method[..], true),
            (of_trait, true),
            (v0, true),
            (b"_ZN4webs4mainE", false),
            (b"_ZN3app3webE", false),
            (b"_RNvCs1_4webs4main", false),
            (b"_R", false),
            (b"_ZN", false),
            (b"main", false),
        ] {
            assert_eq!(is_in_crate(symbol, "web"), of_web, "{}", String::from_utf8_lossy(symbol));
        }
        assert_eq!(likeness("web::shapes::{impl#0}::handle::{async_fn#0}", method), 2);
        assert_eq!(likeness("web::shapes::handle::{async_fn#0}", v0), 3);
        assert_eq!(likeness("web::other::{impl#0}::handle::{async_fn#0}", method), 1);
        assert_eq!(likeness("app::handle::{async_fn#0}", method), 0);
    }
}
