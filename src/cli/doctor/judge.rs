//! What the readings mean for a log.

use std::time::Duration;

use super::readings::Readings;
use super::report::Finding;
use crate::disk::{Backend, FlushTimes, Probed};
use crate::limits::{SEGMENT_BYTES_DEFAULT, SEGMENTS_READY, SEGMENTS_SPARE};

/// The smallest memory for the queues and caches of limits.rs with a small state machine beside them.
const MEMORY_BYTES_MIN: u64 = 1 << 30;
/// The first kernel with all that the io_uring back end asks for.
const KERNEL_MIN: (u64, u64) = (5, 15);
/// Connections, segments and snapshots of a busy node, with room.
const OPEN_FILES_MIN: u64 = 4096;
/// Rings and their buffers.
const LOCKED_BYTES_MIN: u64 = 8 << 20;
/// The segments that stand ready, that in use, and the spare: without them no log begins.
const FREE_BYTES_MIN: u64 = SEGMENT_BYTES_DEFAULT * (SEGMENTS_READY + SEGMENTS_SPARE + 1) as u64;
/// Below this a log has no room to grow.
const FREE_BYTES_GOOD: u64 = 10 * FREE_BYTES_MIN;
/// Above this a lone client waits longer for the disk than for anything else; below the other no disk has been at all.
const FLUSH_SLOW: Duration = Duration::from_millis(5);
const FLUSH_UNBELIEVABLE: Duration = Duration::from_micros(5);

/// One finding for each thing that was read, in the order in which they are printed.
pub fn judge(readings: &Readings) -> Vec<Finding> {
    vec![
        kernel(&readings.kernel_release),
        cores(readings.cores),
        memory(readings.memory_bytes, readings.memory_limit_bytes),
        clock(readings.clock_source.as_deref()),
        io_uring(readings.io_uring_disabled),
        locked_memory(readings.locked_memory_bytes),
        open_files(readings.open_files),
        file_system(readings.file_system),
        free_space(readings.free_bytes),
        direct(readings.direct),
        back_end(&readings.back_end),
        flush(&readings.flush),
    ]
}

fn kernel(release: &str) -> Finding {
    let mut numbers = release.split(|letter: char| !letter.is_ascii_digit()).map(str::parse::<u64>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) if (major, minor) >= KERNEL_MIN => Finding::ok("kernel", release),
        _ => {
            let (major, minor) = KERNEL_MIN;
            Finding::warn(
                "kernel",
                release,
                format!("use Linux {major}.{minor} or later; before it, `io = \"blocking\"`"),
            )
        }
    }
}

fn cores(cores: Option<usize>) -> Finding {
    match cores {
        Some(1) => Finding::warn("cores", "1", "give the node two cores: one for the network, one for the log"),
        Some(count) => Finding::ok("cores", count.to_string()),
        None => Finding::warn("cores", "unknown", "check with `nproc` that this process may use at least two"),
    }
}

fn memory(bytes: Option<u64>, limit_bytes: Option<u64>) -> Finding {
    let usable = [bytes, limit_bytes].into_iter().flatten().min();
    let limited = if limit_bytes.is_some() && usable == limit_bytes { " (limit of the control group)" } else { "" };
    match usable {
        Some(usable) if usable >= MEMORY_BYTES_MIN => Finding::ok("memory", format!("{}{limited}", size(usable))),
        Some(usable) => {
            let next =
                format!("give the node at least {}: its queues alone may fill half of it", size(MEMORY_BYTES_MIN));
            Finding::warn("memory", format!("{}{limited}", size(usable)), next)
        }
        None => Finding::warn("memory", "unknown", format!("check that there is at least {}", size(MEMORY_BYTES_MIN))),
    }
}

/// No safety rests on a clock; a slow one costs a system call at each reading.
fn clock(source: Option<&str>) -> Finding {
    match source {
        Some(name @ ("hpet" | "acpi_pm" | "jiffies" | "pit")) => {
            let next = "use the processor's own (tsc, kvm-clock): each reading of this one takes microseconds";
            Finding::warn("clock source", name, next)
        }
        Some(name) => Finding::ok("clock source", name),
        None => Finding::ok("clock source", "unknown"),
    }
}

fn io_uring(disabled: Option<u64>) -> Finding {
    let next = "`sysctl kernel.io_uring_disabled=0` on the host; without it the blocking back end is used";
    match disabled {
        Some(0) => Finding::ok("io_uring", "not disabled"),
        Some(1) => Finding::warn("io_uring", "for privileged processes (kernel.io_uring_disabled = 1)", next),
        Some(value) => Finding::warn("io_uring", format!("disabled (kernel.io_uring_disabled = {value})"), next),
        None => Finding::ok("io_uring", "no switch in this kernel (before 6.6)"),
    }
}

fn locked_memory(bytes: Option<u64>) -> Finding {
    match bytes {
        None => Finding::ok("locked memory", "unlimited"),
        Some(bytes) if bytes >= LOCKED_BYTES_MIN => Finding::ok("locked memory", size(bytes)),
        Some(bytes) => {
            let next = format!("`ulimit -l {}` or LimitMEMLOCK= of the service, for io_uring", LOCKED_BYTES_MIN >> 10);
            Finding::warn("locked memory", size(bytes), next)
        }
    }
}

fn open_files(limit: Option<u64>) -> Finding {
    match limit {
        None => Finding::ok("open files", "unlimited"),
        Some(limit) if limit >= OPEN_FILES_MIN => Finding::ok("open files", limit.to_string()),
        Some(limit) => {
            let next = format!("`ulimit -n {OPEN_FILES_MIN}` or LimitNOFILE= of the service");
            Finding::warn("open files", limit.to_string(), next)
        }
    }
}

pub fn file_system(magic: u64) -> Finding {
    const NAME: &str = "file system";
    let local = "put the directory on ext4 or XFS on a local disk";
    match magic {
        0xef53 => Finding::ok(NAME, "ext4"),
        0x5846_5342 => Finding::ok(NAME, "xfs"),
        0xf2f5_2010 => Finding::ok(NAME, "f2fs"),
        0x9123_683e => {
            Finding::warn(NAME, "btrfs (copy-on-write)", format!("{local}: each flush writes more than the log"))
        }
        0x2fc1_2fc1 => {
            Finding::warn(NAME, "zfs (copy-on-write)", format!("{local}: each flush writes more than the log"))
        }
        0x794c_7630 => {
            Finding::warn(NAME, "overlay", format!("{local}, as a volume: a container's layer goes with it"))
        }
        0x6573_5546 => Finding::warn(NAME, "fuse", format!("{local}: what a flush means here, its server decides")),
        0x0102_1994 => Finding::bad(NAME, "tmpfs (memory)", format!("{local}: here a restart loses everything")),
        0x8584_58f6 => Finding::bad(NAME, "ramfs (memory)", format!("{local}: here a restart loses everything")),
        0x6969 => Finding::bad(NAME, "nfs", format!("{local}: locks and flushes over a network do not hold")),
        0xff53_4d42 | 0xfe53_4d42 => {
            Finding::bad(NAME, "smb", format!("{local}: locks and flushes over a network do not hold"))
        }
        other => Finding::warn(NAME, format!("unknown ({other:#x})"), format!("{local}: this one was never tested")),
    }
}

fn free_space(bytes: u64) -> Finding {
    if bytes < FREE_BYTES_MIN {
        let next = format!("free at least {}: the segments that a log begins with", size(FREE_BYTES_MIN));
        Finding::bad("free space", size(bytes), next)
    } else if bytes < FREE_BYTES_GOOD {
        let next = format!("free {} or set a retention: the log keeps everything by default", size(FREE_BYTES_GOOD));
        Finding::warn("free space", size(bytes), next)
    } else {
        Finding::ok("free space", size(bytes))
    }
}

fn direct(direct: Option<bool>) -> Finding {
    let next = "put the directory on ext4 or XFS; without O_DIRECT the blocking back end is used";
    match direct {
        Some(true) => Finding::ok("O_DIRECT", "supported"),
        Some(false) => Finding::warn("O_DIRECT", "not supported here", next),
        None => Finding::warn("O_DIRECT", "could not be tried (no O_TMPFILE here)", next),
    }
}

/// What the probe that each start makes would choose.
fn back_end(probed: &Result<Probed, String>) -> Finding {
    const NAME: &str = "back end";
    match probed {
        Ok(probed) if probed.backend == Backend::Uring => Finding::ok(NAME, probed.to_string()),
        Ok(probed) => Finding::warn(NAME, probed.to_string(), "lift what the reason names, for io_uring"),
        Err(error) => Finding::bad(NAME, error, "see that this user may make files in the directory"),
    }
}

fn flush(times: &Result<FlushTimes, String>) -> Finding {
    const NAME: &str = "flush time";
    let times = match times {
        Ok(times) => times,
        Err(error) => return Finding::bad(NAME, error, "see that this user may write in the directory"),
    };
    let microseconds = |time: Duration| time.as_nanos() as f64 / 1000.0;
    let (fdatasync, dsync) = (microseconds(times.fdatasync), microseconds(times.dsync));
    let value = format!("fdatasync {fdatasync:.1} us, dsync {dsync:.1} us");
    match times.fdatasync.min(times.dsync) {
        time if time > FLUSH_SLOW => {
            let next = "use a disk with a write cache that outlives a cut of power: each lone append waits this long";
            Finding::warn(NAME, value, next)
        }
        time if time < FLUSH_UNBELIEVABLE => {
            Finding::warn(NAME, value, "make sure that flushes reach the disk: this is faster than any")
        }
        _ => Finding::ok(NAME, value),
    }
}

/// Bytes for people: one decimal of the largest unit that fits.
fn size(bytes: u64) -> String {
    let units = [(1u64 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match units.into_iter().find(|(unit, _)| bytes >= *unit) {
        Some((unit, name)) => format!("{:.1} {name}", bytes as f64 / unit as f64),
        None => format!("{bytes} B"),
    }
}
