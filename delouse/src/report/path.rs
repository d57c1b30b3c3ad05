//! Source paths as people know them.

/// `path` without what says nothing: the current directory, cargo's registry, the sysroot's hash.
///
/// `/home/ann/.cargo/registry/src/index-1949cf8c6b5b557f/tokio-1.54.1/src/x.rs` becomes
/// `tokio-1.54.1/src/x.rs`, `/rustc/5980…/library/core/src/y.rs` becomes `core/src/y.rs`.
pub(crate) fn shorten<'p>(path: &'p str, current_dir: &str) -> &'p str {
    if let Some(rest) =
        after_directory(path, "/registry/src/").or_else(|| after_directory(path, "/git/checkouts/"))
    {
        return rest;
    }
    if let Some((_, rest)) = path.strip_prefix("/rustc/").and_then(|p| p.split_once("/library/")) {
        return rest;
    }
    path.strip_prefix(current_dir)
        .and_then(|p| p.strip_prefix('/'))
        .filter(|_| !current_dir.is_empty())
        .unwrap_or(path)
}

/// What follows `marker` and one more directory.
fn after_directory<'p>(path: &'p str, marker: &str) -> Option<&'p str> {
    path.split_once(marker)?.1.split_once('/').map(|(_, rest)| rest)
}

#[cfg(test)]
mod tests {
    use super::shorten;

    #[test]
    fn what_says_nothing_goes() {
        for (long, short) in [
            ("/h/.cargo/registry/src/index-19/tokio-1.54.1/src/x.rs", "tokio-1.54.1/src/x.rs"),
            ("/h/.cargo/git/checkouts/repo-1234/abcd/src/x.rs", "abcd/src/x.rs"),
            ("/rustc/5980/library/core/src/y.rs", "core/src/y.rs"),
            ("/home/ann/app/src/main.rs", "src/main.rs"),
            ("/home/ann/application/src/main.rs", "/home/ann/application/src/main.rs"),
            ("src/main.rs", "src/main.rs"),
            ("/registry/src/", "/registry/src/"),
            ("", ""),
        ] {
            assert_eq!(shorten(long, "/home/ann/app"), short, "{long}");
        }
        assert_eq!(shorten("/src/main.rs", ""), "/src/main.rs");
    }
}
