//! Searches for bytes in large sections.
//!
//! By the C library, which is optimised in any build: a crate would be compiled with the program's profile, in a dev build
//! without optimisation.

/// Where `wanted` is in `bytes` first.
pub(crate) fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    // SAFETY: both ranges are those of slices, and only read.
    let found =
        unsafe { libc::memmem(bytes.as_ptr().cast(), bytes.len(), wanted.as_ptr().cast(), wanted.len()) };
    (!found.is_null()).then(|| found.addr() - bytes.as_ptr().addr())
}

/// All places of `wanted` in `bytes`, in order, without those that overlap the one before.
pub(crate) fn each(bytes: &[u8], wanted: &[u8]) -> impl Iterator<Item = usize> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let found = at + find(bytes.get(at..)?, wanted)?;
        at = found + wanted.len().max(1);
        Some(found)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_places_are_found() {
        let places =
            |bytes: &str, wanted: &str| each(bytes.as_bytes(), wanted.as_bytes()).collect::<Vec<_>>();
        let none: [usize; 0] = [];
        assert_eq!(places("abcabcab", "ab"), [0, 3, 6]);
        assert_eq!(places("aaaa", "aa"), [0, 2]);
        assert_eq!(places("abc", "d"), none);
        assert_eq!(places("", "a"), none);
        assert_eq!(places("ab", "abc"), none);
        assert_eq!(places("ab", ""), [0, 1, 2], "and it ends");
    }
}
