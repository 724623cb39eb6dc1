//! Sizes, durations and CPU shares as people write them.

use std::time::Duration;

/// A text that is not of the expected form.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not {expected}")]
pub struct UnitError {
    text: String,
    expected: &'static str,
}

fn wrong(text: &str, expected: &'static str) -> UnitError {
    UnitError {
        text: text.to_owned(),
        expected,
    }
}

/// Splits `12.5m` into `12.5` and `m`.
fn number_and_suffix(text: &str) -> (&str, &str) {
    let end = text
        .find(|letter: char| !letter.is_ascii_digit() && letter != '.')
        .unwrap_or(text.len());
    text.split_at(end)
}

/// Thousandths in a decimal number, exactly; more than three decimals are refused rather than rounded.
fn thousandths(text: &str) -> Option<u64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits_only = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !digits_only(whole) || !digits_only(fraction) || fraction.len() > 3 {
        return None;
    }
    if text.contains('.') && fraction.is_empty() {
        return None;
    }
    let fraction: u64 = format!("{fraction:0<3}").parse().ok()?;
    whole
        .parse::<u64>()
        .ok()?
        .checked_mul(1000)?
        .checked_add(fraction)
}

/// A size in bytes: `1073741824`, `512m`, `1.5g`, `2GiB`. Units are powers of 1024, as in Docker's options; case does
/// not matter.
///
/// # Errors
/// When the text is none, or the size does not fit.
pub fn parse_size(text: &str) -> Result<u64, UnitError> {
    const EXPECTED: &str = "a size such as 1073741824, 512m or 2g";
    let (number, suffix) = number_and_suffix(text.trim());
    let shift = match suffix.to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return Err(wrong(text, EXPECTED)),
    };
    let value = thousandths(number).ok_or_else(|| wrong(text, EXPECTED))?;
    let bytes = (u128::from(value) << shift) / 1000;
    u64::try_from(bytes).map_err(|_| wrong(text, EXPECTED))
}

/// A duration: `90` (seconds), `90s`, `15m`, `2h`, `1d`.
///
/// # Errors
/// When the text is none, or the duration does not fit.
pub fn parse_duration(text: &str) -> Result<Duration, UnitError> {
    const EXPECTED: &str = "a duration such as 90, 90s, 15m, 2h or 1d";
    let (number, suffix) = number_and_suffix(text.trim());
    let seconds_per_unit = match suffix {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return Err(wrong(text, EXPECTED)),
    };
    let value = thousandths(number).ok_or_else(|| wrong(text, EXPECTED))?;
    let milliseconds = value
        .checked_mul(seconds_per_unit)
        .ok_or_else(|| wrong(text, EXPECTED))?;
    Ok(Duration::from_millis(milliseconds))
}

/// A number of CPUs, in thousandths: `2`, `0.5`.
///
/// # Errors
/// When the text is none, or finer than a thousandth.
pub fn parse_cpus(text: &str) -> Result<u64, UnitError> {
    thousandths(text.trim()).ok_or_else(|| wrong(text, "a number of CPUs such as 2 or 0.5"))
}

/// A number of dollars, in millionths: `5`, `0.25`.
///
/// # Errors
/// When the text is none, or finer than a millionth.
pub fn parse_dollars(text: &str) -> Result<u64, UnitError> {
    egress::Usd::parse(text.trim())
        .map(egress::Usd::micro_rounded_up)
        .ok_or_else(|| wrong(text, "a number of dollars such as 5 or 0.25"))
}

/// A number of things for people: `1 session`, `3 sessions`.
pub fn counted(count: u64, thing: &str) -> String {
    counted_as(count, thing, &format!("{thing}s"))
}

/// The same of a thing whose plural is a word of its own.
pub fn counted_as(count: u64, one: &str, many: &str) -> String {
    match count {
        1 => format!("1 {one}"),
        count => format!("{count} {many}"),
    }
}

/// A size for people: `2 GiB`, `512 MiB`, `1.5 GiB`, `17 B`.
pub fn format_size(bytes: u64) -> String {
    const UNITS: [(&str, u64); 4] = [
        ("TiB", 1 << 40),
        ("GiB", 1 << 30),
        ("MiB", 1 << 20),
        ("KiB", 1 << 10),
    ];
    for (unit, size) in UNITS {
        if bytes >= size {
            let tenths = u128::from(bytes) * 10 / u128::from(size);
            return if tenths % 10 == 0 {
                format!("{} {unit}", tenths / 10)
            } else {
                format!("{}.{} {unit}", tenths / 10, tenths % 10)
            };
        }
    }
    format!("{bytes} B")
}

/// A duration for people, its two largest units: `1h 5m`, `42s`.
pub fn format_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let parts = [
        (seconds / 86_400, "d"),
        (seconds / 3600 % 24, "h"),
        (seconds / 60 % 60, "m"),
        (seconds % 60, "s"),
    ];
    let shown: Vec<_> = parts
        .iter()
        .skip_while(|(count, _)| *count == 0)
        .take(2)
        .filter(|(count, _)| *count > 0)
        .collect();
    if shown.is_empty() {
        return "0s".to_owned();
    }
    shown
        .iter()
        .map(|(count, unit)| format!("{count}{unit}"))
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sizes_read_as_in_docker() {
        let table = [
            ("0", Some(0)),
            ("1073741824", Some(1 << 30)),
            ("2g", Some(2 << 30)),
            ("2G", Some(2 << 30)),
            ("1.5g", Some(3 << 29)),
            ("512MiB", Some(512 << 20)),
            ("64kb", Some(64 << 10)),
            ("17b", Some(17)),
            (" 1t ", Some(1 << 40)),
            ("", None),
            ("g", None),
            ("-1", None),
            ("1.g", None),
            (".5g", None),
            ("1.2.3m", None),
            ("1e3", None),
            ("2 g", None),
            ("2gg", None),
            ("99999999999999t", None),
        ];
        for (text, expected) in table {
            assert_eq!(parse_size(text).ok(), expected, "{text}");
        }
    }

    #[test]
    fn durations_and_cpus_read_as_written() {
        for (text, seconds) in [
            ("90", 90),
            ("90s", 90),
            ("15m", 900),
            ("2h", 7200),
            ("1d", 86_400),
            ("1.5h", 5400),
        ] {
            assert_eq!(
                parse_duration(text),
                Ok(Duration::from_secs(seconds)),
                "{text}"
            );
        }
        for text in ["", "h", "-1s", "1w", "1 h", "99999999999999999d"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
        for (text, millis) in [
            ("2", Some(2000)),
            ("0.5", Some(500)),
            ("0.0005", None),
            ("x", None),
            ("-1", None),
        ] {
            assert_eq!(parse_cpus(text).ok(), millis, "{text}");
        }
    }

    #[test]
    fn sizes_and_durations_print_short() {
        assert_eq!(format_size(2 << 30), "2 GiB");
        assert_eq!(format_size(3 << 29), "1.5 GiB");
        assert_eq!(format_size(17), "17 B");
        assert_eq!(format_duration(Duration::from_secs(3900)), "1h 5m");
        assert_eq!(format_duration(Duration::from_secs(86_400)), "1d");
        assert_eq!(format_duration(Duration::ZERO), "0s");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]
        #[test]
        fn no_text_makes_a_parser_panic(text in "\\PC{0,24}") {
            let _ = (parse_size(&text), parse_duration(&text), parse_cpus(&text));
        }

        #[test]
        fn plain_bytes_are_read_exactly(bytes in 0u64..1 << 50) {
            prop_assert_eq!(parse_size(&bytes.to_string()), Ok(bytes));
        }
    }
}
