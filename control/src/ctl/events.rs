//! `netdevctl events`: events as they come.

use super::render::cell;
use super::{Client, Failure};
use serde_json::Value;
use std::io::Write;

/// Prints events, `count` of them or until the daemon goes; as JSON as they came, an event a line.
///
/// # Errors
/// The connection ended without a `SHUTDOWN` event before, or the output's.
pub(super) fn events(
    client: &mut Client,
    count: Option<u64>,
    json: bool,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let mut shown = 0;
    let mut ending = false;
    while count.is_none_or(|count| shown < count) {
        let Some(event) = client.event()? else {
            let lost = || Failure::Connection("the daemon closed the connection".to_owned());
            return ending.then_some(()).ok_or_else(lost);
        };
        match json {
            true => writeln!(out, "{event}")?,
            false => writeln!(out, "{}", line(&event))?,
        }
        out.flush()?;
        ending = event["event"] == "SHUTDOWN";
        shown += 1;
    }
    Ok(())
}

/// `TIME NAME member=value...`
fn line(event: &Value) -> String {
    let stamp = &event["timestamp"];
    let mut text = match (stamp["seconds"].as_i64(), stamp["microseconds"].as_u64()) {
        (Some(seconds), Some(micros)) if seconds >= 0 => utc(seconds, micros),
        _ => "-".to_owned(),
    };
    text.push(' ');
    text.push_str(&cell(&event["event"]));
    for (name, value) in event["data"].as_object().into_iter().flatten() {
        text.push_str(&format!(" {name}={}", cell(value)));
    }
    text
}

/// Seconds since 1970 as `2026-01-31T12:34:56.000001Z`.
fn utc(seconds: i64, micros: u64) -> String {
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let (year, month, day) = date(days);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z")
}

/// The Gregorian date of a day counted from 1970-01-01. Years are counted from March, so that a leap day is the last
/// of its year.
fn date(days: i64) -> (i64, i64, i64) {
    // Days since 0000-03-01, in eras of 400 years.
    let day = days + 719_468;
    let (era, of_era) = (day.div_euclid(146_097), day.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let day_of_month = of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + i64::from(month <= 2), month, day_of_month)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_line_has_the_time_the_name_and_the_data() {
        let event = json!({"timestamp": {"seconds": 1_709_210_096, "microseconds": 7},
            "event": "NIC_RX_FILTER_CHANGED", "data": {"name": "n0", "path": "/machine"}});
        assert_eq!(line(&event), "2024-02-29T12:34:56.000007Z NIC_RX_FILTER_CHANGED name=n0 path=/machine");
        let stopped = json!({"timestamp": {"seconds": -1, "microseconds": -1}, "event": "STOP"});
        assert_eq!(line(&stopped), "- STOP");
    }

    #[test]
    fn dates_follow_the_calendar() {
        for (days, expected) in [
            (0, (1970, 1, 1)),
            (-1, (1969, 12, 31)),
            (11_016, (2000, 2, 29)),
            (11_017, (2000, 3, 1)),
            (20_454, (2026, 1, 1)),
            (47_540, (2100, 2, 28)),
            (47_541, (2100, 3, 1)),
        ] {
            assert_eq!(date(days), expected);
        }
    }
}
