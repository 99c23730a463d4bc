//! `ledger pull langfuse`.

use std::time::Duration;

use chrono::{DateTime, NaiveDate, NaiveTime, Utc};

use crate::capture::langfuse::{Asked, Keys, Report, pull};
use crate::cli::{Globals, Output};
use crate::error::{AppError, Kind};

/// Address that is asked where none is named.
const CLOUD: &str = "https://cloud.langfuse.com";
/// Longest time between two rounds, and longest overlap of them: a year, in seconds.
const SECONDS_MAX: f64 = 31_536_000.0;

/// Fetch observations and scores from a Langfuse server through its public API (version 4, or 3).
/// Each observation becomes a span and, where it is a call of a model, a trace; pages are kept as
/// they came.
///
/// The keys of the project stand in the environment: LANGFUSE_PUBLIC_KEY and LANGFUSE_SECRET_KEY.
/// Pulling again goes on where the last pull stopped, and what is known already adds nothing.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Address of the server [default: the environment's LANGFUSE_HOST, or
    /// https://cloud.langfuse.com]
    #[arg(long, env = "LANGFUSE_BASE_URL", value_name = "URL")]
    url: Option<String>,
    /// The address under its older name
    #[arg(long, hide = true, env = "LANGFUSE_HOST", value_name = "URL")]
    host: Option<String>,
    /// Public key of the project
    #[arg(long, hide = true, env = "LANGFUSE_PUBLIC_KEY", hide_env_values = true)]
    public_key: Option<String>,
    /// Secret key of the project
    #[arg(long, hide = true, env = "LANGFUSE_SECRET_KEY", hide_env_values = true)]
    secret_key: Option<String>,
    /// Name of the traces' source
    #[arg(long, default_value = "langfuse", value_name = "NAME")]
    source: String,
    /// Pull what began at this time or later, as 2026-11-22 or 2026-11-22T10:00:00Z [default:
    /// where the last pull stopped, or everything]
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    since: Option<DateTime<Utc>>,
    /// Pull what began before this time
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    until: Option<DateTime<Utc>>,
    /// Rows of a page; lists that allow fewer give fewer
    #[arg(long, default_value_t = 100, value_name = "ROWS",
        value_parser = clap::value_parser!(u64).range(1..=1000))]
    limit: u64,
    /// Go on pulling until interrupted
    #[arg(long)]
    follow: bool,
    /// Seconds between two rounds with --follow
    #[arg(long, default_value = "30", value_name = "SECONDS", value_parser = parse_seconds)]
    every: Duration,
    /// Seconds before the newest known row at which the next round begins: rows come late
    #[arg(long, default_value = "1200", value_name = "SECONDS", value_parser = parse_seconds)]
    overlap: Duration,
    /// Most requests in a minute; 0 sets no limit
    #[arg(long, default_value_t = 60, value_name = "REQUESTS")]
    requests_per_minute: u32,
    /// Seconds before a failed request is sent again; they double with each try
    #[arg(long, default_value = "1", value_name = "SECONDS", value_parser = parse_seconds)]
    retry_delay: Duration,
}

fn parse_seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| format!("{text:?} is no number of seconds"))?;
    if !(0.0..=SECONDS_MAX).contains(&seconds) {
        return Err(format!("it must be from 0 to {SECONDS_MAX} seconds"));
    }
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

fn parse_time(text: &str) -> Result<DateTime<Utc>, String> {
    if let Ok(day) = text.parse::<NaiveDate>() {
        return Ok(day.and_time(NaiveTime::MIN).and_utc());
    }
    let time = DateTime::parse_from_rfc3339(text);
    let time = time.map_err(|_| format!("{text:?} is no time as 2026-11-22T10:00:00Z"))?;
    Ok(time.with_timezone(&Utc))
}

pub(super) fn run(globals: &Globals, args: Args) -> Result<Output, AppError> {
    let asked = asked(args)?;
    let report = globals.with_lab(|lab| pull(lab, &asked))?;
    Output::document(&report, text(&report))
}

fn asked(args: Args) -> Result<Asked, AppError> {
    let told = |text: Option<String>| {
        let text = text.map(|text| text.trim().to_owned());
        text.filter(|text| !text.is_empty())
    };
    let key = |key: Option<String>, name: &str| {
        told(key).ok_or_else(|| {
            let hint = "set LANGFUSE_PUBLIC_KEY and LANGFUSE_SECRET_KEY to a pair of the project's \
                        keys (Settings, API Keys)";
            AppError::hinted(Kind::Usage, format!("{name} is not set"), hint)
        })
    };
    let written = |time: DateTime<Utc>| time.format("%Y-%m-%dT%H:%M:%S%.3fZ").to_string();
    if args.source.trim().is_empty() || args.source.chars().any(char::is_control) {
        let hint = "name it as langfuse, or by the project";
        return Err(AppError::hinted(Kind::Usage, "the source has no name", hint));
    }
    if args.since.is_some() && args.until.is_some() && args.since >= args.until {
        let hint = "--since must be before --until";
        return Err(AppError::hinted(Kind::Usage, "there is no time between the bounds", hint));
    }
    Ok(Asked {
        url: told(args.url).or_else(|| told(args.host)).unwrap_or_else(|| CLOUD.to_owned()),
        keys: Keys {
            public: key(args.public_key, "LANGFUSE_PUBLIC_KEY")?,
            secret: key(args.secret_key, "LANGFUSE_SECRET_KEY")?,
        },
        source: args.source,
        since: args.since.map(written),
        until: args.until.map(written),
        rows: args.limit,
        requests_per_minute: args.requests_per_minute,
        overlap: args.overlap,
        retry_delay: args.retry_delay,
        every: args.follow.then_some(args.every),
    })
}

fn text(report: &Report) -> String {
    let Report { source, origin, api, pages, observations, new, .. } = report;
    let Report { duplicates, revised, traces, rejected, scores, joined, .. } = report;
    let mut text = format!(
        "{origin} ({api}): {pages} pages -> {source}\n{observations} observations: {new} new, \
         {duplicates} duplicates, {revised} revised; {traces} traces, {rejected} rejected\n\
         {scores} scores, {joined} on known traces"
    );
    if report.passed_over > 0 {
        text.push_str(&format!(", {} passed over", report.passed_over));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_days_or_moments() {
        let day = parse_time("2026-11-22").map(|time| time.to_rfc3339());
        assert_eq!(day, Ok("2026-11-22T00:00:00+00:00".to_owned()));
        assert_eq!(parse_time("2026-11-22T01:00:00+01:00"), parse_time("2026-11-22"));
        assert!(parse_time("yesterday").is_err());
        assert!(parse_seconds("-1").is_err());
    }
}
