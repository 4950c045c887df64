//! What every figure depends on, whatever is measured.

use std::fs;
use std::path::Path;

use serde::Serialize;

use crate::cli::doctor;

/// The machine, and what lies under a directory.
#[derive(Debug, Serialize)]
pub struct Surroundings {
    version: &'static str,
    kernel: String,
    cores: usize,
    file_system: String,
    /// The block device by name, and what the kernel knows of its cache; `unknown` where there is none.
    device: String,
}

impl Surroundings {
    pub fn of(directory: &Path) -> Surroundings {
        Surroundings {
            version: env!("CARGO_PKG_VERSION"),
            kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            file_system: doctor::file_system(directory),
            device: device(directory).unwrap_or_else(|| "unknown".to_owned()),
        }
    }

    pub fn line(&self) -> String {
        let Surroundings { version, kernel, cores, file_system, device } = self;
        format!("{version}, Linux {kernel}, {cores} cores, {file_system} on {device}")
    }
}

/// File systems of several devices have a number that leads to none.
fn device(directory: &Path) -> Option<String> {
    let number = rustix::fs::stat(directory).ok()?.st_dev;
    let (major, minor) = (rustix::fs::major(number), rustix::fs::minor(number));
    let path = fs::canonicalize(format!("/sys/dev/block/{major}:{minor}")).ok()?;
    let name = path.file_name()?.to_string_lossy().into_owned();
    // A partition has the queue of its disk.
    let queue = [path.join("queue"), path.join("../queue")].into_iter().find(|queue| queue.is_dir())?;
    let said = |file: &str| fs::read_to_string(queue.join(file)).ok().map(|text| text.trim().to_owned());
    let cache = said("write_cache").unwrap_or_else(|| "unknown cache".to_owned());
    let fua = match said("fua").as_deref() {
        Some("1") => "FUA",
        _ => "no FUA",
    };
    Some(format!("{name} ({cache}, {fua})"))
}
