//! Dates, hours and spans of time. Dates and hours are read and printed in local time, like nft's, and kept in
//! UTC: packets are compared with that.

use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

/// Seconds that local time is ahead of UTC at so many seconds since 1970.
type Zone = fn(i64) -> i64;

/// What says the time zone: local time is UTC where nothing does.
static ZONE: OnceLock<Zone> = OnceLock::new();

/// Says what local time is; the first to say so is heard.
pub fn use_zone(zone: Zone) {
    let _ = ZONE.set(zone);
}

/// Seconds that local time is ahead at a second of UTC.
fn ahead(second: i64) -> i64 {
    ZONE.get().map_or(0, |zone| zone(second))
}

/// The same now.
fn ahead_now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    ahead(since.map_or(0, |since| since.as_secs().cast_signed()))
}

/// Seconds since midnight, so many seconds later.
fn turned(second: u128, by: i64) -> u128 {
    let day = DAY as i64;
    i64::try_from(second).map_or(second, |second| (second + by).rem_euclid(day) as u128)
}

const NS: u128 = 1_000_000_000;
const DAY: u128 = 86_400;

/// Reads a date as nanoseconds since 1970: `2026-11-23 10:00:00`, `2026-11-23 10:00`, `2026-11-23`,
/// or seconds.
///
/// # Errors
///
/// Where it is none of these.
pub fn parse_time(text: &str) -> Result<u128, String> {
    if let Some(seconds) = super::parse_integer(text) {
        return seconds
            .checked_mul(NS)
            .filter(|&ns| ns <= u128::from(u64::MAX))
            .ok_or_else(|| "Could not parse time: out of range".to_owned());
    }
    let unknown = || "Cannot parse date".to_owned();
    let (date, clock) = match text.split_once([' ', 'T']) {
        Some((date, clock)) => (date, Some(clock)),
        None => (text, None),
    };
    let mut parts = date.splitn(3, '-').map(|part| part.parse::<u64>().ok());
    let mut part = || parts.next().flatten().ok_or_else(unknown);
    let (year, month, day) = (part()?, part()?, part()?);
    if !(1970..=2554).contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return Err(unknown());
    }
    let seconds = match clock {
        Some(clock) => parse_clock(clock).ok_or_else(unknown)?,
        None => 0,
    };
    let local = days_from_civil(year, month, day) * DAY + seconds;
    // The offset is that of the moment in UTC, which the second step is right about but for the hours around a
    // change.
    let utc = i64::try_from(local).map_err(|_| unknown())?;
    let utc = utc - ahead(utc - ahead(utc));
    let ns = u128::try_from(utc).map_err(|_| unknown())? * NS;
    Some(ns)
        .filter(|&ns| ns <= u128::from(u64::MAX))
        .ok_or_else(unknown)
}

/// Nanoseconds since 1970 as `2026-11-23 10:00:00`.
pub fn print_time(value: u128) -> String {
    let seconds = value / NS;
    let by = ahead(i64::try_from(seconds).unwrap_or(i64::MAX));
    let seconds = seconds.saturating_add_signed(by.into());
    let (days, clock) = (seconds / DAY, seconds % DAY);
    let (year, month, day) = civil_from_days(days);
    let (hour, minute, second) = (clock / 3600, clock / 60 % 60, clock % 60);
    format!("\"{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}\"")
}

/// Reads an hour of the day as seconds: `10:00`, `10:00:05`, or seconds.
///
/// # Errors
///
/// Where it is none of these.
pub fn parse_hour(text: &str) -> Result<u128, String> {
    if let Some(seconds) = super::parse_integer(text) {
        return Ok(seconds);
    }
    let clock = parse_clock(text).ok_or_else(|| format!("Can't parse '{text}' as an hour"))?;
    Ok(turned(clock, -ahead_now()))
}

/// Seconds as `10:00`, or `10:00:05`.
pub fn print_hour(value: u128) -> String {
    let value = match ahead_now() {
        0 => value,
        by => turned(value, by),
    };
    let (hour, minute, second) = (value / 3600, value / 60 % 60, value % 60);
    if second == 0 {
        format!("\"{hour:02}:{minute:02}\"")
    } else {
        format!("\"{hour:02}:{minute:02}:{second:02}\"")
    }
}

/// `Monday`, in any case, or its first letters.
pub fn day_by_name(text: &str) -> Option<u128> {
    if text.len() < 3 {
        return None;
    }
    let days = [
        "sunday",
        "monday",
        "tuesday",
        "wednesday",
        "thursday",
        "friday",
        "saturday",
    ];
    let text = text.to_ascii_lowercase();
    (0..)
        .zip(days)
        .find(|(_, day)| day.starts_with(&text))
        .map(|(number, _)| number)
}

/// `1d2h3m4s5ms` as milliseconds.
pub fn parse_span(text: &str) -> Option<u64> {
    let mut total: u64 = 0;
    let mut rest = text;
    let mut last = 0;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, after) = rest.split_at_checked(digits)?;
        let number: u64 = number.parse().ok()?;
        let (rank, unit, length) = if after.starts_with("ms") {
            (5, 1, 2)
        } else {
            match after.as_bytes().first()? {
                b'w' => (1, 7 * 86_400_000, 1),
                b'd' => (1, 86_400_000, 1),
                b'h' => (2, 3_600_000, 1),
                b'm' => (3, 60_000, 1),
                b's' => (4, 1000, 1),
                _ => return None,
            }
        };
        if rank <= last {
            return None;
        }
        last = rank;
        total = total.checked_add(number.checked_mul(unit)?)?;
        rest = after.get(length..)?;
    }
    (last > 0).then_some(total)
}

/// Milliseconds as `1d2h3m4s5ms`.
pub fn print_span(ms: u64) -> String {
    let mut out = String::new();
    let mut left = ms;
    for (unit, name) in [
        (86_400_000, "d"),
        (3_600_000, "h"),
        (60_000, "m"),
        (1000, "s"),
        (1, "ms"),
    ] {
        if left >= unit {
            out.push_str(&format!("{}{name}", left / unit));
            left %= unit;
        }
    }
    if out.is_empty() {
        out.push_str("0s");
    }
    out
}

fn parse_clock(text: &str) -> Option<u128> {
    let mut parts = text.splitn(3, ':').map(|part| {
        let digits = (1..=2).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit());
        digits.then(|| part.parse::<u128>().ok()).flatten()
    });
    let hour = parts.next()??;
    let minute = parts.next()??;
    let second = match parts.next() {
        Some(second) => second?,
        None => 0,
    };
    (hour < 24 && minute < 60 && second < 60).then_some(hour * 3600 + minute * 60 + second)
}

/// Days since 1970-01-01 of a date of the Gregorian calendar, counted in years that start in March.
fn days_from_civil(year: u64, month: u64, day: u64) -> u128 {
    let year = if month <= 2 { year - 1 } else { year };
    let month = (month + 9) % 12;
    let day_of_year = (153 * month + 2) / 5 + day - 1;
    let days = year * 365 + year / 4 - year / 100 + year / 400 + day_of_year;
    u128::from(days.saturating_sub(719_468))
}

fn civil_from_days(days: u128) -> (u128, u128, u128) {
    let days = days + 719_468;
    let era = days / 146_097;
    let day_of_era = days % 146_097;
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 {
        shifted + 3
    } else {
        shifted - 9
    };
    let year = year_of_era + era * 400 + u128::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_round_trip() {
        for text in [
            "2026-11-23 10:00:00",
            "1970-01-01 00:00:00",
            "2000-02-29 23:59:59",
        ] {
            assert_eq!(
                print_time(parse_time(text).expect("a date")),
                format!("\"{text}\"")
            );
        }
        assert_eq!(parse_time("1970-01-02"), Ok(86_400 * NS));
        assert!(parse_time("2026-13-01").is_err());
    }

    #[test]
    fn spans() {
        assert_eq!(parse_span("1d2h3m4s5ms"), Some(93_784_005));
        assert_eq!(print_span(93_784_005), "1d2h3m4s5ms");
        assert_eq!(parse_span("5x"), None);
        assert_eq!(parse_span("1s1h"), None);
    }
}
