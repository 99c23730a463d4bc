//! The gateway beside its teacher called directly, in the same run and in turns.
//!
//! `gateway-bench LEDGER_BINARY [option...]`; `benches/README.md` says what each figure means.

mod gateway;
mod load;
mod upstream;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::Value;

use gateway::Gateway;
use load::{Side, Times, as_many, at_a_rate};
use upstream::Kind;

pub(crate) type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

const USAGE: &str = "usage: gateway-bench LEDGER_BINARY [option...]
options:
  --seconds <n>  how long each part takes [default: 20]
  --rate <n>     calls a second to each side, the gateway and the teacher [default: 50]";

/// Callers at once where as many are made as are answered.
const CALLERS: usize = 32;
/// How long is called before it counts: connections are opened, and code is read in.
const WARMING: Duration = Duration::from_secs(1);
/// Rounds of each side where as many are made as are answered.
const ROUNDS: u32 = 2;

/// What to measure.
struct Bench {
    binary: PathBuf,
    lasting: Duration,
    rate: f64,
}

fn arguments(given: impl Iterator<Item = String>) -> Outcome<Bench> {
    let (mut binary, mut seconds, mut rate) = (None, 20.0, 50.0);
    let mut given = given;
    while let Some(argument) = given.next() {
        let mut number = || -> Outcome<f64> {
            let value = given.next().ok_or(format!("{argument} needs a value\n{USAGE}"))?;
            let number: f64 = value.parse().map_err(|_| format!("{value:?} is no number"))?;
            let fits = number.is_finite() && number > 0.0;
            if fits { Ok(number) } else { Err(format!("{argument} must be above 0").into()) }
        };
        match argument.as_str() {
            "--seconds" => seconds = number()?,
            "--rate" => rate = number()?,
            other if other.starts_with("--") => return Err(format!("{other}?\n{USAGE}").into()),
            other => binary = Some(std::path::absolute(other)?),
        }
    }
    let binary = binary.ok_or(USAGE)?;
    Ok(Bench { binary, lasting: Duration::from_secs_f64(seconds), rate })
}

/// Quantiles that are told, and the longest.
const TOLD: [(&str, f64); 4] = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("max", 1.0)];

/// Returns the quantiles of some times, each a time that was measured.
fn quantiles(mut times: Vec<f64>) -> [f64; 4] {
    times.sort_by(f64::total_cmp);
    TOLD.map(|(_, part)| {
        let rank = (part * times.len() as f64).ceil() as usize;
        times.get(rank.saturating_sub(1)).copied().unwrap_or(f64::NAN)
    })
}

fn row(what: &str, figures: [f64; 4]) {
    print!("  {what:12}");
    figures.iter().for_each(|figure| print!("{figure:>10.3}"));
    println!();
}

/// Prints the times of both sides, and how much more the gateway takes.
fn table(kind: Kind, what: &str, times: &[Vec<Times>; 2], of: fn(&Times) -> f64) {
    print!("{:14}", "");
    TOLD.iter().for_each(|(name, _)| print!("{name:>10}"));
    println!(
        "   ms; {}, {what} byte, {} and {} calls",
        kind.name(),
        times[0].len(),
        times[1].len()
    );
    let [direct, gateway] = [0, 1].map(|at| quantiles(times[at].iter().map(of).collect()));
    row("direct", direct);
    row("gateway", gateway);
    row("difference", [0, 1, 2, 3].map(|at| gateway[at] - direct[at]));
}

/// Says how long the recording went on behind what was measured.
fn rest(gateway: &Gateway) {
    match gateway.rest() {
        Some(behind) => println!("  the gateway came to rest {:.1} s later", behind.as_secs_f64()),
        None => println!("  whether the gateway is at rest is not known"),
    }
}

/// Prints calls a second of both sides, with as many callers as fill them.
async fn saturation(gateway: &Gateway, sides: &[Arc<Side>; 2], kind: Kind, lasting: Duration) {
    let slice = lasting / (2 * ROUNDS);
    let mut rates = [Vec::new(), Vec::new()];
    for _ in 0..ROUNDS {
        for (side, rates) in sides.iter().zip(&mut rates) {
            rates.push(as_many(side, kind, CALLERS, slice).await);
        }
        rest(gateway);
    }
    let [direct, through] = rates.map(|rates| rates.iter().sum::<f64>() / f64::from(ROUNDS));
    println!(
        "{}, {CALLERS} callers at once: direct {direct:.0} /s, gateway {through:.0} /s",
        kind.name()
    );
}

/// Prints what the gateway says became of the calls, beside what was sent and what the record has.
async fn account(gateway: Gateway, side: &Side) -> Outcome<()> {
    let health: Value = serde_json::from_slice(&side.get("/health").await?)?;
    let sent = side.called.load(Ordering::Relaxed);
    println!(
        "through the gateway: {sent} sent, {} failed, {} connections; it says {} calls, {} of them \
         not recorded",
        side.failed.load(Ordering::Relaxed),
        side.opened.load(Ordering::Relaxed),
        health["calls"],
        health["calls_not_recorded"],
    );
    let recorded = tokio::task::spawn_blocking(|| gateway.stop()).await??;
    println!("in the record: {recorded} calls");
    Ok(())
}

async fn measure(bench: Bench) -> Outcome<()> {
    let teacher = upstream::start().await?;
    let gateway = Gateway::start(&bench.binary, teacher)?;
    let sides = [Side::new(teacher), Side::new(gateway.address)];
    println!(
        "{} processors; {} calls/s to each side in turns, {} s a part",
        std::thread::available_parallelism().map_or(1, usize::from),
        bench.rate,
        bench.lasting.as_secs_f64()
    );
    for kind in Kind::ALL {
        let _ = at_a_rate(&sides, kind, bench.rate, WARMING).await;
        let times = at_a_rate(&sides, kind, bench.rate, bench.lasting).await;
        if kind != Kind::Whole {
            table(kind, "first", &times, |times| times.first);
        }
        table(kind, "last", &times, |times| times.last);
        rest(&gateway);
    }
    for kind in [Kind::Whole, Kind::Streamed] {
        saturation(&gateway, &sides, kind, bench.lasting).await;
    }
    let failed = sides[0].failed.load(Ordering::Relaxed);
    println!("direct: {} sent, {failed} failed", sides[0].called.load(Ordering::Relaxed));
    account(gateway, &sides[1]).await
}

#[tokio::main]
async fn main() -> ExitCode {
    let bench = arguments(std::env::args().skip(1));
    let measured = match bench {
        Ok(bench) => measure(bench).await,
        Err(error) => Err(error),
    };
    match measured {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
