//! `trilith bench disk`: the disk alone, in each of the ways in which a log could use it.
//!
//! Two tables, each measured turn by turn in one run, so that a disk that changes its pace changes all rows: ways to
//! write and flush, on blocks that were written before; and ways to prepare a file ahead of use, with what the first
//! write of its blocks costs then. Beside them stands what a log would choose here.

mod report;

use std::path::PathBuf;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::place::{Place, disk_failure};
use super::surroundings::Surroundings;
use crate::cli::exit::Failure;
use crate::cli::output::{self, Format};
use crate::disk::{
    self, Backend, Directory, Ground, IoChoice, Pace, ProbeError, Surface, SyncMode, Way, choose, probe,
};
use report::Report;

#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    /// Where files are made to measure on, and removed at the end
    #[arg(long, alias = "dir", value_name = "DIR", default_value = ".")]
    directory: PathBuf,
    /// Turns in which everything is measured; medians count
    #[arg(long, default_value = "5", value_parser = clap::value_parser!(u16).range(1..=1000))]
    rounds: u16,
    /// How long each way is measured in each turn
    #[arg(long, default_value = "60", value_parser = clap::value_parser!(u16).range(1..=10_000))]
    milliseconds: u16,
    /// How to print the result
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value = "table")]
    output: Format,
}

/// Sizes of a write.
const SIZES_BYTES: [usize; 3] = [4 << 10, 64 << 10, 1 << 20];
const DEPTHS: [usize; 4] = [1, 2, 4, 8];
/// The file that is written: as long as a segment.
const SURFACE_BYTES: u64 = 64 << 20;

/// One way to write, at each size.
#[derive(Debug)]
struct Row {
    name: String,
    ground: Ground,
    way: Way,
    /// For each size the pace of each turn.
    paces: [Vec<Pace>; SIZES_BYTES.len()],
}

/// One way to prepare, and the first write of each block by a write through O_DSYNC.
#[derive(Debug)]
struct Preparation {
    name: &'static str,
    ground: Ground,
    /// What each turn took; none if kernel, file system or disk do not know it.
    times: Vec<Duration>,
    blocks: Vec<Pace>,
    mebibytes: Vec<Pace>,
}

/// Measures, and prints what came of it.
pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let report = measure(arguments)?;
    output::print(&match arguments.output {
        Format::Table => report.table(),
        Format::Json => report.json(),
    })
}

fn measure(arguments: &Arguments) -> Result<Report, Failure> {
    let place = Place::make(&arguments.directory)?;
    let directory = Directory::open(&place.path).map_err(|error| disk_failure(&error))?;
    let probed = probe(&directory, IoChoice::Auto).map_err(|error| match error {
        ProbeError::Disk(error) => disk_failure(&error),
        // Nothing was insisted on.
        refused @ ProbeError::Refused { .. } => super::refused(&refused),
    })?;
    let (mut rows, mut preparations) = (rows(probed.backend), preparations());
    let measured = measure_all(arguments, &directory, &mut rows, &mut preparations);
    let chosen = measured.and_then(|()| choose(&directory, probed.backend)).map_err(|error| disk_failure(&error))?;
    Ok(Report::new(Surroundings::of(&arguments.directory), probed, chosen, &rows, &preparations))
}

fn measure_all(
    arguments: &Arguments,
    directory: &Directory,
    rows: &mut [Row],
    preparations: &mut [Preparation],
) -> Result<(), disk::Error> {
    let time = Duration::from_millis(u64::from(arguments.milliseconds));
    // Draws on a terminal only, to standard error.
    let steps = u64::from(arguments.rounds) * (rows.len() + preparations.len()) as u64;
    let bar = ProgressBar::new(steps);
    bar.set_style(ProgressStyle::with_template("{bar:30} {eta} left: {msg}").expect("the template is a constant"));
    let surface = Surface::make(directory, Ground::Written, SURFACE_BYTES)?;
    let (mut surface, _) = surface.expect("every disk has written blocks");
    for _ in 0..arguments.rounds {
        for row in &mut *rows {
            bar.set_message(row.name.clone());
            row.turn(directory, &mut surface, time)?;
            bar.inc(1);
        }
        for preparation in &mut *preparations {
            bar.set_message(preparation.name);
            preparation.turn(directory, time)?;
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    Ok(())
}

fn rows(backend: Backend) -> Vec<Row> {
    let row = |name: String, ground, way| Row { name, ground, way, paces: Default::default() };
    let modes = [SyncMode::Fdatasync, SyncMode::Dsync];
    let mut rows = vec![
        row("page cache + fdatasync, growing file".to_owned(), Ground::Growing, Way::Cached),
        row("page cache + fdatasync".to_owned(), Ground::Written, Way::Cached),
    ];
    rows.extend(modes.map(|mode| row(format!("direct, {mode}"), Ground::Written, Way::Caller(mode))));
    // Where io_uring is not to be had there is one back end.
    let backends = [Backend::Blocking, Backend::Uring];
    for backend in backends.into_iter().filter(|&other| other == Backend::Blocking || backend == Backend::Uring) {
        for (sync_mode, depth) in modes.into_iter().flat_map(|mode| DEPTHS.map(|depth| (mode, depth))) {
            let name = format!("{backend}, {sync_mode}, {depth} in flight");
            rows.push(row(name, Ground::Written, Way::Queue { backend, sync_mode, depth }));
        }
    }
    rows
}

fn preparations() -> Vec<Preparation> {
    [
        ("fallocate", Ground::Allocated),
        ("fallocate, ZERO_RANGE", Ground::ZeroRange),
        ("fallocate, WRITE_ZEROES", Ground::WriteZeroes),
        ("zeros written + fdatasync", Ground::Written),
    ]
    .map(|(name, ground)| Preparation { name, ground, times: Vec::new(), blocks: Vec::new(), mebibytes: Vec::new() })
    .into()
}

impl Row {
    fn turn(&mut self, directory: &Directory, written: &mut Surface, time: Duration) -> Result<(), disk::Error> {
        for (&bytes, paces) in SIZES_BYTES.iter().zip(&mut self.paces) {
            paces.push(match self.ground {
                Ground::Written => written.run(self.way, bytes, time)?,
                ground => {
                    // It ends with the time, not with the file.
                    let made = Surface::make(directory, ground, u64::MAX >> 1)?;
                    let (mut surface, _) = made.expect("every disk has it");
                    surface.run(self.way, bytes, time)?
                }
            });
        }
        Ok(())
    }
}

impl Preparation {
    fn turn(&mut self, directory: &Directory, time: Duration) -> Result<(), disk::Error> {
        let Some((mut surface, took)) = Surface::make(directory, self.ground, SURFACE_BYTES)? else { return Ok(()) };
        self.times.push(took);
        // Written blocks are written in rounds: they are not used up.
        let way = Way::Caller(SyncMode::Dsync);
        self.blocks.push(surface.run(way, SIZES_BYTES[0], time)?);
        self.mebibytes.push(surface.run(way, SIZES_BYTES[2], time)?);
        Ok(())
    }
}
