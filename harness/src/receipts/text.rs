//! Strings with a shape. JSON has one number type, and it is a float: whatever does not fit one exactly (u64,
//! f32, f64) travels as a string with one spelling per value, and the schema holds each to its pattern.

use super::error::{Error, Result};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::{fmt, str::FromStr};

macro_rules! text_type {
    ($(#[$doc:meta])* $name:ident, $expected:literal, $pattern:literal, $check:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// Takes the string if it has the shape.
            ///
            /// # Errors
            /// - [`Error::Text`] if it has not.
            pub fn parse(text: &str) -> Result<$name> {
                let check: fn(&str) -> bool = $check;
                if check(text) { Ok($name(text.to_owned())) } else { Err(Error::text($expected, text)) }
            }

            /// The string.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = Error;
            fn try_from(text: String) -> Result<$name> {
                $name::parse(&text)
            }
        }

        impl FromStr for $name {
            type Err = Error;
            fn from_str(text: &str) -> Result<$name> {
                $name::parse(text)
            }
        }

        impl From<$name> for String {
            fn from(value: $name) -> String {
                value.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "description": $expected, "pattern": $pattern })
            }
        }
    };
}

text_type!(
    /// A SHA-256 digest: 64 lower-case hexadecimal digits.
    Sha256Hex,
    "a SHA-256 digest: 64 lower-case hexadecimal digits",
    "^[0-9a-f]{64}$",
    |text| text.len() == 64 && is_lower_hex(text)
);
text_type!(
    /// An unsigned 64-bit integer as decimal digits, without leading zeros.
    U64,
    "an unsigned 64-bit integer as decimal digits",
    "^(0|[1-9][0-9]{0,19})$",
    |text| text.parse::<u64>().is_ok_and(|value| value.to_string() == text)
);
text_type!(
    /// A finite f32 or f64 as the shortest decimal that reads back to the same value, without an exponent.
    Decimal,
    "a finite number as its shortest decimal, without an exponent",
    "^-?(0|[1-9][0-9]*)(\\.[0-9]*[1-9])?$",
    |text| text.parse::<f64>().is_ok_and(|value| value.is_finite() && value.to_string() == text)
);
text_type!(
    /// A moment in UTC to the second, RFC 3339: `2026-01-31T23:59:59Z`.
    DateTime,
    "a moment in UTC to the second, as 2026-01-31T23:59:59Z",
    "^[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]Z$",
    |text| unix_seconds(text).is_some()
);
text_type!(
    /// The last component of a path: no separator, not `.` or `..`, 1 to 255 bytes.
    FileName,
    "a plain file name: no separator, not . or ..",
    "^(?!\\.\\.?$)[^/\\\\\\u0000-\\u001f]{1,255}$",
    |text| {
        (1..=255).contains(&text.len())
            && text != "."
            && text != ".."
            && !text.chars().any(|c| matches!(c, '/' | '\\' | '\0'..='\x1f'))
    }
);
text_type!(
    /// The name of an operation or an instruction set: lower-case letters, digits, underscores.
    Word,
    "lower-case letters, digits and underscores",
    "^[a-z0-9_]{1,64}$",
    is_word
);
text_type!(
    /// A kernel as `<operation>_<weights>_<activations>/<instruction set>`: `gemv_i2s_i8/avx512vnni`.
    KernelName,
    "a kernel and its instruction set, as gemv_i2s_i8/avx512vnni",
    "^[a-z0-9_]{1,64}/[a-z0-9_]{1,64}$",
    |text| text.split_once('/').is_some_and(|(kernel, isa)| is_word(kernel) && is_word(isa))
);
text_type!(
    /// A name that a plug-in gives itself or a kernel: letters, digits and `. _ / + -`.
    Label,
    "1 to 64 letters, digits and . _ / + -",
    "^[A-Za-z0-9._/+-]{1,64}$",
    |text| (1..=64).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._/+-".contains(&b))
);
text_type!(
    /// The bits of a control register: `0x` and 8 or 16 lower-case hexadecimal digits.
    RegisterBits,
    "register bits: 0x and 8 or 16 lower-case hexadecimal digits",
    "^0x([0-9a-f]{8}|[0-9a-f]{16})$",
    |text| text.strip_prefix("0x").is_some_and(|bits| matches!(bits.len(), 8 | 16) && is_lower_hex(bits))
);

pub(super) fn is_lower_hex(text: &str) -> bool {
    text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

fn is_word(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_'))
}

impl Sha256Hex {
    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Sha256Hex {
        use sha2::Digest;
        Sha256Hex(hex::encode(sha2::Sha256::digest(bytes)))
    }

    /// The digest from its 32 bytes.
    pub fn from_digest(digest: [u8; 32]) -> Sha256Hex {
        Sha256Hex(hex::encode(digest))
    }

    /// The first 12 digits, which name files.
    pub fn short(&self) -> &str {
        &self.0[..12]
    }
}

impl U64 {
    /// The value. A `U64` that exists always has one.
    pub fn get(&self) -> u64 {
        self.0.parse().unwrap_or(u64::MAX)
    }
}

impl From<u64> for U64 {
    fn from(value: u64) -> U64 {
        U64(value.to_string())
    }
}

impl Decimal {
    /// The shortest decimal of `value`; `None` if it is not finite.
    pub fn from_f64(value: f64) -> Option<Decimal> {
        value.is_finite().then(|| Decimal(value.to_string()))
    }

    /// The shortest decimal of `value`, by the rules of f32; `None` if it is not finite.
    pub fn from_f32(value: f32) -> Option<Decimal> {
        value.is_finite().then(|| Decimal(value.to_string()))
    }

    /// The value as f64. A `Decimal` that exists always has one.
    pub fn to_f64(&self) -> f64 {
        self.0.parse().unwrap_or(f64::NAN)
    }
}

impl KernelName {
    /// The kernel: what stands before the slash.
    pub fn name(&self) -> &str {
        self.0.split_once('/').map_or("", |(name, _)| name)
    }

    /// The instruction set: what stands after the slash.
    pub fn isa(&self) -> &str {
        self.0.split_once('/').map_or("", |(_, isa)| isa)
    }
}

impl RegisterBits {
    /// The bits of a 32-bit register (MXCSR).
    pub fn from_u32(bits: u32) -> RegisterBits {
        RegisterBits(format!("0x{bits:08x}"))
    }

    /// The bits of a 64-bit register (FPCR).
    pub fn from_u64(bits: u64) -> RegisterBits {
        RegisterBits(format!("0x{bits:016x}"))
    }

    /// The value. A `RegisterBits` that exists always has one.
    pub fn get(&self) -> u64 {
        u64::from_str_radix(&self.0[2..], 16).unwrap_or(u64::MAX)
    }
}

impl DateTime {
    /// The moment `seconds` after 1970-01-01T00:00:00Z; years past 9999 become the last second of 9999.
    pub fn from_unix(seconds: u64) -> DateTime {
        const LAST: u64 = 253_402_300_799;
        let seconds = seconds.min(LAST);
        let (year, month, day) = civil_from_days(seconds / 86_400);
        let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
        DateTime(format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z"))
    }

    /// The system clock, to the second.
    pub fn now() -> DateTime {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        DateTime::from_unix(since.map_or(0, |since| since.as_secs()))
    }

    /// Seconds after 1970-01-01T00:00:00Z (0 for what lies before).
    pub fn to_unix(&self) -> u64 {
        unix_seconds(&self.0).unwrap_or(0)
    }

    /// The date: `2026-01-31`.
    pub fn date(&self) -> &str {
        &self.0[..10]
    }
}

/// (year, month, day) of the day that is `days` after 1970-01-01 (proleptic Gregorian calendar).
///
/// Source: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", `civil_from_days`.
fn civil_from_days(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468; // days after 0000-03-01
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

/// Days from 1970-01-01 to a date of that day or later, if the calendar has the date.
fn days_from_civil(year: u64, month: u64, day: u64) -> Option<u64> {
    let shifted_year = if month <= 2 { year.checked_sub(1)? } else { year };
    let (era, year_of_era) = (shifted_year / 400, shifted_year % 400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    let days = (era * 146_097 + day_of_era).checked_sub(719_468)?;
    (civil_from_days(days) == (year, month, day)).then_some(days)
}

/// Seconds after 1970 of `2026-01-31T23:59:59Z`; `None` if the shape or the date is wrong.
fn unix_seconds(text: &str) -> Option<u64> {
    let bytes = text.as_bytes();
    let shape = b"0000-00-00T00:00:00Z";
    let fits = |(b, s): (&u8, &u8)| if *s == b'0' { b.is_ascii_digit() } else { b == s };
    if bytes.len() != shape.len() || !bytes.iter().zip(shape).all(fits) {
        return None;
    }
    let number = |range: std::ops::Range<usize>| text.get(range)?.parse::<u64>().ok();
    let (month, day) = (number(5..7)?, number(8..10)?);
    let (hour, minute, second) = (number(11..13)?, number(14..16)?, number(17..19)?);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    Some(days_from_civil(number(0..4)?, month, day)? * 86_400 + hour * 3600 + minute * 60 + second)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_read_back_to_the_same_second() {
        for (text, seconds) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2000-02-29T12:00:00Z", 951_825_600),
            ("2024-12-31T23:59:59Z", 1_735_689_599),
            ("9999-12-31T23:59:59Z", 253_402_300_799),
        ] {
            assert_eq!(DateTime::from_unix(seconds).as_str(), text);
            assert_eq!(DateTime::parse(text).unwrap().to_unix(), seconds);
        }
        for day in (0..80_000).step_by(7) {
            let moment = DateTime::from_unix(day * 86_400 + 1);
            assert_eq!(DateTime::parse(moment.as_str()).unwrap().to_unix(), day * 86_400 + 1);
        }
    }

    #[test]
    fn dates_that_no_calendar_has_are_refused() {
        for text in [
            "2023-02-29T00:00:00Z",
            "2024-13-01T00:00:00Z",
            "2024-04-31T00:00:00Z",
            "2024-01-01T24:00:00Z",
            "2024-01-01T00:00:00+00:00",
            "1969-12-31T23:59:59Z",
            "0000-01-01T00:00:00Z",
        ] {
            assert!(DateTime::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_number_has_one_spelling() {
        for text in ["0.1", "1", "-3.5", "0.9999", "-0", "0.33333334", "0.00000000000000001"] {
            assert_eq!(Decimal::parse(text).unwrap().as_str(), text);
        }
        for text in ["0.10", "1.0", "1e3", "+1", ".5", "NaN", "inf", "", "01"] {
            assert!(Decimal::parse(text).is_err(), "{text}");
        }
        for value in [f32::MIN_POSITIVE, f32::MAX, 1.0 / 3.0, 16_777_216.0, f32::from_bits(1)] {
            let text = Decimal::from_f32(value).unwrap();
            assert_eq!(Decimal::parse(text.as_str()).unwrap().to_f64() as f32, value);
        }
        assert_eq!(Decimal::from_f64(f64::NAN), None);
        assert_eq!(U64::from(u64::MAX).get(), u64::MAX);
        for text in ["18446744073709551616", "007", "-1", "+1", ""] {
            assert!(U64::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn file_names_hold_no_path() {
        for text in ["..", ".", "a/b", "a\\b", "", "a\0", "a\n"] {
            assert!(FileName::parse(text).is_err(), "{text:?}");
        }
        assert!(FileName::parse("..model v1.gguf").is_ok());
    }
}
