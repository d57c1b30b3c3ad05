//! Source paths as people know them.

/// Whose code a source file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Origin {
    /// core, alloc, std and what they are built from.
    Std,
    /// A crate from a registry or a git repository, or a vendored one.
    Dependency,
    /// The program's workspace, or a path dependency.
    Own,
}

/// The path as a reader looks for it, and whose code it is. `compiled_in` is the directory that the compiler
/// ran in (`DW_AT_comp_dir`): paths of a workspace are shown as panics show them, relative to it.
///
/// `/rustc/HASH/library/std/src/io.rs` becomes `std/src/io.rs`,
/// `…/registry/src/INDEX/tokio-1.54.1/src/time.rs` becomes `tokio-1.54.1/src/time.rs`.
pub(crate) fn shorten(path: &str, compiled_in: Option<&str>) -> (String, Origin) {
    for library in ["/rustlib/src/rust/library/", "/library/"] {
        if let Some((before, after)) = path.split_once(library)
            && (library != "/library/" || is_rustc_source(before))
        {
            return (after.to_owned(), Origin::Std);
        }
    }
    // Crates that std is built from: hashbrown, gimli, …
    let vendored = path.split_once("/vendor/").filter(|(before, _)| is_rustc_source(before));
    if let Some(after) = path.strip_prefix("/rust/deps/").or(vendored.map(|(_, after)| after)) {
        return (after.to_owned(), Origin::Std);
    }
    if let Some((_, after)) = path.split_once("/registry/src/")
        && let Some((_index, after)) = after.split_once('/')
    {
        return (after.to_owned(), Origin::Dependency);
    }
    if let Some((_, after)) = path.split_once("/git/checkouts/")
        && let Some((repository, after)) = after.split_once('/')
    {
        let name = repository.rsplit_once('-').map_or(repository, |(name, _hash)| name);
        return (format!("{name}/{after}"), Origin::Dependency);
    }
    let relative = compiled_in
        .filter(|dir| !dir.is_empty())
        .and_then(|dir| path.strip_prefix(dir.trim_end_matches('/')))
        .and_then(|rest| rest.strip_prefix('/'))
        .unwrap_or(path);
    let relative = relative.strip_prefix("./").unwrap_or(relative);
    if let Some(vendored) =
        relative.strip_prefix("vendor/").or(relative.split_once("/vendor/").map(|(_, v)| v))
    {
        return (vendored.to_owned(), Origin::Dependency);
    }
    let directory = compiled_in.unwrap_or_default();
    if is_rustc_source(directory)
        || directory.split_once("/library").is_some_and(|(of, _)| is_rustc_source(of))
    {
        return (relative.to_owned(), Origin::Std);
    }
    (relative.to_owned(), Origin::Own)
}

/// `/rustc/HASH`, to which the released std's paths are remapped; or the directory that a distribution built it in:
/// `/usr/src/rustc-1.96.0` (Debian), `/builddir/build/BUILD/rustc-1.95.0-src` (Fedora), `/build/rustc-1.95.0-src` (Nix).
fn is_rustc_source(path: &str) -> bool {
    let released =
        path.strip_prefix("/rustc/").is_some_and(|rest| rest.len() >= 40 && !rest.starts_with('/'));
    released || path.rsplit('/').next().is_some_and(is_rustc_release)
}

/// `rustc-1.96.0`, `rustc-1.95.0-src`, `rustc-beta-src`, `rust-1.94.1`.
fn is_rustc_release(name: &str) -> bool {
    let version = name.strip_prefix("rustc-").or(name.strip_prefix("rust-"));
    version.is_some_and(|version| {
        let released =
            version.strip_prefix("1.").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
        released || matches!(version, "beta-src" | "nightly-src" | "beta" | "nightly")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "/rustc/59807616e1fa2540724bfbac14d7976d7e4a3860";

    #[test]
    fn paths_are_shortened_to_what_people_know() {
        let cases = [
            (format!("{HASH}/library/std/src/thread/mod.rs"), None, "std/src/thread/mod.rs", Origin::Std),
            (
                format!("{HASH}/library/core/src/ops/function.rs"),
                Some("/home/me/app"),
                "core/src/ops/function.rs",
                Origin::Std,
            ),
            (
                "/rust/deps/hashbrown-0.15.2/src/raw.rs".into(),
                Some(HASH),
                "hashbrown-0.15.2/src/raw.rs",
                Origin::Std,
            ),
            (
                "/home/me/.rustup/toolchains/stable/lib/rustlib/src/rust/library/alloc/src/vec/mod.rs".into(),
                None,
                "alloc/src/vec/mod.rs",
                Origin::Std,
            ),
            (
                "/home/me/.cargo/registry/src/index-1949cf8c6b5b557f/tokio-1.54.1/src/time/sleep.rs".into(),
                None,
                "tokio-1.54.1/src/time/sleep.rs",
                Origin::Dependency,
            ),
            (
                "/home/me/.cargo/git/checkouts/hyper-0123456789abcdef/89ab012/src/lib.rs".into(),
                None,
                "hyper/89ab012/src/lib.rs",
                Origin::Dependency,
            ),
            ("/home/me/app/src/main.rs".into(), Some("/home/me/app"), "src/main.rs", Origin::Own),
            (
                "/home/me/app2/src/main.rs".into(),
                Some("/home/me/app"),
                "/home/me/app2/src/main.rs",
                Origin::Own,
            ),
            ("src/main.rs".into(), None, "src/main.rs", Origin::Own),
            (
                "/home/me/app/vendor/tokio/src/lib.rs".into(),
                Some("/home/me/app"),
                "tokio/src/lib.rs",
                Origin::Dependency,
            ),
            ("/home/me/library/src/lib.rs".into(), Some("/home/me/library"), "src/lib.rs", Origin::Own),
            ("".into(), None, "", Origin::Own),
            // Distributions build std where they like, without remapping.
            ("/usr/src/rustc-1.96.0/library/std/src/io.rs".into(), None, "std/src/io.rs", Origin::Std),
            (
                "/builddir/build/BUILD/rust-1.95.0-build/rustc-1.95.0-src/library/core/src/panic.rs".into(),
                None,
                "core/src/panic.rs",
                Origin::Std,
            ),
            (
                "/build/rustc-1.95.0-src/library/alloc/src/vec/mod.rs".into(),
                None,
                "alloc/src/vec/mod.rs",
                Origin::Std,
            ),
            (
                "/usr/src/rustc-1.96.0/vendor/hashbrown-0.15.2/src/raw.rs".into(),
                None,
                "hashbrown-0.15.2/src/raw.rs",
                Origin::Std,
            ),
            (
                "src/panicking.rs".into(),
                Some("/usr/src/rustc-1.96.0/library/std"),
                "src/panicking.rs",
                Origin::Std,
            ),
            (
                "/home/me/rustc-tools/library/src/lib.rs".into(),
                None,
                "/home/me/rustc-tools/library/src/lib.rs",
                Origin::Own,
            ),
            ("/home/me/rust-1/vendor/tokio/src/lib.rs".into(), None, "tokio/src/lib.rs", Origin::Dependency),
        ];
        for (path, directory, short, origin) in cases {
            assert_eq!(shorten(&path, directory), (short.to_owned(), origin), "{path}");
        }
    }
}
