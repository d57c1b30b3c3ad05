//! Times as settings and attributes write them.

use std::time::Duration;

/// `30s`, `500ms`, `2m`, `1h`. `None` for anything else, and for no time at all.
pub(crate) fn parse(text: &str) -> Option<Duration> {
    let (number, unit) = text.split_at(text.find(|first: char| !first.is_ascii_digit())?);
    let milliseconds = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    let total = number.parse::<u64>().ok()?.checked_mul(milliseconds).filter(|total| *total > 0)?;
    Some(Duration::from_millis(total))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units() {
        for (text, millis) in [("30s", 30_000), ("500ms", 500), ("2m", 120_000), ("1h", 3_600_000)] {
            assert_eq!(parse(text), Some(Duration::from_millis(millis)), "{text}");
        }
        for text in
            ["", "s", "7", "0s", "-1s", "1.5s", "1 s", "99999999999999999999s", "9999999999999999999h"]
        {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
