//! Parses numbers and fields in files of `/proc`. Async-signal-safe: allocates nothing, does not panic.

/// The first word after `key` in the first line that starts with `key`, as in `/proc/PID/status`.
pub(crate) fn status_field<'a>(text: &'a [u8], key: &[u8]) -> Option<&'a [u8]> {
    let value = text.split(|&b| b == b'\n').find_map(|line| line.strip_prefix(key))?;
    value.split(u8::is_ascii_whitespace).find(|word| !word.is_empty())
}

/// The size in bytes after `key`, which the kernel writes in kilobytes.
pub(crate) fn size_field(text: &str, key: &str) -> Option<u64> {
    Some(status_field(text.as_bytes(), key.as_bytes()).and_then(decimal)?.saturating_mul(1024))
}

/// Parses a decimal number; `None` if any byte is not a digit.
pub(crate) fn decimal(word: &[u8]) -> Option<u64> {
    digits(word, 10)
}

/// Parses a hexadecimal number without `0x`; `None` if any byte is not a digit.
pub(crate) fn hexadecimal(word: &[u8]) -> Option<u64> {
    digits(word, 16)
}

fn digits(word: &[u8], radix: u32) -> Option<u64> {
    if word.is_empty() {
        return None;
    }
    word.iter().try_fold(0_u64, |number, &byte| {
        let digit = char::from(byte).to_digit(radix)?;
        number.checked_mul(u64::from(radix))?.checked_add(u64::from(digit))
    })
}
