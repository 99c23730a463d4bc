//! The time that a template shows, as Python's `strftime` writes it.

use serde::{Deserialize, Serialize};

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const WEEKDAYS: [&str; 7] =
    ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
const DAY: i64 = 86_400;

/// A moment as a template shows it: seconds since 1970-01-01 00:00 on the clock of its reader.
///
/// It is recorded with what was rendered, so that the same bytes can be rendered again; nothing
/// here reads the system's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Clock(i64);

/// A day of the calendar.
struct Date {
    year: i64,
    /// From 1.
    month: i64,
    /// From 1.
    day: i64,
}

impl Clock {
    /// Makes a clock that shows a Unix time, in UTC.
    pub fn from_unix(seconds: i64) -> Self {
        Self(seconds)
    }

    /// Returns its Unix time.
    pub fn unix(self) -> i64 {
        self.0
    }

    fn days(self) -> i64 {
        self.0.div_euclid(DAY)
    }

    /// Returns the date by the proleptic Gregorian calendar, as Python's `datetime` has it.
    fn date(self) -> Date {
        // Years begin in March here, so that the day of a leap year comes last.
        let days = self.days() + 719_468;
        let (era, day) = (days.div_euclid(146_097), days.rem_euclid(146_097));
        let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
        let day = day - (365 * year + year / 4 - year / 100);
        let month = (5 * day + 2) / 153;
        let day = day - (153 * month + 2) / 5 + 1;
        let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
        Date { year: era * 400 + year + next, month, day }
    }

    /// Writes the time by a format of `strftime`, in English.
    pub(super) fn format(self, format: &str) -> Result<String, String> {
        let mut out = String::new();
        let mut rest = format.chars();
        while let Some(c) = rest.next() {
            if c != '%' {
                out.push(c);
                continue;
            }
            let mut directive = rest.next();
            let bare = directive == Some('-');
            if bare {
                directive = rest.next();
            }
            let written = directive.and_then(|directive| self.written(directive, bare));
            let Some(written) = written else {
                let known = "%Y %m %d %b %B %a %A %H %M %S %y %j %p %I %e %%, %-d and the like";
                return Err(format!("strftime_now of {format:?}: known are {known}"));
            };
            out.push_str(&written);
        }
        Ok(out)
    }

    /// Returns what a directive stands for; `bare` numbers are not filled up.
    fn written(self, directive: char, bare: bool) -> Option<String> {
        let date = self.date();
        let second = self.0.rem_euclid(DAY);
        let hour = second / 3_600;
        let number = |value: i64, width: usize| match bare {
            true => value.to_string(),
            false => format!("{value:0width$}"),
        };
        let named = |names: &[&str], at: i64, len: usize| {
            let name = usize::try_from(at).ok().and_then(|at| names.get(at))?;
            name.get(..len.min(name.len())).filter(|_| !bare).map(str::to_owned)
        };
        let weekday = (self.days() + 4).rem_euclid(7);
        match directive {
            'Y' => Some(date.year.to_string()),
            'y' => Some(number(date.year.rem_euclid(100), 2)),
            'm' => Some(number(date.month, 2)),
            'd' => Some(number(date.day, 2)),
            'e' if bare => Some(date.day.to_string()),
            'e' => Some(format!("{:2}", date.day)),
            'j' => Some(number(self.day_of_year(), 3)),
            'H' => Some(number(hour, 2)),
            'I' => Some(number((hour + 11) % 12 + 1, 2)),
            'M' => Some(number(second / 60 % 60, 2)),
            'S' => Some(number(second % 60, 2)),
            'B' => named(&MONTHS, date.month - 1, 9),
            'b' => named(&MONTHS, date.month - 1, 3),
            'A' => named(&WEEKDAYS, weekday, 9),
            'a' => named(&WEEKDAYS, weekday, 3),
            'p' => named(&["AM", "PM"], hour / 12, 2),
            '%' => named(&["%"], 0, 1),
            _ => None,
        }
    }

    fn day_of_year(self) -> i64 {
        let date = self.date();
        let leap = date.year % 4 == 0 && (date.year % 100 != 0 || date.year % 400 == 0);
        let before = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];
        let before = usize::try_from(date.month - 1).ok().and_then(|month| before.get(month));
        before.copied().unwrap_or(0) + date.day + i64::from(leap && date.month > 2)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn days_follow_one_another() {
        let mut last = String::new();
        let (mut days, mut year) = (0, 1899);
        for day in -25_567..60_000 {
            let clock = Clock::from_unix(day * DAY + 5);
            let date = clock.date();
            days = if date.year == year { days + 1 } else { 1 };
            year = date.year;
            assert_eq!(clock.day_of_year(), days);
            let text = clock.format("%Y-%m-%d").unwrap();
            assert!(text > last, "{text} after {last}");
            last = text;
        }
        assert_eq!(last, "2134-04-10");
    }

    #[test]
    fn what_is_not_known_is_refused() {
        for format in ["%Q", "%", "%-", "%-B", "%-%", "100%"] {
            assert!(Clock::from_unix(0).format(format).is_err(), "{format}");
        }
    }
}
