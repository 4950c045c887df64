//! One run of one engine, in a process of its own: what it prints is one line of JSON.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use trilith::cli::{Exit, Failure};

use crate::disk::{self, Flushes};
use crate::engines::{Kind, Subject};
use crate::load::{Load, Seen};

#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    subject: Subject,
    #[arg(long)]
    bytes: usize,
    #[arg(long)]
    in_flight: usize,
    #[arg(long)]
    warm_up_milliseconds: u64,
    #[arg(long)]
    milliseconds: u64,
}

/// What came of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Measured {
    pub about: String,
    pub acknowledged: u64,
    pub entries_per_s: f64,
    pub p50_us: f64,
    pub p99_us: f64,
    pub p999_us: f64,
    pub max_us: f64,
    /// What the device was sent, where that is counted.
    pub flushes_per_s: Option<f64>,
}

pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let Arguments { subject: Subject { engine: kind, directory, threads, settings }, bytes, in_flight, .. } = arguments;
    let load = Load {
        threads: *threads,
        bytes: *bytes,
        in_flight: *in_flight,
        warm_up: Duration::from_millis(arguments.warm_up_milliseconds),
        time: Duration::from_millis(arguments.milliseconds),
    };
    let engine = kind.open(directory, *threads, settings)?;
    let about = engine.about();
    disk::settle(directory)?;
    let seen = load.run(&*engine, Flushes::of(directory).as_ref())?;
    engine.close()?;
    check_flushes(*kind, &load, &seen)?;
    let measured = measured(about, &seen);
    println!("{}", serde_json::to_string(&measured).expect("numbers and strings are JSON"));
    Ok(())
}

fn measured(about: String, seen: &Seen) -> Measured {
    let seconds = seen.time.as_secs_f64();
    let quantile = |quantile| seen.latency.value_at_quantile(quantile) as f64 / 1000.0;
    Measured {
        about,
        acknowledged: seen.acknowledged,
        entries_per_s: seen.latency.len() as f64 / seconds,
        p50_us: quantile(0.5),
        p99_us: quantile(0.99),
        p999_us: quantile(0.999),
        max_us: quantile(1.0),
        flushes_per_s: seen.flushes.map(|flushes| flushes as f64 / seconds),
    }
}

/// An entry that was acknowledged as durable saw a whole flush of the device between its append and its
/// acknowledgement. So one flush is worth no more acknowledgements than entries can be on their way at once.
pub fn check_flushes(kind: Kind, load: &Load, seen: &Seen) -> Result<(), Failure> {
    let Some(flushes) = seen.flushes else { return Ok(()) };
    let (entries, at_once) = (seen.latency.len(), (load.threads * load.in_flight) as u64);
    if entries <= (flushes + 1) * at_once {
        return Ok(());
    }
    let message = format!(
        "{kind}: acknowledged {entries} entries, at most {at_once} at once, while the device was sent {flushes} flushes"
    );
    Err(Failure::new(Exit::Corrupt, message, "what it acknowledges is not durable: do not compare with it"))
}
